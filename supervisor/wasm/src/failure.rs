//! Why there is no result: of a module, or of a call.

use std::path::PathBuf;

use serde_json::{Value, json};

/// A module that cannot be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is neither a module nor a component.
    #[error("it is neither a WebAssembly module nor a component")]
    NotWasm,
    /// It is not valid, or needs what the runtime does not have.
    #[error("it does not compile: {reason}")]
    Compile {
        /// What the compiler says.
        reason: String,
    },
    /// It imports what a tool is not given.
    #[error("its imports cannot be satisfied: {reason}")]
    Imports {
        /// What the linker says.
        reason: String,
    },
    /// It is no command.
    #[error("it is no command: {reason}")]
    NotCommand {
        /// What is missing.
        reason: String,
    },
    /// A folder that it is to see cannot be opened.
    #[error("cannot open the folder {path}: {reason}")]
    Dir {
        /// The folder.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The runtime cannot be set up.
    #[error("the runtime cannot be set up: {reason}")]
    Runtime {
        /// Why.
        reason: String,
    },
}

/// Why a call gave no result. Its text is for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// It ran too long.
    #[error("the module was ended after {ms} ms")]
    Timeout {
        /// How long it may run, in milliseconds.
        ms: u128,
    },
    /// It computed too much.
    #[error("the module used up its {fuel} units of fuel")]
    Fuel {
        /// What it was given.
        fuel: u64,
    },
    /// It was refused memory, and failed.
    #[error("the module needs more memory than it may have ({limit} bytes, and {total} for all calls)")]
    Memory {
        /// What one call may have, in bytes.
        limit: usize,
        /// What all calls may have.
        total: usize,
    },
    /// It trapped.
    #[error("the module trapped: {reason}")]
    Trap {
        /// Which trap it was.
        reason: String,
    },
    /// It says that it failed.
    #[error("the module ended with {code}")]
    Exit {
        /// Its exit code.
        code: i32,
    },
    /// Its standard output is no result.
    #[error("the module's output {reason}")]
    Output {
        /// What is wrong with it.
        reason: String,
    },
    /// The runner itself failed.
    #[error("the module could not be started: {reason}")]
    Start {
        /// Why.
        reason: String,
    },
}

impl Failure {
    /// A word for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Timeout { .. } => "timeout",
            Self::Fuel { .. } => "fuel",
            Self::Memory { .. } => "memory",
            Self::Trap { .. } => "trap",
            Self::Exit { .. } => "exit",
            Self::Output { .. } => "output",
            Self::Start { .. } => "start",
        }
    }

    pub(crate) fn to_value(&self) -> Value {
        match self {
            Self::Exit { code } => json!({ "code": self.code(), "exit_code": code }),
            _ => json!({ "code": self.code() }),
        }
    }
}
