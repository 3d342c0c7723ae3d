//! Who watches: each Watch connection has a queue, and loses the connection when it does not keep up.
//!
//! A watcher that lost its connection connects again and is told the current states first, so a full queue
//! costs it time and no knowledge.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use aion_launcher_proto::v1::{self, notice::Kind};

use crate::lock::lock;

/// Notices that may wait for one watcher.
const QUEUE: usize = 8192;

/// All watchers.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    watchers: Mutex<Vec<SyncSender<Arc<v1::Notice>>>>,
    audit_seq: AtomicU64,
}

impl Hub {
    /// A new watcher's queue. What happens from now on is in it; the caller tells the current states.
    pub(crate) fn subscribe(&self) -> Receiver<Arc<v1::Notice>> {
        let (sender, receiver) = sync_channel(QUEUE);
        lock(&self.watchers).push(sender);
        receiver
    }

    /// Tells everyone.
    pub(crate) fn tell(&self, kind: Kind) {
        let notice = Arc::new(v1::Notice { kind: Some(kind) });
        lock(&self.watchers).retain(|watcher| watcher.try_send(Arc::clone(&notice)).is_ok());
    }

    /// The audit log is durable up to `seq`.
    pub(crate) fn audit_durable(&self, seq: u64) {
        if self.audit_seq.fetch_max(seq, Ordering::AcqRel) < seq {
            self.tell(Kind::Audit(v1::AuditSeq { seq }));
        }
    }

    /// Ends every watch.
    pub(crate) fn close(&self) {
        lock(&self.watchers).clear();
    }

    /// Up to where the audit log is durable.
    pub(crate) fn audit_seq(&self) -> u64 {
        self.audit_seq.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_watcher_is_let_go() {
        let hub = Hub::default();
        let slow = hub.subscribe();
        for seq in 1..=u64::try_from(QUEUE).unwrap() + 1 {
            hub.audit_durable(seq);
        }
        assert!(lock(&hub.watchers).is_empty());
        assert_eq!(slow.iter().count(), QUEUE);
    }

    #[test]
    fn an_older_sequence_number_is_no_news() {
        let hub = Hub::default();
        let watcher = hub.subscribe();
        hub.audit_durable(5);
        hub.audit_durable(3);
        hub.audit_durable(5);
        drop(hub);
        assert_eq!(watcher.iter().count(), 1);
    }
}
