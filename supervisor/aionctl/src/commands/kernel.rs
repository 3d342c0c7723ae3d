//! `tenant`, `tool`, `model`, `explain`, `usage`: the kernel API from the operator's side.

use std::time::Duration;

use aion_client::{Client, api, duration};
use aion_types::ErrorCode;
use serde_json::{Map, Value};

use super::flags::{Flag, secret, told};
use super::tool_files::{files_of, folder_of};
use crate::cli::{
    ExplainArgs, ModelAdd, ModelCommand, TenantCommand, TenantSettings, ToolCommand, ToolInvoke,
};
use crate::failure::{Failure, Outcome, USAGE};
use crate::output::{Printer, lines, note};
use crate::source::Source;
use crate::view::kernel::{
    DecisionView, ModelView, TenantView, ToolView, UsageView, decision_text, models_table, record_text,
    tenants_table, tools_table, usage_table,
};

/// What is said of a model, as fields of it and as flags.
const OF_MODEL: [Flag; 14] = [
    ("name", "NAME", "it is what agents ask for, as llama3:8b"),
    ("url", "--url", "write the API's base, as http://127.0.0.1:8080/v1"),
    ("key", "--key-file", "the file holds the key alone"),
    ("upstream", "--upstream", "write the name that the backend knows it by"),
    ("aliases", "--alias", "write other names of it, or * alone for all names that nothing else has"),
    ("kinds", "--kind", "write generate or embed"),
    ("usd_per_mtok_in", "--usd-in", "write US dollars for a million tokens, as 0.5"),
    ("usd_per_mtok_out", "--usd-out", "write US dollars for a million tokens, as 1.5"),
    ("max_output_tokens", "--max-output", "write the most tokens of an answer, as 4096"),
    ("output_limit", "--output-limit", "write max_tokens or max_completion_tokens"),
    ("context_tokens", "--context", "write the tokens of its context, as 8192"),
    ("timeout_ms", "--timeout", "write a length of time, as 2m"),
    ("max_retries", "--retries", "write 0 to 10"),
    ("cache_ttl_s", "--cache", "write a length of time, as 10m"),
];
/// The same of a tenant.
const OF_TENANT: [Flag; 5] = [
    ("secret", "--secret-file", "`printf %s \"$(openssl rand -hex 32)\" >FILE` makes a good one"),
    ("allow", "--allow", "write a capability, as network or net:connect:HOST:PORT"),
    ("deny", "--deny", "write a capability, as gpu"),
    ("rate_per_second", "--rate", "write calls in a second, as 100"),
    ("overlap", "--overlap", "wait until one of its secrets has ended, or rotate with --overlap 0"),
];

fn settings(given: TenantSettings) -> Option<api::TenantSettings> {
    Some(api::TenantSettings {
        require_timestamp: given.require_timestamp,
        allow: given.allow,
        deny: given.deny,
        rate_per_second: given.rate,
        usd_per_hour: given.usd_per_hour,
        tokens_per_hour: given.tokens_per_hour,
    })
}

pub(super) async fn tenant(client: &Client, command: TenantCommand, printer: Printer) -> Outcome {
    let done = match command {
        TenantCommand::Add { name, secret_file, settings: given } => {
            let request = api::AddTenantRequest {
                name,
                secret: secret("--secret-file", &secret_file)?,
                settings: settings(given),
            };
            client.add_tenant(request).await.map_err(|error| told(error, &OF_TENANT))?
        }
        TenantCommand::Set { name, settings: given } => {
            let request = api::SetTenantRequest { name, settings: settings(given) };
            client.set_tenant(request).await.map_err(|error| told(error, &OF_TENANT))?
        }
        TenantCommand::Rotate { name, secret_file, overlap } => {
            let request = api::RotateTenantRequest {
                name,
                secret: secret("--secret-file", &secret_file)?,
                overlap: overlap.map(duration),
            };
            client.rotate_tenant(request).await.map_err(|error| told(error, &OF_TENANT))?
        }
        TenantCommand::Revoke { name } => {
            client.revoke_tenant(api::RevokeTenantRequest { name: name.clone() }).await?;
            return lines([name]).map(|()| 0);
        }
        TenantCommand::Ls => {
            let tenants = client.tenants(api::ListTenantsRequest {}).await?.tenants;
            let views: Vec<_> = tenants.into_iter().map(TenantView::from).collect();
            printer.items(&views, |tenant| tenant.name.clone(), || tenants_table(&views))?;
            return Ok(0);
        }
        TenantCommand::Token { name, agent } => {
            let request = api::MintTokenRequest { agent: format!("agent://{name}/{agent}") };
            return lines([client.mint_token(request).await?.token]).map(|()| 0);
        }
    };
    let view = TenantView::from(done);
    printer.document(&view, &view.name, || format!("{}\n", view.name)).map(|()| 0)
}

pub(super) async fn tool(
    client: &Client,
    command: ToolCommand,
    tenant: Option<String>,
    printer: Printer,
) -> Outcome {
    let tenant = tenant.unwrap_or_default();
    match command {
        ToolCommand::Install { file } => {
            let source = Source::read(&file)?;
            let files = files_of(&source, folder_of(&file), false)?;
            let Source { bytes: manifest, name: manifest_name, signature } = source;
            let request = api::InstallToolRequest { tenant, manifest, manifest_name, files, signature };
            let view = ToolView::from(client.install_tool(request).await?);
            printer.document(&view, &view.name, || format!("{} {} installed\n", view.name, view.version))?;
        }
        ToolCommand::Ls => {
            let tools = client.tools(api::ListToolsRequest {}).await?.tools;
            let views: Vec<_> = tools.into_iter().map(ToolView::from).collect();
            printer.items(&views, |tool| tool.name.clone(), || tools_table(&views))?;
        }
        ToolCommand::Rm { names } => {
            for name in names {
                let request = api::RemoveToolRequest { tenant: tenant.clone(), name: name.clone() };
                client.remove_tool(request).await?;
                lines([name])?;
            }
        }
        ToolCommand::Invoke(args) => return invoke(client, args, &tenant, printer).await,
    }
    Ok(0)
}

