//! `backup`: made through aiond, checked and restored without it.

mod cipher;
mod create;
mod restore;
mod view;

use std::io;

use aion_backup::{Check, Error, read};
use aion_client::Client;
use aion_types::ErrorCode;

use crate::cli::{BackupCreate, BackupRestore, BackupVerify};
use crate::failure::{Failure, Outcome};
use crate::output::Printer;

pub(super) async fn create(client: &Client, args: &BackupCreate, printer: Printer) -> Outcome {
    create::create(client, args, printer).await
}

pub(super) fn restore(args: &BackupRestore, printer: Printer) -> Outcome {
    restore::restore(args, printer)
}

pub(super) fn verify(args: &BackupVerify, printer: Printer) -> Outcome {
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
