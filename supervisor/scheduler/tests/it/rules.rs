//! Each rule of docs/scheduler.md, by itself.

use aion_scheduler::{
    AgentSpec, Class, Command, Dependency, Effect, Ended, EventKind, Quotas, Refusal, Reply, RetryPolicy,
    State, Target, TaskNumber,
};
use aion_types::ErrorCode;

use crate::world::{World, agent, id, labels, tenant};

fn one_slot() -> World {
    let mut world = World::new(|config| config.slots = 1);
    world.job("a", 8);
    world
}

fn after(names: &[&str]) -> Vec<Dependency> {
    names.iter().map(|name| Dependency { id: id(name), known: None }).collect()
}

#[test]
fn a_task_runs_and_ends_and_leaves_memory() {
    let mut world = one_slot();
    world.put("x", |_| {});
    assert!(matches!(world.last.effects[..], [Effect::Assign { number: 1, resume: None, .. }]));
    let attempt = world.attempt("x");
    world.ok(Command::Started { attempt });
    assert_eq!(
        world.ok(Command::Completed { attempt }),
        Reply::Attempt { task: TaskNumber(1), state: State::Succeeded }
    );
    assert_eq!(world.core.task("t", "x"), None);
    assert!(world.last.rows.iter().any(|row| row.key == aion_scheduler::keys::ended_index("t", "x")));
    let again = world.apply(Command::Completed { attempt }).unwrap_err();
    assert_eq!(again.code(), ErrorCode::AttemptStale);
    assert_eq!(world.core.stale_messages(), 1);
}

#[test]
fn the_same_task_again_answers_the_firsts() {
    let mut world = one_slot();
    world.put("x", |task| task.fingerprint = 7);
    let submit = |print| {
        let mut task = World::task("x");
        task.fingerprint = print;
        task
    };
    assert_eq!(world.submit(submit(7)), Ok(Reply::Existed { task: TaskNumber(1) }));
    assert_eq!(world.submit(submit(8)).unwrap_err().code(), ErrorCode::TaskExists);
    world.complete("x");
    assert_eq!(world.submit(submit(7)), Ok(Reply::Existed { task: TaskNumber(1) }));
    // After a start only the journal knows it.
    world.restart();
    let mut known = submit(7);
    known.known = Some(Ended { number: TaskNumber(1), fingerprint: 7, state: State::Succeeded });
    assert_eq!(world.submit(known.clone()), Ok(Reply::Existed { task: TaskNumber(1) }));
    known.fingerprint = 8;
    assert_eq!(world.submit(known).unwrap_err().code(), ErrorCode::TaskExists);
}

#[test]
fn what_is_wrong_is_refused_and_changes_nothing() {
    let mut world = one_slot();
    let mut wrong = |change: fn(&mut aion_scheduler::Submit)| {
        let mut task = World::task("w");
        change(&mut task);
        world.submit(task).unwrap_err().code()
    };
    assert_eq!(wrong(|t| t.priority = 10), ErrorCode::InvalidField);
    assert_eq!(wrong(|t| t.deadline = Some(crate::world::START)), ErrorCode::InvalidField);
    assert_eq!(wrong(|t| t.deadline = Some(u64::MAX)), ErrorCode::InvalidField);
    assert_eq!(wrong(|t| t.timeout_ms = Some(0)), ErrorCode::InvalidField);
    assert_eq!(wrong(|t| t.timeout_ms = Some(u64::MAX)), ErrorCode::InvalidField);
    assert_eq!(wrong(|t| t.slots = 2), ErrorCode::NotServed);
    assert_eq!(wrong(|t| t.gpu = 1), ErrorCode::NotServed);
    assert_eq!(wrong(|t| t.slots = 0), ErrorCode::InvalidField);
    assert_eq!(wrong(|t| t.retry.max_attempts = 0), ErrorCode::InvalidField);
    assert_eq!(wrong(|t| t.target = Target::Agent(agent("nobody"))), ErrorCode::AgentNotFound);
    assert_eq!(wrong(|t| t.after = after(&["w"])), ErrorCode::InvalidField);
    assert_eq!(wrong(|t| t.after = after(&["nobody"])), ErrorCode::TaskNotFound);
    let other = Command::Cancel { tenant: tenant("other"), task: id("x"), reason: String::new() };
    world.put("x", |_| {});
    assert_eq!(world.apply(other).unwrap_err().code(), ErrorCode::TaskNotFound);
}

