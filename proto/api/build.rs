//! Compiles `proto/aion/v1/*.proto` with protox (no protoc on the machine) into messages, clients, servers and a
//! descriptor set for gRPC reflection.

use std::path::PathBuf;

use prost::Message as _;

const FILES: [&str; 8] = [
    "aion/v1/agent.proto",
    "aion/v1/backup.proto",
    "aion/v1/detection.proto",
    "aion/v1/event.proto",
    "aion/v1/kernel.proto",
    "aion/v1/policy.proto",
    "aion/v1/runtime.proto",
    "aion/v1/task.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("..");
    for file in FILES {
        println!("cargo::rerun-if-changed={}", root.join(file).display());
    }
    let set = protox::compile(FILES, [&root])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("aion.v1.fds"), set.encode_to_vec())?;
    tonic_prost_build::configure().build_transport(true).compile_fds(set)?;
    Ok(())
}
