//! Who watches: each Watch connection has a queue, and loses the connection when it does not keep up.
//!
//! A watcher that lost its connection connects again and is told the current states first, so a full queue
//! costs it time and no knowledge.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use aion_launcher_proto::v1::{self, notice::Kind};

use crate::lock::lock;

/// Notices that may wait for one watcher.
const QUEUE: usize = 8192;

/// All watchers.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    watchers: Mutex<Vec<Watcher>>,
    audit_seq: AtomicU64,
}

#[derive(Debug)]
struct Watcher {
    queue: SyncSender<Arc<v1::Notice>>,
    /// It looks at the log's number by itself, soon.
    looks: Arc<AtomicBool>,
}

/// A watcher's end of it.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) queue: Receiver<Arc<v1::Notice>>,
    looks: Arc<AtomicBool>,
}

impl Subscription {
    /// The watcher waits for its queue from here on: the log's growth is put there again. It looks at the log's number after this.
    pub(crate) fn rely_on_queue(&self) {
        self.looks.store(false, Ordering::SeqCst);
    }
}

impl Hub {
    /// A new watcher's queue. What happens from now on is in it; the caller tells the current states.
    pub(crate) fn subscribe(&self) -> Subscription {
        let (sender, queue) = sync_channel(QUEUE);
        let looks = Arc::new(AtomicBool::new(false));
        lock(&self.watchers).push(Watcher { queue: sender, looks: Arc::clone(&looks) });
        Subscription { queue, looks }
    }

    /// Tells everyone.
    pub(crate) fn tell(&self, kind: Kind) {
        let notice = Arc::new(v1::Notice { kind: Some(kind) });
        lock(&self.watchers).retain(|watcher| watcher.queue.try_send(Arc::clone(&notice)).is_ok());
    }

    /// The audit log is durable up to `seq`. Who was told of its growth and has not looked since is not told again.
    pub(crate) fn audit_durable(&self, seq: u64) {
        if self.audit_seq.fetch_max(seq, Ordering::SeqCst) >= seq {
            return;
        }
        let notice = Arc::new(v1::Notice { kind: Some(Kind::Audit(v1::AuditSeq { seq })) });
        lock(&self.watchers).retain(|watcher| {
            // Who is gone looks no more.
            if Arc::strong_count(&watcher.looks) == 1 {
                return false;
            }
            watcher.looks.swap(true, Ordering::SeqCst) || watcher.queue.try_send(Arc::clone(&notice)).is_ok()
        });
    }

    /// Ends every watch.
    pub(crate) fn close(&self) {
        lock(&self.watchers).clear();
    }

    /// Up to where the audit log is durable.
    pub(crate) fn audit_seq(&self) -> u64 {
        self.audit_seq.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_watcher_is_let_go() {
        let hub = Hub::default();
        let slow = hub.subscribe();
        for _ in 0..=QUEUE {
            hub.tell(Kind::Agent(v1::AgentState::default()));
        }
        assert!(lock(&hub.watchers).is_empty());
        assert_eq!(slow.queue.iter().count(), QUEUE);
    }

    #[test]
    fn an_older_sequence_number_is_no_news() {
        let hub = Hub::default();
        let watcher = hub.subscribe();
        hub.audit_durable(5);
        hub.audit_durable(3);
        hub.audit_durable(5);
        drop(hub);
        assert_eq!(watcher.queue.iter().count(), 1);
    }

    #[test]
    fn the_growth_of_the_log_is_told_once_until_the_watcher_has_looked() {
        let hub = Hub::default();
        let watcher = hub.subscribe();
        (1..=100).for_each(|seq| hub.audit_durable(seq));
        assert_eq!(watcher.queue.try_iter().count(), 1);
        assert_eq!(hub.audit_seq(), 100);
        watcher.rely_on_queue();
        hub.audit_durable(101);
        assert_eq!(watcher.queue.try_iter().count(), 1);
        drop(watcher);
        hub.audit_durable(102);
        assert!(lock(&hub.watchers).is_empty(), "one that is gone is kept");
    }
}
