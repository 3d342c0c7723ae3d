//! `cargo xtask soak` and `fuzz`: the long versions of what `test` does in short.

use std::process::Command;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::process::{as_root, head, in_path, is_root, note, run, warn};
use crate::project::Project;
use crate::setup::{Group, setup};
use crate::{binaries, sdk, test};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Suite {
    /// The end-to-end suite
    E2e,
    /// Tasks under random SIGKILLs of aiond, and preempted work
    Schedule,
    /// What detections are for, and workloads of which they must say nothing
    Detect,
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
    /// For `detect`: what detections are for, and what only comes near; both halves unless one is named
    #[arg(long)]
    attacks: bool,
    /// For `detect`: ten workloads of which nothing above `info` may be found
    #[arg(long)]
    benign: bool,
    /// For `detect`: how long each workload works
    #[arg(long, default_value_t = 10)]
    minutes: u32,
    /// For `detect`: workloads side by side
    #[arg(long, default_value_t = 2)]
    at_once: u32,
    /// For `detect`: these rules and workloads alone
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    #[arg(long, hide = true)]
    prebuilt: bool,
}

/// The end-to-end suite at full scale: 100 rounds of kill -9, storms of 10,000 processes, 10,000 agents.
/// The scale is the only difference; the tests are the same.
pub(crate) fn soak(project: &Project, args: &SoakArgs) -> Result<()> {
    match args.suite {
        Suite::Schedule => return bench(project, args, schedule(args)),
        Suite::Detect => return bench(project, args, detect(args)),
        Suite::E2e => {}
    }
    setup(&[Group::Build])?;
    binaries::build(project)?;
    if !is_root() {
        note("the suite runs through sudo");
    }
    test::suite(project, args.filter.as_deref(), "aion-e2e", "full")
}

/// Daemons that are killed again and again under load; every acknowledged task must end once, as if nothing had been.
fn schedule(args: &SoakArgs) -> Vec<String> {
    let mut words = vec!["soak-schedule".to_owned(), format!("--kills={}", args.kills)];
    words.push(format!("--tasks={}", args.tasks));
    words.extend(args.seed.map(|seed| format!("--seed={seed}")));
    words
}

/// Each detection is caused, and ordinary work causes none.
fn detect(args: &SoakArgs) -> Vec<String> {
    let mut words = vec!["soak-detect".to_owned(), format!("--minutes={}", args.minutes)];
    words.push(format!("--at-once={}", args.at_once));
    words.extend(args.attacks.then(|| "--attacks".to_owned()));
    words.extend(args.benign.then(|| "--benign".to_owned()));
    words.extend(args.only.iter().map(|name| format!("--only={name}")));
    words
}

/// Soaks that are part of the benchmarks' program.
fn bench(project: &Project, args: &SoakArgs, words: Vec<String>) -> Result<()> {
    if !args.prebuilt {
        // npm is one of the workloads.
        let more = (args.suite == Suite::Detect).then_some(Group::Test);
        setup(&[Group::Build].into_iter().chain(more).collect::<Vec<_>>())?;
        binaries::build(project)?;
        run(project.cargo().args(["build", "-p", "aion-bench"]))?;
    }
    if !is_root() {
        let mut again = as_root(std::env::current_exe()?);
        again.arg("soak").args(std::env::args_os().skip(2)).arg("--prebuilt");
        return run(again.envs(project.environment()).current_dir(&project.root));
    }
    let mut command = Command::new(project.target.join("debug/aion-bench"));
    command.args(words);
    if args.suite == Suite::Detect {
        match sdk::python(project) {
            Ok(folder) => {
                command.env("AION_SDK", folder);
            }
            Err(error) => warn(&format!("the workload of the SDK is skipped: {error:#}")),
        }
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
