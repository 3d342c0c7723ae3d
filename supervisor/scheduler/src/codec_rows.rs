//! The values of rows. Every layout begins with its version; a reader refuses one that it does not know.

use std::collections::BTreeMap;

use aion_types::AgentName;

use crate::codec::{DecodeError, Reader, Writer};
use crate::entity::{Agent, Lane, Tenant};
use crate::task::{Failure, Promise, Rare, Run, Stage, Task, flag};
use crate::window::Rates;
use crate::{AgentMode, AgentSpec, Attempt, Class, Ended, Quotas, State, Target, TaskNumber, TaskView};

/// 2 counts yields.
const TASK: u8 = 2;
const TASK_OLDEST: u8 = 1;
const TENANT: u8 = 1;
const LANE: u8 = 1;
const AGENT: u8 = 1;
const GLOBALS: u8 = 1;
const ENDED: u8 = 1;
const VIEW: u8 = 1;

const HAS_PROMISE: u8 = 32;
const HAS_RARE: u8 = 64;
const HAS_RUN: u8 = 128;

/// Node-wide numbers, as their row has them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Globals {
    pub(crate) now: u64,
    pub(crate) epoch: u64,
    pub(crate) seq: u64,
    pub(crate) next_number: u64,
    pub(crate) next_event: u64,
    pub(crate) floor: u64,
    pub(crate) hold_slots: u64,
    pub(crate) hold_gpu: u64,
    pub(crate) claims: Vec<u64>,
}

impl Globals {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with(GLOBALS, 64);
        for n in [
            self.now,
            self.epoch,
            self.seq,
            self.next_number,
            self.next_event,
            self.floor,
            self.hold_slots,
            self.hold_gpu,
        ] {
            w.int(n);
        }
        ints(&mut w, &self.claims);
        w.0
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("globals", GLOBALS, bytes)?;
        let globals = Self {
            now: r.int()?,
            epoch: r.int()?,
            seq: r.int()?,
            next_number: r.int()?,
            next_event: r.int()?,
            floor: r.int()?,
            hold_slots: r.int()?,
            hold_gpu: r.int()?,
            claims: read_ints(&mut r)?,
        };
        r.end()?;
        Ok(globals)
    }
}

fn ints(w: &mut Writer, list: &[u64]) {
    w.len(list.len());
    list.iter().for_each(|n| w.int(*n));
}

fn read_ints(r: &mut Reader<'_>) -> Result<Vec<u64>, DecodeError> {
    (0..r.len()?).map(|_| r.int()).collect()
}

fn class(r: &mut Reader<'_>) -> Result<Class, DecodeError> {
    let index = r.byte()?;
    Class::ALL.get(usize::from(index)).copied().map_or_else(|| r.fail("an unknown queue"), Ok)
}

fn state(r: &mut Reader<'_>) -> Result<State, DecodeError> {
    let index = r.byte()?;
    State::ALL.get(usize::from(index)).copied().map_or_else(|| r.fail("an unknown state"), Ok)
}