#[test]
fn a_task_without_labels_is_for_any_agent() {
    let mut world = World::new(|config| config.slots = 8);
    world.put("any", |task| task.target = Target::Selector(labels(&[])));
    assert!(world.view("any").why.contains("no agent serves tasks"), "{}", world.view("any").why);
    world.job_with("b", AgentSpec::default());
    assert_eq!(world.view("any").agent.as_deref(), Some("b"));
}

#[test]
fn earlier_due_first_and_priority_is_patience() {
    let mut world = one_slot();
    world.put("first", |task| task.estimate_ms = Some(10));
    world.put("five", |task| task.priority = 5);
    world.put("nine", |task| task.priority = 9);
    world.put("zero", |task| task.priority = 0);
    world.put("dead", |task| {
        task.deadline = Some(crate::world::START + 900);
        task.estimate_ms = Some(10);
    });
    let mut order = Vec::new();
    world.complete("first");
    for _ in 0..4 {
        let name = ["five", "nine", "zero", "dead"]
            .into_iter()
            .find(|name| world.core.task("t", name).is_some_and(|view| view.state == State::Running))
            .unwrap();
        order.push(name);
        world.complete(name);
    }
    assert_eq!(order, ["dead", "nine", "five", "zero"]);
    // Priority 9 now, against priority 5 that has waited for longer than the difference in patience.
    world.put("runs", |_| {});
    world.put("old", |task| task.priority = 5);
    world.pass(15_001);
    world.put("new", |task| task.priority = 9);
    world.complete("runs");
    assert_eq!(world.state("old"), State::Running);
}

#[test]
fn a_task_waits_for_others_and_falls_with_them() {
    let mut world = one_slot();
    world.put("a1", |_| {});
    world.put("b", |task| task.after = after(&["a1", "a1"]));
    world.put("c", |task| task.after = after(&["b"]));
    assert_eq!((world.state("b"), world.state("c")), (State::Blocked, State::Blocked));
    assert!(world.view("b").why.contains("a1"));
    world.complete("a1");
    assert_eq!(world.state("b"), State::Running);
    let attempt = world.attempt("b");
    let (code, message) = ("BAD".to_owned(), "no".to_owned());
    world.ok(Command::Failed { attempt, code, message, retryable: true });
    assert_eq!(world.core.tasks_in_memory(), 0, "c fell with b");
    let fell = world.last.events.iter().find(|event| &*event.id == "c").unwrap();
    assert!(
        matches!(&fell.kind, EventKind::Failed { code, message } if code == "DEPENDENCY_FAILED" && message.contains('b'))
    );
    let mut late = World::task("d");
    late.after = after(&["b"]);
    assert_eq!(world.submit(late).unwrap_err().code(), ErrorCode::TaskEnded);
}

#[test]
fn a_failed_attempt_is_repeated_after_its_backoff() {
    let mut world = one_slot();
    world.put("x", |task| {
        task.retry =
            RetryPolicy { max_attempts: 3, backoff_ms: 100, max_backoff_ms: 150, factor_percent: 200 };
    });
    for pause in [100, 150] {
        let attempt = world.attempt("x");
        let (code, message) = ("E".to_owned(), "no".to_owned());
        world.ok(Command::Failed { attempt, code, message, retryable: true });
        assert_eq!(world.view("x").retry_at, Some(world.now + pause));
        assert_eq!(world.core.next_wakeup(), Some(world.now + pause));
        world.pass(pause - 1);
        assert_eq!(world.state("x"), State::Waiting);
        world.pass(1);
        assert_eq!(world.state("x"), State::Running);
    }
    // A lost attempt does not count.
    let attempt = world.attempt("x");
    world.ok(Command::AttemptLost { attempt, reason: "died".into() });
    assert!(world.view("x").may_repeat);
    let attempt = world.attempt("x");
    let (code, message) = ("E".to_owned(), "no".to_owned());
    let end = world.ok(Command::Failed { attempt, code, message, retryable: true });
    assert_eq!(end, Reply::Attempt { task: TaskNumber(1), state: State::Failed });
}

