//! `cargo xtask vm`: the suites on other kernels, in QEMU without KVM.
//!
//! One root image for all kernels and runs (made once per recipe), one payload image per run with what was
//! just built, one tiny initramfs per kernel. Writes of a run go to a snapshot that QEMU throws away.

mod console;
mod initramfs;
mod kernel;
mod payload;
mod qemu;
mod rootfs;
mod ship;

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::process::{head, note};
use crate::project::Project;
use crate::setup::{Group, setup};
use crate::{binaries, report::Table, test};

/// Which kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KernelChoice {
    /// Debian 12's own.
    #[value(name = "6.1")]
    V6_1,
    /// The long-term kernel that Debian 12 also carries.
    #[value(name = "6.12")]
    V6_12,
    /// Both.
    All,
}

/// What is run inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Suite {
    /// The machine itself: Landlock, BPF LSM, cgroups.
    Smoke,
    /// The tests of the crates that talk to the kernel, the probes' among them.
    Kernel,
    /// The end-to-end suite.
    E2e,
    /// The escape suite.
    Escape,
    /// The package on a Debian with systemd: install, run, restart, crash, upgrade, reboot, purge. By its name alone.
    Ship,
}

impl Suite {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Smoke => "smoke",
            Self::Kernel => "kernel",
            Self::E2e => "e2e",
            Self::Escape => "escape",
            Self::Ship => "ship",
        }
    }

    /// The packages whose test programs it runs.
    fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Smoke | Self::Ship => &[],
            Self::Kernel => &[
                "aion-cgroup",
                "aion-init",
                "aion-launcher",
                "aion-probes",
                "aion-sandbox",
                "aion-seccomp",
                "aion-sys",
                "aion-volumes",
            ],
            Self::E2e => &["aion-e2e"],
            Self::Escape => &["aion-escape"],
        }
    }

    /// What cargo is asked for to have their test programs: the same as in the stages of `cargo xtask test`, so that nothing is
    /// compiled once more for the machines.
    fn selection(self) -> Vec<&'static str> {
        match self {
            Self::Kernel => test::unit_selection(),
            _ => self.packages().iter().flat_map(|package| ["-p", package]).collect(),
        }
    }

    /// Whether it starts the daemons.
    fn wants_daemons(self) -> bool {
        matches!(self, Self::E2e | Self::Escape)
    }
}

#[derive(Debug, Args)]
pub(crate) struct VmArgs {
    /// The kernel to boot
    #[arg(long, value_enum, default_value = "all")]
    pub(crate) kernel: KernelChoice,
    /// The suites to run; all but `ship` unless named
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) suite: Vec<Suite>,
    /// Run only tests whose name contains this
    #[arg(long, value_name = "TEXT")]
    pub(crate) filter: Option<String>,
    /// Keep the payload image and print the command that boots it
    #[arg(long)]
    pub(crate) keep: bool,
    /// Seconds after which a machine is switched off as hanging
    #[arg(long, default_value_t = DEFAULT_TIMEOUT)]
    pub(crate) timeout: u64,
    /// Run what tells little of a kernel on the oldest one alone, and what tells nothing of it on none
    #[arg(long)]
    pub(crate) once: bool,
}

/// Parts of the names of tests whose subject is above the kernel: what they rest on, others ask each kernel for.
const ABOVE_THE_KERNEL: &str = "kernel:: kernel_ tasks:: tasks_ detections_rules::";

/// The same of tests that tell nothing of a kernel. They belong to the host's suite.
const OF_NO_KERNEL: &str = "alerts:: backup configuration:: kernel_approvals:: kernel_contract:: kernel_fuzz:: kernel_grpc:: \
                            kernel_local_model:: kernel_mail:: kernel_peers:: kernel_sdk:: kernel_telemetry:: signed:: support::";

impl VmArgs {
    fn suites(&self) -> Vec<Suite> {
        if self.suite.is_empty() {
            // That one takes another machine, and longer than the others together.
            Suite::value_variants().iter().copied().filter(|suite| *suite != Suite::Ship).collect()
        } else {
            self.suite.clone()
        }
    }
}

/// Several times what all suites take, for hosts that are busy with other things.
const DEFAULT_TIMEOUT: u64 = 2400;

/// Builds what is tested, boots each kernel, and fails when anything in them did.
pub(crate) fn vm(project: &Project, args: &VmArgs) -> Result<()> {
    setup(&[Group::Build, Group::Vm])?;
    let suites = args.suites();
    if suites.contains(&Suite::Ship) {
        if suites.len() > 1 {
            bail!("`ship` has a machine of its own: run it by itself, `--suite ship`");
        }
        return ship::run(project, args);
    }
    if args.suites().iter().any(|suite| suite.wants_daemons()) {
        binaries::build(project)?;
    } else if args.suites().contains(&Suite::Kernel) {
        binaries::build_for_kernel(project)?;
    }
    run(project, args)
}

/// Waits until no other run uses the folder: they would overwrite each other's images, and two machines at once are slower
/// than one after the other. The lock ends with the file that is given back.
fn alone(folder: &Path) -> Result<File> {
    let path = folder.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    if file.try_lock().is_err() {
        note("waiting for another run of the VMs to end");
        file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    }
    Ok(file)
}

/// The same, with everything installed and built.
pub(crate) fn run(project: &Project, args: &VmArgs) -> Result<()> {
    let suites = args.suites();
    let daemons = suites.iter().any(|suite| suite.wants_daemons());
    let mut tests = Vec::new();
    for &suite in &suites {
        tests.push((suite, binaries::test_programs(project, &suite.selection(), suite.packages())?));
    }

    let folder = project.cache_folder("vm")?;
    let _alone = alone(&folder)?;
    let root = rootfs::image(project, &folder, &rootfs::SUITES)?;
    let payload = payload::image(
        project,
        &folder,
        &payload::Contents {
            tests: &tests,
            filter: args.filter.as_deref(),
            once: if args.once { ABOVE_THE_KERNEL } else { "" },
            never: if args.once { OF_NO_KERNEL } else { "" },
            daemons,
            packages: &[],
            pace: None,
        },
    )?;
    let mut table = Table::new(&["kernel", "suite", "passed", "failed", "ignored", "seconds", "result"]);
    let mut failed = false;
    for kernel in kernel::chosen(args.kernel) {
        head(&format!("booting Linux {}", kernel.label));
        let files = kernel::fetch(kernel, &folder)?;
        let initramfs = initramfs::build(project, &folder, &files, &root.busybox)?;
        let machine = qemu::Machine {
            kernel: &files.image,
            initramfs: &initramfs,
            root: &root.disk,
            payload: &payload,
            log: &folder.join(format!("console-{}.log", kernel.label)),
            init: None,
            reboots: false,
        };
        if args.keep {
            println!("boot it again with: {}", machine.command_line());
        }
        let console = machine.boot(Duration::from_secs(args.timeout))?;
        for &suite in &suites {
            let outcome = console.suite(suite.name());
            failed |= !outcome.is_ok();
            table.row(&[
                kernel.label.to_owned(),
                suite.name().to_owned(),
                outcome.passed.to_string(),
                outcome.failed.to_string(),
                outcome.ignored.to_string(),
                outcome.seconds.to_string(),
                outcome.word().to_owned(),
            ]);
        }
        if let Some(why) = &console.ended_badly {
            failed = true;
            println!("Linux {}: {why}; the console is in {}", kernel.label, machine.log.display());
        }
    }
    if !args.keep {
        std::fs::remove_file(&payload)?;
    }
    println!("\n{table}");
    if failed {
        bail!("the VM tests failed");
    }
    Ok(())
}
