//! Answers to those who look: tasks, attempts, queues, tenants. And why a task does not run.

use aion_types::AgentName;

use crate::scheduler::Scheduler;
use crate::task::Task;
use crate::{AgentSpec, AttemptView, Class, QueueView, State, Target, TaskNumber, TaskView, TenantView};

impl Scheduler {
    /// Whether this agent is known here.
    #[must_use]
    pub fn knows_agent(&self, tenant: &str, name: &AgentName) -> bool {
        self.names.get(tenant).is_some_and(|id| self.tenants[*id].agents.contains_key(name))
    }

    /// Whether tasks wait for, or run at, an agent of this name and kind.
    #[must_use]
    pub fn wants_agent(&self, tenant: &str, name: &AgentName, spec: &AgentSpec) -> bool {
        let mut lanes = self.names.get(tenant).into_iter().flat_map(|id| self.tenants[*id].lanes.values());
        lanes.any(|lane| self.lanes[*lane].serves(name.as_str(), spec))
    }

    /// Whether there are tasks that ask for just these agents.
    #[must_use]
    pub fn has_tasks_for(&self, tenant: &str, target: &Target) -> bool {
        self.names.get(tenant).is_some_and(|id| self.tenants[*id].lanes.contains_key(target))
    }

    /// A task in memory; none: unknown or ended.
    #[must_use]
    pub fn task(&self, tenant: &str, id: &str) -> Option<TaskView> {
        let tenant = self.names.get(tenant)?;
        self.tasks.find(*tenant, id).map(|task| self.view(task))
    }

    /// A task in memory by its number.
    #[must_use]
    pub fn task_by_number(&self, number: TaskNumber) -> Option<TaskView> {
        self.tasks.get(number.0).map(|task| self.view(task))
    }

    /// The task that an attempt's token belongs to, while the attempt holds an agent.
    #[must_use]
    pub fn task_of(&self, attempt: crate::Attempt) -> Option<TaskNumber> {
        self.attempts.get(&attempt).map(|number| TaskNumber(*number))
    }

