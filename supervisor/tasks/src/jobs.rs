//! Agents that run one task per process. What a process leaves behind - checkpoints, its result, its exit - is in its folder
//! and is told by records of its journal, written by PID 1 of its sandbox; here it becomes what the core is told.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aion_agent_journal::Checkpoint as Record;
use aion_scheduler::{Attempt, AttemptView, Command};
use aion_task_journal::Journal;
use aion_types::{AgentName, TenantId};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::error::Error;
use crate::host::{BoxFuture, Host, JobEnd, Place};
use crate::inbox::Inbox;
use crate::left::{Left, read};
use crate::work::{JobOutcome, Work};

/// How often a running job's journal is looked at for checkpoints.
const LOOK: Duration = Duration::from_millis(500);
/// How often it is looked whether a launch has been answered.
const BEGINS: Duration = Duration::from_millis(5);
/// "Run me again": `EX_TEMPFAIL` of sysexits.h.
const AGAIN: u8 = 75;
/// As a shell shows an end by SIGTERM.
const TERMINATED: u8 = 143;
/// Notes that the history gets of one attempt: what they say is up to it.
const MAX_NOTES: u8 = 16;
/// While something of the host is away it is asked again after this.
const RETRY: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Job {
    place: Place,
    task: u64,
    next_checkpoint: u32,
    /// It was asked to make room.
    terminated: bool,
    /// It ended, and what it left is being taken in.
    ending: bool,
    folder: Option<PathBuf>,
    cursor: u64,
    /// What was found up to there and not taken in yet.
    left: Left,
    /// The last note that the history got, and how many it got.
    noted: (String, u8),
    /// Held while a checkpoint is taken in: the next one needs to know its number.
    taking: Arc<tokio::sync::Mutex<()>>,
}

/// The processes of attempts that are under way.
pub(crate) struct Jobs {
    journal: Arc<Journal>,
    inbox: Arc<Inbox>,
    host: Arc<dyn Host>,
    tmp: PathBuf,
    under_way: Mutex<HashMap<Attempt, Job>>,
}

