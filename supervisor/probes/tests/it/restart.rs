//! The probes outlive the process that loaded them.

use std::fs;
use std::process::Command;

use aion_probes::{Adoption, AgentConfig, AuditMode, NetPolicy, Object, Options, Probes};
use aya::maps::{Array, Map, MapData};

use crate::world::{EVENTS, Seen, World, drain, object};

const COUNT: AgentConfig = AgentConfig { mode: AuditMode::Count, ..EVENTS };

#[test]
fn adopted_with_agents_counters_and_waiting_records() {
    let Some(world) = World::new(1 << 20) else { return };
    let opened = world.open();
    assert_eq!(opened.report.adoption, Adoption::Fresh);
    let agent = world.agent(&opened.probes, COUNT);
    let quiet = world.cgroup("quiet");
    let deny = AgentConfig { net: NetPolicy::DenyAll, ..EVENTS };
    opened.probes.add_agent(quiet.id, deny).unwrap();
    opened.probes.arm(quiet.id).unwrap();
    drop(opened);

    // Nobody holds anything now but the pins.
    agent.run(&["/bin/true"]);
    assert_eq!(quiet.help(&["connect", "127.0.0.1:1"]), "EPERM");

    let mut again = world.open();
    assert_eq!(again.report.adoption, Adoption::Adopted);
    let mut agents = again.probes.agents().unwrap();
    agents.sort_by_key(|(id, _)| *id == quiet.id);
    assert_eq!(agents, [(agent.id, COUNT), (quiet.id, deny)]);
    let seen = drain(&mut again);
    assert_eq!(seen.iter().filter(|s| s.cgroup == agent.id && s.lifecycle()).count(), 2);
    assert!(again.probes.syscall_probes_attached());
    assert!(!again.probes.syscalls(agent.id).unwrap().is_empty());
    // Adding again what is there changes nothing; something else is refused.
    again.probes.add_agent(agent.id, COUNT).unwrap();
    again.probes.add_agent(quiet.id, deny).unwrap();
    assert!(again.probes.add_agent(quiet.id, EVENTS).is_err());
    again.probes.remove_agent(agent.id).unwrap();
    assert!(!again.probes.syscall_probes_attached());
}

fn resident(text: &str) -> u64 {
    text.split("VmRSS:").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

fn other_process(world: &World) -> String {
    let words = format!(
        "adopt {} {} {}",
        object().unwrap().display(),
        world.options.pin_dir.display(),
        world.parent.display()
    );
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "helper::helper", "--nocapture", "--test-threads=1"])
        .env("AION_IT_HELPER", words)
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The launcher is to stay below 25 MB; the probes may take half of it beside the ring buffer.
const RESIDENT_KIB: u64 = 20 << 10;

#[test]
fn loaded_within_memory() {
    let Some(world) = World::new(Options::RING_BYTES) else { return };
    let text = other_process(&world);
    assert!(text.contains("HELPER Fresh"), "{text}");
    println!("resident after a load: {} KiB", resident(&text));
    assert!(resident(&text) < RESIDENT_KIB, "{text}");
}

#[test]
fn adopted_by_another_process() {
    let Some(world) = World::new(Options::RING_BYTES) else { return };
    let opened = world.open();
    let agent = world.agent(&opened.probes, EVENTS);
    agent.run(&["/bin/true"]);
    let text = other_process(&world);
    assert!(text.contains("HELPER Adopted"), "{text}");
    assert!(text.contains(&format!("HELPER {} Events 2", agent.id)), "{text}");
    println!("resident after an adoption: {} KiB", resident(&text));
    assert!(resident(&text) < RESIDENT_KIB, "{text}");
}