#[test]
fn high_takes_the_slot_of_low_and_low_goes_on_from_its_checkpoint() {
    let mut world = one_slot();
    world.put_class("low", Class::Low);
    world.pass(100);
    world.put_class("high", Class::High);
    let low = world.attempt("low");
    assert!(
        matches!(world.last.effects[..], [Effect::Preempt { attempt, grace_ms: 5000, .. }] if attempt == low)
    );
    assert_eq!(world.state("low"), State::Preempting);
    let reply = world.ok(Command::Checkpointed { attempt: low, bytes: 10, yields: true });
    assert_eq!(reply, Reply::Checkpoint { task: TaskNumber(1), number: Some(1) });
    assert_eq!((world.state("high"), world.state("low")), (State::Running, State::Queued));
    assert_eq!(world.apply(Command::Completed { attempt: low }).unwrap_err().code(), ErrorCode::AttemptStale);
    world.complete("high");
    assert!(matches!(world.last.effects[..], [Effect::Assign { resume: Some((1, 10)), number: 2, .. }]));
    assert_eq!(world.view("low").preemptions, 1);
    world.complete("low");
}

#[test]
fn the_victim_is_of_the_lowest_class_and_loses_least() {
    let mut world = World::new(|config| config.slots = 3);
    world.job("a", 8);
    world.put_class("normal", Class::Normal);
    world.put_class("low-old", Class::Low);
    world.pass(50);
    world.put_class("low-new", Class::Low);
    world.pass(50);
    world.put_class("high", Class::High);
    assert_eq!(world.state("low-new"), State::Preempting);
    let attempt = world.attempt("low-new");
    world.ok(Command::Yielded { attempt });
    // The other low one has saved itself meanwhile: the cap is 1 of 3, so nobody else is asked.
    world.put_class("high-2", Class::High);
    assert_eq!(world.state("high-2"), State::Queued);
}

#[test]
fn who_does_not_answer_is_frozen_or_stopped() {
    let mut world = World::new(|config| config.slots = 1);
    world.job_with(
        "a",
        AgentSpec { concurrency: 8, may_freeze: true, memory_bytes: 1 << 29, ..AgentSpec::default() },
    );
    world.put_class("low", Class::Low);
    world.put_class("high", Class::High);
    let low = world.attempt("low");
    world.pass(4999);
    assert!(world.last.effects.is_empty());
    world.pass(1);
    assert!(matches!(world.last.effects[..], [Effect::Freeze { attempt, .. }] if attempt == low));
    world.ok(Command::Frozen { attempt: low });
    assert_eq!((world.state("low"), world.state("high")), (State::Frozen, State::Running));
    assert_eq!(world.core.usage_of_node(), (1, 0, 1 << 29));
    world.complete("high");
    assert!(matches!(world.last.effects[..], [Effect::Thaw { attempt, .. }] if attempt == low));
    assert_eq!(world.state("low"), State::Running);
    // It cannot be frozen this time: it is stopped, again and again until it is gone.
    world.put_class("high-2", Class::High);
    world.pass(5000);
    world.ok(Command::FreezeFailed { attempt: low });
    assert!(matches!(world.last.effects[..], [Effect::Stop { .. }]));
    world.pass(5000);
    assert!(matches!(world.last.effects[..], [Effect::Stop { .. }]));
    world.ok(Command::AttemptLost { attempt: low, reason: "stopped".into() });
    assert_eq!(world.state("high-2"), State::Running);
    assert_eq!((world.view("low").preemptions, world.view("low").may_repeat), (2, true));
}

#[test]
fn who_cannot_checkpoint_is_not_asked() {
    let mut world = World::new(|config| config.slots = 1);
    world.job_with("a", AgentSpec { concurrency: 8, checkpoints: false, ..AgentSpec::default() });
    world.put_class("low", Class::Low);
    world.put_class("high", Class::High);
    assert!(matches!(world.last.effects[..], [Effect::Stop { .. }]));
}

