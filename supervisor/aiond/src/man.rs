//! packaging/man/aiond.8, made from the options' own description, so that it cannot be out of date.

use std::path::Path;

use clap::CommandFactory as _;

use crate::options::Options;

#[test]
fn the_page_is_current() {
    let page = clap_mangen::Man::new(Options::command()).section("8").manual("AION");
    let mut now = Vec::new();
    page.render(&mut now).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/man/aiond.8");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    let kept = std::fs::read(&path).unwrap_or_default();
    assert!(kept == now, "packaging/man/aiond.8 is out of date: run UPDATE_DOCS=1 cargo test -p aiond man");
}
