//! What a call would do, before anybody decides whether it may: what it touches, and what it can cost.

use std::sync::Arc;
use std::time::Duration;

use aion_manifest::{Capability, McpEntry, ToolEntry, parse_capabilities};
use aion_models::{Kind, Models, Plan as ModelPlan};
use aion_syscall::{Engine, EngineKind, Limit, Need, Reason, Refusal, Request};
use aion_types::{ErrorCode, TenantId};
use serde_json::Value;

use crate::approvals::Question;
use crate::fetch::Fetch;
use crate::files::FileCall;
use crate::mail::MailCall;
use crate::memory;
use crate::models;
use crate::tool_call;
use crate::tools::{self, Installed, Tools};

/// A call of the kernel's own takes no longer.
const KERNEL_TIMEOUT: Duration = Duration::from_secs(10);

/// A person is waited for a little less.
const ASK_TIMEOUT: Duration = Duration::from_secs(605);

/// What is to be done.
pub(crate) enum Work {
    MemoryPut,
    MemoryGet,
    MemoryQuery,
    MemoryDelete,
    Tool(Arc<Installed>, Value),
    ToolList,
    Model(Box<ModelPlan>),
    ModelList,
    Ask(Question),
    Fetch(Box<Fetch>),
    File(Box<FileCall>),
    Mail(MailCall),
}

/// A call that is understood.
pub(crate) struct Plan {
    pub(crate) work: Work,
    pub(crate) needs: Vec<Need>,
    pub(crate) target: String,
    /// The most that it can cost.
    pub(crate) most: Limit,
    /// What it costs when it is done, where that is known before.
    pub(crate) price: Limit,
    pub(crate) engine: Engine,
    pub(crate) timeout: Duration,
    /// The rule that keeps the caller's data on this host, where the work would be done on another.
    pub(crate) kept_here: Option<&'static str>,
}

pub(crate) fn kernel_engine() -> Engine {
    Engine { kind: EngineKind::Kernel, name: format!("aion@{}", env!("CARGO_PKG_VERSION")) }
}

/// The calls that this kernel has.
pub(crate) const SYSCALLS: [&str; 19] = [
    "tool.invoke",
    "tool.list",
    "model.generate",
    "model.embed",
    "model.list",
    "memory.put",
    "memory.get",
    "memory.query",
    "memory.delete",
    "net.fetch",
    "secret.use",
    "fs.read",
    "fs.write",
    "fs.list",
    "fs.stat",
    "agent.list",
    "agent.send",
    "agent.receive",
    "approval.request",
];

/// What calls are planned with.
pub(crate) struct With<'a> {
    pub(crate) tenant: &'a TenantId,
    pub(crate) tools: &'a Tools,
    pub(crate) models: &'a Models,
    /// Whether the caller's data may leave the host.
    pub(crate) allow_cloud: bool,
    /// Whether this host talks to no other.
    pub(crate) offline: bool,
}

pub(crate) fn plan(request: &Request, with: &With<'_>) -> Result<Plan, Refusal> {
    let kernel = |work, needs, target: &str| Plan {
        work,
        needs,
        target: target.to_owned(),
        most: Limit::default(),
        price: Limit::default(),
        engine: kernel_engine(),
        timeout: KERNEL_TIMEOUT,
        kept_here: None,
    };
    let key = request.params.get("key").and_then(Value::as_str).unwrap_or_default();
    match request.syscall.as_str() {
        "memory.put" => Ok(kernel(Work::MemoryPut, memory_needs(request, "put")?, key)),
        "memory.delete" => Ok(kernel(Work::MemoryDelete, memory_needs(request, "put")?, key)),
        "memory.get" => Ok(kernel(Work::MemoryGet, memory_needs(request, "query")?, key)),
        "memory.query" => Ok(kernel(Work::MemoryQuery, memory_needs(request, "query")?, "")),
        "approval.request" => {
            let question = Work::Ask(Question::read(&request.params)?);
            Ok(Plan { timeout: ASK_TIMEOUT, ..kernel(question, Vec::new(), "") })
        }
        "tool.list" => Ok(kernel(Work::ToolList, Vec::new(), "")),
        "tool.invoke" => tool(request, with),
        "model.list" => Ok(kernel(Work::ModelList, Vec::new(), "")),
        "model.generate" => model(request, Kind::Generate, with),
        "model.embed" => model(request, Kind::Embed, with),
        "fs.read" | "fs.write" | "fs.list" | "fs.stat" => {
            let call = FileCall::read(request.syscall.as_str(), &request.params)?;
            let (needs, path) = (call.needs(), call.path().to_owned());
            Ok(kernel(Work::File(Box::new(call)), needs, &path))
        }
        "agent.list" | "agent.send" | "agent.receive" => {
            let call = MailCall::read(request.syscall.as_str(), &request.params, with.tenant)?;
            let (needs, to, wait) = (call.needs()?, call.target().to_owned(), call.wait());
            Ok(Plan { timeout: KERNEL_TIMEOUT + wait, ..kernel(Work::Mail(call), needs, &to) })
        }
        "net.fetch" => fetch(Fetch::plain(request)?),
        "secret.use" => fetch(Fetch::with_secret(request)?),
        unknown => {
            let message = format!("this kernel has no system call {unknown}");
            Err(Refusal::new(Reason::NotFound, ErrorCode::SyscallUnknown, message)
                .at("syscall")
                .hint(format!("it has {}", SYSCALLS.join(", "))))
        }
    }
}