#[test]
fn preemption_keeps_its_limits() {
    let mut world = World::new(|config| {
        config.slots = 1;
        config.preemption.min_run_ms = 1000;
        config.preemption.max_per_task = 1;
    });
    world.job("a", 8);
    world.put_class("low", Class::Low);
    world.put_class("high", Class::High);
    assert_eq!(world.state("low"), State::Running, "too young");
    assert_eq!(world.core.next_wakeup(), Some(world.now + 1000));
    world.pass(1000);
    let attempt = world.attempt("low");
    world.ok(Command::Yielded { attempt });
    world.complete("high");
    world.pass(2000);
    world.put_class("high-2", Class::High);
    assert_eq!(world.state("low"), State::Running, "preempted too often");
    let mut never = World::new(|config| {
        config.slots = 1;
        config.preemption.high_cap_percent = 0;
    });
    never.job("a", 8);
    never.put_class("low", Class::Low);
    never.put_class("high", Class::High);
    assert_eq!(never.state("low"), State::Running);
}

#[test]
fn a_full_agent_makes_room_for_its_own_high_task() {
    let mut world = World::new(|config| config.slots = 8);
    world.job("a", 1);
    world.put_class("low", Class::Low);
    world.put_class("high", Class::High);
    assert_eq!(world.state("low"), State::Preempting);
    let attempt = world.attempt("low");
    world.ok(Command::Yielded { attempt });
    assert_eq!(world.state("high"), State::Running);
}

#[test]
fn a_tenant_that_had_more_than_its_share_preempts_nobody_else() {
    let mut world = World::new(|config| {
        config.slots = 2;
        config.preemption.high_cap_percent = 100;
    });
    world.job("a", 8);
    let spec = AgentSpec { mode: aion_scheduler::AgentMode::Job, concurrency: 8, ..AgentSpec::default() };
    world.ok(Command::AgentKnown { tenant: tenant("u"), name: agent("a"), spec });
    // `t` uses both slots for long, then `u` takes one.
    world.put_class("one", Class::Normal);
    world.put_class("two", Class::Normal);
    world.pass(60_000);
    world.complete("one");
    let mut other = World::task("low");
    other.tenant = tenant("u");
    other.class = Class::Low;
    world.submit(other).unwrap();
    world.complete("two");
    world.put_class("three", Class::High);
    world.put_class("four", Class::High);
    assert_eq!(world.state("four"), State::Queued);
    assert_eq!(world.core.task("u", "low").unwrap().state, State::Running);
}

#[test]
fn a_task_of_many_slots_is_not_starved_by_small_ones() {
    let mut world = World::new(|config| config.slots = 2);
    world.job("a", 9);
    world.put("s1", |task| task.priority = 9);
    world.put("s2", |task| task.priority = 9);
    world.put("big", |task| {
        task.slots = 2;
        task.priority = 9;
    });
    world.put("s3", |_| {});
    world.complete("s1");
    assert_eq!(world.state("s3"), State::Queued, "the slot is kept");
    world.complete("s2");
    assert_eq!(world.state("big"), State::Running);
}

#[test]
fn quotas_hold_and_say_when_they_free_up() {
    let quotas = Quotas { token_rate: Some(100), max_concurrency: Some(2), ..Quotas::default() };
    let mut world = World::new(|config| {
        config.slots = 8;
        config.tenant_default.quotas = quotas;
    });
    world.job("a", 8);
    for name in ["x", "y", "z"] {
        world.put(name, |_| {});
    }
    assert_eq!(world.state("z"), State::Queued);
    assert!(world.view("z").why.contains("max_concurrency"));
    let attempt = world.attempt("x");
    world.ok(Command::Usage { attempt, tokens: 100, usd_micros: 0 });
    world.complete("x");
    let view = world.view("z");
    assert_eq!(view.state, State::Waiting);
    assert!(view.why.contains("token_rate"), "{}", view.why);
    let at = view.retry_at.unwrap();
    assert!(at > world.now && at <= world.now + 63_000);
    world.pass(at - world.now - 1);
    assert_eq!(world.state("z"), State::Waiting);
    world.pass(1);
    assert_eq!(world.state("z"), State::Running);
}

