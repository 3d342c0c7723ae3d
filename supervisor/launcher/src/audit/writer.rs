//! The writing thread. Records are synced together: at most every 200 ms, at once for those that somebody
//! waits for. What was not synced is kept, and written again when the log had to be opened anew.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use aion_audit::{Error, Options, Writer};
use aion_types::ErrorCode;

use crate::Failure;
use crate::audit::Entry;
use crate::audit::queue::Queue;
use crate::failure::chain;
use crate::hub::Hub;

/// How long a record may wait for its sync.
const SYNC_EVERY: Duration = Duration::from_millis(200);
/// How long to wait before a full disk is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// How long somebody waits for a durable record before being told that it does not work.
const PATIENCE: Duration = Duration::from_secs(5);
/// Batches that may wait: a disk that is full stops the drain thread here, not the memory.
const QUEUE: usize = 16;
/// Batches that are written before those who wait for one of them are answered.
const TOGETHER: usize = 256;
/// The newest records are signed when no more came for so long.
const SIGN_AFTER: Duration = Duration::from_secs(1);
/// Old segments are looked for this often.
const PRUNE_EVERY: Duration = Duration::from_secs(60);

/// Records, and who waits until the last of them is durable.
#[derive(Debug)]
struct Batch {
    entries: Vec<Entry>,
    reply: Option<Reply>,
}

type Reply = Sender<Result<u64, Failure>>;

/// Where the log is.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) dir: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) gid: u32,
    /// Oldest segments go when all have more than this; 0 keeps everything.
    pub(crate) max_bytes: u64,
}

impl Settings {
    fn open(&self) -> Result<Writer, Error> {
        Writer::open(&self.dir, &self.key, Options { gid: Some(self.gid), ..Options::default() })
    }
}

/// How records are handed over. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct AuditLog {
    queue: Arc<Queue<Batch>>,
    healthy: Arc<AtomicBool>,
}

/// The thread, to be stopped last.
#[derive(Debug)]
pub(crate) struct WriterThread {
    queue: Arc<Queue<Batch>>,
    stopping: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl AuditLog {
    /// Opens the log and starts the thread.
    pub(crate) fn start(settings: Settings, hub: Arc<Hub>) -> anyhow::Result<(Self, WriterThread)> {
        let writer = settings.open()?;
        let queue = Arc::new(Queue::new(QUEUE));
        let healthy = Arc::new(AtomicBool::new(true));
        hub.audit_durable(writer.durable_seq());
        let stopping = Arc::new(AtomicBool::new(false));
        let state = State {
            settings,
            stopping: Arc::clone(&stopping),
            writer: Some(writer),
            hub,
            healthy: Arc::clone(&healthy),
            waiting: VecDeque::new(),
            unsynced: VecDeque::new(),
            asked: Vec::new(),
            last_sync: Instant::now(),
            last_prune: Instant::now(),
            pruned_at: 0,
            signed: true,
        };
        let from = Arc::clone(&queue);
        let thread = std::thread::Builder::new().name("audit".into()).spawn(move || state.run(&from))?;
        Ok((Self { queue: Arc::clone(&queue), healthy }, WriterThread { queue, stopping, thread }))
    }

    /// Hands kernel records over. Waits while the queue is full: nothing is lost, the agents are held back.
    pub(crate) fn append_bulk(&self, entries: Vec<Entry>) {
        if !entries.is_empty() {
            // Without a deadline it does not come back.
            let _ = self.queue.push_when_room(Batch { entries, reply: None }, None);
        }
    }

    /// Hands the launcher's own records over, which are few. Never waits.
    pub(crate) fn append(&self, entries: Vec<Entry>) {
        if !entries.is_empty() {
            self.queue.push(Batch { entries, reply: None });
        }
    }

    /// The launcher stops: nobody waits for room any more.
    pub(crate) fn lift_limit(&self) {
        self.queue.lift_limit();
    }

    /// Appends a record and waits until it is durable.
    pub(crate) fn append_durable(&self, entry: Entry) -> Result<u64, Failure> {
        let full = |what| Err(Failure::new(ErrorCode::DiskFull, what));
        let (reply, answer) = channel();
        if self
            .queue
            .push_when_room(Batch { entries: vec![entry], reply: Some(reply) }, Some(PATIENCE))
            .is_err()
        {
            return full("the audit log cannot be written just now");
        }
        match answer.recv_timeout(PATIENCE) {
            Ok(result) => result,
            Err(_) => full("the audit log cannot be written just now; the record will follow when it can"),
        }
    }

    /// Whether records reach the disk. While they do not, nothing new is started: it would go unrecorded.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.healthy.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(Failure::new(
            ErrorCode::DiskFull,
            "the audit log cannot be written: no agent is started unrecorded",
        ))
    }
}

impl WriterThread {
    /// Writes what is left and ends.
    pub(crate) fn stop(self) {
        self.stopping.store(true, Ordering::Release);
        self.queue.push(Batch { entries: Vec::new(), reply: None });
        if self.thread.join().is_err() {
            tracing::error!("the audit thread panicked");
        }
    }
}

struct State {
    settings: Settings,
    stopping: Arc<AtomicBool>,
    writer: Option<Writer>,
    hub: Arc<Hub>,
    healthy: Arc<AtomicBool>,
    /// Not accepted by the writer yet.
    waiting: VecDeque<(Entry, bool)>,
    /// Accepted and not durable yet, with their numbers.
    unsynced: VecDeque<(u64, Entry)>,
    /// Who waits for which record.
    asked: Vec<(u64, Reply)>,
    last_sync: Instant,
    last_prune: Instant,
    /// The newest segment then.
    pruned_at: u64,
    /// Nothing came since the last checkpoint.
    signed: bool,
}

