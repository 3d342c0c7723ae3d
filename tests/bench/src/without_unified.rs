//! Runs commands where a hybrid host's unified cgroup hierarchy is not mounted.
//!
//! A thread of its own has left the others' mount namespace; what it starts starts there. The thread is made once,
//! so that only the hand-over of the command (microseconds) is in a contender's time.

use std::io;
use std::process::{Command, Output};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, OnceLock};

use anyhow::{Context, Result, anyhow};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

const UNIFIED: &str = "/sys/fs/cgroup/unified";

type Job = (Command, Sender<io::Result<Output>>);

/// Runs the command to its end.
pub(crate) fn run(command: Command) -> Result<io::Result<Output>> {
    static THREAD: OnceLock<Mutex<Sender<Job>>> = OnceLock::new();
    let (answer, result) = channel();
    THREAD
        .get_or_init(|| {
            let (jobs, waiting) = channel();
            std::thread::spawn(move || serve(&waiting));
            Mutex::new(jobs)
        })
        .lock()
        .map_err(|_| anyhow!("a thread panicked"))?
        .send((command, answer))
        .context("the thread is gone")?;
    result.recv().context("the thread is gone")
}

fn serve(jobs: &Receiver<Job>) {
    let ready = leave();
    for (mut command, answer) in jobs {
        let output = match &ready {
            Ok(()) => command.output(),
            Err(errno) => Err(io::Error::from_raw_os_error(*errno as i32)),
        };
        if answer.send(output).is_err() {
            return;
        }
    }
}

fn leave() -> nix::Result<()> {
    if !std::path::Path::new(UNIFIED).is_dir() {
        return Ok(());
    }
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    umount2(UNIFIED, MntFlags::MNT_DETACH)
}
