//! Who could run: agents with room, lanes with tasks and such an agent, tenants with such a lane and room in their quotas.
//!
//! Each change goes up from where it happens, and stops where nothing changes. Who becomes ready begins at the least virtual time of those
//! that are: who was idle, or held back, does not save up.

use crate::scheduler::{Scheduler, Timer};
use crate::task::{Task, flag};
use crate::{Class, State};

/// Virtual time of one millisecond on one slot at weight 1.
const SCALE: u64 = 1 << 12;

pub(crate) fn moved(v: u64, ms: i64, slots: u32, weight: u32) -> u64 {
    let units =
        ms.unsigned_abs().saturating_mul(u64::from(slots)).saturating_mul(SCALE) / u64::from(weight.max(1));
    if ms >= 0 { v.saturating_add(units) } else { v.saturating_sub(units) }
}

impl Scheduler {
    pub(crate) fn refresh_agent(&mut self, id: u32) {
        let now = self.now;
        let agent = &mut self.agents[id];
        let limited = agent.rates.limited(&agent.quotas, now).map_or(0, |(_, at)| at);
        agent.limited_until = limited;
        self.time_agent(id);
        let agent = &mut self.agents[id];
        let room = agent.has_room().then_some(agent.busy);
        let old = std::mem::replace(&mut agent.available, room);
        if old == room {
            return;
        }
        let lanes = std::mem::take(&mut agent.lanes);
        for &lane in &lanes {
            let available = &mut self.lanes[lane].available;
            if let Some(busy) = old {
                available.remove(&(busy, id));
            }
            if let Some(busy) = room {
                available.insert((busy, id));
            }
            self.refresh_lane(lane);
        }
        self.agents[id].lanes = lanes;
    }

    pub(crate) fn time_agent(&mut self, id: u32) {
        let retry = self.config.wake_retry_ms;
        let agent = &mut self.agents[id];
        let woken = if agent.woken_at == 0 { 0 } else { agent.woken_at + retry };
        let next = [agent.limited_until, agent.back_until, woken].into_iter().filter(|at| *at != 0).min();
        let next = next.unwrap_or(0);
        let old = std::mem::replace(&mut agent.timer, next);
        if old != next {
            self.move_timer(Timer::Agent(id), old, next);
        }
    }

    pub(crate) fn refresh_lane(&mut self, id: u32) {
        let lane = &mut self.lanes[id];
        let tenant = &mut self.tenants[lane.tenant];
        let owner = lane.tenant;
        let ready = lane.queued() && !lane.available.is_empty() && !lane.parked;
        let mut raised = false;
        if ready != lane.is_ready {
            lane.is_ready = ready;
            if ready {
                let least = tenant.ready.first().map_or(tenant.floor, |(v, _)| *v);
                if lane.v < least && !self.rebuilding {
                    lane.v = least;
                    raised = true;
                }
                tenant.ready.insert((lane.v, id));
            } else {
                tenant.ready.remove(&(lane.v, id));
            }
        }
        if lane.queues[Class::High.index()].is_empty() {
            tenant.high.remove(&id);
        } else {
            tenant.high.insert(id);
        }
        if raised {
            self.mark_lane(id);
        }
        self.refresh_tenant(owner);
    }

    pub(crate) fn refresh_tenant(&mut self, id: u32) {
        let now = self.now;
        let tenant = &mut self.tenants[id];
        let limited = tenant.rates.limited(&tenant.quotas, now).map_or(0, |(_, at)| at);
        let old = std::mem::replace(&mut tenant.limited_until, limited);
        let ready = !tenant.ready.is_empty() && tenant.has_room();
        let mut raised = false;
        if ready != tenant.is_ready {
            tenant.is_ready = ready;
            if ready {
                let least = self.node.ready.first().map_or(self.node.floor, |(v, _)| *v);
                if tenant.v < least && !self.rebuilding {
                    if tenant.is_high {
                        self.node.high.remove(&(tenant.v, id));
                        self.node.high.insert((least, id));
                    }
                    tenant.v = least;
                    raised = true;
                }
                self.node.ready.insert((tenant.v, id));
            } else {
                self.node.ready.remove(&(tenant.v, id));
            }
        }
        let high = !tenant.high.is_empty();
        if high != tenant.is_high {
            tenant.is_high = high;
            if high {
                self.node.high.insert((tenant.v, id));
            } else {
                self.node.high.remove(&(tenant.v, id));
            }
        }
        if old != limited {
            self.move_timer(Timer::Tenant(id), old, limited);
        }
        if raised {
            self.mark_tenant(id);
        }
    }

