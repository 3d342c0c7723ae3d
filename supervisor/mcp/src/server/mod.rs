//! The server's side: one POST body in, one reply out. It has no state, no socket and no policy. [`pipes`] does the same
//! with a stream of lines.
//!
//! Neighbours: an HTTP endpoint above, which authenticates the caller and maps [`Reply`] to a response; a
//! [`Toolbox`] below. Invariant: whatever the body is, the reply is valid JSON-RPC or none is due.

mod pipes;
mod toolbox;

use serde_json::{Map, Value, json};

pub use self::pipes::PipeOptions;
pub use self::toolbox::{ToolFailure, Toolbox};
use crate::message::{self, Defect, Id, Message, Unreadable};
use crate::message::{INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, PARSE_ERROR};
use crate::{Revision, ToolResult};

/// Stands before the name of the last tool of the page before.
const CURSOR: &str = "after:";

/// What a server says of itself, and its limits.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// The server's name; `aion`.
    pub name: String,
    /// The server's version; this crate's.
    pub version: String,
    /// How it wants to be used, for the model; none.
    pub instructions: Option<String>,
    /// How many tools one page has, at least 1; 100.
    pub page_size: usize,
    /// The longest body, in bytes; 4 MiB.
    pub max_body_bytes: usize,
    /// How many messages one batch may have; 32. They are answered one after the other.
    pub max_batch: usize,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            name: "aion".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instructions: None,
            page_size: 100,
            max_body_bytes: 4 << 20,
            max_batch: 32,
        }
    }
}

/// What the endpoint was sent.
#[derive(Debug, Clone, Copy, Default)]
pub struct Post<'a> {
    /// The header `Mcp-Session-Id`.
    pub session: Option<&'a str>,
    /// The header `MCP-Protocol-Version`; without it 2025-03-26 is assumed, as the specification says.
    pub protocol: Option<&'a str>,
    /// The body.
    pub body: &'a [u8],
}

/// What the endpoint is to answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// 200 with this as `application/json`, and the header `Mcp-Session-Id` when there is a second part.
    Json(Value, Option<String>),
    /// 202 without a body: there was nothing to answer.
    Accepted,
    /// This HTTP status with this as `application/json`.
    Error(u16, Value),
}

/// Answers clients from a [`Toolbox`].
#[derive(Debug)]
pub struct Server<T> {
    toolbox: T,
    options: ServerOptions,
}

impl<T: Toolbox> Server<T> {
    /// Serves these tools.
    #[must_use]
    pub fn new(toolbox: T, options: ServerOptions) -> Self {
        Self { toolbox, options }
    }

    /// The tools that it serves.
    #[must_use]
    pub fn toolbox(&self) -> &T {
        &self.toolbox
    }

    /// Answers one POST. Dropping the future ends the tool's call.
    pub async fn handle(&self, caller: &T::Caller, post: Post<'_>) -> Reply {
        if post.body.len() > self.options.max_body_bytes {
            return refuse(413, INVALID_REQUEST, "the body is too long");
        }
        let value = match message::read(post.body) {
            Ok(value) => value,
            Err(Unreadable::NotJson) => return refuse(400, PARSE_ERROR, "the body is not JSON"),
            Err(Unreadable::TooManyValues) => {
                return refuse(413, INVALID_REQUEST, "the body has too many values");
            }
        };
        // The handshake stands before every agreement: neither header binds it.
        if value.get("method").and_then(Value::as_str) == Some("initialize") {
            return self.handshake(caller, value).await;
        }
        let revision = match post.protocol {
            None => Revision::ASSUMED,
            Some(text) => match Revision::parse(text) {
                Some(revision) => revision,
                None => return refuse(400, INVALID_REQUEST, "the protocol version is not supported"),
            },
        };
        if let Some(session) = post.session
            && !self.toolbox.has_session(caller, session).await
        {
            return refuse(404, INVALID_REQUEST, "there is no such session");
        }
        match value {
            Value::Array(batch) => self.batch(caller, revision, batch).await,
            value => match Message::from_value(value) {
                Err(defect) => Reply::Error(400, defective(&defect)),
                Ok(message) => match self.answer(caller, revision, message).await {
                    Some(answer) => Reply::Json(answer, None),
                    None => Reply::Accepted,
                },
            },
        }
    }