impl State {
    fn run(mut self, queue: &Queue<Batch>) {
        let mut replies = VecDeque::new();
        loop {
            let pause = if !self.waiting.is_empty() || self.writer.is_none() {
                RETRY
            } else if self.unsynced.is_empty() {
                if self.signed { PRUNE_EVERY } else { SIGN_AFTER }
            } else {
                SYNC_EVERY.saturating_sub(self.last_sync.elapsed())
            };
            // While the writer refuses, nothing more is taken: the queue fills and holds back who can wait.
            let mut next = if self.waiting.is_empty() {
                queue.pop(pause)
            } else {
                std::thread::sleep(pause);
                None
            };
            // Seen before the queue is emptied: what was handed over before the stop is written.
            let stop = self.stopping.load(Ordering::Acquire);
            if stop && next.is_none() {
                next = queue.pop(Duration::ZERO);
            }
            let mut taken = 0;
            while let Some(Batch { entries, reply }) = next {
                let last = entries.len().saturating_sub(1);
                let asked = reply.is_some();
                replies.extend(reply);
                self.waiting.extend(entries.into_iter().enumerate().map(|(i, e)| (e, asked && i == last)));
                taken += 1;
                next = if taken < TOGETHER || stop { queue.pop(Duration::ZERO) } else { None };
            }
            if taken == 0 && self.unsynced.is_empty() && !self.signed {
                self.sign();
            }
            self.write(&mut replies);
            if stop || !self.asked.is_empty() || self.last_sync.elapsed() >= SYNC_EVERY {
                self.sync();
            }
            self.prune();
            if stop {
                if !self.waiting.is_empty() {
                    tracing::error!(lost = self.waiting.len(), "the audit log cannot take its last records");
                }
                return self.sign();
            }
        }
    }

    fn sign(&mut self) {
        self.signed = true;
        if let Some(writer) = &mut self.writer
            && let Err(e) = writer.checkpoint()
        {
            tracing::error!(error = chain(&e), "the audit log's newest records cannot be signed");
        }
    }

    fn write(&mut self, replies: &mut VecDeque<Reply>) {
        if self.writer().is_none() {
            return;
        }
        while let (Some(writer), Some((entry, asked))) = (&mut self.writer, self.waiting.front()) {
            match writer.append(&entry.as_new()) {
                Ok(seq) => {
                    if *asked && let Some(reply) = replies.pop_front() {
                        self.asked.push((seq, reply));
                    }
                    if let Some((entry, _)) = self.waiting.pop_front() {
                        self.unsynced.push_back((seq, entry));
                    }
                }
                Err(e @ (Error::TooLong { .. } | Error::DetailInvalid { .. })) => {
                    tracing::error!(error = chain(&e), kind = %entry.kind, "a record that the audit log does not take");
                    if *asked && let Some(reply) = replies.pop_front() {
                        let _ = reply.send(Err(Failure::field("detail_json", e.to_string())));
                    }
                    self.waiting.pop_front();
                }
                Err(e) => return self.trouble(&e),
            }
        }
    }

    fn sync(&mut self) {
        self.last_sync = Instant::now();
        if self.unsynced.is_empty() {
            return;
        }
        self.signed = false;
        let Some(writer) = self.writer() else { return };
        match writer.sync() {
            Ok(seq) => {
                while self.unsynced.front().is_some_and(|(s, _)| *s <= seq) {
                    self.unsynced.pop_front();
                }
                for (asked, reply) in std::mem::take(&mut self.asked) {
                    let _ = reply.send(Ok(asked));
                }
                self.healthy.store(true, Ordering::Relaxed);
                self.hub.audit_durable(seq);
            }
            Err(e) => self.trouble(&e),
        }
    }

    fn trouble(&mut self, error: &Error) {
        if self.healthy.swap(false, Ordering::Relaxed) {
            tracing::error!(error = chain(error), "the audit log cannot be written");
        }
        if matches!(error, Error::Poisoned { .. }) {
            self.writer = None;
            // They will be written again, under other numbers perhaps.
            for (_, reply) in std::mem::take(&mut self.asked) {
                let message = "the audit log could not be synced; the record will follow when it can";
                let _ = reply.send(Err(Failure::new(ErrorCode::DiskFull, message)));
            }
        }
    }

    /// The writer, opened again after it was poisoned: what had not reached the disk is written anew.
    fn writer(&mut self) -> Option<&mut Writer> {
        if self.writer.is_none() {
            match self.settings.open() {
                Ok(writer) => {
                    let durable = writer.durable_seq();
                    self.writer = Some(writer);
                    let again = std::mem::take(&mut self.unsynced);
                    for (_, entry) in again.into_iter().filter(|(seq, _)| *seq > durable).rev() {
                        self.waiting.push_front((entry, false));
                    }
                }
                Err(e) => tracing::error!(error = chain(&e), "the audit log cannot be opened again"),
            }
        }
        self.writer.as_mut()
    }

    /// Keeps the log within its size: when a segment is full, and once a minute.
    fn prune(&mut self) {
        let (max, before) = (self.settings.max_bytes, self.pruned_at);
        let due = self.last_prune.elapsed() >= PRUNE_EVERY;
        if max == 0 {
            return;
        }
        let Some(writer) = self.writer.as_mut().filter(|w| due || w.segment() != before) else { return };
        let pruned = writer.prune_to(max);
        self.pruned_at = writer.segment();
        self.last_prune = Instant::now();
        match pruned {
            Ok(gone) if gone.segments > 0 => {
                tracing::info!(
                    segments = gone.segments,
                    first_seq = gone.first_seq,
                    "old audit records were removed"
                );
                self.signed = false;
            }
            Ok(_) => {}
            Err(e) => tracing::error!(error = chain(&e), "old audit segments cannot be removed"),
        }
    }
}