impl Jobs {
    pub(crate) fn new(journal: Arc<Journal>, inbox: Arc<Inbox>, host: Arc<dyn Host>, tmp: PathBuf) -> Self {
        Self { journal, inbox, host, tmp, under_way: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Attempt, Job>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where an attempt runs, when it is a job's.
    pub(crate) fn place(&self, attempt: Attempt) -> Option<Place> {
        self.lock().get(&attempt).map(|job| job.place.clone())
    }

    /// The attempt was asked to make room.
    pub(crate) fn terminated(&self, attempt: Attempt) {
        if let Some(job) = self.lock().get_mut(&attempt) {
            job.terminated = true;
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what a launch is made of")]
    pub(crate) fn launch(
        self: Arc<Self>,
        place: Place,
        task: u64,
        id: String,
        number: u32,
        params: Vec<u8>,
        resume: Option<u32>,
        next_checkpoint: u32,
    ) -> BoxFuture<()> {
        let Some(attempt) = place.attempt else { return Box::pin(std::future::ready(())) };
        let job = Job {
            place: place.clone(),
            task,
            next_checkpoint,
            terminated: false,
            ending: false,
            folder: None,
            cursor: 0,
            left: Left::default(),
            noted: Default::default(),
            taking: Arc::default(),
        };
        self.lock().insert(attempt, job);
        Box::pin(async move {
            let jobs = Arc::clone(&self);
            let restored =
                tokio::task::spawn_blocking(move || resume.map(|n| jobs.unpack(task, n)).transpose()).await;
            let checkpoint = match restored {
                Ok(Ok(file)) => file.map(Arc::new),
                Ok(Err(error)) => return self.over(attempt, lost(&error)).await,
                Err(error) => return self.over(attempt, lost(&error)).await,
            };
            let launch = crate::host::JobLaunch { place, task: id, number, params, checkpoint };
            match self.host.launch(launch).await {
                Ok(folder) => self.begun(attempt, folder),
                Err(error) if error.passing => {
                    // Nobody's fault, but not for nothing at once: the launcher may be away for a while.
                    tokio::time::sleep(RETRY).await;
                    self.over(attempt, JobOutcome::Lost { reason: error.message }).await;
                }
                Err(error) => {
                    let (code, message) = (error.code.as_str().to_owned(), error.message);
                    self.over(attempt, JobOutcome::Failed { code, message, retryable: false }).await;
                }
            }
        })
    }

    /// A checkpoint as a file that a process can be given.
    fn unpack(&self, task: u64, number: u32) -> Result<File, Error> {
        use rustix::fs::{Mode, OFlags};
        let made = rustix::fs::open(&self.tmp, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, Mode::RUSR);
        let mut file =
            File::from(made.map_err(|errno| Error::internal("cannot make a temporary file", &errno))?);
        let written = self.journal.read_checkpoint(task, number, |part| {
            file.write_all(part)
                .map_err(|source| aion_task_journal::Error::Io { action: "write a temporary file", source })
        });
        written?;
        file.rewind().map_err(|error| Error::internal("cannot use a temporary file", &error))?;
        // Whoever gets it shall only read it.
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        File::open(path).map_err(|error| Error::internal("cannot open a temporary file", &error))
    }

    fn begun(self: &Arc<Self>, attempt: Attempt, folder: PathBuf) {
        {
            let mut jobs = self.lock();
            let Some(job) = jobs.get_mut(&attempt) else { return };
            job.folder = Some(folder);
        }
        self.inbox.system(Work::Command(Command::Started { attempt }));
        self.follow(attempt);
    }

    /// Looks for checkpoints until the job has ended.
    fn follow(self: &Arc<Self>, attempt: Attempt) {
        let jobs = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK).await;
                if jobs.lock().get(&attempt).is_none_or(|job| job.ending) {
                    return;
                }
                jobs.look(attempt).await;
                jobs.note(attempt);
                let checkpoint = jobs.lock().get_mut(&attempt).and_then(|job| job.left.checkpoint.take());
                if let Some(checkpoint) = checkpoint {
                    jobs.take_in(attempt, checkpoint, false).await;
                }
            }
        });
    }

    /// Reads the records since the last look, and keeps what they say.
    async fn look(self: &Arc<Self>, attempt: Attempt) {
        let Some((folder, cursor)) =
            self.lock().get(&attempt).and_then(|job| Some((job.folder.clone()?, job.cursor)))
        else {
            return;
        };
        let read = tokio::task::spawn_blocking(move || read(&folder, cursor)).await;
        match read {
            Ok(Ok((left, next))) => {
                // Of two looks at once the second is told nothing new.
                if let Some(job) = self.lock().get_mut(&attempt).filter(|job| job.cursor == cursor) {
                    job.cursor = next;
                    job.left.add(left);
                }
            }
            Ok(Err(why)) => tracing::warn!(%attempt, why, "a job's journal cannot be read"),
            Err(error) => {
                tracing::error!(%attempt, %error, "reading a job's journal did not run to its end");
            }
        }
    }

    /// Tells the history what init noted, when that is news.
    fn note(&self, attempt: Attempt) {
        let mut jobs = self.lock();
        let Some(job) = jobs.get_mut(&attempt) else { return };
        let Some(text) = job.left.note.take() else { return };
        let (last, count) = &mut job.noted;
        if *last == text || *count >= MAX_NOTES {
            return;
        }
        *count += 1;
        last.clone_from(&text);
        self.inbox.system(Work::Command(Command::Noted { attempt, text }));
    }

