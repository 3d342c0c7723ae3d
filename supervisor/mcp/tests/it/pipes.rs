//! Calls over pipes to a server that behaves.

use std::time::Duration;

use aion_mcp::{Closed, Error, METHOD_NOT_FOUND, Options};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::fake::{Fake, text};
use crate::soon;

const LATEST: &str = "2025-06-18";

#[tokio::test]
async fn tools_come_in_pages() {
    let (client, mut fake) = Fake::ready(Options::default(), LATEST).await;
    let script = async {
        for page in 0..3 {
            let request = fake.expect("tools/list").await;
            let cursor = (page > 0).then(|| Value::from(format!("c{page}")));
            assert_eq!(request["params"].get("cursor"), cursor.as_ref());
            let mut result =
                json!({"tools": [{"name": format!("t{page}"), "inputSchema": {"type": "object"}}]});
            if page < 2 {
                result["nextCursor"] = format!("c{}", page + 1).into();
            }
            fake.answer(&request["id"], result).await;
        }
    };
    let (tools, ()) = tokio::join!(client.list_tools(), script);
    let names: Vec<_> = tools.unwrap().into_iter().map(|tool| tool.name).collect();
    assert_eq!(names, ["t0", "t1", "t2"]);
}

#[tokio::test]
async fn results_refusals_and_failed_tools() {
    let (client, mut fake) = Fake::ready(Options::default(), LATEST).await;
    let script = async {
        let request = fake.expect("tools/call").await;
        assert_eq!(request["params"], json!({"name": "add", "arguments": {"a": 1}}));
        let mut result = text("3");
        result["structuredContent"] = json!({"sum": 3});
        fake.answer(&request["id"], result).await;
        let id = fake.expect("tools/call").await["id"].take();
        let mut result = text("disk full");
        result["isError"] = true.into();
        fake.answer(&id, result).await;
        let id = fake.expect("tools/call").await["id"].take();
        fake.send(&json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32602, "message": "no such tool"}}))
            .await;
        let id = fake.expect("tools/call").await["id"].take();
        fake.answer(&id, json!({"content": "x"})).await;
        let id = fake.expect("ping").await["id"].take();
        fake.answer(&id, json!({})).await;
    };
    let calls = async {
        let arguments = Map::from_iter([("a".to_owned(), json!(1))]);
        let result = client.call_tool("add", arguments, soon()).await.unwrap();
        assert_eq!((result.structured, result.is_error), (Some(json!({"sum": 3})), false));
        let result = client.call_tool("write", Map::new(), soon()).await.unwrap();
        assert!(result.is_error && result.content[0]["text"] == "disk full");
        let error = client.call_tool("gone", Map::new(), soon()).await.unwrap_err();
        assert!(matches!(&error, Error::Refused { source, .. } if source.code == -32602), "{error}");
        assert!(!error.is_ambiguous());
        let error = client.call_tool("odd", Map::new(), soon()).await.unwrap_err();
        assert!(matches!(error, Error::Malformed { .. }));
        client.ping().await.unwrap();
    };
    tokio::join!(calls, script);
}

#[tokio::test]
async fn answers_in_another_order() {
    let (client, mut fake) = Fake::ready(Options::default(), LATEST).await;
    let calls: Vec<_> = (0..50)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move { client.call_tool(&format!("t{n}"), Map::new(), soon()).await })
        })
        .collect();
    let mut requests = Vec::new();
    for _ in 0..50 {
        requests.push(fake.expect("tools/call").await);
    }
    for request in requests.iter().rev() {
        fake.answer(&request["id"], text(request["params"]["name"].as_str().unwrap())).await;
    }
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.unwrap().unwrap().content[0]["text"], format!("t{n}"));
    }
}

#[tokio::test]
async fn calls_over_the_limit_wait_for_their_turn() {
    let (client, mut fake) = Fake::ready(Options { max_in_flight: 1, ..Options::default() }, LATEST).await;
    let first = tokio::spawn({
        let client = client.clone();
        async move { client.call_tool("first", Map::new(), soon()).await }
    });
    let id = fake.expect("tools/call").await["id"].take();
    let late = client.call_tool("second", Map::new(), Instant::now() + Duration::from_millis(50)).await;
    assert!(matches!(late, Err(Error::Timeout { .. })));
    fake.answer(&id, text("1")).await;
    first.await.unwrap().unwrap();
    // The second was never sent, so there is nothing to cancel.
    assert!(fake.is_silent().await);
}

#[tokio::test]
async fn a_deadline_cancels_and_the_late_answer_harms_nobody() {
    let (client, mut fake) = Fake::ready(Options::default(), LATEST).await;
    let error =
        client.call_tool("slow", Map::new(), Instant::now() + Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { method: "tools/call", after } if after.as_millis() >= 50));
    assert!(error.is_ambiguous());
    let id = fake.expect("tools/call").await["id"].take();
    assert_eq!(fake.expect("notifications/cancelled").await["params"]["requestId"], id);
    fake.answer(&id, text("late")).await;
    let (result, ()) = tokio::join!(client.call_tool("next", Map::new(), soon()), async {
        let id = fake.expect("tools/call").await["id"].take();
        fake.answer(&id, text("in time")).await;
        fake.answer(&id, text("again")).await;
    });
    assert_eq!(result.unwrap().content[0]["text"], "in time");
    // An answer that came is not cancelled.
    assert!(fake.is_silent().await);
}

