//! Request ids: what is sent twice happens once.

use aion_api_proto::v1 as api;
use aion_launcher_proto::v1 as launcher;

use crate::daemon::{World, code, manifest};

fn start(agent: &str, id: &str) -> api::StartRequest {
    api::StartRequest { request_id: id.into(), agent: agent.into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_answers_what_the_first_did() {
    let mut world = World::new();
    let mut request = manifest("one", "  entry: [sleep]");
    request.request_id = "r1".into();
    let first = world.agents().register(request.clone()).await.unwrap().into_inner();
    let second = world.agents().register(request.clone()).await.unwrap().into_inner();
    assert_eq!(first, second);
    request.replace = true;
    assert_eq!(code(&world.agents().register(request.clone()).await.unwrap_err()), "REQUEST_ID_REUSED");
    assert_eq!(code(&world.agents().start(start("one", "r1")).await.unwrap_err()), "REQUEST_ID_REUSED");
    // Also after a restart.
    world.crash();
    world.start();
    request.replace = false;
    assert_eq!(world.agents().register(request).await.unwrap().into_inner(), first);

    let too_long = start("one", &"x".repeat(65));
    assert_eq!(code(&world.agents().start(too_long).await.unwrap_err()), "INVALID_FIELD");
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_at_once_are_one_launch() {
    let world = World::new();
    let agent = world.register("one", "  entry: [sleep]").await;
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let mut client = world.agents();
            tokio::spawn(
                async move { client.start(start("one", "s1")).await.map(tonic::Response::into_inner) },
            )
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().state, "running");
    }
    assert_eq!(world.fake.table().launches, [(agent.id.clone(), 0)]);
    // Without an id it is a request of its own.
    let again = world.agents().start(start("one", "")).await.unwrap_err();
    assert_eq!(code(&again), "AGENT_RUNNING");
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_remembered_and_passing_ones_are_not() {
    let world = World::new();
    world.register("one", "  entry: [sleep]").await;
    let refuse = |code: &str, layer: &str| {
        Some(launcher::Error {
            code: code.into(),
            message: "no".into(),
            layer: layer.into(),
            ..Default::default()
        })
    };
    world.fake.table().refuse = refuse("LAYER_FAILED", "landlock");
    let first = world.agents().start(start("one", "s1")).await.unwrap_err();
    world.fake.table().refuse = None;
    let second = world.agents().start(start("one", "s1")).await.unwrap_err();
    for error in [first, second] {
        assert_eq!(code(&error), "LAYER_FAILED");
        assert_eq!(crate::daemon::meta(&error, "layer"), "landlock");
    }
    let failed = world.get("one").await;
    assert_eq!((failed.state.as_str(), failed.message.as_str()), ("failed", "no"));

    world.fake.table().refuse = refuse("DISK_FULL", "");
    assert_eq!(code(&world.agents().start(start("one", "s2")).await.unwrap_err()), "DISK_FULL");
    world.fake.table().refuse = None;
    assert_eq!(world.agents().start(start("one", "s2")).await.unwrap().into_inner().state, "running");
    let incarnations: Vec<u32> = world.fake.table().launches.iter().map(|(_, n)| *n).collect();
    assert_eq!(incarnations, [2], "a refused incarnation is not used again");
}
