//! `cargo xtask test`: everything that must hold, stage by stage, with a table at the end.
//!
//! A stage that fails does not stop those that can run without it: one run tells all. The test programs'
//! own output passes through unchanged.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::process::{fail, head, in_path, is_root, run, run_within, warn};
use crate::project::Project;
use crate::report::Table;
use crate::setup::{Group, setup};
use crate::vm::{KernelChoice, VmArgs};
use crate::{binaries, dist, ebpf, layers, peers, sdk, vm};

/// A stage, in the order in which they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Stage {
    /// Formatting.
    Fmt,
    /// The repository's own rules.
    Layers,
    /// Lints, with warnings as errors.
    Clippy,
    /// The binaries and the probes.
    Build,
    /// Unit and property tests of every crate; those of the real kernel among them.
    Unit,
    /// The Python SDK.
    Sdk,
    /// The end-to-end suite against real daemons on this kernel.
    E2e,
    /// The escape suite.
    Escape,
    /// The end-to-end suite on other kernels, in QEMU.
    Vm,
}

impl Stage {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// Leave the virtual machines out
    #[arg(long)]
    no_vm: bool,
    /// Run these stages alone
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Stage>,
    /// Run only tests whose name contains this
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
}

/// How long one stage of test programs may take, their compilation included.
const LIMIT: Duration = Duration::from_secs(30 * 60);

/// Seconds for one machine: five times what it takes on two idle processors.
const VM_LIMIT: u64 = 1200;

/// The packages whose tests want daemons, and run in stages of their own.
const KERNEL_SUITES: &[&str] = &["aion-e2e", "aion-escape"];

/// Runs the stages that are asked for.
pub(crate) fn test(project: &Project, args: &TestArgs) -> Result<()> {
    let chosen: Vec<Stage> = Stage::value_variants()
        .iter()
        .copied()
        .filter(|stage| if args.only.is_empty() { true } else { args.only.contains(stage) })
        .filter(|stage| !(args.no_vm && *stage == Stage::Vm))
        .collect();
    let mut groups = vec![Group::Build, Group::Test];
    if chosen.contains(&Stage::Vm) {
        groups.push(Group::Vm);
    }
    setup(&groups)?;
    if !is_root() {
        warn("tests of the real kernel run through sudo");
    }
    let begun = Instant::now();
    let mut table = Table::new(&["stage", "seconds", "result"]);
    let mut failures = Vec::new();
    let mut built = true;
    for stage in chosen {
        if !built && matches!(stage, Stage::Unit | Stage::E2e | Stage::Escape | Stage::Vm) {
            table.row(&[stage.name(), String::new(), "not run: the build failed".to_owned()]);
            continue;
        }
        head(&stage.name());
        let stage_begun = Instant::now();
        let result = run_stage(project, args, stage);
        let word = if result.is_ok() { "ok" } else { "FAILED" };
        table.row(&[stage.name(), seconds(stage_begun.elapsed()), word.to_owned()]);
        if let Err(error) = result {
            fail(&format!("{}: {error:#}", stage.name()));
            built &= stage != Stage::Build;
            failures.push(stage.name());
        }
    }
    table.row(&[
        "all".to_owned(),
        seconds(begun.elapsed()),
        if failures.is_empty() { "ok" } else { "FAILED" }.to_owned(),
    ]);
    println!("\n{table}");
    if !failures.is_empty() {
        bail!("failed: {}", failures.join(", "));
    }
    Ok(())
}

fn seconds(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64())
}

fn run_stage(project: &Project, args: &TestArgs, stage: Stage) -> Result<()> {
    match stage {
        Stage::Fmt => formatting(project),
        Stage::Layers => layers::check(project),
        Stage::Clippy => {
            const WARNINGS: [&str; 4] = ["--all-targets", "--", "-D", "warnings"];
            run(project.cargo().args(["clippy", "--workspace", "--locked"]).args(WARNINGS))?;
            run(dist::packer(project, "clippy").args(WARNINGS))
        }
        Stage::Build => binaries::build(project),
        Stage::Unit => unit(project, args),
        Stage::Sdk => sdk::test(project),
        Stage::E2e => suite(project, args.filter.as_deref(), "aion-e2e", "normal"),
        Stage::Escape => suite(project, args.filter.as_deref(), "aion-escape", "normal"),
        Stage::Vm => vm::run(
            project,
            &VmArgs {
                kernel: KernelChoice::All,
                // What differs by kernel most; `cargo xtask vm` runs the attempts to escape and the crates' own tests there, too.
                suite: vec![vm::Suite::Smoke, vm::Suite::E2e],
                filter: args.filter.clone(),
                keep: false,
                timeout: VM_LIMIT,
                once: true,
            },
        ),
    }
}

/// The workspace, and what is not part of it because it is built for another machine or by another tool.
fn formatting(project: &Project) -> Result<()> {
    run(project.cargo().args(["fmt", "--all", "--check"]))?;
    for manifest in ["ebpf-probes/programs/Cargo.toml", "tests/fuzz/Cargo.toml", dist::PACKER] {
        if project.root.join(manifest).is_file() {
            run(project.cargo().args(["fmt", "--check", "--manifest-path", manifest]))?;
        }
    }
    Ok(())
}

/// The packages of the unit stage, in cargo's words.
pub(crate) fn unit_selection() -> Vec<&'static str> {
    let excluded = KERNEL_SUITES.iter().flat_map(|package| ["--exclude", package]);
    std::iter::once("--workspace").chain(excluded).collect()
}

fn unit(project: &Project, args: &TestArgs) -> Result<()> {
    let nextest = in_path("cargo-nextest");
    let mut command = project.cargo();
    command
        .args(if nextest { &["nextest", "run"][..] } else { &["test"][..] })
        .arg("--locked")
        .args(unit_selection());
    if nextest {
        command.args([
            "--no-fail-fast",
            "--show-progress",
            "none",
            "--status-level",
            "fail",
            "--final-status-level",
            "fail",
        ]);
    } else {
        command.arg("--no-fail-fast");
    }
    if let Some(filter) = &args.filter {
        command.args(["--"]).arg(filter);
    }
    command.env("AION_PROBES_OBJECT", project.stage().join(ebpf::OBJECT));
    command.env("AION_INIT", project.binary("aion-init"));
    peers::add(project, &mut command);
    run_within(as_root_tests(&mut command), LIMIT)?;
    // What packs is no member of the workspace.
    let mut packer = dist::packer(project, "test");
    run_within(packer.args(args.filter.as_ref().map(|filter| ["--", filter]).into_iter().flatten()), LIMIT)
}

/// A suite that starts daemons of its own. With cargo's own runner, because its tests share a machine.
pub(crate) fn suite(project: &Project, filter: Option<&str>, package: &str, scale: &str) -> Result<()> {
    let mut command = project.cargo();
    command.args(["test", "--locked", "--no-fail-fast", "-p", package]);
    command.env("AION_BIN_DIR", project.bin());
    if package == "aion-e2e" {
        peers::add_e2e(project, &mut command);
    }
    if std::env::var_os("AION_E2E_SCALE").is_none() {
        command.env("AION_E2E_SCALE", scale);
    }
    if let Some(filter) = filter {
        command.args(["--", filter]);
    }
    run_within(as_root_tests(&mut command), LIMIT)
}

/// Test programs that look at the real kernel must be root. Cargo stays the user's; only what it runs goes
/// through sudo.
fn as_root_tests(command: &mut Command) -> &mut Command {
    if is_root() {
        return command;
    }
    command.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER", "sudo --preserve-env")
}
