//! Start, Stop, Kill, Pause, Resume, Wait, Remove, restarts and heartbeats.

use std::time::{Duration, Instant};

use aion_api_proto::v1 as api;
use tonic::Code;

use crate::daemon::{World, code};

fn seconds(n: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds: n, nanos: 0 })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_life() {
    let world = World::new();
    std::fs::write(world.dir.path().join("secrets/db"), "pass").unwrap();
    let agent = world.run("one", "  entry: [sleep, '9']\n  secrets: [db]").await;
    assert_eq!((agent.state.as_str(), agent.pid), ("running", 4242));
    assert_eq!(agent.layers[0].name, "seccomp");
    assert_eq!(world.fake.table().secrets[0].value, b"pass");

    let (mut client, id) = (world.agents(), agent.id.clone());
    let waiting =
        tokio::spawn(async move { client.wait(api::WaitRequest { agent: id, timeout: None }).await });
    let paused = world.agents().pause(api::PauseRequest { agent: "one".into(), ..Default::default() }).await;
    assert_eq!(paused.unwrap().into_inner().state, "paused");
    let resumed =
        world.agents().resume(api::ResumeRequest { agent: "one".into(), ..Default::default() }).await;
    assert_eq!(resumed.unwrap().into_inner().state, "running");
    world.fake.exit(&agent.id, 3);
    let ended = waiting.await.unwrap().unwrap().into_inner();
    assert_eq!(ended.state, "exited");
    let exit = ended.exit.unwrap();
    assert_eq!((exit.code, exit.signal, exit.reason.as_str()), (3, 0, "exited"));

    let stop = world.agents().stop(api::StopRequest { agent: "one".into(), ..Default::default() }).await;
    assert_eq!(code(&stop.unwrap_err()), "AGENT_NOT_RUNNING");
    world.agents().remove(api::RemoveRequest { agent: "one".into(), ..Default::default() }).await.unwrap();
    assert!(world.fake.table().agents.is_empty());
    let gone = world.agents().get(api::GetRequest { agent: agent.id }).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_secrets_and_an_absent_launcher_start_nothing() {
    let world = World::new();
    world.register("one", "  entry: [sleep]\n  secrets: [nope]").await;
    let start = |name: &str| api::StartRequest { agent: name.into(), ..Default::default() };
    let error = world.agents().start(start("one")).await.unwrap_err();
    assert_eq!(code(&error), "SECRET_NOT_FOUND");
    assert_eq!(world.get("one").await.state, "failed");

    world.register("two", "  entry: [sleep]").await;
    world.fake.down();
    let error = world.agents().start(start("two")).await.unwrap_err();
    assert_eq!((error.code(), code(&error).as_str()), (Code::Unavailable, "LAUNCHER_UNAVAILABLE"));
    assert_eq!(world.get("two").await.state, "created", "it does not start behind the user's back");
    world.fake.up();
    assert_eq!(world.agents().start(start("two")).await.unwrap().into_inner().state, "running");
    assert_eq!(world.fake.table().launches.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_asks_then_kills() {
    let world = World::new();
    let agent = world.run("soft", "  entry: [sleep]").await;
    let stop = api::StopRequest { agent: "soft".into(), ..Default::default() };
    let ended = world.agents().stop(stop).await.unwrap().into_inner();
    assert_eq!(ended.exit.unwrap().code, 143);
    assert_eq!(world.fake.table().signals, [(agent.id, 15)]);

    world.fake.table().stubborn = true;
    world.run("hard", "  entry: [sleep]\n  restart: always").await;
    world.agents().pause(api::PauseRequest { agent: "hard".into(), ..Default::default() }).await.unwrap();
    let begin = Instant::now();
    let stop = api::StopRequest { agent: "hard".into(), grace: seconds(1), ..Default::default() };
    let ended = world.agents().stop(stop).await.unwrap().into_inner();
    assert!(begin.elapsed() >= Duration::from_millis(950), "{:?}", begin.elapsed());
    let exit = ended.exit.unwrap();
    assert_eq!((ended.state.as_str(), exit.code, exit.reason.as_str()), ("exited", 137, "killed"));

    // An impatient kill comes through while a stop waits.
    world.run("slow", "  entry: [sleep]").await;
    let mut client = world.agents();
    let stop = api::StopRequest { agent: "slow".into(), grace: seconds(30), ..Default::default() };
    let stopping = tokio::spawn(async move { client.stop(stop).await });
    world.until("slow", "stopping").await;
    world.agents().kill(api::KillRequest { agent: "slow".into(), ..Default::default() }).await.unwrap();
    assert_eq!(stopping.await.unwrap().unwrap().into_inner().state, "exited");
    let bad = api::StopRequest { agent: "slow".into(), grace: seconds(-1), ..Default::default() };
    assert_eq!(code(&world.agents().stop(bad).await.unwrap_err()), "INVALID_FIELD");
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_reach_the_first_process() {
    let world = World::new();
    let agent = world.run("one", "  entry: [sleep]").await;
    let kill = |signal| api::KillRequest { agent: "one".into(), signal, ..Default::default() };
    world.agents().kill(kill(10)).await.unwrap();
    assert_eq!(world.fake.table().signals, [(agent.id, 10)]);
    assert_eq!(code(&world.agents().kill(kill(99)).await.unwrap_err()), "INVALID_FIELD");
    assert_eq!(world.get("one").await.state, "running");
}

#[tokio::test(flavor = "multi_thread")]
async fn waits_have_an_end() {
    let world = World::new();
    world.register("one", "  entry: [sleep]").await;
    let wait = |timeout| api::WaitRequest { agent: "one".into(), timeout };
    assert_eq!(code(&world.agents().wait(wait(None)).await.unwrap_err()), "AGENT_NOT_RUNNING");
    world.agents().start(api::StartRequest { agent: "one".into(), ..Default::default() }).await.unwrap();
    let late = world.agents().wait(wait(Some(prost_types::Duration { seconds: 0, nanos: 50_000_000 }))).await;
    let late = late.unwrap_err();
    assert_eq!((late.code(), code(&late).as_str()), (Code::DeadlineExceeded, "WAIT_TIMEOUT"));
    let mut client = world.agents();
    let waiting = tokio::spawn(async move { client.wait(wait(None)).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let remove = api::RemoveRequest { agent: "one".into(), force: true, ..Default::default() };
    world.agents().remove(remove).await.unwrap();
    // It either saw the end or the removal.
    match waiting.await.unwrap() {
        Ok(ended) => assert_eq!(ended.into_inner().state, "exited"),
        Err(error) => assert_eq!(code(&error), "AGENT_NOT_FOUND"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_follow_the_rule() {
    let mut world = World::new();
    let rule = "  restart: {policy: on-failure, max_restarts: 3, backoff_ms: 100}";
    let agent = world.run("one", &format!("  entry: [exit-1]\n{rule}")).await;
    let ended = world.until("one", "exited").await;
    assert_eq!((ended.restarts, ended.exit.unwrap().code), (3, 1));
    let launches: Vec<u32> = world.fake.table().launches.iter().map(|(_, n)| *n).collect();
    assert_eq!(launches, [0, 1, 2, 3]);

    // Across restarts of the daemon: the delay is over when it is back.
    let agent_two = world.run("two", &format!("  entry: [sleep]\n{rule}")).await;
    world.fake.exit(&agent_two.id, 9);
    world.until("two", "starting").await;
    world.crash();
    world.start();
    let running = world.until("two", "running").await;
    assert_eq!(running.restarts, 1);
    // It ends while the daemon is away.
    world.crash();
    world.fake.exit(&agent_two.id, 9);
    world.start();
    let mut running = world.until("two", "running").await;
    while running.restarts < 2 {
        running = world.until("two", "running").await;
    }
    world.fake.exit(&agent_two.id, 0);
    let ended = world.until("two", "exited").await;
    assert_eq!((ended.exit.unwrap().code, ended.restarts), (0, 2));
    assert_eq!(world.get(&agent.id).await.restarts, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_removes_itself() {
    let mut world = World::new();
    let mut request = crate::daemon::manifest("one", "  entry: [sleep]");
    request.overrides = Some(api::Overrides { auto_remove: true, ..Default::default() });
    let agent = world.agents().register(request.clone()).await.unwrap().into_inner();
    world.agents().start(api::StartRequest { agent: agent.id.clone(), ..Default::default() }).await.unwrap();
    // It ends while the daemon is away; the removal is not forgotten.
    world.crash();
    world.fake.exit(&agent.id, 0);
    world.start();
    for _ in 0..300 {
        if world.agents().get(api::GetRequest { agent: agent.id.clone() }).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let gone = world.agents().get(api::GetRequest { agent: agent.id.clone() }).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    assert!(world.fake.table().agents.is_empty());
    // Its name is free.
    world.agents().register(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_are_kept() {
    let world = World::new();
    world.register("one", "  entry: [sleep]").await;
    let status = [("load".to_owned(), "low".to_owned())].into();
    world.agents().heartbeat(api::HeartbeatRequest { agent: "one".into(), status }).await.unwrap();
    let agent = world.get("one").await;
    assert!(agent.last_heartbeat.is_some());
    assert_eq!(agent.status["load"], "low");
    let status = [("x".to_owned(), "y".repeat(5000))].into();
    let error =
        world.agents().heartbeat(api::HeartbeatRequest { agent: "one".into(), status }).await.unwrap_err();
    assert_eq!(code(&error), "TOO_LARGE");
}
