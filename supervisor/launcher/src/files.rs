//! Files of a running agent, for the kernel API: opened where the agent sees them, as the agent itself could.
//!
//! Three things hold here whatever aiond asks for. The way begins at the root of the agent's own mount namespace, at its workspace
//! or one of its binds, and goes through no link and no further mount: the path that was decided is the file that is opened. The
//! agent's user opens it, without a capability, so that owners, rights and the volume's end are what they are for the agent. And
//! what is opened is a regular file: aiond gets no folder, device, pipe or socket.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use aion_launcher_proto::v1::{self, response::Result as Answer};
use aion_types::ErrorCode;
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, SeekFrom, Stat, openat2};
use rustix::io::Errno;

use crate::Failure;
use crate::agent::Run;
use crate::launcher::Launcher;
use crate::ops::Done;
use crate::request::{AgentFile, FileOp, FileUse, Launch};

const WORKSPACE: &str = "/workspace";
/// The agent's user inside.
const USER: u32 = 1000;
/// Bytes of entries that are read at once.
const ENTRIES: usize = 32 << 10;

/// Below the root, whatever links and mounts say.
pub(crate) const INSIDE: ResolveFlags =
    ResolveFlags::IN_ROOT.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);
/// Below the workspace or a bind, on its own mount.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

pub(crate) fn perform(launcher: &Launcher, op: FileOp) -> Done {
    match op {
        FileOp::Open { file, what_for } => {
            let place = Place::find(launcher, &file, what_for != FileUse::Read)?;
            let opened = place.open(&what_for)?;
            let info = info(&stat(&opened)?, Vec::new());
            Ok((Answer::File(info), vec![opened]))
        }
        FileOp::Put { file, part, keep } => {
            Place::find(launcher, &file, true)?.put(&part, keep)?;
            Ok((Answer::Empty(v1::Empty {}), Vec::new()))
        }
        FileOp::Stat(file) => Ok((Answer::File(Place::find(launcher, &file, false)?.stat()?), Vec::new())),
        FileOp::List { file, after, limit } => {
            let page = Place::find(launcher, &file, false)?.list(after, limit)?;
            Ok((Answer::Folder(page), Vec::new()))
        }
    }
}

/// Where a path leads: below one of the folders that the agent was given.
struct Place {
    /// The root that the agent sees.
    root: OwnedFd,
    /// The workspace or the bind, below the root.
    given: PathBuf,
    /// The same, as a path only.
    anchor: OwnedFd,
    /// Below it; empty for the anchor itself.
    rest: PathBuf,
    _user: AsAgent,
}

