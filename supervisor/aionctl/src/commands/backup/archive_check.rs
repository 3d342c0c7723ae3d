//! `backup verify DIR`: every byte of an archive's pieces, where it does not go on, and what can be restored all the same.

use std::path::Path;

use aion_backup::{Check, ClockStep, Error, Gap, Pieces, Position, Run, gaps, is_after, read, survey};
use aion_types::ErrorCode;
use serde::Serialize;

use super::archive::time;
use super::cipher;
use crate::cli::BackupVerify;
use crate::failure::{Failure, Outcome};
use crate::output::Printer;
use crate::text::clean;

#[derive(Serialize)]
struct ArchiveView {
    /// No gap is behind the newest backup that is known.
    ok: bool,
    encrypted: bool,
    pieces: usize,
    /// The newest last.
    runs: Vec<RunView>,
    /// Between one and the next.
    gaps: Vec<GapView>,
    /// Those of --backup.
    backups: Vec<BaseView>,
}

/// Pieces without a gap.
#[derive(Serialize)]
struct RunView {
    /// A backup that stands here or later can be gone on from.
    from_commit: u64,
    to_commit: u64,
    pieces: u64,
    /// The newest event.
    event: u64,
    since: Option<String>,
    until: String,
    /// Where the clock went back: times stay what they were until it has come up with them.
    clock_steps: Vec<StepView>,
}

#[derive(Serialize)]
pub(super) struct StepView {
    commit: u64,
    event: u64,
    before: String,
    after: String,
}

#[derive(Serialize)]
struct GapView {
    /// A backup from before it leads no further than this.
    after_commit: u64,
    event: u64,
    until: String,
    /// And only one that stands here, or later, leads on.
    from_commit: u64,
    since: Option<String>,
    /// A piece is missing; else the archive began anew.
    missing: bool,
    /// The newest backup of --backup stands behind it.
    harmless: bool,
}

/// A backup, and how far the archive leads from it.
#[derive(Serialize)]
struct BaseView {
    file: String,
    commit: u64,
    event: u64,
    time: String,
    /// None: nothing in the archive goes on from it.
    leads_to_event: Option<u64>,
    until: Option<String>,
}

impl From<&Run> for RunView {
    fn from(run: &Run) -> Self {
        Self {
            from_commit: run.from,
            to_commit: run.to.commit,
            pieces: run.pieces,
            event: run.to.event,
            since: run.since_ms.map(time),
            until: time(run.until_ms),
            clock_steps: run.steps.iter().map(StepView::from).collect(),
        }
    }
}

impl From<&ClockStep> for StepView {
    fn from(step: &ClockStep) -> Self {
        let ClockStep { commit, event, before_ms, after_ms } = *step;
        Self { commit, event, before: time(before_ms), after: time(after_ms) }
    }
}

impl From<&Gap> for GapView {
    fn from(gap: &Gap) -> Self {
        Self {
            after_commit: gap.after.commit,
            event: gap.after.event,
            until: time(gap.until_ms),
            from_commit: gap.from,
            since: gap.since_ms.map(time),
            missing: gap.missing,
            harmless: gap.harmless,
        }
    }
}

impl BaseView {
    fn new(file: &Path, at: &Position, runs: &[Run]) -> Self {
        let run = runs.iter().rfind(|run| run.leads_on(at));
        Self {
            file: file.display().to_string(),
            commit: at.commit,
            event: at.event,
            time: time(at.time_ms),
            // A piece without commits knows no event.
            leads_to_event: run.map(|run| run.to.event.max(at.event)),
            until: run.map(|run| time(run.until_ms)),
        }
    }
}

/// Reads every byte of every piece, and of the backups that are named.
pub(super) fn verify(args: &BackupVerify, printer: Printer) -> Outcome {
    let pieces = Pieces::list(&args.file)?;
    let mut encrypted = true;
    let runs = survey(&pieces, |path| -> Outcome<_> {
        let opened = cipher::open(path, &args.keys)?;
        encrypted &= opened.encrypted;
        Ok(opened.input)
    })?;
    if runs.is_empty() {
        let none = format!("there is no piece of an archive in {}", args.file.display());
        return Err(
            Failure::coded(ErrorCode::BackupBroken, none).hint("`aionctl backup archive DIR` writes them")
        );
    }
    let backups = args.backups.iter().map(|file| base(file, args)).collect::<Outcome<Vec<_>>>()?;
    let gaps = gaps(&runs, &backups);
    let broken = broken(&runs, &gaps, &backups);
    let view = ArchiveView {
        ok: broken.is_none(),
        encrypted,
        pieces: pieces.names().len(),
        runs: runs.iter().map(RunView::from).collect(),
        gaps: gaps.iter().map(GapView::from).collect(),
        backups: args.backups.iter().zip(&backups).map(|(file, at)| BaseView::new(file, at, &runs)).collect(),
    };
    printer.document(&view, if view.ok { "ok" } else { "broken" }, || human(&view))?;
    broken.map_or(Ok(0), Err)
}

