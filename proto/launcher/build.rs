//! Compiles launcher.proto with protox, so that no system protoc is needed.

use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("..");
    let file = root.join("aion/launcher/v1/launcher.proto");
    println!("cargo:rerun-if-changed={}", file.display());
    let set = protox::compile([&file], [&root])?;
    // Comments stay in the .proto: as Rust documentation they would be parsed as Markdown.
    prost_build::Config::new().disable_comments(["."]).compile_fds(set)?;
    Ok(())
}
