//! `aion-escape`: tries to leave the sandbox it runs in, and shows on the host that each way works without it.
//!
//! `list` tells all attempts; `try ID` runs one where it stands; `try-all` one line of JSON each; `control ID` runs
//! the same code where the layer that stops it is missing; `targets` makes what attempts aim at.

#![expect(clippy::multiple_unsafe_ops_per_block, reason = "each block is one attack, told by its comment")]

mod attempt;
mod attempts;
mod runner;
mod sys;
mod target;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use attempt::{Attempt, Place};
use target::Targets;

const USAGE: &str = "usage: aion-escape list | targets FOLDER | try ID [TARGETS.json] | \
    try-all PLACE [TARGETS.json] | neighbour inotify|signals | control ID | control-all";

fn main() -> ExitCode {
    let inherited = target::inherited();
    let args: Vec<String> = std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect();
    if args.get(1).is_some_and(|a| a == target::BYSTANDER) {
        target::stand_by();
    }
    if let Some(code) = attempts::helper(&args) {
        return code;
    }
    match run(&args, inherited) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "aion-escape: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &[String], inherited: Vec<i32>) -> Result<()> {
    let word = |n: usize| args.get(n).map(String::as_str);
    let targets = |n: usize| -> Result<Targets> {
        let mut targets: Targets = match word(n) {
            Some(path) => serde_json::from_slice(&std::fs::read(path).with_context(|| path.to_owned())?)?,
            None => Targets::inside(),
        };
        targets.inherited = inherited.clone();
        Ok(targets)
    };
    match (word(1), word(2)) {
        (Some("list"), None) => list(),
        (Some("targets"), Some(folder)) => target::serve(Path::new(folder)),
        (Some("try"), Some(id)) => print(&runner::attempt(&find(id)?, &targets(3)?)),
        (Some("try-all"), Some(place)) => {
            let place = match place {
                "agent" => Place::Agent,
                "no-subprocess" => Place::NoSubprocess,
                _ => bail!("{USAGE}"),
            };
            let targets = targets(3)?;
            attempts::all()
                .iter()
                .filter(|attempt| attempt.place == place)
                .try_for_each(|attempt| print(&runner::attempt(attempt, &targets)))
        }
        (Some("neighbour"), Some(kind)) => {
            print(&if attempts::is_starved(kind) { "starved" } else { "fine" })
        }
        (Some("control"), Some(id)) => print(&runner::control(&find(id)?)),
        (Some("control-all"), None) => attempts::all().iter().try_for_each(|a| print(&runner::control(a))),
        _ => bail!("{USAGE}"),
    }
}

fn find(id: &str) -> Result<Attempt> {
    attempts::all().into_iter().find(|a| a.id == id).with_context(|| format!("no attempt is called {id}"))
}

fn list() -> Result<()> {
    let list: Vec<_> = attempts::all()
        .iter()
        .map(|a| {
            serde_json::json!({
                "id": a.id, "category": a.category, "description": a.description,
                "layer": a.layer, "place": a.place, "control": a.control_text(),
            })
        })
        .collect();
    print(&list)
}

fn print(value: &impl serde::Serialize) -> Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, value)?;
    writeln!(out)?;
    Ok(out.flush()?)
}
