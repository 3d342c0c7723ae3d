//! Simulations of fairness: shares under overload, an abuser, deadlines.

use std::collections::BTreeMap;

use aion_scheduler::{
    AgentMode, AgentSpec, Attempt, Class, Command, Config, Effect, Scheduler, Submit, Target, TenantConfig,
};

use crate::world::{Dice, START, agent, id, tenant};

/// A node whose agents do what they are told, each task for as long as it takes.
struct Node {
    core: Scheduler,
    now: u64,
    /// When what runs ends: (time, attempt).
    ends: std::collections::BTreeSet<(u64, Attempt)>,
    takes: BTreeMap<u64, u64>,
    about: BTreeMap<u64, (String, Class, u64, Option<u64>)>,
    /// Of every task that began or ended: tenant, class, how long it waited; and how much was done.
    waits: Vec<(String, Class, u64)>,
    begun: std::collections::BTreeSet<u64>,
    done: BTreeMap<String, u64>,
    left: BTreeMap<u64, u64>,
    started: BTreeMap<Attempt, (u64, u64)>,
    late: u64,
    count: u64,
}

impl Node {
    fn new(config: Config, tenants: &[&str]) -> Self {
        let mut core = Scheduler::new(config).unwrap();
        core.apply(START, Command::Boot { epoch: 1 }).unwrap();
        for name in tenants {
            let spec = AgentSpec { mode: AgentMode::Job, concurrency: 1000, ..AgentSpec::default() };
            core.apply(START, Command::AgentKnown { tenant: tenant(name), name: agent("a"), spec }).unwrap();
        }
        Self {
            core,
            now: START,
            ends: Default::default(),
            takes: BTreeMap::new(),
            about: BTreeMap::new(),
            waits: Vec::new(),
            begun: Default::default(),
            done: BTreeMap::new(),
            left: BTreeMap::new(),
            started: BTreeMap::new(),
            late: 0,
            count: 0,
        }
    }

    fn apply(&mut self, command: Command) -> bool {
        let Ok(applied) = self.core.apply(self.now, command) else { return false };
        let mut yields = Vec::new();
        for effect in applied.effects {
            match effect {
                Effect::Assign { attempt, task, .. } => {
                    let left = self.left[&task.0];
                    self.ends.insert((self.now + left, attempt));
                    self.started.insert(attempt, (task.0, self.now));
                    if self.begun.insert(task.0) {
                        let (name, class, at, _) = self.about[&task.0].clone();
                        self.waits.push((name, class, self.now - at));
                    }
                }
                Effect::Preempt { attempt, .. } => yields.push(attempt),
                _ => {}
            }
        }
        for attempt in yields {
            let (task, since) = self.started.remove(&attempt).unwrap();
            let left = self.left[&task];
            self.ends.remove(&(since + left, attempt));
            // A checkpoint keeps what was done.
            let ran = self.now - since;
            *self.done.entry(self.about[&task].0.clone()).or_default() += ran;
            self.left.insert(task, left.saturating_sub(ran).max(1));
            self.apply(Command::Checkpointed { attempt, bytes: 1, yields: true });
        }
        true
    }

    fn submit(&mut self, owner: &str, class: Class, takes: u64, deadline: Option<u64>) -> bool {
        self.count += 1;
        let name = format!("{owner}-{}", self.count);
        let mut task = Submit::new(tenant(owner), id(&name), Target::Agent(agent("a")));
        task.class = class;
        task.deadline = deadline;
        task.estimate_ms = Some(takes);
        // Numbers are given in order, and known before the effects come.
        let number = self.core.next_task_number();
        self.about.insert(number, (owner.to_owned(), class, self.now, deadline));
        self.left.insert(number, takes);
        self.takes.insert(number, takes);
        self.apply(Command::Submit(Box::new(task)))
    }

    /// Lets time pass up to then.
    fn run_to(&mut self, until: u64) {
        loop {
            let end = self.ends.first().map(|(at, _)| *at);
            let wake = self.core.next_wakeup();
            let next = end.into_iter().chain(wake).min().unwrap_or(u64::MAX);
            if next > until {
                self.now = until;
                return;
            }
            self.now = self.now.max(next);
            if end == Some(next) {
                let (_, attempt) = self.ends.pop_first().unwrap();
                let (task, since) = self.started.remove(&attempt).unwrap();
                let (name, _, _, deadline) = self.about.remove(&task).unwrap();
                *self.done.entry(name).or_default() += self.now - since;
                self.late += u64::from(deadline.is_some_and(|deadline| self.now > deadline));
                assert!(self.apply(Command::Completed { attempt }));
            } else {
                self.apply(Command::Tick);
            }
        }
    }

    fn p99(&self, class: Class, but: &str) -> u64 {
        let mut waits: Vec<u64> = self
            .waits
            .iter()
            .filter(|(name, c, _)| *c == class && name != but)
            .map(|(_, _, wait)| *wait)
            .collect();
        waits.sort_unstable();
        waits[waits.len() * 99 / 100]
    }
}

