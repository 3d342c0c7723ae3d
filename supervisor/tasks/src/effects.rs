//! Effects, once they are on disk: a thread of its own, so that reading bodies and checkpoints holds up neither the engine nor
//! the journal's writer. Effects for one agent happen in order; those for different agents do not wait for each other.

use std::collections::HashMap;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};

use aion_api_proto::v1 as api;
use aion_scheduler::{AgentMode, Attempt, AttemptView, Command, Effect, Name};
use aion_task_journal::Journal;
use aion_telemetry::{Span, Spans, TraceOf};
use aion_types::{AgentName, TenantId};
use api::to_agent::Kind;
use prost::Message as _;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::clock::{duration, now_ms, timestamp};
use crate::host::{BoxFuture, Host, Place};
use crate::inbox::Inbox;
use crate::jobs::Jobs;
use crate::sessions::{Held, Session, Sessions, token};
use crate::work::Work;

/// Up to here a checkpoint travels in the assignment.
const INLINE: u64 = 256 << 10;
/// Parts of a larger one.
const PART: usize = 1 << 20;

/// One thing to do, with the task's body when it is at hand.
pub(crate) struct Deed {
    pub(crate) effect: Effect,
    pub(crate) body: Option<Arc<[u8]>>,
}

pub(crate) enum Deeds {
    Do(Vec<Deed>),
    /// The core was made anew: attempts that it knows, each with the number of its task's checkpoints.
    Reconcile(Vec<(AttemptView, u32)>),
}

/// What the thread works with.
pub(crate) struct Effects {
    pub(crate) journal: Arc<Journal>,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) host: Arc<dyn Host>,
    pub(crate) jobs: Arc<Jobs>,
    pub(crate) runtime: Handle,
    pub(crate) spans: Spans,
    /// The last thing that was begun for each place: the next one waits for it.
    pub(crate) last: Mutex<HashMap<Place, oneshot::Receiver<()>>>,
}

type Waiting = HashMap<(Name, Name), (Arc<Session>, Vec<api::Assignment>)>;

impl Effects {
    /// Runs until nobody sends any more.
    pub(crate) fn run(self, deeds: &Receiver<Deeds>) {
        let effects = Arc::new(self);
        for next in deeds {
            match next {
                Deeds::Do(deeds) => effects.all(deeds),
                Deeds::Reconcile(held) => {
                    let jobs = held.into_iter().filter(|(view, _)| view.mode == AgentMode::Job);
                    effects.jobs.reconcile(jobs, &effects.runtime);
                }
            }
        }
    }

    fn all(self: &Arc<Self>, deeds: Vec<Deed>) {
        let mut waiting = Waiting::new();
        for deed in deeds {
            if let Effect::Assign { mode: AgentMode::Service, .. } = &deed.effect {
                self.assign(deed, &mut waiting);
                continue;
            }
            // What came before it for the same agent goes out first.
            flush(&mut waiting);
            self.one(deed);
        }
        flush(&mut waiting);
    }

