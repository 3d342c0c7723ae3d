//! The calls that wait for an answer over pipes.
//!
//! Invariant: an id is given once; a call is told exactly one outcome, the first; after the end every call is told the
//! reason of the end.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::oneshot;

use crate::Closed;
use crate::message::RpcError;

/// What a waiting call is told.
pub(crate) type Outcome = Result<Result<Value, RpcError>, Closed>;

#[derive(Default)]
pub(crate) struct Calls {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    last: u64,
    open: HashMap<u64, Open>,
    closed: Option<Closed>,
}

struct Open {
    tell: oneshot::Sender<Outcome>,
    written: bool,
}

impl Calls {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a call its id.
    pub(crate) fn open(&self) -> Result<(u64, oneshot::Receiver<Outcome>), Closed> {
        let mut table = self.table();
        if let Some(reason) = &table.closed {
            return Err(reason.clone());
        }
        table.last += 1;
        let id = table.last;
        let (tell, told) = oneshot::channel();
        table.open.insert(id, Open { tell, written: false });
        Ok((id, told))
    }

    /// Marks a call as about to be written. False when nobody waits for it any more, so that it need not be.
    pub(crate) fn writes(&self, id: u64) -> bool {
        self.table().open.get_mut(&id).is_some_and(|open| {
            open.written = true;
            true
        })
    }

    /// Hands an answer to its call. False when the call has been answered or given up, which is no fault: an answer and
    /// a cancellation may cross.
    pub(crate) fn answer(&self, id: u64, outcome: Result<Value, RpcError>) -> Result<bool, Closed> {
        let mut table = self.table();
        if id == 0 || id > table.last || table.open.get(&id).is_some_and(|open| !open.written) {
            return Err(Closed::UnknownId);
        }
        Ok(match table.open.remove(&id) {
            Some(open) => {
                // A receiver that is gone has been given up in this very moment.
                let _ = open.tell.send(Ok(outcome));
                true
            }
            None => false,
        })
    }

    /// Forgets a call. True when the server may be at work on it.
    pub(crate) fn give_up(&self, id: u64) -> bool {
        self.table().open.remove(&id).is_some_and(|open| open.written)
    }

    /// Tells every call, present and future, that the connection has ended. The first reason stays.
    pub(crate) fn close(&self, reason: &Closed) {
        let open = {
            let mut table = self.table();
            table.closed.get_or_insert_with(|| reason.clone());
            std::mem::take(&mut table.open)
        };
        for call in open.into_values() {
            let _ = call.tell.send(Err(reason.clone()));
        }
    }

    /// Why the connection ended.
    pub(crate) fn reason(&self) -> Closed {
        self.table().closed.clone().unwrap_or(Closed::ByUs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_needs_a_call() {
        let calls = Calls::default();
        assert!(matches!(calls.answer(0, Ok(Value::Null)), Err(Closed::UnknownId)));
        assert!(matches!(calls.answer(1, Ok(Value::Null)), Err(Closed::UnknownId)));
        let (id, mut told) = calls.open().unwrap();
        // Guessed before it was asked.
        assert!(matches!(calls.answer(id, Ok(Value::Null)), Err(Closed::UnknownId)));
        assert!(calls.writes(id));
        assert!(calls.answer(id, Ok(Value::Null)).unwrap());
        assert!(!calls.answer(id, Ok(Value::from(2))).unwrap());
        assert!(matches!(told.try_recv(), Ok(Ok(Ok(Value::Null)))));
    }

    #[test]
    fn a_call_that_was_given_up() {
        let calls = Calls::default();
        let (id, _) = calls.open().unwrap();
        assert!(!calls.give_up(id), "it was not written");
        assert!(!calls.writes(id));
        let (id, _) = calls.open().unwrap();
        assert!(calls.writes(id) && calls.give_up(id));
        assert!(!calls.answer(id, Ok(Value::Null)).unwrap());
    }

    #[test]
    fn the_first_reason_stays() {
        let calls = Calls::default();
        let (_, mut told) = calls.open().unwrap();
        calls.close(&Closed::Eof);
        calls.close(&Closed::ByUs);
        assert!(matches!(told.try_recv(), Ok(Err(Closed::Eof))));
        assert!(matches!(calls.open(), Err(Closed::Eof)));
    }
}
