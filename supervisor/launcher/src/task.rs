//! What an agent that serves tasks gets from outside: aiond's door, or a job's files.
//!
//! aiond is not trusted here: its folder is opened below ours and must be its own, its descriptors must be what they should be, and
//! a descriptor that only names a file is not taken, because we could open what aiond could not.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use aion_sandbox::{JobFds, mounts};
use aion_types::LayerName;
use rustix::fs::{
    CWD, FileType, Mode, OFlags, ResolveFlags, SealFlags, fcntl_get_seals, fcntl_getfl, fstat, openat,
    openat2,
};

use crate::Failure;
use crate::launcher::Launcher;
use crate::request::{Input, Launch};

/// The longest standard input that comes as a file.
const MAX_STDIN: u64 = 16 << 20;
/// Files of a job in the agent's folder.
const FILES: [&str; 3] = ["checkpoint.0", "checkpoint.1", "result"];

/// Descriptors for the plan.
#[derive(Debug, Default)]
pub(crate) struct TaskFds {
    pub(crate) door: Option<OwnedFd>,
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) job: Option<JobFds>,
}

impl TaskFds {
    /// Opens what the launch asks for. `fds` are those that came with it; their number is checked.
    pub(crate) fn open(launcher: &Launcher, launch: &Launch, fds: Vec<OwnedFd>) -> Result<Self, Failure> {
        let door = launch.door.then(|| door(launcher, launch)).transpose()?;
        let mut fds = fds.into_iter();
        match launch.input {
            Input::None => {}
            Input::File => {
                let fd = fds.next().ok_or_else(|| Failure::field("stdin", "a descriptor is missing"))?;
                return Ok(Self { door, stdin: Some(sealed("stdin", &fd)?), ..Self::default() });
            }
            Input::Pipes => {
                let (stdin, stdout) = (fds.next(), fds.next());
                for (fd, way) in [(&stdin, OFlags::RDONLY), (&stdout, OFlags::WRONLY)] {
                    pipe_end(fd.as_ref(), way)?;
                }
                return Ok(Self { door, stdin, stdout, job: None });
            }
        }
        let Some(job) = &launch.job else { return Ok(Self { door, ..Self::default() }) };
        let missing = || Failure::field("fds", "a descriptor is missing");
        let mut next = |wanted: bool| wanted.then(|| fds.next().ok_or_else(missing)).transpose();
        let stdin = next(job.stdin)?.map(|fd| sealed("job.stdin", &fd)).transpose()?;
        let restore = next(job.restore)?;
        if let Some(fd) = &restore {
            let size = readable_file("job.restore", fd)?;
            if size > job.checkpoint_max {
                let why = format!("{size} bytes, at most {} are allowed", job.checkpoint_max);
                return Err(Failure::field("job.restore", why));
            }
        }
        let [one, two, result] = FILES.map(|name| empty_file(launcher, launch, name));
        let job = JobFds { checkpoints: [one?, two?], result: result?, restore };
        Ok(Self { door, stdin, stdout: None, job: Some(job) })
    }
}

/// aiond's folder for this agent, as a mount.
fn door(launcher: &Launcher, launch: &Launch) -> Result<OwnedFd, Failure> {
    let failed = |e: rustix::io::Errno, what: &str| {
        Failure::layer(LayerName::Rootfs, e.raw_os_error(), format!("the door of the agent: {what}: {e}"))
    };
    let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, launcher.folder.doors(), folder | OFlags::NOFOLLOW, Mode::empty())
        .map_err(|e| failed(e, "the folder of doors cannot be opened"))?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let door = openat2(&root, launch.id.as_str(), folder, Mode::empty(), resolve)
        .map_err(|e| failed(e, "it cannot be opened"))?;
    let stat = fstat(&door).map_err(|e| failed(e, "it cannot be looked at"))?;
    if stat.st_uid != launcher.user {
        let why = format!("the folder belongs to user {}, not to aiond's ({})", stat.st_uid, launcher.user);
        return Err(Failure::field("door", why));
    }
    Ok(mounts::door(door.as_fd())?)
}

/// An end of a pipe, and the right one: the agent gets nothing else from aiond's hand.
fn pipe_end(fd: Option<&OwnedFd>, way: OFlags) -> Result<(), Failure> {
    let wrong = |why: &str| Failure::field("stdio", why);
    let fd = fd.ok_or_else(|| wrong("a descriptor is missing"))?;
    let unseen = |_| wrong("the descriptor cannot be looked at");
    let flags = fcntl_getfl(fd).map_err(unseen)?;
    let stat = fstat(fd).map_err(unseen)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Fifo
        || flags.contains(OFlags::PATH)
        || flags & OFlags::RWMODE != way
    {
        return Err(wrong("the first descriptor is a pipe's read end, the second a pipe's write end"));
    }
    Ok(())
}

/// Size of a file that may be read through this descriptor.
fn readable_file(field: &str, fd: &OwnedFd) -> Result<u64, Failure> {
    let wrong = |why: &str| Failure::field(field, why);
    let flags = fcntl_getfl(fd).map_err(|_| wrong("the descriptor cannot be looked at"))?;
    let readable = matches!(flags & OFlags::RWMODE, OFlags::RDONLY | OFlags::RDWR);
    if flags.contains(OFlags::PATH) || !readable {
        return Err(wrong("the descriptor is not open for reading"));
    }
    let stat = fstat(fd).map_err(|_| wrong("the descriptor cannot be looked at"))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(wrong("the descriptor is not a file"));
    }
    Ok(u64::try_from(stat.st_size).unwrap_or(0))
}

/// Standard input, through a descriptor of our own: read-only, from the beginning, and nobody can change it any more.
fn sealed(field: &str, fd: &OwnedFd) -> Result<OwnedFd, Failure> {
    let wrong = |why: String| Failure::field(field, why);
    let size = readable_file(field, fd)?;
    if size > MAX_STDIN {
        return Err(wrong(format!("{size} bytes, at most {MAX_STDIN} are allowed")));
    }
    let needed = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK;
    if !fcntl_get_seals(fd).is_ok_and(|seals| seals.contains(needed)) {
        return Err(wrong("it is not a memfd that is sealed against writing and resizing".to_owned()));
    }
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(fd));
    openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| wrong(format!("it cannot be opened again: {e}")))
}

/// A new file in the agent's folder, which its readers may read. An old one stays with whoever has it open.
fn empty_file(launcher: &Launcher, launch: &Launch, name: &str) -> Result<OwnedFd, Failure> {
    let path = launcher.folder.agent(&launch.id).join(name);
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Failure::state("remove", &path, &e)),
        _ => {}
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o640)
        .open(&path)
        .map_err(|e| Failure::state("make", &path, &e))?;
    give(&file, launcher, &path)?;
    Ok(file.into())
}

fn give(file: &std::fs::File, launcher: &Launcher, path: &Path) -> Result<(), Failure> {
    let root = nix::unistd::Uid::from_raw(0);
    nix::unistd::fchown(file, Some(root), Some(launcher.group))
        .map_err(|e| Failure::state("give away", path, &e.into()))
}
