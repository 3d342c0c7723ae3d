//! One piece of work: which commands it is, and how its answer is made of the core's.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use aion_api_proto::v1 as api;
use aion_scheduler::{AgentMode, Attempt, Command, Reply, Submit, TaskNumber};
use aion_types::ErrorCode;
use api::completion::Outcome;
use api::to_agent::Kind;

use super::Engine;
use super::group::Group;
use crate::error::Error;
use crate::sessions::{Held, Session, token};
use crate::work::{JobOutcome, NewTask, Said, Submitted, Work};

/// Bodies of tasks that were submitted lately, so that an assignment need not read them. The rest is in the journal.
#[derive(Default)]
pub(super) struct Bodies {
    kept: HashMap<TaskNumber, Arc<[u8]>>,
    order: VecDeque<(TaskNumber, usize)>,
    bytes: usize,
}

impl Bodies {
    const MAX_BYTES: usize = 4 << 20;
    const MAX_BODY: usize = 64 << 10;

    fn keep(&mut self, task: TaskNumber, body: &Arc<[u8]>) {
        // What a body costs besides its bytes.
        let cost = body.len() + 128;
        if cost > Self::MAX_BODY {
            return;
        }
        while self.bytes + cost > Self::MAX_BYTES {
            let Some((old, cost)) = self.order.pop_front() else { break };
            self.kept.remove(&old);
            self.bytes -= cost;
        }
        self.kept.insert(task, Arc::clone(body));
        self.order.push_back((task, cost));
        self.bytes += cost;
    }

    pub(super) fn take(&mut self, task: TaskNumber) -> Option<Arc<[u8]>> {
        self.kept.remove(&task)
    }
}

impl Engine {
    /// A command for whose answer nobody waits.
    pub(super) fn command(&mut self, group: &mut Group, command: Command) {
        if let Err(refusal) = self.core.apply_into(group.now, command, &mut group.out) {
            self.metrics.refused(refusal.code());
            tracing::debug!(%refusal, "refused");
        }
    }

    /// A command of an agent.
    fn try_command(&mut self, group: &mut Group, command: Command) -> Result<Reply, Error> {
        self.ask(group, command).inspect_err(|error| self.metrics.refused(error.code))
    }

    /// A command of a client, whose refusals are counted where it is told of them.
    fn ask(&mut self, group: &mut Group, command: Command) -> Result<Reply, Error> {
        self.core.apply_into(group.now, command, &mut group.out).map_err(Error::from)
    }

    pub(super) fn apply(&mut self, group: &mut Group, work: Work) {
        match work {
            Work::Submit { tasks, look, answer } => {
                let results: Vec<_> = tasks.into_iter().map(|task| self.submit(group, task, look)).collect();
                group.settles.push(Box::new(move |failed| {
                    let results = match failed {
                        None => results,
                        Some(error) => results
                            .into_iter()
                            .map(|result| result.and_then(|_| Err(error.clone())))
                            .collect(),
                    };
                    let _ = answer.send(results);
                }));
            }
            Work::Cancel { tenant, task, reason, answer } => {
                let result = self.ask(group, Command::Cancel { tenant, task, reason }).map(drop);
                settle(group, result, answer);
            }
            Work::Look(look) => {
                let after = look(&self.core);
                group.settles.push(Box::new(move |failed| {
                    // When the write failed, what was seen may not be: whoever asked finds the answer missing.
                    if failed.is_none() {
                        after();
                    }
                }));
            }
            Work::Configure { config, settings, answer } => {
                let result = self.ask(group, Command::Configure(config.clone())).map(drop);
                if result.is_ok() {
                    self.config = *config;
                    self.settings = settings;
                }
                settle(group, result, answer);
            }
            Work::Import { from, answer } => self.import = Some((from, answer)),
            Work::Command(command) if self.is_of_no_use(&command) => {}
            Work::Command(command) => self.command(group, command),
            Work::Attach { session, concurrency, running } => {
                self.attach(group, session, concurrency, running)
            }
            Work::Said { session, said, permit } => {
                match said {
                    Said::Started(all) => {
                        for attempt in all {
                            self.said(group, &session, attempt, Command::Started { attempt });
                        }
                    }
                    Said::Progress { attempt, permille, note } => {
                        self.said(group, &session, attempt, Command::Progress { attempt, permille, note });
                    }
                    Said::Usage { attempt, tokens, usd_micros } => {
                        self.said(group, &session, attempt, Command::Usage { attempt, tokens, usd_micros });
                    }
                    Said::Completions(all) => self.completions(group, &session, all),
                }
                group.settles.push(Box::new(move |_| drop(permit)));
            }
            Work::Checkpointed { attempt, checkpoint, yields, session, answer } => {
                let result = self.checkpoint(group, attempt, *checkpoint, yields);
                group.settles.push(Box::new(move |failed| {
                    let result = match failed {
                        None => result,
                        Some(error) => Err(error.clone()),
                    };
                    if let Some((session, _permit)) = &session {
                        match &result {
                            Ok(number) => {
                                if yields {
                                    session.release(attempt);
                                } else if let Some(held) = session.held(attempt) {
                                    session.hold(
                                        attempt,
                                        Held { next_checkpoint: number.saturating_add(1), ..held },
                                    );
                                }
                                let (checkpoints, attempts) = (vec![token(attempt)], Vec::new());
                                session.send(Kind::Recorded(api::Recorded { attempts, checkpoints }));
                            }
                            Err(error) => session.refuse(attempt, error),
                        }
                    }
                    if let Some(answer) = answer {
                        let _ = answer.send(result);
                    }
                }));
            }
            Work::JobEnded { attempt, end, answer } => {
                let command = match end {
                    JobOutcome::Completed { result } => self.complete(group, attempt, result),
                    JobOutcome::Failed { code, message, retryable } => {
                        self.try_command(group, Command::Failed { attempt, code, message, retryable })
                    }
                    JobOutcome::Yielded => self.try_command(group, Command::Yielded { attempt }),
                    JobOutcome::Lost { reason } => {
                        self.try_command(group, Command::AttemptLost { attempt, reason })
                    }
                };
                settle(group, command.map(drop), answer);
            }
        }
    }

