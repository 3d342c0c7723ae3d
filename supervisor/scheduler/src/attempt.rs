//! What agents say about their attempts. A token that does not count is refused before anything changes.

use crate::scheduler::{Applied, Scheduler};
use crate::slots::signed;
use crate::task::{Failure, Run, Stage, backoff, flag};
use crate::{AgentMode, Attempt, Effect, EventKind, Refusal, Reply, Rung, State};

/// Texts from agents are cut to this many bytes in the core's rows.
const TEXT: usize = 1024;
/// Progress is told at most this often.
const TELL_MS: u64 = 1000;

pub(crate) fn cut(mut text: String, most: usize) -> String {
    if text.len() > most {
        let end = (0..=most).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

impl Scheduler {
    /// The task of a token, with its run, fenced or not.
    fn holder(&self, attempt: Attempt) -> Result<(u64, &Run), Refusal> {
        let number = self.attempts.get(&attempt).copied();
        let run = number.and_then(|number| Some((number, self.tasks.get(number)?.run.as_deref()?)));
        run.ok_or(Refusal::AttemptStale { attempt })
    }

    /// The task of a token that counts.
    fn counts(&self, attempt: Attempt) -> Result<u64, Refusal> {
        match self.holder(attempt)? {
            (_, run) if run.stage.fenced() => Err(Refusal::AttemptStale { attempt }),
            (number, _) => Ok(number),
        }
    }

    /// Something was heard of it.
    fn heard(&mut self, number: u64) {
        if self.tasks[number].run.as_ref().is_some_and(|run| run.unconfirmed) {
            self.unlist(number);
            if let Some(run) = &mut self.tasks[number].run {
                run.unconfirmed = false;
            }
            self.list(number);
            self.mark_task(number);
            self.time_task(number);
        }
    }

    /// The process of a fenced attempt is over: what it held is free.
    fn over(&mut self, number: u64, out: &mut Applied) -> Reply {
        let ended = self.tasks[number].state.ended();
        self.tell(number, EventKind::Released, out);
        self.release(number, 0);
        if ended {
            self.write_ended(number);
            self.forget(number);
        } else {
            self.again(number, out);
        }
        Reply::TooLate { task: crate::TaskNumber(number) }
    }

    pub(crate) fn confirmed(&mut self, attempt: Attempt, out: &mut Applied) -> Result<Reply, Refusal> {
        let (number, _) = self.holder(attempt)?;
        self.heard(number);
        self.repeat(number, out);
        Ok(self.answer(number))
    }

    /// The effect that belongs to the stage of an attempt: after a start it may never have been done.
    pub(crate) fn repeat(&mut self, number: u64, out: &mut Applied) {
        let now = self.now;
        let Some((attempt, tenant, agent)) = self.whose(number) else { return };
        let Some(run) = &self.tasks[number].run else { return };
        let spec = &self.agents[run.agent].spec;
        out.effects.push(match run.stage {
            // It may still be frozen: the thaw was recorded, and the daemon died before it was done.
            Stage::Running if spec.may_freeze && spec.mode == AgentMode::Job => {
                Effect::Thaw { attempt, tenant, agent }
            }
            Stage::Running => return,
            Stage::Asked => {
                Effect::Preempt { attempt, tenant, agent, grace_ms: run.until.saturating_sub(now) }
            }
            Stage::Freezing | Stage::Frozen => Effect::Freeze { attempt, tenant, agent },
            Stage::Stopping | Stage::OverStopping | Stage::LostStopping => {
                Effect::Stop { attempt, tenant, agent }
            }
            Stage::Over => Effect::CancelAttempt { attempt, tenant, agent, reason: "it is over".into() },
        });
    }

    fn answer(&self, number: u64) -> Reply {
        let state = self.tasks.get(number).map_or(State::Succeeded, |task| task.state);
        Reply::Attempt { task: crate::TaskNumber(number), state }
    }

    pub(crate) fn started(&mut self, attempt: Attempt, out: &mut Applied) -> Result<Reply, Refusal> {
        let number = self.counts(attempt)?;
        self.heard(number);
        let now = self.now;
        let rare = self.tasks[number].rare();
        if rare.started == 0 {
            rare.started = now;
        }
        self.tell(number, EventKind::Started, out);
        Ok(self.answer(number))
    }

    pub(crate) fn progress(
        &mut self,
        attempt: Attempt,
        permille: u16,
        note: String,
        out: &mut Applied,
    ) -> Result<Reply, Refusal> {
        let number = self.counts(attempt)?;
        if permille > 1000 {
            return Err(Refusal::InvalidField { field: "fraction", reason: "it must be 0 to 1".into() });
        }
        self.heard(number);
        let now = self.now;
        let note = cut(note, TEXT);
        let task = &mut self.tasks[number];
        let rare = task.rare();
        if permille > rare.progress {
            rare.yields = 0;
        }
        rare.progress = permille;
        rare.note.clone_from(&note);
        let tell = task.run.as_ref().is_some_and(|run| run.told_at + TELL_MS <= now);
        if tell {
            if let Some(run) = &mut task.run {
                run.told_at = now;
            }
            self.tell(number, EventKind::Progress { permille, note }, out);
        }
        self.mark_task(number);
        Ok(self.answer(number))
    }

    pub(crate) fn noted(
        &mut self,
        attempt: Attempt,
        text: String,
        out: &mut Applied,
    ) -> Result<Reply, Refusal> {
        let number = self.counts(attempt)?;
        self.heard(number);
        self.tell(number, EventKind::Noted { text: cut(text, TEXT) }, out);
        Ok(self.answer(number))
    }

    pub(crate) fn checkpointed(
        &mut self,
        attempt: Attempt,
        bytes: u64,
        yields: bool,
        out: &mut Applied,
    ) -> Result<Reply, Refusal> {
        let (number, run) = self.holder(attempt)?;
        if run.stage.fenced() {
            // An attempt that is over and says so is welcome to.
            return if yields { Ok(self.over(number, out)) } else { Err(Refusal::AttemptStale { attempt }) };
        }
        let agent = run.agent;
        let task = &self.tasks[number];
        let keep = usize::try_from(self.config.checkpoint_keep).unwrap_or(usize::MAX).max(1);
        let kept = task.rare.as_ref().map_or(&[][..], |rare| &rare.kept);
        let dropped: u64 =
            kept.iter().take((kept.len() + 1).saturating_sub(keep)).map(|(_, bytes)| bytes).sum();
        let tenant = &self.tenants[task.tenant];
        let of_agent = &self.agents[agent];
        let over_quota = [
            (tenant.quotas.checkpoint_bytes, tenant.checkpoint_bytes),
            (of_agent.quotas.checkpoint_bytes, self.lanes[task.lane].checkpoint_bytes),
        ]
        .into_iter()
        .find_map(|(limit, used)| {
            let used = used.saturating_sub(dropped).saturating_add(bytes);
            limit.filter(|limit| used > *limit).map(|limit| (limit, used))
        });
        if let Some((limit, used)) = over_quota {
            if !yields {
                return Err(Refusal::QuotaExceeded { quota: "checkpoint_bytes", limit, used });
            }
            self.heard(number);
            self.tell(number, EventKind::CheckpointRefused { bytes }, out);
            self.made_room(number, Rung::Yielded, out);
            return Ok(Reply::Checkpoint { task: crate::TaskNumber(number), number: None });
        }
        self.heard(number);
        self.unlist(number);
        let now = self.now;
        let task = &mut self.tasks[number];
        if let Some(run) = &mut task.run {
            run.base = now;
            run.unsaved_ms = 0;
        }
        let rare = task.rare();
        rare.yields = 0;
        rare.checkpoints += 1;
        let count = rare.checkpoints;
        rare.kept.push((count, bytes));
        let surplus = rare.kept.len().saturating_sub(keep);
        rare.kept.drain(..surplus);
        let below = rare.kept.first().map_or(0, |(number, _)| *number);
        self.count_checkpoints(number, signed(bytes) - signed(dropped));
        self.list(number);
        self.tell(number, EventKind::Checkpointed { number: count, bytes }, out);
        if surplus > 0 {
            out.effects.push(Effect::DropCheckpoints { task: crate::TaskNumber(number), below });
        }
        if yields {
            self.made_room(number, Rung::Yielded, out);
        }
        Ok(Reply::Checkpoint { task: crate::TaskNumber(number), number: Some(count) })
    }

    /// Bytes of checkpoints more or less, of the tenant and of the lane.
    pub(crate) fn count_checkpoints(&mut self, number: u64, change: i64) {
        let task = &self.tasks[number];
        let lane = &mut self.lanes[task.lane];
        lane.checkpoint_bytes = lane.checkpoint_bytes.saturating_add_signed(change);
        let tenant = &mut self.tenants[task.tenant];
        tenant.checkpoint_bytes = tenant.checkpoint_bytes.saturating_add_signed(change);
    }

    pub(crate) fn completed(&mut self, attempt: Attempt, out: &mut Applied) -> Result<Reply, Refusal> {
        let (number, run) = self.holder(attempt)?;
        if run.stage.fenced() {
            return Ok(self.over(number, out));
        }
        let agent = run.agent;
        let took = run.ran_ms + if run.holds { self.now.saturating_sub(run.since) } else { 0 };
        let mean = &mut self.agents[agent].mean_ms;
        // An eighth of the newest: follows a change within some tasks and forgives a single one.
        *mean = if *mean == 0 { took.max(1) } else { (*mean * 7 + took) / 8 };
        *mean = (*mean).max(1);
        self.mark_agent(agent);
        self.tell(number, EventKind::Succeeded, out);
        self.release(number, 0);
        self.end(number, State::Succeeded, out);
        Ok(Reply::Attempt { task: crate::TaskNumber(number), state: State::Succeeded })
    }

    pub(crate) fn failed(
        &mut self,
        attempt: Attempt,
        code: String,
        message: String,
        retryable: bool,
        out: &mut Applied,
    ) -> Result<Reply, Refusal> {
        let (number, run) = self.holder(attempt)?;
        if run.stage.fenced() {
            return Ok(self.over(number, out));
        }
        let failure = Failure { code: cut(code, 128), message: cut(message, TEXT), retryable };
        let state = self.fail(number, failure, true, out);
        Ok(Reply::Attempt { task: crate::TaskNumber(number), state })
    }

    /// The attempt failed: another one follows, or the task has failed. `gone`: nothing of the attempt is left.
    pub(crate) fn fail(&mut self, number: u64, failure: Failure, gone: bool, out: &mut Applied) -> State {
        let now = self.now;
        let task = &mut self.tasks[number];
        let (deadline, policy) = (task.deadline, task.retry());
        let rare = task.rare();
        rare.failures += 1;
        let failures = rare.failures;
        rare.error = Some(failure.clone());
        let at = now.saturating_add(backoff(policy, failures)).max(now + 1);
        let again = failure.retryable && failures < policy.max_attempts && (deadline == 0 || at < deadline);
        let Failure { code, message, .. } = failure;
        if again {
            self.tell(number, EventKind::Retried { code, message, at }, out);
            if gone {
                self.release(number, 0);
            }
            let task = &mut self.tasks[number];
            task.ready_at = at;
            task.state = State::Waiting;
            self.mark_task(number);
            self.time_task(number);
            return State::Waiting;
        }
        self.tell(number, EventKind::Failed { code, message }, out);
        if gone {
            self.release(number, 0);
        }
        self.end(number, State::Failed, out);
        State::Failed
    }

    pub(crate) fn yielded(&mut self, attempt: Attempt, out: &mut Applied) -> Result<Reply, Refusal> {
        let (number, run) = self.holder(attempt)?;
        if run.stage.fenced() {
            return Ok(self.over(number, out));
        }
        self.heard(number);
        self.made_room(number, Rung::Yielded, out);
        Ok(self.answer(number))
    }

    pub(crate) fn attempt_lost(
        &mut self,
        attempt: Attempt,
        reason: String,
        out: &mut Applied,
    ) -> Result<Reply, Refusal> {
        let (number, _) = self.holder(attempt)?;
        Ok(self.lose(number, cut(reason, TEXT), out))
    }

    /// The attempt's process is gone.
    pub(crate) fn lose(&mut self, number: u64, reason: String, out: &mut Applied) -> Reply {
        let Some(run) = &self.tasks[number].run else { return Reply::Done };
        if run.stage.fenced() {
            return self.over(number, out);
        }
        if run.stage == Stage::Stopping {
            self.made_room(number, Rung::Stopped, out);
            return self.answer(number);
        }
        let lost = self.unsaved(number);
        self.tell(number, EventKind::Lost { reason }, out);
        self.release(number, lost);
        self.may_repeat(number);
        self.again(number, out);
        self.answer(number)
    }

    pub(crate) fn may_repeat(&mut self, number: u64) {
        let task = &mut self.tasks[number];
        if !task.has(flag::IDEMPOTENT) {
            task.set(flag::MAY_REPEAT, true);
        }
    }

    /// A task without an attempt goes on: it waits for a slot, or its deadline has passed.
    pub(crate) fn again(&mut self, number: u64, out: &mut Applied) {
        let task = &self.tasks[number];
        if task.deadline != 0 && task.deadline <= self.now {
            self.expire(number, out);
        } else {
            self.settle(number);
        }
    }

    pub(crate) fn frozen(&mut self, attempt: Attempt, out: &mut Applied) -> Result<Reply, Refusal> {
        let (number, run) = self.holder(attempt)?;
        if run.stage != Stage::Freezing {
            // Said again after a start, when it was known already.
            let known = run.stage == Stage::Frozen;
            return if known { Ok(self.answer(number)) } else { Err(Refusal::AttemptStale { attempt }) };
        }
        let agent = run.agent;
        self.heard(number);
        let unsaved = self.unsaved(number);
        self.tell(number, EventKind::Preempted { rung: Rung::Frozen, lost_ms: 0 }, out);
        self.give_back(number, 0);
        let task = &mut self.tasks[number];
        task.preemptions = task.preemptions.saturating_add(1);
        task.state = State::Frozen;
        if let Some(run) = &mut task.run {
            run.stage = Stage::Frozen;
            run.unsaved_ms = unsaved;
            run.until = 0;
        }
        self.restage(agent, Some(Stage::Freezing), Some(Stage::Frozen));
        self.refresh_agent(agent);
        self.enqueue(number);
        Ok(self.answer(number))
    }

    pub(crate) fn freeze_failed(&mut self, attempt: Attempt, out: &mut Applied) -> Result<Reply, Refusal> {
        let (number, run) = self.holder(attempt)?;
        if run.stage != Stage::Freezing {
            return Err(Refusal::AttemptStale { attempt });
        }
        self.heard(number);
        self.tell(number, EventKind::FreezeFailed, out);
        self.stop(number, Stage::Stopping, out);
        Ok(self.answer(number))
    }

    pub(crate) fn usage(
        &mut self,
        attempt: Attempt,
        tokens: u64,
        usd_micros: u64,
        out: &mut Applied,
    ) -> Result<Reply, Refusal> {
        // What was used was used, also by an attempt that no longer counts: as long as it is known, it is charged.
        let (number, run) = self.holder(attempt)?;
        let (agent, fenced) = (run.agent, run.stage.fenced());
        let now = self.now;
        let task = &mut self.tasks[number];
        let owner = task.tenant;
        let rare = task.rare();
        rare.tokens = rare.tokens.saturating_add(tokens);
        rare.usd = rare.usd.saturating_add(usd_micros);
        let over = (rare.tokens_max != 0 && rare.tokens > rare.tokens_max)
            || (rare.usd_max != 0 && rare.usd > rare.usd_max);
        self.mark_task(number);
        let tenant = &mut self.tenants[owner];
        if tenant.rates.used(&tenant.quotas, now, tokens, usd_micros) {
            self.mark_tenant(owner);
            self.refresh_tenant(owner);
        }
        let of_agent = &mut self.agents[agent];
        if of_agent.rates.used(&of_agent.quotas, now, tokens, usd_micros) {
            self.mark_agent(agent);
            self.refresh_agent(agent);
        }
        if over && !fenced {
            let message = "the task has used more than its budget".to_owned();
            let failure = Failure { code: "BUDGET_EXCEEDED".into(), message, retryable: false };
            self.fail(number, failure, false, out);
            self.call_off(number, "the task's budget is used up", out);
        }
        Ok(self.answer(number))
    }

    /// The attempt no longer counts, whatever becomes of its task. It holds its slots until it is over.
    pub(crate) fn call_off(&mut self, number: u64, reason: &str, out: &mut Applied) {
        let Some(run) = &self.tasks[number].run else { return };
        if run.stage == Stage::Frozen || run.stage.stopping() {
            self.stop(number, Stage::OverStopping, out);
            return;
        }
        self.stage(number, Stage::Over, self.now + self.config.cancel_grace_ms);
        if let Some((attempt, tenant, agent)) = self.whose(number) {
            out.effects.push(Effect::CancelAttempt { attempt, tenant, agent, reason: reason.into() });
        }
    }
}
