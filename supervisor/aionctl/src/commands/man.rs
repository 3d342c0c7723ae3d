//! What is made from the command line's own description: completion scripts and man pages.

use std::io::Write as _;
use std::path::Path;

use clap::CommandFactory as _;

use crate::cli::Cli;
use crate::failure::{Failure, Outcome};
use crate::output::lines;

pub(super) fn completion(shell: clap_complete::Shell) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "aionctl", &mut script);
    let mut out = std::io::stdout().lock();
    out.write_all(&script)?;
    out.flush()?;
    Ok(0)
}

pub(super) fn pages(dir: &Path) -> Outcome {
    let failed = |error: std::io::Error| {
        Failure::new(1, format!("cannot write man pages into {}", dir.display())).cause(&error)
    };
    std::fs::create_dir_all(dir).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), dir).map_err(failed)?;
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        if name.starts_with("aionctl") && name.ends_with(".1") {
            names.push(name);
        }
    }
    names.sort();
    lines(names)?;
    Ok(0)
}