    /// Slot-time used (or given back, when negative) by a task moves its class, its lane and its tenant.
    pub(crate) fn charge(&mut self, number: u64, ms: i64) {
        let task = &self.tasks[number];
        let (lane_id, tenant_id, slots, class) = (task.lane, task.tenant, task.slots, task.class);
        let class_weight = self.config.weight(class);
        let lane = &mut self.lanes[lane_id];
        let tenant = &mut self.tenants[tenant_id];
        lane.class_v[class.index()] = moved(lane.class_v[class.index()], ms, slots, class_weight);
        let v = moved(lane.v, ms, slots, 1);
        if lane.is_ready {
            tenant.ready.remove(&(lane.v, lane_id));
            tenant.ready.insert((v, lane_id));
        }
        lane.v = v;
        let v = moved(tenant.v, ms, slots, tenant.weight);
        if tenant.is_ready {
            self.node.ready.remove(&(tenant.v, tenant_id));
            self.node.ready.insert((v, tenant_id));
        }
        if tenant.is_high {
            self.node.high.remove(&(tenant.v, tenant_id));
            self.node.high.insert((v, tenant_id));
        }
        tenant.v = v;
        self.mark_lane(lane_id);
        self.mark_tenant(tenant_id);
    }

    /// What a task is thought to take, in ms, at least 1.
    pub(crate) fn estimate(&self, task: &Task) -> u64 {
        self.guess(task.estimate_ms, task.lane)
    }

    pub(crate) fn guess(&self, own: u32, lane: u32) -> u64 {
        if own != 0 {
            return own.into();
        }
        let mean = self.lanes[lane].agents.first().map_or(0, |agent| self.agents[*agent].mean_ms);
        if mean == 0 { self.config.default_estimate_ms } else { mean }
    }

    /// Into its lane's queue. The state is the caller's: `Queued`, or `Frozen`.
    pub(crate) fn enqueue(&mut self, number: u64) {
        let due = self.tasks[number].due(self.config.patience_ms);
        let task = &mut self.tasks[number];
        task.set(flag::QUEUED, true);
        task.ready_at = 0;
        let (lane_id, tenant, class) = (task.lane, task.tenant, task.class);
        let lane = &mut self.lanes[lane_id];
        if lane.queues[class.index()].is_empty() && !self.rebuilding {
            let others = Class::ALL.iter().filter(|c| !lane.queues[c.index()].is_empty());
            let least = others.map(|c| lane.class_v[c.index()]).min().unwrap_or(lane.floor);
            let v = &mut lane.class_v[class.index()];
            if *v < least {
                *v = least;
                self.mark_lane(lane_id);
            }
        }
        let lane = &mut self.lanes[lane_id];
        lane.queues[class.index()].insert((due, number));
        self.tenants[tenant].queued += 1;
        self.promise_again(number);
        self.unpark(lane_id);
        self.refresh_lane(lane_id);
        self.mark_task(number);
        self.time_task(number);
    }

    /// Out of its lane's queue, with what is kept for it.
    pub(crate) fn dequeue(&mut self, number: u64) {
        let due = self.tasks[number].due(self.config.patience_ms);
        let task = &mut self.tasks[number];
        task.set(flag::QUEUED, false);
        let claims = task.has(flag::CLAIMS);
        let (lane_id, tenant, class) = (task.lane, task.tenant, task.class);
        let lane = &mut self.lanes[lane_id];
        lane.queues[class.index()].remove(&(due, number));
        self.tenants[tenant].queued -= 1;
        if claims {
            self.drop_claim(number);
        }
        self.unpark(lane_id);
        self.refresh_lane(lane_id);
        self.mark_task(number);
        self.time_task(number);
    }

    pub(crate) fn unpark(&mut self, lane: u32) {
        if std::mem::take(&mut self.lanes[lane].parked) {
            self.node.parked.remove(&lane);
            // It never was idle: it goes on where it stood.
            let rebuilding = std::mem::replace(&mut self.rebuilding, true);
            self.refresh_lane(lane);
            self.rebuilding = rebuilding;
        }
    }

    pub(crate) fn unpark_all(&mut self) {
        while let Some(&lane) = self.node.parked.first() {
            self.unpark(lane);
        }
    }

    /// Nothing is kept for this task any more.
    pub(crate) fn drop_claim(&mut self, number: u64) {
        if let Some(task) = self.tasks.get_mut(number) {
            task.set(flag::CLAIMS, false);
        }
        self.node.claims.retain(|claim| *claim != number);
        if self.node.hold_slots == number {
            self.node.hold_slots = 0;
        }
        if self.node.hold_gpu == number {
            self.node.hold_gpu = 0;
        }
        self.unpark_all();
    }

    /// A task that has no attempt goes where it belongs: into its queue, or on waiting.
    pub(crate) fn settle(&mut self, number: u64) {
        let now = self.now;
        let task = &mut self.tasks[number];
        if task.ready_at > now {
            task.state = State::Waiting;
            self.mark_task(number);
            self.time_task(number);
        } else {
            task.state = State::Queued;
            self.enqueue(number);
        }
    }
}
