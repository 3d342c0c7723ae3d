//! Taking in a task. Everything that can be wrong is found before anything changes.

use crate::scheduler::{Applied, Scheduler};
use crate::task::{Promise, Rare, Task, flag};
use crate::{Class, EventKind, Refusal, Reply, State, Submit, Target, TaskNumber};

fn invalid(field: &'static str, reason: impl Into<String>) -> Refusal {
    Refusal::InvalidField { field, reason: reason.into() }
}

/// The longest timeout, estimate and backoff: a little over 24 days.
const LONGEST_MS: u64 = i32::MAX as u64;

fn span(field: &'static str, ms: u64) -> Result<u32, Refusal> {
    match u32::try_from(ms) {
        Ok(0) => Err(invalid(field, "it is 0")),
        Ok(short) if ms <= LONGEST_MS => Ok(short),
        _ => Err(invalid(field, "it is longer than 24 days")),
    }
}

impl Scheduler {
    pub(crate) fn submit(&mut self, submit: Submit, out: &mut Applied) -> Result<Reply, Refusal> {
        if let Some(reply) = self.existed(&submit)? {
            return Ok(reply);
        }
        let mut task = self.checked(&submit)?;
        let after = self.dependencies(&submit)?;
        self.room_in_queue(&submit)?;
        self.agent_of(&submit)?;
        let promise = self.deadline_fits(&submit, &mut task)?;

        // From here on nothing fails.
        let tenant = self.tenant(submit.tenant.as_str());
        let lane = self.lane(tenant, &submit.target);
        let number = self.next_number;
        self.next_number += 1;
        task.number = number;
        task.tenant = tenant;
        task.lane = lane;
        self.lanes[lane].tasks += 1;
        let owner = &mut self.tenants[tenant];
        owner.live += 1;
        if owner.live == 1 {
            self.node.active_weight += u64::from(owner.weight);
        }
        for other in &after {
            self.tasks[*other].rare().dependants.push(number);
            self.mark_task(*other);
        }
        let blocked_by = u32::try_from(after.len()).unwrap_or(u32::MAX);
        if !after.is_empty() {
            task.blocked_by = u16::try_from(after.len()).unwrap_or(u16::MAX);
            task.state = State::Blocked;
            task.rare().after = after;
        }
        self.tasks.insert(task);
        self.make_promise(number, promise);
        self.tell(number, EventKind::Submitted { blocked_by }, out);
        if blocked_by == 0 {
            self.enqueue(number);
            self.wake(lane, out);
        } else {
            self.time_task(number);
        }
        Ok(Reply::Submitted { task: TaskNumber(number) })
    }

    /// The same id before: the same task, or another one.
    fn existed(&self, submit: &Submit) -> Result<Option<Reply>, Refusal> {
        let tenant = self.names.get(submit.tenant.as_str());
        let live = tenant.and_then(|tenant| self.tasks.find(*tenant, submit.id.as_str()));
        let before = match live {
            Some(task) => Some((task.number, task.fingerprint)),
            None => tenant
                .and_then(|tenant| self.recent.get(*tenant, &submit.id.name()))
                .or(submit.known)
                .map(|ended| (ended.number.0, ended.fingerprint)),
        };
        match before {
            None => Ok(None),
            Some((number, print)) if print == submit.fingerprint => {
                Ok(Some(Reply::Existed { task: TaskNumber(number) }))
            }
            Some(_) => Err(Refusal::TaskExists { task: submit.id.to_string() }),
        }
    }