#[test]
fn tasks_per_minute_of_an_agent() {
    let mut world = World::new(|config| config.slots = 8);
    let quotas = Quotas { tasks_per_minute: Some(2), ..Quotas::default() };
    world.job_with("a", AgentSpec { concurrency: 8, quotas, ..AgentSpec::default() });
    for name in ["x", "y", "z"] {
        world.put(name, |_| {});
    }
    assert!(world.view("z").why.contains("tasks_per_minute of agent a"), "{}", world.view("z").why);
    let at = world.view("z").retry_at.unwrap();
    world.pass(at - world.now);
    assert_eq!(world.state("z"), State::Running);
}

#[test]
fn a_checkpoint_over_the_quota_is_refused_and_the_old_one_stays() {
    let mut world = World::new(|config| {
        config.slots = 1;
        config.checkpoint_keep = 1;
        config.tenant_default.quotas.checkpoint_bytes = Some(100);
    });
    world.job("a", 8);
    world.put_class("low", Class::Low);
    let attempt = world.attempt("low");
    world.ok(Command::Checkpointed { attempt, bytes: 80, yields: false });
    world.ok(Command::Checkpointed { attempt, bytes: 100, yields: false });
    assert!(matches!(world.last.effects[..], [Effect::DropCheckpoints { below: 2, .. }]));
    let over = world.apply(Command::Checkpointed { attempt, bytes: 101, yields: false }).unwrap_err();
    assert!(matches!(over, Refusal::QuotaExceeded { quota: "checkpoint_bytes", limit: 100, used: 101 }));
    let reply = world.ok(Command::Checkpointed { attempt, bytes: 101, yields: true });
    assert_eq!(reply, Reply::Checkpoint { task: TaskNumber(1), number: None });
    assert_eq!(world.view("low").checkpoint_bytes, 100);
}

#[test]
fn a_full_queue_says_when_to_come_back() {
    let mut world = World::new(|config| {
        config.slots = 1;
        config.tenant_default.max_queued = 2;
    });
    world.job("a", 8);
    // The one that runs is not in the queue.
    world.put("x", |_| {});
    world.put("w", |_| {});
    world.put("y", |_| {});
    let full = world.submit(World::task("z")).unwrap_err();
    assert_eq!(full.code(), ErrorCode::ResourceExhausted);
    assert!(full.retry_after_ms().unwrap() >= 100);
    world.complete("x");
    world.put("z", |_| {});
}

#[test]
fn a_budget_ends_the_task_and_its_attempt() {
    let mut world = one_slot();
    world.put("x", |task| task.tokens_max = 100);
    let attempt = world.attempt("x");
    world.ok(Command::Usage { attempt, tokens: 100, usd_micros: 0 });
    assert_eq!(world.state("x"), State::Running);
    world.put("y", |_| {});
    world.ok(Command::Usage { attempt, tokens: 1, usd_micros: 0 });
    assert_eq!(world.state("x"), State::Failed);
    assert!(matches!(world.last.effects[..], [Effect::CancelAttempt { .. }]));
    assert_eq!(world.state("y"), State::Queued, "the slot is free when the attempt is over");
    assert_eq!(world.ok(Command::Completed { attempt }), Reply::TooLate { task: TaskNumber(1) });
    assert_eq!(world.state("y"), State::Running);
}

#[test]
fn cancel_in_every_state() {
    let mut world = World::new(|config| config.slots = 1);
    world.job_with(
        "a",
        AgentSpec { concurrency: 8, may_freeze: true, checkpoints: false, ..AgentSpec::default() },
    );
    let cancel = |name: &str| Command::Cancel { tenant: tenant("t"), task: id(name), reason: "no".into() };
    world.put_class("low", Class::Low);
    world.put("queued", |_| {});
    world.put("blocked", |task| task.after = after(&["queued"]));
    world.ok(cancel("blocked"));
    world.ok(cancel("queued"));
    world.put_class("high", Class::High);
    let low = world.attempt("low");
    world.ok(Command::Frozen { attempt: low });
    world.ok(cancel("low"));
    assert!(matches!(world.last.effects[..], [Effect::Stop { .. }]));
    assert_eq!(world.apply(cancel("low")).unwrap_err().code(), ErrorCode::TaskEnded);
    assert_eq!(world.core.usage_of_node(), (1, 0, 0));
    world.ok(Command::AttemptLost { attempt: low, reason: "stopped".into() });
    world.ok(cancel("high"));
    assert_eq!(world.state("high"), State::Cancelled);
    assert_eq!(world.view("high").attempt, None);
    world.pass(5000);
    assert!(matches!(world.last.effects[..], [Effect::Stop { .. }]), "after the grace");
    let attempt = world.core.attempts()[0].attempt;
    world.ok(Command::AttemptLost { attempt, reason: "stopped".into() });
    assert_eq!((world.core.tasks_in_memory(), world.core.usage_of_node()), (0, (0, 0, 0)));
    assert_eq!(world.apply(cancel("high")).unwrap_err().code(), ErrorCode::TaskEnded);
}

