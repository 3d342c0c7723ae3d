//! packaging/man/aion-launcher*.8, made from the options' own description, so that they cannot be out of date.

use std::path::Path;

use clap::{Command, CommandFactory as _};

use crate::options::Options;

/// The pages' names and texts: one for the launcher, one for each thing else that it does.
fn pages() -> Vec<(String, Vec<u8>)> {
    let mut command = Options::command().disable_help_subcommand(true);
    command.build();
    let subcommands: Vec<Command> = command.get_subcommands().cloned().collect();
    std::iter::once(command)
        .chain(subcommands)
        .map(|command| {
            let page = clap_mangen::Man::new(command).section("8").manual("AION");
            let mut text = Vec::new();
            page.render(&mut text).unwrap();
            (page.get_filename(), text)
        })
        .collect()
}

#[test]
fn the_pages_are_current() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/man");
    for (name, now) in pages() {
        let path = folder.join(&name);
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, &now).unwrap();
        }
        let kept = std::fs::read(&path).unwrap_or_default();
        assert!(
            kept == now,
            "packaging/man/{name} is out of date: run UPDATE_DOCS=1 cargo test -p aion-launcher man"
        );
    }
}
