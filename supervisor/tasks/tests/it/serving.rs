//! From submission to result, as clients and agents see it.

use aion_api_proto::v1 as api;
use api::to_agent::Kind as Told;

use crate::world::{World, known, spec, tenant};

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_assigned_done_and_remembered() {
    let world = World::new(4, vec![known("default", "w", 2)]);
    let mut agent = world.attach(1, 0, Vec::new()).await;
    assert_eq!((agent.welcome.agent.as_str(), agent.welcome.concurrency), ("w", 2));
    let sent = api::TaskSpec { params_json: r#"{"n":3}"#.into(), intent: "add".into(), ..spec("w", "t-1") };
    let task = world.submit(sent.clone()).await.unwrap();
    assert_eq!(task.id, "t-1");
    let assigned = agent.assigned().await.remove(0);
    assert_eq!(
        (assigned.task_id.as_str(), assigned.params_json.as_str(), assigned.number),
        ("t-1", r#"{"n":3}"#, 1)
    );
    let attempt = assigned.attempt.unwrap();
    agent.say(api::from_agent::Kind::Started(api::StartedTasks { attempts: vec![attempt] })).await;
    agent.complete(attempt, r#"{"sum":3}"#).await;
    let Told::Recorded(recorded) = agent.hear().await else { panic!("not recorded") };
    assert_eq!(recorded.attempts, [attempt]);
    let done = world.get("t-1").await;
    assert_eq!(
        (done.state.as_str(), done.result_json.as_str(), done.attempts),
        ("succeeded", r#"{"sum":3}"#, 1)
    );
    let kinds = world.kinds("t-1").await;
    assert_eq!(kinds.first().map(String::as_str), Some("submitted"));
    assert_eq!(kinds.last().map(String::as_str), Some("succeeded"));
    // The same again is the same task; another one under its id is refused; what has ended is not ended again.
    assert_eq!(world.submit(sent.clone()).await.unwrap().state, "succeeded");
    let other = api::TaskSpec { intent: "subtract".into(), ..sent };
    assert_eq!(world.submit(other).await.unwrap_err().code.as_str(), "TASK_EXISTS");
    let cancel = api::CancelTaskRequest { task: "t-1".into(), ..Default::default() };
    assert_eq!(world.tasks.cancel(&tenant("default"), cancel).await.unwrap_err().code.as_str(), "TASK_ENDED");
    // Said twice, it counts once.
    agent.complete(attempt, "7").await;
    let Told::Refused(refused) = agent.hear().await else { panic!("not refused") };
    assert_eq!(refused.code, "ATTEMPT_STALE");
    assert_eq!(world.get("t-1").await.result_json, r#"{"sum":3}"#);
    world.tasks.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cancelled_while_it_runs_has_ended_once() {
    let world = World::new(4, vec![known("default", "w", 2)]);
    let mut agent = world.attach(1, 0, Vec::new()).await;
    world.submit(spec("w", "a")).await.unwrap();
    let attempt = agent.assigned().await.remove(0).attempt.unwrap();
    let cancel = api::CancelTaskRequest { task: "a".into(), reason: "no".into(), ..Default::default() };
    assert_eq!(world.tasks.cancel(&tenant("default"), cancel.clone()).await.unwrap().state, "cancelled");
    let Told::Cancel(told) = agent.hear().await else { panic!("not told") };
    assert_eq!((told.attempt, told.reason.as_str()), (Some(attempt), "no"));
    // Another time than that of the end.
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    agent.complete(attempt, "1").await;
    // It need not be said again, and changes nothing.
    let Told::Recorded(recorded) = agent.hear().await else { panic!("not recorded") };
    assert_eq!(recorded.attempts, [attempt]);
    assert_eq!(world.get("a").await.result_json, "");
    assert_eq!(world.tasks.cancel(&tenant("default"), cancel).await.unwrap().state, "cancelled");
    assert_eq!(world.kinds("a").await.last().map(String::as_str), Some("released"));
    assert_eq!(world.tasks.check_journal().await.unwrap().faults, Vec::<String>::new());
    assert!(world.tasks.metrics().await.contains("aion_kernel_journal_ended_tasks 1\n"));
    world.tasks.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_lists_watches_and_tenants() {
    let world = World::new(4, vec![known("default", "w", 64), known("other", "w", 1)]);
    let names = (0..300).map(|n| spec("w", &format!("b-{n}"))).chain([spec("nobody", "x"), spec("w", "b-0")]);
    let batch = api::SubmitBatch { tasks: names.collect() };
    let mine = tenant("default");
    let underway = world.tasks.submit_batch(&mine, batch).await.unwrap();
    let results = underway.results(&world.tasks, &mine).await.results;
    assert!(results[..300].iter().all(|result| result.error_code.is_empty()), "{:?}", results[0]);
    assert_eq!(results[300].error_code, "AGENT_NOT_FOUND");
    assert!(results[301].existed && results[301].task_id == "b-0");
    // Page by page, each once, in order.
    let mut request = api::ListTasksRequest { page_size: 70, ..Default::default() };
    let mut seen = Vec::new();
    loop {
        let page = world.tasks.list(&mine, request.clone()).await.unwrap();
        seen.extend(page.tasks.into_iter().map(|task| task.id));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(seen, (0..300).map(|n| format!("b-{n}")).collect::<Vec<_>>());
    // Another tenant sees nothing of it.
    let other = tenant("other");
    assert_eq!(world.tasks.get(&other, "b-1").await.unwrap_err().code.as_str(), "TASK_NOT_FOUND");
    let cancel = api::CancelTaskRequest { task: "b-1".into(), ..Default::default() };
    assert_eq!(world.tasks.cancel(&other, cancel).await.unwrap_err().code.as_str(), "TASK_NOT_FOUND");
    assert!(world.tasks.list(&other, Default::default()).await.unwrap().tasks.is_empty());
    // A watcher hears of one task until its end, from its beginning.
    let watch = api::WatchTasksRequest { task: "b-0".into(), from_start: true, follow: true, cursor: 0 };
    let mut events = world.tasks.watch(&mine, watch).await.unwrap();
    assert_eq!(events.recv().await.unwrap().unwrap().kind, "submitted");
    let mut agent = world.attach(1, 0, Vec::new()).await;
    let mut left = 300;
    while left > 0 {
        if let Told::Assignments(all) = agent.hear().await {
            left -= all.assignments.len();
            for one in all.assignments {
                agent.complete(one.attempt.unwrap(), "1").await;
            }
        }
    }
    let mut last = String::new();
    while let Some(event) = events.recv().await {
        last = event.unwrap().kind;
    }
    assert_eq!(last, "succeeded");
    let ended =
        api::ListTasksRequest { states: vec!["succeeded".into()], page_size: 1000, ..Default::default() };
    world.until("b-299", "succeeded").await;
    assert_eq!(world.tasks.list(&mine, ended).await.unwrap().tasks.len(), 300);
    let report = world.tasks.check_journal().await.unwrap();
    assert_eq!((report.faults, report.tasks), (Vec::<String>::new(), 300));
    let text = world.tasks.metrics().await;
    assert!(text.contains("aion_kernel_scheduler_ended_total{state=\"succeeded\"} 300"), "{text}");
    world.tasks.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_retried_and_an_agent_that_is_wanted_is_woken() {
    let world = World::new(4, vec![known("default", "w", 1)]);
    let retry = api::Retry {
        max_attempts: 2,
        backoff: Some(prost_types::Duration { seconds: 0, nanos: 20_000_000 }),
        ..Default::default()
    };
    world.submit(api::TaskSpec { retry: Some(retry), ..spec("w", "r") }).await.unwrap();
    for _ in 0..200 {
        if !world.host.asked.lock().unwrap().is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(*world.host.asked.lock().unwrap(), ["wake w"]);
    let mut agent = world.attach(1, 0, Vec::new()).await;
    for number in 1..=2 {
        let assigned = loop {
            if let Told::Assignments(mut all) = agent.hear().await {
                break all.assignments.remove(0);
            }
        };
        assert_eq!(assigned.number, number);
        let failure = api::Failure { code: "OOPS".into(), message: "no".into(), retryable: true };
        let outcome = Some(api::completion::Outcome::Failure(failure));
        let completions = vec![api::Completion { attempt: assigned.attempt, outcome }];
        agent.say(api::from_agent::Kind::Completions(api::Completions { completions })).await;
    }
    let task = world.until("r", "failed").await;
    assert_eq!(task.error.unwrap().code, "OOPS");
    for _ in 0..100 {
        if world.host.records.lock().unwrap().iter().any(|record| record.kind == "task.failed") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let records = world.host.records.lock().unwrap().clone();
    assert!(
        records.iter().any(|record| record.kind == "task.submitted" && record.task == "r"),
        "{records:?}"
    );
    assert!(records.iter().any(|record| record.kind == "task.failed"), "{records:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_without_tasks_is_not_written_down_and_is_found_with_the_first() {
    let job = |name: &str| aion_tasks::Known { job: true, ..known("default", name, 1) };
    let world = World::new(4, vec![job("before")]);
    let commits = async || {
        let text = world.tasks.metrics().await;
        let count = text.lines().find_map(|l| l.strip_prefix("aion_kernel_scheduler_commit_seconds_count "));
        count.unwrap_or_else(|| panic!("{text}")).parse::<u64>().unwrap()
    };
    let none = commits().await;
    for n in 0..20 {
        let one = job(&format!("job-{n}"));
        world.tasks.agent_known(one.clone());
        world.tasks.service_ended(&one.tenant, &one.name);
        if n > 1 {
            world.tasks.agent_gone(&one.tenant, &one.name);
        }
    }
    assert_eq!(commits().await, none);
    // By name and by label, whether they came before the daemon or after it.
    world.submit(spec("before", "a")).await.unwrap();
    world.submit(spec("job-0", "b")).await.unwrap();
    let by_label = api::TaskSpec {
        task_id: "c".into(),
        selector: [("team".to_owned(), "job-1".to_owned())].into(),
        ..api::TaskSpec::default()
    };
    world.submit(by_label).await.unwrap();
    assert_eq!(world.submit(spec("job-7", "d")).await.unwrap_err().code.as_str(), "AGENT_NOT_FOUND");
    // The fake host has no program to start.
    for id in ["a", "b", "c"] {
        world.until(id, "failed").await;
    }
    assert!(commits().await > none);
    // Tasks whose agent went wait for one of its name, which is told of at once.
    let service = known("default", "job-0", 1);
    world.tasks.agent_known(service.clone());
    world.submit(spec("job-0", "e")).await.unwrap();
    world.tasks.agent_gone(&service.tenant, &service.name);
    world.until("e", "queued").await;
    world.tasks.agent_known(job("job-0"));
    world.until("e", "failed").await;
    world.tasks.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_is_no_larger_than_its_agent_may_leave() {
    let small = aion_tasks::Known { checkpoint_max: 1 << 20, ..known("default", "w", 1) };
    let world = World::new(1, vec![small]);
    let mut agent = world.attach(1, 0, Vec::new()).await;
    world.submit(spec("w", "t")).await.unwrap();
    let attempt = agent.assigned().await.remove(0).attempt.unwrap();
    agent.checkpoint(attempt, &vec![7; (1 << 20) + 1], false).await;
    let Told::Refused(refused) = agent.hear().await else { panic!("not refused") };
    assert_eq!((refused.attempt, refused.code.as_str()), (Some(attempt), "TOO_LARGE"));
    agent.checkpoint(attempt, &vec![7; 1 << 20], false).await;
    let Told::Recorded(recorded) = agent.hear().await else { panic!("not recorded") };
    assert_eq!(recorded.checkpoints.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_says_nothing_is_refused() {
    let world = World::new(1, vec![known("default", "w", 1)]);
    let mut agent = world.attach(1, 0, Vec::new()).await;
    world.submit(spec("w", "t")).await.unwrap();
    let attempt = agent.assigned().await.remove(0).attempt.unwrap();
    let completions = vec![api::Completion { attempt: Some(attempt), outcome: None }];
    agent.say(api::from_agent::Kind::Completions(api::Completions { completions })).await;
    let Told::Refused(refused) = agent.hear().await else { panic!("not refused") };
    assert_eq!((refused.attempt, refused.code.as_str()), (Some(attempt), "INVALID_FIELD"));
    agent.complete(attempt, "1").await;
    world.until("t", "succeeded").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_token_belongs_to_its_filter() {
    let world = World::new(1, vec![known("default", "w", 1)]);
    for id in ["a", "b", "c"] {
        world.submit(spec("w", id)).await.unwrap();
    }
    let owner = tenant("default");
    let list = async |page_token: &str, states: &[&str]| {
        let states = states.iter().map(|state| (*state).to_owned()).collect();
        let request = api::ListTasksRequest {
            page_size: 1,
            page_token: page_token.into(),
            states,
            ..Default::default()
        };
        world.tasks.list(&owner, request).await
    };
    let first = list("", &[]).await.unwrap();
    let second = list(&first.next_page_token, &[]).await.unwrap();
    assert_eq!((first.tasks[0].id.as_str(), second.tasks[0].id.as_str()), ("a", "b"));
    let capitals = first.next_page_token.to_uppercase();
    for token in ["0", "2", "ffff", "+2", "\u{e4}", capitals.as_str(), &first.next_page_token[1..]] {
        let error = list(token, &[]).await.unwrap_err();
        assert_eq!((error.code.as_str(), error.field), ("INVALID_FIELD", "page_token"), "{token}");
    }
    let error = list(&first.next_page_token, &["queued"]).await.unwrap_err();
    assert_eq!(error.field, "page_token");
}
