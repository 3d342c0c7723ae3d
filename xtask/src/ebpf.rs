//! Builds the BPF object: Debian's rustc, which comes with a `core` for BPF, and bpf-linker on Debian's LLVM.
//!
//! The crate in `ebpf-probes/programs` has a lock file of its own; its build script compiles the C shim. Here
//! is what it needs around it, and the strip: DWARF is ten times the programs, and the kernel wants only BTF.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::apt;
use crate::process::{capture, head, note, run, show, write_whole};
use crate::project::Project;

/// What the object is called in the stage and when installed.
pub(crate) const OBJECT: &str = "aion-probes.bpf.o";

const PACKAGES: &[&str] = &["clang-22", "libstd-rust-web-dev-bpf", "llvm-22-dev", "rustc-web"];
const RUSTC: &str = "/usr/bin/rustc";
const LLVM: &str = "/usr/lib/llvm-22";
const LINKER_VERSION: &str = "0.13.0";
const TARGET: &str = "bpfel-unknown-none";

/// Variables of an outer cargo or of the user that would reach the programs' build and do not belong there.
const FOREIGN: &[&str] = &[
    "RUSTFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTDOC",
];

/// Builds the object and gives its path, in the stage. A second call with nothing changed takes a moment.
pub(crate) fn build(project: &Project) -> Result<PathBuf> {
    head("building the probes");
    apt::install(PACKAGES, None)?;
    let linker = linker(project)?;
    let target = project.target.join("ebpf");
    let mut cargo = project.cargo();
    for name in FOREIGN {
        cargo.env_remove(name);
    }
    run(cargo
        .current_dir(project.root.join("ebpf-probes/programs"))
        .args(["build", "--release", "--locked", "--target", TARGET])
        .env("CARGO_TARGET_DIR", &target)
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &linker)
        .env("RUSTC", RUSTC)
        // The BPF target is only in nightly's list of what may be built with; Debian's compiler is stable.
        .env("RUSTC_BOOTSTRAP", "1"))?;
    let built = target.join(TARGET).join("release/aion-probes");
    let stripped = target.join(OBJECT);
    let mut strip = Command::new(Path::new(LLVM).join("bin/llvm-strip"));
    strip.arg("--strip-debug").arg("-o").arg(&stripped).arg(&built);
    let output = capture(&mut strip)?;
    if !output.status.success() {
        bail!("{}: {}", show(&strip), String::from_utf8_lossy(&output.stderr).trim());
    }
    let bytes =
        std::fs::read(&stripped).with_context(|| format!("the build left no {}", stripped.display()))?;
    let staged = project.stage().join(OBJECT);
    if std::fs::read(&staged).is_ok_and(|old| old == bytes) {
        return Ok(staged);
    }
    std::fs::create_dir_all(project.stage())?;
    write_whole(&staged, &bytes)?;
    note(&format!("{} bytes in {}", bytes.len(), staged.display()));
    Ok(staged)
}

/// bpf-linker of the version that these programs were tested with: the user's own, or ours in the cache.
fn linker(project: &Project) -> Result<PathBuf> {
    let own = PathBuf::from("bpf-linker");
    if is_right(&own) {
        return Ok(own);
    }
    let root = project.cache_folder("tools")?;
    let ours = root.join("bin/bpf-linker");
    if is_right(&ours) {
        return Ok(ours);
    }
    head("installing bpf-linker");
    run(project
        .cargo()
        .args(["install", "bpf-linker", "--version", LINKER_VERSION, "--locked", "--force"])
        .args(["--no-default-features", "--features", "llvm-22", "--root"])
        .arg(&root)
        .env("LLVM_PREFIX", LLVM)
        .env("CARGO_TARGET_DIR", project.target.join("bpf-linker")))?;
    if !is_right(&ours) {
        bail!("{} does not run", ours.display());
    }
    Ok(ours)
}

fn is_right(linker: &Path) -> bool {
    capture(Command::new(linker).arg("--version")).is_ok_and(|output| {
        output.status.success() && String::from_utf8_lossy(&output.stdout).contains(LINKER_VERSION)
    })
}
