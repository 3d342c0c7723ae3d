//! A backend that does not count: what is charged is an estimate, and is told as one.

use aion_models::ModelConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

/// Answers one request with these events.
async fn backend(events: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = Vec::new();
        // The request's body is JSON, and the only one that ends so.
        while !asked.ends_with(b"}") {
            assert!(stream.read_buf(&mut asked).await.unwrap() > 0);
        }
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n";
        let answer = format!("{head}content-length: {}\r\n\r\n{events}", events.len());
        stream.write_all(answer.as_bytes()).await.unwrap();
    });
    format!("http://{address}/v1")
}

async fn streamed(events: String) -> (Answer, Value) {
    let world = World::new().await;
    let mut config = ModelConfig::new("m", backend(events).await, 8192);
    config.local = true;
    config.usd_per_mtok_out = 1_000_000_000;
    world.kernel.add_model(config, None).await.unwrap();
    let manifest = manifest(true, "").replace("tool.invoke", "model.generate");
    world.fake.agents.lock().unwrap().push(("tenantA".to_owned(), "asker".to_owned(), manifest));
    let request = json!({"agent_id": "agent://tenantA/asker", "syscall": "model.generate",
        "params": {"model": "m", "prompt": "Say hello.", "max_tokens": 100}});
    let (send, mut chunks) = mpsc::channel(64);
    let request = Request::from_value(request, None).unwrap();
    let answer = world.kernel.invoke_stream(world.caller.clone(), request, send).await.answer;
    assert!(chunks.recv().await.is_some(), "{answer:?}");
    let record = world.fake.records.lock().unwrap().last().cloned().unwrap();
    (answer, serde_json::from_str(&record.detail_json).unwrap())
}

#[tokio::test]
async fn what_a_backend_does_not_count_is_estimated_and_told_so() {
    const TEXT: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello, you there\"},\"finish_reason\":\"stop\"}]}\n\n";
    const USED: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":5}}\n\n";
    let silent = format!("{TEXT}data: [DONE]\n\n");
    let (answer, detail) = streamed(silent).await;
    assert_eq!((answer.status, answer.usage.tokens_out, answer.usage.estimated), (Status::Ok, 4, true));
    assert!((answer.usage.cost_usd - 0.004).abs() < 1e-9, "{answer:?}");
    assert_eq!(detail["estimated"], true);
    assert_eq!(json!(answer)["usage"]["estimated"], true);

    let counts = format!("{TEXT}{USED}data: [DONE]\n\n");
    let (answer, detail) = streamed(counts).await;
    assert_eq!((answer.usage.tokens_in, answer.usage.tokens_out, answer.usage.estimated), (7, 5, false));
    assert!(detail.get("estimated").is_none() && json!(answer)["usage"].get("estimated").is_none());
}