    fn assign(self: &Arc<Self>, deed: Deed, waiting: &mut Waiting) {
        let Effect::Assign {
            attempt,
            task,
            tenant,
            id,
            agent,
            number,
            resume,
            since,
            deadline,
            timeout_ms,
            ..
        } = deed.effect
        else {
            return;
        };
        let Some(session) = self.sessions.get(&tenant, &agent) else {
            self.lost(attempt, "the agent is not attached");
            return;
        };
        let spec = match self.body(task.0, deed.body) {
            Ok(spec) => spec,
            Err(why) => {
                self.lost(attempt, &why);
                return;
            }
        };
        self.scheduled(&spec, [&tenant, &agent, &id], number, since);
        let (number_kept, bytes) = resume.unwrap_or((0, 0));
        session.hold(attempt, Held { task: task.0, next_checkpoint: number_kept.saturating_add(1) });
        let mut assignment = api::Assignment {
            attempt: Some(token(attempt)),
            task_id: id.to_string(),
            intent: spec.intent,
            params_json: spec.params_json,
            number,
            deadline: deadline.map(timestamp),
            timeout: timeout_ms.map(duration),
            checkpoint_bytes: bytes,
            checkpoint: Vec::new(),
            trace_id: spec.trace_id,
        };
        let mut parts = None;
        if number_kept > 0 {
            match self.usable(task.0, number_kept) {
                Some((found, length)) if length <= INLINE => {
                    match self.journal.load_checkpoint(task.0, found) {
                        Ok(data) => (assignment.checkpoint_bytes, assignment.checkpoint) = (length, data),
                        Err(error) => {
                            tracing::error!(task = task.0, %error, "a checkpoint cannot be read");
                            assignment.checkpoint_bytes = 0;
                        }
                    }
                }
                Some((found, length)) => {
                    assignment.checkpoint_bytes = length;
                    parts = Some(found);
                }
                None => assignment.checkpoint_bytes = 0,
            }
        }
        let key = (tenant, agent);
        let entry = waiting.entry(key).or_insert_with(|| (Arc::clone(&session), Vec::new()));
        if entry.0.id != session.id {
            *entry = (Arc::clone(&session), Vec::new());
        }
        entry.1.push(assignment);
        if let Some(found) = parts {
            flush(waiting);
            self.resume_in_parts(session, attempt, task.0, found);
        }
    }

    /// Tells how long a task waited, in its caller's trace.
    fn scheduled(&self, spec: &api::TaskSpec, [tenant, agent, task]: [&str; 3], number: u32, since: u64) {
        if !self.spans.is_on() {
            return;
        }
        let ns = |ms: u64| ms.saturating_mul(1_000_000);
        self.spans.record(Span {
            name: "kernel.schedule",
            of: TraceOf::named(&spec.trace_id, None),
            began_ns: ns(since),
            ended_ns: ns(now_ms()),
            attributes: vec![
                ("aion.tenant", tenant.into()),
                ("aion.agent", format!("agent://{tenant}/{agent}").as_str().into()),
                ("aion.task", task.into()),
                ("aion.trace", spec.trace_id.as_str().into()),
                ("aion.queue", spec.queue.as_str().into()),
                ("aion.priority", u64::from(spec.priority.unwrap_or(5)).into()),
                ("aion.attempt", u64::from(number).into()),
            ],
            error: None,
        });
    }

    /// The newest checkpoint at or below a number that reads as it was written: number and length.
    fn usable(&self, task: u64, number: u32) -> Option<(u32, u64)> {
        match self.journal.read_checkpoint(task, number, |_| Ok::<_, aion_task_journal::Error>(())) {
            Ok(info) => return Some((info.number, info.length)),
            Err(error) => {
                tracing::error!(task, number, %error, "a checkpoint cannot be used; the one before it is")
            }
        }
        let found = self.journal.newest_checkpoint(task).ok()?.0?;
        Some((found.number, found.length))
    }

    fn resume_in_parts(&self, session: Arc<Session>, attempt: Attempt, task: u64, number: u32) {
        let journal = Arc::clone(&self.journal);
        self.runtime.spawn_blocking(move || {
            let mut offset = 0u64;
            let mut send = |data: Vec<u8>, last: bool| {
                let length = data.len() as u64;
                let part = api::ResumePart { attempt: Some(token(attempt)), offset, data, last };
                offset += length;
                session.send_blocking(Kind::Resume(part))
            };
            let mut part = Vec::new();
            let read = journal.read_checkpoint(task, number, |chunk| {
                if part.len() + chunk.len() > PART && !send(std::mem::take(&mut part), false) {
                    return Err(aion_task_journal::Error::Closed);
                }
                part.extend_from_slice(chunk);
                Ok(())
            });
            match read {
                Ok(_) => drop(send(part, true)),
                Err(error) => {
                    tracing::error!(task, number, %error, "a checkpoint could not be handed over");
                    session.end.cancel();
                }
            }
        });
    }

