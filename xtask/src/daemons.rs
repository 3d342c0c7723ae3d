//! The two daemons without systemd: started in sessions of their own, known by their pid files, their logs
//! below the state folder.
//!
//! They are not our children in any sense that matters: `up --detach` leaves them, `down` finds them again.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::{capture, note, show, succeeds, write_whole};
use crate::project::Project;

/// Whether the process is this daemon. A pid file alone proves nothing: the number may be another's by now. The
/// name is setsid's until that has executed the daemon.
fn is_alive(pid: u32, name: &str) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return false };
    let field = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).map_or("", str::trim);
    [name, "setsid"].contains(&field("Name:")) && !field("State:").starts_with('Z')
}

/// In the order in which they are started; stopping is the other way round.
pub(crate) const DAEMONS: [&str; 2] = ["aion-launcher", "aiond"];

/// How long a daemon may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// The daemons of one state folder.
#[derive(Debug)]
pub(crate) struct Daemons<'a> {
    project: &'a Project,
    /// Absolute.
    pub(crate) state: PathBuf,
}

impl<'a> Daemons<'a> {
    pub(crate) fn new(project: &'a Project, state: &Path) -> Result<Self> {
        let state = if state.is_absolute() { state.to_owned() } else { project.root.join(state) };
        if state.to_str().is_none_or(|text| text.contains(['\n', '\''])) {
            bail!("the state folder's name must be plain text: {}", state.display());
        }
        Ok(Self { project, state })
    }

    /// The API's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.state.join("run/aion.sock")
    }

    /// aionctl, told of this state's socket.
    pub(crate) fn aionctl(&self) -> Command {
        let mut command = Command::new(self.project.binary("aionctl"));
        command.env("AION_SOCKET", self.socket());
        command
    }

    fn pid_file(&self, name: &str) -> PathBuf {
        self.state.join("run").join(format!("{name}.pid"))
    }

    /// A daemon's log.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.state.join("log").join(format!("{name}.log"))
    }

    /// The daemon's process, when it runs.
    pub(crate) fn pid(&self, name: &str) -> Option<u32> {
        let pid: u32 = fs::read_to_string(self.pid_file(name)).ok()?.trim().parse().ok()?;
        is_alive(pid, name).then_some(pid)
    }

    /// Whether the daemon runs a build that has been replaced since.
    pub(crate) fn is_stale(&self, name: &str) -> bool {
        let Some(pid) = self.pid(name) else { return false };
        fs::read_link(format!("/proc/{pid}/exe")).map_or(true, |exe| exe != self.project.binary(name))
    }

    /// Starts a daemon that does not run. Gives the child, for whoever stays to watch it.
    pub(crate) fn start(&self, name: &str) -> Result<Option<Child>> {
        if self.pid(name).is_some() {
            return Ok(None);
        }
        for folder in ["run", "log"] {
            fs::create_dir_all(self.state.join(folder))
                .with_context(|| format!("cannot make {}", self.state.join(folder).display()))?;
        }
        let log = OpenOptions::new().create(true).append(true).open(self.log(name))?;
        let mut command = Command::new("setsid");
        command.arg(self.project.binary(name)).arg("--state").arg(&self.state);
        self.arguments(name, &mut command);
        // From nothing: what the caller's shell has set is none of a daemon's business.
        command
            .env_clear()
            .env("NO_COLOR", "1")
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        for (key, value) in std::env::vars_os() {
            if key.to_string_lossy().starts_with("AION_LOG") || key == "RUST_BACKTRACE" {
                command.env(key, value);
            }
        }
        note(&format!("$ {}", show(&command)));
        let child = command
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        // setsid does not fork here, because we are never a process group's leader: the pid is the daemon's.
        write_whole(&self.pid_file(name), format!("{}\n", child.id()).as_bytes())?;
        Ok(Some(child))
    }

    fn arguments(&self, name: &str, command: &mut Command) {
        command.arg("--profiles").arg(self.project.root.join("profiles"));
        if name == "aiond" {
            command.arg("--policies").arg(self.project.root.join("policies")).args(["--config", "none"]);
        }
    }

    /// Waits until the API answers.
    pub(crate) fn await_ready(&self) -> Result<()> {
        let begun = Instant::now();
        loop {
            if succeeds(self.aionctl().args(["doctor", "-o", "name"]).env("AION_RECONNECT_SECONDS", "1")) {
                return Ok(());
            }
            for name in DAEMONS {
                if self.pid(name).is_none() {
                    bail!("{name} ended while it started; it said:\n{}", self.last_words(name));
                }
            }
            if begun.elapsed() > PATIENCE {
                let said = capture(self.aionctl().args(["ps"]))?;
                bail!(
                    "aiond does not answer: {}\n{}",
                    String::from_utf8_lossy(&said.stderr).trim(),
                    self.last_words("aiond")
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The end of a daemon's log.
    pub(crate) fn last_words(&self, name: &str) -> String {
        let text = fs::read(self.log(name)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Stops a daemon, and only it: agents run on.
    pub(crate) fn stop(&self, name: &str) -> Result<()> {
        let Some(pid) = self.pid(name) else { return self.forget(name) };
        let signal = |signal: &str| succeeds(Command::new("kill").args([signal, &pid.to_string()]));
        signal("-TERM");
        let begun = Instant::now();
        // The process, not the file: a daemon removes its file before it has let go of everything.
        while is_alive(pid, name) {
            if begun.elapsed() > PATIENCE {
                signal("-KILL");
                bail!("{name} (pid {pid}) did not stop within {} s and was killed", PATIENCE.as_secs());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.forget(name)
    }

    fn forget(&self, name: &str) -> Result<()> {
        match fs::remove_file(self.pid_file(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Leaves the shell file that scripts source.
    pub(crate) fn write_env(&self) -> Result<PathBuf> {
        let port = std::env::var("AION_KERNEL_PORT").unwrap_or_else(|_| "8010".to_owned());
        let text = format!(
            "# Made by `cargo xtask up`. Source it: it points aionctl, SDKs and scripts to the daemons of this folder.\n\
             export AION_STATE='{state}'\n\
             export AION_SOCKET='{socket}'\n\
             export AION_PROFILES='{profiles}'\n\
             # The kernel API.\n\
             export AION_HTTP='http://127.0.0.1:{port}'\n\
             case \":$PATH:\" in\n    *:'{bin}':*) ;;\n    *) export PATH='{bin}':\"$PATH\" ;;\nesac\n",
            state = self.state.display(),
            socket = self.socket().display(),
            profiles = self.project.root.join("profiles").display(),
            bin = self.project.bin().display(),
        );
        let path = self.state.join("env");
        write_whole(&path, text.as_bytes())?;
        Ok(path)
    }
}
