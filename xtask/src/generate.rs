//! `cargo xtask gen`: what is made from the code and kept beside it, for people and editors.
//!
//! Each piece has a test that fails when it is out of date; this brings all of them up to date.

use std::fs;
use std::process::Command;

use anyhow::Result;
use clap::Args;

use crate::process::{head, note, read, run};
use crate::project::Project;

#[derive(Debug, Args)]
pub(crate) struct GenArgs {
    /// Also write the man pages and completions to target/aion/{man,completions}
    #[arg(long)]
    install: bool,
}

/// Makes all of it.
pub(crate) fn generate(project: &Project, args: &GenArgs) -> Result<()> {
    head("docs/cli.md");
    run(project
        .cargo()
        .args(["test", "--quiet", "-p", "aionctl", "--lib", "docs::"])
        .env("UPDATE_DOCS", "1"))?;
    head("the daemons' man pages");
    run(project
        .cargo()
        .args(["test", "--quiet", "-p", "aiond", "--bin", "aiond", "-p", "aion-launcher", "--lib", "man::"])
        .env("UPDATE_DOCS", "1"))?;
    head("the JSON Schema of agent.yml");
    run(project.cargo().args(["test", "--quiet", "-p", "aion-manifest", "schema"]).env("AION_BLESS", "1"))?;
    head("the JSON Schema of the seccomp profiles");
    run(project.cargo().args(["test", "--quiet", "-p", "aion-seccomp", "schema"]).env("AION_BLESS", "1"))?;
    if args.install {
        head("man pages and completions");
        run(project.cargo().args(["build", "--quiet", "-p", "aionctl"]))?;
        let program = project.target.join("debug/aionctl");
        let man = project.stage().join("man");
        fs::create_dir_all(&man)?;
        run(Command::new(&program).arg("man").arg(&man))?;
        let completions = project.stage().join("completions");
        fs::create_dir_all(&completions)?;
        for (shell, file) in [("bash", "aionctl.bash"), ("zsh", "_aionctl"), ("fish", "aionctl.fish")] {
            let script = read(Command::new(&program).args(["completion", shell]))?;
            fs::write(completions.join(file), script)?;
        }
        note(&format!("in {} and {}", man.display(), completions.display()));
    }
    Ok(())
}
