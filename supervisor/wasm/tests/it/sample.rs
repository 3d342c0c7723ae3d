//! The sample in `examples/word-count`, built as its `tool.yml` says.

use std::path::Path;
use std::process::Command;

use aion_wasm::{Limits, Module};
use serde_json::json;

use crate::guest::{lock, make, runtime};

#[test]
fn the_sample_counts_words() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/word-count");
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("word-count");
    let one = lock();
    make("wasm32-wasip2", || {
        let mut cargo = Command::new("cargo");
        cargo.current_dir(&folder).env_remove("RUSTFLAGS").env("CARGO_TARGET_DIR", &out);
        cargo.args(["build", "--release", "--locked", "--target", "wasm32-wasip2"]);
        cargo
    });
    drop(one);
    let file = out.join("wasm32-wasip2/release/word-count.wasm");
    let module = Module::load(&file, Limits::default()).unwrap();
    let arguments = json!({"text": "To be, or not to be\nthat is the question", "top": 2});
    let outcome = runtime().block_on(module.run(arguments.to_string()));
    let most = json!([{"word": "be", "count": 2}, {"word": "to", "count": 2}]);
    assert_eq!(outcome.result, Ok(json!({"words": 10, "lines": 2, "characters": 40, "most": most})));
    let outcome = runtime().block_on(module.run("{}"));
    assert_eq!(outcome.result.unwrap_err().code(), "exit");
    assert!(outcome.stderr.contains("there is no text"), "{}", outcome.stderr);
}
