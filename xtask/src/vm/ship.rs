//! The suite `ship`: what an operator does, on a Debian 12 with systemd that knows nothing of AION but its package.
//!
//! Two revisions of the package are made of the same binaries, and compared with a second making. `tests/vm/ship.py` installs the one,
//! upgrades to the other under load, reboots and pulls the plug; the machine's disks keep what was written over that.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Suite, VmArgs, alone, initramfs, kernel, payload, qemu, rootfs};
use crate::binaries;
use crate::dist::{self, Kinds, Order};
use crate::process::head;
use crate::project::Project;
use crate::report::Table;
use crate::setup::{Group, setup};

/// PID 1 of the guest, until it hands over to systemd.
const INIT: &str = "/payload/vm/ship-init";

pub(crate) fn run(project: &Project, args: &VmArgs) -> Result<()> {
    setup(&[Group::Build, Group::Vm, Group::Dist])?;
    binaries::build(project)?;
    let folder = project.cache_folder("vm")?;
    let _alone = alone(&folder)?;
    let packages = packages(project, &folder)?;
    let root = rootfs::image(project, &folder, &rootfs::BARE)?;
    let contents = payload::Contents {
        tests: &[(Suite::Ship, Vec::new())],
        filter: args.filter.as_deref(),
        once: "",
        daemons: false,
        packages: &packages,
    };
    let payload = payload::image(project, &folder, &contents)?;
    let mut table = Table::new(&["kernel", "suite", "passed", "failed", "seconds", "result"]);
    let mut failed = false;
    for kernel in kernel::chosen(args.kernel) {
        head(&format!("booting Linux {} with systemd", kernel.label));
        let files = kernel::fetch(kernel, &folder)?;
        let machine = qemu::Machine {
            kernel: &files.image,
            initramfs: &initramfs::build(project, &folder, &files, &root.busybox)?,
            root: &root.disk,
            payload: &payload,
            log: &folder.join(format!("console-ship-{}.log", kernel.label)),
            init: Some(INIT),
            reboots: true,
        };
        if args.keep {
            println!("boot it again with: {}", machine.command_line());
        }
        let console = machine.boot(Duration::from_secs(args.timeout))?;
        let outcome = console.suite("ship");
        failed |= !outcome.is_ok();
        table.row(&[
            kernel.label.to_owned(),
            "ship".to_owned(),
            outcome.passed.to_string(),
            outcome.failed.to_string(),
            outcome.seconds.to_string(),
            outcome.word().to_owned(),
        ]);
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
        bail!("the package does not hold");
    }
    Ok(())
}

/// Revisions 1 and 2 of the package; the first is made twice.
fn packages(project: &Project, folder: &std::path::Path) -> Result<Vec<std::path::PathBuf>> {
    let epoch = dist::epoch(project)?;
    let mut packages = Vec::new();
    for revision in [1, 2] {
        let out = folder.join(format!("packages-{revision}"));
        let order = Order { out: &out, kinds: Kinds::Deb, revision, epoch };
        let made = dist::pack(project, &order)?;
        if revision == 1 {
            dist::check(project, &order, &made)?;
        }
        packages.push(made.into_iter().next().context("no package was made")?);
    }
    Ok(packages)
}
