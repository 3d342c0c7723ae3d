//! The streams of service agents that are open: one for each agent, with a bounded outbox.
//!
//! An agent that does not read is not waited for: its stream ends, and it counts as detached.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aion_api_proto::v1 as api;
use aion_scheduler::{Attempt, Name};
use aion_types::{AgentName, TenantId};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// Messages that wait for an agent.
const OUTBOX: usize = 1024;
/// What an agent says and was not yet recorded.
const UNRECORDED: usize = 256;

/// One open stream.
pub(crate) struct Session {
    pub(crate) id: u64,
    pub(crate) tenant: TenantId,
    pub(crate) agent: AgentName,
    out: mpsc::Sender<Result<api::ToAgent, Status>>,
    /// Cancelled when the stream is to end.
    pub(crate) end: CancellationToken,
    pub(crate) allowance: Arc<Semaphore>,
    attempts: Mutex<HashMap<Attempt, Held>>,
}

/// What is known of an attempt that the agent works on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held {
    /// The task's number.
    pub(crate) task: u64,
    /// The number that its next checkpoint gets.
    pub(crate) next_checkpoint: u32,
}

impl Session {
    /// Sends without waiting; an agent with a full outbox loses its stream.
    pub(crate) fn send(&self, kind: api::to_agent::Kind) {
        // Of what comes after the end nothing arrives. One message can ask for thousands of answers: it is told of once.
        if self.end.is_cancelled() {
            return;
        }
        let message = api::ToAgent { kind: Some(kind) };
        if let Err(mpsc::error::TrySendError::Full(_)) = self.out.try_send(Ok(message)) {
            tracing::warn!(tenant = %self.tenant, agent = %self.agent, "an agent does not read what it is told");
            self.end.cancel();
        }
    }

    /// Sends from a thread that may wait. False when the stream has ended.
    pub(crate) fn send_blocking(&self, kind: api::to_agent::Kind) -> bool {
        self.out.blocking_send(Ok(api::ToAgent { kind: Some(kind) })).is_ok()
    }

    pub(crate) fn refuse(&self, attempt: Attempt, error: &crate::Error) {
        self.send(api::to_agent::Kind::Refused(api::RefusedAttempt {
            attempt: Some(token(attempt)),
            code: error.code.as_str().to_owned(),
            message: error.message.clone(),
        }));
    }

    fn held_mut(&self) -> MutexGuard<'_, HashMap<Attempt, Held>> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn hold(&self, attempt: Attempt, held: Held) {
        self.held_mut().insert(attempt, held);
    }

    pub(crate) fn held(&self, attempt: Attempt) -> Option<Held> {
        self.held_mut().get(&attempt).copied()
    }

    pub(crate) fn release(&self, attempt: Attempt) {
        self.held_mut().remove(&attempt);
    }
}

/// A token as it is sent.
pub(crate) const fn token(attempt: Attempt) -> api::Attempt {
    api::Attempt { epoch: attempt.epoch, seq: attempt.seq }
}

/// A token as it came.
pub(crate) const fn attempt(token: api::Attempt) -> Attempt {
    Attempt { epoch: token.epoch, seq: token.seq }
}

/// The open streams.
#[derive(Default)]
pub(crate) struct Sessions {
    open: Mutex<HashMap<Name, HashMap<Name, Arc<Session>>>>,
    next: AtomicU64,
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, HashMap<Name, HashMap<Name, Arc<Session>>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stream is opened; one that the agent had before ends.
    pub(crate) fn open(
        &self,
        tenant: &TenantId,
        agent: &AgentName,
    ) -> (Arc<Session>, mpsc::Receiver<Result<api::ToAgent, Status>>) {
        let (out, outbox) = mpsc::channel(OUTBOX);
        let session = Arc::new(Session {
            id: self.next.fetch_add(1, Ordering::Relaxed),
            tenant: tenant.clone(),
            agent: agent.clone(),
            out,
            end: CancellationToken::new(),
            allowance: Arc::new(Semaphore::new(UNRECORDED)),
            attempts: Mutex::default(),
        });
        let before = self
            .lock()
            .entry(tenant.as_str().into())
            .or_default()
            .insert(agent.as_str().into(), Arc::clone(&session));
        if let Some(before) = before {
            before.end.cancel();
        }
        (session, outbox)
    }

    /// A stream has ended. True when it was the agent's current one.
    pub(crate) fn close(&self, session: &Session) -> bool {
        let mut open = self.lock();
        let Some(agents) = open.get_mut(session.tenant.as_str()) else { return false };
        if agents.get(session.agent.as_str()).is_none_or(|current| current.id != session.id) {
            return false;
        }
        agents.remove(session.agent.as_str());
        if agents.is_empty() {
            open.remove(session.tenant.as_str());
        }
        true
    }

    /// An agent's stream.
    pub(crate) fn get(&self, tenant: &str, agent: &str) -> Option<Arc<Session>> {
        self.lock().get(tenant)?.get(agent).cloned()
    }

    /// Ends all streams: agents come back and say what they have.
    pub(crate) fn end_all(&self) {
        for session in self.lock().values().flat_map(HashMap::values) {
            session.end.cancel();
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().values().map(HashMap::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts what is told.
    #[derive(Clone, Default)]
    struct Told(Arc<AtomicU64>);

    impl tracing::Subscriber for Told {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }
        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn event(&self, _: &tracing::Event<'_>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }

    #[test]
    fn an_agent_that_does_not_read_is_told_of_once() {
        let told = Told::default();
        let (session, _outbox) =
            Sessions::default().open(&TenantId::parse("t").unwrap(), &AgentName::parse("a").unwrap());
        tracing::subscriber::with_default(told.clone(), || {
            for _ in 0..20_000 {
                let error = crate::Error::no_task("x");
                session.refuse(Attempt { epoch: 1, seq: 1 }, &error);
            }
        });
        assert!(session.end.is_cancelled());
        assert_eq!(told.0.load(Ordering::Relaxed), 1);
    }
}
