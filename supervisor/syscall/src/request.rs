//! A request of the contract `aion.syscall.v1`, read once and bounded.
//!
//! What is optional in the contract may be missing here. Fields that the contract does not know are refused, because a misspelt
//! budget would be no budget; inside `context` and `params` anything goes.

use aion_manifest::{Capability, parse_capabilities};
use aion_types::{AgentUri, TraceParent};
use serde_json::{Map, Value};

use crate::name::SyscallName;
use crate::refusal::{Reason, Refusal};

/// The contract's name.
pub const SCHEMA: &str = "aion.syscall.v1";
/// The largest body of a request, in bytes.
pub const MAX_BODY: usize = 4 << 20;

/// Capabilities that a request may name.
const MAX_CAPS: usize = 64;
/// The longest id of a task or a trace.
const MAX_ID: usize = 128;
/// The longest a call may be given: ten minutes.
const MAX_LATENCY_MS: u64 = 600_000;
const KNOWN: [&str; 7] = ["schema", "syscall", "agent_id", "context", "caps_required", "params", "budget"];

/// Where a call belongs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CallContext {
    /// The task that it is made for; may be empty.
    pub task_id: String,
    /// The caller's trace; may be empty.
    pub trace_id: String,
    /// The caller's span, when it is of that trace.
    pub parent: Option<TraceParent>,
}

/// What a call may cost at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Budget {
    /// Millionths of a US dollar.
    pub usd_micros: Option<u64>,
    /// Tokens, read and written.
    pub tokens: Option<u64>,
    /// Milliseconds: after that it is cancelled.
    pub latency_ms: Option<u64>,
}

/// A request.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// What is asked for.
    pub syscall: SyscallName,
    /// Who asks; none: who the door says it is.
    pub agent: Option<AgentUri>,
    /// Where it belongs.
    pub context: CallContext,
    /// What the call needs, in the caller's words: each word with what it stands for.
    pub caps_required: Vec<(String, Vec<Capability>)>,
    /// The call's own parameters.
    pub params: Map<String, Value>,
    /// What it may cost.
    pub budget: Budget,
}

impl Request {
    /// Reads a JSON body. `name` is the call's name where the door knows it (the path); the body may repeat it.
    ///
    /// # Errors
    /// `INVALID_FIELD` or `TOO_LARGE`, with the field.
    pub fn parse(body: &[u8], name: Option<&str>) -> Result<Self, Refusal> {
        if body.len() > MAX_BODY {
            let message = format!("the body has {} bytes, at most {MAX_BODY} are read", body.len());
            return Err(Refusal::new(Reason::TooLarge, aion_types::ErrorCode::TooLarge, message));
        }
        let value: Value = serde_json::from_slice(body)
            .map_err(|error| Refusal::field("body", format!("it is not JSON: {error}")))?;
        // Who leaves it out speaks for the tenant; who writes nothing has forgotten it.
        if value.get("agent_id").is_some_and(|agent| agent == "") {
            return Err(
                Refusal::field("agent_id", "it names no agent").hint("leave it out to speak for the tenant")
            );
        }
        Self::from_value(value, name)
    }

    /// As [`Request::parse`], from JSON that is read already.
    ///
    /// # Errors
    /// As there.
    pub fn from_value(value: Value, name: Option<&str>) -> Result<Self, Refusal> {
        let Value::Object(mut map) = value else {
            return Err(Refusal::field("body", "it is not a JSON object"));
        };
        if let Some(unknown) = map.keys().find(|key| !KNOWN.contains(&key.as_str())) {
            let shown = shown_field(unknown);
            return Err(Refusal::field(shown.clone(), format!("{shown:?} is not a field of {SCHEMA}"))
                .hint(format!("the fields are {}", KNOWN.join(", "))));
        }
        match map.get("schema") {
            None | Some(Value::Null) => {}
            Some(Value::String(schema)) if schema == SCHEMA => {}
            Some(_) => return Err(Refusal::field("schema", format!("this kernel speaks {SCHEMA:?}"))),
        }
        let agent = match text(&map, "agent_id", 256)? {
            "" => None,
            uri => Some(AgentUri::parse(uri).map_err(|error| Refusal::field("agent_id", error.to_string()))?),
        };
        let syscall = syscall(&map, name)?;
        let context = context(map.get("context"))?;
        let caps_required = caps(map.get("caps_required"))?;
        let budget = budget(map.get("budget"))?;
        let params = match map.remove("params") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(params)) => params,
            Some(_) => return Err(Refusal::field("params", "it is not an object")),
        };
        Ok(Self { syscall, agent, context, caps_required, params, budget })
    }

    /// The same for this task.
    #[must_use]
    pub fn for_task(mut self, task: &str) -> Self {
        task.clone_into(&mut self.context.task_id);
        self
    }

    /// The same call within the trace of a `traceparent` header. What `context` names counts more: it is signed.
    #[must_use]
    pub fn within(mut self, traceparent: Option<&str>) -> Self {
        let parent = traceparent.and_then(TraceParent::parse);
        if self.context.trace_id.is_empty() {
            self.context.trace_id = parent.map(|parent| parent.trace_id()).unwrap_or_default();
        }
        self.context.parent = parent.filter(|parent| parent.trace_id() == self.context.trace_id);
        self
    }
}

