//! Tenants, tools, models, decisions and usage, as their commands show them.

use std::fmt::Write as _;

use aion_client::api;
use comfy_table::Table;
use serde::Serialize;
use serde_json::Value;

use crate::output::{cell, table};
use crate::text::{clean_line, shorten};
use crate::when::Moment;

fn time(stamp: Option<&prost_types::Timestamp>) -> String {
    Moment::from_api(stamp).map_or_else(String::new, Moment::rfc3339)
}

/// The JSON of a tenant.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct TenantView {
    pub(crate) name: String,
    created: String,
    require_timestamp: bool,
    allow: Vec<String>,
    deny: Vec<String>,
    rate_per_second: Option<u32>,
    usd_per_hour: Option<f64>,
    tokens_per_hour: Option<u64>,
    secrets: Vec<SecretView>,
}

#[derive(Debug, Clone, Serialize)]
struct SecretView {
    id: String,
    created: String,
    /// Until when it is good; null: until it is rotated.
    until: Option<String>,
}

impl From<api::Tenant> for TenantView {
    fn from(tenant: api::Tenant) -> Self {
        let settings = tenant.settings.unwrap_or_default();
        Self {
            name: tenant.name,
            created: time(tenant.created.as_ref()),
            require_timestamp: settings.require_timestamp,
            allow: settings.allow,
            deny: settings.deny,
            rate_per_second: settings.rate_per_second,
            usd_per_hour: settings.usd_per_hour,
            tokens_per_hour: settings.tokens_per_hour,
            secrets: tenant
                .secrets
                .iter()
                .map(|secret| SecretView {
                    id: secret.id.clone(),
                    created: time(secret.created.as_ref()),
                    until: secret.until.as_ref().map(|until| time(Some(until))),
                })
                .collect(),
        }
    }
}

fn or_dash(text: impl Into<String>) -> String {
    let text = text.into();
    if text.is_empty() { "-".to_owned() } else { text }
}

pub(crate) fn tenants_table(tenants: &[TenantView]) -> Table {
    let mut table = table(&["NAME", "SECRETS", "TIMESTAMP", "RATE", "USD/H", "TOKENS/H", "RULES"]);
    for tenant in tenants {
        let number = |n: Option<String>| cell(or_dash(n.unwrap_or_default()));
        let rules = tenant.allow.iter().cloned().chain(tenant.deny.iter().map(|rule| format!("!{rule}")));
        table.add_row(vec![
            cell(&tenant.name),
            cell(tenant.secrets.len().to_string()),
            cell(if tenant.require_timestamp { "required" } else { "-" }),
            number(tenant.rate_per_second.map(|n| n.to_string())),
            number(tenant.usd_per_hour.map(|n| n.to_string())),
            number(tenant.tokens_per_hour.map(|n| n.to_string())),
            cell(or_dash(rules.collect::<Vec<_>>().join(","))),
        ]);
    }
    table
}

/// The JSON of a tool.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ToolView {
    pub(crate) name: String,
    pub(crate) version: String,
    /// Empty: for all.
    tenant: String,
    description: String,
    requires: Vec<String>,
    digest: String,
    /// SHA-256 of the public key that signed it; empty: not signed.
    signed_by: String,
    installed: String,
    input: Value,
    output: Value,
}

impl From<api::Tool> for ToolView {
    fn from(tool: api::Tool) -> Self {
        let json = |text: &str| serde_json::from_str(text).unwrap_or(Value::Null);
        Self {
            installed: time(tool.installed.as_ref()),
            input: json(&tool.input_schema_json),
            output: json(&tool.output_schema_json),
            name: tool.name,
            version: tool.version,
            tenant: tool.tenant,
            description: tool.description,
            requires: tool.requires,
            digest: tool.digest,
            signed_by: tool.signed_by,
        }
    }
}

pub(crate) fn tools_table(tools: &[ToolView]) -> Table {
    let mut table = table(&["NAME", "VERSION", "TENANT", "REQUIRES", "DESCRIPTION"]);
    for tool in tools {
        table.add_row(vec![
            cell(&tool.name),
            cell(&tool.version),
            cell(if tool.tenant.is_empty() { "(all)" } else { &tool.tenant }),
            cell(or_dash(tool.requires.join(","))),
            cell(or_dash(shorten(&tool.description, 60))),
        ]);
    }
    table
}

/// The JSON of a model. Its key is not in it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ModelView {
    pub(crate) name: String,
    url: String,
    upstream: String,
    local: bool,
    kinds: Vec<String>,
    aliases: Vec<String>,
    context_tokens: u32,
    max_output_tokens: u32,
    usd_per_mtok_in: f64,
    usd_per_mtok_out: f64,
}

impl From<api::Model> for ModelView {
    fn from(model: api::Model) -> Self {
        Self {
            name: model.name,
            url: model.url,
            upstream: model.upstream,
            local: model.local,
            kinds: model.kinds,
            aliases: model.aliases,
            context_tokens: model.context_tokens,
            max_output_tokens: model.max_output_tokens,
            usd_per_mtok_in: model.usd_per_mtok_in,
            usd_per_mtok_out: model.usd_per_mtok_out,
        }
    }
}

pub(crate) fn models_table(models: &[ModelView]) -> Table {
    let mut table = table(&["NAME", "WHERE", "KINDS", "ALIASES", "USD/MTOK", "URL"]);
    for model in models {
        table.add_row(vec![
            cell(&model.name),
            cell(if model.local { "local" } else { "cloud" }),
            cell(model.kinds.join(",")),
            cell(or_dash(model.aliases.join(","))),
            cell(format!("{}/{}", model.usd_per_mtok_in, model.usd_per_mtok_out)),
            cell(&model.url),
        ]);
    }
    table
}

