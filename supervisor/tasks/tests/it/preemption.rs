//! High takes a slot from low, which leaves a checkpoint and goes on from it.

use aion_api_proto::v1 as api;
use api::to_agent::Kind as Told;

use crate::world::{World, known, spec};

async fn round(size: usize) {
    let world = World::new(1, vec![known("default", "slow", 1), known("default", "quick", 1)]);
    let mut slow = world.attach(1, 0, Vec::new()).await;
    let mut quick = world.attach(2, 0, Vec::new()).await;
    world.submit(api::TaskSpec { queue: "low".into(), ..spec("slow", "low") }).await.unwrap();
    let first = slow.assigned().await.remove(0).attempt.unwrap();
    slow.say(api::from_agent::Kind::Started(api::StartedTasks { attempts: vec![first] })).await;
    world.submit(api::TaskSpec { queue: "high".into(), ..spec("quick", "high") }).await.unwrap();
    let Told::Preempt(preempt) = slow.hear().await else { panic!("not preempted") };
    assert_eq!(preempt.attempt, Some(first));
    let data: Vec<u8> = (0..size).map(|n| u8::try_from(n * 7 % 251).unwrap()).collect();
    slow.checkpoint(first, &data, true).await;
    let Told::Recorded(recorded) = slow.hear().await else { panic!("not recorded") };
    assert_eq!(recorded.checkpoints, [first]);
    let urgent = quick.assigned().await.remove(0).attempt.unwrap();
    assert_eq!(world.get("low").await.state, "queued");
    quick.complete(urgent, "1").await;
    let again = slow.assigned().await.remove(0);
    assert_eq!((again.number, again.checkpoint_bytes), (2, size as u64));
    let mut resumed = again.checkpoint;
    while resumed.len() < size {
        let Told::Resume(part) = slow.hear().await else { panic!("no part") };
        assert_eq!(part.offset, resumed.len() as u64);
        resumed.extend(part.data);
    }
    assert_eq!(resumed, data);
    // Of the attempt that made room nothing is taken any more.
    slow.complete(first, "666").await;
    slow.complete(again.attempt.unwrap(), "2").await;
    let task = world.until("low", "succeeded").await;
    assert_eq!((task.result_json.as_str(), task.preemptions, task.attempts), ("2", 1, 2));
    let kinds = world.kinds("low").await;
    assert!(
        kinds.contains(&"preempted".to_owned()) && kinds.contains(&"checkpointed".to_owned()),
        "{kinds:?}"
    );
    assert!(world.tasks.check_journal().await.unwrap().faults.is_empty());
    world.tasks.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_small_checkpoint() {
    round(1000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_large_checkpoint_in_parts() {
    round(5 << 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_that_do_not_fit_are_refused_and_the_attempt_goes_on() {
    let world = World::new(1, vec![known("default", "w", 1)]);
    let mut agent = world.attach(1, 0, Vec::new()).await;
    world.submit(spec("w", "t")).await.unwrap();
    let attempt = agent.assigned().await.remove(0).attempt.unwrap();
    let part = |token: api::Attempt, offset, sha256: Vec<u8>| {
        let data = b"abc".to_vec();
        api::from_agent::Kind::Checkpoint(api::CheckpointPart {
            attempt: Some(token),
            offset,
            data,
            last: true,
            yields: false,
            sha256,
        })
    };
    let foreign = api::Attempt { epoch: attempt.epoch, seq: attempt.seq + 9 };
    for (said, code) in [
        (part(foreign, 0, Vec::new()), "ATTEMPT_STALE"),
        (part(attempt, 9, Vec::new()), "INVALID_FIELD"),
        (part(attempt, 0, vec![0; 32]), "CHECKPOINT_CORRUPT"),
    ] {
        agent.say(said).await;
        let Told::Refused(refused) = agent.hear().await else { panic!("not refused") };
        assert_eq!(refused.code, code);
    }
    agent.say(part(attempt, 0, Vec::new())).await;
    assert!(matches!(agent.hear().await, Told::Recorded(_)));
    assert_eq!(world.get("t").await.checkpoints, 1);
    agent.complete(attempt, "").await;
    assert_eq!(world.until("t", "succeeded").await.result_json, "null");
}
