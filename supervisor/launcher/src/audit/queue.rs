//! The queue to the audit thread. Kernel records wait when it is full, which holds back the drain and in the end
//! the agents; what the launcher itself has to say never waits, or a full disk could keep an agent from being killed.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::lock::lock;

/// A queue with a limit for some.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    inner: Mutex<Inner<T>>,
    not_empty: Condvar,
    not_full: Condvar,
    limit: usize,
}

#[derive(Debug)]
struct Inner<T> {
    items: VecDeque<T>,
    /// Nobody waits any more.
    open: bool,
}

impl<T> Queue<T> {
    pub(crate) fn new(limit: usize) -> Self {
        let inner = Mutex::new(Inner { items: VecDeque::new(), open: false });
        Self { inner, not_empty: Condvar::new(), not_full: Condvar::new(), limit }
    }

    /// Adds without waiting.
    pub(crate) fn push(&self, item: T) {
        lock(&self.inner).items.push_back(item);
        self.not_empty.notify_one();
    }

    /// Adds when there is room, waiting for it; gives the item back after `patience`.
    pub(crate) fn push_when_room(&self, item: T, patience: Option<Duration>) -> Result<(), T> {
        let deadline = patience.map(|p| Instant::now() + p);
        let mut inner = lock(&self.inner);
        while inner.items.len() >= self.limit && !inner.open {
            inner = match deadline {
                None => self.not_full.wait(inner).unwrap_or_else(PoisonError::into_inner),
                Some(at) => {
                    let left = at.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(item);
                    }
                    self.not_full.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        inner.items.push_back(item);
        drop(inner);
        self.not_empty.notify_one();
        Ok(())
    }

    /// The next item, if one comes in time.
    pub(crate) fn pop(&self, timeout: Duration) -> Option<T> {
        let inner = lock(&self.inner);
        let waited = self.not_empty.wait_timeout_while(inner, timeout, |inner| inner.items.is_empty());
        let item = waited.unwrap_or_else(PoisonError::into_inner).0.items.pop_front();
        if item.is_some() {
            self.not_full.notify_one();
        }
        item
    }

    /// From now on nobody waits for room: the launcher stops.
    pub(crate) fn lift_limit(&self) {
        lock(&self.inner).open = true;
        self.not_full.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(20);

    #[test]
    fn some_wait_and_some_do_not() {
        let queue = Queue::new(1);
        queue.push_when_room(1, None).unwrap();
        assert_eq!(queue.push_when_room(2, Some(SOON)), Err(2));
        queue.push(3);
        assert_eq!((queue.pop(SOON), queue.pop(SOON), queue.pop(SOON)), (Some(1), Some(3), None));
        queue.push(4);
        queue.lift_limit();
        queue.push_when_room(5, None).unwrap();
    }

    #[test]
    fn room_wakes_who_waits() {
        let queue = Queue::new(1);
        queue.push(1);
        std::thread::scope(|s| {
            let waiting = s.spawn(|| queue.push_when_room(2, Some(Duration::from_secs(10))));
            assert_eq!(queue.pop(SOON), Some(1));
            assert_eq!(waiting.join().unwrap(), Ok(()));
        });
    }
}