    /// Jobs are many, and most are never given a task: the core hears of one with the first task for it, and until then
    /// nothing of it is written.
    fn is_of_no_use(&self, command: &Command) -> bool {
        match command {
            Command::AgentKnown { tenant, name, spec } => {
                spec.mode == AgentMode::Job
                    && !self.core.knows_agent(tenant.as_str(), name)
                    && !self.core.wants_agent(tenant.as_str(), name, spec)
            }
            Command::AgentGone { tenant, name } | Command::Detached { tenant, name, .. } => {
                !self.core.knows_agent(tenant.as_str(), name)
            }
            _ => false,
        }
    }

    /// Tells the core of the agents that a task asks for.
    fn introduce(&mut self, group: &mut Group, submit: &Submit) {
        if !self.core.has_tasks_for(submit.tenant.as_str(), &submit.target) {
            for command in self.roster.agents_for(&submit.tenant, &submit.target) {
                self.command(group, command);
            }
        }
    }

    fn submit(&mut self, group: &mut Group, task: NewTask, look: bool) -> Result<Submitted, Error> {
        self.journal.admits()?;
        self.introduce(group, &task.submit);
        let class = task.submit.class;
        match self.ask(group, Command::Submit(task.submit))? {
            Reply::Existed { .. } => Ok(Submitted { existed: true, view: None }),
            Reply::Submitted { task: number } => {
                self.metrics.submitted(class);
                self.bodies.keep(number, &task.body);
                group.bodies.push((number, task.body));
                let view = if look { self.core.task_by_number(number).map(Box::new) } else { None };
                Ok(Submitted { existed: false, view })
            }
            _ => Err(Error::new(ErrorCode::Internal, "the core does not say what became of a task")),
        }
    }

    fn attach(&mut self, group: &mut Group, session: Arc<Session>, concurrency: u32, running: Vec<Attempt>) {
        let command = Command::Attached {
            tenant: session.tenant.clone(),
            name: session.agent.clone(),
            concurrency,
            running,
        };
        let reply = self.try_command(group, command);
        if let Ok(Reply::Attached { keep, .. }) = &reply {
            for view in self.core.attempts().into_iter().filter(|view| keep.contains(&view.attempt)) {
                let taken = self.core.task_by_number(view.task).map_or(0, |task| task.checkpoints);
                session
                    .hold(view.attempt, Held { task: view.task.0, next_checkpoint: taken.saturating_add(1) });
            }
        }
        group.settles.push(Box::new(move |failed| match (reply, failed) {
            (Ok(Reply::Attached { concurrency, keep }), None) => {
                session.send(Kind::Welcome(api::Welcome {
                    agent: session.agent.to_string(),
                    tenant: session.tenant.to_string(),
                    concurrency,
                    keep: keep.into_iter().map(token).collect(),
                }));
            }
            (reply, failed) => {
                let error = reply.err().or_else(|| failed.cloned());
                tracing::warn!(tenant = %session.tenant, agent = %session.agent, ?error, "an agent could not attach");
                session.end.cancel();
            }
        }));
    }

    fn said(&mut self, group: &mut Group, session: &Arc<Session>, attempt: Attempt, command: Command) {
        if session.held(attempt).is_none() {
            // Another agent's, or one that is over.
            self.metrics.refused(ErrorCode::AttemptStale);
            refuse_later(group, session, attempt, stale(attempt));
            return;
        }
        if let Err(error) = self.try_command(group, command) {
            refuse_later(group, session, attempt, error);
        }
    }

