//! Finds a program that the manifest allows to be executed, so that no link leads the rule astray.
//!
//! A rule is for the file at the end of the path. Links of the system (`/bin`, `python3`, alternatives) are followed: they are on
//! read-only mounts that nobody in a sandbox can change. A link that lies where an agent may have made it, today's or
//! yesterday's, is not: it could point the rule for its own program at any other.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use aion_sandbox::Plan;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat2, readlinkat};
use rustix::io::Errno;

/// The kernel follows as many.
const MAX_LINKS: usize = 40;
/// Where links are anybody's, or not even links (`/proc`).
const NOT_THE_SYSTEM: &[&str] = &["/workspace", "/tmp", "/run", "/dev", "/proc"];

/// Why a path gives no rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refused {
    /// There is nothing, so nothing need be allowed.
    Absent,
    /// A link on the way lies where an agent could have made it.
    Astray(PathBuf),
    Failed(Errno),
}

/// Opens the file at an absolute path without dots.
pub(crate) fn open(path: &Path, plan: &Plan) -> Result<OwnedFd, Refused> {
    let mut todo: VecDeque<Vec<u8>> = parts(path.as_os_str().as_bytes()).collect();
    let mut done = PathBuf::from("/");
    let mut file = look(&done)?;
    let mut links = 0;
    while let Some(part) = todo.pop_front() {
        if part == b".." {
            done.pop();
            file = look(&done)?;
            continue;
        }
        let next = done.join(OsStr::from_bytes(&part));
        file = look(&next)?;
        let stat = fstat(&file).map_err(Refused::Failed)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            done = next;
            continue;
        }
        links += 1;
        if links > MAX_LINKS || !is_system(&done, plan) {
            return Err(Refused::Astray(next));
        }
        let target = readlinkat(&file, "", Vec::new()).map_err(Refused::Failed)?;
        if target.as_bytes().first() == Some(&b'/') {
            done = PathBuf::from("/");
        }
        for part in parts(target.as_bytes()).collect::<Vec<_>>().into_iter().rev() {
            todo.push_front(part);
        }
        file = look(&done)?;
    }
    Ok(file)
}

fn parts(path: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    path.split(|&b| b == b'/').filter(|part| !part.is_empty() && *part != b".").map(<[u8]>::to_vec)
}

/// The thing itself, even if it is a link; a link on the way there is an error, so nobody can put one in between.
fn look(path: &Path) -> Result<OwnedFd, Refused> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(CWD, path, flags, Mode::empty(), resolve).map_err(|e| match e {
        Errno::NOENT | Errno::NOTDIR | Errno::ACCESS => Refused::Absent,
        Errno::LOOP => Refused::Astray(path.to_owned()),
        e => Refused::Failed(e),
    })
}

fn is_system(folder: &Path, plan: &Plan) -> bool {
    let bind = |b: &aion_sandbox::BindTarget| folder.starts_with(OsStr::from_bytes(&b.path));
    !NOT_THE_SYSTEM.iter().any(|place| folder.starts_with(place)) && !plan.binds.iter().any(bind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{fstat, stat};

    fn plan() -> Plan {
        Plan::new(vec![b"x".to_vec()])
    }

    fn is_same(file: &OwnedFd, path: &Path) -> bool {
        let (a, b) = (fstat(file).unwrap(), stat(path).unwrap());
        (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)
    }

    #[test]
    fn links_of_the_system_are_followed_as_the_kernel_does() {
        for path in ["/bin/sh", "/usr/bin/sh", "/usr/bin/awk", "/usr", "/"] {
            if let Ok(real) = std::fs::canonicalize(path) {
                assert!(is_same(&open(Path::new(path), &plan()).unwrap(), &real), "{path}");
            }
        }
    }

    #[test]
    fn links_of_others_are_not() {
        // The temporary folder is one of those that belong to everybody.
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        let (tool, link, deep) = (dir.path().join("tool"), dir.path().join("link"), dir.path().join("deep"));
        std::fs::write(&tool, "").unwrap();
        std::os::unix::fs::symlink("/usr/bin/env", &link).unwrap();
        std::os::unix::fs::symlink("/usr/bin", &deep).unwrap();
        assert!(is_same(&open(&tool, &plan()).unwrap(), &tool));
        assert_eq!(open(&link, &plan()).unwrap_err(), Refused::Astray(link));
        assert_eq!(open(&deep.join("env"), &plan()).unwrap_err(), Refused::Astray(deep));
        assert_eq!(open(&dir.path().join("none"), &plan()).unwrap_err(), Refused::Absent);
        assert_eq!(
            open(Path::new("/proc/self/exe"), &plan()).unwrap_err(),
            Refused::Astray("/proc/self".into())
        );
    }

    #[test]
    fn what_is_bound_is_not_the_system() {
        let mut plan = plan();
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/usr/bin/env", &link).unwrap();
        assert!(open(&link, &plan).is_ok());
        let path = dir.path().as_os_str().as_bytes().to_vec();
        plan.binds.push(aion_sandbox::BindTarget { path, writable: false, directory: true });
        assert_eq!(open(&link, &plan).unwrap_err(), Refused::Astray(link));
        // Too many, and in circles.
        let around = dir.path().join("around");
        std::os::unix::fs::symlink("around", &around).unwrap();
        plan.binds.clear();
        assert_eq!(open(&around, &plan).unwrap_err(), Refused::Astray(around));
    }
}
