//! A state folder from an archive: checked whole, built beside, then put in place at once.

mod audit;
mod extract;
mod place;

use std::io::Read;
use std::os::unix::fs::{DirBuilderExt as _, chown};
use std::path::{Path, PathBuf};

pub use audit::AuditFound;

use crate::entry::Part;
use crate::read::{Check, Summary, read};
use crate::restore::extract::Extract;
use crate::restore::place::Staging;
use crate::{Error, Result};

/// Room that stays free besides the files: the daemons keep a reserve, and refuse work without it.
const SPARE: u64 = 256 << 20;

/// Whom files and folders are given to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owners {
    /// The launcher's: root.
    pub root: u32,
    /// aiond's user.
    pub user: u32,
    /// The group that may read what agents leave behind.
    pub group: u32,
}

/// Where a state is to be.
#[derive(Debug, Clone)]
pub struct Target {
    /// The folder. It is made, or empty.
    pub state: PathBuf,
    /// Whose it becomes.
    pub owners: Owners,
}

/// What was restored.
#[derive(Debug, Clone)]
pub struct Restored {
    /// What is in the backup.
    pub summary: Summary,
    /// The audit log that came with it, which stays beside the new one.
    pub audit: Option<AuditFound>,
}

/// Makes the state. `open` gives the archive, decrypted, from its beginning; it is called twice, because nothing is written before all of
/// it was found good. After an error nothing is there that was not before.
///
/// # Errors
/// [`Error::NotEmpty`], [`Error::InUse`], [`Error::NoRoom`], what [`read`] says of the archive, [`Error::Newer`] for the state, or why it
/// cannot be written.
pub fn restore<R: Read, E: From<Error>>(
    open: impl FnMut() -> std::result::Result<R, E>,
    target: &Target,
) -> std::result::Result<Restored, E> {
    restore_with(open, target, |_| Ok(()), |(), _| Ok(())).map(|(restored, ())| restored)
}

/// The same, with something more: `plan` looks at what is in the archive before anything is written, and `fill` changes what was made of it,
/// in the folder that it is given, before that becomes the state. When either fails, nothing is there.
///
/// # Errors
/// As [`restore`], and what `plan` and `fill` say.
pub fn restore_with<R: Read, P, T, E: From<Error>>(
    mut open: impl FnMut() -> std::result::Result<R, E>,
    target: &Target,
    plan: impl FnOnce(&Summary) -> std::result::Result<P, E>,
    fill: impl FnOnce(P, &Path) -> std::result::Result<T, E>,
) -> std::result::Result<(Restored, T), E> {
    place::check(&target.state)?;
    let summary = read(open()?, &mut Check)?;
    summary.manifest.check_versions()?;
    let planned = plan(&summary)?;
    let staging = Staging::make(&target.state)?;
    room(staging.path(), summary.total().bytes)?;
    make_folders(staging.path(), target.owners)?;
    let again = read(open()?, &mut Extract::new(staging.path(), target.owners))?;
    if again.sha256 != summary.sha256 {
        let what = "it was replaced while it was read".to_owned();
        return Err(Error::Broken { file: "the backup".to_owned(), offset: 0, what }.into());
    }
    let filled = fill(planned, staging.path())?;
    let audit = audit::set_aside(staging.path(), &summary.manifest, target.owners)?;
    staging.into_place()?;
    Ok((Restored { summary, audit }, filled))
}

fn room(dir: &Path, needed: u64) -> Result<()> {
    let stat = nix::sys::statvfs::statvfs(dir).map_err(|e| Error::io("look at", dir)(e.into()))?;
    let free = stat.blocks_available().saturating_mul(stat.fragment_size());
    let needed = needed.saturating_add(SPARE);
    if free < needed { Err(Error::NoRoom { dir: dir.to_owned(), needed, free }) } else { Ok(()) }
}

/// The folders of a state that has never run: aiond under systemd cannot make its own.
fn make_folders(root: &Path, owners: Owners) -> Result<()> {
    for folder in ["db", "journal", "keys", "secrets", "tools", "doors", "tmp"] {
        make_folder(&root.join(folder), 0o700, owners.user, owners.group)?;
    }
    for (folder, mode) in [("run", 0o755), ("agents", 0o750), ("audit", 0o750), ("audit-archive", 0o750)] {
        make_folder(&root.join(folder), mode, owners.root, owners.group)?;
    }
    Ok(())
}

fn make_folder(path: &Path, mode: u32, user: u32, group: u32) -> Result<()> {
    std::fs::DirBuilder::new().mode(mode).create(path).map_err(Error::io("make", path))?;
    own(path, mode, user, group)
}

/// Owner, then mode: giving a file away may take bits of its mode.
fn own(path: &Path, mode: u32, user: u32, group: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    chown(path, Some(user), Some(group)).map_err(Error::io("give away", path))?;
    let mode = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(path, mode).map_err(Error::io("change the mode of", path))
}

/// Modes of a part's folders and files, and whether they are the launcher's.
const fn rights(part: Part, executable: bool) -> (u32, u32, bool) {
    match part {
        Part::Db | Part::Journal | Part::Keys | Part::Secrets => (0o700, 0o600, false),
        // Another user runs them, who is shown this folder alone.
        Part::Tools => (0o755, if executable { 0o755 } else { 0o644 }, false),
        Part::Agents | Part::Audit | Part::AuditArchive => (0o750, 0o640, true),
    }
}
