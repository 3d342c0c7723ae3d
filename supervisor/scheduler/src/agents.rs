//! Agents that come, change, attach, leave; the start of a daemon; new settings.

use std::collections::BTreeSet;

use aion_types::{AgentName, TenantId};

use crate::entity::{Agent, Tenant};
use crate::row::keys;
use crate::scheduler::{Applied, Scheduler};
use crate::task::Stage;
use crate::{AgentMode, AgentSpec, Attempt, Config, Effect, EventKind, Refusal, Reply, Row};

impl Tenant {
    /// What follows from the settings.
    pub(crate) fn configure(&mut self, config: &Config) {
        let mine = config.tenant(&self.name);
        self.weight = mine.weight;
        self.max_queued = mine.max_queued;
        self.quotas = mine.quotas;
    }
}

impl Agent {
    pub(crate) fn configure(&mut self, config: &Config, tenant: &str) {
        let named = AgentName::parse(&self.name).ok();
        let mine = named.and_then(|name| config.tenant(tenant).agents.get(&name).copied());
        self.quotas = self.spec.quotas.tighter(mine.unwrap_or_default());
    }
}

impl Scheduler {
    fn find_agent(&self, tenant: &TenantId, name: &AgentName) -> Result<u32, Refusal> {
        let tenant = self.names.get(tenant.as_str()).map(|id| &self.tenants[*id]);
        let id = tenant.and_then(|tenant| tenant.agents.get(name)).copied();
        id.ok_or_else(|| Refusal::AgentNotFound { agent: name.to_string() })
    }

    /// The agent is one of the lane's, when it is what the lane's tasks ask for.
    pub(crate) fn join(&mut self, lane_id: u32, agent_id: u32) {
        let agent = &mut self.agents[agent_id];
        let lane = &mut self.lanes[lane_id];
        if lane.serves(&agent.name, &agent.spec) && lane.agents.insert(agent_id) {
            agent.lanes.insert(lane_id);
            if let Some(busy) = agent.available {
                lane.available.insert((busy, agent_id));
            }
        }
    }

    pub(crate) fn agent_known(
        &mut self,
        tenant: &TenantId,
        name: &AgentName,
        spec: AgentSpec,
        out: &mut Applied,
    ) -> Result<Reply, Refusal> {
        let most = self.config.limits.labels;
        if spec.labels.len() > most {
            return Err(Refusal::InvalidField { field: "labels", reason: format!("at most {most}") });
        }
        if spec.concurrency == 0 {
            return Err(Refusal::InvalidField {
                field: "concurrency",
                reason: "it must be at least 1".into(),
            });
        }
        if let Ok(id) = self.find_agent(tenant, name)
            && self.agents[id].spec == spec
        {
            return Ok(Reply::Done);
        }
        let tenant_id = self.tenant(tenant.as_str());
        let id = match self.tenants[tenant_id].agents.get(name) {
            Some(&id) => {
                let cold = u64::from(self.agents[id].cold);
                let old = cold * self.agents[id].spec.memory_bytes;
                self.node.frozen_bytes = self.node.frozen_bytes - old + cold * spec.memory_bytes;
                self.leave_lanes(id);
                self.agents[id].spec = spec;
                id
            }
            None => {
                let id = self.agents.next_id();
                self.agents.put(id, Agent::new(tenant_id, name.as_str(), spec));
                self.tenants[tenant_id].agents.insert(name.clone(), id);
                id
            }
        };
        let tenant_name = self.tenants[tenant_id].name.clone();
        self.agents[id].configure(&self.config, &tenant_name);
        let lanes: Vec<u32> = self.tenants[tenant_id].lanes.values().copied().collect();
        for lane in lanes {
            self.join(lane, id);
        }
        self.mark_agent(id);
        self.tell_agent(Some(id), EventKind::AgentKnown, out);
        self.refresh_agent(id);
        for lane in self.agents[id].lanes.clone() {
            self.wake(lane, out);
        }
        Ok(Reply::Done)
    }

    /// Out of all lanes; lanes that nobody needs go.
    fn leave_lanes(&mut self, id: u32) {
        let lanes = std::mem::take(&mut self.agents[id].lanes);
        let available = self.agents[id].available.take();
        for lane in lanes {
            if let Some(busy) = available {
                self.lanes[lane].available.remove(&(busy, id));
            }
            self.lanes[lane].agents.remove(&id);
            self.refresh_lane(lane);
            self.drop_lane(lane);
        }
    }

    pub(crate) fn agent_gone(
        &mut self,
        tenant: &TenantId,
        name: &AgentName,
        out: &mut Applied,
    ) -> Result<Reply, Refusal> {
        let id = self.find_agent(tenant, name)?;
        self.tell_agent(Some(id), EventKind::AgentGone, out);
        // Nothing is given to it while it is taken apart.
        self.agents[id].attached = None;
        self.leave_lanes(id);
        for number in self.agents[id].tasks.clone() {
            self.lose(number, "the agent was removed".into(), out);
        }
        self.break_promises_at(id);
        let owner = self.agents[id].tenant;
        self.tenants[owner].agents.remove(name);
        let timer = self.agents[id].timer;
        self.move_timer(crate::scheduler::Timer::Agent(id), timer, 0);
        self.agents.remove(id);
        self.dirty.rows.push(Row { key: keys::entity(keys::AGENT, id), value: None });
        Ok(Reply::Done)
    }