impl Place {
    fn find(launcher: &Launcher, file: &AgentFile, write: bool) -> Result<Self, Failure> {
        let (agent, run) = launcher.running(&file.id)?;
        let spec = agent.lock().spec.clone();
        let spec = spec.ok_or_else(|| Failure::internal("what the agent was given is not known any more"))?;
        let (given, writable) = anchor_of(&spec, &file.path).ok_or_else(|| {
            Failure::field("path", "it is neither in the workspace nor in a folder that the agent was given")
        })?;
        if write && !writable {
            return Err(refused(Errno::ROFS, "it is shown to the agent read-only"));
        }
        let root = root_of(&run)?;
        let user = AsAgent::become_it(run.held.uid_base.saturating_add(USER))?;
        let rest = file.path.strip_prefix(given).unwrap_or(&file.path).to_owned();
        let given = given.strip_prefix("/").unwrap_or(given).to_owned();
        let anchor =
            openat2(&root, &given, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), INSIDE).map_err(of)?;
        Ok(Self { root, given, anchor, rest, _user: user })
    }

    fn at(&self, rest: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        openat2(&self.anchor, rest, flags | OFlags::CLOEXEC, mode, BENEATH)
    }

    /// Opens what is there.
    fn here(&self, flags: OFlags) -> Result<OwnedFd, Errno> {
        if self.rest.as_os_str().is_empty() {
            return openat2(&self.root, &self.given, flags | OFlags::CLOEXEC, Mode::empty(), INSIDE);
        }
        self.at(&self.rest, flags, Mode::empty())
    }

    fn open(&self, what_for: &FileUse) -> Result<OwnedFd, Failure> {
        // Without waiting: for the other end of a pipe, for a lease to be given up.
        let usual = OFlags::NONBLOCK | OFlags::NOCTTY;
        let write = OFlags::WRONLY | usual;
        let new = Mode::from_raw_mode(0o644);
        let opened = match what_for {
            FileUse::Read => self.here(OFlags::RDONLY | usual).map_err(of)?,
            FileUse::Write | FileUse::Append => {
                let end = if *what_for == FileUse::Append { OFlags::APPEND } else { OFlags::empty() };
                // A bind may be one file; it is there, and cannot be made.
                let opened = match self.named() {
                    Ok((rest, _)) => self.at(rest, write | end | OFlags::CREATE, new),
                    Err(_) => self.here(write | end),
                };
                opened.map_err(of)?
            }
            FileUse::New => {
                self.at(self.named()?.0, write | OFlags::CREATE | OFlags::EXCL, new).map_err(of)?
            }
            FileUse::Part(part) => {
                let (rest, folder) = self.named()?;
                // What stands there keeps its rights; and only a file is replaced.
                let mode = match self.at(rest, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty()) {
                    Ok(old) => Mode::from_raw_mode(regular(&stat(&old)?)?.st_mode & 0o777),
                    Err(Errno::NOENT) => new,
                    Err(errno) => return Err(of(errno)),
                };
                self.at(&folder.join(part), write | OFlags::CREATE | OFlags::EXCL, mode).map_err(of)?
            }
        };
        regular(&stat(&opened)?)?;
        Ok(opened)
    }

    /// The path below the anchor, and its folder.
    fn named(&self) -> Result<(&Path, &Path), Failure> {
        let folder =
            self.rest.parent().ok_or_else(|| refused(Errno::BUSY, "it is a mount: write what is in it"))?;
        Ok((&self.rest, folder))
    }

    fn put(&self, part: &str, keep: bool) -> Result<(), Failure> {
        let (rest, folder) = self.named()?;
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let folder = self.at(folder, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).map_err(of)?;
        let done = match rest.file_name() {
            // A rename follows no link: what stands there is what goes.
            Some(name) if keep => rustix::fs::renameat(&folder, part, &folder, name),
            _ => rustix::fs::unlinkat(&folder, part, AtFlags::empty()),
        };
        done.map_err(of)
    }

    fn stat(&self) -> Result<v1::FileInfo, Failure> {
        let found = self.here(OFlags::PATH | OFlags::NOFOLLOW).map_err(of)?;
        let mut info = info(&stat(&found)?, Vec::new());
        if info.kind == "link" {
            info.target = rustix::fs::readlinkat(&found, "", Vec::new()).map_err(of)?.into_bytes();
        }
        Ok(info)
    }

    fn list(&self, after: u64, limit: usize) -> Result<v1::FolderPage, Failure> {
        let folder = self.here(OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK).map_err(of)?;
        if after != 0 {
            let wrong = |_| Failure::field("after", "it is not where a page ended");
            rustix::fs::seek(&folder, SeekFrom::Start(after)).map_err(wrong)?;
        }
        let mut space = vec![MaybeUninit::uninit(); ENTRIES];
        let mut entries = RawDir::new(&folder, &mut space);
        let mut page = v1::FolderPage { next: after, ..v1::FolderPage::default() };
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(of)?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            if page.entries.len() >= limit {
                page.more = true;
                break;
            }
            page.next = entry.next_entry_cookie();
            // It may have gone meanwhile.
            if let Ok(stat) = rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                page.entries.push(info(&stat, name.to_bytes().to_vec()));
            }
        }
        Ok(page)
    }
}

/// The workspace or the bind that a path lies in, and whether the agent may write to it. The innermost counts.
fn anchor_of<'a>(spec: &'a Launch, path: &Path) -> Option<(&'a Path, bool)> {
    let binds = spec.binds.iter().map(|bind| (bind.path.as_path(), bind.writable));
    let workspace = (Path::new(WORKSPACE), !spec.workspace.read_only);
    binds
        .chain([workspace])
        .filter(|(given, _)| path.starts_with(given))
        .max_by_key(|(given, _)| given.as_os_str().len())
}

