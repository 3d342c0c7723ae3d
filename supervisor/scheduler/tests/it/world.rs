//! Short ways to say things in tests.

use std::collections::BTreeMap;

use aion_scheduler::{
    AgentMode, AgentSpec, Applied, Attempt, Class, Command, Config, Effect, Refusal, Reply, Scheduler, State,
    Submit, Target, TaskId, TaskView,
};
use aion_types::{AgentName, TenantId};

pub(crate) fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

pub(crate) fn agent(name: &str) -> AgentName {
    AgentName::parse(name).unwrap()
}

pub(crate) fn id(text: &str) -> TaskId {
    TaskId::parse(text).unwrap()
}

/// One scheduler, a clock that only moves when told, and the last effects.
pub(crate) struct World {
    pub(crate) core: Scheduler,
    pub(crate) now: u64,
    pub(crate) last: Applied,
    pub(crate) all: Vec<Effect>,
}

pub(crate) const START: u64 = 1_700_000_000_000;

impl World {
    pub(crate) fn new(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.preemption.min_run_ms = 0;
        change(&mut config);
        let core = Scheduler::new(config).unwrap();
        let mut world = Self { core, now: START, last: Applied::default(), all: Vec::new() };
        world.ok(Command::Boot { epoch: 1 });
        world
    }

    pub(crate) fn apply(&mut self, command: Command) -> Result<Reply, Refusal> {
        let before = self.core.dump();
        match self.core.apply(self.now, command) {
            Ok(applied) => {
                self.core.check().unwrap();
                self.all.extend(applied.effects.iter().cloned());
                self.last = applied;
                Ok(self.last.reply.clone())
            }
            Err(refusal) => {
                assert_eq!(before, self.core.dump(), "a refusal changed something");
                Err(refusal)
            }
        }
    }

    pub(crate) fn ok(&mut self, command: Command) -> Reply {
        self.apply(command).unwrap()
    }

    pub(crate) fn pass(&mut self, ms: u64) {
        self.now += ms;
        self.ok(Command::Tick);
    }

    pub(crate) fn job(&mut self, name: &str, concurrency: u32) {
        self.job_with(name, AgentSpec { concurrency, ..AgentSpec::default() });
    }

    pub(crate) fn job_with(&mut self, name: &str, spec: AgentSpec) {
        let spec = AgentSpec { mode: AgentMode::Job, ..spec };
        self.ok(Command::AgentKnown { tenant: tenant("t"), name: agent(name), spec });
    }

    pub(crate) fn service(&mut self, name: &str, concurrency: u32) {
        let spec = AgentSpec { concurrency, ..AgentSpec::default() };
        self.ok(Command::AgentKnown { tenant: tenant("t"), name: agent(name), spec });
    }

    pub(crate) fn attach(&mut self, name: &str, running: Vec<Attempt>) -> Reply {
        self.ok(Command::Attached { tenant: tenant("t"), name: agent(name), concurrency: 0, running })
    }

    pub(crate) fn task(name: &str) -> Submit {
        Submit::new(tenant("t"), id(name), Target::Agent(agent("a")))
    }

    pub(crate) fn submit(&mut self, submit: Submit) -> Result<Reply, Refusal> {
        self.apply(Command::Submit(Box::new(submit)))
    }

    pub(crate) fn put(&mut self, name: &str, change: impl FnOnce(&mut Submit)) {
        let mut task = Self::task(name);
        change(&mut task);
        self.submit(task).unwrap();
    }

    pub(crate) fn put_class(&mut self, name: &str, class: Class) {
        self.put(name, |task| task.class = class);
    }

    pub(crate) fn view(&self, name: &str) -> TaskView {
        self.core.task("t", name).unwrap_or_else(|| panic!("no task {name}"))
    }

    pub(crate) fn state(&self, name: &str) -> State {
        self.view(name).state
    }

    pub(crate) fn attempt(&self, name: &str) -> Attempt {
        self.view(name).attempt.unwrap_or_else(|| panic!("{name} does not run"))
    }

    pub(crate) fn complete(&mut self, name: &str) {
        let attempt = self.attempt(name);
        self.ok(Command::Completed { attempt });
    }

    /// The same state, from its rows, and told that the daemon has started.
    pub(crate) fn restart(&mut self) {
        let rows = self.core.dump();
        let rows = rows.iter().map(|row| (row.key.clone(), row.value.clone().unwrap()));
        self.core = Scheduler::restore(self.core.config().clone(), rows).unwrap();
        let epoch = self.core.epoch() + 1;
        self.ok(Command::Boot { epoch });
    }
}

pub(crate) fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

/// A small generator of numbers: the same seed, the same numbers.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(crate) fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    pub(crate) fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[usize::try_from(self.below(list.len() as u64)).unwrap()]
    }
}
