//! `cargo xtask bench`: the figures, each next to what it is compared with.
//!
//! Brings up daemons of its own in a folder of its own, so that no agent of yours is in the way, and takes
//! them down again. The figures of tasks start and kill theirs themselves.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::daemons::{DAEMONS, Daemons};
use crate::process::{as_root, is_root, note, run};
use crate::project::Project;
use crate::setup::{Group, setup};
use crate::{binaries, ebpf, peers, up};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Figures {
    /// Starts, stops, rates and memory, next to bubblewrap, crun and runc
    Launch,
    /// What being watched costs, next to strace and bpftrace
    Audit,
    /// Tasks, preemption and restarts, next to Redis Streams, PostgreSQL, NATS and beanstalkd
    Schedule,
    /// The kernel API: calls over HTTP, models and tools, next to bubblewrap
    Syscall,
    /// Verdicts on connections, names, a thousand agents with rules, detections, rules that change
    Enforce,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// Which figures
    #[arg(value_enum)]
    figures: Figures,
    /// How to print them
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
    /// Fewer runs: a look, not a figure
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// 10,000 agents where it is 1,000 otherwise
    #[arg(long)]
    full: bool,
    /// Measure the build that tests and `up` run (it is there sooner), not the one that is released
    #[arg(long)]
    dev: bool,
    #[arg(long, hide = true)]
    prebuilt: bool,
    /// For `schedule` and `enforce`: where the data folders are made, and which figures (see `aion-bench schedule --help`)
    #[arg(last = true)]
    more: Vec<String>,
}

/// Measures.
pub(crate) fn bench(project: &Project, args: &BenchArgs) -> Result<()> {
    if !args.prebuilt {
        prepare(project, args)?;
    }
    let released = binaries::released(project);
    let project = if args.dev { project } else { &released };
    if !is_root() {
        let mut again = as_root(std::env::current_exe()?);
        // What follows `--` must stay last.
        again.args(["bench", "--prebuilt"]).args(std::env::args_os().skip(2));
        return run(again.envs(project.environment()).current_dir(&project.root));
    }
    // These start daemons of their own.
    let suite = match args.figures {
        Figures::Schedule => Some("schedule"),
        Figures::Enforce => Some("enforce"),
        Figures::Launch | Figures::Audit | Figures::Syscall => None,
    };
    if let Some(name) = suite {
        note(&format!("this machine: {}", machine()));
        return run(program(project, args).arg(name).args(&args.more));
    }
    if args.figures == Figures::Syscall {
        note(&format!("this machine: {}", machine()));
        let mut command = program(project, args);
        peers::add_node(project, &mut command);
        return run(command.arg("syscall"));
    }
    let state = std::env::temp_dir().join(format!("aion-bench-{}", std::process::id()));
    let daemons = Daemons::new(project, &state)?;
    let result = measure(project, args, &daemons);
    let cleaned = up::take_down(project, &daemons);
    if state.is_dir() {
        std::fs::remove_dir_all(&state)?;
    }
    result.and(cleaned)
}

/// Installs and builds what these figures want.
fn prepare(project: &Project, args: &BenchArgs) -> Result<()> {
    let queues = args.figures == Figures::Schedule;
    let groups: &[Group] = match args.figures {
        Figures::Schedule => &[Group::Build, Group::Queues],
        Figures::Enforce => &[Group::Build],
        Figures::Launch | Figures::Audit | Figures::Syscall => &[Group::Build, Group::Bench],
    };
    setup(groups)?;
    if args.dev {
        binaries::build(project)?;
    } else {
        binaries::build_release(project)?;
    }
    let build = || {
        if args.dev {
            let mut cargo = project.cargo();
            cargo.arg("build");
            return cargo;
        }
        binaries::release_build(project)
    };
    run(build().args(["-p", "aion-bench"]).args(queues.then_some("--features=peers")))?;
    if args.figures == Figures::Launch || args.figures == Figures::Audit {
        run(build().args(["-p", "aion-probes", "--examples"]))?;
    }
    Ok(())
}

/// Where cargo leaves what it built for these figures.
fn built(project: &Project, args: &BenchArgs) -> PathBuf {
    project.target.join(if args.dev { "debug" } else { "release" })
}

/// The program that measures, with what all figures have in common.
fn program(project: &Project, args: &BenchArgs) -> Command {
    let mut command = Command::new(built(project, args).join("aion-bench"));
    command.args(args.quick.then_some("--quick")).args(args.full.then_some("--full"));
    command.args(["--output", if args.output == Format::Json { "json" } else { "table" }]);
    command.env("AION_BIN_DIR", project.bin()).env("AION_CLONE", &project.root);
    command
}

fn measure(project: &Project, args: &BenchArgs, daemons: &Daemons<'_>) -> Result<()> {
    for name in DAEMONS {
        // The child is dropped, not waited for: take_down finds it by its pid file.
        drop(daemons.start(name)?);
    }
    daemons.await_ready()?;
    note(&format!("this machine: {}", machine()));
    let mut command = program(project, args);
    command.arg(if args.figures == Figures::Audit { "audit" } else { "launch" });
    command.env("AION_SOCKET", daemons.socket()).env("AION_STATE", &daemons.state);
    let cost = built(project, args).join("examples/cost");
    if cost.is_file() {
        command.env("AION_PROBE_COST", cost).env("AION_PROBES_OBJECT", project.stage().join(ebpf::OBJECT));
    }
    run(&mut command)
}

fn machine() -> String {
    let kernel = crate::process::read(Command::new("uname").args(["-sr"])).unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!("{}, {cpus} processors", kernel.trim())
}
