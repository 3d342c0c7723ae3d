//! A module or component: read, compiled and linked once, so that a call only instantiates.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::MemfdFlags;
use serde_json::{Value, json};
use wasmtime::component::{Component, Linker as ComponentLinker};
use wasmtime::{Config, Engine, InstancePre, Linker, Module as CoreModule};
use wasmtime_wasi::p2::bindings::CommandPre;

use crate::failure::LoadError;
use crate::ledger::Total;
use crate::limits::Limits;
use crate::run::State;
use crate::ticker::Ticker;

/// The longest file that is read.
const MAX_FILE: u64 = 64 << 20;
/// What a call may have on the stack of WebAssembly.
const STACK: usize = 512 << 10;

/// Which of the two kinds of commands it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A component that exports `wasi:cli/run` (WASI preview 2).
    Component,
    /// A core module that exports `_start` (WASI preview 1).
    Module,
}

/// What [`Module::load`] found.
#[derive(Debug, Clone)]
pub struct Report {
    /// What it is.
    pub kind: Kind,
    /// The length of the file.
    pub bytes: usize,
    /// How long compiling took.
    pub compiled_in: Duration,
    /// What it imports.
    pub imports: Vec<String>,
    /// What it exports.
    pub exports: Vec<String>,
}

impl Report {
    /// For people and programs.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let (kind, wasi) = match self.kind {
            Kind::Component => ("component", "preview2"),
            Kind::Module => ("module", "preview1"),
        };
        json!({
            "ok": true,
            "kind": kind,
            "wasi": wasi,
            "bytes": self.bytes,
            "compile_ms": u64::try_from(self.compiled_in.as_millis()).unwrap_or(u64::MAX),
            "imports": self.imports,
            "exports": self.exports,
        })
    }
}

/// What is instantiated for each call.
pub(crate) enum Command {
    Component(CommandPre<State>),
    Core(InstancePre<State>),
}

/// A command that is ready to run.
pub struct Module {
    pub(crate) engine: Engine,
    pub(crate) ticker: Ticker,
    pub(crate) command: Command,
    pub(crate) limits: Limits,
    pub(crate) total: Arc<Total>,
    report: Report,
}

impl std::fmt::Debug for Module {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Module").field("limits", &self.limits).field("report", &self.report).finish()
    }
}

impl Module {
    /// Reads and compiles a file.
    ///
    /// # Errors
    /// [`LoadError`] when the file is no command that could run.
    pub fn load(path: &Path, limits: Limits) -> Result<Self, LoadError> {
        let read = |source| LoadError::Read { path: path.to_owned(), source };
        let length = std::fs::metadata(path).map_err(read)?.len();
        if length > MAX_FILE {
            return Err(read(std::io::ErrorKind::FileTooLarge.into()));
        }
        Self::compile(&std::fs::read(path).map_err(read)?, limits)
    }

    /// Compiles what is in memory.
    ///
    /// # Errors
    /// As [`Module::load`].
    pub fn compile(bytes: &[u8], limits: Limits) -> Result<Self, LoadError> {
        let kind = kind(bytes).ok_or(LoadError::NotWasm)?;
        let runtime = |error: &dyn std::fmt::Display| LoadError::Runtime { reason: error.to_string() };
        let engine = Engine::new(&config()).map_err(|error| runtime(&error))?;
        let begun = Instant::now();
        let (command, imports, exports) = match kind {
            Kind::Component => component(&engine, bytes)?,
            Kind::Module => core(&engine, bytes)?,
        };
        let report = Report { kind, bytes: bytes.len(), compiled_in: begun.elapsed(), imports, exports };
        let total = Total::new(limits.total_memory.max(limits.max_memory));
        let ticker = Ticker::start(engine.clone()).map_err(|error| runtime(&error))?;
        let module = Self { engine, ticker, command, limits, total, report };
        // A folder that is not there is told now, not at the first call.
        module.wasi().map(drop)?;
        Ok(module)
    }

    /// What was found.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }
}