fn arguments(args: &ToolInvoke) -> Outcome<Map<String, Value>> {
    if let Some(params) = &args.params {
        return serde_json::from_str(params)
            .map_err(|error| Failure::new(USAGE, format!("--params is not a JSON object: {error}")));
    }
    let mut map = Map::new();
    for word in &args.arguments {
        let (key, value) = match (word.split_once(":="), word.split_once('=')) {
            (Some((key, json)), Some((before, _))) if key.len() < before.len() => {
                let value = serde_json::from_str(json)
                    .map_err(|error| Failure::new(USAGE, format!("{word:?}: this is not JSON: {error}")))?;
                (key, value)
            }
            (_, Some((key, text))) => (key, Value::String(text.to_owned())),
            _ => return Err(Failure::new(USAGE, format!("{word:?} is neither KEY=TEXT nor KEY:=JSON"))),
        };
        map.insert(key.to_owned(), value);
    }
    Ok(map)
}

async fn invoke(client: &Client, args: ToolInvoke, tenant: &str, printer: Printer) -> Outcome {
    let mut params = arguments(&args)?;
    params.insert("tool".to_owned(), Value::String(args.name.clone()));
    let tenant = if tenant.is_empty() { "default" } else { tenant };
    let agent = args.agent.map_or_else(String::new, |agent| match agent.starts_with("agent://") {
        true => agent,
        false => format!("agent://{tenant}/{agent}"),
    });
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let request = api::SyscallRequest {
        syscall: "tool.invoke".to_owned(),
        agent,
        params_json: Value::Object(params).to_string(),
        latency_ms: args.timeout.map(millis),
        ..Default::default()
    };
    let answer = client.invoke(request).await?;
    if let Some(error) = answer.error {
        if !answer.audit_id.is_empty() {
            note(&format!("aionctl explain {} shows how it was decided", answer.audit_id));
        }
        let code = ErrorCode::parse(&error.code).unwrap_or(ErrorCode::Internal);
        let failure = Failure::coded(code, error.message);
        return Err(if error.hint.is_empty() { failure } else { failure.hint(error.hint) });
    }
    let result: Value = serde_json::from_str(&answer.result_json).unwrap_or(Value::Null);
    let text = || serde_json::to_string_pretty(&result).unwrap_or_default() + "\n";
    printer.document(&result, &answer.audit_id, text).map(|()| 0)
}

pub(super) async fn model(client: &Client, command: ModelCommand, printer: Printer) -> Outcome {
    match command {
        ModelCommand::Add(args) => add_model(client, *args, printer).await?,
        ModelCommand::Ls => {
            let models = client.models(api::ListModelsRequest {}).await?.models;
            let views: Vec<_> = models.into_iter().map(ModelView::from).collect();
            printer.items(&views, |model| model.name.clone(), || models_table(&views))?;
        }
        ModelCommand::Rm { names } => {
            for name in names {
                client.remove_model(api::RemoveModelRequest { name: name.clone() }).await?;
                lines([name])?;
            }
        }
    }
    Ok(0)
}

async fn add_model(client: &Client, args: ModelAdd, printer: Printer) -> Outcome<()> {
    let key =
        args.key_file.as_deref().map(|path| secret("--key-file", path)).transpose()?.unwrap_or_default();
    let model = api::Model {
        name: args.name,
        url: args.url,
        upstream: args.upstream.unwrap_or_default(),
        local: args.local,
        usd_per_mtok_in: args.usd_in,
        usd_per_mtok_out: args.usd_out,
        max_output_tokens: args.max_output,
        context_tokens: args.context,
        timeout: args.timeout.map(duration),
        max_retries: args.retries,
        cache_ttl: args.cache.map(duration),
        aliases: args.aliases,
        kinds: args.kinds,
        output_limit: args.output_limit,
    };
    let added = client.add_model(api::AddModelRequest { model: Some(model), key }).await;
    let view = ModelView::from(added.map_err(|error| told(error, &OF_MODEL))?);
    printer.document(&view, &view.name, || format!("{} added\n", view.name))
}

pub(super) async fn explain(client: &Client, args: ExplainArgs, printer: Printer) -> Outcome {
    let (audit_id, agent) = (args.audit_id.unwrap_or_default(), args.agent.unwrap_or_default());
    let answer = client.explain(api::ExplainRequest { audit_id, agent }).await?;
    let view = DecisionView::parse(&answer.decision_json)
        .map_err(|error| Failure::new(1, format!("the daemon's answer cannot be read: {error}")))?;
    let text = || if view.is_record() { record_text(&view) } else { decision_text(&view) };
    printer.document(&view.0, &view.audit_id(), text).map(|()| 0)
}

pub(super) async fn usage(client: &Client, printer: Printer) -> Outcome {
    let accounts = client.usage(api::KernelUsageRequest {}).await?.accounts;
    let views: Vec<_> = accounts.into_iter().map(UsageView::from).collect();
    printer.items(&views, UsageView::name, || usage_table(&views)).map(|()| 0)
}
