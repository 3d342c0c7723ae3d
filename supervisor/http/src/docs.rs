//! The OpenAPI document, from one table of what there is. A test holds table and routes together.

use serde_json::{Map, Value, json};

/// Who may call it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Auth {
    Nobody,
    Signature,
    Bearer,
}

/// An operation.
pub(crate) struct Operation {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) id: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) auth: Auth,
    body: Option<&'static str>,
    answer: &'static str,
}

const fn op(
    method: &'static str,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    auth: Auth,
    body: Option<&'static str>,
    answer: &'static str,
) -> Operation {
    Operation { method, path, id, summary, auth, body, answer }
}

impl Operation {
    /// What says why it is not done: where others' clients come, in their words.
    fn refusal(&self) -> &'static str {
        match self.path {
            "/v1/chat/completions" | "/v1/embeddings" | "/v1/models" => "OpenAiError",
            "/mcp" => "McpError",
            _ => "Result",
        }
    }
}

pub(crate) const OPERATIONS: [Operation; 16] = [
    op(
        "post",
        "/v1/agent/register",
        "register",
        "Register an agent that runs elsewhere",
        Auth::Signature,
        Some("Register"),
        "Result",
    ),
    op(
        "post",
        "/v1/agent/heartbeat",
        "heartbeat",
        "Tell that an agent is alive",
        Auth::Signature,
        Some("Heartbeat"),
        "Result",
    ),
    op(
        "post",
        "/v1/syscall/{name}",
        "syscall",
        "Make a system call",
        Auth::Signature,
        Some("Syscall"),
        "Answer",
    ),
    op(
        "post",
        "/v1/memory/put",
        "memoryPut",
        "Keep a value under a key",
        Auth::Signature,
        Some("MemoryPut"),
        "Answer",
    ),
    op(
        "post",
        "/v1/memory/get",
        "memoryGet",
        "Get the value of a key",
        Auth::Signature,
        Some("MemoryGet"),
        "Answer",
    ),
    op(
        "post",
        "/v1/memory/query",
        "memoryQuery",
        "Find values",
        Auth::Signature,
        Some("MemoryQuery"),
        "Answer",
    ),
    op("post", "/v1/schedule/submit", "submit", "Submit a task", Auth::Signature, Some("Task"), "Result"),
    op(
        "get",
        "/v1/events/stream",
        "events",
        "Follow events: a WebSocket, or server-sent events",
        Auth::Signature,
        None,
        "Event",
    ),
    op(
        "post",
        "/v1/chat/completions",
        "chat",
        "Chat completion, as OpenAI's",
        Auth::Bearer,
        Some("OpenAi"),
        "Any",
    ),
    op(
        "post",
        "/v1/embeddings",
        "embeddings",
        "Embeddings, as OpenAI's",
        Auth::Bearer,
        Some("OpenAi"),
        "Any",
    ),
    op("get", "/v1/models", "models", "List models, as OpenAI's", Auth::Bearer, None, "Any"),
    op(
        "post",
        "/mcp",
        "mcp",
        "Model Context Protocol, streamable HTTP",
        Auth::Bearer,
        Some("JsonRpc"),
        "Any",
    ),
    op("get", "/openapi.json", "openapi", "This document", Auth::Nobody, None, "Any"),
    op("get", "/metrics", "metrics", "Figures in Prometheus' text format", Auth::Nobody, None, "Any"),
    op("get", "/healthz", "healthz", "Whether the daemon lives", Auth::Nobody, None, "Health"),
    op("get", "/readyz", "readyz", "Whether all its parts work", Auth::Nobody, None, "Health"),
];

