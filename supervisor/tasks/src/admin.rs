//! The journal as a whole: check, compact, export, import, copies and pieces of an archive.
//!
//! An import is read into a folder beside the journal, checked there, and then takes its place between two groups.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aion_api_proto::v1 as api;
use aion_scheduler::{Config, DecodeError, Ended, TaskNumber, TaskView, keys};
use aion_task_journal::{Checked, Journal, Line, Mark, Position, Replayed, RowRefs};
use tokio::sync::{mpsc, oneshot};

use crate::engine::restore;
use crate::error::Error;
use crate::read::blocking;
use crate::tasks::Tasks;
use crate::work::{Look, Work};

/// Bytes of one part.
const PART: usize = 256 << 10;
/// Ends of an archive that one request may name.
const MAX_MARKS: usize = 256;

impl Tasks {
    /// Reads everything and compares it with its checksums. Nothing is written meanwhile: requests wait.
    ///
    /// # Errors
    /// The daemon goes down.
    pub async fn check_journal(&self) -> Result<api::JournalReport, Error> {
        let config = self.inner.config.borrow().clone();
        // So that nothing new looks wrong.
        let checked = self.while_held(move |journal| Ok(checked(journal, &config))).await?;
        let journal = Arc::clone(&self.inner.journal);
        blocking(move || Ok(report(checked, journal.stats().map_or(0, |stats| stats.disk_bytes)))).await
    }

