//! Tenants, lanes, agents and the node. A lane is what the tasks of one tenant for one agent (or one selector) share: their queues and
//! their virtual time. Fields under "derived" follow from the rest and are not in rows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use aion_types::AgentName;

use crate::booked::Booked;
use crate::window::Rates;
use crate::{AgentSpec, Name, Quotas, Target};

#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) name: Name,
    /// Virtual time: slot-time divided by the weight.
    pub(crate) v: u64,
    /// Where a lane that becomes ready begins at least.
    pub(crate) floor: u64,
    pub(crate) rates: Rates,
    /// When a task of it last ended, and the moving average of the time between, in microseconds.
    pub(crate) last_end: u64,
    pub(crate) end_pause_us: u64,

    // Derived.
    pub(crate) weight: u32,
    pub(crate) max_queued: u64,
    pub(crate) quotas: Quotas,
    pub(crate) lanes: BTreeMap<Target, u32>,
    pub(crate) agents: BTreeMap<AgentName, u32>,
    /// Tasks that have not ended.
    pub(crate) live: u64,
    pub(crate) queued: u64,
    /// Attempts that hold slots.
    pub(crate) running: u32,
    pub(crate) slots: u32,
    pub(crate) checkpoint_bytes: u64,
    /// Slot-time of promised tasks that wait.
    pub(crate) promised_work: u64,
    pub(crate) booked: Option<Box<Booked>>,
    /// A rate holds it back until then; 0: none does.
    pub(crate) limited_until: u64,
    pub(crate) ready: BTreeSet<(u64, u32)>,
    /// Lanes with high tasks that wait.
    pub(crate) high: BTreeSet<u32>,
    /// In the node's set of ready tenants.
    pub(crate) is_ready: bool,
    pub(crate) is_high: bool,
    pub(crate) dirty: bool,
}

#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) tenant: u32,
    pub(crate) target: Target,
    pub(crate) v: u64,
    pub(crate) class_v: [u64; 3],
    pub(crate) floor: u64,

    // Derived.
    /// (due, number)
    pub(crate) queues: [BTreeSet<(u64, u64)>; 3],
    pub(crate) agents: BTreeSet<u32>,
    /// Agents with room: (attempts that they have, id).
    pub(crate) available: BTreeSet<(u32, u32)>,
    /// Tasks that refer to it.
    pub(crate) tasks: u64,
    pub(crate) checkpoint_bytes: u64,
    pub(crate) is_ready: bool,
    /// It waits for a GPU: not in the set of ready lanes until one is free.
    pub(crate) parked: bool,
    pub(crate) dirty: bool,
}

#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) tenant: u32,
    pub(crate) name: Name,
    pub(crate) spec: AgentSpec,
    /// A service's stream is open, and it takes this many.
    pub(crate) attached: Option<u32>,
    /// When its attempts are stopped unless it attaches again; 0: not.
    pub(crate) back_until: u64,
    /// When `Wake` was sent; 0: not.
    pub(crate) woken_at: u64,
    /// Moving average of what attempts take; 0: unknown.
    pub(crate) mean_ms: u64,
    pub(crate) rates: Rates,

    // Derived.
    pub(crate) quotas: Quotas,
    pub(crate) lanes: BTreeSet<u32>,
    /// Numbers of the tasks whose attempts it has.
    pub(crate) tasks: BTreeSet<u64>,
    /// Attempts that take a place of its concurrency.
    pub(crate) busy: u32,
    /// Attempts that are frozen; a service with one is frozen as a whole.
    pub(crate) frozen: u32,
    /// Attempts that are frozen or about to be.
    pub(crate) cold: u32,
    /// Attempts that are being stopped: a service's process goes with them, so it gets nothing new.
    pub(crate) stopping: u32,
    pub(crate) limited_until: u64,
    pub(crate) booked: Option<Box<Booked>>,
    /// What it stands in its lanes' sets by.
    pub(crate) available: Option<u32>,
    pub(crate) timer: u64,
    pub(crate) dirty: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Node {
    pub(crate) floor: u64,
    /// Tasks that slots are kept for: what is asked to make room makes it for them. In order of asking.
    pub(crate) claims: VecDeque<u64>,
    /// The task at the head that needs more slots than are free, and the one that needs more GPUs; 0: none. Nothing that would keep them
    /// waiting is started.
    pub(crate) hold_slots: u64,
    pub(crate) hold_gpu: u64,

    // Derived.
    pub(crate) used: u32,
    pub(crate) used_gpu: u32,
    pub(crate) class_slots: [u32; 3],
    pub(crate) class_running: [u64; 3],
    /// Of attempts that are frozen or about to be.
    pub(crate) frozen_bytes: u64,
    pub(crate) ready: BTreeSet<(u64, u32)>,
    /// Tasks with a promise that have not begun, by when they begin at the latest.
    pub(crate) promised: BTreeSet<(u64, u64)>,
    /// There is one as long as there are promises.
    pub(crate) booked: Option<Box<Booked>>,
    /// Tenants with high tasks that wait.
    pub(crate) high: BTreeSet<(u64, u32)>,
    /// Attempts that may make room, the best first: (0 low, 1 normal; latest checkpoint first; number).
    pub(crate) victims: BTreeSet<(u8, u64, u64)>,
    pub(crate) parked: BTreeSet<u32>,
    /// Weights of the tenants that have tasks.
    pub(crate) active_weight: u64,
    /// When it is worth looking for room again; 0: not.
    pub(crate) preempt_at: u64,
}

