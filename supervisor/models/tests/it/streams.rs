//! Streamed answers.

use std::time::{Duration, Instant};

use aion_models::{Call, Error, Event, Generation, Models, Result, Tokens, Usage};
use futures::StreamExt as _;
use serde_json::{Value, json};

use crate::backend::{Backend, Reply, chunk};
use crate::{KEY, is_send, models, plan};

async fn begin(models: &Models, more: Value) -> Result<Generation> {
    let call = Call::default();
    let stream = models.stream(plan(models, more), &call);
    is_send(&stream);
    let stream = stream.await?;
    is_send(&stream);
    Ok(stream)
}

/// The chunks, and how it ended.
async fn all(mut stream: Generation) -> (Vec<Value>, Result<Usage>) {
    let mut chunks = Vec::new();
    loop {
        match stream.next().await.expect("ends with usage or an error") {
            Ok(Event::Chunk(chunk)) => chunks.push(chunk),
            Ok(Event::Usage(usage)) => {
                assert!(stream.next().await.is_none());
                assert_eq!(stream.usage(), usage);
                return (chunks, Ok(usage));
            }
            Err(error) => {
                assert!(stream.next().await.is_none());
                return (chunks, Err(error));
            }
        }
    }
}

async fn all_of(events: &[String]) -> (Vec<Value>, Result<Usage>) {
    let backend = Backend::start(vec![Reply::Events(events.to_vec())]).await;
    all(begin(&models(&backend, |_| ()), json!({})).await.unwrap()).await
}

fn data(value: &Value) -> String {
    format!("data: {value}\n\n")
}

