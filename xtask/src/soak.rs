//! `cargo xtask soak` and `fuzz`: the long versions of what `test` does in short.

use anyhow::{Result, bail};
use clap::Args;

use crate::process::{head, in_path, is_root, note, run};
use crate::project::Project;
use crate::setup::{Group, setup};
use crate::{binaries, test};

#[derive(Debug, Args)]
pub(crate) struct SoakArgs {
    /// Run only tests whose name contains this
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
}

/// The end-to-end suite at full scale: 100 rounds of kill -9, storms of 10,000 processes, 10,000 agents.
/// The scale is the only difference; the tests are the same.
pub(crate) fn soak(project: &Project, args: &SoakArgs) -> Result<()> {
    setup(&[Group::Build])?;
    binaries::build(project)?;
    if !is_root() {
        note("the suite runs through sudo");
    }
    test::suite(project, args.filter.as_deref(), "aion-e2e", "full")
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
        // A target folder of its own: the sanitizer's build shares nothing with ours.
        run(project
            .command("cargo")
            .args(["+nightly", "fuzz", "run", target, "--", &format!("-max_total_time={}", args.seconds)])
            .env("CARGO_TARGET_DIR", project.cache.join("fuzz-target"))
            .current_dir(&folder))?;
    }
    Ok(())
}
