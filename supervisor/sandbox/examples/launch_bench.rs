//! How long a launch takes, beside a bare clone3 with six namespaces and beside bubblewrap, in one run.
//!
//! `launch_bench INIT [ROUNDS]`, as root; INIT is the static `aion-init`. Prints the median and the 95th
//! percentile of each in microseconds, and how many a second two lanes get through. The ways alternate, so that a
//! busy moment hits all of them.

#![expect(clippy::print_stdout, reason = "its output is the result")]

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use aion_sandbox::{
    InitImage, LaunchFds, Launched, NotifyRule, Options, Plan, Seccomp, Slot, SlotSpec, Spawner, mounts,
};
use aion_seccomp::{Arch, Profile, compile};
use aion_sys::clone::flags;
use aion_sys::park::{self, Image};
use aion_types::LayerName;
use rustix::process::{WaitId, WaitIdOptions, waitid};

type Failure = Box<dyn std::error::Error>;

const SIX: u64 =
    flags::NEWNS | flags::NEWPID | flags::NEWNET | flags::NEWIPC | flags::NEWUTS | flags::NEWCGROUP;
const UID_BASE: u32 = 0x3000_0000;

fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let init = args.next().ok_or("usage: launch_bench INIT [ROUNDS]")?;
    let rounds: usize = args.next().map_or(Ok(200), |n| n.parse())?;
    let bench = Bench::new(&init)?;
    let mut times: Vec<(&str, Vec<Duration>)> = Vec::new();
    for round in 0..rounds + 5 {
        for (name, took) in bench.round()? {
            // The first rounds warm caches up.
            if round < 5 {
                continue;
            }
            match times.iter_mut().find(|(n, _)| *n == name) {
                Some((_, all)) => all.push(took),
                None => times.push((name, vec![took])),
            }
        }
    }
    println!("{:<58} {:>8} {:>8}", "microseconds", "p50", "p95");
    bench.rates(rounds)?;
    for (name, all) in &mut times {
        all.sort();
        let at = |q: usize| all.get(all.len() * q / 100).map_or(0.0, |d| d.as_secs_f64() * 1e6);
        println!("{name:<58} {:>8.0} {:>8.0}", at(50), at(95));
    }
    Ok(())
}

struct Bench {
    spawner: Spawner,
    dir: tempfile::TempDir,
    workspace: OwnedFd,
    program: File,
    null: File,
    plan: Plan,
    bubblewrap: bool,
}

impl Bench {
    fn new(init: &str) -> Result<Self, Failure> {
        let dir = tempfile::tempdir()?;
        let workspace = dir.path().join("workspace");
        std::fs::create_dir(&workspace)?;
        let mut plan = Plan::new(vec![b"/bin/true".to_vec()]);
        plan.seccomp = Some(filter()?);
        Ok(Self {
            spawner: Spawner::start(InitImage::load(init.as_ref())?, Options::default())?,
            workspace: mounts::open_path(&workspace, LayerName::Workspace)?,
            dir,
            program: File::open("/bin/true")?,
            null: File::options().read(true).write(true).open("/dev/null")?,
            plan,
            bubblewrap: Command::new("bwrap").arg("--version").output().is_ok(),
        })
    }

    fn round(&self) -> Result<Vec<(&'static str, Duration)>, Failure> {
        let mut all = Vec::new();
        let mut time = |name, took| all.push((name, took));
        let (started, ended) = self.bare(0)?;
        time("clone3 + exec, no namespace: executing", started);
        time("clone3 + exec, no namespace: ended", ended);
        let (started, ended) = self.bare(SIX)?;
        time("bare clone3, six namespaces: executing", started);
        time("bare clone3, six namespaces: ended", ended);

        let began = Instant::now();
        let slot = self.spawner.spawn(SlotSpec::new(UID_BASE))?;
        time("aion: slot made, parked", began.elapsed());
        let launched = self.launch(slot)?;
        time("aion: slot and launch, all layers: executing", began.elapsed());
        self.end(launched)?;
        time("aion: slot and launch, all layers: ended", began.elapsed());

        let slot = self.spawner.spawn(SlotSpec::new(UID_BASE))?;
        std::thread::sleep(Duration::from_millis(5));
        let began = Instant::now();
        let launched = self.launch(slot)?;
        time("aion: launch in a slot from the pool: executing", began.elapsed());
        time("  of which until the plan is received", launched.timings.received);
        time("  of which until the root is entered, filters ready", launched.timings.prepared);
        time("  of which until it executes", launched.timings.executed);
        self.end(launched)?;
        time("aion: launch in a slot from the pool: ended", began.elapsed());

        if self.bubblewrap {
            let began = Instant::now();
            bubblewrap()?;
            time("bubblewrap --unshare-all: ended", began.elapsed());
        }
        Ok(all)
    }