    fn completions(&mut self, group: &mut Group, session: &Arc<Session>, all: Vec<(Attempt, Outcome)>) {
        let mut recorded = Vec::with_capacity(all.len());
        let mut refused = Vec::new();
        for (attempt, outcome) in all {
            if session.held(attempt).is_none() {
                self.metrics.refused(ErrorCode::AttemptStale);
                refused.push((attempt, stale(attempt)));
                continue;
            }
            let result = match outcome {
                Outcome::ResultJson(json) => self.complete(group, attempt, json.into_bytes()),
                Outcome::Failure(failure) => {
                    let api::Failure { code, message, retryable } = failure;
                    self.try_command(group, Command::Failed { attempt, code, message, retryable })
                }
                Outcome::Yielded(_) => self.try_command(group, Command::Yielded { attempt }),
            };
            match result {
                Ok(_) => recorded.push(attempt),
                Err(error) => refused.push((attempt, error)),
            }
        }
        let session = Arc::clone(session);
        group.settles.push(Box::new(move |failed| {
            for (attempt, error) in refused {
                session.refuse(attempt, &error);
            }
            // Nothing is said of what is not on disk: the agent keeps it and sends it again when it attaches anew.
            if failed.is_none() && !recorded.is_empty() {
                let attempts = recorded.iter().map(|&attempt| token(attempt)).collect();
                for attempt in recorded {
                    session.release(attempt);
                }
                session.send(Kind::Recorded(api::Recorded { attempts, checkpoints: Vec::new() }));
            }
        }));
    }

    fn complete(&mut self, group: &mut Group, attempt: Attempt, result: Vec<u8>) -> Result<Reply, Error> {
        let reply = self.try_command(group, Command::Completed { attempt })?;
        if let Reply::Attempt { task, .. } = reply {
            group.results.push((task, result));
        }
        Ok(reply)
    }

    /// The number under which it is kept.
    fn checkpoint(
        &mut self,
        group: &mut Group,
        attempt: Attempt,
        checkpoint: aion_task_journal::Checkpoint,
        yields: bool,
    ) -> Result<u32, Error> {
        let info = *checkpoint.info();
        match self.try_command(group, Command::Checkpointed { attempt, bytes: info.length, yields })? {
            Reply::Checkpoint { task, number: Some(number) }
                if task.0 == info.task && number == info.number =>
            {
                group.checkpoints.push(checkpoint);
                Ok(number)
            }
            Reply::Checkpoint { number: Some(number), .. } => {
                // Written under another number than the core counts: it would be read as something else.
                tracing::error!(%attempt, number, written = info.number, "a checkpoint has the wrong number");
                Err(Error::new(ErrorCode::Internal, "the checkpoint has the wrong number"))
            }
            // The quota is used up, or it no longer counts; that the attempt yielded was noted.
            _ if yields => Ok(info.number.saturating_sub(1)),
            _ => Err(Error::new(
                ErrorCode::QuotaExceeded,
                "the tenant's quota of checkpoint bytes is used up; the checkpoint before it stays",
            )),
        }
    }
}

fn stale(attempt: Attempt) -> Error {
    Error::new(ErrorCode::AttemptStale, format!("attempt {attempt} does not count any more"))
}

fn refuse_later(group: &mut Group, session: &Arc<Session>, attempt: Attempt, error: Error) {
    let session = Arc::clone(session);
    group.settles.push(Box::new(move |_| session.refuse(attempt, &error)));
}

fn settle<T: Send + 'static>(group: &mut Group, result: Result<T, Error>, answer: crate::work::Answer<T>) {
    group.settles.push(Box::new(move |failed| {
        let _ = answer.send(match failed {
            None => result,
            Some(error) => Err(error.clone()),
        });
    }));
}

impl Work {
    /// Answers that it cannot be done now.
    pub(super) fn refuse(self, error: &Error) {
        match self {
            Self::Submit { tasks, answer, .. } => {
                let _ = answer.send(tasks.iter().map(|_| Err(error.clone())).collect());
            }
            Self::Cancel { answer, .. }
            | Self::Configure { answer, .. }
            | Self::Import { answer, .. }
            | Self::JobEnded { answer, .. } => {
                let _ = answer.send(Err(error.clone()));
            }
            Self::Checkpointed { attempt, session, answer, .. } => {
                if let Some((session, _)) = session {
                    session.refuse(attempt, error);
                }
                if let Some(answer) = answer {
                    let _ = answer.send(Err(error.clone()));
                }
            }
            Self::Attach { session, .. } | Self::Said { session, .. } => session.end.cancel(),
            // After the recovery everything is compared with what really is.
            Self::Look(_) | Self::Command(_) => {}
        }
    }
}
