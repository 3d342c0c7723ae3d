//! The client against a daemon that dies: a small server with the real protocol on a real socket, ended in the
//! middle of calls, in both ways that a daemon can end (the connection breaks; the stream is closed in order).

#![expect(clippy::unwrap_used, reason = "a failing test panics")]

mod daemon;

use std::time::Duration;

use aion_client::{Client, Error, Options, api};
use aion_types::ErrorCode;
use daemon::{Daemon, OUTPUT_LEN, RECORDS, output};

fn client(daemon: &Daemon, patience: Duration) -> Client {
    Client::connect_lazily(Options { socket: daemon.socket(), patience, tenant: None })
}

const PATIENT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_follower_loses_and_doubles_nothing_across_many_deaths() {
    let daemon = Daemon::start();
    let client = client(&daemon, PATIENT);
    let mut logs = client.logs(api::LogsRequest { agent: "a".into(), follow: true, ..Default::default() });
    let mut got = Vec::new();
    let mut chunks = 0;
    while let Some(chunk) = logs.next().await.expect("a chunk") {
        got.extend_from_slice(&chunk.data);
        chunks += 1;
        match chunks % 40 {
            7 => daemon.crash_and_restart(Duration::from_millis(30)),
            27 => daemon.close_streams(),
            _ => {}
        }
    }
    assert_eq!(got.len(), OUTPUT_LEN);
    assert!(got == output(), "the bytes are those of the agent, in order");
    assert!(logs.reconnects() >= 5, "the daemon died {} times", logs.reconnects());
}

#[tokio::test]
async fn events_resume_at_the_cursor() {
    let daemon = Daemon::start();
    let client = client(&daemon, PATIENT);
    let request = api::SubscribeRequest { from_start: true, follow: true, ..Default::default() };
    let mut events = client.subscribe(request);
    for expected in 1..=RECORDS {
        let record = events.next().await.expect("a record").expect("no end while following");
        assert_eq!(record.seq, expected);
        match expected % 50 {
            10 => daemon.crash_and_restart(Duration::from_millis(20)),
            35 => daemon.close_streams(),
            _ => {}
        }
    }
    assert_eq!(events.cursor(), RECORDS);
}

#[tokio::test]
async fn following_from_now_begins_behind_the_newest_record() {
    let daemon = Daemon::start();
    let client = client(&daemon, PATIENT);
    let mut events = client.subscribe(api::SubscribeRequest { follow: true, ..Default::default() });
    let nothing = tokio::time::timeout(Duration::from_millis(200), events.next()).await;
    assert!(nothing.is_err(), "there is nothing new");
    assert_eq!(events.cursor(), RECORDS);
}

#[tokio::test]
async fn a_wait_outlives_the_daemon() {
    let daemon = Daemon::start();
    let client = client(&daemon, PATIENT);
    let wait =
        tokio::spawn(async move { client.wait(api::WaitRequest { agent: "a".into(), timeout: None }).await });
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(60)).await;
        daemon.crash_and_restart(Duration::from_millis(50));
    }
    tokio::time::sleep(Duration::from_millis(60)).await;
    daemon.end_agent();
    let agent = wait.await.expect("no panic").expect("an agent");
    assert_eq!(agent.exit.expect("an exit").code, 3);
}

#[tokio::test]
async fn a_mutation_is_repeated_under_its_request_id() {
    let daemon = Daemon::start();
    let client = client(&daemon, PATIENT);
    daemon.die_on_next_start();
    client.start(api::StartRequest { agent: "a".into(), ..Default::default() }).await.expect("started");
    let seen = daemon.starts();
    assert_eq!(seen.len(), 2, "sent twice");
    assert_eq!(seen[0], seen[1], "under one id");
    assert_eq!(seen[0].len(), 32);
}

#[tokio::test]
async fn patience_ends() {
    let daemon = Daemon::start();
    let client = client(&daemon, Duration::from_millis(300));
    daemon.crash();
    let error = client.get(api::GetRequest { agent: "a".into() }).await.expect_err("nobody is there");
    assert_eq!(error.code(), ErrorCode::DaemonUnavailable);
    let options = Options { socket: daemon.socket(), patience: PATIENT, tenant: None };
    let error = Client::connect(options).await.expect_err("nobody listens");
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn errors_come_with_code_and_metadata_through_the_wire() {
    let daemon = Daemon::start();
    let client = client(&daemon, PATIENT);
    let error = client.get(api::GetRequest { agent: "nobody".into() }).await.expect_err("unknown");
    assert_eq!((error.code(), error.meta("agent")), (ErrorCode::AgentNotFound, Some("nobody")));
}