/// The root of the agent's mount namespace. Init's number is its own for as long as init is there: it is looked at afterwards.
pub(crate) fn root_of(run: &Run) -> Result<OwnedFd, Failure> {
    let gone = || Failure::new(ErrorCode::AgentNotRunning, "the agent has ended");
    let pidfd = run.pidfd().ok_or_else(gone)?;
    let root = format!("/proc/{}/root", run.init_pid);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, flags, Mode::empty()).map_err(|_| gone())?;
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    match poll(&mut [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)], Some(&now)) {
        Ok(0) => Ok(root),
        _ => Err(gone()),
    }
}

/// This thread's file accesses are the agent's until this is dropped: its user, and none of root's capabilities about files.
struct AsAgent;

impl AsAgent {
    fn become_it(user: u32) -> Result<Self, Failure> {
        let own = Self;
        setfsgid(Gid::from_raw(user));
        setfsuid(Uid::from_raw(user));
        // They say what was before; asking for the impossible says what is.
        let (uid, gid) = (setfsuid(Uid::from_raw(u32::MAX)), setfsgid(Gid::from_raw(u32::MAX)));
        if uid.as_raw() == user && gid.as_raw() == user && user != 0 {
            return Ok(own);
        }
        Err(Failure::internal("cannot become the agent's user"))
    }
}

impl Drop for AsAgent {
    fn drop(&mut self) {
        setfsuid(Uid::from_raw(0));
        setfsgid(Gid::from_raw(0));
    }
}

fn stat(fd: &impl AsFd) -> Result<Stat, Failure> {
    rustix::fs::fstat(fd).map_err(of)
}

fn regular(stat: &Stat) -> Result<&Stat, Failure> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(stat),
        FileType::Directory => Err(refused(Errno::ISDIR, "it is a folder")),
        FileType::Symlink => Err(of(Errno::LOOP)),
        _ => Err(refused(Errno::NXIO, "it is a pipe, a socket or a device: only files are opened")),
    }
}

fn info(stat: &Stat, name: Vec<u8>) -> v1::FileInfo {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => "file",
        FileType::Directory => "folder",
        FileType::Symlink => "link",
        _ => "other",
    };
    let nanoseconds = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
    v1::FileInfo {
        name,
        kind: kind.to_owned(),
        size: u64::try_from(stat.st_size).unwrap_or(0),
        modified_ns: stat.st_mtime.saturating_mul(1_000_000_000).saturating_add(nanoseconds),
        mode: stat.st_mode & 0o7777,
        target: Vec::new(),
    }
}

fn refused(errno: Errno, why: &str) -> Failure {
    Failure { errno: errno.raw_os_error(), ..Failure::new(ErrorCode::FileRefused, why) }
}

/// What the kernel said, in words.
fn of(errno: Errno) -> Failure {
    let told = |code, why: &str| Failure { errno: errno.raw_os_error(), ..Failure::new(code, why) };
    match errno {
        Errno::NOENT => told(ErrorCode::FileNotFound, "there is no such file"),
        Errno::NOTDIR => told(ErrorCode::FileNotFound, "a part of the path is no folder"),
        Errno::EXIST => told(ErrorCode::FileExists, "there is one already"),
        Errno::LOOP => refused(errno, "a part of the path is a link, and links are not followed"),
        Errno::XDEV => refused(errno, "the path leads to another mount"),
        Errno::ISDIR => refused(errno, "it is a folder"),
        Errno::NXIO => refused(errno, "it is a pipe, a socket or a device: only files are opened"),
        Errno::ROFS => refused(errno, "it is shown to the agent read-only"),
        Errno::ACCESS | Errno::PERM => refused(errno, "the agent itself has no right to it"),
        Errno::AGAIN => refused(errno, "the agent holds a lease on it"),
        Errno::TXTBSY => refused(errno, "it is a program that runs"),
        Errno::NOSPC | Errno::DQUOT => {
            told(ErrorCode::DiskFull, "there is no room left where the agent stores it")
        }
        Errno::NAMETOOLONG => Failure::field("path", "a name in it is too long"),
        errno => told(ErrorCode::Internal, &format!("the file cannot be used: {errno}")),
    }
}
