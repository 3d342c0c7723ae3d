//! What a call would do, before anybody decides whether it may: what it touches, and what it can cost.

use std::sync::Arc;
use std::time::Duration;

use aion_manifest::{Capability, parse_capabilities};
use aion_syscall::{Engine, EngineKind, Limit, Need, Reason, Refusal, Request};
use aion_types::{ErrorCode, TenantId};
use serde_json::Value;

use crate::memory;
use crate::tools::{self, Installed, Tools};

/// A call of the kernel's own takes no longer.
const KERNEL_TIMEOUT: Duration = Duration::from_secs(10);

/// What is to be done.
#[derive(Clone)]
pub(crate) enum Work {
    MemoryPut,
    MemoryGet,
    MemoryQuery,
    MemoryDelete,
    Tool(Arc<Installed>, Value),
    ToolList,
}

/// A call that is understood.
#[derive(Clone)]
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
}

pub(crate) fn kernel_engine() -> Engine {
    Engine { kind: EngineKind::Kernel, name: format!("aion@{}", env!("CARGO_PKG_VERSION")) }
}

/// The calls that this kernel has.
pub(crate) const SYSCALLS: [&str; 6] =
    ["tool.invoke", "tool.list", "memory.put", "memory.get", "memory.query", "memory.delete"];

pub(crate) fn plan(request: &Request, tenant: &TenantId, tools: &Tools) -> Result<Plan, Refusal> {
    let kernel = |work, needs, target: &str| Plan {
        work,
        needs,
        target: target.to_owned(),
        most: Limit::default(),
        price: Limit::default(),
        engine: kernel_engine(),
        timeout: KERNEL_TIMEOUT,
    };
    let key = request.params.get("key").and_then(Value::as_str).unwrap_or_default();
    match request.syscall.as_str() {
        "memory.put" => Ok(kernel(Work::MemoryPut, memory_needs(request, "put")?, key)),
        "memory.delete" => Ok(kernel(Work::MemoryDelete, memory_needs(request, "put")?, key)),
        "memory.get" => Ok(kernel(Work::MemoryGet, memory_needs(request, "query")?, key)),
        "memory.query" => Ok(kernel(Work::MemoryQuery, memory_needs(request, "query")?, "")),
        "tool.list" => Ok(kernel(Work::ToolList, Vec::new(), "")),
        "tool.invoke" => tool(request, tenant, tools),
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

fn tool(request: &Request, tenant: &TenantId, tools: &Tools) -> Result<Plan, Refusal> {
    let name = match request.params.get("tool") {
        Some(Value::String(name)) => name,
        Some(_) => return Err(Refusal::field("params.tool", "it is not a text")),
        None => return Err(Refusal::field("params.tool", "it is missing: which tool is it?")),
    };
    let installed = tools.find(tenant, name).ok_or_else(|| tools::not_found(name))?;
    let tool = &installed.tool;
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
        work: Work::Tool(installed, arguments),
    })
}
