//! Output: whole, in order, once.

use std::time::Duration;

use aion_agent_journal::Kind;
use aion_api_proto::v1 as api;
use aion_api_proto::v1::log_chunk::Stream;

use crate::daemon::{World, code};

fn request(agent: &str) -> api::LogsRequest {
    api::LogsRequest { agent: agent.into(), ..Default::default() }
}

async fn all(world: &World, request: api::LogsRequest) -> Vec<api::LogChunk> {
    let mut stream = world.agents().logs(request).await.unwrap().into_inner();
    let mut chunks = Vec::new();
    while let Some(chunk) = stream.message().await.unwrap() {
        chunks.push(chunk);
    }
    chunks
}

fn text(chunks: &[api::LogChunk]) -> String {
    chunks.iter().map(|c| String::from_utf8_lossy(&c.data).into_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_streams_tails_and_times() {
    let world = World::new();
    let agent = world.run("one", "  entry: [sleep]").await;
    world.fake.output(&agent.id, Kind::Stdout, b"one\ntwo\n");
    world.fake.output(&agent.id, Kind::Stderr, b"bad\n");
    tokio::time::sleep(Duration::from_millis(20)).await;
    let middle = crate::fake::now();
    tokio::time::sleep(Duration::from_millis(20)).await;
    world.fake.output(&agent.id, Kind::Stdout, b"three\nfour");
    let chunks = all(&world, request("one")).await;
    assert_eq!(text(&chunks), "one\ntwo\nbad\nthree\nfour");
    let streams: Vec<_> = chunks.iter().map(api::LogChunk::stream).collect();
    assert_eq!(streams, [Stream::Stdout, Stream::Stderr, Stream::Stdout]);
    for (lines, expected) in
        [(1, "four"), (2, "three\nfour"), (4, "two\nbad\nthree\nfour"), (99, "one\ntwo\nbad\nthree\nfour")]
    {
        let tail = api::LogsRequest { tail_lines: lines, ..request("one") };
        assert_eq!(text(&all(&world, tail).await), expected, "{lines}");
    }
    let since = prost_types::Timestamp {
        seconds: i64::try_from(middle / 1_000_000_000).unwrap(),
        nanos: i32::try_from(middle % 1_000_000_000).unwrap(),
    };
    assert_eq!(
        text(&all(&world, api::LogsRequest { since: Some(since), ..request("one") }).await),
        "three\nfour"
    );
    let cursor = chunks[1].next_cursor;
    assert_eq!(text(&all(&world, api::LogsRequest { cursor, ..request("one") }).await), "three\nfour");
    let negative = api::LogsRequest { tail_lines: -1, ..request("one") };
    assert_eq!(code(&world.agents().logs(negative).await.unwrap_err()), "INVALID_FIELD");
    for cursor in [cursor + 1, 4097, 1 << 63] {
        let wrong = api::LogsRequest { cursor, ..request("one") };
        let status = match world.agents().logs(wrong).await {
            Err(status) => status,
            Ok(stream) => stream.into_inner().message().await.unwrap_err(),
        };
        assert_eq!(code(&status), "INVALID_FIELD", "{cursor}");
    }
    // An agent that never ran has no output, and following it ends.
    world.register("two", "  entry: [sleep]").await;
    assert!(all(&world, api::LogsRequest { follow: true, ..request("two") }).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_gets_every_byte_across_crashes() {
    let mut world = World::new();
    let agent = world.run("one", "  entry: [sleep]").await;
    let mut expected = Vec::new();
    let mut got = Vec::new();
    let mut follow = api::LogsRequest { follow: true, ..request("one") };
    for round in 0..4 {
        let mut stream = world.agents().logs(follow.clone()).await.unwrap().into_inner();
        for n in 0..50 {
            let line = format!("{round} {n} {}\n", "x".repeat(n * 40));
            expected.extend_from_slice(line.as_bytes());
            world.fake.output(&agent.id, Kind::Stdout, line.as_bytes());
        }
        // Somewhere in the middle.
        let target = expected.len() - 20_000;
        while got.len() < target {
            let chunk = stream.message().await.unwrap().unwrap();
            got.extend_from_slice(&chunk.data);
            follow.cursor = chunk.next_cursor;
        }
        world.crash();
        world.start();
    }
    let mut stream = world.agents().logs(follow).await.unwrap().into_inner();
    world.fake.output(&agent.id, Kind::Stdout, b"the end");
    expected.extend_from_slice(b"the end");
    world.fake.exit(&agent.id, 0);
    while let Some(chunk) = stream.message().await.unwrap() {
        got.extend_from_slice(&chunk.data);
    }
    assert!(got == expected, "{} bytes of {}", got.len(), expected.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn following_is_prompt_and_spans_restarts_of_the_agent() {
    let world = World::new();
    let rule = "  restart: {policy: on-failure, max_restarts: 1, backoff_ms: 200}";
    let agent = world.run("one", &format!("  entry: [sleep]\n{rule}")).await;
    let mut stream =
        world.agents().logs(api::LogsRequest { follow: true, ..request("one") }).await.unwrap().into_inner();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let begin = std::time::Instant::now();
    world.fake.output(&agent.id, Kind::Stdout, b"first");
    assert_eq!(stream.message().await.unwrap().unwrap().data, b"first");
    assert!(begin.elapsed() < Duration::from_millis(500), "{:?}", begin.elapsed());
    world.fake.exit(&agent.id, 1);
    world.until("one", "starting").await;
    world.until("one", "running").await;
    world.fake.output(&agent.id, Kind::Stdout, b"second");
    assert_eq!(stream.message().await.unwrap().unwrap().data, b"second");
    world.fake.exit(&agent.id, 1);
    assert_eq!(stream.message().await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_costs_no_memory_and_loses_nothing() {
    let world = World::new();
    let agent = world.run("one", "  entry: [sleep]").await;
    let mut stream =
        world.agents().logs(api::LogsRequest { follow: true, ..request("one") }).await.unwrap().into_inner();
    let block = vec![b'z'; 1 << 20];
    for _ in 0..16 {
        world.fake.output(&agent.id, Kind::Stdout, &block);
    }
    world.fake.exit(&agent.id, 0);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut total = 0;
    while let Some(chunk) = stream.message().await.unwrap() {
        assert!(chunk.data.len() <= 64 << 10);
        total += chunk.data.len();
    }
    assert_eq!(total, 16 << 20);
}