#[test]
fn a_timeout_ends_the_attempt_before_the_next_one_begins() {
    let mut world = one_slot();
    world.put("x", |task| {
        task.timeout_ms = Some(1000);
        task.retry = RetryPolicy { max_attempts: 2, backoff_ms: 10, ..RetryPolicy::default() };
    });
    let attempt = world.attempt("x");
    world.pass(1000);
    assert_eq!(world.state("x"), State::Waiting);
    world.pass(100);
    assert_eq!(world.state("x"), State::Waiting, "the first attempt is not over");
    world.ok(Command::AttemptLost { attempt, reason: "killed".into() });
    assert_eq!(world.state("x"), State::Running);
    world.pass(1000);
    assert_eq!((world.state("x"), world.view("x").error_code.as_str()), (State::Failed, "TIMEOUT"));
}

#[test]
fn deadlines_are_promised_only_when_they_can_be_kept() {
    let mut world = one_slot();
    world.put("runs", |task| task.estimate_ms = Some(1000));
    let due = |name: &str, ms: u64, estimate: u64| {
        let mut task = World::task(name);
        task.deadline = Some(crate::world::START + ms);
        task.estimate_ms = Some(estimate);
        task
    };
    let refusal = world.submit(due("early", 1000, 100)).unwrap_err();
    assert!(matches!(refusal, Refusal::DeadlineUnmeetable { earliest_ms: 1150, .. }), "{refusal}");
    world.submit(due("d1", 1150, 100)).unwrap();
    assert_eq!(world.submit(due("d2", 1200, 100)).unwrap_err().code(), ErrorCode::DeadlineUnmeetable);
    assert_eq!(
        world.submit(due("d0", 1140, 10)).unwrap_err().code(),
        ErrorCode::DeadlineUnmeetable,
        "d1 would be late"
    );
    // Nothing overtakes it, not even a high task.
    world.put_class("high", Class::High);
    world.pass(1000);
    world.complete("runs");
    assert_eq!(world.state("d1"), State::Running);
}

#[test]
fn a_task_expires_when_it_could_not_begin() {
    let mut world = World::new(|config| config.slots = 1);
    world.service("a", 1);
    world.put("x", |task| {
        task.deadline = Some(crate::world::START + 1000);
        task.estimate_ms = Some(10);
    });
    world.put("y", |task| task.after = after(&["x"]));
    world.pass(1000);
    assert_eq!(world.core.tasks_in_memory(), 0);
    assert!(world.last.events.iter().any(|event| event.kind == EventKind::Expired));
}

#[test]
fn services_are_woken_once_and_serve_while_attached() {
    let mut world = World::new(|config| config.slots = 8);
    world.service("a", 2);
    for name in ["x", "y", "z"] {
        world.put(name, |_| {});
    }
    let wakes = world.all.iter().filter(|effect| matches!(effect, Effect::Wake { .. })).count();
    assert_eq!(wakes, 1);
    assert!(world.view("x").why.contains("not attached"));
    assert_eq!(world.attach("a", vec![]), Reply::Attached { concurrency: 2, keep: vec![] });
    assert_eq!(
        (world.state("x"), world.state("y"), world.state("z")),
        (State::Running, State::Running, State::Queued)
    );
    // It comes back with one of the two.
    let (x, y) = (world.attempt("x"), world.attempt("y"));
    world.ok(Command::Detached { tenant: tenant("t"), name: agent("a"), process_gone: false });
    assert_eq!(world.attach("a", vec![y]), Reply::Attached { concurrency: 2, keep: vec![y] });
    assert_ne!(world.attempt("x"), x, "begun anew");
    // It does not come back: it is stopped first.
    world.ok(Command::Detached { tenant: tenant("t"), name: agent("a"), process_gone: false });
    world.pass(30_000);
    assert_eq!(world.last.effects.iter().filter(|effect| matches!(effect, Effect::Stop { .. })).count(), 2);
    world.ok(Command::Detached { tenant: tenant("t"), name: agent("a"), process_gone: true });
    assert_eq!((world.state("x"), world.state("y")), (State::Queued, State::Queued));
}

