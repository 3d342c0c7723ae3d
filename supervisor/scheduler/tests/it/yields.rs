//! Attempts that give up by themselves, nobody having asked.

use aion_scheduler::{Command, Effect, EventKind, Scheduler, State};

use crate::world::World;

/// Lets the attempt that runs give up; the events that it made.
fn give_up(world: &mut World) -> Vec<EventKind> {
    let attempt = world.attempt("x");
    world.ok(Command::Yielded { attempt });
    world.last.events.iter().map(|event| event.kind.clone()).collect()
}

fn begun() -> World {
    let mut world = World::new(|config| config.slots = 1);
    world.job("a", 1);
    world.put("x", |task| task.retry.max_attempts = 1);
    world
}

/// Lets the task's pause pass.
fn pause(world: &mut World) -> u64 {
    assert_eq!(world.state("x"), State::Waiting);
    let pause = world.view("x").retry_at.unwrap() - world.now;
    world.pass(pause);
    assert_eq!(world.state("x"), State::Running);
    pause
}

#[test]
fn who_gives_up_unasked_waits_longer_each_time_and_fails_in_the_end() {
    let mut world = begun();
    let mut last = 0;
    for n in 1..=16 {
        let events = give_up(&mut world);
        assert!(matches!(&events[..], [EventKind::Retried { code, .. }] if code == "YIELDED"), "{events:?}");
        assert_eq!(world.view("x").failures, 0, "it did not fail");
        if n == 8 {
            world.restart();
        }
        let waited = pause(&mut world);
        assert!(waited >= 1000 && waited >= last, "{waited} after {last}");
        last = waited;
    }
    assert!(last > 1000);
    let events = give_up(&mut world);
    assert!(
        matches!(&events[..], [EventKind::Failed { code, .. }] if code == "YIELDED_TOO_OFTEN"),
        "{events:?}"
    );
    assert!(world.last.effects.is_empty());
}

#[test]
fn a_checkpoint_and_progress_count_as_getting_on() {
    let mut world = begun();
    for n in 0..40u16 {
        let attempt = world.attempt("x");
        if n % 2 == 0 {
            world.ok(Command::Checkpointed { attempt, bytes: 1, yields: true });
        } else {
            world.ok(Command::Progress { attempt, permille: n, note: String::new() });
            world.ok(Command::Yielded { attempt });
        }
        assert!(!world.last.effects.iter().any(|effect| matches!(effect, Effect::Assign { .. })), "at once");
        assert_eq!(pause(&mut world), 1000);
    }
    world.complete("x");
}

#[test]
fn progress_that_is_none_does_not_help() {
    let mut world = begun();
    for _ in 0..16 {
        let attempt = world.attempt("x");
        world.ok(Command::Progress { attempt, permille: 0, note: "here I am".into() });
        give_up(&mut world);
        pause(&mut world);
    }
    let events = give_up(&mut world);
    assert!(matches!(&events[..], [EventKind::Failed { .. }]), "{events:?}");
}

#[test]
fn the_deadline_ends_a_pause() {
    let mut world = World::new(|config| config.slots = 1);
    world.job("a", 1);
    let deadline = world.now + 20_000;
    world.put("x", |task| task.deadline = Some(deadline));
    world.pass(19_500);
    give_up(&mut world);
    assert_eq!(world.state("x"), State::Waiting);
    world.pass(500);
    assert!(world.last.events.iter().any(|event| event.kind == EventKind::Expired));
}

#[test]
fn who_comes_back_without_its_attempt_again_and_again_gets_it_later() {
    let mut world = World::new(|config| config.slots = 1);
    world.service("a", 1);
    world.attach("a", Vec::new());
    world.put("x", |_| {});
    // Once is a crash.
    world.attach("a", Vec::new());
    assert_eq!(world.state("x"), State::Running);
    for pause in [1000, 2000, 4000] {
        world.attach("a", Vec::new());
        assert_eq!(world.state("x"), State::Waiting);
        assert_eq!(world.view("x").retry_at, Some(world.now + pause));
        world.pass(pause);
        assert_eq!(world.state("x"), State::Running);
    }
    let attempt = world.attempt("x");
    world.ok(Command::Checkpointed { attempt, bytes: 1, yields: false });
    world.attach("a", Vec::new());
    assert_eq!(world.state("x"), State::Running, "it got on");
}

/// Rows of the layout before yields were counted.
#[test]
fn older_rows_are_read() {
    let mut world = World::new(|config| config.slots = 1);
    world.job("a", 1);
    world.put("x", |_| {});
    let attempt = world.attempt("x");
    let (code, message) = ("BAD".to_owned(), "no".to_owned());
    world.ok(Command::Failed { attempt, code, message, retryable: true });
    let now = world.core.dump();
    let old = now.iter().map(|row| {
        let mut value = row.value.clone().unwrap();
        if row.key.first() == Some(&b'T') {
            // Without a run and a promise the count is what the row ends with.
            assert_eq!((value[0], value.pop()), (2, Some(0)));
            value[0] = 1;
        }
        (row.key.clone(), value)
    });
    let restored = Scheduler::restore(world.core.config().clone(), old).unwrap();
    assert_eq!(restored.dump(), now);
}
