//! The two small C programs that every contender runs, and the clock.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};

/// Compiles one of the programs in `c/` statically into `folder`.
pub(crate) fn compile(folder: &Path, name: &str, source: &str) -> Result<PathBuf> {
    let file = folder.join(format!("{name}.c"));
    std::fs::write(&file, source)?;
    let program = folder.join(name);
    let status = Command::new("cc").args(["-O2", "-static", "-o"]).arg(&program).arg(&file).status();
    ensure!(status.context("cc")?.success(), "cc could not compile {name}.c");
    Ok(program)
}

/// The program that prints when it ran.
pub(crate) const STAMP: &str = include_str!("../c/stamp.c");
/// The floor: clone with six namespaces.
pub(crate) const CLONE6: &str = include_str!("../c/clone6.c");

/// Nanoseconds since 1970.
pub(crate) fn now_ns() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()
}

/// Microseconds from `start` to the stamp that a contender printed.
pub(crate) fn stamp_us(start: u128, output: &[u8]) -> Result<f64> {
    let text = String::from_utf8_lossy(output);
    let stamp: u128 = text.trim().parse().with_context(|| format!("not a time stamp: {text:?}"))?;
    ensure!(stamp >= start, "the stamp {stamp} is before the start {start}");
    let ns = u64::try_from(stamp - start)?;
    Ok(micros(Duration::from_nanos(ns)))
}

/// A duration in microseconds.
pub(crate) fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
