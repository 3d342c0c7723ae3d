//! The engine: one thread that owns the core. It takes a group of work, applies it, hands one batch to the journal's
//! writer, and goes on with the next group while that one is on its way to the disk.
//!
//! A write that fails is answered to everybody in it and behind it; then the core is made anew from what is on disk, and
//! agents attach again, because what memory knew beyond the disk never happened.

mod apply;
mod group;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aion_scheduler::{Command, Config, Refusal, Restore, Scheduler, TaskNumber};
use aion_task_journal::{Journal, Writer};

use crate::clock::now_ms;
use crate::config::Settings;
use crate::error::Error;
use crate::inbox::{Inbox, Taken};
use crate::metrics::Metrics;
use crate::sessions::Sessions;
use crate::tasks::Roster;
use crate::work::{Answer, Work};

use group::{Group, Outlets};

/// While the journal cannot be opened again it is tried this often.
const AGAIN: Duration = Duration::from_millis(500);

/// The thread's own.
pub(crate) struct Engine {
    core: Scheduler,
    config: Config,
    settings: Settings,
    journal: Arc<Journal>,
    writer: Writer,
    inbox: Arc<Inbox>,
    sessions: Arc<Sessions>,
    metrics: Arc<Metrics>,
    outlets: Arc<Outlets>,
    roster: Arc<Roster>,
    bodies: apply::Bodies,
    /// Taken in when the group that is being made has departed.
    import: Option<(PathBuf, Answer<()>)>,
}

pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) settings: Settings,
    pub(crate) journal: Arc<Journal>,
    pub(crate) writer: Writer,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) outlets: Arc<Outlets>,
    pub(crate) roster: Arc<Roster>,
}

pub(crate) use group::Outlets as EngineOutlets;

/// The core as the journal has it.
pub(crate) fn restore(journal: &Journal, config: &Config) -> Result<Scheduler, Error> {
    let broken = |error: &dyn std::fmt::Display| {
        Error::new(
            aion_types::ErrorCode::JournalBroken,
            format!("the journal of the tasks cannot be read: {error}"),
        )
        .hint("`aionctl journal check` says what is damaged")
    };
    let mut rows = Restore::new(config.clone()).map_err(|error| Error::from(Refusal::Config(error)))?;
    journal.rows(|key, value| rows.row(key, value).map_err(|error| broken(&error)))?;
    rows.finish().map_err(|error| broken(&error))
}

impl Engine {
    /// Restores the core and begins its epoch.
    pub(crate) fn begin(parts: Parts) -> Result<Self, Error> {
        let core = restore(&parts.journal, &parts.config)?;
        let (waiting, running) = core
            .queues(None)
            .iter()
            .fold((0, 0), |(waiting, running), queue| (waiting + queue.depth, running + queue.running));
        tracing::info!(waiting, running, "restored the tasks");
        let Parts { config, settings, journal, writer, inbox, sessions, metrics, outlets, roster } = parts;
        let bodies = apply::Bodies::default();
        let mut engine = Self {
            core,
            config,
            settings,
            journal,
            writer,
            inbox,
            sessions,
            metrics,
            outlets,
            roster,
            bodies,
            import: None,
        };
        engine.boot();
        engine.outlets.rebooted(&engine.core);
        Ok(engine)
    }

    /// A new epoch: what is issued from here on differs from all before it.
    fn boot(&mut self) {
        let epoch = self.journal.epoch().max(self.core.epoch().saturating_add(1));
        let mut group = Group::begin();
        self.command(&mut group, Command::Boot { epoch });
        self.command(&mut group, Command::Configure(Box::new(self.config.clone())));
        self.metrics.restarted(&self.core, now_ms());
        self.depart(group);
    }

