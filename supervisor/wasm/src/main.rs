//! aion-wasm: one WebAssembly tool as an MCP server over standard input and output.
//!
//! This binary only assembles: flags, module, runtime, pipes.

mod options;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::available_parallelism;

use aion_mcp::{PipeOptions, Server, ServerOptions};
use aion_wasm::{Limits, Module, Tool};
use anyhow::Context as _;
use clap::Parser as _;
use serde_json::json;

use crate::options::{Command, Options, Serve};

fn main() -> ExitCode {
    let done = match Options::parse().command {
        Command::Serve(serve) => run(*serve).map(|()| ExitCode::SUCCESS),
        Command::Check { module } => check(&module),
    };
    done.unwrap_or_else(|error| {
        let _ = writeln!(std::io::stderr(), "aion-wasm: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(serve: Serve) -> anyhow::Result<()> {
    let description = serve.description()?;
    let calls = serve.calls.get();
    let (path, limits) = serve.split();
    let module = Module::load(&path, limits).with_context(|| format!("cannot serve {}", path.display()))?;
    // Two at least, so that one module that computes does not hold up the pipe.
    let threads = available_parallelism().map_or(2, |n| n.get().clamp(2, 4));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .max_blocking_threads(16)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let options = ServerOptions { name: "aion-wasm".to_owned(), ..ServerOptions::default() };
    let server = Arc::new(Server::new(Tool::new(module, description), options));
    let pipes = PipeOptions { max_calls: calls, ..PipeOptions::default() };
    let served =
        runtime.block_on(server.serve_pipes(Arc::new(()), tokio::io::stdin(), tokio::io::stdout(), pipes));
    // A read of standard input may still wait.
    runtime.shutdown_background();
    served.context("the connection failed")
}

fn check(path: &Path) -> anyhow::Result<ExitCode> {
    let (report, code) = match Module::load(path, Limits::default()) {
        Ok(module) => (module.report().to_value(), ExitCode::SUCCESS),
        Err(error) => {
            let text = format!("{:#}", anyhow::Error::from(error));
            (json!({ "ok": false, "error": text }), ExitCode::FAILURE)
        }
    };
    writeln!(std::io::stdout(), "{report:#}")?;
    Ok(code)
}