/// The eight bytes at the start: the word, and a version in which components differ from modules.
fn kind(bytes: &[u8]) -> Option<Kind> {
    match bytes.get(..8)? {
        [0, b'a', b's', b'm', 1, 0, 0, 0] => Some(Kind::Module),
        [0, b'a', b's', b'm', _, 0, 1, 0] => Some(Kind::Component),
        _ => None,
    }
}

fn config() -> Config {
    let mut config = Config::new();
    config.consume_fuel(true).epoch_interruption(true).max_wasm_stack(STACK);
    // 64-bit memories need a check at each access and fit no limit of a tool.
    config.wasm_memory64(false);
    // The traces of a tool's own code help nobody who calls it.
    config.wasm_backtrace_max_frames(None);
    // Instances share what they are initialized with through a memory file. A sandbox that forbids executable ones
    // (vm.memfd_noexec=2) refuses the runtime's, which it does not expect.
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    config.memory_init_cow(rustix::fs::memfd_create("image", flags).is_ok());
    config
}

type Loaded = (Command, Vec<String>, Vec<String>);

fn said(error: &wasmtime::Error) -> String {
    format!("{error:#}")
}

fn component(engine: &Engine, bytes: &[u8]) -> Result<Loaded, LoadError> {
    let component =
        Component::from_binary(engine, bytes).map_err(|e| LoadError::Compile { reason: said(&e) })?;
    let names = component.component_type();
    let imports = names.imports(engine).map(|(name, _)| name.to_owned()).collect();
    let exports: Vec<String> = names.exports(engine).map(|(name, _)| name.to_owned()).collect();
    let mut linker = ComponentLinker::new(engine);
    let missing = |e: wasmtime::Error| LoadError::Imports { reason: said(&e) };
    wasmtime_wasi::p2::add_to_linker_async::<State>(&mut linker).map_err(missing)?;
    let pre = linker.instantiate_pre(&component).map_err(missing)?;
    let pre = CommandPre::new(pre).map_err(|e| LoadError::NotCommand { reason: said(&e) })?;
    Ok((Command::Component(pre), imports, exports))
}

fn core(engine: &Engine, bytes: &[u8]) -> Result<Loaded, LoadError> {
    let module =
        CoreModule::from_binary(engine, bytes).map_err(|e| LoadError::Compile { reason: said(&e) })?;
    let imports = module.imports().map(|i| format!("{}::{}", i.module(), i.name())).collect();
    let exports: Vec<String> = module.exports().map(|e| e.name().to_owned()).collect();
    let start = module.get_export("_start");
    let plain =
        start.as_ref().and_then(|e| e.func()).is_some_and(|f| f.params().len() + f.results().len() == 0);
    if !plain {
        return Err(LoadError::NotCommand { reason: "it exports no function _start".to_owned() });
    }
    let mut linker = Linker::new(engine);
    let missing = |e: wasmtime::Error| LoadError::Imports { reason: said(&e) };
    wasmtime_wasi::p1::add_to_linker_async(&mut linker, |state: &mut State| &mut state.wasi)
        .map_err(missing)?;
    let pre = linker.instantiate_pre(&module).map_err(missing)?;
    Ok((Command::Core(pre), imports, exports))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_command_is_refused() {
        let load = |bytes: &[u8]| Module::compile(bytes, Limits::default()).unwrap_err();
        assert!(matches!(load(b""), LoadError::NotWasm));
        assert!(matches!(load(b"#!/bin/sh\n"), LoadError::NotWasm));
        assert!(matches!(load(b"\0asm\x01\0\0\0"), LoadError::NotCommand { .. }));
        assert!(matches!(load(b"\0asm\x01\0\0\0\xff\xff"), LoadError::Compile { .. }));
        assert!(matches!(load(b"\0asm\x0d\0\x01\0"), LoadError::NotCommand { .. }));
        // (import "env" "steal" (func)) (func (export "_start"))
        let imports = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x02\x0d\x01\x03env\x05steal\0\0\x03\x02\x01\0\x07\x0a\x01\x06_start\0\x01\x0a\x04\x01\x02\0\x0b";
        assert!(matches!(load(imports), LoadError::Imports { .. }), "{:?}", load(imports));
        let missing = Module::load(Path::new("/none/such.wasm"), Limits::default());
        assert!(matches!(missing, Err(LoadError::Read { .. })));
    }
}
