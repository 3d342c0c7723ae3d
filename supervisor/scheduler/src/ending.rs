//! How tasks end: rows for those who ask later, news for those that waited, and out of memory.

use aion_types::TenantId;

use crate::attempt::cut;
use crate::row::keys;
use crate::scheduler::{Applied, Scheduler};
use crate::slots::signed;
use crate::task::{Failure, flag};
use crate::{Effect, Ended, EventKind, Refusal, Reply, Row, State, TaskId, TaskNumber};

impl Scheduler {
    pub(crate) fn cancel(
        &mut self,
        tenant: &TenantId,
        id: &TaskId,
        reason: String,
        out: &mut Applied,
    ) -> Result<Reply, Refusal> {
        let missing = || Refusal::TaskNotFound { task: id.to_string() };
        let owner = *self.names.get(tenant.as_str()).ok_or_else(missing)?;
        let Some(task) = self.tasks.find(owner, id.as_str()) else {
            return match self.recent.get(owner, &id.name()) {
                Some(ended) => Err(Refusal::TaskEnded { task: id.to_string(), state: ended.state }),
                None => Err(missing()),
            };
        };
        if task.state.ended() {
            return Err(Refusal::TaskEnded { task: id.to_string(), state: task.state });
        }
        let number = task.number;
        let reason = cut(reason, 1024);
        self.tell(number, EventKind::Cancelled { reason: reason.clone() }, out);
        // The error tells why, to those who look at the task later.
        self.tasks[number].rare().error =
            Some(Failure { code: "CANCELLED".into(), message: reason.clone(), retryable: false });
        self.end(number, State::Cancelled, out);
        if self.tasks.get(number).is_some() {
            self.call_off(number, &reason, out);
        }
        Ok(Reply::Attempt { task: TaskNumber(number), state: State::Cancelled })
    }

    /// The deadline of a task passed while nothing of it ran.
    pub(crate) fn expire(&mut self, number: u64, out: &mut Applied) {
        self.expired += 1;
        self.tell(number, EventKind::Expired, out);
        self.end(number, State::Expired, out);
        if self.tasks.get(number).is_some() {
            self.call_off(number, "the deadline passed", out);
        }
    }

    /// Ends a task, and those that can never run because of it. Its attempt, if one is left, stays until it is over. The event was told.
    pub(crate) fn end(&mut self, number: u64, state: State, out: &mut Applied) {
        let mut work = vec![(number, state)];
        while let Some((number, state)) = work.pop() {
            let dependants = self.end_one(number, state, out);
            let task = &self.tasks[number];
            let id = task.id.clone();
            for waiting in dependants {
                let Some(other) = self.tasks.get_mut(waiting) else { continue };
                if other.state.ended() {
                    continue;
                }
                let rare = other.rare();
                rare.after.retain(|n| *n != number);
                other.blocked_by = u16::try_from(other.rare().after.len()).unwrap_or(u16::MAX);
                if state == State::Succeeded {
                    let free = other.blocked_by == 0;
                    self.mark_task(waiting);
                    if free {
                        self.tell(waiting, EventKind::Queued, out);
                        self.settle(waiting);
                    }
                    continue;
                }
                let message = format!("task {id}, which must succeed first, has ended: {}", state.as_str());
                let (ending, kind) = if state == State::Cancelled {
                    (State::Cancelled, EventKind::Cancelled { reason: message.clone() })
                } else {
                    let code = "DEPENDENCY_FAILED".to_owned();
                    (State::Failed, EventKind::Failed { code, message: message.clone() })
                };
                let failure = Failure { code: "DEPENDENCY_FAILED".into(), message, retryable: false };
                self.tasks[waiting].rare().error = Some(failure);
                self.tell(waiting, kind, out);
                work.push((waiting, ending));
            }
            self.write_ended(number);
            if self.tasks[number].run.is_none() {
                self.forget(number);
            }
        }
    }

    /// The task alone; gives those that waited for it.
    fn end_one(&mut self, number: u64, state: State, out: &mut Applied) -> Vec<u64> {
        let now = self.now;
        self.unlist(number);
        self.unpromise(number);
        if self.tasks[number].has(flag::QUEUED) {
            self.dequeue(number);
        }
        let task = &mut self.tasks[number];
        task.state = state;
        task.ready_at = 0;
        let owner = task.tenant;
        let rare = task.rare();
        rare.finished = now;
        let dependants = std::mem::take(&mut rare.dependants);
        // Those it waited for need not tell it any more: a number that is gone is passed over.
        rare.after.clear();
        let kept: u64 = rare.kept.iter().map(|(_, bytes)| bytes).sum();
        let had_checkpoints = !rare.kept.is_empty();
        rare.kept.clear();
        task.blocked_by = 0;
        self.count_checkpoints(number, -signed(kept));
        if had_checkpoints {
            out.effects.push(Effect::DropCheckpoints { task: TaskNumber(number), below: u32::MAX });
        }
        let tenant = &mut self.tenants[owner];
        tenant.live -= 1;
        if tenant.live == 0 {
            self.node.active_weight -= u64::from(tenant.weight);
        }
        if tenant.last_end != 0 {
            let pause = now.saturating_sub(tenant.last_end).saturating_mul(1000);
            tenant.end_pause_us =
                if tenant.end_pause_us == 0 { pause } else { (tenant.end_pause_us * 7 + pause) / 8 };
        }
        tenant.last_end = now;
        self.mark_tenant(owner);
        self.mark_task(number);
        self.time_task(number);
        dependants
    }

    /// The rows that answer for the task once it is out of memory.
    pub(crate) fn write_ended(&mut self, number: u64) {
        let task = &self.tasks[number];
        let ended = Ended { number: TaskNumber(number), fingerprint: task.fingerprint, state: task.state };
        let view = self.view(task);
        let (tenant, id) = (task.tenant, task.id.clone());
        self.dirty.rows.push(Row { key: keys::ended(&view.tenant, view.number), value: Some(view.encode()) });
        self.dirty
            .rows
            .push(Row { key: keys::ended_index(&view.tenant, &view.id), value: Some(ended.encode()) });
        if self.recent.get(tenant, &id).is_none() {
            self.recent.add(tenant, id, ended, self.config.ended_in_memory);
        }
    }

    /// Out of memory, and its lane when that is empty and not an agent's.
    pub(crate) fn forget(&mut self, number: u64) {
        let timer = std::mem::take(&mut self.tasks[number].timer);
        self.move_timer(crate::scheduler::Timer::Task(number), timer, 0);
        let Some(task) = self.tasks.remove(number) else { return };
        self.dirty.rows.push(Row { key: keys::task(TaskNumber(number)), value: None });
        self.lanes[task.lane].tasks -= 1;
        self.drop_lane(task.lane);
    }

    pub(crate) fn drop_lane(&mut self, id: u32) {
        let lane = &self.lanes[id];
        let of_agent = matches!(lane.target, crate::Target::Agent(_)) && !lane.agents.is_empty();
        if lane.tasks != 0 || of_agent {
            return;
        }
        self.unpark(id);
        let Some(lane) = self.lanes.remove(id) else { return };
        self.tenants[lane.tenant].lanes.remove(&lane.target);
        for agent in lane.agents {
            self.agents[agent].lanes.remove(&id);
        }
        self.dirty.rows.push(Row { key: keys::entity(keys::LANE, id), value: None });
    }
}