    /// Stores a checkpoint that the process left. False: it does not count.
    async fn take_in(self: &Arc<Self>, attempt: Attempt, record: Record, yields: bool) -> bool {
        let Some(taking) = self.lock().get(&attempt).map(|job| Arc::clone(&job.taking)) else { return false };
        let _one_at_a_time = taking.lock().await;
        let known = self.lock().get(&attempt).map(|job| (job.folder.clone(), job.task, job.next_checkpoint));
        let Some((Some(folder), task, next_checkpoint)) = known else { return false };
        let journal = Arc::clone(&self.journal);
        let stored = tokio::task::spawn_blocking(move || {
            let mut file = File::open(folder.join(format!("checkpoint.{}", record.file)))
                .map_err(|error| Error::internal("a job's checkpoint cannot be opened", &error))?
                .take(record.len);
            let mut writer = journal.checkpoint_writer(task, next_checkpoint)?;
            let mut part = vec![0; 256 << 10];
            loop {
                match file.read(&mut part) {
                    Ok(0) => break,
                    Ok(n) => writer.write(&part[..n])?,
                    Err(error) => return Err(Error::internal("a job's checkpoint cannot be read", &error)),
                }
            }
            let checkpoint = writer.finish()?;
            if checkpoint.info().sha256 != record.sha256 || checkpoint.info().length != record.len {
                let message = "a job's checkpoint is not the one that was told";
                return Err(Error::new(aion_types::ErrorCode::CheckpointCorrupt, message));
            }
            Ok(checkpoint)
        })
        .await;
        let checkpoint = match stored {
            Ok(Ok(checkpoint)) => Box::new(checkpoint),
            Ok(Err(error)) => {
                // It may have been written over by a later one, which is told, too.
                tracing::warn!(%attempt, %error, "a checkpoint of a job is left out");
                return false;
            }
            Err(error) => {
                tracing::error!(%attempt, %error, "storing a checkpoint did not run to its end");
                return false;
            }
        };
        let (answer, answered) = oneshot::channel();
        self.inbox.system(Work::Checkpointed {
            attempt,
            checkpoint,
            yields,
            session: None,
            answer: Some(answer),
        });
        match answered.await {
            Ok(Ok(number)) => {
                if let Some(job) = self.lock().get_mut(&attempt) {
                    job.next_checkpoint = number.saturating_add(1);
                }
                true
            }
            Ok(Err(error)) => {
                tracing::info!(%attempt, %error, "a checkpoint of a job does not count");
                false
            }
            Err(_) => false,
        }
    }

    /// The process has ended: takes in what it left, and tells the core.
    pub(crate) async fn ended(self: Arc<Self>, attempt: Attempt, end: JobEnd) {
        // A process may be over before it is known where it was begun.
        while self.lock().get(&attempt).is_some_and(|job| job.folder.is_none()) {
            tokio::time::sleep(BEGINS).await;
        }
        let terminated = {
            let mut jobs = self.lock();
            let Some(job) = jobs.get_mut(&attempt).filter(|job| !job.ending) else { return };
            job.ending = true;
            job.terminated
        };
        self.look(attempt).await;
        self.note(attempt);
        let left = self.lock().get_mut(&attempt).map(|job| std::mem::take(&mut job.left)).unwrap_or_default();
        let room = (terminated || end.stopped) && end.code == TERMINATED;
        let yields = !end.lost && (room || end.code == AGAIN);
        // What is packed at the end of a process that failed may be half of something.
        let at_end = left.at_end.filter(|_| yields);
        let yielding = yields && at_end.is_none();
        if let Some(record) = left.checkpoint
            && self.take_in(attempt, record, yielding).await
            && yielding
        {
            return self.forget(attempt).await;
        }
        if let Some(record) = at_end
            && self.take_in(attempt, record, true).await
        {
            return self.forget(attempt).await;
        }
        let outcome = if end.lost {
            JobOutcome::Lost { reason: "its process was lost".to_owned() }
        } else if yields {
            JobOutcome::Yielded
        } else if end.code == 0 && left.gone {
            JobOutcome::Lost { reason: "what its process left is not there".to_owned() }
        } else if end.code == 0 {
            match left.result {
                None => JobOutcome::Completed { result: b"null".to_vec() },
                Some(Ok(result)) => JobOutcome::Completed { result },
                Some(Err(message)) => {
                    JobOutcome::Failed { code: "RESULT_INVALID".to_owned(), message, retryable: false }
                }
            }
        } else if end.oom {
            let message = "it was killed: it reached its memory limit".to_owned();
            JobOutcome::Failed { code: "OUT_OF_MEMORY".to_owned(), message, retryable: true }
        } else {
            let message = format!("its process ended with {}", end.code);
            JobOutcome::Failed { code: format!("EXIT_{}", end.code), message, retryable: true }
        };
        self.over(attempt, outcome).await;
    }