fn schemas() -> Value {
    let agent_id = json!({"type": "string", "pattern": "^agent://[^/]+/[^/]+$", "examples": ["agent://tenantA/researcher-1"]});
    // Of an agent; a task has its whole besides.
    let quota = json!({"type": ["object", "null"], "additionalProperties": false, "properties": {
        "max_concurrency": {"type": ["integer", "null"], "minimum": 1, "maximum": 1024},
        "token_rate": {"type": ["integer", "null"], "minimum": 1},
        "usd_per_hour": {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 1_000_000}
    }});
    let mut of_task = quota.clone();
    of_task["properties"]["usd_max"] = json!({"type": ["number", "null"], "minimum": 0});
    of_task["properties"]["tokens_max"] = json!({"type": ["integer", "null"], "minimum": 0});
    let kind = json!({"type": "string", "enum": ["short", "long", "episodic"], "default": "short"});
    let error = json!({"type": "object", "required": ["code", "message"], "properties": {
        "code": {"type": "string"}, "message": {"type": "string"}, "field": {"type": "string"},
        "rule": {"type": "string"}, "hint": {"type": "string"}, "retry_after_ms": {"type": "integer"}
    }});
    json!({
        "Any": {},
        "Error": error,
        "Syscall": {"type": "object", "additionalProperties": false, "properties": {
            "schema": {"type": "string", "const": aion_syscall::SCHEMA}, "syscall": {"type": "string"}, "agent_id": agent_id,
            "context": {"type": ["object", "null"], "properties": {"task_id": {"type": "string"}, "trace_id": {"type": "string"}}},
            "caps_required": {"type": ["array", "null"], "items": {"type": "string"}, "maxItems": 64},
            "params": {"type": ["object", "null"]},
            "budget": {"type": ["object", "null"], "additionalProperties": false, "properties": {
                "usd_max": {"type": "number", "minimum": 0, "maximum": 1_000_000},
                "tokens_max": {"type": "integer", "minimum": 0},
                "latency_ms": {"type": "integer", "minimum": 1, "maximum": 600_000}
            }}
        }, "required": ["agent_id"]},
        "Answer": {"type": "object", "required": ["status", "result", "usage", "engine", "audit_id"], "properties": {
            "status": {"type": "string", "enum": ["ok", "denied", "error"]}, "result": {},
            "error": {"$ref": "#/components/schemas/Error"},
            "usage": {"type": "object", "properties": {"latency_ms": {"type": "integer"}, "cost_usd": {"type": "number"},
                "tokens_in": {"type": "integer"}, "tokens_out": {"type": "integer"},
                "estimated": {"type": "boolean"}}},
            "engine": {"type": "object", "properties": {"kind": {"type": "string"}, "name": {"type": "string"}}},
            "audit_id": {"type": "string"}
        }},
        "Result": {"type": "object", "required": ["status", "result"], "properties": {
            "status": {"type": "string", "enum": ["ok", "denied", "error"]}, "result": {},
            "error": {"$ref": "#/components/schemas/Error"}
        }},
        "Register": {"type": "object", "additionalProperties": false, "required": ["agent_id"], "properties": {
            "agent_id": agent_id, "name": {"type": "string"}, "version": {"type": "string"},
            "capabilities": {"type": ["object", "array", "null"]}, "limits": {"type": ["object", "null"]},
            "quota": quota.clone(), "manifest": {"type": ["object", "string", "null"]}
        }},
        "Heartbeat": {"type": "object", "required": ["agent_id"], "properties": {"agent_id": agent_id}},
        "MemoryPut": {"type": "object", "required": ["key", "value"], "properties": {
            "agent_id": agent_id, "type": kind, "key": {"type": "string", "minLength": 1, "maxLength": 512}, "value": {},
            "meta": {"type": ["object", "null"]}, "ttl_s": {"type": ["integer", "null"], "minimum": 1}
        }},
        "MemoryGet": {"type": "object", "required": ["key"], "properties": {
            "agent_id": agent_id, "type": kind, "key": {"type": "string", "minLength": 1, "maxLength": 512}
        }},
        "MemoryQuery": {"type": "object", "properties": {
            "agent_id": agent_id, "type": kind, "filter": {"type": ["object", "null"]},
            "limit": {"type": ["integer", "null"], "minimum": 1, "maximum": 1000}, "after": {"type": ["string", "null"]}
        }},
        "Task": {"type": "object", "properties": {
            "task_id": {"type": "string"}, "agent_id": agent_id, "intent": {"type": "string"},
            "priority": {"type": ["integer", "string"]}, "queue": {"type": "string", "enum": ["high", "normal", "low"]},
            "quota": of_task, "params": {}, "trace_id": {"type": "string", "maxLength": 128}
        }},
        "OpenAi": {"type": "object", "required": ["model"], "properties": {"model": {"type": "string"}}},
        "OpenAiError": {"type": "object", "required": ["error"], "properties": {"error": {
            "type": "object", "required": ["message", "type", "code", "param"], "properties": {
                "message": {"type": "string"}, "type": {"type": "string"}, "code": {"type": "string"}, "param": {"type": ["string", "null"]}
            }
        }}},
        "JsonRpcError": {"type": "object", "required": ["jsonrpc", "error"], "properties": {
            "jsonrpc": {"const": "2.0"}, "id": {}, "error": {
                "type": "object", "required": ["code", "message"], "properties": {"code": {"type": "integer"}, "message": {"type": "string"}}
            }
        }},
        // The door refuses before it is a message of the protocol's.
        "McpError": {"anyOf": [{"$ref": "#/components/schemas/JsonRpcError"}, {"$ref": "#/components/schemas/Result"}]},
        "JsonRpc": {"type": ["object", "array"]},
        "Event": {"type": "object", "properties": {"topic": {"type": "string"}, "kind": {"type": "string"}}},
        "Health": {"type": "object", "required": ["status"], "properties": {"status": {"type": "string"}}}
    })
}

