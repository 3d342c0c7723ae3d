//! The daemon dies in the middle of things.

use std::time::Duration;

use aion_api_proto::v1 as api;
use aion_launcher_proto::v1 as launcher;

use crate::daemon::{World, code};

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_was_cut_off_before_the_launch_is_launched_once() {
    let mut world = World::new();
    let agent = world.register("one", "  entry: [sleep]").await;
    world.fake.table().hang_launch = true;
    let request = api::StartRequest { agent: agent.id.clone(), request_id: "s1".into() };
    let (mut client, sent) = (world.agents(), request.clone());
    let _cut_off = tokio::spawn(async move { client.start(sent).await });
    world.until("one", "starting").await;
    world.crash();
    world.fake.table().hang_launch = false;
    world.start();
    // The client asks again under its id and gets the first one's answer.
    let started = world.agents().start(request).await.unwrap().into_inner();
    assert_eq!(started.state, "running");
    assert_eq!(world.fake.table().launches, [(agent.id, 0)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_was_cut_off_after_the_launch_is_adopted() {
    let mut world = World::new();
    let agent = world.register("one", "  entry: [sleep]").await;
    world.fake.table().swallow_launch = true;
    let request = api::StartRequest { agent: agent.id.clone(), request_id: "s1".into() };
    let (mut client, sent) = (world.agents(), request.clone());
    let _cut_off = tokio::spawn(async move { client.start(sent).await });
    while world.fake.table().launches.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.crash();
    world.fake.table().swallow_launch = false;
    world.start();
    assert_eq!(world.agents().start(request).await.unwrap().into_inner().state, "running");
    world.until("one", "running").await;
    assert_eq!(world.fake.table().launches, [(agent.id, 0)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launch_without_an_answer_is_settled_when_the_launcher_is_back() {
    let world = World::new();
    world.register("one", "  entry: [sleep]").await;
    world.fake.table().swallow_launch = true;
    let start = api::StartRequest { agent: "one".into(), ..Default::default() };
    let error = world.agents().start(start).await.unwrap_err();
    assert_eq!(code(&error), "LAUNCHER_UNAVAILABLE");
    world.fake.table().swallow_launch = false;
    world.fake.down();
    world.fake.up();
    world.until("one", "running").await;
    assert_eq!(world.fake.table().launches.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ended_meanwhile_gets_its_exit() {
    let mut world = World::new();
    let (one, two) = (world.run("one", "  entry: [sleep]").await, world.run("two", "  entry: [sleep]").await);
    world.crash();
    world.fake.exit(&one.id, 42);
    // The host went down under the other: the launcher does not know it any more.
    world.fake.table().agents.remove(&two.id);
    world.start();
    assert_eq!(world.until("one", "exited").await.exit.unwrap().code, 42);
    let lost = world.until("two", "exited").await.exit.unwrap();
    assert_eq!((lost.code, lost.reason.as_str()), (137, "lost"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_stop_is_finished() {
    let mut world = World::new();
    world.fake.table().stubborn = true;
    world.run("one", "  entry: [sleep]\n  restart: always").await;
    let mut client = world.agents();
    let stop = api::StopRequest { agent: "one".into(), ..Default::default() };
    let _cut_off = tokio::spawn(async move { client.stop(stop).await });
    world.until("one", "stopping").await;
    world.crash();
    world.start();
    let mut agent = world.get("one").await;
    for _ in 0..800 {
        if agent.state == "exited" {
            break;
        }
        assert_eq!(agent.state, "stopping");
        tokio::time::sleep(Duration::from_millis(10)).await;
        agent = world.get("one").await;
    }
    assert_eq!(agent.exit.unwrap().reason, "killed");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_not_on_record_is_adopted() {
    let mut world = World::new();
    world.register("taken", "  entry: [sleep]").await;
    world.crash();
    let ids = ["01ARZ3NDEKTSV4RRFFQ69G5FAV", "01ARZ3NDEKTSV4RRFFQ69G5FAW"];
    for (id, name) in ids.into_iter().zip(["stray", "taken"]) {
        let state = launcher::AgentState {
            id: id.into(),
            tenant: "default".into(),
            name: name.into(),
            state: "running".into(),
            pid: 5,
            ..Default::default()
        };
        world.fake.table().agents.insert(id.into(), state);
    }
    world.start();
    world.until("stray", "running").await;
    let other = world.until(ids[1], "running").await;
    assert!(other.name.starts_with("orphan-"), "{}", other.name);
    let remove = |agent: &str| api::RemoveRequest { agent: agent.into(), force: true, ..Default::default() };
    for id in ids {
        world.agents().remove(remove(id)).await.unwrap();
    }
    assert!(world.fake.table().agents.is_empty());
}