impl Task {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with(TASK, 96);
        w.int(self.number);
        w.text(&self.id);
        w.0.extend_from_slice(&self.fingerprint.to_le_bytes());
        w.byte(self.class as u8);
        w.byte(self.priority);
        w.byte(self.state as u8);
        let has_run = if self.run.is_some() { HAS_RUN } else { 0 };
        let has_rare = if self.rare.is_some() { HAS_RARE } else { 0 };
        let has_promise = if self.promise().is_some() { HAS_PROMISE } else { 0 };
        w.byte((self.flags & flag::STORED) | has_promise | has_rare | has_run);
        for n in [self.submitted, self.deadline, self.ready_at, self.last_event] {
            w.int(n);
        }
        for n in [
            self.tenant,
            self.lane,
            self.timeout_ms,
            self.estimate_ms,
            self.backoff_ms,
            self.max_backoff_ms,
            self.factor_percent,
            self.slots,
            self.gpu.into(),
            self.max_attempts.into(),
            self.preemptions.into(),
        ] {
            w.int(n.into());
        }
        if let Some(rare) = &self.rare {
            rare.encode(&mut w);
        }
        if let Some(run) = &self.run {
            run.encode(&mut w);
        }
        if let Some(promise) = self.promise() {
            w.int(promise.start);
            w.int(promise.agent.into());
        }
        w.0
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (mut r, version) = Reader::since("task", TASK_OLDEST, TASK, bytes)?;
        let number = r.int()?;
        let id = r.text()?.into();
        let mut fingerprint = [0; 8];
        for byte in &mut fingerprint {
            *byte = r.byte()?;
        }
        let (class, priority, state, flags) = (class(&mut r)?, r.byte()?, state(&mut r)?, r.byte()?);
        let mut task = Self {
            number,
            id,
            fingerprint: u64::from_le_bytes(fingerprint),
            submitted: r.int()?,
            deadline: r.int()?,
            ready_at: r.int()?,
            last_event: r.int()?,
            timer: 0,
            tenant: r.small()?,
            lane: r.small()?,
            timeout_ms: r.small()?,
            estimate_ms: r.small()?,
            backoff_ms: r.small()?,
            max_backoff_ms: r.small()?,
            factor_percent: r.small()?,
            slots: r.small()?,
            gpu: r.small()?,
            max_attempts: r.small()?,
            blocked_by: 0,
            preemptions: r.small()?,
            class,
            priority,
            state,
            flags: flags & flag::STORED,
            rare: None,
            run: None,
        };
        if flags & HAS_RARE != 0 {
            let rare = Rare::decode(&mut r, version)?;
            task.blocked_by =
                u16::try_from(rare.after.len()).or_else(|_| r.fail("waits for too many tasks"))?;
            task.rare = Some(Box::new(rare));
        }
        if flags & HAS_RUN != 0 {
            task.run = Some(Box::new(Run::decode(&mut r)?));
        }
        if flags & HAS_PROMISE != 0 {
            task.rare().promise = Some(Promise { start: r.int()?, agent: r.small()? });
        }
        r.end()?;
        Ok(task)
    }
}

impl Rare {
    fn encode(&self, w: &mut Writer) {
        for n in [self.tokens_max, self.usd_max, self.tokens, self.usd, self.started, self.finished] {
            w.int(n);
        }
        ints(w, &self.dependants);
        ints(w, &self.after);
        for n in [self.attempts, self.failures, self.checkpoints, self.progress.into()] {
            w.int(n.into());
        }
        w.len(self.kept.len());
        for (number, bytes) in &self.kept {
            w.int((*number).into());
            w.int(*bytes);
        }
        w.text(&self.note);
        w.text(self.agent.as_deref().unwrap_or_default());
        w.flag(self.error.is_some());
        if let Some(error) = &self.error {
            w.text(&error.code);
            w.text(&error.message);
            w.flag(error.retryable);
        }
        w.int(self.yields.into());
    }

    fn decode(r: &mut Reader<'_>, version: u8) -> Result<Self, DecodeError> {
        let mut rare = Self {
            tokens_max: r.int()?,
            usd_max: r.int()?,
            tokens: r.int()?,
            usd: r.int()?,
            started: r.int()?,
            finished: r.int()?,
            dependants: read_ints(r)?,
            after: read_ints(r)?,
            attempts: r.small()?,
            failures: r.small()?,
            checkpoints: r.small()?,
            progress: r.small()?,
            ..Self::default()
        };
        for _ in 0..r.len()? {
            rare.kept.push((r.small()?, r.int()?));
        }
        r.text()?.clone_into(&mut rare.note);
        rare.agent = Some(r.text()?).filter(|name| !name.is_empty()).map(Into::into);
        if r.flag()? {
            let (code, message) = (r.text()?.to_owned(), r.text()?.to_owned());
            rare.error = Some(Failure { code, message, retryable: r.flag()? });
        }
        if version >= 2 {
            rare.yields = r.small()?;
        }
        Ok(rare)
    }
}

