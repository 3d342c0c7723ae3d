//! The dispatcher against the specification, and against noise.

use proptest::prelude::*;

use super::*;
use crate::ToolInfo;
use crate::noise::{hostile_bytes, is_answer};

struct Tools(usize);

impl Toolbox for Tools {
    type Caller = str;

    async fn list(&self, caller: &str) -> Vec<ToolInfo> {
        let tool = |name: String| ToolInfo {
            name,
            description: format!("for {caller}"),
            input_schema: json!({"type": "object"}),
            output_schema: Some(json!({"type": "object"})),
        };
        (0..self.0).rev().map(|n| tool(format!("t{n:03}"))).collect()
    }

    async fn call(
        &self,
        caller: &str,
        name: &str,
        arguments: Map<String, Value>,
    ) -> Result<ToolResult, ToolFailure> {
        match name {
            "echo" => Ok(ToolResult::structured(arguments)),
            "whoami" => Ok(ToolResult::text(caller)),
            "fails" => Err(ToolFailure::Failed { reason: "disk full".to_owned() }),
            "strict" => Err(ToolFailure::InvalidArguments { reason: "no path".to_owned() }),
            "broken" => Err(ToolFailure::Internal { reason: "no store".to_owned() }),
            _ => Err(ToolFailure::Unknown),
        }
    }

    async fn open_session(&self, caller: &str) -> Option<String> {
        (caller == "stateful").then(|| "s-1".to_owned())
    }

    async fn has_session(&self, caller: &str, session: &str) -> bool {
        caller == "stateful" && session == "s-1"
    }
}