#[test]
fn upgraded_in_a_storm_without_loss() {
    let Some(world) = World::new(4 << 20) else { return };
    let opened = world.open();
    let agent = world.agent(&opened.probes, COUNT);
    drop(opened);
    let storm = "i=0; while [ $i -lt 400 ]; do /bin/true; i=$((i+1)); done";
    let mut child = agent.spawn(&["/bin/sh", "-c", storm]);
    // Another object: the same with a byte after its end.
    let mut bytes = fs::read(object().unwrap()).unwrap();
    let mut seen = Vec::new();
    for round in 0u8..3 {
        bytes.push(round);
        let options = Options { object: Object::Bytes(bytes.clone()), ..world.options.clone() };
        let mut opened = Probes::open_or_load(&options).unwrap();
        assert_eq!(opened.report.adoption, Adoption::Upgraded);
        opened.ring.drain(&mut |event| seen.push(Seen::of(event))).unwrap();
    }
    assert!(child.wait().unwrap().success());
    let options = Options { object: Object::Bytes(bytes), ..world.options.clone() };
    let mut opened = Probes::open_or_load(&options).unwrap();
    assert_eq!(opened.report.adoption, Adoption::Adopted);
    seen.extend(drain(&mut opened));
    // Nothing is lost. What is between the old program and the new one when the generation changes is told by both, one event a change.
    let told = |found: u64, exact: u64| assert!((exact..=exact + 3).contains(&found), "{found}, not {exact}");
    told(u64::try_from(seen.iter().filter(|s| s.lifecycle()).count()).unwrap(), 3 * 400 + 2);
    assert_eq!(opened.probes.dropped(agent.id).unwrap(), 0);
    // Each /bin/true was executed once, and each execve counted once.
    let calls = opened.probes.syscalls(agent.id).unwrap();
    let execve = calls.iter().find(|call| call.nr == 59).unwrap();
    told(execve.count, 401);
    // One generation of links is left.
    let links = fs::read_dir(world.options.pin_dir.join("links")).unwrap();
    let mut names: Vec<_> = links.map(|l| l.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert!(names.iter().all(|name| name.ends_with("@4")), "{names:?}");
}

#[test]
fn replaced_when_the_maps_do_not_fit() {
    let Some(world) = World::new(1 << 20) else { return };
    let opened = world.open();
    let agent = world.agent(&opened.probes, EVENTS);
    drop(opened);
    let state = MapData::from_pin(world.options.pin_dir.join("maps/STATE")).unwrap();
    let mut state: Array<_, [u64; 10]> = Map::from_map_data(state).unwrap().try_into().unwrap();
    let mut words = state.get(&0, 0).unwrap();
    words[0] = words[0] & !0xffff_ffff | 999;
    state.set(0, words, 0).unwrap();
    let mut opened = world.open();
    assert_eq!(opened.report.adoption, Adoption::Replaced);
    assert!(opened.probes.agents().unwrap().is_empty());
    assert!(world.options.pin_dir.join("previous/links").exists());
    opened.probes.add_agent(agent.id, EVENTS).unwrap();
    opened.probes.retire_previous().unwrap();
    assert!(!world.options.pin_dir.join("previous").exists());
    agent.run(&["/bin/true"]);
    assert_eq!(drain(&mut opened).len(), 2);
}

#[test]
fn a_load_that_was_cut_short_is_begun_again() {
    let Some(world) = World::new(1 << 20) else { return };
    drop(world.open());
    // As if killed before the state was written, with some links missing.
    let state = MapData::from_pin(world.options.pin_dir.join("maps/STATE")).unwrap();
    let mut state: Array<_, [u64; 10]> = Map::from_map_data(state).unwrap().try_into().unwrap();
    state.set(0, [0; 10], 0).unwrap();
    drop(state);
    fs::remove_file(world.options.pin_dir.join("links/egress@1")).unwrap();
    let mut opened = world.open();
    assert_eq!(opened.report.adoption, Adoption::Fresh);
    let agent = world.agent(&opened.probes, EVENTS);
    agent.run(&["/bin/true"]);
    assert_eq!(drain(&mut opened).len(), 2);
    // Complete, but a link is gone: everything is attached again, and agents stay.
    drop(opened);
    fs::remove_file(world.options.pin_dir.join("links/egress@1")).unwrap();
    let opened = world.open();
    assert_eq!(opened.report.adoption, Adoption::Upgraded);
    assert_eq!(opened.probes.agents().unwrap().len(), 1);
}

#[test]
fn nothing_is_left_behind() {
    let Some(world) = World::new(1 << 20) else { return };
    let opened = world.open();
    world.agent(&opened.probes, COUNT);
    drop(opened);
    Probes::unpin_all(&world.options.pin_dir).unwrap();
    assert!(!world.options.pin_dir.exists());
    Probes::unpin_all(&world.options.pin_dir).unwrap();
}
