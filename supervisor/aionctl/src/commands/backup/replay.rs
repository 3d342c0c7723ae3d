//! The way from a backup to a point in time: found here, where keys are, and applied by aiond, which has a database.

use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};

use aion_backup::{Pieces, Point, Position, Route, Summary, Twice};
use aion_types::ErrorCode;

use super::cipher;
use crate::cli::BackupRestore;
use crate::failure::{Failure, Outcome, USAGE};
use crate::text::clean;
use crate::when::Moment;

/// What was applied.
pub(super) struct Replayed {
    pub(super) reached: Position,
    pub(super) commits: u64,
    pub(super) checkpoints_left_out: u64,
    /// The moment that was asked for came twice.
    pub(super) twice: Option<Twice>,
}

/// The way that is asked for, whole and checked; none: no archive was named.
pub(super) fn plan(summary: &Summary, args: &BackupRestore) -> Outcome<Option<Route>> {
    let Some(dir) = &args.journal else { return Ok(None) };
    let from = summary.manifest.journal.ok_or(aion_backup::Error::NoPlace)?;
    Route::find(Pieces::list(dir)?, from, point(args)?, opener(args)).map(Some)
}

fn point(args: &BackupRestore) -> Outcome<Point> {
    if let Some(event) = args.to_seq {
        return Ok(Point::Event(event));
    }
    let Some(Moment(ns)) = args.to_time else { return Ok(Point::End) };
    let ms = u64::try_from(ns.div_euclid(1_000_000));
    ms.map(Point::Time).map_err(|_| Failure::new(USAGE, "--to-time: it is before 1970"))
}

fn opener(args: &BackupRestore) -> impl FnMut(&Path) -> Outcome<Box<dyn std::io::Read>> {
    move |path: &Path| Ok(cipher::open(path, &args.keys)?.input)
}

/// Applies it to the journal of a state that is being made.
pub(super) fn replay(route: &Route, staging: &Path, args: &BackupRestore) -> Outcome<Replayed> {
    let (reached, commits, twice) = (route.reached, route.commits, route.twice);
    let mut replayed = Replayed { reached, commits, checkpoints_left_out: 0, twice };
    if route.commits == 0 {
        return Ok(replayed);
    }
    let program = aiond()?;
    let unusable = |error: std::io::Error| {
        Failure::new(1, format!("cannot run {}, which applies the archive", program.display())).cause(&error)
    };
    let mut command = Command::new(&program);
    // What is set for a daemon of this host is nothing to it.
    command.env_clear().args(["--config", "none", "--user", args.user.as_str()]);
    command.args(["--group", args.group.as_str(), "--state"]).arg(staging).arg("replay-journal");
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.map_err(unusable)?;
    let copied = child.stdin.take().map_or(Ok(()), |stdin| copy(route, args, stdin));
    let output = child.wait_with_output().map_err(unusable)?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if !output.status.success() {
        // It was told less than all: the reason is here.
        if said.contains("cut off") {
            copied?;
        }
        let why = format!("the archive cannot be applied to the backup's journal: {}", clean(&said));
        return Err(Failure::coded(ErrorCode::JournalBroken, why).hint("nothing was restored"));
    }
    copied?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut numbers = text.split_whitespace().map_while(|number| number.parse::<u64>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(commits), Some(left_out)) if commits == route.commits => {
            replayed.checkpoints_left_out = left_out;
            Ok(replayed)
        }
        _ => {
            Err(Failure::coded(ErrorCode::Internal, "aiond applied another number of commits than there are"))
        }
    }
}

fn copy(route: &Route, args: &BackupRestore, to: ChildStdin) -> Outcome<()> {
    route.copy(opener(args), BufWriter::with_capacity(1 << 20, to))?.flush()?;
    Ok(())
}

/// Beside this program, or where a package puts it.
fn aiond() -> Outcome<PathBuf> {
    let own = std::env::current_exe().ok();
    let folder = own.as_deref().and_then(Path::parent);
    let near = folder.map(|folder| [folder.join("aiond"), folder.join("../sbin/aiond")]);
    let mut all = near.into_iter().flatten().chain([PathBuf::from("/usr/sbin/aiond")]);
    all.find(|path| path.is_file()).ok_or_else(|| {
        Failure::new(1, "there is no aiond here, which applies the archive").hint("install AION first")
    })
}