    /// Tasks in memory from a number on, in order of submission.
    pub fn tasks_from(&self, number: TaskNumber) -> impl Iterator<Item = TaskView> + '_ {
        self.tasks.iter_from(number.0).map(|task| self.view(task))
    }

    /// The number that the next task gets.
    #[must_use]
    pub fn next_task_number(&self) -> u64 {
        self.next_number
    }

    /// Tasks that expired, since the start.
    #[must_use]
    pub fn expired(&self) -> u64 {
        self.expired
    }

    /// How many tasks are in memory.
    #[must_use]
    pub fn tasks_in_memory(&self) -> usize {
        self.tasks.len()
    }

    pub(crate) fn view(&self, task: &Task) -> TaskView {
        let rare = task.rare.as_deref();
        let nonzero = |value: u64| Some(value).filter(|v| *v != 0);
        let (why, retry_at) = self.why(task);
        let error = rare.and_then(|rare| rare.error.as_ref());
        let limited = task.state == State::Queued && retry_at.is_some();
        TaskView {
            number: task.number(),
            tenant: self.tenants[task.tenant].name.clone(),
            id: task.id.clone(),
            fingerprint: task.fingerprint,
            target: self.lanes[task.lane].target.clone(),
            class: task.class,
            priority: task.priority,
            state: if limited { State::Waiting } else { task.state },
            why,
            agent: rare.and_then(|rare| rare.agent.clone()),
            attempt: task.run.as_ref().filter(|_| !task.state.ended()).map(|run| run.attempt),
            attempts: rare.map_or(0, |rare| rare.attempts),
            failures: rare.map_or(0, |rare| rare.failures),
            preemptions: task.preemptions.into(),
            checkpoints: rare.map_or(0, |rare| rare.checkpoints),
            checkpoint_bytes: rare.and_then(|rare| rare.kept.last()).map_or(0, |(_, bytes)| *bytes),
            progress_permille: rare.map_or(0, |rare| rare.progress),
            progress_note: rare.map_or_else(String::new, |rare| rare.note.clone()),
            tokens: rare.map_or(0, |rare| rare.tokens),
            usd_micros: rare.map_or(0, |rare| rare.usd),
            error_code: error.map_or_else(String::new, |error| error.code.clone()),
            error_message: error.map_or_else(String::new, |error| error.message.clone()),
            error_retryable: error.is_some_and(|error| error.retryable),
            submitted: task.submitted,
            started: rare.and_then(|rare| nonzero(rare.started)),
            finished: rare.and_then(|rare| nonzero(rare.finished)),
            deadline: nonzero(task.deadline),
            retry_at,
            slots: task.slots,
            gpu: task.gpu.into(),
            may_repeat: task.has(crate::task::flag::MAY_REPEAT),
            last_event: task.last_event,
        }
    }

    /// Why a task does not run, and when what holds it back frees up.
    fn why(&self, task: &Task) -> (String, Option<u64>) {
        match task.state {
            State::Blocked => {
                let first = task.rare.as_ref().and_then(|rare| rare.after.first());
                let first = first.and_then(|number| self.tasks.get(*number)).map_or("", |task| &task.id);
                (format!("waits for {} tasks, {first} among them", task.blocked_by), None)
            }
            State::Waiting if task.ready_at > self.now => {
                ("waits before its next attempt".into(), Some(task.ready_at))
            }
            State::Waiting => ("waits until its last attempt is over".into(), None),
            State::Queued | State::Frozen => self.why_queued(task),
            State::Preempting => ("makes room for a task of a higher queue".into(), None),
            State::Running => match &task.run {
                Some(run) if run.unconfirmed => ("nothing was heard of it since the start".into(), None),
                Some(run) if run.stage.stopping() => {
                    ("its agent did not come back and is being stopped".into(), None)
                }
                _ => (String::new(), None),
            },
            State::Failed | State::Cancelled => {
                let error = task.rare.as_ref().and_then(|rare| rare.error.as_ref());
                (error.map_or_else(String::new, |error| error.message.clone()), None)
            }
            State::Expired => ("its deadline passed before it could run".into(), None),
            State::Succeeded => (String::new(), None),
        }
    }

    fn why_queued(&self, task: &Task) -> (String, Option<u64>) {
        if task.slots > self.config.slots || u32::from(task.gpu) > self.config.gpus {
            return ("the node no longer has the slots or GPUs that it needs".into(), None);
        }
        let tenant = &self.tenants[task.tenant];
        if let Some((quota, at)) = tenant.rates.limited(&tenant.quotas, self.now) {
            return (format!("quota {quota} of the tenant is used up"), Some(at));
        }
        if !tenant.has_room() {
            let limit = tenant.quotas.max_concurrency.unwrap_or(0);
            return (format!("quota max_concurrency of the tenant: {limit} tasks of it run"), None);
        }
        let lane = &self.lanes[task.lane];
        if lane.agents.is_empty() {
            return match &lane.target {
                Target::Agent(name) => (format!("agent {name} was removed"), None),
                Target::Selector(labels) if labels.is_empty() => ("no agent serves tasks".into(), None),
                Target::Selector(_) => ("no agent has all the labels of its selector".into(), None),
            };
        }
        if lane.available.is_empty() {
            return self.why_no_agent(lane);
        }
        if task.slots > self.free_slots() {
            return ("all slots are taken".into(), None);
        }
        if u32::from(task.gpu) > self.free_gpus() {
            return ("all GPUs are taken".into(), None);
        }
        ("others come first".into(), None)
    }

    fn why_no_agent(&self, lane: &crate::entity::Lane) -> (String, Option<u64>) {
        let agents: Vec<_> = lane.agents.iter().take(16).map(|id| &self.agents[*id]).collect();
        let limited = |agent: &&crate::entity::Agent| {
            Some((agent.rates.limited(&agent.quotas, self.now)?, agent.name.clone()))
        };
        if let Some(((quota, at), name)) = agents.iter().filter_map(limited).min_by_key(|((_, at), _)| *at) {
            return (format!("quota {quota} of agent {name} is used up"), Some(at));
        }
        let Some(agent) = agents.iter().find(|agent| agent.present()) else {
            let name = agents.first().map_or("", |agent| &agent.name);
            return (format!("agent {name} is not attached"), None);
        };
        if agent.quotas.max_concurrency.is_some_and(|most| agent.busy >= most) {
            return (format!("quota max_concurrency of agent {}", agent.name), None);
        }
        (format!("agent {} has as many tasks as it takes at once", agent.name), None)
    }

    /// Every attempt that holds an agent.
    #[must_use]
    pub fn attempts(&self) -> Vec<AttemptView> {
        let views = self.attempts.iter().filter_map(|(attempt, number)| {
            let task = self.tasks.get(*number)?;
            let run = task.run.as_ref()?;
            let agent = &self.agents[run.agent];
            Some(AttemptView {
                attempt: *attempt,
                task: task.number(),
                tenant: self.tenants[task.tenant].name.clone(),
                id: task.id.clone(),
                agent: agent.name.clone(),
                mode: agent.spec.mode,
                state: task.state,
                unconfirmed: run.unconfirmed,
                stopping: run.stage.stopping(),
            })
        });
        views.collect()
    }

    /// The queues of one tenant, or of the node. Walks over lanes, not over tasks.
    #[must_use]
    pub fn queues(&self, tenant: Option<&str>) -> Vec<QueueView> {
        let owner = match tenant.map(|name| self.names.get(name).copied()) {
            None => None,
            Some(Some(id)) => Some(id),
            Some(None) => return Vec::new(),
        };
        let mut queues: Vec<QueueView> = Class::ALL
            .into_iter()
            .map(|class| {
                let lanes =
                    self.lanes.iter().filter(|(_, lane)| owner.is_none_or(|owner| lane.tenant == owner));
                // The first of each lane by due time is nearly the oldest: only priority and deadlines can put another before it.
                let first = lanes.filter_map(|(_, lane)| lane.queues[class.index()].first());
                let oldest = first.map(|(_, number)| self.tasks[*number].submitted).min();
                QueueView { class, depth: self.depth(owner, class), running: 0, slots: 0, oldest }
            })
            .collect();
        for number in self.attempts.values() {
            let task = &self.tasks[*number];
            if task.holds() && owner.is_none_or(|owner| task.tenant == owner) {
                let queue = &mut queues[task.class.index()];
                queue.running += 1;
                queue.slots += u64::from(task.slots);
            }
        }
        queues
    }

    /// Every tenant.
    #[must_use]
    pub fn tenants(&self) -> Vec<TenantView> {
        let least = self.node.ready.first().map_or(self.node.floor, |(v, _)| *v);
        let views = self.tenants.iter().map(|(_, tenant)| {
            let rate = tenant.rates.limited(&tenant.quotas, self.now).map(|(name, at)| (name, Some(at)));
            let full = tenant.quotas.max_concurrency.is_some_and(|most| tenant.running >= most);
            TenantView {
                tenant: tenant.name.clone(),
                weight: tenant.weight,
                queued: tenant.queued,
                running: tenant.running.into(),
                slots: tenant.slots.into(),
                lag: tenant.v.saturating_sub(least),
                checkpoint_bytes: tenant.checkpoint_bytes,
                limited_by: rate.or_else(|| full.then_some(("max_concurrency", None))),
            }
        });
        views.collect()
    }

    /// Slots in use, GPUs in use, and bytes of frozen agents.
    #[must_use]
    pub fn usage_of_node(&self) -> (u32, u32, u64) {
        (self.node.used, self.node.used_gpu, self.node.frozen_bytes)
    }
}