    pub(crate) fn attached(
        &mut self,
        tenant: &TenantId,
        name: &AgentName,
        concurrency: u32,
        running: &[Attempt],
        out: &mut Applied,
    ) -> Result<Reply, Refusal> {
        let id = self.find_agent(tenant, name)?;
        let agent = &mut self.agents[id];
        if agent.spec.mode == AgentMode::Job {
            return Err(Refusal::InvalidField {
                field: "mode",
                reason: "an agent of jobs does not attach".into(),
            });
        }
        let most = agent.spec.concurrency;
        let concurrency = if concurrency == 0 { most } else { concurrency.min(most) };
        agent.attached = Some(concurrency);
        agent.back_until = 0;
        agent.woken_at = 0;
        self.mark_agent(id);
        self.tell_agent(Some(id), EventKind::Attached { concurrency }, out);
        let named: BTreeSet<Attempt> = running.iter().copied().collect();
        let mut keep = Vec::new();
        for number in self.agents[id].tasks.clone() {
            let Some(run) = &self.tasks[number].run else { continue };
            let (attempt, stage) = (run.attempt, run.stage);
            // A frozen agent answers nothing; one that attaches is not frozen, whatever was asked.
            if !named.contains(&attempt) {
                if !stage.fenced() && !stage.stopping() {
                    self.let_go(number);
                }
                self.lose(number, "the agent came back without it".into(), out);
                continue;
            }
            if let Some(run) = &mut self.tasks[number].run {
                run.unconfirmed = false;
            }
            self.list(number);
            self.mark_task(number);
            self.repeat(number, out);
            if !stage.fenced() && stage != Stage::LostStopping {
                keep.push(attempt);
            }
        }
        self.refresh_agent(id);
        Ok(Reply::Attached { concurrency, keep })
    }

    pub(crate) fn detached(
        &mut self,
        tenant: &TenantId,
        name: &AgentName,
        process_gone: bool,
        out: &mut Applied,
    ) -> Result<Reply, Refusal> {
        let id = self.find_agent(tenant, name)?;
        if self.agents[id].attached.take().is_some() {
            self.tell_agent(Some(id), EventKind::Detached, out);
        }
        self.mark_agent(id);
        if process_gone {
            self.agents[id].back_until = 0;
            for number in self.agents[id].tasks.clone() {
                self.lose(number, "the agent ended".into(), out);
            }
        } else if !self.agents[id].tasks.is_empty() {
            self.agents[id].back_until = self.now + self.config.reattach_ms;
        }
        self.refresh_agent(id);
        for lane in self.agents[id].lanes.clone() {
            self.wake(lane, out);
        }
        Ok(Reply::Done)
    }

    /// The agent did not come back in time: what it still works on must end before it is done elsewhere.
    pub(crate) fn did_not_come_back(&mut self, id: u32, out: &mut Applied) {
        self.agents[id].back_until = 0;
        self.mark_agent(id);
        self.time_agent(id);
        for number in self.agents[id].tasks.clone() {
            let Some(stage) = self.tasks[number].run.as_ref().map(|run| run.stage) else { continue };
            match stage {
                Stage::Over => self.stop(number, Stage::OverStopping, out),
                // Frozen, it cannot come back; it does when it goes on.
                Stage::Frozen => {}
                stage if stage.stopping() => {}
                _ => self.stop(number, Stage::LostStopping, out),
            }
        }
        for lane in self.agents[id].lanes.clone() {
            self.wake(lane, out);
        }
    }

    pub(crate) fn boot(&mut self, epoch: u64, out: &mut Applied) -> Result<Reply, Refusal> {
        if epoch <= self.epoch {
            return Err(Refusal::EpochNotNew { epoch, last: self.epoch });
        }
        self.epoch = epoch;
        self.seq = 0;
        self.tell_agent(None, EventKind::Booted { epoch }, out);
        let numbers: Vec<u64> = self.attempts.values().copied().collect();
        for number in numbers {
            self.unlist(number);
            if let Some(run) = &mut self.tasks[number].run {
                run.unconfirmed = true;
            }
            self.mark_task(number);
            // A frozen service cannot attach: should the thaw have been recorded and not done, it is done now.
            let Some(run) = &self.tasks[number].run else { continue };
            let spec = &self.agents[run.agent].spec;
            let alone = spec.mode == AgentMode::Service && spec.concurrency == 1;
            if run.stage == Stage::Running
                && spec.may_freeze
                && alone
                && let Some((attempt, tenant, agent)) = self.whose(number)
            {
                out.effects.push(Effect::Thaw { attempt, tenant, agent });
            }
        }
        for id in self.agents.ids() {
            let agent = &mut self.agents[id];
            agent.attached = None;
            agent.woken_at = 0;
            let service = agent.spec.mode == AgentMode::Service;
            agent.back_until =
                if service && !agent.tasks.is_empty() { self.now + self.config.reattach_ms } else { 0 };
            self.mark_agent(id);
            self.refresh_agent(id);
        }
        for lane in self.lanes.ids() {
            self.wake(lane, out);
        }
        Ok(Reply::Done)
    }

    pub(crate) fn configure(&mut self, config: Config, out: &mut Applied) -> Result<Reply, Refusal> {
        config.validate()?;
        let seed = self.config.hash_seed;
        self.config = Config { hash_seed: seed, ..config };
        self.tell_agent(None, EventKind::Configured, out);
        self.rebuild();
        Ok(Reply::Done)
    }
}
