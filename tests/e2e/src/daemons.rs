//! A pair of daemons on a state folder of their own: started, killed, started again, and taken away without a trace.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::leftovers::{group_name, groups};
use crate::{Ctl, Leftovers, Place, until};

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The unprivileged API.
    Aiond,
    /// The privileged half.
    Launcher,
}

impl Which {
    const fn program(self) -> &'static str {
        match self {
            Self::Aiond => "aiond",
            Self::Launcher => "aion-launcher",
        }
    }
}

/// A running pair.
#[derive(Debug)]
pub struct Daemons {
    place: Place,
    state: PathBuf,
    profiles: PathBuf,
    /// Keeps the folder; `None` when it is the caller's.
    dir: Option<tempfile::TempDir>,
    aiond: Mutex<Option<Child>>,
    launcher: Mutex<Option<Child>>,
    /// What aiond has in its environment besides.
    env: Vec<(String, String)>,
    /// The network namespace that both live in, when it is not the caller's.
    netns: Option<PathBuf>,
    before: Leftovers,
    count: AtomicU32,
}

impl Daemons {
    /// Starts a pair on a fresh folder and waits until it serves.
    ///
    /// # Errors
    /// When it does not; with the daemons' last words.
    pub fn start() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("aion-e2e-").tempdir()?;
        let mut daemons = Self::start_in(dir.path())?;
        daemons.dir = Some(dir);
        Ok(daemons)
    }

    /// Starts a pair on a folder of the caller's. Profiles that it holds are used in place of the clone's.
    ///
    /// # Errors
    /// When it does not serve; with the daemons' last words.
    pub fn start_in(folder: &Path) -> Result<Self> {
        Self::start_with(folder, &[])
    }

    /// As [`Daemons::start_in`], with these in aiond's environment; `AION_DEVICES` is the launcher's.
    ///
    /// # Errors
    /// When it does not serve; with the daemons' last words.
    pub fn start_with(folder: &Path, env: &[(&str, &str)]) -> Result<Self> {
        Self::start_all(folder, env, None)
    }

    /// As [`Daemons::start_with`], in a network namespace, by its file in `/proc`: the host as these daemons see it.
    ///
    /// # Errors
    /// When it does not serve; with the daemons' last words.
    pub fn start_inside(folder: &Path, env: &[(&str, &str)], netns: &Path) -> Result<Self> {
        Self::start_all(folder, env, Some(netns.to_owned()))
    }

    fn start_all(folder: &Path, env: &[(&str, &str)], netns: Option<PathBuf>) -> Result<Self> {
        let place = Place::find()?;
        let profiles = Some(folder.join("profiles")).filter(|own| own.is_dir());
        let daemons = Self {
            profiles: profiles.unwrap_or_else(|| place.clone.join("profiles")),
            place,
            state: folder.join("state"),
            dir: None,
            aiond: Mutex::default(),
            launcher: Mutex::default(),
            env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            netns,
            before: Leftovers::before(),
            count: AtomicU32::new(0),
        };
        fs::create_dir_all(daemons.state.join("log"))?;
        daemons.start_one(Which::Launcher)?;
        daemons.start_one(Which::Aiond)?;
        daemons.await_ready()?;
        Ok(daemons)
    }

    /// The state folder.
    #[must_use]
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The folder of the binaries.
    #[must_use]
    pub fn bin(&self) -> &Path {
        &self.place.bin
    }

    /// The clone that the daemons' profiles and policies are of.
    #[must_use]
    pub fn clone_dir(&self) -> &Path {
        &self.place.clone
    }

    /// The API's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.state.join("run/aion.sock")
    }

    /// How many clients are connected to the API now.
    #[must_use]
    pub fn connections(&self) -> usize {
        const CONNECTED: &str = "03";
        let Some(pid) = self.pid(Which::Aiond) else { return 0 };
        let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return 0 };
        let own: Vec<String> = files
            .filter_map(|file| fs::read_link(file.ok()?.path()).ok()?.into_os_string().into_string().ok())
            .collect();
        // The daemon's end of a connection has the listener's path, as the daemon gave it: without the state folder.
        let text = fs::read_to_string("/proc/net/unix").unwrap_or_default();
        text.lines()
            .filter(|line| {
                let mut words = line.split_whitespace().skip(5);
                let (state, inode, path) = (words.next(), words.next(), words.next());
                state == Some(CONNECTED)
                    && path.is_some_and(|path| path.ends_with("aion.sock"))
                    && inode.is_some_and(|inode| own.contains(&format!("socket:[{inode}]")))
            })
            .count()
    }

    /// The command line, talking to this pair.
    #[must_use]
    pub fn ctl(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Ctl {
        Ctl::new(&self.place.bin.join("aionctl"), &self.socket(), args)
    }

    /// A name that no other agent of this pair has.
    #[must_use]
    pub fn name(&self, stem: &str) -> String {
        format!("{stem}-{}", self.count.fetch_add(1, Ordering::Relaxed))
    }

    /// The control groups of this pair, in every hierarchy.
    #[must_use]
    pub fn groups(&self) -> Vec<PathBuf> {
        group_name(&self.state).map(|name| groups(&name).into_iter().collect()).unwrap_or_default()
    }

    /// Where a daemon logs.
    #[must_use]
    pub fn log(&self, which: Which) -> PathBuf {
        self.state.join("log").join(format!("{}.log", which.program()))
    }

    fn slot(&self, which: Which) -> std::sync::MutexGuard<'_, Option<Child>> {
        let slot = match which {
            Which::Aiond => &self.aiond,
            Which::Launcher => &self.launcher,
        };
        slot.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A daemon's process, while it runs.
    #[must_use]
    pub fn pid(&self, which: Which) -> Option<u32> {
        self.slot(which).as_ref().map(Child::id)
    }

    /// Starts a daemon that does not run.
    ///
    /// # Errors
    /// When the program cannot be executed.
    pub fn start_one(&self, which: Which) -> Result<()> {
        let mut slot = self.slot(which);
        if slot.is_some() {
            return Ok(());
        }
        let name = which.program();
        let log = OpenOptions::new().create(true).append(true).open(self.log(which))?;
        let mut command = Command::new(self.place.bin.join(name));
        command.arg("--state").arg(&self.state).arg("--profiles").arg(&self.profiles);
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        match which {
            Which::Aiond => {
                // A test may have put policies of its own there.
                let own = self.state.join("policies");
                let policies = if own.is_dir() { own } else { self.place.clone.join("policies") };
                command.arg("--policies").arg(policies);
                command.arg("--http").arg("127.0.0.1:0");
                // Tests attack on purpose; those of the detections name the rules they want.
                let none = self.state.join("detections");
                fs::create_dir_all(&none)?;
                command.env("AION_DETECTIONS", none);
                command.env("AION_CONFIG", "none");
                command.envs(self.env.iter().map(|(name, value)| (name, value)));
            }
            Which::Launcher => {
                if let Some(object) = &self.place.object {
                    command.env("AION_BPF_OBJECT", object);
                }
                let own = self.env.iter().filter(|(name, _)| name == "AION_DEVICES");
                command.envs(own.map(|(name, value)| (name, value)));
            }
        }
        for (key, value) in std::env::vars_os() {
            if key == "AION_LOG" || key == "RUST_BACKTRACE" {
                command.env(key, value);
            }
        }
        // A session of its own: ctrl-c at the tests is not for the daemons, which end in good order instead.
        let child = self
            .entering("setsid")
            .arg(command.get_program())
            .args(command.get_args())
            .env_clear()
            .envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        *slot = Some(child);
        Ok(())
    }

    /// Waits until the API answers and the launcher stands behind it.
    ///
    /// # Errors
    /// When it does not in time; with the daemons' last words.
    pub fn await_ready(&self) -> Result<()> {
        let ready = until(Duration::from_secs(30), || {
            for which in [Which::Launcher, Which::Aiond] {
                if let Some(child) = self.slot(which).as_mut()
                    && let Ok(Some(status)) = child.try_wait()
                {
                    return Some(Err(format!("{} ended: {status}", which.program())));
                }
            }
            // The doctor's findings are the launcher's: an answer shows that both are there.
            let done = self.ctl(["doctor", "-o", "name"]).within(Duration::from_secs(20)).done();
            (done.code == 0).then_some(Ok(()))
        });
        match ready {
            Some(Ok(())) => Ok(()),
            Some(Err(why)) => bail!("{why}\n{}", self.last_words()),
            None => bail!("the daemons do not answer\n{}", self.last_words()),
        }
    }

    /// The ends of both logs.
    #[must_use]
    pub fn last_words(&self) -> String {
        let mut out = String::new();
        for which in [Which::Launcher, Which::Aiond] {
            let text = fs::read(self.log(which)).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            let end = lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n");
            out.push_str(&format!("--- {}\n{end}\n", which.program()));
        }
        out
    }

    /// SIGKILL: nothing in the daemon has a last chance.
    pub fn kill(&self, which: Which) {
        self.end(which, Signal::SIGKILL);
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(&self, which: Which) {
        self.end(which, Signal::SIGTERM);
    }

    fn end(&self, which: Which, signal: Signal) {
        let Some(mut child) = self.slot(which).take() else { return };
        if let Ok(pid) = i32::try_from(child.id()) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
        let ended = until(Duration::from_secs(20), || child.try_wait().ok().flatten());
        if ended.is_none() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGKILL and a new process, at once.
    ///
    /// # Errors
    /// When it does not serve again.
    pub fn kill_and_restart(&self, which: Which) -> Result<()> {
        self.kill(which);
        self.start_one(which)?;
        self.await_ready()
    }

    /// Removes all agents, stops both daemons, lets the launcher clear the kernel, and says what is left behind.
    ///
    /// # Errors
    /// When something is.
    pub fn finish(self) -> Result<()> {
        let removed = self.ctl(["rm", "-f", "-a"]).done();
        let mut left = Vec::new();
        if removed.code != 0 {
            left.push(format!("agents that cannot be removed: {}", removed.err));
        }
        self.stop(Which::Aiond);
        self.stop(Which::Launcher);
        self.purge()?;
        // A network namespace or a cgroup may need a moment to die in the kernel.
        let clean = until(Duration::from_secs(5), || self.before.after(&self.state).is_empty().then_some(()));
        if clean.is_none() {
            left.extend(self.before.after(&self.state));
        }
        if left.is_empty() { Ok(()) } else { bail!("left behind:\n  {}", left.join("\n  ")) }
    }

    /// A program in the daemons' network namespace. Not by `ip netns exec`: that mounts a /sys without control groups.
    fn entering(&self, program: impl AsRef<OsStr>) -> Command {
        let Some(netns) = &self.netns else { return Command::new(program) };
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", netns.display())).arg(program);
        command
    }

    /// Lets the launcher clear the kernel of everything of this state folder.
    ///
    /// # Errors
    /// When it cannot.
    pub fn purge(&self) -> Result<()> {
        let output = self
            .entering(self.place.bin.join("aion-launcher"))
            .arg("purge")
            .arg("--state")
            .arg(&self.state)
            .stdin(Stdio::null())
            .output()?;
        if !output.status.success() {
            bail!("aion-launcher purge: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }
}

impl Drop for Daemons {
    fn drop(&mut self) {
        // Reached without `finish` only when a test failed: nothing may stay on the machine all the same.
        let running = self.slot(Which::Launcher).is_some() || self.slot(Which::Aiond).is_some();
        self.kill(Which::Aiond);
        self.kill(Which::Launcher);
        if running {
            let _ = self.purge();
        }
        if std::env::var_os("AION_E2E_KEEP").is_some()
            && let Some(dir) = self.dir.take()
        {
            let kept = dir.keep();
            // The test's own output is read by people.
            let _ = File::create(kept.join("kept")).map(|_| ());
        }
    }
}
