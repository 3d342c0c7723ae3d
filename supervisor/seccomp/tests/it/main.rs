//! The profiles that AION ships, on the real kernel; and what is said about files that are wrong.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test may stop, and says why it skips"
)]

mod files;
mod kernel;
mod programs;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use aion_seccomp::{Arch, Compiled, Profile, compile};
use serde::Deserialize;

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../profiles/seccomp")
}

pub(crate) fn load(name: &str) -> (Profile, Compiled) {
    let profile = Profile::load(&folder(), name).unwrap_or_else(|e| panic!("{e}"));
    let compiled = compile(&profile, Arch::native().unwrap()).unwrap_or_else(|e| panic!("{e}"));
    (profile, compiled)
}

#[derive(Debug, Deserialize)]
pub(crate) struct Report {
    pub(crate) results: Vec<(i64, i32)>,
    pub(crate) status: i32,
    pub(crate) reported: Vec<u32>,
    #[serde(skip)]
    pub(crate) stderr: String,
}

/// Runs `probe.py` under a filter.
pub(crate) fn probe(filter: &Compiled, calls: &[(u32, Vec<u64>)], exec: &[&str], dir: &Path) -> Report {
    let bpf: String = filter.bpf.iter().map(|b| format!("{b:02x}")).collect();
    let job = serde_json::json!({ "bpf": bpf, "notify": filter.notify, "calls": calls, "exec": exec });
    let mut child = Command::new("python3")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/probe.py"))
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(job.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let mut report: Report =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {stderr}"));
    report.stderr = stderr;
    report
}

/// Python 3 is the loader; without it these tests have nothing to run.
pub(crate) fn python() -> bool {
    let there = Command::new("python3").arg("--version").output().is_ok_and(|o| o.status.success());
    if !there {
        println!("skipped: there is no python3 to load the filter");
    }
    there
}
