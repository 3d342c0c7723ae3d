//! Servers that break the protocol over pipes, on purpose.

use std::time::Duration;

use aion_mcp::{Closed, Error, Options};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::fake::Fake;
use crate::soon;

const LATEST: &str = "2025-06-18";

fn small() -> Options {
    Options { max_message_bytes: 4096, max_unsolicited: 100, ..Options::default() }
}

/// Two calls wait while the server sends this; both are told, and so is the next.
async fn closes_with(bytes: &[u8]) -> Closed {
    let (client, mut fake) = Fake::ready(small(), LATEST).await;
    let (one, two, ()) = tokio::join!(
        client.call_tool("one", Map::new(), soon()),
        client.call_tool("two", Map::new(), soon()),
        async {
            fake.expect("tools/call").await;
            fake.expect("tools/call").await;
            fake.raw(bytes).await;
        }
    );
    assert!(one.as_ref().is_err_and(Error::is_ambiguous));
    let reasons = [one.unwrap_err(), two.unwrap_err(), client.ping().await.unwrap_err()];
    let reasons = reasons.map(|error| match error {
        Error::Closed(reason) => reason,
        other => panic!("{other:?}"),
    });
    let closed = client.closed().await;
    assert!(reasons.iter().all(|reason| reason.to_string() == closed.to_string()), "{reasons:?} {closed}");
    assert!(fake.end_or_next().await.is_none(), "the pipe is not closed");
    closed
}

#[tokio::test]
async fn what_is_no_message_ends_the_connection() {
    for line in ["hello\n", "{\n", "\u{0}\n", "{\"jsonrpc\":\"2.0\"\n"] {
        assert!(matches!(closes_with(line.as_bytes()).await, Closed::NotJson), "{line}");
    }
    assert!(matches!(closes_with(b"\xff\xfe\n").await, Closed::NotJson));
    let deep = format!("{}\n", "[".repeat(4000));
    assert!(matches!(closes_with(deep.as_bytes()).await, Closed::NotJson));
    for line in
        ["1", "null", "[]", "{}", r#"{"jsonrpc":"1.0","id":1,"result":{}}"#, r#"{"jsonrpc":"2.0","id":1}"#]
    {
        let closed = closes_with(format!("{line}\n").as_bytes()).await;
        assert!(matches!(closed, Closed::NotMessage { .. }), "{line}: {closed}");
    }
}

#[tokio::test]
async fn lines_without_an_end() {
    assert!(matches!(closes_with(&[b'x'; 5000]).await, Closed::TooLong { limit: 4096 }));
    let long = format!("{{\"jsonrpc\":\"2.0\",\"method\":\"{}\"}}\n", "x".repeat(5000));
    assert!(matches!(closes_with(long.as_bytes()).await, Closed::TooLong { .. }));
}

#[tokio::test]
async fn answers_that_nobody_waits_for() {
    for id in [json!(0), json!(99), json!(u64::MAX), json!(-1), json!("2")] {
        let answer = json!({"jsonrpc": "2.0", "id": id, "result": {}});
        assert!(matches!(closes_with(format!("{answer}\n").as_bytes()).await, Closed::UnknownId), "{id}");
    }
    // The handshake's id, answered again and again.
    let again = format!("{}\n", json!({"jsonrpc": "2.0", "id": 1, "result": {}}));
    assert!(matches!(closes_with(again.repeat(200).as_bytes()).await, Closed::Flood));
}

#[tokio::test]
async fn floods() {
    for message in [
        json!({"jsonrpc": "2.0", "method": "notifications/message"}),
        json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}),
        json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32700, "message": "?"}}),
    ] {
        let flood = format!("{message}\n").repeat(200);
        assert!(matches!(closes_with(flood.as_bytes()).await, Closed::Flood), "{message}");
    }
    assert!(matches!(closes_with(&[b'\n'; 300]).await, Closed::Flood));
}

#[tokio::test]
async fn a_flood_of_requests_from_a_server_that_does_not_read() {
    let (client, mut fake) =
        Fake::ready(Options { max_unsolicited: 5000, ..Options::default() }, LATEST).await;
    // Each reply repeats a long id: the pipe and the queue of replies are soon full.
    let ping = format!("{}\n", json!({"jsonrpc": "2.0", "id": "x".repeat(1000), "method": "ping"}));
    for _ in 0..6000 {
        fake.raw(ping.as_bytes()).await;
    }
    assert!(matches!(client.closed().await, Closed::Flood));
}

#[tokio::test]
async fn a_server_that_does_not_read_costs_calls_their_deadline_and_no_more() {
    let (client, fake) = Fake::ready(Options::default(), LATEST).await;
    let arguments = Map::from_iter([("text".to_owned(), Value::from("x".repeat(1 << 20)))]);
    let deadline = Instant::now() + Duration::from_millis(200);
    let calls = (0..10).map(|_| {
        let (client, arguments) = (client.clone(), arguments.clone());
        tokio::spawn(async move { client.call_tool("x", arguments, deadline).await })
    });
    for call in calls.collect::<Vec<_>>() {
        assert!(matches!(call.await.unwrap(), Err(Error::Timeout { .. })));
    }
    drop(fake);
    assert!(matches!(client.closed().await, Closed::Eof | Closed::Io(_)));
}

#[tokio::test]
async fn a_stream_that_ends_early() {
    for rest in ["", "{\"jsonrpc\":\"2.0\",\"id\":2,"] {
        let (client, mut fake) = Fake::ready(small(), LATEST).await;
        let (result, ()) = tokio::join!(client.call_tool("x", Map::new(), soon()), async {
            fake.expect("tools/call").await;
            fake.raw(rest.as_bytes()).await;
            drop(fake);
        });
        assert!(matches!(result, Err(Error::Closed(Closed::Eof | Closed::Io(_)))), "{result:?}");
    }
}

/// What comes of listing the tools of a server that answers every page like this.
async fn listing(options: Options, page: impl Fn(usize) -> Value) -> Error {
    let (client, mut fake) = Fake::ready(options, LATEST).await;
    let script = async {
        for n in 0.. {
            let id = fake.expect("tools/list").await["id"].take();
            fake.answer(&id, page(n)).await;
        }
    };
    tokio::select! {
        tools = client.list_tools() => tools.unwrap_err(),
        () = script => unreachable!(),
    }
}

#[tokio::test]
async fn lists_without_an_end_and_tools_in_disguise() {
    let tool = |n: usize| json!({"name": format!("t{n}"), "inputSchema": {}});
    let error = listing(Options::default(), |n| json!({"tools": [tool(n)], "nextCursor": "same"})).await;
    assert!(matches!(error, Error::TooMany { limit: 64, .. }), "{error}");
    let options = Options { max_tools: 10, ..Options::default() };
    let error =
        listing(options, |n| json!({"tools": [tool(2 * n), tool(2 * n + 1)], "nextCursor": "c"})).await;
    assert!(matches!(error, Error::TooMany { limit: 10, .. }), "{error}");
    for page in [
        json!({"tools": [tool(1), tool(1)]}),
        json!({"tools": [tool(1)], "nextCursor": "c"}),
        json!({"tools": [{"name": "a"}]}),
        json!({"tools": {}}),
        json!({"tools": [], "nextCursor": 1}),
        json!([]),
    ] {
        let error = listing(Options::default(), |_| page.clone()).await;
        assert!(matches!(error, Error::Malformed { method: "tools/list", .. }), "{page}: {error}");
    }
}
