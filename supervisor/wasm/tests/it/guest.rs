//! Compiles the guest, and runs it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use aion_wasm::{Failure, Limits, Module, Outcome};
use serde_json::Value;

/// Both previews: a component, and a core module.
pub(crate) const TARGETS: [&str; 2] = ["wasm32-wasip2", "wasm32-wasip1"];

/// The guest for a target.
pub(crate) fn guest(target: &str) -> &'static Path {
    static BUILT: [OnceLock<PathBuf>; 2] = [const { OnceLock::new() }; 2];
    let at = TARGETS.iter().position(|known| *known == target).unwrap();
    BUILT[at].get_or_init(|| build(target))
}

fn build(target: &str) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guests/guest.rs");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (out, fresh) =
        (folder.join(format!("guest-{target}.wasm")), folder.join(format!("guest-{target}.new")));
    // Each test may be a process of its own.
    let _one = lock();
    let changed = |path: &Path| path.metadata().and_then(|meta| meta.modified()).ok();
    if changed(&out) >= changed(&source) {
        return out;
    }
    make(target, || {
        let mut rustc = Command::new("rustc");
        // Beside the workspace's own toolchain file, so that its version is taken.
        rustc.current_dir(env!("CARGO_MANIFEST_DIR")).env_remove("RUSTFLAGS").args(["--edition", "2024"]);
        rustc.args(["--crate-name", "guest", "--target", target, "-O", "-C", "strip=symbols"]);
        rustc.args(["-A", "warnings", "-o"]).arg(&fresh).arg(&source);
        rustc
    });
    std::fs::rename(&fresh, &out).unwrap();
    out
}

/// Held while something is compiled: what lies beside the output is one compiler's.
pub(crate) fn lock() -> File {
    let file = File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiling.lock")).unwrap();
    file.lock().unwrap();
    file
}

/// Runs a compiler; installs the target and runs it again where it is missing.
pub(crate) fn make(target: &str, compiler: impl Fn() -> Command) {
    let mut made = compiler().output().unwrap();
    if !made.status.success() && String::from_utf8_lossy(&made.stderr).contains("may not be installed") {
        let added = Command::new("rustup")
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["target", "add", target])
            .status();
        assert!(added.unwrap().success(), "cannot install the target {target}");
        made = compiler().output().unwrap();
    }
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// Small enough that what runs away is soon stopped.
pub(crate) fn tight() -> Limits {
    Limits {
        max_memory: 32 << 20,
        fuel: 2_000_000_000,
        timeout: std::time::Duration::from_secs(20),
        ..Limits::default()
    }
}

pub(crate) fn load(target: &str, limits: Limits) -> Module {
    Module::load(guest(target), limits).unwrap()
}

pub(crate) fn run(module: &Module, what: &str) -> Outcome {
    runtime().block_on(module.run(format!("{{\"do\":\"{what}\"}}")))
}

pub(crate) fn result(module: &Module, what: &str) -> Value {
    let outcome = run(module, what);
    outcome.result.unwrap_or_else(|failure| panic!("{what}: {failure}: {}", outcome.stderr))
}

pub(crate) fn failure(module: &Module, what: &str) -> Failure {
    run(module, what).result.expect_err(what)
}

pub(crate) fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    })
}
