//! `cargo xtask setup`: what a bare Debian 12 with rustup lacks, installed by package name.
//!
//! Idempotent and quick when nothing is missing, because `up`, `test`, `vm` and `bench` begin with it.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::apt;
use crate::process::{as_root, head, run, succeeds, warn};

/// What is wanted beyond the build and the daemons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Group {
    /// Compilers and libraries, and what the sample agents run on.
    Build,
    /// Installers of the clients and servers that tests use as they are.
    Test,
    /// QEMU and what makes the VMs' images.
    Vm,
    /// What packages are made with.
    Dist,
    /// The programs that the benchmarks measure against.
    Bench,
    /// The servers that `bench schedule` measures against.
    Queues,
}

/// Compilers and libraries. clang-22 reads the kernel's headers for bindgen and compiles the probes' shim;
/// rustc-web is the compiler with a prebuilt `core` for BPF.
const BUILD: &[&str] = &[
    "build-essential",
    "ccache",
    "clang-22",
    "libclang-22-dev",
    "libseccomp-dev",
    "libstd-rust-web-dev-bpf",
    "llvm-22-dev",
    "pkg-config",
    "rustc-web",
];

/// What agents and their tests run on.
const RUN: &[&str] = &["git", "iproute2", "procps", "python3", "util-linux"];

/// What clients and servers from other registries are installed with.
const PEERS: &[&str] = &["python3-venv"];

/// The VMs. QEMU itself comes from backports: the one in Debian 12 proper panics 6.12 kernels.
const VM: &[&str] = &["binutils", "e2fsprogs", "mmdebstrap", "xz-utils"];

/// Packages: objdump and strip, dpkg-shlibdeps, signatures, and what reads the RPM as its distributions do.
const DIST: &[&str] = &["binutils", "dpkg-dev", "openssl", "rpm"];

/// The rivals of the benchmarks.
const BENCH: &[&str] = &["bpftrace", "bubblewrap", "crun", "git", "runc", "strace"];

/// The rivals of `bench schedule`. It starts them itself, with folders of its own.
const QUEUES: &[&str] = &["beanstalkd", "nats-server", "postgresql", "redis-server"];

/// Installs what is missing for these groups, and makes the daemons' user.
pub(crate) fn setup(groups: &[Group]) -> Result<()> {
    let mut packages: Vec<&str> = BUILD.iter().chain(RUN).copied().collect();
    // Agents see the host's /usr, so node counts only there; one from elsewhere is left alone.
    if !Path::new("/usr/bin/node").exists() {
        packages.push("nodejs");
    }
    if groups.contains(&Group::Test) {
        packages.extend(PEERS);
        if !crate::process::in_path("npm") {
            packages.push("npm");
        }
    }
    if groups.contains(&Group::Vm) {
        packages.extend(VM);
    }
    if groups.contains(&Group::Dist) || groups.contains(&Group::Test) {
        packages.extend(DIST);
    }
    if groups.contains(&Group::Bench) {
        packages.extend(BENCH);
    }
    apt::install(&packages, None)?;
    if groups.contains(&Group::Queues) {
        apt::install_idle(QUEUES)?;
    }
    if groups.contains(&Group::Vm) {
        qemu()?;
    }
    service_user()
}

/// QEMU 10 or newer.
fn qemu() -> Result<()> {
    const EMULATOR: &str = "qemu-system-x86";
    if !apt::missing(&[EMULATOR])?.is_empty() {
        apt::enable_backports()?;
        return apt::install(&[EMULATOR], Some("bookworm-backports"));
    }
    let version = crate::process::read(Command::new("qemu-system-x86_64").arg("--version"))?;
    let major = version.split("version ").nth(1).and_then(|rest| rest.split('.').next()).unwrap_or("0");
    if major.parse::<u32>().unwrap_or(0) < 10 {
        warn(&format!("QEMU {major} panics 6.12 kernels: install qemu-system-x86 from bookworm-backports"));
    }
    Ok(())
}

/// The system user that aiond runs as, and the group whose members are its operators.
fn service_user() -> Result<()> {
    if !succeeds(Command::new("getent").args(["group", "aion"])) {
        head("making the group aion");
        run(as_root("groupadd").args(["--system", "aion"]))?;
    }
    if !succeeds(Command::new("getent").args(["passwd", "aion"])) {
        head("making the user aion");
        run(as_root("useradd").args([
            "--system",
            "--gid",
            "aion",
            "--no-create-home",
            "--home-dir",
            "/nonexistent",
            "--shell",
            "/usr/sbin/nologin",
            "--comment",
            "AION kernel API",
            "aion",
        ]))?;
    }
    Ok(())
}