fn syscall(map: &Map<String, Value>, name: Option<&str>) -> Result<SyscallName, Refusal> {
    let given = text(map, "syscall", 256)?;
    let named = match (name, given) {
        (None, "") => return Err(Refusal::field("syscall", "it is missing: which call is it?")),
        (None, given) => given,
        (Some(name), "") => name,
        (Some(name), given) if name == given => name,
        (Some(name), given) => {
            let given: String = given.chars().take(80).collect();
            let name: String = name.chars().take(80).collect();
            return Err(Refusal::field("syscall", format!("the body says {given:?}, the path {name:?}")));
        }
    };
    SyscallName::parse(named).map_err(|message| Refusal::field("syscall", message))
}

fn context(value: Option<&Value>) -> Result<CallContext, Refusal> {
    let map = match value {
        None | Some(Value::Null) => return Ok(CallContext::default()),
        Some(Value::Object(map)) => map,
        Some(_) => return Err(Refusal::field("context", "it is not an object")),
    };
    let id = |field: &str| -> Result<String, Refusal> {
        let text = text(map, field, MAX_ID).map_err(|refusal| refusal.at(format!("context.{field}")))?;
        if text.chars().any(char::is_control) {
            return Err(Refusal::field(format!("context.{field}"), "it holds a control character"));
        }
        Ok(text.to_owned())
    };
    Ok(CallContext { task_id: id("task_id")?, trace_id: id("trace_id")?, parent: None })
}

fn caps(value: Option<&Value>) -> Result<Vec<(String, Vec<Capability>)>, Refusal> {
    let list = match value {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(Refusal::field("caps_required", "it is not a list")),
    };
    if list.len() > MAX_CAPS {
        let message = format!("there are {} capabilities, at most {MAX_CAPS} are read", list.len());
        return Err(Refusal::field("caps_required", message));
    }
    let read = |(i, item): (usize, &Value)| {
        let field = format!("caps_required[{i}]");
        let Some(text) = item.as_str() else {
            return Err(Refusal::field(field, "it is not a text"));
        };
        let capabilities = parse_capabilities(text).map_err(|message| Refusal::field(field, message))?;
        Ok((text.to_owned(), capabilities))
    };
    list.iter().enumerate().map(read).collect()
}

/// A field's name that a stranger chose, as an error tells it: at most 80 characters, and never nothing.
#[must_use]
pub fn shown_field(name: &str) -> String {
    if name.is_empty() { "\"\"".to_owned() } else { name.chars().take(80).collect() }
}

fn budget(value: Option<&Value>) -> Result<Budget, Refusal> {
    let map = match value {
        None | Some(Value::Null) => return Ok(Budget::default()),
        Some(Value::Object(map)) => map,
        Some(_) => return Err(Refusal::field("budget", "it is not an object")),
    };
    if let Some(unknown) =
        map.keys().find(|key| !["usd_max", "tokens_max", "latency_ms"].contains(&key.as_str()))
    {
        let shown = shown_field(unknown);
        return Err(Refusal::field(format!("budget.{shown}"), "it is not a field of a budget")
            .hint("the fields are usd_max, tokens_max, latency_ms"));
    }
    let whole = |field: &str, min: u64, max: u64| -> Result<Option<u64>, Refusal> {
        match map.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_u64() {
                Some(n) if (min..=max).contains(&n) => Ok(Some(n)),
                _ => Err(Refusal::field(
                    format!("budget.{field}"),
                    format!("it is no number of {min} to {max}"),
                )),
            },
        }
    };
    Ok(Budget {
        usd_micros: usd(map.get("usd_max"))?,
        tokens: whole("tokens_max", 0, 1 << 53)?,
        latency_ms: whole("latency_ms", 1, MAX_LATENCY_MS)?,
    })
}

/// Dollars as JSON has them, to the millionth; rounded down, so that a budget is never more than was said.
#[must_use]
pub fn usd_micros(value: &Value) -> Option<u64> {
    const MAX_USD: f64 = 1_000_000.0;
    let usd = value.as_f64().filter(|usd| (0.0..=MAX_USD).contains(usd))?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is within 0 and 10^12")]
    let micros = (usd * 1_000_000.0 + 1e-6).floor() as u64;
    Some(micros)
}

fn usd(value: Option<&Value>) -> Result<Option<u64>, Refusal> {
    let wrong = || Refusal::field("budget.usd_max", "it is no number of 0 to 1000000");
    value.filter(|value| !value.is_null()).map(|value| usd_micros(value).ok_or_else(wrong)).transpose()
}