    /// Tells the core, until it is on disk; then nothing of the process is needed any more.
    async fn over(self: &Arc<Self>, attempt: Attempt, end: JobOutcome) {
        let mut end = Some(end);
        while let Some(now) = end.take() {
            let again = now.again();
            let (answer, answered) = oneshot::channel();
            self.inbox.system(Work::JobEnded { attempt, end: now, answer });
            match answered.await {
                Ok(Err(error))
                    if error.retry_after_ms.is_some() || error.code == aion_types::ErrorCode::Internal =>
                {
                    tokio::time::sleep(RETRY).await;
                    end = Some(again);
                }
                // Recorded, or of no interest any more.
                Ok(_) => {}
                // The daemon ends: the next one finds the process and its end.
                Err(_) => return,
            }
        }
        self.forget(attempt).await;
    }

    async fn forget(&self, attempt: Attempt) {
        let Some(job) = self.lock().remove(&attempt) else { return };
        if let Err(why) = self.host.forget(job.place).await {
            tracing::warn!(%attempt, why, "a job's files stay for now");
        }
    }

    /// After a start: what really runs, against what the core knows.
    pub(crate) fn reconcile(
        self: &Arc<Self>,
        held: impl Iterator<Item = (AttemptView, u32)>,
        runtime: &Handle,
    ) {
        for (view, checkpoints) in held {
            let (Ok(tenant), Ok(agent)) = (TenantId::parse(&view.tenant), AgentName::parse(&view.agent))
            else {
                continue;
            };
            let place = Place { tenant, agent, attempt: Some(view.attempt) };
            if self.lock().contains_key(&view.attempt) {
                // It is being looked after: this was only a disk that was full for a while.
                self.inbox.system(Work::Command(Command::Confirmed { attempt: view.attempt }));
                continue;
            }
            let job = Job {
                place: place.clone(),
                task: view.task.0,
                next_checkpoint: checkpoints.saturating_add(1),
                terminated: view.stopping || view.state == aion_scheduler::State::Preempting,
                ending: false,
                folder: None,
                cursor: 0,
                left: Left::default(),
                noted: Default::default(),
                taking: Arc::default(),
            };
            self.lock().insert(view.attempt, job);
            runtime.spawn(Arc::clone(self).find(view.attempt, place));
        }
    }

    async fn find(self: Arc<Self>, attempt: Attempt, place: Place) {
        let found = loop {
            match self.host.find(place.clone()).await {
                Ok(found) => break found,
                Err(why) => {
                    tracing::info!(%attempt, why, "not known yet whether a job runs");
                    tokio::time::sleep(RETRY).await;
                }
            }
        };
        let Some(found) = found else {
            return self
                .over(attempt, JobOutcome::Lost { reason: "it was not running any more".to_owned() })
                .await;
        };
        if let Some(job) = self.lock().get_mut(&attempt) {
            job.folder = Some(found.folder);
        }
        self.inbox.system(Work::Command(Command::Confirmed { attempt }));
        match found.end {
            Some(end) => self.ended(attempt, end).await,
            None => self.follow(attempt),
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }
}

impl JobOutcome {
    fn again(&self) -> Self {
        match self {
            Self::Completed { result } => Self::Completed { result: result.clone() },
            Self::Failed { code, message, retryable } => {
                Self::Failed { code: code.clone(), message: message.clone(), retryable: *retryable }
            }
            Self::Yielded => Self::Yielded,
            Self::Lost { reason } => Self::Lost { reason: reason.clone() },
        }
    }
}

fn lost(error: &dyn std::error::Error) -> JobOutcome {
    JobOutcome::Lost { reason: error.to_string() }
}