#[tokio::test]
async fn chunks_then_usage() {
    let backend = Backend::start(vec![Reply::Normal]).await;
    let models = models(&backend, |_| ());
    let (chunks, usage) = all(begin(&models, json!({"stream": true})).await.unwrap()).await;
    let usage = usage.unwrap();
    assert_eq!(chunks.len(), 2, "the chunk with the usage was not asked for");
    let text: String =
        chunks.iter().filter_map(|one| one["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, "Hello");
    assert!(chunks.iter().all(|chunk| chunk["model"] == "m" && chunk.get("usage").is_none()));
    assert_eq!(usage.tokens, Tokens { input: 12, output: 5 });
    assert!(usage.usd_micros == 22 && !usage.estimated);
    let sent = backend.seen().remove(0).body;
    assert_eq!((&sent["stream"], &sent["max_tokens"]), (&json!(true), &json!(4096)));
    assert_eq!(sent["stream_options"], json!({"include_usage": true}));
    let metrics = models.metrics().remove(0);
    assert_eq!((metrics.calls, metrics.tokens_out, metrics.usd_micros, metrics.errors), (1, 5, 22, 0));
}

#[tokio::test]
async fn usage_is_forwarded_when_asked_for() {
    let backend = Backend::start(vec![Reply::Normal]).await;
    let more = json!({"stream": true, "stream_options": {"include_usage": true}});
    let (chunks, usage) = all(begin(&models(&backend, |_| ()), more).await.unwrap()).await;
    assert_eq!(chunks.len(), 3);
    assert_eq!(chunks[2]["usage"]["completion_tokens"], 5);
    assert!(chunks[0]["usage"].is_null() && chunks[2]["model"] == "m");
    assert_eq!(usage.unwrap().tokens.output, 5);
}

#[tokio::test]
async fn without_usage_it_is_estimated() {
    let events = [data(&chunk("twelve bytes", Some("stop"))), "data: [DONE]\n\n".to_owned()];
    let (chunks, usage) = all_of(&events).await;
    let usage = usage.unwrap();
    // A token for four bytes; the prompt has 18, and around them JSON, of which each mark is one.
    assert!(chunks.len() == 1 && usage.estimated && usage.tokens.output == 3);
    assert!((15..30).contains(&usage.tokens.input), "{usage:?}");
    assert_eq!(usage.usd_micros, usage.tokens.input + 6);

    // A backend that sends each token by itself is believed in their number.
    let mut events: Vec<_> = (0..9).map(|_| data(&chunk("1", None))).collect();
    events.push(data(&chunk("", Some("stop"))));
    assert_eq!(all_of(&events).await.1.unwrap().tokens.output, 9);
}

#[tokio::test]
async fn an_end_without_done() {
    let (_, usage) = all_of(&[data(&chunk("a", Some("stop")))]).await;
    assert!(usage.is_ok());
    let (_, usage) = all_of(&[data(&chunk("a", Some("stop"))).trim_end().to_owned()]).await;
    assert!(usage.is_ok(), "the last event without its empty line");
    let (chunks, error) = all_of(&[data(&chunk("a", None))]).await;
    assert!(chunks.len() == 1 && matches!(error, Err(Error::Transport { .. })));
    let (chunks, error) = all_of(&[]).await;
    assert!(chunks.is_empty() && matches!(error, Err(Error::Transport { .. })));
}

#[tokio::test]
async fn errors_within_a_stream() {
    let first = data(&chunk("a", None));
    let error = json!({"error": {"message": format!("lost {KEY}"), "code": 503}});
    match all_of(&[first.clone(), data(&error)]).await.1.unwrap_err() {
        Error::Upstream { status: 503, message, .. } => assert_eq!(message, "lost ***"),
        other => panic!("{other}"),
    }
    for nonsense in ["data: {\n\n".to_owned(), "data: 7\n\n".to_owned(), data(&chunk(KEY, None))] {
        let error = all_of(&[first.clone(), nonsense]).await.1.unwrap_err();
        assert!(matches!(error, Error::Upstream { status: 502, .. }) && !format!("{error:?}").contains(KEY));
    }
}

#[tokio::test]
async fn an_event_is_bounded() {
    let long = format!("data: {}", "x".repeat(2 << 20));
    assert!(matches!(all_of(&[long]).await.1, Err(Error::TooLarge { limit, .. }) if limit == 1 << 20));
    let lines = "data: x\n".repeat(1 << 20);
    assert!(matches!(all_of(&[lines]).await.1, Err(Error::TooLarge { .. })));
}

#[tokio::test]
async fn one_that_does_not_keep_to_its_tokens_is_ended() {
    let events: Vec<_> = (0..100).map(|_| data(&chunk(&"x".repeat(1000), None))).collect();
    let backend = Backend::start(vec![Reply::Events(events)]).await;
    let models = models(&backend, |_| ());
    let (chunks, end) = all(begin(&models, json!({"max_tokens": 5})).await.unwrap()).await;
    assert!(matches!(&end, Err(Error::Upstream { status: 502, .. })), "{end:?}");
    // 64 bytes a token and 4 KiB.
    assert_eq!(chunks.len(), 4);
}

#[tokio::test]
async fn dropping_it_cancels_upstream() {
    let backend = Backend::start(vec![Reply::Endless]).await;
    let models = models(&backend, |_| ());
    let mut stream = begin(&models, json!({})).await.unwrap();
    assert!(matches!(stream.next().await, Some(Ok(Event::Chunk(_)))));
    let usage = stream.usage();
    // Whoever leaves before the end pays for each byte, and for all of the prompt's bound.
    assert!(usage.estimated && usage.tokens.output >= 4 && usage.tokens.input > 1000);
    drop(stream);
    assert!(backend.was_dropped().await);
    let metrics = models.metrics().remove(0);
    assert_eq!((metrics.tokens_out, metrics.usd_micros), (usage.tokens.output, usage.usd_micros));
    assert_eq!(metrics.errors, 0);
}

#[tokio::test]
async fn the_deadline_holds_for_all_of_it() {
    let backend = Backend::start(vec![Reply::Endless]).await;
    let models = models(&backend, |_| ());
    let start = Instant::now();
    let call = Call { scope: String::new(), deadline: Some(start + Duration::from_millis(500)) };
    let (chunks, end) = all(models.stream(plan(&models, json!({})), &call).await.unwrap()).await;
    assert!(!chunks.is_empty() && matches!(end, Err(Error::Timeout { .. })));
    assert!(start.elapsed() < Duration::from_secs(2));
    assert!(backend.was_dropped().await);
    assert_eq!(models.metrics()[0].errors, 1);
}

#[tokio::test]
async fn it_is_repeated_before_its_first_byte_only() {
    let backend = Backend::start(vec![Reply::status(503, "wait"), Reply::Normal]).await;
    let stream = begin(&models(&backend, |_| ()), json!({})).await.unwrap();
    assert_eq!(stream.attempts(), 2);
    assert!(all(stream).await.1.is_ok());

    let backend = Backend::start(vec![Reply::Broken, Reply::Normal]).await;
    let (chunks, end) = all(begin(&models(&backend, |_| ()), json!({})).await.unwrap()).await;
    assert!(chunks.len() == 1 && matches!(end, Err(Error::Transport { sent: true, .. })));
    assert_eq!(backend.count(), 1);
}

#[tokio::test]
async fn a_refusal_comes_before_the_stream() {
    let backend = Backend::start(vec![Reply::status(400, "no")]).await;
    let error = begin(&models(&backend, |_| ()), json!({})).await.unwrap_err();
    assert!(matches!(error, Error::Upstream { status: 400, .. }));
}