    fn body(&self, task: u64, at_hand: Option<Arc<[u8]>>) -> Result<api::TaskSpec, String> {
        let decoded = match at_hand {
            Some(body) => api::TaskSpec::decode(&*body),
            None => match self.journal.body(task) {
                Ok(Some(body)) => api::TaskSpec::decode(body.as_slice()),
                Ok(None) => return Err("the task's body is not in the journal".to_owned()),
                Err(error) => return Err(format!("the task's body cannot be read: {error}")),
            },
        };
        decoded.map_err(|error| format!("the task's body cannot be read: {error}"))
    }

    fn one(self: &Arc<Self>, deed: Deed) {
        match deed.effect {
            Effect::Assign { attempt, task, tenant, id, agent, number, resume, since, .. } => {
                let Some(place) = place(&tenant, &agent, Some(attempt)) else { return };
                match self.body(task.0, deed.body) {
                    Ok(spec) => {
                        self.scheduled(&spec, [&tenant, &agent, &id], number, since);
                        let resume = resume.and_then(|(kept, _)| self.usable(task.0, kept)).map(|(n, _)| n);
                        let params = if spec.params_json.is_empty() {
                            b"null".to_vec()
                        } else {
                            spec.params_json.into_bytes()
                        };
                        let (jobs, after) = (Arc::clone(&self.jobs), resume.unwrap_or(0).saturating_add(1));
                        let launch =
                            jobs.launch(place.clone(), task.0, id.to_string(), number, params, resume, after);
                        self.in_order(place, launch);
                    }
                    Err(why) => self.lost(attempt, &why),
                }
            }
            Effect::Preempt { attempt, tenant, agent, grace_ms } => {
                if let Some(job) = self.jobs.place(attempt) {
                    self.jobs.terminated(attempt);
                    let host = Arc::clone(&self.host);
                    self.in_order(
                        job.clone(),
                        Box::pin(async move { quiet(host.terminate(job).await, "terminate") }),
                    );
                } else if let Some(session) = self.sessions.get(&tenant, &agent) {
                    session.send(Kind::Preempt(api::Preempt {
                        attempt: Some(token(attempt)),
                        grace: Some(duration(grace_ms)),
                        reason: "a task of a higher queue needs the slot".to_owned(),
                    }));
                }
            }
            // A job has its interval in its environment.
            Effect::TakeCheckpoint { attempt, tenant, agent } => {
                if let Some(session) = self.sessions.get(&tenant, &agent) {
                    let attempts = vec![token(attempt)];
                    session.send(Kind::TakeCheckpoint(api::TakeCheckpoint { attempts }));
                }
            }
            Effect::CancelAttempt { attempt, tenant, agent, reason } => {
                if let Some(job) = self.jobs.place(attempt) {
                    let host = Arc::clone(&self.host);
                    self.in_order(
                        job.clone(),
                        Box::pin(async move { quiet(host.terminate(job).await, "terminate") }),
                    );
                } else if let Some(session) = self.sessions.get(&tenant, &agent) {
                    let cancel =
                        api::CancelAttempt { attempt: Some(token(attempt)), reason: reason.to_string() };
                    session.send(Kind::Cancel(cancel));
                }
            }
            Effect::Freeze { attempt, tenant, agent } => {
                let Some(at) = self.where_is(attempt, &tenant, &agent) else { return };
                let (host, inbox) = (Arc::clone(&self.host), Arc::clone(&self.inbox));
                let freeze = async move {
                    inbox.system(Work::Command(match host.freeze(at).await {
                        Ok(()) => Command::Frozen { attempt },
                        Err(why) => {
                            tracing::info!(%attempt, why, "an agent cannot be frozen");
                            Command::FreezeFailed { attempt }
                        }
                    }));
                };
                self.later(attempt, &tenant, &agent, Box::pin(freeze));
            }
            Effect::Thaw { attempt, tenant, agent } => {
                let Some(at) = self.where_is(attempt, &tenant, &agent) else { return };
                let (host, inbox) = (Arc::clone(&self.host), Arc::clone(&self.inbox));
                let thaw = async move {
                    if let Err(why) = host.thaw(at).await {
                        let reason = format!("its agent cannot be thawed: {why}");
                        inbox.system(Work::Command(Command::AttemptLost { attempt, reason }));
                    }
                };
                self.later(attempt, &tenant, &agent, Box::pin(thaw));
            }
            Effect::Stop { attempt, tenant, agent } => {
                let Some(at) = self.where_is(attempt, &tenant, &agent) else { return };
                let (host, inbox, sessions) =
                    (Arc::clone(&self.host), Arc::clone(&self.inbox), Arc::clone(&self.sessions));
                let stop = async move {
                    match host.stop(at.clone()).await {
                        // A job's end is told by its journal, with the checkpoints that it left.
                        Ok(()) if at.attempt.is_some() => {}
                        Ok(()) => {
                            if let Some(session) = sessions.get(at.tenant.as_str(), at.agent.as_str()) {
                                session.end.cancel();
                            }
                            let reason = "its agent was stopped".to_owned();
                            inbox.system(Work::Command(Command::AttemptLost { attempt, reason }));
                        }
                        // It is asked for again.
                        Err(why) => tracing::warn!(%attempt, why, "an agent cannot be stopped"),
                    }
                };
                self.later(attempt, &tenant, &agent, Box::pin(stop));
            }
            Effect::Wake { tenant, agent } => {
                let Some(at) = place(&tenant, &agent, None) else { return };
                let (host, tenant, agent) = (Arc::clone(&self.host), at.tenant.clone(), at.agent.clone());
                let wake = async move { quiet(host.wake(tenant, agent).await, "wake") };
                self.in_order(at, Box::pin(wake));
            }
            // Done with the batch.
            Effect::DropCheckpoints { .. } => {}
        }
    }

