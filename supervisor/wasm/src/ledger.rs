//! Who has how much memory: a limit for each call, and one for all of them together.
//!
//! The second keeps this process below the limit of its cgroup, where the kernel would end it with every call.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use wasmtime::ResourceLimiter;

use crate::limits::MAX_TABLE_ELEMENTS;

/// What all calls have.
#[derive(Debug)]
pub(crate) struct Total {
    used: AtomicUsize,
    limit: usize,
}

impl Total {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), limit })
    }

    fn take(&self, bytes: usize) -> bool {
        let taken = |used: usize| used.checked_add(bytes).filter(|used| *used <= self.limit);
        self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, taken).is_ok()
    }

    fn give(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::AcqRel);
    }
}

/// What one call has.
#[derive(Debug)]
pub(crate) struct Ledger {
    total: Arc<Total>,
    limit: usize,
    used: usize,
    /// The growth that was allowed last: taken back when the runtime could not do it.
    last: usize,
    elements: usize,
    /// Whether something was refused.
    pub(crate) refused: bool,
}

impl Ledger {
    pub(crate) fn new(total: Arc<Total>, limit: usize) -> Self {
        Self { total, limit, used: 0, last: 0, elements: 0, refused: false }
    }

    /// Linear memory only grows, so this is the most that there was.
    pub(crate) fn used(&self) -> usize {
        self.used
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.total.give(self.used);
    }
}

impl ResourceLimiter for Ledger {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current);
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let fits = self.used.checked_add(more).is_some_and(|used| used <= self.limit);
        if !fits || !self.total.take(more) {
            self.refused = true;
            return Ok(false);
        }
        self.used += more;
        self.last = more;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.used -= self.last;
        self.total.give(self.last);
        self.last = 0;
        self.refused = true;
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let more = self.elements.saturating_add(desired.saturating_sub(current));
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        if more > MAX_TABLE_ELEMENTS {
            self.refused = true;
            return Ok(false);
        }
        self.elements = more;
        Ok(true)
    }

    // A component is several modules: an interpreter with its libraries is some dozens.
    fn instances(&self) -> usize {
        256
    }

    fn tables(&self) -> usize {
        256
    }

    fn memories(&self) -> usize {
        64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_has_its_limit_and_all_have_one() {
        let total = Total::new(100);
        let mut a = Ledger::new(Arc::clone(&total), 60);
        let mut b = Ledger::new(Arc::clone(&total), 60);
        assert!(a.memory_growing(0, 60, None).unwrap());
        assert!(!a.memory_growing(60, 61, None).unwrap());
        assert!(a.refused);
        assert!(b.memory_growing(0, 40, None).unwrap());
        assert!(!b.memory_growing(40, 41, None).unwrap());
        drop(a);
        assert!(b.memory_growing(40, 60, None).unwrap());
        assert_eq!(b.used(), 60);
        drop(b);
        assert_eq!(total.used.load(Ordering::Acquire), 0);
    }

    #[test]
    fn what_did_not_come_about_is_taken_back() {
        let total = Total::new(100);
        let mut a = Ledger::new(Arc::clone(&total), 100);
        assert!(a.memory_growing(0, 50, None).unwrap());
        a.memory_grow_failed(wasmtime::Error::msg("no memory")).unwrap();
        assert_eq!((a.used(), total.used.load(Ordering::Acquire)), (0, 0));
        // A module's own maximum is no refusal of ours.
        let mut a = Ledger::new(total, 100);
        assert!(!a.memory_growing(0, 50, Some(10)).unwrap());
        assert!(!a.refused);
        assert!(!a.table_growing(0, MAX_TABLE_ELEMENTS + 1, None).unwrap());
        assert!(a.refused);
    }
}
