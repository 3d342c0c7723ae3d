//! kill -9 under load: what was acknowledged ends exactly once.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aion_api_proto::v1 as api;
use api::to_agent::Kind as Told;

use crate::world::{World, attach, known, settings, spec, tenant};

const STATE: &str = "AION_TASKS_TEST_STATE";

/// Not a test of its own: the process that is killed. It submits and prints what was acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn engine_process() {
    let Some(state) = std::env::var_os(STATE) else { return };
    let world = World::at(std::path::Path::new(&state), settings(64), vec![known("default", "w", 64)]);
    let world = Arc::new(world);
    println!("\nready");
    let round = std::process::id();
    let mut clients = Vec::new();
    for client in 0..16 {
        let world = Arc::clone(&world);
        clients.push(tokio::spawn(async move {
            for n in 0..100_000 {
                let id = format!("k-{round}-{client}-{n}");
                match world.submit(spec("w", &id)).await {
                    Ok(_) => println!("\nacked {id}"),
                    Err(error) => println!("\nrefused {id} {error}"),
                }
            }
        }));
    }
    for client in clients {
        client.await.unwrap();
    }
}

fn start(state: &std::path::Path) -> Child {
    let test = std::env::current_exe().unwrap();
    Command::new(test)
        .args(["--exact", "crash::engine_process", "--nocapture", "--test-threads=1"])
        .env(STATE, state)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_ends_exactly_once_whatever_is_killed() {
    let state = Arc::new(tempfile::tempdir().unwrap());
    let mut acked = Vec::new();
    let mut finished: HashMap<String, u32> = HashMap::new();
    for round in 0..6u64 {
        let mut child = start(state.path());
        let out = BufReader::new(child.stdout.take().unwrap());
        let (lines, mut line) = tokio::sync::mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for text in out.lines().map_while(Result::ok) {
                if lines.send(text).is_err() {
                    return;
                }
            }
        });
        while line.recv().await.unwrap() != "ready" {}
        let deadline = Instant::now() + Duration::from_millis(150 + round * 130);
        let mut agent = attach(state.path(), 1, 0, Vec::new()).await;
        // Completions that were recorded count: once each.
        let mut assigned: HashMap<(u64, u64), String> = HashMap::new();
        loop {
            let wait = tokio::time::sleep_until(deadline.into());
            let told = tokio::select! { () = wait => break, told = agent.try_hear() => told };
            match told {
                Some(Told::Assignments(all)) => {
                    for one in all.assignments {
                        let attempt = one.attempt.unwrap();
                        assigned.insert((attempt.epoch, attempt.seq), one.task_id);
                        agent.complete(attempt, "1").await;
                    }
                }
                Some(Told::Recorded(recorded)) => {
                    for attempt in recorded.attempts {
                        *finished.entry(assigned[&(attempt.epoch, attempt.seq)].clone()).or_default() += 1;
                    }
                }
                Some(_) => {}
                None => break,
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        while let Some(text) = line.recv().await {
            if let Some(id) = text.strip_prefix("acked ") {
                acked.push(id.to_owned());
            }
            assert!(!text.starts_with("refused"), "{text}");
        }
    }
    assert!(acked.len() > 100, "only {} were acknowledged", acked.len());
    let twice: Vec<_> = finished.iter().filter(|(_, n)| **n > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    // What is left is done, and then everything has ended well, once.
    let world = World::at(state.path(), settings(64), vec![known("default", "w", 64)]);
    let mut agent = world.attach(1, 0, Vec::new()).await;
    let mine = tenant("default");
    let open = || api::ListTasksRequest {
        states: ["queued", "running", "waiting"].map(str::to_owned).to_vec(),
        page_size: 1,
        ..Default::default()
    };
    while !world.tasks.list(&mine, open()).await.unwrap().tasks.is_empty() {
        if let Ok(Some(Told::Assignments(all))) =
            tokio::time::timeout(Duration::from_millis(200), agent.try_hear()).await
        {
            for one in all.assignments {
                agent.complete(one.attempt.unwrap(), "2").await;
            }
        }
    }
    for id in &acked {
        let task = world.get(id).await;
        assert_eq!(task.state, "succeeded", "{id}");
        let ends = world.kinds(id).await.iter().filter(|kind| *kind == "succeeded").count();
        assert_eq!(ends, 1, "{id}");
        // What was recorded before a kill is what it is.
        assert_eq!(
            task.result_json,
            if finished.contains_key(id) { "1" } else { task.result_json.as_str() },
            "{id}"
        );
    }
    let report = world.tasks.check_journal().await.unwrap();
    assert!(report.faults.is_empty(), "{:?}", report.faults);
    println!("{} acknowledged, {} recorded before a kill", acked.len(), finished.len());
    world.tasks.shut_down().await;
}
