//! `cargo xtask soak` and `fuzz`: the long versions of what `test` does in short.

use std::process::Command;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::process::{as_root, head, in_path, is_root, note, run};
use crate::project::Project;
use crate::setup::{Group, setup};
use crate::{binaries, test};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Suite {
    /// The end-to-end suite
    E2e,
    /// Tasks under random SIGKILLs of aiond, and preempted work
    Schedule,
}

#[derive(Debug, Args)]
pub(crate) struct SoakArgs {
    /// What
    #[arg(value_enum, default_value = "e2e")]
    suite: Suite,
    /// Run only tests whose name contains this
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// For `schedule`: how often aiond is killed under load, and again while work is preempted
    #[arg(long, default_value_t = 1000)]
    kills: u32,
    /// For `schedule`: low tasks that are preempted
    #[arg(long, default_value_t = 1000)]
    tasks: u32,
    /// For `schedule`: the seed of what is left to chance
    #[arg(long)]
    seed: Option<u64>,
    #[arg(long, hide = true)]
    prebuilt: bool,
}

/// The end-to-end suite at full scale: 100 rounds of kill -9, storms of 10,000 processes, 10,000 agents.
/// The scale is the only difference; the tests are the same.
pub(crate) fn soak(project: &Project, args: &SoakArgs) -> Result<()> {
    if args.suite == Suite::Schedule {
        return schedule(project, args);
    }
    setup(&[Group::Build])?;
    binaries::build(project)?;
    if !is_root() {
        note("the suite runs through sudo");
    }
    test::suite(project, args.filter.as_deref(), "aion-e2e", "full")
}

/// Daemons that are killed again and again under load; every acknowledged task must end once, as if nothing had been.
fn schedule(project: &Project, args: &SoakArgs) -> Result<()> {
    if !args.prebuilt {
        setup(&[Group::Build])?;
        binaries::build(project)?;
        run(project.cargo().args(["build", "-p", "aion-bench"]))?;
    }
    if !is_root() {
        let mut again = as_root(std::env::current_exe()?);
        again.arg("soak").args(std::env::args_os().skip(2)).arg("--prebuilt");
        return run(again.envs(project.environment()).current_dir(&project.root));
    }
    let mut command = Command::new(project.target.join("debug/aion-bench"));
    command.args(["soak-schedule", "--kills", &args.kills.to_string(), "--tasks", &args.tasks.to_string()]);
    if let Some(seed) = args.seed {
        command.args(["--seed", &seed.to_string()]);
    }
    run(command.env("AION_BIN_DIR", project.bin()).env("AION_CLONE", &project.root))
}

#[derive(Debug, Args)]
pub(crate) struct FuzzArgs {
    /// Seconds for each target
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// This target alone
    target: Option<String>,
}

/// Runs the fuzz targets for a while. They want a nightly compiler and cargo-fuzz.
pub(crate) fn fuzz(project: &Project, args: &FuzzArgs) -> Result<()> {
    let folder = project.root.join("tests/fuzz");
    if !in_path("cargo-fuzz") {
        bail!(
            "cargo-fuzz is not installed: `cargo install cargo-fuzz`, and `rustup toolchain install nightly`"
        );
    }
    run(project
        .cargo()
        .args(["run", "--quiet", "-p", "aion-fuzz-targets", "--bin", "corpus"])
        .arg(folder.join("corpus")))?;
    let listed = crate::process::read(
        project.command("cargo").args(["+nightly", "fuzz", "list"]).current_dir(&folder),
    )?;
    for target in listed.lines().filter(|name| args.target.as_deref().is_none_or(|wanted| wanted == *name)) {
        head(&format!("fuzzing {target}"));
        // Without a sanitizer: our code is safe Rust, whose checks panic; AddressSanitizer would compile RocksDB anew.
        run(project
            .command("cargo")
            .args([
                "+nightly",
                "fuzz",
                "run",
                "--sanitizer",
                "none",
                target,
                "--",
                &format!("-max_total_time={}", args.seconds),
            ])
            .env("CARGO_TARGET_DIR", project.cache.join("fuzz-target"))
            .current_dir(&folder))?;
    }
    Ok(())
}
