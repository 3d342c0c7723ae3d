//! Writes the seeds as files, for libFuzzer to begin with: `cargo run -p aion-fuzz-targets --bin corpus -- tests/fuzz/corpus`.

use std::fs;
use std::path::Path;

use aion_fuzz_targets::{door, frame, journal, manifest, probe_event, request, seccomp_profile};

fn main() -> std::io::Result<()> {
    let folder = std::env::args_os().nth(1).unwrap_or_else(|| "tests/fuzz/corpus".into());
    for (target, seeds) in [
        ("door", door::seeds()),
        ("frame", frame::seeds()),
        ("journal", journal::seeds()),
        ("manifest", manifest::seeds()),
        ("probe_event", probe_event::seeds()),
        ("request", request::seeds()),
        ("seccomp_profile", seccomp_profile::seeds()),
    ] {
        let folder = Path::new(&folder).join(target);
        fs::create_dir_all(&folder)?;
        for (number, seed) in seeds.iter().enumerate() {
            fs::write(folder.join(format!("seed-{number}")), seed)?;
        }
    }
    Ok(())
}