impl Run {
    fn encode(&self, w: &mut Writer) {
        w.int(self.attempt.epoch);
        w.int(self.attempt.seq);
        w.int(self.agent.into());
        w.byte(self.stage as u8);
        for n in [
            self.since,
            self.charged_until,
            self.ran_ms,
            self.base,
            self.unsaved_ms,
            self.until,
            self.checkpoint_at,
            self.told_at,
            self.room_for,
        ] {
            w.int(n);
        }
        w.byte(u8::from(self.holds) | u8::from(self.unconfirmed) << 1 | u8::from(self.late) << 2);
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let attempt = Attempt { epoch: r.int()?, seq: r.int()? };
        let agent = r.small()?;
        let stage = r.byte()?;
        let stage = match Stage::ALL.get(usize::from(stage)) {
            Some(stage) => *stage,
            None => return r.fail("an unknown stage"),
        };
        let mut run = Self {
            attempt,
            agent,
            stage,
            since: r.int()?,
            charged_until: r.int()?,
            ran_ms: r.int()?,
            base: r.int()?,
            unsaved_ms: r.int()?,
            until: r.int()?,
            checkpoint_at: r.int()?,
            told_at: r.int()?,
            room_for: r.int()?,
            holds: false,
            unconfirmed: false,
            late: false,
        };
        let bits = r.byte()?;
        run.holds = bits & 1 != 0;
        run.unconfirmed = bits & 2 != 0;
        run.late = bits & 4 != 0;
        Ok(run)
    }
}

impl Tenant {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with(TENANT, 64);
        w.text(&self.name);
        for n in [self.v, self.floor, self.last_end, self.end_pause_us] {
            w.int(n);
        }
        self.rates.encode(&mut w);
        w.0
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("tenant", TENANT, bytes)?;
        let mut tenant = Self::new(r.text()?);
        tenant.v = r.int()?;
        tenant.floor = r.int()?;
        tenant.last_end = r.int()?;
        tenant.end_pause_us = r.int()?;
        tenant.rates = Rates::decode(&mut r)?;
        r.end()?;
        Ok(tenant)
    }
}

fn labels(w: &mut Writer, labels: &BTreeMap<String, String>) {
    w.len(labels.len());
    for (key, value) in labels {
        w.text(key);
        w.text(value);
    }
}

fn read_labels(r: &mut Reader<'_>) -> Result<BTreeMap<String, String>, DecodeError> {
    (0..r.len()?).map(|_| Ok((r.text()?.to_owned(), r.text()?.to_owned()))).collect()
}

fn target(w: &mut Writer, target: &Target) {
    match target {
        Target::Agent(name) => {
            w.byte(0);
            w.text(name.as_str());
        }
        Target::Selector(selector) => {
            w.byte(1);
            labels(w, selector);
        }
    }
}

fn read_target(r: &mut Reader<'_>) -> Result<Target, DecodeError> {
    match r.byte()? {
        0 => {
            let name = r.text()?;
            AgentName::parse(name).map(Target::Agent).or_else(|_| r.fail("not an agent's name"))
        }
        1 => Ok(Target::Selector(read_labels(r)?)),
        _ => r.fail("an unknown target"),
    }
}

impl Lane {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with(LANE, 64);
        w.int(self.tenant.into());
        target(&mut w, &self.target);
        w.int(self.v);
        self.class_v.iter().for_each(|v| w.int(*v));
        w.int(self.floor);
        w.0
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("lane", LANE, bytes)?;
        let tenant = r.small()?;
        let mut lane = Self::new(tenant, read_target(&mut r)?);
        lane.v = r.int()?;
        for v in &mut lane.class_v {
            *v = r.int()?;
        }
        lane.floor = r.int()?;
        r.end()?;
        Ok(lane)
    }
}

fn quotas(w: &mut Writer, quotas: &Quotas) {
    w.option(quotas.max_concurrency.map(u64::from));
    w.option(quotas.token_rate);
    w.option(quotas.usd_micros_per_hour);
    w.option(quotas.tasks_per_minute);
    w.option(quotas.checkpoint_bytes);
}

fn read_quotas(r: &mut Reader<'_>) -> Result<Quotas, DecodeError> {
    let max_concurrency = match r.option()? {
        Some(most) => Some(u32::try_from(most).or_else(|_| r.fail("a number out of range"))?),
        None => None,
    };
    Ok(Quotas {
        max_concurrency,
        token_rate: r.option()?,
        usd_micros_per_hour: r.option()?,
        tasks_per_minute: r.option()?,
        checkpoint_bytes: r.option()?,
    })
}

