//! Nothing is lost silently, and of strict agents nothing at all.

use std::time::{Duration, Instant};

use aion_probes::AgentConfig;

use crate::world::{EVENTS, Seen, What, World, drain};

/// A shell that forks and executes `n` times: 3 n + 2 records.
fn storm(n: usize) -> String {
    format!("i=0; while [ $i -lt {n} ]; do /bin/true; i=$((i+1)); done")
}

#[test]
fn recorded_and_dropped_are_all_there_was() {
    let Some(world) = World::new(4096) else { return };
    let mut opened = world.open();
    let agent = world.agent(&opened.probes, EVENTS);
    agent.run(&["/bin/sh", "-c", &storm(200)]);
    let seen = drain(&mut opened);
    let counters = opened.probes.counters(agent.id).unwrap();
    assert_eq!(counters.events + counters.dropped, 3 * 200 + 2);
    assert_eq!(counters.events, seen.len() as u64);
    assert!(counters.dropped > 500, "a page cannot hold them: {counters:?}");
    assert_eq!(opened.probes.remove_agent(agent.id).unwrap().counters, counters);
    assert_eq!(opened.probes.missed().unwrap(), 0);
}

#[test]
fn a_strict_agent_waits_for_the_reader() {
    let Some(world) = World::new(16 << 10) else { return };
    let mut opened = world.open();
    let agent = world.agent(&opened.probes, AgentConfig { strict: true, ..EVENTS });
    let mut child = agent.spawn(&["/bin/sh", "-c", &storm(300)]);
    let mut seen = Vec::new();
    let begun = Instant::now();
    let mut resumed = 0;
    let status = loop {
        // A slow reader: it waits until the buffer is nearly full.
        let paused = Instant::now();
        while opened.ring.pressure().percent() < 87 && paused.elapsed() < Duration::from_secs(3) {
            std::thread::sleep(Duration::from_millis(10));
        }
        std::thread::sleep(Duration::from_millis(50));
        resumed += opened.ring.drain(&mut |event| seen.push(Seen::of(event))).unwrap().resumed;
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "stuck after {} records", seen.len());
    };
    assert!(status.success());
    seen.extend(drain(&mut opened));
    let counters = opened.probes.counters(agent.id).unwrap();
    assert_eq!(counters.dropped, 0, "{counters:?}");
    assert_eq!(seen.len(), 3 * 300 + 2);
    assert!(counters.throttled > 0 && resumed > 0, "{counters:?} {resumed}");
}

#[test]
fn a_loud_agent_cannot_crowd_out_a_strict_one() {
    let Some(world) = World::new(16 << 10) else { return };
    let mut opened = world.open();
    let loud = world.agent(&opened.probes, EVENTS);
    let strict = world.cgroup("strict");
    opened.probes.add_agent(strict.id, AgentConfig { strict: true, ..EVENTS }).unwrap();
    loud.run(&["/bin/sh", "-c", &storm(100)]);
    assert!(opened.probes.dropped(loud.id).unwrap() > 0);
    assert!((70..90).contains(&opened.ring.pressure().percent()), "{:?}", opened.ring.pressure());
    let mut child = strict.spawn(&["/bin/true"]);
    let begun = Instant::now();
    let mut seen = Vec::new();
    while child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(5));
        opened.ring.drain(&mut |event| seen.push(Seen::of(event))).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
    seen.extend(drain(&mut opened));
    assert_eq!(opened.probes.dropped(strict.id).unwrap(), 0);
    assert_eq!(seen.iter().filter(|s| s.cgroup == strict.id).count(), 2);
}

#[test]
fn records_wrap_around_the_end() {
    let Some(world) = World::new(4096) else { return };
    let mut opened = world.open();
    let agent = world.agent(&opened.probes, EVENTS);
    for _ in 0..100 {
        agent.run(&["/bin/true", "some", "arguments"]);
        let seen = drain(&mut opened);
        assert_eq!(seen.len(), 2, "{seen:#?}");
        assert!(matches!(&seen[0].what, What::Exec { args, .. } if args.len() == 3), "{seen:#?}");
    }
    assert_eq!(opened.probes.dropped(agent.id).unwrap(), 0);
}
