//! A thread that writes: batches come in order, what waits is merged into one write, and each is told how it went.
//!
//! While one write is on its way to the disk its user makes the next batches. They build on what is not on disk yet, so
//! after one failure all that follow fail as well, until the user has gone back to what is on disk.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::{self, JoinHandle};

use crate::batch::Batch;
use crate::error::Error;
use crate::journal::Journal;

/// How much is merged, and how much may wait.
#[derive(Debug, Clone)]
pub struct WriterOptions {
    /// Batches are merged up to so many bytes.
    pub max_bytes: usize,
    /// So many batches may wait; then handing in another one waits.
    pub queue: usize,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self { max_bytes: 4 << 20, queue: 256 }
    }
}

/// Told on the writer's thread whether the batch is on disk.
type Done = Box<dyn FnOnce(Result<(), Arc<Error>>) + Send>;

enum Job {
    Write(Batch, Done),
    Recover(mpsc::Sender<Result<(), Error>>),
    Replace(PathBuf, mpsc::Sender<Result<(), Error>>),
}

/// The handle. Dropping it waits for what was handed in.
#[derive(Debug)]
pub struct Writer {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start(journal: Arc<Journal>, options: WriterOptions) -> Result<Self, Error> {
        let (jobs, queue) = mpsc::sync_channel(options.queue);
        let thread =
            thread::Builder::new().name("journal".to_owned()).spawn(move || run(&journal, &options, &queue));
        let thread = thread.map_err(Error::io("start the journal's thread"))?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Hands in a batch. `done` is called once, in the order of the batches, on the writer's thread.
    pub fn submit(&self, batch: Batch, done: impl FnOnce(Result<(), Arc<Error>>) + Send + 'static) {
        let job = Job::Write(batch, Box::new(done));
        let refused = match &self.jobs {
            Some(jobs) => jobs.send(job).err().map(|unsent| unsent.0),
            None => Some(job),
        };
        if let Some(Job::Write(_, done)) = refused {
            done(Err(Arc::new(Error::WriterEnded)));
        }
    }

    /// After a failure: waits until all that was handed in has failed, and opens the journal again. Batches count again
    /// once this has returned without an error.
    ///
    /// # Errors
    /// As [`Journal::recover`].
    pub fn recover(&self) -> Result<(), Error> {
        let (answer, answered) = mpsc::channel();
        let jobs = self.jobs.as_ref().ok_or(Error::WriterEnded)?;
        jobs.send(Job::Recover(answer)).map_err(|_| Error::WriterEnded)?;
        answered.recv().map_err(|_| Error::WriterEnded)?
    }

    /// When all that was handed in is on disk: another journal takes the place of this one.
    ///
    /// # Errors
    /// As [`Journal::replace`].
    pub fn replace(&self, from: PathBuf) -> Result<(), Error> {
        let (answer, answered) = mpsc::channel();
        let jobs = self.jobs.as_ref().ok_or(Error::WriterEnded)?;
        jobs.send(Job::Replace(from, answer)).map_err(|_| Error::WriterEnded)?;
        answered.recv().map_err(|_| Error::WriterEnded)?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(journal: &Journal, options: &WriterOptions, queue: &Receiver<Job>) {
    let mut failed: Option<Arc<Error>> = None;
    let mut batches = Vec::new();
    let mut dones = Vec::new();
    let mut put_back = None;
    while let Some(job) = put_back.take().or_else(|| queue.recv().ok()) {
        let mut next = Some(job);
        let mut bytes = 0;
        loop {
            match next {
                Some(Job::Write(batch, done)) => {
                    bytes += batch.bytes();
                    batches.push(batch);
                    dones.push(done);
                }
                Some(Job::Recover(answer)) if batches.is_empty() => {
                    let result = journal.recover();
                    if result.is_ok() {
                        failed = None;
                    }
                    let _ = answer.send(result);
                }
                Some(Job::Replace(from, answer)) if batches.is_empty() => {
                    let _ = answer.send(journal.replace(&from));
                }
                other => {
                    put_back = other;
                    break;
                }
            }
            if bytes >= options.max_bytes {
                break;
            }
            next = queue.try_recv().ok();
        }
        if batches.is_empty() {
            continue;
        }
        if failed.is_none() {
            failed = journal.commit_together(&mut batches).err().map(Arc::new);
        }
        batches.clear();
        for done in dones.drain(..) {
            done(failed.clone().map_or(Ok(()), Err));
        }
    }
}