/// The JSON of an account.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct UsageView {
    kind: String,
    tenant: String,
    name: String,
    since: String,
    usd: f64,
    tokens: u64,
}

impl UsageView {
    pub(crate) fn name(&self) -> String {
        format!("{}/{}/{}", self.kind, self.tenant, self.name)
    }
}

impl From<api::AccountUsage> for UsageView {
    fn from(account: api::AccountUsage) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "amounts are far below 2^53 millionths")]
        let usd = account.usd_micros as f64 / 1e6;
        Self {
            kind: account.kind,
            tenant: account.tenant,
            name: account.name,
            since: time(account.since.as_ref()),
            usd,
            tokens: account.tokens,
        }
    }
}

pub(crate) fn usage_table(accounts: &[UsageView]) -> Table {
    let mut table = table(&["ACCOUNT", "TENANT", "NAME", "SINCE", "USD", "TOKENS"]);
    for account in accounts {
        table.add_row(vec![
            cell(&account.kind),
            cell(&account.tenant),
            cell(or_dash(account.name.clone())),
            cell(&account.since),
            cell(format!("{:.6}", account.usd)),
            cell(account.tokens.to_string()),
        ]);
    }
    table
}

/// A decision, as the daemon wrote it down.
#[derive(Debug, Clone)]
pub(crate) struct DecisionView(pub(crate) Value);

impl DecisionView {
    pub(crate) fn parse(text: &str) -> serde_json::Result<Self> {
        serde_json::from_str(text).map(Self)
    }

    fn text(&self, path: &str) -> String {
        match self.0.pointer(path) {
            Some(Value::String(text)) => clean_line(text),
            None | Some(Value::Null) => String::new(),
            Some(other) => clean_line(&other.to_string()),
        }
    }

    /// What names it: a call's audit id, a record's number.
    pub(crate) fn audit_id(&self) -> String {
        self.text(if self.is_record() { "/record/seq" } else { "/audit_id" })
    }

    /// Whether it is a record of the audit log, and no system call of the kernel API.
    pub(crate) fn is_record(&self) -> bool {
        self.0.get("record").is_some()
    }

    fn lines(&self, path: &str) -> Vec<String> {
        let lines = self.0.pointer(path).and_then(Value::as_array);
        lines.into_iter().flatten().filter_map(Value::as_str).map(clean_line).collect()
    }
}

/// A denial of the kernel for people: what it was, which layer refused it, and what would allow it.
pub(crate) fn record_text(view: &DecisionView) -> String {
    let mut out = String::new();
    let nanos = view.0.pointer("/record/time_ns").and_then(Value::as_u64).unwrap_or(0);
    // Writing to a String does not fail.
    let _ = writeln!(
        out,
        "{}  {}  {} {}",
        view.text("/record/seq"),
        Moment(i128::from(nanos)).rfc3339(),
        view.text("/record/kind"),
        view.text("/record/verdict")
    );
    let agent = match view.text("/record/agent_name") {
        name if name.is_empty() => view.text("/record/agent"),
        name => name,
    };
    for (name, text) in [
        ("agent", agent),
        ("about", view.text("/record/detail")),
        ("layer", view.text("/layer")),
        ("rule", view.text("/rule")),
        ("why", view.text("/why")),
    ] {
        if !text.is_empty() {
            let _ = writeln!(out, "  {name:<8}{text}");
        }
    }
    for (name, path) in [("allow", "/allow"), ("note", "/notes")] {
        for line in view.lines(path) {
            let _ = writeln!(out, "  {name:<8}{line}");
        }
    }
    out
}

/// A decision for people: what was asked, each step with its rule, and how it ended.
pub(crate) fn decision_text(view: &DecisionView) -> String {
    let mut out = String::new();
    let nanos = view.0.get("time_ns").and_then(Value::as_u64).unwrap_or(0);
    // Writing to a String does not fail.
    let _ = writeln!(out, "{}  {}", view.text("/audit_id"), Moment(i128::from(nanos)).rfc3339());
    for (name, path) in [
        ("call", "/syscall"),
        ("about", "/target"),
        ("agent", "/agent"),
        ("caller", "/caller"),
        ("task", "/task"),
        ("trace", "/trace"),
        ("engine", "/engine/name"),
    ] {
        let text = view.text(path);
        if !text.is_empty() {
            let _ = writeln!(out, "  {name:<8}{text}");
        }
    }
    let steps = view.0.pointer("/decision/steps").and_then(Value::as_array).cloned().unwrap_or_default();
    if !steps.is_empty() {
        out.push_str("  decided by\n");
    }
    for step in &steps {
        let word =
            |key: &str| clean_line(step.get(key).and_then(Value::as_str).unwrap_or_default()).to_string();
        let verdict = if step.get("allowed") == Some(&Value::Bool(true)) { "allow" } else { "DENY" };
        let _ = writeln!(out, "    {verdict:<6}{:<10}{}: {}", word("layer"), word("about"), word("rule"));
    }
    let estimated = view.0.pointer("/usage/estimated") == Some(&Value::Bool(true));
    let _ = writeln!(
        out,
        "  ended   {} after {} ms, {} USD{}",
        view.text("/status"),
        view.text("/usage/latency_ms"),
        view.text("/usage/cost_usd"),
        if estimated { " (estimated)" } else { "" }
    );
    if view.0.get("error").is_some_and(|error| !error.is_null()) {
        let _ = writeln!(out, "  error   {}: {}", view.text("/error/code"), view.text("/error/message"));
        let hint = view.text("/error/hint");
        if !hint.is_empty() {
            let _ = writeln!(out, "  hint    {hint}");
        }
    }
    out
}
