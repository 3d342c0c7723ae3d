//! Runs one attempt in a child of its own, so that nothing it changes stays and a kill is seen as one.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::attempt::{Attempt, Control};
use crate::attempts;
use crate::sys::{self, Stop, Tried, at};
use crate::target::{Made, Targets, slowness};

const LIMIT: Duration = Duration::from_secs(20);

/// What became of an attempt or control.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) id: String,
    /// `escaped`, `blocked` or `unavailable`.
    pub(crate) outcome: String,
    pub(crate) how: String,
}

impl Outcome {
    fn new(id: &str, outcome: &str, how: impl Into<String>) -> Self {
        Self { id: id.to_owned(), outcome: outcome.to_owned(), how: how.into() }
    }
}

/// Runs the attempt where this process is.
pub(crate) fn attempt(attempt: &Attempt, targets: &Targets) -> Outcome {
    match isolated(LIMIT * targets.slowness(), || (attempt.run)(targets)) {
        Ok(how) => Outcome::new(&attempt.id, "escaped", how),
        Err(stop) => Outcome::new(&attempt.id, "blocked", stop.to_string()),
    }
}

/// Runs the attempt where the layer that stops it is missing.
///
/// Every control has a mount namespace of its own, and in it a scratch folder that is a file system of its
/// own. Both vanish with the last process. Nothing is ever removed as a tree: an attempt may have mounted the
/// host's root below the folder, and whoever removes that removes the host.
pub(crate) fn control(attempt: &Attempt) -> Outcome {
    let tried = mount_point().and_then(|folder| {
        let tried = isolated(LIMIT * 2 * slowness(), || in_control(attempt, &folder));
        let _ = std::fs::remove_dir(&folder);
        tried
    });
    match tried {
        Ok(how) => Outcome::new(&attempt.id, "escaped", how),
        Err(stop) if attempt.absent.contains(&stop.errno) => {
            Outcome::new(&attempt.id, "unavailable", format!("not in this kernel: {stop}"))
        }
        Err(stop) => Outcome::new(&attempt.id, "blocked", stop.to_string()),
    }
}

/// An empty folder, for the scratch file system to be mounted on.
fn mount_point() -> Result<String, Stop> {
    let path = std::env::temp_dir().join(format!("aion-escape-control-{}", sys::getpid()));
    std::fs::create_dir_all(&path).map_err(at("making a folder"))?;
    Ok(path.to_string_lossy().into_owned())
}

fn in_control(attempt: &Attempt, folder: &str) -> Tried {
    let more = if let Control::Fresh(flags) = attempt.control { flags } else { 0 };
    sys::unshare(libc::CLONE_NEWNS | more)?;
    sys::mount("none", "/", "", libc::MS_REC | libc::MS_PRIVATE, "")?;
    // After this the host's folder cannot be reached by its path.
    sys::mount("none", folder, "tmpfs", 0, "mode=0777")?;
    let mut made = Made::new(&std::env::temp_dir())?;
    made.targets.workspace = folder.to_owned();
    made.targets.control = true;
    let mut targets = made.targets.clone();
    let tried = isolated(LIMIT * slowness(), || {
        // pivot_root(2) moves every process of its mount namespace: this one must not be among them.
        sys::unshare(libc::CLONE_NEWNS)?;
        if let Some(prepare) = &attempt.prepare {
            prepare(&mut targets)?;
        }
        if matches!(attempt.control, Control::User) {
            become_nobody()?;
        }
        (attempt.run)(&targets)
    });
    if let Some(cgroup) = attempts::cgroup_of_control(&made.targets) {
        let _ = std::fs::remove_dir(cgroup);
    }
    tried
}

fn become_nobody() -> Result<(), Stop> {
    const NOBODY: u32 = 65_534;
    // SAFETY: numbers only. A process that changed its user could not use its own /proc otherwise.
    let failed = unsafe {
        libc::setgroups(0, std::ptr::null()) != 0
            || libc::setgid(NOBODY) != 0
            || libc::setuid(NOBODY) != 0
            || libc::prctl(libc::PR_SET_DUMPABLE, 1) != 0
    };
    if failed { Err(Stop::last("becoming nobody")) } else { Ok(()) }
}

/// Runs in a child; its death by a signal is an end of the attempt like another.
fn isolated(limit: Duration, run: impl FnOnce() -> Tried) -> Tried {
    let mut ends = [0; 2];
    // SAFETY: the array outlives the call.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return Err(Stop::last("pipe"));
    }
    let (mut reader, writer) = (File::from(sys::fd(ends[0] as usize)), File::from(sys::fd(ends[1] as usize)));
    let pid = sys::fork(|| {
        // A group of its own, so that whatever it leaves behind can be ended.
        // SAFETY: numbers only.
        unsafe { libc::setpgid(0, 0) };
        let (ok, what, errno) = match run() {
            Ok(how) => (true, how, 0),
            Err(stop) => (false, stop.what, stop.errno),
        };
        let _ = (&writer).write_all(serde_json::json!([ok, what, errno]).to_string().as_bytes());
    })?;
    drop(writer);
    let status = sys::wait(pid, limit);
    let _ = sys::kill(-pid, libc::SIGKILL);
    let Some(status) = status else {
        sys::end(pid);
        return Err(Stop::because("it did not end and was killed"));
    };
    // A process that it left behind may hold the pipe open.
    // SAFETY: numbers only.
    unsafe { libc::fcntl(reader.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
    let mut answer = Vec::new();
    let _ = reader.read_to_end(&mut answer);
    if let Ok((ok, what, errno)) = serde_json::from_slice::<(bool, String, i32)>(&answer) {
        return if ok { Ok(what) } else { Err(Stop::at(what, errno)) };
    }
    if libc::WIFSIGNALED(status) {
        let signal = libc::WTERMSIG(status);
        return Err(Stop::because(match signal {
            libc::SIGSYS => "SIGSYS: killed by seccomp".to_owned(),
            libc::SIGKILL => "SIGKILL: killed, as by the memory limit".to_owned(),
            libc::SIGSEGV => "SIGSEGV: no such way into this kernel".to_owned(),
            _ => format!("killed by signal {signal}"),
        }));
    }
    Err(Stop::because(format!("it ended with status {status:#x} and without an answer")))
}