fn memory_needs(request: &Request, op: &str) -> Result<Vec<Need>, Refusal> {
    let kind = memory::Kind::of(&request.params)?;
    needs(&format!("memory:{op}:{}", kind.as_str()), "")
}

fn needs(text: &str, word: &str) -> Result<Vec<Need>, Refusal> {
    let capabilities = parse_capabilities(text).map_err(|message| Refusal::field("params", message))?;
    Ok(all(capabilities, word).collect())
}

fn all(capabilities: Vec<Capability>, word: &str) -> impl Iterator<Item = Need> {
    capabilities.into_iter().map(move |capability| Need { capability, word: word.to_owned() })
}

fn model(request: &Request, kind: Kind, with: &With<'_>) -> Result<Plan, Refusal> {
    let asked = models::request(kind, &request.params)?;
    let planned = models::plan(with.models, &asked, with.allow_cloud)?;
    let quote = planned.quote();
    let name = quote.model.clone();
    let most = Limit { usd_micros: quote.usd_micros_max, tokens: quote.tokens_max };
    let config = with.models.list().into_iter().find(|config| config.name == name);
    Ok(Plan {
        needs: needs(&format!("model:{name}"), "")?,
        most,
        price: Limit::default(),
        engine: Engine { kind: EngineKind::Model, name: name.clone() },
        timeout: Duration::from_millis(config.map_or(120_000, |config| config.timeout_ms)),
        target: name,
        kept_here: None,
        work: Work::Model(Box::new(planned)),
    })
}

fn fetch(fetch: Fetch) -> Result<Plan, Refusal> {
    Ok(Plan {
        needs: fetch.needs()?,
        target: fetch.target(),
        most: Limit::default(),
        price: Limit::default(),
        engine: kernel_engine(),
        timeout: fetch.timeout(),
        kept_here: None,
        work: Work::Fetch(Box::new(fetch)),
    })
}

fn tool(request: &Request, with: &With<'_>) -> Result<Plan, Refusal> {
    let name = match request.params.get("tool") {
        Some(Value::String(name)) => name,
        Some(_) => return Err(Refusal::field("params.tool", "it is not a text")),
        None => return Err(Refusal::field("params.tool", "it is missing: which tool is it?")),
    };
    let installed = with.tools.find(with.tenant, name).ok_or_else(|| tools::not_found(name))?;
    with.tools.check_signed(&installed)?;
    let tool = &installed.tool;
    let is_elsewhere = match &tool.entry {
        ToolEntry::Mcp(McpEntry::Http(url)) => !tool_call::is_local(url),
        _ => false,
    };
    let kept_here = match (with.offline, with.allow_cloud) {
        _ if !is_elsewhere => None,
        (true, _) => Some("OFFLINE_MODE"),
        (false, false) => Some("spec.policy_overrides.privacy.allow_cloud: false"),
        (false, true) => None,
    };
    let mut arguments = request.params.clone();
    arguments.remove("tool");
    let arguments = Value::Object(arguments);
    let mut list = needs(&format!("tool:{}", tool.name), "")?;
    for (word, capabilities) in &tool.requires {
        list.extend(all(capabilities.clone(), &format!("{word}, which tool {} requires", tool.name)));
    }
    let price = Limit { usd_micros: tool.usd_micros, tokens: 0 };
    Ok(Plan {
        target: tool.name.clone(),
        needs: list,
        most: price,
        price,
        engine: Engine { kind: EngineKind::Module, name: format!("tooling/{}@{}", tool.name, tool.version) },
        timeout: Duration::from_millis(tool.timeout_ms),
        kept_here,
        work: Work::Tool(installed, arguments),
    })
}
