//! `backup archive`: what the journal of the tasks committed since the last piece becomes the next one, which has its name only when all of
//! it is there and was checked.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use aion_backup::{End, Error, Name, PieceReader, Pieces};
use aion_client::{Client, api};
use aion_types::ErrorCode;
use rustix::fs::{FlockOperation, flock};
use serde::Serialize;
use tokio::sync::mpsc;

use super::cipher::Lock;
use super::is_disk_full;
use super::tee::{self, Tee};
use crate::cli::BackupArchive;
use crate::commands::partial::{NotBegun, Partial};
use crate::commands::signals::Signals;
use crate::failure::{Failure, Outcome};
use crate::output::{Printer, note};
use crate::when::Moment;

/// What a piece is called until it is whole.
const NEXT: &str = "next";
const SUFFIX: &str = ".partial";

#[derive(Serialize)]
struct ArchivedView {
    /// None: nothing was committed since the last one.
    piece: Option<String>,
    commits: u64,
    /// A backup from before this piece does not lead to what is in it.
    begins: bool,
    encrypted: bool,
    /// The newest event in it.
    event: Option<u64>,
    /// No commit up to this moment is missing.
    until: String,
}

/// A piece that was read to its end.
struct Piece {
    name: Name,
    commits: u64,
    begins: bool,
    end: End,
}

impl Piece {
    /// One that begins is where the next one goes on.
    const fn is_kept(&self) -> bool {
        self.commits > 0 || self.begins
    }
}

pub(super) async fn archive(client: &Client, args: &BackupArchive, printer: Printer) -> Outcome {
    let lock = Lock::new(None, &args.recipients)?;
    let encrypted = !lock.is_open();
    let _alone = enter(&args.dir)?;
    // Before there is a file: a signal takes it away again.
    let mut signals = Signals::catch()?;
    let pieces = Pieces::list(&args.dir)?;
    let is_first = pieces.names().is_empty();
    let partial = begin(&args.dir)?;
    let marks = pieces.ends().into_iter().map(|mark| api::JournalMark {
        commit: mark.commit,
        line: mark.line.0.to_vec(),
        hint: mark.hint,
    });
    let request = api::JournalArchiveRequest { marks: marks.collect() };
    let mut parts = tokio::select! {
        parts = client.archive_journal(request) => parts?,
        failure = signals.end() => return Err(failure),
    };
    let (send, receive) = mpsc::channel(4);
    let writer = tokio::task::spawn_blocking(move || write(receive, &lock, partial, &pieces));
    let next = async || Ok(client.next(&mut parts).await?.map(|part| part.data));
    let piece = tee::pass_on(next, send, &mut signals, writer).await?;
    if piece.begins {
        note(if is_first {
            "the archive begins here: make a backup now, and keep those from now on with it"
        } else {
            "the archive has a gap here: make a backup now; those from before lead to what is before the gap"
        });
        if !encrypted {
            note(
                "the archive is not encrypted: it holds what tasks were given and gave back; see --recipient",
            );
        }
    }
    let view = ArchivedView {
        piece: piece.is_kept().then(|| piece.name.to_string()),
        commits: piece.commits,
        begins: piece.begins,
        encrypted,
        event: (piece.commits > 0).then_some(piece.end.to.event),
        until: time(piece.end.until_ms),
    };
    printer.document(&view, view.piece.as_deref().unwrap_or("nothing"), || human(&view))?;
    Ok(0)
}

fn human(view: &ArchivedView) -> String {
    match (&view.piece, view.event) {
        (Some(piece), Some(event)) => {
            format!("wrote {piece}: {} commits, up to event {event}, until {}\n", view.commits, view.until)
        }
        (Some(piece), None) => format!("wrote {piece}: what is committed after {} follows it\n", view.until),
        (None, _) => "nothing new was committed\n".to_owned(),
    }
}

/// The folder, for its owner only, and for one of us at a time.
fn enter(dir: &Path) -> Outcome<File> {
    let cannot = |error: io::Error| Failure::new(1, format!("cannot use {}", dir.display())).cause(&error);
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(cannot)?;
    let folder = File::open(dir).map_err(cannot)?;
    flock(&folder, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
        let busy = format!("another `aionctl backup archive` writes to {}", dir.display());
        Failure::coded(ErrorCode::ResourceExhausted, busy).hint("wait until it has ended")
    })?;
    // Of one that was cut off.
    match fs::remove_file(dir.join(format!("{NEXT}{SUFFIX}"))) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(cannot(error)),
        _ => Ok(folder),
    }
}

fn begin(dir: &Path) -> Outcome<Partial> {
    Partial::begin(&dir.join(NEXT), SUFFIX, false).map_err(|error| match error {
        NotBegun::Taken => Failure::new(1, format!("{} is in the way", dir.join(NEXT).display())),
        NotBegun::Cannot(path, error) => unwritable(&path, &error),
    })
}

/// Checks what comes and writes it. Only what is whole gets a name.
fn write(parts: mpsc::Receiver<Vec<u8>>, lock: &Lock, partial: Partial, pieces: &Pieces) -> Outcome<Piece> {
    let to = partial.to().to_owned();
    let failed = |error: io::Error| unwritable(&to, &error);
    let file = partial.file().try_clone().map_err(failed)?;
    let mut tee = Tee::new(parts, lock.seal(file)?);
    let read = read(&mut tee);
    let sealed = tee.written().map_err(failed)?;
    let piece = read?;
    sealed.finish().map_err(failed)?;
    if piece.is_kept() {
        partial.named(pieces.path(&piece.name)).into_place().map_err(failed)?;
    }
    Ok(piece)
}

fn read(input: impl Read) -> aion_backup::Result<Piece> {
    let mut reader = PieceReader::open("what aiond sends", input)?;
    let (mut batch, mut commits) = (Vec::new(), 0);
    while reader.read(&mut batch)?.is_some() {
        commits += 1;
    }
    let header = reader.header();
    let Some(&end) = reader.end() else {
        return Err(Error::Gap { what: "what aiond sends has no end".to_owned() });
    };
    let name = Name { from: header.from, to: end.mark() };
    Ok(Piece { name, commits, begins: header.begins, end })
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    if is_disk_full(error) {
        return Failure::coded(ErrorCode::DiskFull, "the disk that the archive is written to is full")
            .cause(error)
            .hint("nothing is left of this piece, and tasks are not held up; make room soon, before aiond drops what is not archived yet");
    }
    Failure::new(1, format!("cannot write {}", path.display())).cause(error)
}

/// RFC 3339 of ms since 1970.
pub(super) fn time(ms: u64) -> String {
    Moment(i128::from(ms) * 1_000_000).rfc3339()
}
