//! Backups: the state as of one moment, while everything runs, as a stream of bytes.
//!
//! The two databases are copied by links to their files while the engine of tasks holds still: together they are what a power cut at that
//! moment would have left, so whatever holds after a crash holds after a restore. Everything else is read afterwards, at leisure, in an
//! order in which what is read later knows at least what was read before (docs/adr/0016-backups.md).

mod audit;
mod contents;
mod output;
mod parts;
mod staging;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aion_api_proto::v1 as api;
use aion_backup::{FORMAT, Manifest, Part, Position, SUPPORTED, Versions, Writer};
use aion_types::ErrorCode;
use serde_json::json;
use tokio::sync::{OwnedMutexGuard, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::backup::contents::Contents;
use crate::backup::parts::Parts;
use crate::backup::staging::Staging;
use crate::core::Core;
use crate::logs::Answers;
use crate::principal::Principal;
use crate::problem::{Outcome, Problem};
use crate::trail::Entry;

pub(crate) use staging::clear;

/// Parts that wait for a client that reads slowly.
const AHEAD: usize = 4;

/// How long one that is just ending, because its client went away, is waited for.
const PATIENCE: Duration = Duration::from_secs(3);

/// What a backup is made of, as of one moment.
struct Moment {
    staging: Staging,
    /// Agents that are on record: others' folders are no part of it.
    agents: BTreeSet<String>,
    cursor: u64,
    /// Where the copy of the tasks' journal stands.
    journal: Position,
    paused: Duration,
    created: SystemTime,
}

impl Core {
    /// Begins a backup. What it needs to be of one moment is done when this returns.
    pub(crate) async fn create_backup(
        self: Arc<Self>,
        principal: Principal,
        request: api::CreateBackupRequest,
    ) -> Outcome<Answers<api::BackupPart>> {
        let turn = tokio::time::timeout(PATIENCE, Arc::clone(&self.backup_turn).lock_owned());
        let turn = turn.await.map_err(|_| {
            Problem::new(ErrorCode::ResourceExhausted, "another backup is being made")
                .hint("wait until it has ended, or end its client")
        })?;
        let permit = self.stream_permit()?;
        let moment = match self.moment().await {
            Ok(moment) => moment,
            Err(problem) => {
                self.tell_backup(&principal, (0, 0), Duration::ZERO, Err(&problem)).await;
                return Err(problem);
            }
        };
        let (send, receive) = mpsc::channel(AHEAD);
        tokio::spawn(async move {
            let _permit = permit;
            self.stream_backup(principal, request, moment, turn, send).await;
        });
        Ok(Box::pin(ReceiverStream::new(receive)))
    }

    /// Copies what changes together.
    async fn moment(self: &Arc<Self>) -> Outcome<Moment> {
        let tasks = self.tasks()?.clone();
        let (store, state) = (Arc::clone(&self.store), self.options.state.clone());
        // Tools before and after: one that goes meanwhile is in the first look, one that comes in the second.
        let staging = blocking(move || {
            let staging = Staging::make(&state)?;
            staging.link_tools(&state)?;
            store.flush()?;
            Ok(staging)
        })
        .await?;
        let (to, db) = (staging.path().join(JOURNAL), staging.path().join(Part::Db.folder()));
        let core = Arc::clone(self);
        let (paused, journal, found) = tasks
            .copy_journal(to, move || -> Outcome<(BTreeSet<String>, SystemTime)> {
                let mut agents = BTreeSet::new();
                core.store.each_agent(|record| {
                    agents.insert(record.id.as_str().to_owned());
                })?;
                core.store.checkpoint(&db)?;
                Ok((agents, SystemTime::now()))
            })
            .await?;
        let (agents, created) = found?;
        let (store, state) = (Arc::clone(&self.store), self.options.state.clone());
        blocking(move || {
            staging.link_tools(&state)?;
            // At least what the copy knows: records that it has indexed are in the log, which is read later.
            Ok(Moment { cursor: store.cursor()?, staging, agents, journal, paused, created })
        })
        .await
    }

    async fn stream_backup(
        self: Arc<Self>,
        principal: Principal,
        request: api::CreateBackupRequest,
        moment: Moment,
        turn: OwnedMutexGuard<()>,
        send: mpsc::Sender<Result<api::BackupPart, Status>>,
    ) {
        let (core, paused) = (Arc::clone(&self), moment.paused);
        let parts = Parts::new(send.clone(), Arc::clone(&self.store), self.shutdown.clone());
        let written = tokio::task::spawn_blocking(move || {
            let written = write(&core.options.state, &moment, &request, parts);
            // The links are gone before the next one begins.
            drop((moment, turn));
            written
        });
        let outcome = match written.await {
            Ok(outcome) => outcome,
            Err(error) => Err(Problem::internal("the backup did not run to its end", &error)),
        };
        self.tell_backup(
            &principal,
            *outcome.as_ref().unwrap_or(&(0, 0)),
            paused,
            outcome.as_ref().map(|_| ()),
        )
        .await;
        if let Err(problem) = outcome {
            let status = if self.shutdown.is_cancelled() { Self::going_down() } else { problem.into() };
            // Whoever went away is the reason.
            let _ = send.send(Err(status)).await;
        }
    }

    async fn tell_backup(
        &self,
        principal: &Principal,
        (files, bytes): (u64, u64),
        paused: Duration,
        outcome: Result<(), &Problem>,
    ) {
        let paused_us = u64::try_from(paused.as_micros()).unwrap_or(u64::MAX);
        match outcome {
            Ok(()) => tracing::info!(files, bytes, paused_us, "made a backup"),
            Err(problem) => tracing::warn!(code = problem.code().as_str(), %problem, "a backup was not made"),
        }
        let detail = json!({"files": files, "bytes": bytes, "paused_us": paused_us});
        let entry = Entry { principal, kind: "api.backup.create", agent: "", detail };
        self.trail.record(entry, outcome).await;
    }
}

/// Where the journal's copy is, in the staging folder and in an archive: as in a state.
const JOURNAL: &str = "journal/db";

fn write(
    state: &Path,
    moment: &Moment,
    request: &api::CreateBackupRequest,
    parts: Parts,
) -> Outcome<(u64, u64)> {
    let contents = Contents::find(state, moment, !request.without_output)?;
    let manifest = Manifest {
        format: FORMAT,
        aion: env!("CARGO_PKG_VERSION").to_owned(),
        created: Manifest::time(moment.created),
        host: host(),
        state: Versions {
            layout: SUPPORTED.layout,
            store: aion_store::SCHEMA_VERSION,
            journal: u32::try_from(aion_task_journal::SCHEMA_VERSION).unwrap_or(u32::MAX),
        },
        cursor: moment.cursor,
        paused_us: u64::try_from(moment.paused.as_micros()).unwrap_or(u64::MAX),
        journal: Some(moment.journal),
        parts: contents.parts().iter().map(|part| part.folder().to_owned()).collect(),
        left_out: contents.left_out().to_vec(),
    };
    let mut writer = Writer::begin(parts, &manifest).map_err(told)?;
    contents.write(&mut writer)?;
    let written = writer.written();
    writer.finish().map_err(told)?;
    Ok(written)
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// What a client is told of an archive that could not be written.
fn told(error: aion_backup::Error) -> Problem {
    if error.is_disk_full() {
        return Problem::new(ErrorCode::DiskFull, "the disk that holds the state became full while the backup was read")
            .hint("free space there: while a backup is read, what it reads takes room a second time once it is rewritten");
    }
    if let aion_backup::Error::Io { source, .. } = &error
        && matches!(source.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted)
    {
        return Problem::new(ErrorCode::DaemonUnavailable, format!("the backup was cut off: {source}"));
    }
    Problem::internal("the backup cannot be made", &error)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Outcome<T> + Send + 'static) -> Outcome<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Problem::internal("the backup did not run to its end", &error))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_restored_by_the_same_version() {
        assert_eq!(SUPPORTED.store, aion_store::SCHEMA_VERSION);
        assert_eq!(u64::from(SUPPORTED.journal), aion_task_journal::SCHEMA_VERSION);
    }
}
