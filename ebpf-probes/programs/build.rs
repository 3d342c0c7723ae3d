//! Compiles the C shim to bitcode and has bpf-linker link it into the programs, with BTF.

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=shim/kernel.c");
    println!("cargo::rerun-if-env-changed=AION_CLANG");
    let clang = env::var("AION_CLANG").unwrap_or_else(|_| "clang-22".to_owned());
    let shim = PathBuf::from(env::var("OUT_DIR")?).join("shim.bc");
    let status = Command::new(&clang)
        .args(["-target", "bpf", "-D__TARGET_ARCH_x86", "-g", "-O2", "-Wall", "-Wextra", "-Werror"])
        .args(["-emit-llvm", "-c", "shim/kernel.c", "-o"])
        .arg(&shim)
        .status()
        .map_err(|error| format!("cannot run {clang}: {error}"))?;
    if !status.success() {
        return Err(format!("{clang} ended with {status}").into());
    }
    println!("cargo::rustc-link-arg-bins={}", shim.display());
    println!("cargo::rustc-link-arg-bins=--btf");
    Ok(())
}