impl Agent {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with(AGENT, 96);
        w.int(self.tenant.into());
        w.text(&self.name);
        let spec = &self.spec;
        w.flag(spec.mode == AgentMode::Job);
        w.int(spec.concurrency.into());
        labels(&mut w, &spec.labels);
        w.int(spec.memory_bytes);
        w.flag(spec.may_freeze);
        w.flag(spec.checkpoints);
        w.int(spec.grace_ms);
        w.int(spec.checkpoint_interval_ms);
        quotas(&mut w, &spec.quotas);
        w.option(self.attached.map(u64::from));
        w.int(self.back_until);
        w.int(self.woken_at);
        w.int(self.mean_ms);
        self.rates.encode(&mut w);
        w.0
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("agent", AGENT, bytes)?;
        let tenant = r.small()?;
        let name = r.text()?;
        let spec = AgentSpec {
            mode: if r.flag()? { AgentMode::Job } else { AgentMode::Service },
            concurrency: r.small()?,
            labels: read_labels(&mut r)?,
            memory_bytes: r.int()?,
            may_freeze: r.flag()?,
            checkpoints: r.flag()?,
            grace_ms: r.int()?,
            checkpoint_interval_ms: r.int()?,
            quotas: read_quotas(&mut r)?,
        };
        let mut agent = Self::new(tenant, name, spec);
        agent.attached = match r.option()? {
            Some(most) => Some(u32::try_from(most).or_else(|_| r.fail("a number out of range"))?),
            None => None,
        };
        agent.back_until = r.int()?;
        agent.woken_at = r.int()?;
        agent.mean_ms = r.int()?;
        agent.rates = Rates::decode(&mut r)?;
        r.end()?;
        Ok(agent)
    }
}

impl Ended {
    /// The value of its row.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with(ENDED, 24);
        w.int(self.number.0);
        w.int(self.fingerprint);
        w.byte(self.state as u8);
        w.0
    }

    /// Reads a row under [`crate::keys::ended_index`].
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("ended task", ENDED, bytes)?;
        let ended = Self { number: TaskNumber(r.int()?), fingerprint: r.int()?, state: state(&mut r)? };
        r.end()?;
        Ok(ended)
    }
}

impl TaskView {
    /// The value of an ended task's row.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with(VIEW, 160);
        w.int(self.number.0);
        w.text(&self.tenant);
        w.text(&self.id);
        w.int(self.fingerprint);
        target(&mut w, &self.target);
        w.byte(self.class as u8);
        w.byte(self.priority);
        w.byte(self.state as u8);
        w.text(&self.why);
        w.text(self.agent.as_deref().unwrap_or_default());
        w.flag(self.attempt.is_some());
        if let Some(attempt) = self.attempt {
            w.int(attempt.epoch);
            w.int(attempt.seq);
        }
        for n in [self.attempts, self.failures, self.preemptions, self.checkpoints, self.slots, self.gpu] {
            w.int(n.into());
        }
        w.int(self.progress_permille.into());
        w.text(&self.progress_note);
        for n in [self.checkpoint_bytes, self.tokens, self.usd_micros, self.submitted, self.last_event] {
            w.int(n);
        }
        w.text(&self.error_code);
        w.text(&self.error_message);
        w.flag(self.error_retryable);
        for n in [self.started, self.finished, self.deadline, self.retry_at] {
            w.option(n);
        }
        w.flag(self.may_repeat);
        w.0
    }

    /// Reads a row under [`crate::keys::ended`].
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("ended task", VIEW, bytes)?;
        let view = Self {
            number: TaskNumber(r.int()?),
            tenant: r.text()?.into(),
            id: r.text()?.into(),
            fingerprint: r.int()?,
            target: read_target(&mut r)?,
            class: class(&mut r)?,
            priority: r.byte()?,
            state: state(&mut r)?,
            why: r.text()?.to_owned(),
            agent: Some(r.text()?).filter(|name| !name.is_empty()).map(Into::into),
            attempt: if r.flag()? { Some(Attempt { epoch: r.int()?, seq: r.int()? }) } else { None },
            attempts: r.small()?,
            failures: r.small()?,
            preemptions: r.small()?,
            checkpoints: r.small()?,
            slots: r.small()?,
            gpu: r.small()?,
            progress_permille: r.small()?,
            progress_note: r.text()?.to_owned(),
            checkpoint_bytes: r.int()?,
            tokens: r.int()?,
            usd_micros: r.int()?,
            submitted: r.int()?,
            last_event: r.int()?,
            error_code: r.text()?.to_owned(),
            error_message: r.text()?.to_owned(),
            error_retryable: r.flag()?,
            started: r.option()?,
            finished: r.option()?,
            deadline: r.option()?,
            retry_at: r.option()?,
            may_repeat: r.flag()?,
        };
        r.end()?;
        Ok(view)
    }
}
