//! Mutations that are sent twice happen once.
//!
//! The first to come with a request id does the work; who comes with the same id meanwhile waits and gets the same
//! answer, and so does who comes within a day. The work runs in a task of its own: a client that goes away does not
//! leave it half-done.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use aion_store::{Batch, Durability, RequestHash, RequestKey, RequestRow, Store, StoredOutcome};
use aion_types::{ErrorCode, TenantId};
use prost::Message;
use tonic::{Code, Status};

use crate::clock::{nanos, now_ns};
use crate::problem::{Outcome, Problem};

/// The longest request id.
const MAX_ID: usize = 64;

/// What a mutation knows about its own repetition.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    row: Option<(RequestKey, RequestRow)>,
    /// An earlier attempt began and its end is not known: what it was to bring about may be there already.
    pub(crate) resumed: bool,
    /// The agent that the earlier attempt was about.
    pub(crate) agent: Option<String>,
}

impl Claim {
    /// Of work that the daemon does by itself.
    pub(crate) const fn none() -> Self {
        Self { row: None, resumed: false, agent: None }
    }

    /// Notes in the batch of the first effect that the request is under way.
    pub(crate) fn note(&self, batch: &mut Batch, agent: &str) {
        if let Some((key, row)) = &self.row {
            let row = RequestRow { agent: Some(agent.to_owned()), ..row.clone() };
            batch.put_request(key, &row);
        }
    }

    /// Notes the answer in the batch that brings everything about.
    pub(crate) fn note_answer<M: Message>(&self, batch: &mut Batch, answer: &M) {
        if let Some((key, row)) = &self.row {
            let outcome = Some(StoredOutcome::Ok(answer.encode_to_vec()));
            batch.put_request(key, &RequestRow { outcome, ..row.clone() });
        }
    }
}

/// Requests under way and remembered.
pub(crate) struct Requests {
    store: Arc<Store>,
    busy: Mutex<HashMap<RequestKey, Weak<tokio::sync::Mutex<()>>>>,
}

impl Requests {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self { store, busy: Mutex::default() }
    }

    /// Runs a mutation once for its request id.
    pub(crate) async fn once<Q, A, F>(
        self: &Arc<Self>,
        tenant: &TenantId,
        method: &'static str,
        id: &str,
        request: &Q,
        work: impl FnOnce(Claim) -> F + Send + 'static,
    ) -> Result<A, Status>
    where
        Q: Message,
        A: Message + Default + 'static,
        F: Future<Output = Outcome<A>> + Send + 'static,
    {
        check_id(id)?;
        let requests = Arc::clone(self);
        let key = (!id.is_empty()).then(|| RequestKey { tenant: tenant.clone(), id: id.to_owned() });
        let hash = RequestHash::of(method, &request.encode_to_vec());
        let task = tokio::spawn(async move {
            let Some(key) = key else {
                let claim = Claim { row: None, resumed: false, agent: None };
                return work(claim).await.map_err(Status::from);
            };
            let turn = requests.turn(&key);
            let _turn = turn.lock().await;
            let known = requests.store.request(&key, now_ns()).map_err(Problem::from)?;
            let claim = match known {
                Some(row) if row.hash != hash => return Err(reused(&key).into()),
                Some(RequestRow { outcome: Some(outcome), .. }) => return replay(outcome),
                Some(row) => Claim { resumed: true, agent: row.agent.clone(), row: Some((key.clone(), row)) },
                None => {
                    let ttl = nanos(requests.store.options().request_ttl);
                    let row = RequestRow::pending(hash, None, now_ns().saturating_add(ttl));
                    Claim { row: Some((key.clone(), row)), resumed: false, agent: None }
                }
            };
            let outcome = work(claim.clone()).await;
            requests.remember(&claim, &outcome);
            outcome.map_err(Status::from)
        });
        task.await
            .unwrap_or_else(|error| Err(Problem::internal("a request did not run to its end", &error).into()))
    }

    fn turn(&self, key: &RequestKey) -> Arc<tokio::sync::Mutex<()>> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = busy.get(key).and_then(Weak::upgrade) {
            return turn;
        }
        busy.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::new(tokio::sync::Mutex::new(()));
        busy.insert(key.clone(), Arc::downgrade(&turn));
        turn
    }

    fn remember<A: Message>(&self, claim: &Claim, outcome: &Outcome<A>) {
        let Some((key, row)) = &claim.row else { return };
        let mut batch = Batch::bookkeeping();
        match outcome {
            Ok(answer) => {
                let outcome = Some(StoredOutcome::Ok(answer.encode_to_vec()));
                batch.put_request(key, &RequestRow { outcome, ..row.clone() });
            }
            Err(problem) if problem.is_passing() => batch.forget_request(key),
            Err(problem) => {
                let status = Status::from(problem.clone());
                let outcome = Some(StoredOutcome::Err {
                    code: status.code() as i32,
                    message: status.message().to_owned(),
                    details: status.details().to_vec(),
                });
                batch.put_request(key, &RequestRow { outcome, ..row.clone() });
            }
        }
        // The request itself is done; that its answer is not remembered costs at most a repetition.
        if let Err(error) = self.store.commit(batch, Durability::Process) {
            tracing::warn!(%error, request = key.id, "the answer to a request is not remembered");
        }
    }
}

fn check_id(id: &str) -> Outcome<()> {
    if id.len() > MAX_ID {
        return Err(Problem::field(
            "request_id",
            format!("it has {} bytes, at most {MAX_ID} are allowed", id.len()),
        ));
    }
    if id.chars().any(char::is_control) {
        return Err(Problem::field("request_id", "it holds a control character"));
    }
    Ok(())
}

fn reused(key: &RequestKey) -> Problem {
    Problem::new(
        ErrorCode::RequestIdReused,
        format!("request id {:?} came before with another request", key.id),
    )
    .with("field", "request_id")
    .hint("use a fresh request id for each new request")
}

fn replay<A: Message + Default>(outcome: StoredOutcome) -> Result<A, Status> {
    match outcome {
        StoredOutcome::Ok(bytes) => A::decode(bytes.as_slice())
            .map_err(|error| Problem::internal("a remembered answer cannot be read", &error).into()),
        StoredOutcome::Err { code, message, details } => {
            Err(Status::with_details(Code::from_i32(code), message, details.into()))
        }
    }
}
