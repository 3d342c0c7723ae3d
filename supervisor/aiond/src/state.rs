//! The state folder: who may be in it, and that only one aiond is.
//!
//! Afterwards the working directory is the state folder and every path is relative to it, because aiond's user
//! need not be able to search the folders above.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown,
};
use std::path::Path;

use aion_types::UNFINISHED_RESTORE;
use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};

use crate::privileges::Account;

/// aiond's pid file, also the lock that keeps a second aiond out. Held for as long as the process runs.
#[derive(Debug)]
pub(crate) struct PidFile {
    _lock: Flock<File>,
}

/// The folder that aiond shares with the launcher, below the state folder.
const SHARED: &str = "run";

/// Makes the state folder and aiond's part of it, and moves there. `run` is the folder for what lasts as long as the process.
pub(crate) fn enter(state: &Path, run: &Path, account: &Account) -> Result<()> {
    fs::create_dir_all(state).with_context(|| format!("cannot make the state folder {}", state.display()))?;
    std::env::set_current_dir(state).with_context(|| format!("cannot enter {}", state.display()))?;
    if Path::new(UNFINISHED_RESTORE).exists() {
        bail!(
            "a restore into {} was cut off, so the state is not whole: remove everything in it and restore again",
            state.display()
        );
    }
    // (folder, mode, owned by aiond's user): the launcher owns what is not.
    for (folder, mode) in [
        (run, 0o770),
        (Path::new("db"), 0o700),
        (Path::new("secrets"), 0o700),
        (Path::new("journal"), 0o700),
        (Path::new("doors"), 0o700),
        (Path::new("keys"), 0o700),
        (Path::new("tools"), 0o700),
        (Path::new("tmp"), 0o700),
    ] {
        own(folder, mode, account).with_context(|| format!("folder {}", state.join(folder).display()))?;
    }
    Ok(())
}

/// The files that say where the doors over TCP are, made while that can be done: the folder `run` is the launcher's as much as ours, and
/// whether our user may write there is not ours to say.
pub(crate) fn door_file(run: &Path, name: &str, account: &Account) -> Result<File> {
    let path = &run.join(name);
    // Always a new one: what our user has left there, a link for instance, is not followed as root.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", path.display()));
        }
        _ => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path);
    let file = file.with_context(|| format!("cannot make {}", path.display()))?;
    if account.drops() {
        nix::unistd::fchown(&file, Some(account.uid().into()), Some(account.gid().into()))
            .with_context(|| format!("cannot give {} away", path.display()))?;
    }
    file.set_permissions(Permissions::from_mode(0o644))
        .with_context(|| format!("cannot set the mode of {}", path.display()))?;
    Ok(file)
}

/// Makes a folder that belongs to aiond's user, or checks and mends one that is there.
fn own(folder: &Path, mode: u32, account: &Account) -> Result<()> {
    match DirBuilder::new().mode(mode).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.into()),
        _ => {}
    }
    let found = fs::symlink_metadata(folder)?;
    if !found.is_dir() {
        bail!("it is not a folder");
    }
    if account.drops() {
        // `run` is shared with the launcher: root owns it, the group writes.
        let owner = if folder == Path::new(SHARED) { 0 } else { account.uid() };
        chown(folder, Some(owner), Some(account.gid()))?;
        fs::set_permissions(folder, Permissions::from_mode(mode))?;
    } else if found.uid() != account.uid() && folder != Path::new(SHARED) {
        bail!("it belongs to user {}, and aiond runs as user {}", found.uid(), account.uid());
    }
    Ok(())
}

/// Takes the lock and writes the pid, or says that another aiond holds it.
pub(crate) fn lock(run: &Path) -> Result<PidFile> {
    let path = &run.join("aiond.pid");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o644)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => lock,
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => bail!("another aiond runs on this state folder"),
        Err((_, error)) => return Err(error).context("cannot lock aiond.pid"),
    };
    // Written over, then cut: a reader never finds it empty once it was there.
    let text = format!("{}\n", std::process::id());
    lock.write_all_at(text.as_bytes(), 0).context("cannot write aiond.pid")?;
    lock.set_len(u64::try_from(text.len())?).context("cannot write aiond.pid")?;
    Ok(PidFile { _lock: lock })
}
