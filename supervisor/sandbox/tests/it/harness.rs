//! A sandbox for a test: a workspace, a journal, and the whole launch with the layers that the test wants.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aion_agent_journal::{Exit, Item, Kind, Reader};
use aion_sandbox::{
    Ended, Error, InitImage, LaunchFds, Launched, NotifyRule, Options, Plan, Seccomp, Slot, SlotSpec,
    Spawner, mounts,
};
use aion_seccomp::{Arch, Profile, compile};
use aion_types::LayerName;

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Tests that need root say so and pass without it.
pub(crate) fn skip() -> bool {
    if rustix::process::geteuid().is_root() {
        return false;
    }
    eprintln!("skipped: launching a sandbox needs root");
    true
}

pub(crate) fn spawner() -> &'static Spawner {
    static SPAWNER: OnceLock<Spawner> = OnceLock::new();
    SPAWNER.get_or_init(|| {
        let image = InitImage::load(&crate::init_binary::path()).unwrap();
        Spawner::start(image, Options::default()).unwrap()
    })
}

/// A range of ids that no other test has.
pub(crate) fn uid_base() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0x2000_0000);
    NEXT.fetch_add(65_536, Ordering::Relaxed)
}

pub(crate) fn spec() -> SlotSpec {
    SlotSpec::new(uid_base())
}

/// The default profile, as agents have it.
pub(crate) fn filter() -> Seccomp {
    static COMPILED: OnceLock<Seccomp> = OnceLock::new();
    let make = || {
        let profiles = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../profiles/seccomp");
        let profile = Profile::load(&profiles, aion_seccomp::DEFAULT_PROFILE).unwrap();
        let compiled = compile(&profile, Arch::native().unwrap()).unwrap();
        let rules = compiled.notify.iter().map(|&(nr, errno)| NotifyRule { nr, errno }).collect();
        Seccomp { profile: profile.name().to_owned(), program: compiled.bpf, notify: Some(rules) }
    };
    COMPILED.get_or_init(make).clone()
}

/// A plan with every layer.
pub(crate) fn argv(args: &[&str]) -> Plan {
    let mut plan = Plan::new(args.iter().map(|a| a.as_bytes().to_vec()).collect());
    plan.seccomp = Some(filter());
    plan
}

/// A plan that runs a shell script.
pub(crate) fn sh(script: &str) -> Plan {
    argv(&["/bin/sh", "-c", script])
}

/// Folders of one agent.
pub(crate) struct Home {
    pub(crate) dir: tempfile::TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        std::fs::create_dir(dir.path().join("workspace")).unwrap();
        Self { dir }
    }

    pub(crate) fn workspace(&self) -> std::path::PathBuf {
        self.dir.path().join("workspace")
    }

    pub(crate) fn journal(&self) -> std::path::PathBuf {
        self.dir.path().join("journal")
    }

    pub(crate) fn journal_fd(&self) -> OwnedFd {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        options.open(self.journal()).unwrap().into()
    }

    pub(crate) fn workspace_mount(&self, slot: &Slot, read_only: bool) -> OwnedFd {
        let dir = mounts::open_path(&self.workspace(), LayerName::Workspace).unwrap();
        slot.workspace_mount(&dir, read_only).unwrap()
    }

    pub(crate) fn launch(&self, plan: &Plan) -> Result<Launched, Error> {
        self.launch_in(spawner().spawn(spec())?, plan)
    }

    pub(crate) fn launch_in(&self, slot: Slot, plan: &Plan) -> Result<Launched, Error> {
        let workspace = self.workspace_mount(&slot, plan.workspace_read_only);
        slot.launch(plan, LaunchFds::new(self.journal_fd(), workspace))
    }

    /// Launches and waits for the end.
    pub(crate) fn run(&self, plan: &Plan) -> Seen {
        self.finish(self.launch(plan).unwrap())
    }

    pub(crate) fn finish(&self, mut launched: Launched) -> Seen {
        let ended = launched.init.wait(Some(PATIENCE)).unwrap().expect("the agent does not end");
        Seen { ended, ..read_journal(&self.journal()) }
    }
}

/// What an agent left.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) out: Vec<u8>,
    pub(crate) err: Vec<u8>,
    pub(crate) exit: Option<Exit>,
    pub(crate) ended: Ended,
}

impl Seen {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }
    pub(crate) fn errors(&self) -> String {
        String::from_utf8_lossy(&self.err).into_owned()
    }
    /// The output of a script that must have succeeded.
    pub(crate) fn good(&self) -> String {
        assert_eq!(self.exit, Some(Exit { code: 0, signal: 0 }), "{}\n{}", self.text(), self.errors());
        self.text()
    }
}

pub(crate) fn read_journal(path: &Path) -> Seen {
    let mut reader = Reader::open(File::open(path).unwrap(), 0).unwrap();
    let ended = Ended { code: 0, signal: 0 };
    let mut seen = Seen { out: Vec::new(), err: Vec::new(), exit: None, ended };
    while let Some(item) = reader.next().unwrap() {
        let Item::Record(record) = item else { continue };
        match record.kind {
            Kind::Stdout => seen.out.extend(record.payload),
            Kind::Stderr => seen.err.extend(record.payload),
            Kind::Exit => seen.exit = record.exit(),
            Kind::Denied | Kind::Start | Kind::Checkpoint | Kind::Result | Kind::TaskNote => {}
        }
    }
    seen
}

/// Runs a shell script with all layers and gives what it wrote.
pub(crate) fn sh_text(script: &str) -> String {
    Home::new().run(&sh(script)).good()
}
