//! Promises under stress: agents that take few at once, tasks of several slots, GPUs, quotas, bursts of high tasks that preempt, victims
//! that take their grace, are frozen or stopped. All run for as long as was estimated, or less. `AION_DEADLINES_SEED=n` runs one seed,
//! `AION_DEADLINES_RUNS=n` as many as you like.

use std::collections::BTreeMap;

use aion_scheduler::{
    AgentMode, AgentSpec, Attempt, Class, Command, Config, Dependency, Effect, EventKind, Quotas, Reply,
    Scheduler, Submit, Target, TenantConfig,
};

use crate::world::{Dice, START, agent, id, labels, tenant};

const TENANTS: [&str; 3] = ["x", "y", "z"];

#[derive(Debug, Clone, Copy)]
enum Next {
    Ends(Attempt),
    Yields(Attempt),
    Frozen(Attempt),
    Gone(Attempt),
}

#[derive(Debug, Default, Clone, Copy)]
struct Work {
    left: u64,
    takes: u64,
    slots: u64,
    deadline: Option<u64>,
}

struct Node {
    core: Scheduler,
    dice: Dice,
    now: u64,
    next: BTreeMap<(u64, u64), Next>,
    count: u64,
    work: BTreeMap<u64, Work>,
    /// Since when an attempt runs, and its task.
    runs: BTreeMap<Attempt, (u64, u64)>,
    late: Vec<String>,
    admitted: u64,
    refused: u64,
    done: u64,
}

