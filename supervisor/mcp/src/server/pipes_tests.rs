//! The server over pipes: order, cancelling, limits, garbage.

use std::time::Duration;

use serde_json::{Map, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, DuplexStream, ReadHalf, WriteHalf};
use tokio::time::timeout;

use super::*;
use crate::{ServerOptions, ToolFailure, ToolInfo, ToolResult};

struct Tools;

impl Toolbox for Tools {
    type Caller = str;

    async fn list(&self, _: &str) -> Vec<ToolInfo> {
        Vec::new()
    }

    async fn call(&self, _: &str, name: &str, given: Map<String, Value>) -> Result<ToolResult, ToolFailure> {
        match name {
            "echo" => Ok(ToolResult::structured(given)),
            "wait" => std::future::pending().await,
            "panic" => panic!("on purpose"),
            _ => Err(ToolFailure::Unknown),
        }
    }
}

struct Peer {
    reader: BufReader<ReadHalf<DuplexStream>>,
    writer: WriteHalf<DuplexStream>,
    served: tokio::task::JoinHandle<io::Result<()>>,
}

impl Peer {
    fn start(options: PipeOptions) -> Self {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let (reader, writer) = tokio::io::split(theirs);
        let server = Arc::new(Server::new(Tools, ServerOptions::default()));
        let served = tokio::spawn(server.serve_pipes(Arc::from("ann"), reader, writer, options));
        let (reader, writer) = tokio::io::split(ours);
        Self { reader: BufReader::new(reader), writer, served }
    }

    async fn say(&mut self, line: &str) {
        self.writer.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    async fn call(&mut self, id: u64, name: &str) {
        let params = json!({"name": name, "arguments": {"id": id}});
        self.say(&message::request(id, "tools/call", params.as_object().cloned().unwrap()).to_string()).await;
    }

    async fn hear(&mut self) -> Value {
        let mut line = String::new();
        let read = timeout(Duration::from_secs(10), self.reader.read_line(&mut line)).await.unwrap();
        assert!(read.unwrap() > 0, "the server ended its stream");
        serde_json::from_str(&line).unwrap()
    }
}

#[tokio::test]
async fn calls_run_side_by_side_and_a_cancelled_one_is_not_answered() {
    let mut peer = Peer::start(PipeOptions { max_calls: 2, ..PipeOptions::default() });
    peer.say(r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18"}}"#)
        .await;
    assert_eq!(peer.hear().await["result"]["protocolVersion"], "2025-06-18");
    peer.say(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
    peer.call(1, "wait").await;
    peer.call(2, "echo").await;
    let answer = peer.hear().await;
    // What was agreed on holds: this revision has structured results.
    assert_eq!((&answer["id"], &answer["result"]["structuredContent"]), (&json!(2), &json!({"id": 2})));
    peer.call(1, "echo").await;
    assert!(peer.hear().await["error"]["message"].as_str().unwrap().contains("under way"));
    peer.call(3, "wait").await;
    peer.call(4, "echo").await;
    // Both places are taken; a ping needs none.
    peer.say(r#"{"jsonrpc":"2.0","id":5,"method":"ping"}"#).await;
    assert_eq!(peer.hear().await["id"], 5);
    peer.say(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#).await;
    assert_eq!(peer.hear().await["id"], 4);
    // Its id is free again.
    peer.call(1, "echo").await;
    assert_eq!(peer.hear().await["result"]["structuredContent"], json!({"id": 1}));
}

#[tokio::test]
async fn garbage_is_answered_and_the_server_goes_on() {
    let mut peer = Peer::start(PipeOptions { max_message_bytes: 1000, ..PipeOptions::default() });
    let long = format!("\"{}\"", "x".repeat(5000));
    for (line, code) in [
        ("{", PARSE_ERROR),
        ("\u{7f}\u{0}", PARSE_ERROR),
        ("[]", INVALID_REQUEST),
        ("7", INVALID_REQUEST),
        ("{\"id\":1}", INVALID_REQUEST),
        (long.as_str(), INVALID_REQUEST),
        (r#"{"jsonrpc":"2.0","id":1,"method":"no/such"}"#, message::METHOD_NOT_FOUND),
    ] {
        peer.say(line).await;
        assert_eq!(peer.hear().await["error"]["code"], code, "{line}");
    }
    for quiet in ["", "  ", r#"{"jsonrpc":"2.0","id":9,"result":{}}"#, r#"{"jsonrpc":"2.0","method":"x"}"#] {
        peer.say(quiet).await;
    }
    peer.say(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":[]}}"#).await;
    peer.call(3, "panic").await;
    let answer = peer.hear().await;
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(3), &json!(INTERNAL_ERROR)));
    peer.say(r#"[{"jsonrpc":"2.0","id":4,"method":"ping"},{"jsonrpc":"2.0","id":5,"method":"ping"}]"#).await;
    assert_eq!(peer.hear().await.as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn requests_that_wait_are_bounded() {
    let options = PipeOptions { max_message_bytes: 1000, max_pending_bytes: 3 * LEAST, max_calls: 1 };
    let mut peer = Peer::start(options);
    for id in 1..=4 {
        peer.call(id, "wait").await;
    }
    let answer = peer.hear().await;
    assert_eq!(answer["id"], 4);
    assert!(answer["error"]["message"].as_str().unwrap().contains("too many"));
    peer.say(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":2}}"#).await;
    // The place is free once the task has gone.
    loop {
        peer.say(r#"{"jsonrpc":"2.0","id":6,"method":"ping"}"#).await;
        if peer.hear().await.get("result").is_some() {
            break;
        }
    }
}

#[tokio::test]
async fn it_ends_with_the_last_answer_or_with_its_peer() {
    let mut peer = Peer::start(PipeOptions::default());
    peer.call(1, "echo").await;
    peer.writer.shutdown().await.unwrap();
    assert_eq!(peer.hear().await["id"], 1);
    timeout(Duration::from_secs(10), peer.served).await.unwrap().unwrap().unwrap();

    // Nobody reads: what is under way is given up with the first answer that cannot be written.
    let mut peer = Peer::start(PipeOptions::default());
    peer.call(1, "wait").await;
    peer.call(2, "echo").await;
    let Peer { reader, writer, served } = peer;
    drop((reader, writer));
    assert!(timeout(Duration::from_secs(10), served).await.unwrap().unwrap().is_err());
}