#[test]
fn three_tenants_get_their_shares_under_overload() {
    let names = ["one", "two", "four"];
    let mut config = Config { slots: 8, ..Config::default() };
    for (name, weight) in names.into_iter().zip([1, 2, 4]) {
        config.tenants.insert(tenant(name), TenantConfig { weight, ..TenantConfig::default() });
    }
    let mut node = Node::new(config, &names);
    let mut dice = Dice::new(7);
    for step in 0..600u64 {
        for name in names {
            // Everyone asks for more than the whole node.
            for _ in 0..12 {
                let class = *dice.pick(&Class::ALL);
                let takes = 20 + dice.below(300);
                node.submit(name, class, takes, None);
            }
        }
        node.run_to(START + (step + 1) * 200);
    }
    let share: Vec<f64> =
        names.iter().zip([1.0, 2.0, 4.0]).map(|(name, w)| node.done[*name] as f64 / w).collect();
    let sum: f64 = share.iter().sum();
    for (name, mine) in names.iter().zip(&share) {
        let off = (mine / (sum / 3.0) - 1.0).abs();
        assert!(off < 0.05, "{name} is off by {off}: {share:?}");
    }
    let jain = sum * sum / (3.0 * share.iter().map(|x| x * x).sum::<f64>());
    println!("shares by weight {share:?}, Jain's index {jain:.5}");
    assert!(jain >= 0.99);
}

/// What the low tasks of the others wait at most when the highest class always goes first, whoever asks.
fn strict_priority(jobs: &[(u64, String, Class, u64)], slots: usize) -> u64 {
    let mut free: Vec<u64> = vec![0; slots];
    let mut queue: std::collections::BTreeSet<(Class, u64, usize)> = Default::default();
    let (mut next, mut worst, mut now) = (0, 0, 0);
    while next < jobs.len() || !queue.is_empty() {
        let slot = (0..slots).min_by_key(|n| free[*n]).unwrap();
        now = free[slot].max(now);
        if queue.is_empty() && next < jobs.len() {
            now = now.max(jobs[next].0);
        }
        while next < jobs.len() && jobs[next].0 <= now {
            queue.insert((jobs[next].2, jobs[next].0, next));
            next += 1;
        }
        let Some((class, at, n)) = queue.pop_first() else { continue };
        free[slot] = now + jobs[n].3;
        if class == Class::Low && jobs[n].1 != "abuser" {
            worst = worst.max(now - at);
        }
    }
    worst
}

#[test]
fn an_abuser_slows_nobody_down() {
    let others = ["t0", "t1", "t2", "t3", "t4"];
    let slots = 16u64;
    let mut dice = Dice::new(11);
    // The others ask for 60% of the node; the abuser for ten times its sixth, in all classes.
    let mut jobs: Vec<(u64, String, Class, u64)> = Vec::new();
    let minutes = 20;
    let mean = 500;
    let mut add = |name: &str, load_percent: u64, dice: &mut Dice| {
        let count = minutes * 60_000 * slots * load_percent / 100 / mean;
        for _ in 0..count {
            let class = *dice.pick(&Class::ALL);
            jobs.push((
                dice.below(minutes * 60_000),
                name.to_owned(),
                class,
                100 + dice.below(2 * (mean - 100)),
            ));
        }
    };
    for name in others {
        add(name, 12, &mut dice);
    }
    add("abuser", 167, &mut dice);
    jobs.sort();
    let strict = strict_priority(&jobs, usize::try_from(slots).unwrap());
    let config = Config { slots: 16, ..Config::default() };
    let names: Vec<&str> = others.into_iter().chain(["abuser"]).collect();
    let mut node = Node::new(config, &names);
    for (at, name, class, takes) in &jobs {
        node.run_to(START + at);
        node.submit(name, *class, *takes, None);
    }
    node.run_to(START + minutes * 60_000);
    let high = node.p99(Class::High, "abuser");
    let low = node.waits.iter().filter(|(name, class, _)| *class == Class::Low && name != "abuser");
    let low = low.map(|(_, _, wait)| *wait).max().unwrap();
    println!(
        "high of the others p99 {high} ms; low of the others at most {low} ms, strict priority {strict} ms"
    );
    assert!(high < 2000, "high waits {high} ms");
    assert!(low * 5 < strict, "low waits {low} ms, strict priority {strict} ms");
}

#[test]
fn every_deadline_that_was_admitted_is_met() {
    let names = ["x", "y", "z"];
    let (mut admitted, mut refused, mut busy) = (0, 0, 0.0);
    for seed in 0..20 {
        let config = Config { slots: 4, ..Config::default() };
        let mut node = Node::new(config, &names);
        let mut dice = Dice::new(seed);
        for step in 0..1000u64 {
            let name = *dice.pick::<&str>(&names);
            let takes = 20 + dice.below(400);
            let class = *dice.pick(&Class::ALL);
            let deadline = dice.percent(50).then(|| node.now + takes + dice.below(4000));
            let taken = node.submit(name, class, takes, deadline);
            if deadline.is_some() {
                if taken {
                    admitted += 1;
                } else {
                    refused += 1;
                }
            }
            node.run_to(START + step * 30);
        }
        let done: u64 = node.done.values().sum();
        busy += done as f64 / (4.0 * 30.0 * 999.0) / 20.0;
        node.run_to(START + 600_000);
        assert_eq!(node.late, 0, "seed {seed}");
        assert_eq!(node.core.expired(), 0, "seed {seed}");
    }
    println!(
        "{admitted} deadlines admitted and met, {refused} refused; slots were busy {busy:.3} of the time"
    );
    assert!(busy > 0.98, "slots stand idle: {busy}");
    assert!(admitted > 1000 && refused > 100);
}
