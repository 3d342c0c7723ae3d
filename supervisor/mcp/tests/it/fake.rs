//! A scripted server at the other end of a pair of in-memory pipes.

use std::time::Duration;

use aion_mcp::{Client, Options};
use serde_json::{Value, json};
use tokio::io::{
    AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, Lines, ReadHalf, WriteHalf,
};

pub(crate) struct Fake {
    lines: Lines<BufReader<ReadHalf<DuplexStream>>>,
    writer: WriteHalf<DuplexStream>,
}

impl Fake {
    pub(crate) fn start(options: Options) -> (Client, Self) {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let (reader, writer) = tokio::io::split(ours);
        let client = Client::start(reader, writer, options);
        let (reader, writer) = tokio::io::split(theirs);
        (client, Self { lines: BufReader::new(reader).lines(), writer })
    }

    /// A client whose handshake is done, with a revision.
    pub(crate) async fn ready(options: Options, revision: &str) -> (Client, Self) {
        let (client, mut fake) = Self::start(options);
        let initializing = async {
            let id = fake.expect("initialize").await["id"].take();
            let result = json!({
                "protocolVersion": revision,
                "capabilities": {"tools": {"listChanged": true}},
                "serverInfo": {"name": "fake", "version": "7"},
            });
            fake.answer(&id, result).await;
            fake.expect("notifications/initialized").await;
        };
        let (info, ()) = tokio::join!(client.initialize(), initializing);
        info.unwrap();
        (client, fake)
    }

    /// The next message; panics when none comes, so that a test that hangs says where.
    pub(crate) async fn next(&mut self) -> Value {
        self.end_or_next().await.unwrap()
    }

    /// The next message, or `None` when the client has closed its end.
    pub(crate) async fn end_or_next(&mut self) -> Option<Value> {
        let line = tokio::time::timeout(Duration::from_secs(20), self.lines.next_line()).await.unwrap();
        line.unwrap().map(|line| serde_json::from_str(&line).unwrap())
    }

    pub(crate) async fn expect(&mut self, method: &str) -> Value {
        let message = self.next().await;
        assert_eq!(message["jsonrpc"], "2.0");
        assert_eq!(message["method"], method, "{message}");
        message
    }

    /// Whether the client says nothing for a moment.
    pub(crate) async fn is_silent(&mut self) -> bool {
        tokio::time::timeout(Duration::from_millis(150), self.lines.next_line()).await.is_err()
    }

    pub(crate) async fn send(&mut self, message: &Value) {
        self.raw(format!("{message}\n").as_bytes()).await;
    }

    /// Writes bytes. That the client is gone is no fault of the test.
    pub(crate) async fn raw(&mut self, bytes: &[u8]) {
        let _ = self.writer.write_all(bytes).await;
    }

    pub(crate) async fn answer(&mut self, id: &Value, result: Value) {
        self.send(&json!({"jsonrpc": "2.0", "id": id, "result": result})).await;
    }
}

pub(crate) fn text(text: &str) -> Value {
    json!({"content": [{"type": "text", "text": text}]})
}