    fn checked(&self, submit: &Submit) -> Result<Task, Refusal> {
        let limits = &self.config.limits;
        if submit.priority > 9 {
            return Err(invalid("priority", "it must be 0 to 9"));
        }
        if submit.slots == 0 || submit.slots > self.config.slots {
            return Err(match submit.slots {
                0 => invalid("needs.slots", "a task needs at least 1"),
                n => Refusal::NotServed {
                    reason: format!("it needs {n} slots, the node has {}", self.config.slots),
                },
            });
        }
        if submit.gpu > self.config.gpus {
            let reason = format!("it needs {} GPUs, the node has {}", submit.gpu, self.config.gpus);
            return Err(Refusal::NotServed { reason });
        }
        if submit.retry.max_attempts == 0 || submit.retry.max_attempts > limits.attempts {
            return Err(invalid("retry.max_attempts", format!("it must be 1 to {}", limits.attempts)));
        }
        if submit.retry.factor_percent < 100 || submit.retry.factor_percent > 10_000 {
            return Err(invalid("retry.factor", "it must be 1 to 100"));
        }
        if submit.after.len() > limits.after {
            return Err(invalid("after", format!("at most {} tasks", limits.after)));
        }
        if let Some(deadline) = submit.deadline {
            if deadline <= self.now {
                return Err(invalid("deadline", "it has passed"));
            }
            if deadline - self.now > limits.horizon_ms {
                return Err(invalid("deadline", "it is too far ahead"));
            }
        }
        if let Target::Selector(labels) = &submit.target {
            let long = labels.iter().any(|(k, v)| k.is_empty() || k.len() > 63 || v.len() > 63);
            // Without labels it is any agent of the tenant.
            if labels.len() > limits.labels || long {
                return Err(invalid(
                    "selector",
                    format!("at most {} labels of at most 63 bytes", limits.labels),
                ));
            }
        }
        let budget = submit.tokens_max != 0 || submit.usd_micros_max != 0;
        let rare = budget.then(|| {
            Box::new(Rare {
                tokens_max: submit.tokens_max,
                usd_max: submit.usd_micros_max,
                ..Rare::default()
            })
        });
        Ok(Task {
            number: 0,
            id: submit.id.name(),
            fingerprint: submit.fingerprint,
            submitted: self.now,
            deadline: submit.deadline.unwrap_or(0),
            ready_at: 0,
            last_event: 0,
            timer: 0,
            lane: 0,
            tenant: 0,
            timeout_ms: submit.timeout_ms.map_or(Ok(0), |ms| span("timeout", ms))?,
            estimate_ms: submit.estimate_ms.map_or(Ok(0), |ms| span("estimate", ms))?,
            backoff_ms: span("retry.backoff", submit.retry.backoff_ms.max(1))?,
            max_backoff_ms: span("retry.max_backoff", submit.retry.max_backoff_ms.max(1))?,
            factor_percent: submit.retry.factor_percent,
            slots: submit.slots,
            gpu: u16::try_from(submit.gpu).map_err(|_| invalid("needs.gpu", "too many"))?,
            max_attempts: u16::try_from(submit.retry.max_attempts).unwrap_or(u16::MAX),
            blocked_by: 0,
            preemptions: 0,
            class: submit.class,
            priority: submit.priority,
            state: State::Queued,
            flags: if submit.idempotent { flag::IDEMPOTENT } else { 0 },
            rare,
            run: None,
        })
    }

    /// Numbers of the tasks that it still has to wait for. They all exist before it, so there can be no circle but with itself.
    fn dependencies(&self, submit: &Submit) -> Result<Vec<u64>, Refusal> {
        let tenant = self.names.get(submit.tenant.as_str());
        let mut numbers = Vec::new();
        for dependency in &submit.after {
            let name = || dependency.id.to_string();
            if dependency.id == submit.id {
                return Err(Refusal::DependencyCycle { task: name() });
            }
            let live = tenant.and_then(|tenant| self.tasks.find(*tenant, dependency.id.as_str()));
            let ended = match live {
                Some(task) if !task.state.ended() => {
                    let waiting = task.rare.as_ref().map_or(0, |rare| rare.dependants.len());
                    let limit = self.config.limits.dependants;
                    if waiting >= limit {
                        let (limit, used) = (limit as u64, waiting as u64);
                        return Err(Refusal::QuotaExceeded {
                            quota: "tasks that wait for one task",
                            limit,
                            used,
                        });
                    }
                    if !numbers.contains(&task.number) {
                        numbers.push(task.number);
                    }
                    continue;
                }
                Some(task) => Some(task.state),
                None => tenant
                    .and_then(|tenant| self.recent.get(*tenant, &dependency.id.name()))
                    .or(dependency.known)
                    .map(|ended| ended.state),
            };
            match ended {
                Some(State::Succeeded) => {}
                Some(state) => return Err(Refusal::DependencyFailed { task: name(), state }),
                None => return Err(Refusal::DependencyNotFound { task: name() }),
            }
        }
        Ok(numbers)
    }

    fn room_in_queue(&self, submit: &Submit) -> Result<(), Refusal> {
        let tenant = self.names.get(submit.tenant.as_str()).map(|id| &self.tenants[*id]);
        // What runs waits for nothing.
        let (waiting, limit, pause) = match tenant {
            Some(tenant) => (
                tenant.live.saturating_sub(tenant.running.into()),
                tenant.max_queued,
                tenant.end_pause_us / 1000,
            ),
            None => (0, self.config.tenant(submit.tenant.as_str()).max_queued, 0),
        };
        let retry_after_ms = pause.clamp(100, 60_000);
        if waiting >= limit {
            return Err(Refusal::QueueFull { tenant: submit.tenant.to_string(), limit, retry_after_ms });
        }
        let limit = self.config.limits.tasks;
        if self.tasks.len() as u64 >= limit {
            return Err(Refusal::NodeFull { limit, retry_after_ms });
        }
        Ok(())
    }