#[test]
fn selectors_find_agents_by_their_labels() {
    let mut world = World::new(|config| config.slots = 8);
    world.put_selector("x");
    assert!(world.view("x").why.contains("labels"));
    world.job_with(
        "b",
        AgentSpec { labels: labels(&[("gpu", "yes"), ("zone", "1")]), ..AgentSpec::default() },
    );
    assert_eq!(world.view("x").agent.as_deref(), Some("b"));
    world.put_selector("y");
    assert_eq!(world.state("y"), State::Queued, "b takes one at once");
    world.job_with("c", AgentSpec { labels: labels(&[("gpu", "yes")]), ..AgentSpec::default() });
    assert_eq!(world.view("y").agent.as_deref(), Some("c"));
    world.ok(Command::AgentGone { tenant: tenant("t"), name: agent("b") });
    assert_eq!(world.state("x"), State::Queued);
}

impl World {
    fn put_selector(&mut self, name: &str) {
        self.put(name, |task| task.target = Target::Selector(labels(&[("gpu", "yes")])));
    }
}

#[test]
fn a_start_fences_nothing_that_still_runs() {
    let mut world = one_slot();
    world.put("x", |_| {});
    world.put("y", |_| {});
    let attempt = world.attempt("x");
    world.restart();
    assert!(world.core.attempts()[0].unconfirmed);
    world.ok(Command::Confirmed { attempt });
    assert!(!world.core.attempts()[0].unconfirmed);
    world.ok(Command::Completed { attempt });
    let next = world.attempt("y");
    assert_eq!((next.epoch, next.seq), (2, 1));
    assert!(matches!(world.apply(Command::Boot { epoch: 2 }), Err(Refusal::EpochNotNew { .. })));
}

#[test]
fn periodic_checkpoints_are_asked_for() {
    let mut world = World::new(|config| config.slots = 1);
    world.job_with("a", AgentSpec { checkpoint_interval_ms: 10_000, ..AgentSpec::default() });
    world.put("x", |_| {});
    world.pass(10_000);
    assert!(matches!(world.last.effects[..], [Effect::TakeCheckpoint { .. }]));
    world.pass(10_000);
    assert!(matches!(world.last.effects[..], [Effect::TakeCheckpoint { .. }]));
}

#[test]
fn more_slots_without_a_restart() {
    let mut world = one_slot();
    world.put("x", |_| {});
    world.put("y", |_| {});
    let mut config = world.core.config().clone();
    config.slots = 0;
    assert_eq!(
        world.apply(Command::Configure(Box::new(config.clone()))).unwrap_err().code(),
        ErrorCode::InvalidField
    );
    config.slots = 2;
    world.ok(Command::Configure(Box::new(config)));
    assert_eq!(world.state("y"), State::Running);
}

#[test]
fn lost_work_is_refunded() {
    let mut world = World::new(|config| config.slots = 1);
    world.job("a", 8);
    let lag = |world: &World| world.core.tenants()[0].lag;
    world.put_class("low", Class::Low);
    world.pass(60_000);
    let attempt = world.attempt("low");
    world.ok(Command::Cancel { tenant: tenant("t"), task: id("low"), reason: String::new() });
    world.ok(Command::Yielded { attempt });
    let charged = lag(&world);
    assert!(charged > 0);
    world.put_class("low-2", Class::Low);
    world.pass(60_000);
    world.put_class("high", Class::High);
    let attempt = world.attempt("low-2");
    world.ok(Command::Yielded { attempt });
    world.complete("high");
    let attempt = world.attempt("low-2");
    world.ok(Command::Yielded { attempt });
    assert!(world.core.tenants()[0].slots <= 1);
}