    /// Does something while the engine holds still between two groups: what it has acknowledged is in the journal, nothing is written there,
    /// and no effect begins of what is not there. Requests wait meanwhile, so it should be short.
    ///
    /// # Errors
    /// The daemon goes down, or what `work` says.
    async fn while_held<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Journal) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (ready, is_ready) = oneshot::channel::<()>();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let look: Look = Box::new(move |_| {
            Box::new(move || {
                let _ = ready.send(());
                // On the writer's thread: what is handed in meanwhile waits for its turn. It ends with the work, however that ends.
                let _ = released.recv();
            })
        });
        self.inner.inbox.system(Work::Look(look));
        is_ready.await.map_err(|_| Error::away())?;
        let journal = Arc::clone(&self.inner.journal);
        blocking(move || {
            let _held = release;
            work(&journal)
        })
        .await
    }

    /// Copies the journal to a folder that is not there yet, and does something more before anything else happens to a task: what `with` finds
    /// and the copy are of one moment. Gives for how long tasks were held up, and where the copy stands, too.
    ///
    /// # Errors
    /// The disk is full, or the journal cannot be copied.
    pub async fn copy_journal<T: Send + 'static>(
        &self,
        to: PathBuf,
        with: impl FnOnce() -> T + Send + 'static,
    ) -> Result<(Duration, Position, T), Error> {
        let journal = Arc::clone(&self.inner.journal);
        // Most of what is in memory goes to the disk while nobody waits for it.
        blocking(move || Ok(journal.flush()?)).await?;
        self.while_held(move |journal| {
            let since = Instant::now();
            let position = journal.copy_to(&to)?;
            let found = with();
            Ok((since.elapsed(), position, found))
        })
        .await
    }

    /// Drops what is no longer kept and gives its space back.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub async fn compact_journal(&self) -> Result<api::JournalReport, Error> {
        let removed = self.prune().await?;
        let journal = Arc::clone(&self.inner.journal);
        blocking(move || {
            journal.compact()?;
            let stats = journal.stats()?;
            let records =
                |name: &str| stats.families.iter().find(|(family, ..)| *family == name).map_or(0, |f| f.1);
            Ok(api::JournalReport {
                tasks: records("bodies"),
                events: records("events"),
                checkpoints: records("checkpoints"),
                bytes: stats.disk_bytes,
                faults: Vec::new(),
                removed,
            })
        })
        .await
    }

    /// Everything, as of one moment, in parts.
    #[must_use]
    pub fn export_journal(&self) -> mpsc::Receiver<Result<api::JournalPart, Error>> {
        let (send, receive) = mpsc::channel(4);
        let journal = Arc::clone(&self.inner.journal);
        tokio::task::spawn_blocking(move || {
            let parts = Parts { send: send.clone(), part: Vec::with_capacity(PART) };
            if let Err(error) = journal.export(parts) {
                let _ = send.blocking_send(Err(Error::from(error)));
            }
        });
        receive
    }

    /// What was committed after one of the marks, as a piece of an archive, in parts.
    ///
    /// # Errors
    /// A mark is none.
    pub fn archive_journal(
        &self,
        request: &api::JournalArchiveRequest,
    ) -> Result<mpsc::Receiver<Result<api::JournalPart, Error>>, Error> {
        if request.marks.len() > MAX_MARKS {
            let why = format!("marks: there are {}, at most {MAX_MARKS} are taken", request.marks.len());
            return Err(Error::too_large("marks", why));
        }
        let mark = |mark: &api::JournalMark| {
            let line = mark.line.as_slice().try_into().map(Line);
            let line = line.map_err(|_| Error::field("marks.line", "it must have 16 bytes"))?;
            Ok(Mark { commit: mark.commit, line, hint: mark.hint })
        };
        let marks = request.marks.iter().map(mark).collect::<Result<Vec<_>, Error>>()?;
        let (send, receive) = mpsc::channel(4);
        let journal = Arc::clone(&self.inner.journal);
        tokio::task::spawn_blocking(move || {
            let parts = Parts { send: send.clone(), part: Vec::with_capacity(PART) };
            match journal.archive(&marks, parts) {
                Ok(done) if done.begins && !marks.is_empty() => {
                    tracing::warn!(
                        "an archive of the journal has a gap: what came after it is no longer in the log"
                    );
                }
                Ok(done) => tracing::debug!(commits = done.commits, "wrote a piece of the journal's archive"),
                Err(error) => drop(send.blocking_send(Err(Error::from(error)))),
            }
        });
        Ok(receive)
    }

    /// Takes an export in: it becomes the journal at once. Only when there are no tasks yet.
    ///
    /// # Errors
    /// There are tasks, or the export is damaged.
    pub async fn import_journal(&self, parts: mpsc::Receiver<Vec<u8>>) -> Result<api::JournalReport, Error> {
        let _alone = self.inner.importing.try_lock().map_err(|_| {
            Error::new(aion_types::ErrorCode::TaskExists, "another import is under way")
                .hint("wait until it has ended")
        })?;
        let (answer, answered) = oneshot::channel();
        let look: Look = Box::new(move |core| {
            let none = core.tasks_from(TaskNumber(0)).next().is_none();
            Box::new(move || {
                let _ = answer.send(none);
            })
        });
        self.inner.inbox.system(Work::Look(look));
        let empty = answered.await.map_err(|_| Error::away())?;
        let journal = Arc::clone(&self.inner.journal);
        let config = self.inner.config.borrow().clone();
        let imported = pending(journal.path());
        let from = imported.clone();
        let found = blocking(move || {
            if !empty || journal.stats()?.ended > 0 {
                return Err(has_tasks_already());
            }
            let _ = std::fs::remove_dir_all(&imported);
            let options = aion_task_journal::Options::default();
            let input = Taken { parts, part: Vec::new(), at: 0 };
            let done = Journal::import(&imported, &options, input)?;
            let found = report(checked(&Journal::open_read_only(&imported, options)?, &config), done.bytes);
            if let Some(fault) = found.faults.first() {
                let why = format!("the export is damaged, {} faults: {fault}", found.faults.len());
                let _ = std::fs::remove_dir_all(&imported);
                return Err(Error::new(aion_types::ErrorCode::JournalBroken, why)
                    .hint("nothing was changed; export it again where it came from"));
            }
            Ok(found)
        })
        .await?;
        let (answer, answered) = oneshot::channel();
        self.inner.inbox.system(Work::Import { from, answer });
        answered.await.map_err(|_| Error::away())??;
        Ok(found)
    }
}

/// Applies a piece of an archive to a journal that nobody has open.
///
/// # Errors
/// It does not go on from there, or is damaged, or the journal cannot be written.
pub fn replay_journal(journal: &Path, piece: impl io::Read) -> Result<Replayed, aion_task_journal::Error> {
    Journal::replay(journal, &aion_task_journal::Options::default(), piece)
}

/// Why an import is refused.
pub(crate) fn has_tasks_already() -> Error {
    Error::new(aion_types::ErrorCode::TaskExists, "the journal has tasks: an import would replace them").hint(
        "import on a node without tasks; or stop aiond, move STATE/journal away, start it, and import then",
    )
}