fn parameters(operation: &Operation) -> Vec<Value> {
    let header = |name: &str, required: bool, what: &str| json!({"name": name, "in": "header", "required": required, "description": what, "schema": {"type": "string"}});
    let mut list = Vec::new();
    if operation.path.contains("{name}") {
        list.push(json!({"name": "name", "in": "path", "required": true, "schema": {"type": "string"}}));
    }
    if operation.auth == Auth::Signature {
        list.push(header("X-Tenant-Id", true, "The tenant"));
        list.push(header("X-Timestamp", false, "Milliseconds since 1970; with X-Nonce"));
        list.push(header("X-Nonce", false, "8 to 64 letters, digits, '-' and '_'; with X-Timestamp"));
    }
    if ["syscall", "heartbeat", "memoryPut", "memoryGet", "memoryQuery", "submit"].contains(&operation.id) {
        list.push(header("X-Agent-Id", false, "agent://TENANT/NAME, where the body has no agent_id. No signature is over it: a tenant that requires X-Timestamp and X-Nonce names the agent in the body"));
    }
    if operation.id == "events" {
        list.push(json!({"name": "topics", "in": "query", "schema": {"type": "string"}}));
        list.push(json!({"name": "cursor", "in": "query", "schema": {"type": "integer", "minimum": 0}}));
    }
    list
}

/// The document.
#[must_use]
pub fn openapi() -> Value {
    let mut paths = Map::new();
    for operation in &OPERATIONS {
        let reference = |name: &str| json!({"$ref": format!("#/components/schemas/{name}")});
        let content = |name: &str| json!({"application/json": {"schema": reference(name)}});
        let refusal =
            json!({"description": "Refused; error says why", "content": content(operation.refusal())});
        let mut done = content(operation.answer);
        let text = json!({"schema": {"type": "string"}});
        match operation.id {
            "metrics" => done = json!({"text/plain": text}),
            "events" => done = json!({"text/event-stream": text}),
            // With `stream: true`.
            "chat" => done["text/event-stream"] = text,
            _ => {}
        }
        let mut responses = Map::new();
        responses.insert("200".to_owned(), json!({"description": "Done", "content": done}));
        if operation.id == "events" {
            responses.insert("101".to_owned(), json!({"description": "A WebSocket of Events, as text"}));
        }
        let codes: &[&str] = if operation.auth == Auth::Nobody {
            &[]
        } else {
            &["400", "401", "403", "404", "405", "409", "413", "424", "426", "429", "503", "504"]
        };
        for code in codes {
            responses.insert((*code).to_owned(), refusal.clone());
        }
        if operation.id == "mcp" {
            responses.insert("202".to_owned(), json!({"description": "Taken"}));
        }
        if operation.id == "readyz" {
            responses.insert(
                "503".to_owned(),
                json!({"description": "A part does not work", "content": content("Health")}),
            );
        }
        let mut entry = json!({
            "operationId": operation.id, "summary": operation.summary, "parameters": parameters(operation), "responses": responses,
        });
        if let Some(map) = entry.as_object_mut() {
            if let Some(body) = operation.body {
                map.insert("requestBody".to_owned(), json!({"required": true, "content": content(body)}));
            }
            match operation.auth {
                Auth::Nobody => {}
                Auth::Signature => {
                    map.insert("security".to_owned(), json!([{"signature": []}]));
                }
                Auth::Bearer => {
                    map.insert("security".to_owned(), json!([{"bearer": []}]));
                }
            }
        }
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        if let Some(map) = path.as_object_mut() {
            map.insert(operation.method.to_owned(), entry);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "AION kernel API", "version": env!("CARGO_PKG_VERSION"),
            "description": "System calls of agents: authenticated, decided by capability and policy, metered, audited.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}
        },
        "servers": [{"url": "http://127.0.0.1:8010"}],
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "securitySchemes": {
                "signature": {"type": "apiKey", "in": "header", "name": "X-Sig-HMAC",
                    "description": "Lower-case hexadecimal HMAC-SHA256 of the raw body with the tenant's secret; with X-Timestamp and X-Nonce of TIMESTAMP, NONCE, METHOD, PATH and body, with a newline after each of the first four"},
                "bearer": {"type": "http", "scheme": "bearer", "description": "A token that speaks for one agent: aionctl tenant token"}
            }
        }
    })
}
