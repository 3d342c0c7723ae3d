//! `backup`: backups and archives, made through aiond, checked and restored without it.

mod archive;
mod archive_check;
mod cipher;
mod create;
mod replay;
mod restore;
mod tee;
mod view;

use std::io;

use aion_backup::{Check, Error, read};
use aion_client::Client;
use aion_types::ErrorCode;

use crate::cli::{BackupArchive, BackupCreate, BackupRestore, BackupVerify};
use crate::failure::{Failure, Outcome, USAGE};
use crate::output::Printer;

pub(super) async fn create(client: &Client, args: &BackupCreate, printer: Printer) -> Outcome {
    create::create(client, args, printer).await
}

pub(super) async fn archive(client: &Client, args: &BackupArchive, printer: Printer) -> Outcome {
    archive::archive(client, args, printer).await
}

pub(super) fn restore(args: &BackupRestore, printer: Printer) -> Outcome {
    restore::restore(args, printer)
}

pub(super) fn verify(args: &BackupVerify, printer: Printer) -> Outcome {
    if args.file.is_dir() {
        return archive_check::verify(args, printer);
    }
    if !args.backups.is_empty() {
        return Err(Failure::new(USAGE, "--backup: it goes with the folder of an archive"));
    }
    let opened = cipher::open(&args.file, &args.keys)?;
    let summary = read(opened.input, &mut Check).map_err(failed)?;
    let view = view::View::new(&summary, opened.encrypted);
    printer.document(&view, "ok", || view.verified())?;
    Ok(0)
}

/// What a user is told of an archive, or of a folder for it.
fn failed(error: Error) -> Failure {
    let message = error.to_string();
    let of = |code: ErrorCode, hint: &str| {
        let mut failure = Failure::coded(code, message.clone());
        if let Some(cause) = std::error::Error::source(&error) {
            failure = failure.cause(cause);
        }
        failure.hint(hint)
    };
    match &error {
        Error::NotABackup => of(
            ErrorCode::BackupBroken,
            "`aionctl backup create` writes backups; one that is compressed must be unpacked first",
        ),
        Error::Broken { .. } => of(
            ErrorCode::BackupBroken,
            "take another copy, or an older backup; nothing was restored from this one",
        ),
        Error::Refused { .. } => of(
            ErrorCode::BackupBroken,
            "aiond writes no such thing: somebody else made or changed it; nothing was restored from it",
        ),
        Error::Piece { .. } => of(
            ErrorCode::BackupBroken,
            "take another copy of this piece, or go to a point before it: --to-seq, --to-time; nothing was restored",
        ),
        Error::Gap { .. } => of(
            ErrorCode::BackupBroken,
            "take a backup from after the gap, or go to a point before it: --to-seq, --to-time; pieces of another history belong elsewhere",
        ),
        Error::Point { .. } => {
            of(ErrorCode::InvalidField, "`aionctl backup verify DIR` says what the archive has")
        }
        Error::NoPlace => of(
            ErrorCode::BackupBroken,
            "an older version of AION made it: restore it without --journal, or take one that this version made",
        ),
        Error::Newer { .. } => {
            of(ErrorCode::BackupNewer, "install the version of AION that wrote it, or a newer one")
        }
        Error::NotEmpty { .. } => of(
            ErrorCode::StateNotEmpty,
            "stop the daemons (`systemctl stop aiond.socket aiond aion-launcher aion-agents`), move the old state away, and restore again; \
             or choose another folder with --state",
        ),
        Error::InUse { .. } => of(
            ErrorCode::StateNotEmpty,
            "stop it first: `systemctl stop aiond.socket aiond aion-launcher aion-agents`; its state is in the way, too",
        ),
        _ if error.is_disk_full() => of(
            ErrorCode::DiskFull,
            "make room, or restore to another disk; nothing of the state is left there",
        ),
        _ => {
            let mut failure = Failure::new(1, message);
            if let Some(cause) = std::error::Error::source(&error) {
                failure = failure.cause(cause);
            }
            failure
        }
    }
}

fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
