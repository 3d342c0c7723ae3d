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

use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::process::head;
use crate::project::Project;
use crate::setup::{Group, setup};
use crate::{binaries, report::Table};

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
    /// The end-to-end suite.
    E2e,
    /// The escape suite.
    Escape,
}

impl Suite {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Smoke => "smoke",
            Self::E2e => "e2e",
            Self::Escape => "escape",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct VmArgs {
    /// The kernel to boot
    #[arg(long, value_enum, default_value = "all")]
    pub(crate) kernel: KernelChoice,
    /// The suites to run; all of them unless named
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
}

/// Ten times what the suites take.
pub(crate) const DEFAULT_TIMEOUT: u64 = 1200;

/// Builds what is tested, boots each kernel, and fails when anything in them did.
pub(crate) fn vm(project: &Project, args: &VmArgs) -> Result<()> {
    setup(&[Group::Build, Group::Vm])?;
    if args.suite.iter().any(|suite| *suite != Suite::Smoke) || args.suite.is_empty() {
        binaries::build(project)?;
    }
    run(project, args)
}

/// The same, with everything installed and built.
pub(crate) fn run(project: &Project, args: &VmArgs) -> Result<()> {
    let suites = if args.suite.is_empty() {
        vec![Suite::Smoke, Suite::E2e, Suite::Escape]
    } else {
        args.suite.clone()
    };
    let daemons = suites.iter().any(|suite| *suite != Suite::Smoke);
    let mut tests = Vec::new();
    for &suite in &suites {
        tests.push((suite, binaries::test_programs(project, suite)?));
    }

    let folder = project.cache_folder("vm")?;
    let root = rootfs::image(project, &folder)?;
    let payload = payload::image(
        project,
        &folder,
        &payload::Contents { tests: &tests, filter: args.filter.as_deref(), daemons },
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
