//! The command line.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use aion_wasm::{Description, Dir, Limits};
use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use serde_json::{Value, json};

/// Runs a WebAssembly tool: a WASI command that reads its arguments as JSON from standard input and writes its result as JSON to
/// standard output.
#[derive(Debug, Parser)]
#[command(name = "aion-wasm", version, max_term_width = 110)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve a module as the one tool of an MCP server on standard input and output
    ///
    /// Each call is an instance of its own, with nothing but what is given here: no environment, no files, no network.
    /// It ends when standard input ends and the last call was answered.
    Serve(Box<Serve>),
    /// Say whether a module can be served, as JSON; ends with 1 when it cannot
    Check {
        /// A component (WASI preview 2) or a core module (preview 1)
        module: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// A component (WASI preview 2) or a core module (preview 1)
    module: PathBuf,
    /// The tool's name; the file's without its end when absent
    #[arg(long)]
    name: Option<String>,
    /// What the tool does, for models
    #[arg(long, default_value = "")]
    description: String,
    /// A file with the JSON Schema of the arguments; it is shown to clients, who hold arguments to it
    #[arg(long, value_name = "FILE")]
    input_schema: Option<PathBuf>,
    /// Memory that one call may have
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().max_memory)]
    max_memory: usize,
    /// Memory that all calls that run at once may have
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().total_memory)]
    total_memory: usize,
    /// Units of computation of a call, about one for each instruction
    #[arg(long, value_name = "N", default_value_t = default_fuel())]
    fuel: NonZeroU64,
    /// How long a call may run
    #[arg(long, value_name = "N", default_value_t = default_timeout())]
    timeout_ms: NonZeroU64,
    /// How many calls run at once; others wait
    #[arg(long, value_name = "N", default_value = "4")]
    pub(crate) calls: NonZeroUsize,
    /// A folder that the module sees, read-only with :ro; may be given several times
    #[arg(long = "dir", value_name = "HOST=GUEST[:ro]")]
    dirs: Vec<Dir>,
    /// A variable of the module's environment; may be given several times
    #[arg(long, value_name = "K=V", value_parser = variable)]
    env: Vec<(String, String)>,
}

fn default_fuel() -> NonZeroU64 {
    NonZeroU64::new(Limits::default().fuel).unwrap_or(NonZeroU64::MAX)
}

fn default_timeout() -> NonZeroU64 {
    let ms = u64::try_from(Limits::default().timeout.as_millis()).ok();
    ms.and_then(NonZeroU64::new).unwrap_or(NonZeroU64::MAX)
}

fn variable(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !text.contains('\0') => {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err("write NAME=VALUE"),
    }
}

impl Serve {
    pub(crate) fn description(&self) -> anyhow::Result<Description> {
        let name =
            self.name.clone().or_else(|| Some(self.module.file_stem()?.to_string_lossy().into_owned()));
        let name = name.filter(|name| !name.is_empty() && name.len() <= 256);
        let name = name.filter(|name| !name.chars().any(char::is_control));
        let name = name.context("the tool's name has 1 to 256 bytes and no control characters")?;
        let input_schema = match &self.input_schema {
            None => json!({ "type": "object" }),
            Some(path) => {
                let wrong = || format!("cannot use the schema {}", path.display());
                let schema: Value =
                    serde_json::from_slice(&std::fs::read(path).with_context(wrong)?).with_context(wrong)?;
                anyhow::ensure!(schema.is_object(), "{}: it is not an object", wrong());
                schema
            }
        };
        Ok(Description { name, text: self.description.clone(), input_schema })
    }

    /// The module's file, and its limits.
    pub(crate) fn split(self) -> (PathBuf, Limits) {
        let limits = Limits {
            max_memory: self.max_memory,
            total_memory: self.total_memory,
            fuel: self.fuel.get(),
            timeout: Duration::from_millis(self.timeout_ms.get()),
            dirs: self.dirs,
            env: self.env,
        };
        (self.module, limits)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_holds_together() {
        Options::command().debug_assert();
        let line = "aion-wasm serve a.wasm --dir /a=/b:ro --env K=V=W --fuel 5 --max-memory 65536";
        let Command::Serve(serve) = Options::try_parse_from(line.split(' ')).unwrap().command else {
            panic!("not serve")
        };
        assert_eq!(serve.description().unwrap().name, "a");
        let (_, limits) = serve.split();
        assert_eq!(limits.env, [("K".to_owned(), "V=W".to_owned())]);
        assert_eq!((limits.fuel, limits.max_memory, limits.dirs.len()), (5, 65536, 1));
        for wrong in ["serve a --fuel 0", "serve a --dir x", "serve a --env =x", "serve a --timeout-ms 0"] {
            let line = format!("aion-wasm {wrong}");
            assert!(Options::try_parse_from(line.split(' ')).is_err(), "{wrong}");
        }
    }
}
