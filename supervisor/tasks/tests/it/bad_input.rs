//! What is refused: with a code, counted, and nothing changed.

use aion_api_proto::v1 as api;

use crate::world::{World, known, spec};

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_cannot_be_are_refused_and_change_nothing() {
    let world = World::new(2, vec![known("default", "w", 2)]);
    let before = world.submit(spec("w", "fine")).await.unwrap();
    let soon =
        prost_types::Timestamp::from(std::time::SystemTime::now() + std::time::Duration::from_millis(300));
    let hour = prost_types::Duration { seconds: 3600, nanos: 0 };
    for (spec, code) in [
        (api::TaskSpec { queue: "urgent".into(), ..spec("w", "") }, "INVALID_FIELD"),
        (api::TaskSpec { priority: Some(10), ..spec("w", "") }, "INVALID_FIELD"),
        (
            api::TaskSpec {
                deadline: Some(prost_types::Timestamp { seconds: 9, nanos: 0 }),
                ..spec("w", "")
            },
            "INVALID_FIELD",
        ),
        (
            api::TaskSpec { deadline: Some(soon), estimate: Some(hour), ..spec("w", "") },
            "DEADLINE_UNMEETABLE",
        ),
        (api::TaskSpec { after: vec!["self".into()], ..spec("w", "self") }, "DEPENDENCY_CYCLE"),
        (api::TaskSpec { after: vec!["nobody".into()], ..spec("w", "") }, "DEPENDENCY_NOT_FOUND"),
        (api::TaskSpec { params_json: "{\"a\"".into(), ..spec("w", "") }, "INVALID_FIELD"),
        (api::TaskSpec { params_json: "1".repeat(2 << 20), ..spec("w", "") }, "TOO_LARGE"),
        (spec("nobody", ""), "AGENT_NOT_FOUND"),
        (spec("idle", ""), "NOT_SERVED"),
        (api::TaskSpec { intent: "other".into(), ..spec("w", "fine") }, "TASK_EXISTS"),
        (spec("w", "no spaces"), "INVALID_FIELD"),
    ] {
        let what = format!("{:?}", (&spec.queue, &spec.task_id, &spec.agent, &spec.after, code));
        let error = world.submit(spec).await.err().unwrap_or_else(|| panic!("{what} was taken"));
        assert_eq!(error.code.as_str(), code, "{what}: {error:?}");
        // As the service does that tells the client.
        world.tasks.refused(&error);
    }
    let tenant = crate::world::tenant("default");
    let all = world.tasks.list(&tenant, Default::default()).await.unwrap().tasks;
    assert_eq!(all.iter().map(|task| task.id.as_str()).collect::<Vec<_>>(), [before.id.as_str()]);
    let metrics = world.tasks.metrics().await;
    for counted in ["\"AGENT_NOT_FOUND\"} 1", "\"NOT_SERVED\"} 1", "\"INVALID_FIELD\"} 5"] {
        let line = format!("aion_kernel_scheduler_refused_total{{code={counted}\n");
        assert!(metrics.contains(&line), "{line}: {metrics}");
    }
    // One request id, one task.
    let request = |task| api::SubmitRequest { request_id: "r-1".into(), task: Some(task) };
    let first = world.tasks.submit(&tenant, request(spec("w", ""))).await.unwrap();
    assert_eq!(world.tasks.submit(&tenant, request(spec("w", ""))).await.unwrap().id, first.id);
    let other = api::TaskSpec { intent: "other".into(), ..spec("w", "") };
    assert_eq!(
        world.tasks.submit(&tenant, request(other)).await.unwrap_err().code.as_str(),
        "REQUEST_ID_REUSED"
    );
    let long =
        api::CancelTaskRequest { task: "fine".into(), request_id: "x".repeat(65), ..Default::default() };
    assert_eq!(world.tasks.cancel(&tenant, long).await.unwrap_err().field, "request_id");
    // Cancelling twice is cancelling once.
    let cancel =
        || api::CancelTaskRequest { task: "fine".into(), reason: "enough".into(), ..Default::default() };
    assert_eq!(world.tasks.cancel(&tenant, cancel()).await.unwrap().state, "cancelled");
    assert_eq!(world.tasks.cancel(&tenant, cancel()).await.unwrap().state, "cancelled");
}