    /// Runs until the inbox is closed and empty.
    pub(crate) fn run(mut self) {
        let mut work: Vec<Work> = Vec::new();
        loop {
            let due = self.core.next_wakeup();
            match self.inbox.take(&mut work, due.map(instant)) {
                Taken::Closed => return,
                Taken::Failed => self.recover(),
                Taken::Work => {
                    let mut group = Group::begin();
                    if self.core.next_wakeup().is_some_and(|due| due <= group.now) {
                        self.command(&mut group, Command::Tick);
                    }
                    for one in work.drain(..) {
                        self.apply(&mut group, one);
                    }
                    self.depart(group);
                    if let Some((from, answer)) = self.import.take() {
                        let _ = answer.send(self.take_in(&from));
                    }
                }
            }
        }
    }

    /// Another journal in the place of this one, which has no tasks; the core is made of it.
    fn take_in(&mut self, from: &Path) -> Result<(), Error> {
        if self.core.tasks_from(TaskNumber(0)).next().is_some() {
            let _ = std::fs::remove_dir_all(from);
            return Err(crate::admin::has_tasks_already());
        }
        self.sessions.end_all();
        self.writer.replace(from.to_owned()).map_err(|error| {
            let _ = std::fs::remove_dir_all(from);
            match error {
                aion_task_journal::Error::NotEmpty { .. } => crate::admin::has_tasks_already(),
                error => Error::from(error),
            }
        })?;
        let core = restore(&self.journal, &self.config)?;
        self.begin_anew(core);
        tracing::info!("an imported journal took the place of the empty one");
        Ok(())
    }

    /// Goes on with another core: what runs is compared with it.
    fn begin_anew(&mut self, core: Scheduler) {
        self.core = core;
        self.bodies = apply::Bodies::default();
        self.boot();
        self.outlets.rebooted(&self.core);
        self.roster.tell(&self.inbox);
    }

    /// Makes a batch of a group and sends it off.
    fn depart(&mut self, mut group: Group) {
        self.core.flush(&mut group.out);
        self.metrics.applied(&self.core, &group.out.events, group.now);
        group.attach_bodies(&mut self.bodies);
        let batch = group.batch();
        if batch.is_empty() && group.answers_nothing() {
            return;
        }
        self.inbox.departed();
        let (inbox, outlets) = (Arc::clone(&self.inbox), Arc::clone(&self.outlets));
        // A look waits its turn and writes nothing.
        let begun = (!batch.is_empty()).then(Instant::now);
        let rest = group.rest();
        self.writer.submit(batch, move |written| {
            outlets.arrived(rest, &written, begun);
            inbox.arrived(written.is_ok());
        });
    }

    /// Back to what is on disk.
    fn recover(&mut self) {
        tracing::error!("a write to the journal of the tasks failed; going back to what is on disk");
        self.sessions.end_all();
        loop {
            let back = self
                .writer
                .recover()
                .map_err(Error::from)
                .and_then(|()| restore(&self.journal, &self.config));
            match back {
                Ok(core) => {
                    self.inbox.recovered();
                    self.metrics.recovered();
                    self.begin_anew(core);
                    tracing::info!("the journal of the tasks is whole again");
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, "the journal of the tasks cannot be opened yet");
                    self.refuse_waiting(&error);
                    if self.inbox.is_closed() {
                        self.inbox.recovered();
                        return;
                    }
                    std::thread::sleep(AGAIN);
                }
            }
        }
    }

    /// Nobody waits for a disk that has no room.
    fn refuse_waiting(&mut self, error: &Error) {
        self.inbox.recovered();
        let mut work = Vec::new();
        while let Taken::Work = self.inbox.take(&mut work, Some(Instant::now())) {
            if work.is_empty() {
                break;
            }
            for one in work.drain(..) {
                one.refuse(error);
            }
        }
    }
}

/// When the wall clock will show a time; it may be set meanwhile, so never long from now.
fn instant(ms: u64) -> Instant {
    let wait = Duration::from_millis(ms.saturating_sub(now_ms())).min(Duration::from_secs(5));
    Instant::now() + wait
}