    fn where_is(&self, attempt: Attempt, tenant: &str, agent: &str) -> Option<Place> {
        self.jobs.place(attempt).or_else(|| place(tenant, agent, None))
    }

    fn later(self: &Arc<Self>, attempt: Attempt, tenant: &str, agent: &str, work: BoxFuture<()>) {
        if let Some(at) = self.where_is(attempt, tenant, agent) {
            self.in_order(at, work);
        }
    }

    /// Begins something when what was begun before at the same place is done.
    fn in_order(&self, at: Place, work: BoxFuture<()>) {
        let (done, next) = oneshot::channel();
        let before = {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            if last.len() >= 256 {
                last.retain(|_, receiver| {
                    matches!(receiver.try_recv(), Err(oneshot::error::TryRecvError::Empty))
                });
            }
            last.insert(at, next)
        };
        self.runtime.spawn(async move {
            if let Some(before) = before {
                let _ = before.await;
            }
            work.await;
            let _ = done.send(());
        });
    }

    fn lost(&self, attempt: Attempt, reason: &str) {
        let reason = reason.to_owned();
        self.inbox.system(Work::Command(Command::AttemptLost { attempt, reason }));
    }
}

fn quiet(result: Result<(), String>, what: &'static str) {
    if let Err(why) = result {
        tracing::warn!(what, why, "an effect failed; it is tried again when it is due");
    }
}

fn place(tenant: &str, agent: &str, attempt: Option<Attempt>) -> Option<Place> {
    // They come from the core, which got them checked.
    let (tenant, agent) = (TenantId::parse(tenant).ok()?, AgentName::parse(agent).ok()?);
    Some(Place { tenant, agent, attempt })
}

fn flush(waiting: &mut Waiting) {
    for (session, assignments) in waiting.drain().map(|(_, ready)| ready) {
        if !assignments.is_empty() {
            session.send(Kind::Assignments(api::Assignments { assignments }));
        }
    }
}