fn run(future: impl Future<Output = Reply>) -> Reply {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn server() -> Server<Tools> {
    Server::new(Tools(250), ServerOptions::default())
}

fn post_as(protocol: Option<&str>, body: &str) -> Reply {
    run(server().handle("ann", Post { session: None, protocol, body: body.as_bytes() }))
}

fn ask(method: &str, params: &Value) -> Value {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    match post_as(Some("2025-06-18"), &body.to_string()) {
        Reply::Json(value, None) => value,
        other => panic!("{other:?}"),
    }
}

fn code(reply: &Reply) -> (u16, i64) {
    match reply {
        Reply::Error(status, value) => (*status, value["error"]["code"].as_i64().unwrap()),
        Reply::Json(value, _) => (200, value["error"]["code"].as_i64().unwrap()),
        Reply::Accepted => panic!("accepted"),
    }
}

#[test]
fn the_handshake_agrees_on_a_revision() {
    for (asked, agreed) in [
        ("2024-11-05", "2024-11-05"),
        ("2025-03-26", "2025-03-26"),
        ("2025-06-18", "2025-06-18"),
        ("2199-01-01", "2025-06-18"),
    ] {
        let answer = ask("initialize", &json!({"protocolVersion": asked, "capabilities": {}}));
        assert_eq!(answer["result"]["protocolVersion"], agreed);
        assert!(answer["result"]["capabilities"]["tools"].is_object());
        assert_eq!(answer["result"]["serverInfo"]["name"], "aion");
    }
    assert_eq!(ask("initialize", &json!({}))["error"]["code"], INVALID_PARAMS);
    // A client that speaks a later revision may already say so.
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2199-01-01"}}"#;
    assert!(matches!(post_as(Some("2199-01-01"), body), Reply::Json(..)));
}

#[test]
fn the_errors_of_the_specification() {
    assert_eq!(code(&post_as(None, "{")), (400, PARSE_ERROR));
    assert_eq!(code(&post_as(None, "")), (400, PARSE_ERROR));
    assert_eq!(code(&post_as(None, "1")), (400, INVALID_REQUEST));
    assert_eq!(code(&post_as(None, r#"{"id":1,"method":"ping"}"#)), (400, INVALID_REQUEST));
    assert_eq!(
        code(&post_as(None, r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#)),
        (400, INVALID_REQUEST)
    );
    assert_eq!(code(&post_as(None, r#"{"jsonrpc":"2.0","id":1,"method":"x"}"#)), (200, METHOD_NOT_FOUND));
    assert_eq!(
        code(&post_as(Some("1999-01-01"), r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#)),
        (400, INVALID_REQUEST)
    );
    let server = Server::new(Tools(0), ServerOptions { max_body_bytes: 3, ..ServerOptions::default() });
    let reply = run(server.handle("ann", Post { body: b"null", ..Post::default() }));
    assert_eq!(code(&reply), (413, INVALID_REQUEST));
}

#[test]
fn what_needs_no_answer_is_accepted() {
    for body in [
        r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#,
        r#"{"jsonrpc":"2.0","method":"no/such"}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
        r#"[{"jsonrpc":"2.0","method":"notifications/initialized"}]"#,
    ] {
        assert_eq!(post_as(None, body), Reply::Accepted, "{body}");
    }
}

#[test]
fn calls_and_their_failures() {
    let answer = ask("tools/call", &json!({"name": "echo", "arguments": {"a": 1}}));
    assert_eq!(answer["result"]["structuredContent"], json!({"a": 1}));
    assert_eq!(answer["result"]["content"][0]["text"], r#"{"a":1}"#);
    assert_eq!(answer["result"]["isError"], false);
    assert_eq!(ask("tools/call", &json!({"name": "whoami"}))["result"]["content"][0]["text"], "ann");

    let failed = ask("tools/call", &json!({"name": "fails"}));
    assert_eq!(failed["result"]["isError"], true);
    assert_eq!(failed["result"]["content"][0]["text"], "disk full");
    for (params, code) in [
        (json!({"name": "strict"}), INVALID_PARAMS),
        (json!({"name": "no such"}), INVALID_PARAMS),
        (json!({"name": 1}), INVALID_PARAMS),
        (json!({}), INVALID_PARAMS),
        (json!({"name": "echo", "arguments": []}), INVALID_PARAMS),
        (json!({"name": "broken"}), INTERNAL_ERROR),
    ] {
        assert_eq!(ask("tools/call", &params)["error"]["code"], code, "{params}");
    }
    // A client of an older revision gets the text only.
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo"}}"#;
    let Reply::Json(old, None) = post_as(None, body) else { panic!() };
    assert!(old["result"].get("structuredContent").is_none());
}

#[test]
fn pages_hold_every_tool_once_and_in_order() {
    let (mut names, mut pages) = (Vec::new(), 0);
    let mut params = json!({});
    loop {
        let result = ask("tools/list", &params)["result"].take();
        pages += 1;
        let tools = result["tools"].as_array().unwrap();
        assert_eq!(tools[0]["description"], "for ann");
        names.extend(tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()));
        match result.get("nextCursor") {
            Some(cursor) => params = json!({ "cursor": cursor }),
            None => break,
        }
    }
    assert_eq!(pages, 3);
    assert_eq!(names, (0..250).map(|n| format!("t{n:03}")).collect::<Vec<_>>());
    for cursor in [json!("3"), json!(3)] {
        assert_eq!(ask("tools/list", &json!({ "cursor": cursor }))["error"]["code"], INVALID_PARAMS);
    }
    let end = ask("tools/list", &json!({"cursor": "after:zzz"}));
    assert_eq!(end["result"], json!({"tools": []}));
}

#[test]
fn batches() {
    let body = r#"[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","method":"n"},7,
        {"jsonrpc":"2.0","id":"b","method":"initialize"}]"#;
    let Reply::Json(Value::Array(answers), None) = post_as(Some("2025-03-26"), body) else { panic!() };
    assert_eq!(answers.len(), 3);
    assert_eq!(answers[0], json!({"jsonrpc": "2.0", "id": 1, "result": {}}));
    assert_eq!(answers[1]["error"]["code"], INVALID_REQUEST);
    assert_eq!((&answers[2]["id"], &answers[2]["error"]["code"]), (&json!("b"), &json!(INVALID_REQUEST)));

    assert_eq!(code(&post_as(Some("2025-06-18"), body)), (400, INVALID_REQUEST));
    assert_eq!(code(&post_as(None, "[]")), (400, INVALID_REQUEST));
    let many = format!("[{}0]", "0,".repeat(32));
    assert_eq!(code(&post_as(None, &many)), (400, INVALID_REQUEST));
}

#[test]
fn sessions_are_the_toolbox_s() {
    let init = br#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18"}}"#;
    let reply = run(server().handle("stateful", Post { body: init, ..Post::default() }));
    assert!(matches!(reply, Reply::Json(_, Some(session)) if session == "s-1"));
    let ping = br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    for (caller, session, known) in [
        ("stateful", Some("s-1"), true),
        ("stateful", Some("s-2"), false),
        ("ann", Some("s-1"), false),
        ("ann", None, true),
    ] {
        let reply = run(server().handle(caller, Post { session, protocol: None, body: ping }));
        assert_eq!(matches!(reply, Reply::Json(..)), known);
        assert!(known || code(&reply).0 == 404);
    }
}

proptest! {
    #[test]
    fn any_body_has_a_valid_reply_or_none(bytes in hostile_bytes(), protocol in 0..4usize) {
        let protocol = [None, Some("2025-03-26"), Some("2025-06-18"), Some("x")][protocol];
        match run(server().handle("ann", Post { session: None, protocol, body: &bytes })) {
            Reply::Accepted => {}
            Reply::Json(Value::Array(answers), None) => {
                prop_assert!(!answers.is_empty() && answers.iter().all(is_answer), "{answers:?}");
            }
            Reply::Json(answer, _) => prop_assert!(is_answer(&answer), "{answer}"),
            Reply::Error(status, error) => {
                prop_assert!(is_answer(&error) && error.get("error").is_some(), "{error}");
                prop_assert!((400..500).contains(&status));
            }
        }
    }
}
