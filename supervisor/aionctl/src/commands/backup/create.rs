//! `backup create`: what aiond streams goes into a file that has its name only when all of it is there and was checked.

use std::io::{self, Write};
use std::path::Path;

use aion_backup::{Check, Summary, read};
use aion_client::{Client, api};
use aion_types::ErrorCode;
use tokio::sync::mpsc;

use super::cipher::Lock;
use super::tee::{self, Tee};
use super::view::View;
use super::{failed, is_disk_full};
use crate::cli::BackupCreate;
use crate::commands::partial::{NotBegun, Partial};
use crate::commands::signals::Signals;
use crate::failure::{Failure, Outcome};
use crate::output::{Printer, note};

pub(super) async fn create(client: &Client, args: &BackupCreate, printer: Printer) -> Outcome {
    let lock = Lock::new(args.passphrase_file.as_deref(), &args.recipients)?;
    let encrypted = !lock.is_open();
    let to_stdout = args.file.as_os_str() == "-";
    // Before there is a file: a signal takes it away again.
    let mut signals = Signals::catch()?;
    let partial = if to_stdout { None } else { Some(begin(&args.file)?) };
    let request = api::CreateBackupRequest { without_output: args.without_output };
    let mut parts = tokio::select! {
        parts = client.create_backup(request) => parts?,
        failure = signals.end() => return Err(failure),
    };
    let (send, receive) = mpsc::channel(4);
    let writer = tokio::task::spawn_blocking(move || write(receive, &lock, partial));
    let next = async || Ok(client.next(&mut parts).await?.map(|part| part.data));
    let summary = tee::pass_on(next, send, &mut signals, writer).await?;
    if !encrypted {
        note(
            "the backup is not encrypted: it holds secrets and the key that seals them; see --passphrase-file and --recipient",
        );
    }
    for what in &summary.manifest.left_out {
        note(&format!("not in it: {what}"));
    }
    if to_stdout {
        return Ok(0);
    }
    let view = View::new(&summary, encrypted);
    printer.document(&view, &args.file.display().to_string(), || view.written(&args.file))?;
    Ok(0)
}

/// Checks what comes and writes it. Only what is whole gets the file's name.
fn write(parts: mpsc::Receiver<Vec<u8>>, lock: &Lock, partial: Option<Partial>) -> Outcome<Summary> {
    let Some(partial) = partial else {
        let (summary, mut out) = seal(parts, lock, io::stdout())?;
        out.flush()?;
        return Ok(summary);
    };
    let to = partial.to().to_owned();
    let file = partial.file().try_clone().map_err(|error| not_written(&to, &error))?;
    let (summary, _) = seal(parts, lock, file)?;
    partial.into_place().map_err(|error| not_written(&to, &error))?;
    Ok(summary)
}

fn seal<W: Write>(parts: mpsc::Receiver<Vec<u8>>, lock: &Lock, out: W) -> Outcome<(Summary, W)> {
    let mut tee = Tee::new(parts, lock.seal(out)?);
    let read = read(&mut tee, &mut Check);
    let sealed = tee.written().map_err(|error| unwritable(&error))?;
    let summary = read.map_err(failed)?;
    let out = sealed.finish().map_err(|error| unwritable(&error))?;
    Ok((summary, out))
}

fn unwritable(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
    }
    if is_disk_full(error) {
        return Failure::coded(ErrorCode::DiskFull, "the disk that the backup is written to is full")
            .cause(error)
            .hint("nothing is left of it; write it to another disk, or leave agents' output out: --without-output");
    }
    Failure::new(1, "the backup cannot be written").cause(error)
}

fn begin(to: &Path) -> Outcome<Partial> {
    Partial::begin(to, ".partial", false).map_err(|error| match error {
        NotBegun::Taken => taken(to),
        NotBegun::Cannot(path, error) => {
            let failure = Failure::new(1, format!("cannot make {}", path.display())).cause(&error);
            match error.kind() {
                io::ErrorKind::AlreadyExists => {
                    failure.hint("another backup is being written there, or was cut off: remove it then")
                }
                _ => failure,
            }
        }
    })
}

fn taken(to: &Path) -> Failure {
    Failure::new(1, format!("{} is there already", to.display()))
        .hint("choose another name, or remove it first")
}

fn not_written(to: &Path, error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::AlreadyExists => taken(to),
        _ if is_disk_full(error) => unwritable(error),
        _ => Failure::new(1, format!("cannot write {}", to.display())).cause(error),
    }
}
