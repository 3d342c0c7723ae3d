//! The suite `ship`: what an operator does, on a Debian 12 with systemd that knows nothing of AION but its package.
//!
//! Two revisions of the package are made of the same binaries, and compared with a second making. `tests/vm/ship.py` installs the one,
//! upgrades to the other under load, reboots and has QEMU killed; the machine's disk keeps what was written over that.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::{Suite, VmArgs, alone, initramfs, kernel, payload, qemu, rootfs};
use crate::binaries;
use crate::dist::{self, Kinds, Order};
use crate::process::{head, note, read, run as run_command};
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
        never: "",
        daemons: false,
        packages: &packages,
        pace: Some(pace(project)?),
    };
    let payload = payload::image(project, &folder, &contents)?;
    let mut table = Table::new(&["kernel", "suite", "passed", "failed", "seconds", "result"]);
    let mut failed = false;
    for kernel in kernel::chosen(args.kernel) {
        head(&format!("booting Linux {} with systemd", kernel.label));
        let files = kernel::fetch(kernel, &folder)?;
        let disk = disk(&folder, &root.disk)?;
        let machine = qemu::Machine {
            kernel: &files.image,
            initramfs: &initramfs::build(project, &folder, &files, &root.busybox)?,
            root: &disk,
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
        std::fs::remove_file(folder.join(DISK))?;
    }
    println!("\n{table}");
    if failed {
        bail!("the package does not hold");
    }
    Ok(())
}

/// The disk of one run.
const DISK: &str = "ship.ext4";

/// A copy of the root image for the machine to write to, so that it is there when QEMU is killed. Holes stay holes.
fn disk(folder: &Path, image: &Path) -> Result<PathBuf> {
    let disk = folder.join(DISK);
    run_command(Command::new("cp").arg("--sparse=always").arg(image).arg(&disk))?;
    Ok(disk)
}

/// The seconds of a fixed piece of work here; the machine does it, too, and knows by that how much slower it is.
fn pace(project: &Project) -> Result<f64> {
    let said = read(Command::new("python3").arg(project.root.join("tests/vm/pace.py")))?;
    let seconds: f64 =
        said.trim().parse().with_context(|| format!("tests/vm/pace.py printed no number: {said:?}"))?;
    ensure!(seconds > 0.0, "tests/vm/pace.py took no time");
    note(&format!("this host does the work of tests/vm/pace.py in {:.1} ms", seconds * 1e3));
    Ok(seconds)
}

/// Revisions 1 and 2 of the package; the first is made twice.
fn packages(project: &Project, folder: &Path) -> Result<Vec<PathBuf>> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_a_pace_and_the_suite_is_python() {
        let project = Project::locate().unwrap();
        let pace = pace(&project).unwrap();
        assert!(pace > 0.001 && pace < 10.0, "{pace}");
        for name in ["host.py", "pace.py", "ship.py"] {
            let path = project.root.join("tests/vm").join(name);
            let parse = "import ast, sys; ast.parse(open(sys.argv[1]).read())";
            read(Command::new("python3").args(["-c", parse]).arg(path)).unwrap();
        }
    }
}
