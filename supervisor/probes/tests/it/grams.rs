//! Sequences of system calls: learned once, told when they are new, by each agent for itself.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use aion_probes::{AgentConfig, AuditMode, GramCounts, GramModel, Opened, Probes};

use crate::world::{Agent, EVENTS, World};

const COUNT: AgentConfig = AgentConfig { mode: AuditMode::Count, ..EVENTS };

/// A program that makes rounds of calls as it is told, and between them none but those that tell it.
struct Player {
    child: Child,
    to: ChildStdin,
    from: Lines<BufReader<ChildStdout>>,
}

impl Player {
    fn new(agent: &Agent) -> Self {
        let mut command = agent.helper(&["rounds"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let (to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut player = Self { child, to, from: BufReader::new(from).lines() };
        player.hear();
        player
    }

    fn hear(&mut self) {
        let said = self.from.by_ref().map(Result::unwrap).find(|line| line.contains("HELPER round"));
        assert!(said.is_some(), "it has ended");
    }

    fn play(&mut self, what: &str) {
        self.to.write_all(format!("{what}\n").as_bytes()).unwrap();
        self.hear();
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is known after one more turn, and how much of it is new.
fn turn(probes: &Probes, agent: &Agent, player: &mut Player, what: &str) -> u64 {
    let before = counts(probes, agent);
    player.play(what);
    let after = counts(probes, agent);
    assert!(after.looked > before.looked, "{before:?} {after:?}");
    assert_eq!(after.unkept, 0);
    after.known - before.known
}

fn counts(probes: &Probes, agent: &Agent) -> GramCounts {
    probes.grams(agent.id).unwrap().unwrap()
}

fn watched(opened: &Opened, agent: &Agent) {
    assert!(opened.probes.watch_grams(agent.id, &GramModel::default()).unwrap());
}

#[test]
fn what_is_repeated_is_known_and_what_is_different_is_new() {
    let Some(world) = World::new(1 << 20) else { return };
    let opened = world.open();
    let agent = world.agent(&opened.probes, COUNT);
    watched(&opened, &agent);
    let mut player = Player::new(&agent);
    assert!(turn(&opened.probes, &agent, &mut player, "one") > 0);
    // The second time the way from the end of a turn to the next is new.
    turn(&opened.probes, &agent, &mut player, "one");
    for _ in 0..5 {
        assert_eq!(turn(&opened.probes, &agent, &mut player, "one"), 0);
    }
    assert!(turn(&opened.probes, &agent, &mut player, "two") > 0, "the same calls in another order");
    turn(&opened.probes, &agent, &mut player, "two");
    assert_eq!(turn(&opened.probes, &agent, &mut player, "two"), 0);
}

#[test]
fn agents_are_told_apart_and_nobody_else_is_looked_at() {
    let Some(world) = World::new(1 << 20) else { return };
    let opened = world.open();
    let one = world.agent(&opened.probes, COUNT);
    let (two, other) = (world.cgroup("two"), world.cgroup("other"));
    opened.probes.add_agent(two.id, COUNT).unwrap();
    watched(&opened, &one);
    watched(&opened, &two);
    let mut players = [&one, &two, &other].map(Player::new);
    for _ in 0..3 {
        players[0].play("one");
        players[1].play("two");
    }
    let known = counts(&opened.probes, &two).known;
    // What one does all the time is new to the other; what a third does is nobody's.
    players[0].play("one");
    players[2].play("one");
    assert_eq!(counts(&opened.probes, &two).known, known);
    assert!(turn(&opened.probes, &two, &mut players[1], "one") > 0);
    let known = counts(&opened.probes, &one).known;
    players[2].play("two");
    assert_eq!(counts(&opened.probes, &one).known, known);
    assert!(opened.probes.grams(other.id).is_err());
}

#[test]
fn a_full_table_is_told() {
    let Some(world) = World::new(1 << 20) else { return };
    let opened = world.open();
    let agent = world.agent(&opened.probes, COUNT);
    watched(&opened, &agent);
    assert_eq!(agent.help(&["random-calls", "60000"]), "ok");
    let full = counts(&opened.probes, &agent);
    assert_eq!(full.known, u64::from(GramModel::MAX_GRAMS), "{full:?}");
    assert!(full.unkept > 10_000 && full.known + full.unkept <= full.looked, "{full:?}");
}

#[test]
fn the_next_agent_of_a_slot_begins_with_nothing_of_the_one_before() {
    let Some(world) = World::new(1 << 20) else { return };
    let mut opened = world.open();
    let before = world.agent(&opened.probes, COUNT);
    watched(&opened, &before);
    assert_eq!(before.help(&["random-calls", "20000"]), "ok");
    let learned = opened.probes.gram_model(before.id).unwrap().unwrap();
    assert!(learned.grams.len() > 1000 && opened.probes.watches_grams(before.id));
    opened.probes.remove_agent(before.id).unwrap();
    // A slot that is free is given again, also by a launcher that did not make its table.
    for name in ["next", "last"] {
        let next = world.cgroup(name);
        opened.probes.add_agent(next.id, COUNT).unwrap();
        watched(&opened, &next);
        assert_eq!(counts(&opened.probes, &next), GramCounts::default(), "{name}");
        assert_eq!(opened.probes.gram_model(next.id).unwrap(), Some(GramModel::default()), "{name}");
        next.help(&["getppid", "1000"]);
        assert!(counts(&opened.probes, &next).known > 0, "{name}");
        opened.probes.remove_agent(next.id).unwrap();
        drop(opened);
        opened = world.open();
    }
}

#[test]
fn looked_at_only_while_asked_for_and_where_calls_are_counted() {
    let Some(world) = World::new(1 << 20) else { return };
    let opened = world.open();
    let probes = &opened.probes;
    let agent = world.agent(probes, EVENTS);
    assert!(!probes.watch_grams(agent.id, &GramModel::default()).unwrap(), "nothing sees its calls");
    probes.update_agent(agent.id, COUNT).unwrap();
    agent.help(&["getppid", "1000"]);
    assert_eq!(probes.grams(agent.id).unwrap(), None);
    assert_eq!(probes.rest_grams(agent.id).unwrap(), None);
    watched(&opened, &agent);
    assert!(!probes.watch_grams(agent.id, &GramModel::default()).unwrap(), "it is already");
    agent.help(&["getppid", "1000"]);
    assert!(counts(probes, &agent).looked > 1000);
    let model = probes.rest_grams(agent.id).unwrap().unwrap();
    assert!(!model.grams.is_empty() && model.looked > 1000 && !probes.watches_grams(agent.id));
    // A mode without system calls ends it, too.
    watched(&opened, &agent);
    probes.update_agent(agent.id, EVENTS).unwrap();
    assert!(!probes.watches_grams(agent.id) && !probes.syscall_probes_attached());
    assert_eq!(probes.remove_agent(agent.id).unwrap().grams, None);
}

#[test]
fn a_model_goes_on_in_another_group_and_with_another_launcher() {
    let Some(world) = World::new(1 << 20) else { return };
    let opened = world.open();
    let agent = world.agent(&opened.probes, COUNT);
    watched(&opened, &agent);
    let mut player = Player::new(&agent);
    (0..3).for_each(|_| player.play("one"));
    let before = counts(&opened.probes, &agent);
    drop(opened);
    player.play("one");
    let opened = world.open();
    let after = counts(&opened.probes, &agent);
    assert!(after.looked > before.looked && after.known == before.known, "{before:?} {after:?}");
    drop(player);
    let model = opened.probes.remove_agent(agent.id).unwrap().grams.unwrap();
    assert!(u64::try_from(model.grams.len()).unwrap() >= after.known && model.looked >= after.looked);

    let again = world.cgroup("again");
    opened.probes.add_agent(again.id, COUNT).unwrap();
    assert!(opened.probes.watch_grams(again.id, &model).unwrap());
    let begun = counts(&opened.probes, &again);
    assert_eq!((begun.known, begun.looked), (u64::try_from(model.grams.len()).unwrap(), model.looked));
    let mut player = Player::new(&again);
    (0..2).for_each(|_| player.play("one"));
    assert_eq!(turn(&opened.probes, &again, &mut player, "one"), 0);
    assert!(turn(&opened.probes, &again, &mut player, "two") > 0);
}
