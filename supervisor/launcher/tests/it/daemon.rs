//! The binary on a state folder of its own.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::leftovers;

/// A running launcher. Dropped, it is stopped and everything of it purged.
pub(crate) struct Daemon {
    child: Option<Child>,
    state: PathBuf,
    _dir: Option<tempfile::TempDir>,
    extra: Vec<String>,
}

const INIT_TARGET: &str = "x86_64-unknown-linux-gnu";

impl Daemon {
    /// Starts one; `None`, with the reason told, where the tests cannot run.
    pub(crate) fn start(extra: &[&str]) -> Option<Self> {
        if let Some(why) = unable() {
            eprintln!("skipped: {why}");
            return None;
        }
        let dir = tempfile::Builder::new().prefix("aion-it-").tempdir().unwrap();
        let mut daemon = Self::at(dir.path(), extra)?;
        daemon._dir = Some(dir);
        Some(daemon)
    }

    /// Starts one on a folder of the caller's.
    pub(crate) fn at(state: &Path, extra: &[&str]) -> Option<Self> {
        if let Some(why) = unable() {
            eprintln!("skipped: {why}");
            return None;
        }
        let extra = extra.iter().map(|s| (*s).to_owned()).collect();
        let mut daemon = Self { child: None, state: state.to_owned(), _dir: None, extra };
        daemon.again();
        Some(daemon)
    }

    /// Starts the launcher (again) on the same folder.
    pub(crate) fn again(&mut self) {
        assert!(self.child.is_none());
        let child = self
            .command(&[])
            .arg("--state")
            .arg(self.state())
            .arg("--init")
            .arg(init())
            .arg("--bpf-object")
            .arg(object())
            .arg("--profiles")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../profiles"))
            .args(["--user", "0", "--group", "0"])
            .args(&self.extra)
            .process_group(0)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let begun = Instant::now();
        while Client::connect(&self.socket()).is_err() {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "the launcher ended: {ended:?}");
            assert!(begun.elapsed() < Duration::from_secs(30), "the launcher does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(args).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
        command.env("AION_LOG", std::env::var("AION_LOG").unwrap_or_else(|_| "warn".into()));
        command
    }

    pub(crate) fn state(&self) -> &Path {
        &self.state
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.state.join("run/launcher.sock")
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.socket()).unwrap()
    }

    /// Processor time of each thread, in microseconds.
    pub(crate) fn cpu_time(&self) -> Vec<(String, u64)> {
        let tasks = format!("/proc/{}/task", self.child.as_ref().unwrap().id());
        let of = |task: std::fs::DirEntry| {
            let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
            let stat = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            let ns: u64 = stat.split(' ').next()?.parse().ok()?;
            Some((name.trim().to_owned(), ns / 1000))
        };
        let mut all: Vec<_> = std::fs::read_dir(tasks).unwrap().flatten().filter_map(of).collect();
        all.sort_by_key(|(_, us)| std::cmp::Reverse(*us));
        all.truncate(8);
        all
    }

    /// kill -9.
    pub(crate) fn murder(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM, and waits for an orderly end.
    pub(crate) fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(child.id().cast_signed()),
            nix::sys::signal::SIGTERM,
        )
        .unwrap();
        let status = child.wait().unwrap();
        assert!(status.success(), "{status}");
    }

    /// The subcommand.
    pub(crate) fn purge(&self) -> bool {
        self.command(&["purge", "--state"]).arg(self.state()).status().unwrap().success()
    }

    /// The control group below each mount point.
    pub(crate) fn cgroup(&self) -> String {
        std::fs::read_to_string(self.state().join("launcher/instance")).unwrap().trim().to_owned()
    }

    /// What stands in an agent's journal, by stream.
    pub(crate) fn output(&self, id: &str) -> (Vec<u8>, Vec<u8>) {
        use aion_agent_journal::{Item, Kind, Reader};
        let file = std::fs::File::open(self.state().join("agents").join(id).join("journal")).unwrap();
        let mut reader = Reader::open(file, 0).unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        while let Some(item) = reader.next().unwrap() {
            match item {
                Item::Record(r) if r.kind == Kind::Stdout => out.extend(r.payload),
                Item::Record(r) if r.kind == Kind::Stderr => err.extend(r.payload),
                _ => {}
            }
        }
        (out, err)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.murder();
        }
        let purged = self.purge();
        let left = leftovers::find(&self.cgroup());
        if !std::thread::panicking() {
            assert!(purged, "purge failed");
            assert!(left.is_empty(), "left behind: {left:?}");
        }
    }
}

fn binary() -> PathBuf {
    let given = std::env::var_os("AION_BIN_DIR").map(|dir| PathBuf::from(dir).join("aion-launcher"));
    given.filter(|p| p.exists()).unwrap_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_aion-launcher")))
}

fn object() -> PathBuf {
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../aion/aion-probes.bpf.o");
    std::env::var_os("AION_PROBES_OBJECT").map_or(built, PathBuf::from)
}

/// aion-init, built once as it is shipped: static.
fn init() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(["build", "--quiet", "--package", "aion-init", "--target", INIT_TARGET])
            .env("RUSTFLAGS", "-C target-feature=+crt-static -C relocation-model=static")
            .status()
            .unwrap();
        assert!(status.success(), "aion-init does not build");
        Path::new(env!("CARGO_TARGET_TMPDIR")).join("..").join(INIT_TARGET).join("debug/aion-init")
    };
    BUILT.get_or_init(|| std::env::var_os("AION_INIT").map_or_else(build, PathBuf::from)).clone()
}

fn unable() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("not root".into());
    }
    let object = object();
    (!object.is_file()).then(|| format!("no BPF object at {}: run `cargo xtask build`", object.display()))
}