    /// Two lanes, each with one agent at a time that ends at once.
    fn rates(&self, rounds: usize) -> Result<(), Failure> {
        let rate = |one: &(dyn Fn(u32) -> Result<(), Failure> + Sync)| {
            let began = Instant::now();
            let lane = |lane: u32| (0..rounds).try_for_each(|_| one(lane)).map_err(|e| e.to_string());
            std::thread::scope(|scope| {
                let other = scope.spawn(|| lane(1));
                lane(0).and(other.join().unwrap_or_else(|_| Err("a lane panicked".to_owned())))
            })?;
            let per_second = 2.0 * rounds as f64 / began.elapsed().as_secs_f64();
            Ok::<f64, Failure>(per_second)
        };
        let aion = rate(&|lane| {
            let slot = self.spawner.spawn(SlotSpec::new(UID_BASE + lane * 65_536))?;
            self.end(self.launch(slot)?)
        })?;
        println!("agents a second, two lanes: aion {aion:.0}");
        if self.bubblewrap {
            let theirs = rate(&|_| bubblewrap())?;
            println!(
                "agents a second, two lanes: bubblewrap {theirs:.0} (aion is {:.2} times it)",
                aion / theirs
            );
        }
        Ok(())
    }

    fn bare(&self, namespaces: u64) -> Result<(Duration, Duration), Failure> {
        let image = Image {
            program: self.program.as_fd(),
            argv: &[c"true"],
            control: self.null.as_fd(),
            null: self.null.as_fd(),
        };
        let began = Instant::now();
        let child = park::spawn(namespaces, None, &image)?;
        let started = began.elapsed();
        waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED)?;
        Ok((started, began.elapsed()))
    }

    fn launch(&self, slot: Slot) -> Result<Launched, Failure> {
        let path = self.dir.path().join(format!("journal-{}", slot.init_pid()));
        let journal = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
        let workspace = slot.workspace_mount(&self.workspace, false)?;
        Ok(slot.launch(&self.plan, LaunchFds::new(journal.into(), workspace))?)
    }

    fn end(&self, mut launched: Launched) -> Result<(), Failure> {
        match launched.init.wait(Some(Duration::from_secs(10)))? {
            Some(ended) if ended.code == 0 => Ok(()),
            other => Err(format!("the agent ended with {other:?}").into()),
        }
    }
}

fn bubblewrap() -> Result<(), Failure> {
    let status = Command::new("bwrap")
        .args(["--unshare-all", "--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin"])
        .args(["--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64"])
        .args(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "/bin/true"])
        .stdin(Stdio::null())
        .status()?;
    if status.success() { Ok(()) } else { Err(format!("bubblewrap: {status}").into()) }
}

/// The filter that agents have.
fn filter() -> Result<Seccomp, Failure> {
    let profiles = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../profiles/seccomp");
    let profile = Profile::load(&profiles, aion_seccomp::DEFAULT_PROFILE)?;
    let compiled = compile(&profile, Arch::native().ok_or("no filters for this machine")?)?;
    let rules = compiled.notify.iter().map(|&(nr, errno)| NotifyRule { nr, errno }).collect();
    Ok(Seccomp { profile: profile.name().to_owned(), program: compiled.bpf, notify: Some(rules) })
}