impl Tenant {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            v: 0,
            floor: 0,
            rates: Rates::default(),
            last_end: 0,
            end_pause_us: 0,
            weight: 1,
            max_queued: 0,
            quotas: Quotas::default(),
            lanes: BTreeMap::new(),
            agents: BTreeMap::new(),
            live: 0,
            queued: 0,
            running: 0,
            slots: 0,
            checkpoint_bytes: 0,
            promised_work: 0,
            booked: None,
            limited_until: 0,
            ready: BTreeSet::new(),
            high: BTreeSet::new(),
            is_ready: false,
            is_high: false,
            dirty: false,
        }
    }

    /// It may run one more.
    pub(crate) fn has_room(&self) -> bool {
        self.limited_until == 0 && self.quotas.max_concurrency.is_none_or(|most| self.running < most)
    }
}

impl Lane {
    pub(crate) fn new(tenant: u32, target: Target) -> Self {
        Self {
            tenant,
            target,
            v: 0,
            class_v: [0; 3],
            floor: 0,
            queues: Default::default(),
            agents: BTreeSet::new(),
            available: BTreeSet::new(),
            tasks: 0,
            checkpoint_bytes: 0,
            is_ready: false,
            parked: false,
            dirty: false,
        }
    }

    pub(crate) fn serves(&self, name: &str, spec: &AgentSpec) -> bool {
        match &self.target {
            Target::Agent(agent) => agent.as_str() == name,
            Target::Selector(labels) => labels.iter().all(|(k, v)| spec.labels.get(k) == Some(v)),
        }
    }

    pub(crate) fn queued(&self) -> bool {
        self.queues.iter().any(|queue| !queue.is_empty())
    }
}

impl Agent {
    pub(crate) fn new(tenant: u32, name: &str, spec: AgentSpec) -> Self {
        Self {
            tenant,
            name: name.into(),
            spec,
            attached: None,
            back_until: 0,
            woken_at: 0,
            mean_ms: 0,
            rates: Rates::default(),
            quotas: Quotas::default(),
            lanes: BTreeSet::new(),
            tasks: BTreeSet::new(),
            busy: 0,
            frozen: 0,
            cold: 0,
            stopping: 0,
            limited_until: 0,
            booked: None,
            available: None,
            timer: 0,
            dirty: false,
        }
    }

    /// How much it takes at once, when it is there.
    pub(crate) fn capacity(&self) -> u32 {
        match self.spec.mode {
            crate::AgentMode::Job => self.spec.concurrency,
            crate::AgentMode::Service => {
                self.attached.map_or(self.spec.concurrency, |most| most.min(self.spec.concurrency))
            }
        }
    }

    /// How many attempts it has at most.
    pub(crate) fn places(&self) -> u32 {
        self.capacity().min(self.quotas.max_concurrency.unwrap_or(u32::MAX))
    }

    /// It is there. A frozen service is, attached or not: it comes back when it goes on.
    pub(crate) fn present(&self) -> bool {
        let there = self.attached.is_some() || self.frozen > 0;
        self.spec.mode == crate::AgentMode::Job || (there && self.stopping == 0)
    }

    /// It may take one more.
    pub(crate) fn has_room(&self) -> bool {
        self.present() && self.limited_until == 0 && self.busy < self.places()
    }
}
