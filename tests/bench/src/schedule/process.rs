//! Servers that the benchmark starts itself: their data beside AION's, gone with them.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long one may take to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server. Dropped, it is ended.
#[derive(Debug)]
pub(crate) struct Server {
    child: Option<Child>,
    log: PathBuf,
    gentle: Signal,
}

impl Server {
    /// Starts it, as `user` when there is one, with its output in `log`.
    pub(crate) fn start(mut command: Command, user: Option<(u32, u32)>, log: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(log)?;
        if let Some((uid, gid)) = user {
            command.uid(uid).gid(gid);
        }
        // A group of its own: Ctrl-C is for the benchmark, which ends it in good order.
        command.process_group(0).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().with_context(|| format!("{name} cannot be started"))?;
        Ok(Self { child: Some(child), log: log.to_owned(), gentle: Signal::SIGTERM })
    }

    /// Ends it with another signal than SIGTERM, as PostgreSQL wants it.
    #[cfg(feature = "peers")]
    pub(crate) fn ended_by(mut self, signal: Signal) -> Self {
        self.gentle = signal;
        self
    }

    /// Its process.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// An error with its last words when it has ended already.
    pub(crate) fn check(&mut self) -> Result<()> {
        let Some(child) = &mut self.child else { return Ok(()) };
        if let Some(status) = child.try_wait()? {
            bail!("it ended with {status}: {}", self.last_words());
        }
        Ok(())
    }

    /// The end of its log.
    pub(crate) fn last_words(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    /// SIGKILL, and waits.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Its signal, and SIGKILL when that does not help.
    pub(crate) fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        if let Ok(pid) = i32::try_from(child.id()) {
            let _ = kill(Pid::from_raw(pid), self.gentle);
        }
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if !matches!(child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A program in a network namespace, which is given by its file. Not by `ip netns exec`: that mounts a /sys without control groups.
pub(crate) fn inside(netns: &Path, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", netns.display())).arg(program);
    command
}

/// Memory that a process has, in bytes.
pub(crate) fn resident(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<f64>().ok())
        .map(|kilobytes| kilobytes * 1024.0)
        .context("no VmRSS")
}

/// Processor time that a process has used, of all its threads, in seconds.
pub(crate) fn processor_seconds(pid: u32) -> Result<f64> {
    let mut sum = 0_u64;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        // The first number is nanoseconds on a processor; `stat` has hundredths of seconds alone.
        let Ok(line) = std::fs::read_to_string(task?.path().join("schedstat")) else { continue };
        let nanoseconds = line.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
        sum += nanoseconds.context("schedstat has no number")?;
    }
    Ok(Duration::from_nanos(sum).as_secs_f64())
}

/// Asks until there is an answer.
pub(crate) async fn until<T>(
    what: &str,
    time: Duration,
    mut ask: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask().await? {
            return Ok(answer);
        }
        if begun.elapsed() > time {
            bail!("{what}: not after {} s", time.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