impl Node {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let slots = 2 + u32::try_from(dice.below(6)).unwrap();
        let mut config = Config { slots, gpus: 1, ..Config::default() };
        config.preemption.min_run_ms = dice.below(300);
        config.preemption.high_cap_percent = *dice.pick(&[50, 100]);
        config.default_estimate_ms = 300;
        for (name, weight) in TENANTS.into_iter().zip([1, 2, 4]) {
            let limited = dice.percent(20).then(|| 1 + u32::try_from(dice.below(3)).unwrap());
            let quotas = Quotas { max_concurrency: limited, ..Quotas::default() };
            config.tenants.insert(tenant(name), TenantConfig { weight, quotas, ..TenantConfig::default() });
        }
        let mut core = Scheduler::new(config).unwrap();
        core.apply(START, Command::Boot { epoch: 1 }).unwrap();
        for owner in TENANTS {
            for (name, concurrency) in [("wide", 100), ("few", 2), ("one", 1)] {
                let spec = AgentSpec {
                    mode: AgentMode::Job,
                    concurrency,
                    labels: labels(&[("kind", if name == "wide" { "w" } else { "n" })]),
                    may_freeze: dice.percent(50),
                    memory_bytes: 1 << 28,
                    checkpoints: dice.percent(80),
                    grace_ms: 20 + dice.below(300),
                    ..AgentSpec::default()
                };
                core.apply(START, Command::AgentKnown { tenant: tenant(owner), name: agent(name), spec })
                    .unwrap();
            }
        }
        Self {
            core,
            dice,
            now: START,
            next: BTreeMap::new(),
            count: 0,
            work: BTreeMap::new(),
            runs: BTreeMap::new(),
            late: Vec::new(),
            admitted: 0,
            refused: 0,
            done: 0,
        }
    }

    fn then(&mut self, delay: u64, next: Next) {
        self.count += 1;
        self.next.insert((self.now + delay, self.count), next);
    }

    fn apply(&mut self, command: Command) -> Option<Reply> {
        let applied = self.core.apply(self.now, command).ok()?;
        for event in &applied.events {
            if matches!(event.kind, EventKind::DeadlineMissed | EventKind::Expired) {
                self.late.push(format!("{} at {}: {:?}", event.id, self.now - START, event.kind));
            }
        }
        for effect in applied.effects {
            match effect {
                Effect::Assign { attempt, task, .. } => {
                    self.runs.insert(attempt, (self.now, task.0));
                    let left = self.work[&task.0].left;
                    self.then(left, Next::Ends(attempt));
                }
                Effect::Thaw { attempt, .. } => {
                    let (since, task) = self.runs.get_mut(&attempt).unwrap();
                    *since = self.now;
                    let left = self.work[task].left;
                    self.then(left, Next::Ends(attempt));
                }
                Effect::Preempt { attempt, grace_ms, .. } if self.dice.percent(85) => {
                    let delay = self.dice.below(grace_ms);
                    self.then(delay, Next::Yields(attempt));
                }
                Effect::Freeze { attempt, .. } => self.then(1, Next::Frozen(attempt)),
                Effect::Stop { attempt, .. } => self.then(2, Next::Gone(attempt)),
                _ => {}
            }
        }
        Some(applied.reply)
    }

    /// What an attempt has done by now counts.
    fn stops(&mut self, attempt: Attempt, keeps: bool) -> bool {
        let Some((since, task)) = self.runs.get(&attempt).copied() else { return false };
        self.next.retain(|_, next| !matches!(next, Next::Ends(other) if *other == attempt));
        let work = self.work.get_mut(&task).unwrap();
        let ran = self.now - since;
        self.done += ran * work.slots;
        work.left = if keeps { work.left.saturating_sub(ran).max(1) } else { work.takes };
        true
    }

    fn happens(&mut self, next: Next) {
        match next {
            Next::Ends(attempt) => {
                let (since, task) = self.runs.remove(&attempt).unwrap();
                let work = self.work.remove(&task).unwrap();
                self.done += (self.now - since) * work.slots;
                if work.deadline.is_some_and(|deadline| self.now > deadline) {
                    self.late.push(format!("{task} ended at {}: {work:?}", self.now - START));
                }
                assert!(self.apply(Command::Completed { attempt }).is_some());
            }
            Next::Yields(attempt) => {
                if self.stops(attempt, true) {
                    self.runs.remove(&attempt);
                    self.apply(Command::Checkpointed { attempt, bytes: 1, yields: true });
                }
            }
            Next::Frozen(attempt) => {
                if self.stops(attempt, true) {
                    self.apply(Command::Frozen { attempt });
                }
            }
            Next::Gone(attempt) => {
                if self.stops(attempt, false) {
                    self.runs.remove(&attempt);
                    self.apply(Command::AttemptLost { attempt, reason: "stopped".into() });
                }
            }
        }
    }

    fn run_to(&mut self, until: u64) {
        loop {
            let next = self.next.first_key_value().map(|((at, _), _)| *at);
            let wake = self.core.next_wakeup();
            let at = next.into_iter().chain(wake).min().unwrap_or(u64::MAX);
            if at > until {
                self.now = until;
                return;
            }
            self.now = self.now.max(at);
            if next == Some(at) {
                let (_, next) = self.next.pop_first().unwrap();
                self.happens(next);
            } else {
                self.apply(Command::Tick);
            }
        }
    }

    fn submit(&mut self, class: Class, deadlines: u64) {
        let owner = *self.dice.pick(&TENANTS);
        self.count += 1;
        let name = format!("task-{}", self.count);
        let target = match self.dice.below(10) {
            0 => Target::Selector(labels(&[("kind", "n")])),
            1 | 2 => Target::Agent(agent("one")),
            3..=5 => Target::Agent(agent("few")),
            _ => Target::Agent(agent("wide")),
        };
        let mut task = Submit::new(tenant(owner), id(&name), target);
        let estimate = 20 + self.dice.below(400);
        let takes = (estimate * (30 + self.dice.below(71)) / 100).max(1);
        task.class = class;
        task.estimate_ms = Some(estimate);
        if self.dice.percent(20) {
            task.slots = 1 + u32::try_from(self.dice.below(u64::from(self.core.config().slots))).unwrap();
        }
        task.gpu = u32::from(self.dice.percent(10));
        if self.dice.percent(deadlines) {
            let ahead = *self.dice.pick(&[300, 3000, 20_000]);
            task.deadline = Some(self.now + estimate + self.dice.below(ahead));
        } else if self.dice.percent(5) {
            let other = id(&format!("task-{}", self.dice.below(self.count)));
            task.after.push(Dependency { id: other, known: None });
        }
        let number = self.core.next_task_number();
        let work = Work { left: takes, takes, slots: task.slots.into(), deadline: task.deadline };
        self.work.insert(number, work);
        let taken = self.apply(Command::Submit(Box::new(task))).is_some();
        if !taken {
            self.work.remove(&number);
        }
        if work.deadline.is_some() {
            self.admitted += u64::from(taken);
            self.refused += u64::from(!taken);
        }
    }
}

fn run(seed: u64) -> (u64, u64) {
    let mut node = Node::new(seed);
    let slots = u64::from(node.core.config().slots);
    let pause = 20 + node.dice.below(600) / slots;
    for step in 0..600u64 {
        let class = *node.dice.pick(&Class::ALL);
        node.submit(class, 40);
        if step % 60 == 30 {
            for _ in 0..8 {
                node.submit(Class::High, 10);
            }
        }
        node.run_to(START + step * pause);
        if step % 10 == 0 {
            node.core.check().unwrap();
        }
    }
    node.run_to(START + 3_600_000);
    assert_eq!(node.core.tasks_in_memory(), 0, "seed {seed}: some never end");
    assert!(node.late.is_empty(), "seed {seed}: {:#?}", node.late);
    (node.admitted, node.refused)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn promises_hold_whatever_comes_later() {
    if let Some(seed) = number("AION_DEADLINES_SEED") {
        run(seed);
        return;
    }
    let (mut admitted, mut refused) = (0, 0);
    for seed in 0..number("AION_DEADLINES_RUNS").unwrap_or(200) {
        let (taken, not) = run(seed);
        admitted += taken;
        refused += not;
    }
    println!("{admitted} deadlines admitted and met, {refused} refused");
    assert!(admitted > refused, "{admitted} admitted, {refused} refused");
}
