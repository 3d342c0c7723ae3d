//! A cgroup, a pin folder and probes for one test, removed when it ends.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use aion_probes::{
    AgentConfig, AuditMode, Comm, DeniedDevice, Event, Exit, Fork, Kind, Net, NetPolicy, Object, Opened,
    Options, Origin, PrivChange, Probes, Syscall,
};

pub(crate) const EVENTS: AgentConfig =
    AgentConfig { mode: AuditMode::Events, strict: false, net: NetPolicy::AllowAll };

/// Why this machine cannot run these tests.
fn missing() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("not root".to_owned());
    }
    if object().is_none() {
        return Some("no aion-probes.bpf.o: run `cargo xtask build` or set AION_PROBES_OBJECT".to_owned());
    }
    if cgroup_root().is_none() {
        return Some("no cgroup v2".to_owned());
    }
    None
}

pub(crate) fn object() -> Option<PathBuf> {
    let given = std::env::var_os("AION_PROBES_OBJECT").map(PathBuf::from);
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../aion/aion-probes.bpf.o");
    given.into_iter().chain([built]).find(|path| path.is_file())
}

fn cgroup_root() -> Option<&'static Path> {
    ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
        .iter()
        .map(Path::new)
        .find(|root| root.join("cgroup.controllers").exists())
}

pub(crate) struct World {
    pub options: Options,
    pub parent: PathBuf,
    name: String,
}

impl World {
    /// None, with a line that says why, when the machine lacks something.
    pub(crate) fn new(ring_bytes: u32) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if let Some(why) = missing() {
            println!("skipped: {why}");
            return None;
        }
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("aion-it-{}-{number}", std::process::id());
        let parent = cgroup_root()?.join(&name);
        fs::create_dir(&parent).unwrap();
        let options = Options {
            object: Object::Path(object()?),
            pin_dir: PathBuf::from(format!("/sys/fs/bpf/{name}")),
            cgroup: parent.clone(),
            ring_bytes,
        };
        Some(Self { options, parent, name })
    }

    pub(crate) fn open(&self) -> Opened {
        Probes::open_or_load(&self.options).unwrap()
    }

    /// Makes a cgroup and gives it with its id.
    pub(crate) fn cgroup(&self, name: &str) -> Agent {
        let path = self.parent.join(name);
        fs::create_dir(&path).unwrap();
        let id = fs::metadata(&path).unwrap().ino();
        Agent { path, id }
    }

    pub(crate) fn agent(&self, probes: &Probes, config: AgentConfig) -> Agent {
        let agent = self.cgroup("agent");
        probes.add_agent(agent.id, config).unwrap();
        agent
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = Probes::unpin_all(&self.options.pin_dir);
        let Ok(entries) = fs::read_dir(&self.parent) else { return };
        let children = entries.flatten().map(|e| e.path()).filter(|p| p.is_dir());
        for dir in children.chain([self.parent.clone()]) {
            let _ = fs::write(dir.join("cgroup.kill"), "1");
            let begun = Instant::now();
            while fs::remove_dir(&dir).is_err() && begun.elapsed() < Duration::from_secs(5) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

pub(crate) struct Agent {
    pub path: PathBuf,
    pub id: u64,
}

impl Agent {
    /// A command that runs in this cgroup from its exec on.
    pub(crate) fn command(&self, argv: &[&str]) -> Command {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", "echo $$ > \"$0\" && exec \"$@\""])
            .arg(self.path.join("cgroup.procs"))
            .args(argv)
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, argv: &[&str]) -> std::process::ExitStatus {
        self.command(argv).status().unwrap()
    }

    pub(crate) fn spawn(&self, argv: &[&str]) -> Child {
        self.command(argv).spawn().unwrap()
    }

    /// A helper in this cgroup.
    pub(crate) fn helper(&self, words: &[&str]) -> Command {
        let me = std::env::current_exe().unwrap();
        let argv = [me.to_str().unwrap(), "--exact", "helper::helper", "--nocapture", "--test-threads=1"];
        let mut command = self.command(&argv);
        command.env("AION_IT_HELPER", words.join(" "));
        command
    }

    /// Runs a helper in this cgroup and gives the words that it printed.
    pub(crate) fn help(&self, words: &[&str]) -> String {
        let mut command = self.helper(words);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut out = String::new();
        child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        child.wait().unwrap();
        out.lines().filter_map(|line| line.split("HELPER ").nth(1)).collect::<Vec<_>>().join(" ")
    }
}

/// An event that owns its bytes.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub cgroup: u64,
    pub pid: u32,
    pub ppid: u32,
    pub what: What,
}

#[derive(Debug, Clone)]
pub(crate) enum What {
    Fork(Fork),
    Exec {
        filename: String,
        args: Vec<Vec<u8>>,
        truncated: bool,
        start_ns: u64,
        comm: Comm,
        origin: Origin,
    },
    Exit(Exit),
    Net(Net),
    Oom(u32),
    Priv(PrivChange),
    Open {
        path: String,
        raw: bool,
    },
    Syscall(Syscall),
    SyscallDenied(Syscall),
    Lsm(&'static str),
    Device(DeniedDevice),
    /// With the rule's number.
    Withheld(&'static str, u64),
}

impl Seen {
    pub(crate) fn of(event: Event<'_>) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let what = match event.kind {
            Kind::Fork(fork) => What::Fork(fork),
            Kind::Exec(exec) => What::Exec {
                filename: text(exec.filename),
                args: exec.args().map(<[u8]>::to_vec).collect(),
                truncated: exec.truncated,
                start_ns: exec.start_ns,
                comm: exec.comm,
                origin: exec.origin,
            },
            Kind::Exit(exit) => What::Exit(exit),
            Kind::Net(net) => What::Net(net),
            Kind::Oom(oom) => What::Oom(oom.victim),
            Kind::PrivChange(change) => What::Priv(change),
            Kind::OpenWrite(open) => What::Open { path: text(open.path), raw: open.raw },
            Kind::Syscall(call) => What::Syscall(call),
            Kind::SyscallDenied(call) => What::SyscallDenied(call),
            Kind::LsmDenied(denied) if denied.is_of_withheld() => What::Withheld(denied.hook, denied.detail),
            Kind::LsmDenied(denied) => What::Lsm(denied.hook),
            Kind::DeviceDenied(denied) => What::Device(denied),
        };
        Self { cgroup: event.cgroup_id, pid: event.pid, ppid: event.ppid, what }
    }

    pub(crate) fn lifecycle(&self) -> bool {
        matches!(self.what, What::Fork(_) | What::Exec { .. } | What::Exit(_))
    }
}

/// Everything that waits. An exit is recorded a moment after its parent hears of it at the earliest, so a
/// short while passes first.
pub(crate) fn drain(opened: &mut Opened) -> Vec<Seen> {
    std::thread::sleep(Duration::from_millis(30));
    let mut seen = Vec::new();
    let drained = opened.ring.drain(&mut |event| seen.push(Seen::of(event))).unwrap();
    assert_eq!(drained.undecodable, 0);
    seen
}