    async fn handshake(&self, caller: &T::Caller, value: Value) -> Reply {
        let (id, params) = match Message::from_value(value) {
            Err(defect) => return Reply::Error(400, defective(&defect)),
            Ok(Message::Request { id, params, .. }) => (id, params),
            // Nobody waits for the answer.
            Ok(_) => return Reply::Accepted,
        };
        let Some(asked) = params.get("protocolVersion").and_then(Value::as_str) else {
            let what = "protocolVersion is missing";
            return Reply::Json(message::failure(Some(&id), INVALID_PARAMS, what), None);
        };
        let mut result = Map::new();
        let revision = Revision::parse(asked).unwrap_or(Revision::LATEST);
        result.insert("protocolVersion".to_owned(), Value::from(revision.as_str()));
        result.insert("capabilities".to_owned(), json!({ "tools": { "listChanged": false } }));
        let (name, version) = (self.options.name.as_str(), self.options.version.as_str());
        result.insert("serverInfo".to_owned(), json!({ "name": name, "version": version }));
        if let Some(instructions) = &self.options.instructions {
            result.insert("instructions".to_owned(), Value::from(instructions.as_str()));
        }
        Reply::Json(message::result(&id, Value::Object(result)), self.toolbox.open_session(caller).await)
    }

    async fn batch(&self, caller: &T::Caller, revision: Revision, batch: Vec<Value>) -> Reply {
        if !revision.has_batches() {
            return refuse(400, INVALID_REQUEST, "this protocol version has no batches");
        }
        if batch.is_empty() || batch.len() > self.options.max_batch {
            return refuse(400, INVALID_REQUEST, "the batch is empty or too long");
        }
        let mut answers = Vec::new();
        for value in batch {
            match Message::from_value(value) {
                Err(defect) => answers.push(defective(&defect)),
                Ok(message) => answers.extend(self.answer(caller, revision, message).await),
            }
        }
        if answers.is_empty() { Reply::Accepted } else { Reply::Json(Value::Array(answers), None) }
    }

    async fn answer(&self, caller: &T::Caller, revision: Revision, message: Message) -> Option<Value> {
        // This server asks its clients nothing, so their answers are as little to it as their notifications.
        let Message::Request { id, method, params } = message else { return None };
        let outcome = match method.as_str() {
            "ping" => Ok(Value::Object(Map::new())),
            "tools/list" => self.list(caller, revision, &params).await,
            "tools/call" => self.call(caller, revision, params).await,
            "initialize" => Err((INVALID_REQUEST, "initialize cannot be part of a batch".to_owned())),
            _ => Err((METHOD_NOT_FOUND, "there is no such method".to_owned())),
        };
        Some(match outcome {
            Ok(result) => message::result(&id, result),
            Err((code, text)) => message::failure(Some(&id), code, &text),
        })
    }

    /// A page begins after a name, not at a number: tools that come and go between two pages shift nothing.
    async fn list(&self, caller: &T::Caller, revision: Revision, params: &Map<String, Value>) -> Outcome {
        let after = match params.get("cursor") {
            None | Some(Value::Null) => None,
            Some(cursor) => Some(
                cursor
                    .as_str()
                    .and_then(|cursor| cursor.strip_prefix(CURSOR))
                    .ok_or_else(|| (INVALID_PARAMS, "the cursor is not valid".to_owned()))?,
            ),
        };
        let mut tools = self.toolbox.list(caller).await;
        tools.sort_by(|a, b| a.name.cmp(&b.name));
        let mut rest =
            tools.into_iter().skip_while(|tool| after.is_some_and(|after| tool.name.as_str() <= after));
        let page: Vec<_> = rest.by_ref().take(self.options.page_size.max(1)).collect();
        let next = rest.next().and(page.last()).map(|last| format!("{CURSOR}{}", last.name));
        let mut result = Map::new();
        let page = page.into_iter().map(|tool| tool.into_value(revision)).collect();
        result.insert("tools".to_owned(), Value::Array(page));
        if let Some(next) = next {
            result.insert("nextCursor".to_owned(), Value::String(next));
        }
        Ok(Value::Object(result))
    }

    async fn call(&self, caller: &T::Caller, revision: Revision, mut params: Map<String, Value>) -> Outcome {
        let invalid = |what: &str| Err((INVALID_PARAMS, what.to_owned()));
        let Some(Value::String(name)) = params.remove("name") else {
            return invalid("the tool's name is missing");
        };
        let arguments = match params.remove("arguments") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(arguments)) => arguments,
            Some(_) => return invalid("the arguments are not an object"),
        };
        let result = match self.toolbox.call(caller, &name, arguments).await {
            Ok(result) => result,
            Err(ToolFailure::Failed { reason }) => ToolResult::error(reason),
            Err(failure @ ToolFailure::Internal { .. }) => return Err((INTERNAL_ERROR, failure.to_string())),
            Err(failure @ (ToolFailure::Unknown | ToolFailure::InvalidArguments { .. })) => {
                return invalid(&failure.to_string());
            }
        };
        Ok(result.into_value(revision))
    }
}

/// A result, or an error's code and text.
type Outcome = Result<Value, (i64, String)>;

fn refuse(status: u16, code: i64, text: &str) -> Reply {
    Reply::Error(status, message::failure(None, code, text))
}

fn defective(defect: &Defect) -> Value {
    let id: Option<&Id> = defect.id.as_ref();
    message::failure(id, INVALID_REQUEST, &format!("the message is not valid: {}", defect.what))
}

#[cfg(test)]
mod tests;