/// An import beside a journal's folder.
fn pending(journal: &std::path::Path) -> PathBuf {
    let mut name = journal.file_name().unwrap_or_default().to_owned();
    name.push(".imported");
    journal.with_file_name(name)
}

/// Puts an import, which was whole when aiond ended, in the place of a journal without tasks; called before the journal is opened.
pub(crate) fn adopt_import(journal: &std::path::Path) -> io::Result<()> {
    let imported = pending(journal);
    if !imported.is_dir() {
        return Ok(());
    }
    if journal.exists() {
        // Opened and not only read: nobody else may have it, and its log counts.
        let options = aion_task_journal::Options::default();
        let old = Journal::open(journal, options).map_err(io::Error::other)?;
        if has_tasks(&old).map_err(io::Error::other)? {
            tracing::error!("an imported journal is left out: there were new tasks before it could be taken");
            return std::fs::remove_dir_all(&imported);
        }
    }
    let mut old = journal.file_name().unwrap_or_default().to_owned();
    old.push(".before-import");
    let old = journal.with_file_name(old);
    if journal.exists() {
        let _ = std::fs::remove_dir_all(&old);
        std::fs::rename(journal, &old)?;
    }
    std::fs::rename(&imported, journal)?;
    tracing::info!("an imported journal took the place of the empty one");
    let _ = std::fs::remove_dir_all(&old);
    Ok(())
}

/// Whether anything in it is a task.
fn has_tasks(journal: &Journal) -> Result<bool, aion_task_journal::Error> {
    let mut found = journal.stats()?.ended > 0;
    journal.rows(|key, _| {
        found |= key.first() == Some(&keys::TASK);
        Ok::<_, aion_task_journal::Error>(())
    })?;
    Ok(found)
}

/// Checks a journal; the rows of what lives must make a core, too.
fn checked(journal: &Journal, config: &Config) -> Checked {
    let core = restore(journal, config);
    let living = |task: u64| core.as_ref().ok().and_then(|core| core.task_by_number(TaskNumber(task)));
    let mut checked = journal.check(|key, value| {
        let text = |error: DecodeError| error.to_string();
        match key.first() {
            Some(&keys::ENDED) => {
                let view = TaskView::decode(value).map_err(text)?;
                // One that was cancelled, and whose process is not gone yet, has its row among those that live, too.
                let refs = RowRefs { task: view.number.0, last_event: view.last_event };
                Ok(living(refs.task).is_none().then_some(refs))
            }
            Some(&keys::ENDED_INDEX) => Ended::decode(value).map(|_| None).map_err(text),
            Some(&keys::TASK) => {
                let task = key.last_chunk::<8>().map(|n| u64::from_be_bytes(*n)).ok_or("it has no number")?;
                Ok(living(task).map(|view| RowRefs { task, last_event: view.last_event }))
            }
            _ => Ok(None),
        }
    });
    if let Err(error) = &core {
        checked.problem_count += 1;
        checked.problems.push(error.message.clone());
    }
    checked
}

fn report(checked: Checked, bytes: u64) -> api::JournalReport {
    let untold = checked.problem_count.saturating_sub(checked.problems.len() as u64);
    let mut faults = checked.problems;
    if untold > 0 {
        faults.push(format!("and {untold} more"));
    }
    api::JournalReport {
        tasks: checked.bodies,
        events: checked.events,
        checkpoints: checked.checkpoints,
        bytes,
        faults,
        removed: 0,
    }
}

/// A file that is written in parts to somebody who may read slowly.
struct Parts {
    send: mpsc::Sender<Result<api::JournalPart, Error>>,
    part: Vec<u8>,
}

impl Write for Parts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.part.extend_from_slice(bytes);
        if self.part.len() >= PART {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.part.is_empty() {
            return Ok(());
        }
        let data = std::mem::replace(&mut self.part, Vec::with_capacity(PART));
        self.send
            .blocking_send(Ok(api::JournalPart { data }))
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

/// Parts as they come, as a file.
struct Taken {
    parts: mpsc::Receiver<Vec<u8>>,
    part: Vec<u8>,
    at: usize,
}

impl io::Read for Taken {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.at == self.part.len() {
            match self.parts.blocking_recv() {
                Some(part) => (self.part, self.at) = (part, 0),
                None => return Ok(0),
            }
        }
        let n = out.len().min(self.part.len() - self.at);
        out[..n].copy_from_slice(&self.part[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}
