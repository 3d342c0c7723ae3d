//! `backup restore`: a state folder from a backup, as root and without a daemon.

use std::path::Path;

use aion_backup::{Owners, Restored, Summary, Target};
use nix::unistd::{Group, User, geteuid};
use serde::Serialize;

use super::archive_check::StepView;
use super::cipher::{self, Opened};
use super::replay::Replayed;
use super::view::View;
use super::{archive, failed, replay};
use crate::cli::BackupRestore;
use crate::failure::{Failure, Outcome, USAGE};
use crate::output::{Printer, note};

#[derive(Serialize)]
struct RestoredView {
    state: String,
    backup: View,
    #[serde(skip_serializing_if = "Option::is_none")]
    journal: Option<JournalView>,
    audit: Option<AuditView>,
}

/// How far the tasks went on from the backup.
#[derive(Serialize)]
struct JournalView {
    commits: u64,
    event: u64,
    time: String,
    /// Large ones that the archive does not have: their tasks go on from an older one.
    checkpoints_left_out: u64,
    /// The clock went back behind the moment that was asked for, so that it came again.
    #[serde(skip_serializing_if = "Option::is_none")]
    twice: Option<TwiceView>,
}

/// What is reached is of the first time.
#[derive(Serialize)]
struct TwiceView {
    clock_step: StepView,
    /// For --to-seq: where the second time leads.
    event: u64,
}

/// The audit log that came with it.
#[derive(Serialize)]
struct AuditView {
    folder: String,
    ok: bool,
    records: u64,
    last_seq: u64,
    last_hash: String,
    public_key: String,
    faults: Vec<String>,
}

pub(super) fn restore(args: &BackupRestore, printer: Printer) -> Outcome {
    if !geteuid().is_root() {
        return Err(Failure::new(1, "a state has files of root's and of aiond's user: restore as root"));
    }
    if args.file.as_os_str() == "-" {
        return Err(Failure::new(USAGE, "FILE: a backup is read twice, so it cannot come from stdin")
            .hint("write it to a file first; `aionctl backup verify -` checks it on the way"));
    }
    let target = Target { state: args.state.clone(), owners: owners(args)? };
    let mut encrypted = false;
    let open = || -> Result<_, Failure> {
        let Opened { input, encrypted: found } = cipher::open(&args.file, &args.keys)?;
        encrypted = found;
        Ok(input)
    };
    let plan = |summary: &Summary| replay::plan(summary, args);
    let (restored, replayed) = aion_backup::restore_with(open, &target, plan, |route, staging| {
        route.map(|route| replay::replay(&route, staging, args)).transpose()
    })?;
    let view = view(&restored, replayed.as_ref(), &args.state, encrypted);
    printer.document(&view, &args.state.display().to_string(), || human(&view))?;
    if let Some(twice) = replayed.as_ref().and_then(|replayed| replayed.twice) {
        note(&format!("that moment came twice, and this is the first time: {twice} (--to-seq)"));
    }
    for what in &restored.summary.manifest.left_out {
        note(&format!("was not in the backup: {what}"));
    }
    Ok(0)
}

impl From<aion_backup::Error> for Failure {
    fn from(error: aion_backup::Error) -> Self {
        failed(error)
    }
}

fn owners(args: &BackupRestore) -> Outcome<Owners> {
    const HINT: &str = "install AION first, or make it with `useradd --system --user-group aion`";
    let unknown = |flag: &str, name: &str| {
        Failure::new(1, format!("{flag}: there is no {} {name:?}", flag.trim_start_matches('-'))).hint(HINT)
    };
    let user = User::from_name(&args.user).ok().flatten().ok_or_else(|| unknown("--user", &args.user))?;
    let group =
        Group::from_name(&args.group).ok().flatten().ok_or_else(|| unknown("--group", &args.group))?;
    Ok(Owners { root: 0, user: user.uid.as_raw(), group: group.gid.as_raw() })
}

fn view(restored: &Restored, replayed: Option<&Replayed>, state: &Path, encrypted: bool) -> RestoredView {
    let audit = restored.audit.as_ref().map(|audit| AuditView {
        folder: state.join(&audit.folder).display().to_string(),
        ok: audit.intact,
        records: audit.records,
        last_seq: audit.last.0,
        last_hash: audit.last.1.clone(),
        public_key: audit.key.clone(),
        faults: audit.faults.clone(),
    });
    RestoredView {
        state: state.display().to_string(),
        backup: View::new(&restored.summary, encrypted),
        journal: replayed.map(|replayed| JournalView {
            commits: replayed.commits,
            event: replayed.reached.event,
            time: archive::time(replayed.reached.time_ms),
            checkpoints_left_out: replayed.checkpoints_left_out,
            twice: replayed
                .twice
                .map(|twice| TwiceView { clock_step: StepView::from(&twice.step), event: twice.event }),
        }),
        audit,
    }
}

fn human(view: &RestoredView) -> String {
    let mut out = format!("restored {} as it was {}\n", view.state, view.backup.origin());
    if let Some(journal) = &view.journal {
        out.push_str(&format!(
            "its tasks went on {} commits, to event {} of {}; agents, tenants and all else are as in the backup\n",
            journal.commits, journal.event, journal.time
        ));
        if journal.checkpoints_left_out > 0 {
            out.push_str(&format!(
                "  {} large checkpoints are in no piece: their tasks go on from an older one, or from their beginning\n",
                journal.checkpoints_left_out
            ));
        }
    }
    if let Some(audit) = &view.audit {
        let how = if audit.ok { "all there and unchanged" } else { "NOT as it was written" };
        out.push_str(&format!(
            "its audit log: {} records, {how}; kept in {}, a new one goes on after record {}\n",
            audit.records, audit.folder, audit.last_seq
        ));
        for fault in &audit.faults {
            out.push_str(&format!("  {}\n", crate::text::clean(fault)));
        }
    }
    out.push_str("start the daemons now: `systemctl start aiond.socket aion-launcher aiond`; agents and tasks go on as after a power cut\n");
    out
}