    fn agent_of(&self, submit: &Submit) -> Result<(), Refusal> {
        let Target::Agent(name) = &submit.target else { return Ok(()) };
        let tenant = self.names.get(submit.tenant.as_str());
        match tenant.and_then(|tenant| self.tenants[*tenant].agents.get(name)) {
            Some(_) => Ok(()),
            None => Err(Refusal::AgentNotFound { agent: name.to_string() }),
        }
    }

    /// A stretch for a task with a deadline, beside all that were promised before. Without an estimate of its own the task gets the one
    /// that the promise is made with.
    fn deadline_fits(&self, submit: &Submit, task: &mut Task) -> Result<Option<Promise>, Refusal> {
        if task.deadline == 0 {
            return Ok(None);
        }
        let tenant = self.names.get(submit.tenant.as_str()).copied();
        let agents = tenant.map_or_else(Vec::new, |tenant| self.agents_for(tenant, submit));
        if task.estimate_ms == 0 {
            let guess = agents.first().map_or(0, |id| self.agents[*id].mean_ms);
            let guess = if guess == 0 { self.config.default_estimate_ms } else { guess };
            task.estimate_ms = u32::try_from(guess.min(LONGEST_MS)).unwrap_or(u32::MAX);
        }
        let refuse = |reason: &str, earliest_ms: u64| {
            Err(Refusal::DeadlineUnmeetable { reason: reason.into(), earliest_ms })
        };
        if agents.is_empty() {
            return refuse("there is no agent that could run it", u64::from(task.estimate_ms));
        }
        // A tenant promises away no more than its share; a single task may have all that is free.
        if let Some(tenant) = tenant.map(|id| &self.tenants[id]).filter(|tenant| tenant.promised_work > 0) {
            let (weight, slots) = (u64::from(tenant.weight), u64::from(self.config.slots));
            let active = self.node.active_weight.max(weight);
            let ahead = u128::from(slots) * u128::from(task.deadline - self.now);
            let asked = u128::from(tenant.promised_work) + u128::from(self.promised_work(task));
            if asked > ahead * u128::from(weight) / u128::from(active) {
                let earliest = asked * u128::from(active) / (u128::from(weight) * u128::from(slots));
                let earliest = u64::try_from(earliest).unwrap_or(u64::MAX);
                return refuse("the tenant's share until then is promised already", earliest);
            }
        }
        match self.find_stretch(task, tenant, &agents) {
            Some(promise) => Ok(Some(promise)),
            None => {
                refuse("the node or its agent is taken until then", self.earliest_end(task, tenant, &agents))
            }
        }
    }

    /// A tenant, new when it is not known.
    pub(crate) fn tenant(&mut self, name: &str) -> u32 {
        if let Some(id) = self.names.get(name) {
            return *id;
        }
        let id = self.tenants.next_id();
        let mut tenant = crate::entity::Tenant::new(name);
        tenant.configure(&self.config);
        tenant.v = self.node.floor;
        self.names.insert(tenant.name.clone(), id);
        self.tenants.put(id, tenant);
        self.mark_tenant(id);
        id
    }

    pub(crate) fn lane(&mut self, tenant: u32, target: &Target) -> u32 {
        if let Some(id) = self.tenants[tenant].lanes.get(target) {
            return *id;
        }
        let id = self.lanes.next_id();
        let mut lane = crate::entity::Lane::new(tenant, target.clone());
        lane.v = self.tenants[tenant].floor;
        self.lanes.put(id, lane);
        self.tenants[tenant].lanes.insert(target.clone(), id);
        let agents: Vec<u32> = self.tenants[tenant].agents.values().copied().collect();
        for agent in agents {
            self.join(id, agent);
        }
        self.mark_lane(id);
        id
    }

    /// Tells a service that is wanted and not there.
    pub(crate) fn wake(&mut self, lane: u32, out: &mut Applied) {
        let lane = &self.lanes[lane];
        if !lane.available.is_empty() || !lane.queued() {
            return;
        }
        let agents: Vec<u32> = lane.agents.iter().copied().collect();
        if agents.iter().any(|id| self.agents[*id].present()) {
            return;
        }
        let Some(&id) = agents.first() else { return };
        let agent = &mut self.agents[id];
        if agent.woken_at == 0 && agent.attached.is_none() && agent.back_until == 0 {
            agent.woken_at = self.now.max(1);
            let name = agent.name.clone();
            let tenant = self.tenants[agent.tenant].name.clone();
            out.effects.push(crate::Effect::Wake { tenant, agent: name });
            self.mark_agent(id);
            self.time_agent(id);
        }
    }

    /// Depth of a class over all lanes of a tenant, or of the node.
    pub(crate) fn depth(&self, tenant: Option<u32>, class: Class) -> u64 {
        let lanes = self.lanes.iter().filter(|(_, lane)| tenant.is_none_or(|tenant| lane.tenant == tenant));
        lanes.map(|(_, lane)| lane.queues[class.index()].len() as u64).sum()
    }
}