#[tokio::test]
async fn a_call_that_is_dropped_is_cancelled() {
    let (client, mut fake) = Fake::ready(Options::default(), LATEST).await;
    let call = tokio::spawn(async move {
        let _keep = client.clone();
        tokio::select! {
            _ = client.call_tool("slow", Map::new(), soon()) => panic!("answered"),
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
        }
        client.closed().await
    });
    let id = fake.expect("tools/call").await["id"].take();
    assert_eq!(fake.expect("notifications/cancelled").await["params"]["requestId"], id);
    drop(fake);
    assert!(matches!(call.await.unwrap(), Closed::Eof | Closed::Io(_)));
}

#[tokio::test]
async fn a_call_that_is_given_up_before_it_was_written_is_not_written() {
    let (client, mut fake) = Fake::ready(Options::default(), LATEST).await;
    // More than the pipe holds, so that what comes after it waits.
    let arguments = Map::from_iter([("text".to_owned(), "x".repeat(1 << 20).into())]);
    let first = tokio::spawn({
        let client = client.clone();
        async move { client.call_tool("first", arguments, soon()).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let late = client.call_tool("second", Map::new(), Instant::now() + Duration::from_millis(50)).await;
    assert!(matches!(late, Err(Error::Timeout { .. })));
    let request = fake.expect("tools/call").await;
    assert_eq!(request["params"]["name"], "first");
    fake.answer(&request["id"], text("1")).await;
    first.await.unwrap().unwrap();
    assert!(fake.is_silent().await);
}

#[tokio::test]
async fn the_server_s_own_requests_and_notices() {
    let (client, mut fake) = Fake::ready(Options::default(), LATEST).await;
    let mut changed = client.tools_changed();
    let call = client.call_tool("x", Map::new(), soon());
    let script = async {
        let id = fake.expect("tools/call").await["id"].take();
        fake.send(&json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": 1}})).await;
        fake.send(&json!({"jsonrpc": "2.0", "id": id, "method": "ping"})).await;
        assert_eq!(fake.next().await, json!({"jsonrpc": "2.0", "id": id, "result": {}}));
        for method in ["roots/list", "sampling/createMessage", "elicitation/create"] {
            fake.send(&json!({"jsonrpc": "2.0", "id": method, "method": method})).await;
            let reply = fake.next().await;
            assert_eq!((&reply["id"], &reply["error"]["code"]), (&json!(method), &json!(METHOD_NOT_FOUND)));
        }
        fake.send(&json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})).await;
        fake.raw(b"\n\r\n").await;
        fake.answer(&id, text("done")).await;
    };
    let (result, ()) = tokio::join!(call, script);
    result.unwrap();
    changed.changed().await.unwrap();
    assert_eq!(*changed.borrow(), 1);
}

#[tokio::test]
async fn a_batch_where_there_are_batches() {
    let (client, mut fake) = Fake::ready(Options::default(), "2025-03-26").await;
    let (result, ()) = tokio::join!(client.call_tool("x", Map::new(), soon()), async {
        let id = fake.expect("tools/call").await["id"].take();
        let answer = json!({"jsonrpc": "2.0", "id": id, "result": text("batched")});
        fake.send(&json!([{"jsonrpc": "2.0", "method": "notifications/message"}, answer])).await;
    });
    assert_eq!(result.unwrap().content[0]["text"], "batched");
}

#[tokio::test]
async fn a_request_that_is_too_large_is_not_sent() {
    let options = Options { max_message_bytes: 1000, ..Options::default() };
    let (client, mut fake) = Fake::ready(options, LATEST).await;
    let arguments = Map::from_iter([("text".to_owned(), "x".repeat(1000).into())]);
    let error = client.call_tool("x", arguments, soon()).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { limit: 1000, .. }));
    assert!(fake.is_silent().await);
}

#[tokio::test]
async fn the_end_by_this_side() {
    let (client, mut fake) = Fake::ready(Options::default(), LATEST).await;
    let waiting = client.call_tool("x", Map::new(), soon());
    let (result, ()) = tokio::join!(waiting, async {
        fake.expect("tools/call").await;
        client.close().await;
    });
    assert!(matches!(result, Err(Error::Closed(Closed::ByUs))));
    assert!(matches!(client.ping().await, Err(Error::Closed(Closed::ByUs))));
    assert!(fake.end_or_next().await.is_none());

    let (client, mut fake) = Fake::ready(Options::default(), LATEST).await;
    let clone = client.clone();
    drop(client);
    assert!(fake.is_silent().await);
    drop(clone);
    assert!(fake.end_or_next().await.is_none());
}