/// Where a backup stands.
fn base(file: &Path, args: &BackupVerify) -> Outcome<Position> {
    let opened = cipher::open(file, &args.keys)?;
    let summary = read(opened.input, &mut Check)?;
    Ok(summary.manifest.journal.ok_or(Error::NoPlace)?)
}

/// Why what was committed last cannot be restored.
fn broken(runs: &[Run], gaps: &[Gap], backups: &[Position]) -> Option<Failure> {
    if let Some(gap) = gaps.iter().rfind(|gap| !gap.harmless) {
        let why = if gap.missing { "a piece is missing" } else { "the archive began anew" };
        let message = format!(
            "the archive has a gap after commit {}, event {} of {}: {why}, and only a backup that stands at commit {} or later leads on",
            gap.after.commit,
            gap.after.event,
            time(gap.until_ms),
            gap.from
        );
        return Some(Failure::coded(ErrorCode::BackupBroken, message).hint(
            "backups from before it can still be restored up to it; put a missing piece back, or make a backup now; one that stands behind \
             the gap makes it harmless: name it with --backup",
        ));
    }
    let newest = backups.iter().max_by_key(|backup| (backup.time_ms, backup.commit))?;
    if runs.iter().any(|run| run.leads_on(newest)) || is_after(runs, newest) {
        return None;
    }
    let message = format!(
        "no piece goes on from the newest backup, which stands at commit {}, event {} of {}",
        newest.commit,
        newest.event,
        time(newest.time_ms)
    );
    let hint = "it is of another history, or older than the archive: make a backup now, and name that";
    Some(Failure::coded(ErrorCode::BackupBroken, message).hint(hint))
}

fn human(view: &ArchiveView) -> String {
    let sealed = if view.encrypted { "encrypted" } else { "NOT encrypted" };
    let word = if view.ok { "ok" } else { "NOT whole" };
    let mut out = format!("{word}: {} pieces of a journal's archive, {sealed}\n", view.pieces);
    for (at, run) in view.runs.iter().enumerate() {
        if let Some(gap) = at.checked_sub(1).and_then(|before| view.gaps.get(before)) {
            let why = if gap.missing { "a piece is missing" } else { "it began anew" };
            let cost = if gap.harmless { "; the newest backup stands behind it" } else { "" };
            out.push_str(&format!("  GAP after commit {}: {why}{cost}\n", gap.after_commit));
        }
        let since = run.since.as_deref().unwrap_or("nothing yet");
        out.push_str(&format!(
            "  after commit {}: from {since} to event {}, until {}\n",
            run.from_commit, run.event, run.until
        ));
        for step in &run.clock_steps {
            out.push_str(&format!(
                "    the clock went back at event {}: from {} to {}\n",
                step.event, step.before, step.after
            ));
        }
    }
    for base in &view.backups {
        let leads = match (base.leads_to_event, &base.until) {
            (Some(event), Some(until)) => format!("leads to event {event}, until {until}"),
            _ => "is not gone on from".to_owned(),
        };
        out.push_str(&format!("  {} of event {}, {}: {leads}\n", clean(&base.file), base.event, base.time));
    }
    out
}

#[cfg(test)]
mod tests {
    use aion_backup::Line;

    use super::*;

    fn at(commit: u64, time_ms: u64) -> Position {
        Position { commit, event: 2 * commit, time_ms, line: Line([1; 16]) }
    }

    fn run(from: u64, to: Position) -> Run {
        let (lines, until_ms) = (vec![(from, to.line)], to.time_ms);
        Run {
            from,
            since_ms: None,
            to,
            until_ms,
            pieces: 1,
            commits: 1,
            begins: false,
            lines,
            steps: Vec::new(),
        }
    }

    #[test]
    fn a_gap_is_a_failure_unless_the_newest_backup_is_behind_it() {
        let runs = [run(1, at(4, 1000)), run(7, at(9, 2000))];
        let told = |backups: &[Position]| {
            broken(&runs, &gaps(&runs, backups), backups).map(|failure| failure.render())
        };
        let gap = told(&[]).unwrap();
        for word in [
            "BACKUP_BROKEN",
            "after commit 4, event 8 of 1970-01-01T00:00:01",
            "a piece is missing",
            "commit 7 or later",
        ] {
            assert!(gap.contains(word), "{word}: {gap}");
        }
        assert!(told(&[at(3, 900)]).is_some());
        assert_eq!(told(&[at(3, 900), at(8, 1500)]), None);
        assert_eq!(told(&[at(12, 3000)]), None, "it is younger than the archive");
        let stranger = Position { line: Line([2; 16]), ..at(2, 900) };
        let runs = &runs[..1];
        let told = broken(runs, &gaps(runs, &[stranger]), &[stranger]).unwrap().render();
        assert!(told.contains("no piece goes on from the newest backup"), "{told}");
    }
}