fn text<'a>(map: &'a Map<String, Value>, field: &str, max: usize) -> Result<&'a str, Refusal> {
    match map.get(field) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(text)) if text.len() <= max => Ok(text),
        Some(Value::String(text)) => {
            Err(Refusal::field(field, format!("it has {} bytes, at most {max} are allowed", text.len())))
        }
        Some(_) => Err(Refusal::field(field, "it is not a text")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(value: Value) -> Result<Request, Refusal> {
        Request::parse(value.to_string().as_bytes(), Some("tool.invoke"))
    }

    #[test]
    fn the_contract_s_example_is_read() {
        let request = parse(json!({
            "schema": "aion.syscall.v1", "syscall": "tool.invoke", "agent_id": "agent://tenantA/researcher-1",
            "context": {"task_id": "t-123", "trace_id": "abc"}, "caps_required": ["network", "gpu"],
            "params": {"tool": "web_search", "query": "x"}, "budget": {"usd_max": 0.05, "latency_ms": 3000}
        }))
        .unwrap();
        assert_eq!(request.agent.unwrap().tenant.as_str(), "tenantA");
        assert_eq!(request.budget, Budget { usd_micros: Some(50_000), tokens: None, latency_ms: Some(3000) });
        assert_eq!(request.context.task_id, "t-123");
        assert_eq!(request.caps_required.len(), 2);
        assert_eq!(request.params["query"], "x");
    }

    #[test]
    fn what_is_optional_may_be_missing() {
        let request = Request::parse(b"{}", Some("memory.put")).unwrap();
        assert_eq!(request.syscall.as_str(), "memory.put");
        assert!(request.agent.is_none() && request.params.is_empty() && request.caps_required.is_empty());
        parse(json!({"context": {}, "caps_required": [], "budget": null, "agent_id": "agent://a/b"}))
            .unwrap();
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, field) in [
            (json!([1]), "body"),
            (json!({"buget": {}}), "buget"),
            (json!({"bu\u{7}get": {}}), "bu\\u{7}get"),
            (json!({"budget": {"\u{1b}[31m": 1}}), "budget.\\u{1b}[31m"),
            (json!({"schema": "aion.syscall.v2"}), "schema"),
            (json!({"syscall": "fs.read"}), "syscall"),
            (json!({"agent_id": "tenantA/x"}), "agent_id"),
            (json!({"agent_id": 5}), "agent_id"),
            (json!({"agent_id": ""}), "agent_id"),
            (json!({"context": []}), "context"),
            (json!({"context": {"task_id": "a\u{1}"}}), "context.task_id"),
            (json!({"context": {"trace_id": "x".repeat(129)}}), "context.trace_id"),
            (json!({"caps_required": "network"}), "caps_required"),
            (json!({"caps_required": ["network", 5]}), "caps_required[1]"),
            (json!({"caps_required": ["netwrok"]}), "caps_required[0]"),
            (json!({"params": []}), "params"),
            (json!({"budget": {"usd": 1}}), "budget.usd"),
            (json!({"budget": {"usd_max": -0.1}}), "budget.usd_max"),
            (json!({"budget": {"usd_max": "1"}}), "budget.usd_max"),
            (json!({"budget": {"latency_ms": 0}}), "budget.latency_ms"),
            (json!({"budget": {"latency_ms": 1.5}}), "budget.latency_ms"),
        ] {
            let refusal = parse(body.clone()).expect_err(&body.to_string());
            assert_eq!((refusal.field.as_str(), refusal.code.as_str()), (field, "INVALID_FIELD"), "{body}");
        }
        assert_eq!(Request::parse(b"nonsense", None).unwrap_err().field, "body");
        assert_eq!(Request::parse(b"{}", None).unwrap_err().field, "syscall");
        let deep = format!("{{\"params\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(Request::parse(deep.as_bytes(), Some("a.b")).unwrap_err().field, "body");
        let large = vec![b' '; MAX_BODY + 1];
        assert_eq!(Request::parse(&large, Some("a.b")).unwrap_err().code.as_str(), "TOO_LARGE");
    }

    #[test]
    fn a_trace_comes_from_the_header_unless_the_body_names_one() {
        let header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let trace = "0af7651916cd43dd8448eb211c80319c";
        let within = |body: Value, header: &str| parse(body).unwrap().within(Some(header)).context;
        let context = within(json!({}), header);
        assert_eq!((context.trace_id.as_str(), context.parent.is_some()), (trace, true));
        let context = within(json!({"context": {"trace_id": trace}}), header);
        assert_eq!((context.trace_id.as_str(), context.parent.is_some()), (trace, true));
        let context = within(json!({"context": {"trace_id": "other"}}), header);
        assert_eq!((context.trace_id.as_str(), context.parent), ("other", None));
        assert_eq!(within(json!({}), "nonsense"), CallContext::default());
    }

    #[test]
    fn dollars_are_never_rounded_up() {
        for (usd, micros) in
            [("0.05", 50_000), ("0.1", 100_000), ("0.0000019", 1), ("0", 0), ("0.29", 290_000)]
        {
            let value: Value = serde_json::from_str(usd).unwrap();
            assert_eq!(super::usd(Some(&value)), Ok(Some(micros)), "{usd}");
        }
    }
}
