//! The daemon goes and comes: what runs goes on, what was lost is done again, nothing is forgotten.

use aion_api_proto::v1 as api;
use api::to_agent::Kind as Told;

use crate::world::{World, known, spec};

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_still_has_goes_on_and_the_rest_is_done_again() {
    let world = World::new(4, vec![known("default", "w", 2)]);
    let mut agent = world.attach(1, 0, Vec::new()).await;
    world.submit(spec("w", "kept")).await.unwrap();
    let kept = agent.assigned().await.remove(0).attempt.unwrap();
    world.submit(spec("w", "lost")).await.unwrap();
    let lost = agent.assigned().await.remove(0).attempt.unwrap();
    world.submit(spec("w", "waits")).await.unwrap();
    let world = world.restart().await;
    drop(agent);
    let mut agent = world.attach(1, 0, vec![kept]).await;
    assert_eq!(agent.welcome.keep, [kept]);
    let again = agent.assigned().await.remove(0);
    let other = again.attempt.unwrap();
    assert!(other.epoch > lost.epoch, "{other:?}");
    // Of the old one nothing counts.
    agent.complete(lost, "666").await;
    let Told::Refused(refused) = agent.hear().await else { panic!("not refused") };
    assert_eq!(refused.code, "ATTEMPT_STALE");
    agent.complete(kept, "1").await;
    agent.complete(other, "2").await;
    assert_eq!(world.until("kept", "succeeded").await.attempts, 1);
    let mut done = 1;
    while done < 2 {
        if let Told::Assignments(all) = agent.hear().await {
            for one in all.assignments {
                agent.complete(one.attempt.unwrap(), "3").await;
                done += 1;
            }
        }
    }
    let repeated = world.until("lost", "succeeded").await;
    assert!(repeated.may_repeat && repeated.result_json != "666", "{repeated:?}");
    world.until("waits", "succeeded").await;
    assert!(world.tasks.check_journal().await.unwrap().faults.is_empty());
    world.tasks.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_becomes_the_journal_of_another_node() {
    let world = World::new(4, vec![known("default", "w", 2)]);
    let mut agent = world.attach(1, 0, Vec::new()).await;
    world.submit(spec("w", "done")).await.unwrap();
    let attempt = agent_first(&mut agent).await;
    agent.complete(attempt, "42").await;
    world.until("done", "succeeded").await;
    drop(agent);
    world.submit(spec("w", "open")).await.unwrap();
    let mut parts = world.tasks.export_journal();
    let mut all = Vec::new();
    while let Some(part) = parts.recv().await {
        all.push(part.unwrap().data);
    }
    assert_eq!(refused_import(&world, all.clone()).await, "TASK_EXISTS");
    let fresh = World::new(4, vec![known("default", "w", 2)]);
    let mut damaged = all.clone();
    damaged[0][20] ^= 1;
    assert_eq!(refused_import(&fresh, damaged).await, "JOURNAL_BROKEN");
    let (send, receive) = tokio::sync::mpsc::channel(1000);
    for part in all {
        send.send(part).await.unwrap();
    }
    drop(send);
    let report = fresh.tasks.import_journal(receive).await.unwrap();
    assert_eq!((report.tasks, report.faults), (2, Vec::new()));
    assert_eq!(fresh.get("done").await.result_json, "42");
    assert_eq!(refused_import(&fresh, vec![Vec::new()]).await, "TASK_EXISTS");
    let mut agent = fresh.attach(1, 0, Vec::new()).await;
    let attempt = agent_first(&mut agent).await;
    agent.complete(attempt, "43").await;
    fresh.until("open", "succeeded").await;
    assert!(fresh.tasks.check_journal().await.unwrap().faults.is_empty());
    let fresh = fresh.restart().await;
    assert_eq!(fresh.get("done").await.result_json, "42");
    assert_eq!(fresh.get("open").await.result_json, "43");
}

async fn agent_first(agent: &mut crate::world::Agent) -> api::Attempt {
    agent.assigned().await.remove(0).attempt.unwrap()
}

async fn refused_import(world: &World, parts: Vec<Vec<u8>>) -> &'static str {
    let (send, receive) = tokio::sync::mpsc::channel(1000);
    for part in parts {
        send.send(part).await.unwrap();
    }
    drop(send);
    world.tasks.import_journal(receive).await.unwrap_err().code.as_str()
}
