//! One call: a fresh store and instance, run to its end or to a limit.

use std::time::{Duration, Instant};

use aion_mcp::{MAX_VALUES, values_at_most};
use bytes::Bytes;
use serde_json::Value;
use wasmtime::{Store, Trap};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::{FsPerms, I32Exit, WasiCtxBuilder, WasiCtxView, WasiView};

use crate::capture::{Capture, Policy};
use crate::failure::{Failure, LoadError};
use crate::ledger::Ledger;
use crate::limits::{MAX_HANDED_OVER, MAX_HANDLES, MAX_OUTPUT, MAX_RANDOM, MAX_STDERR};
use crate::module::{Command, Module};

/// What is around the values of a result in the answer's message, generously.
const ENVELOPE: usize = 64;

/// What an instance has of its own.
pub(crate) struct State {
    /// Serves both previews.
    pub(crate) wasi: WasiP1Ctx,
    ledger: Ledger,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.wasi.ctx()
    }
}

/// How a call ended.
#[derive(Debug)]
pub struct Outcome {
    /// The result, or why there is none.
    pub result: Result<Value, Failure>,
    /// The end of its standard error.
    pub stderr: String,
    /// What it took.
    pub usage: Usage,
}

/// What a call took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Units of fuel.
    pub fuel: u64,
    /// Bytes of linear memory.
    pub memory: usize,
    /// Wall time.
    pub time: Duration,
}

impl Module {
    /// Runs it once with this on its standard input. Dropping the future ends the run at the next tick.
    pub async fn run(&self, input: impl Into<Bytes>) -> Outcome {
        let begun = Instant::now();
        let stdout = Capture::new(MAX_OUTPUT, Policy::Refuse);
        let stderr = Capture::new(MAX_STDERR, Policy::KeepLast);
        let mut usage = Usage::default();
        let ended = match self.store(input.into(), &stdout, &stderr) {
            Ok(mut store) => {
                let _running = self.ticker.run();
                let ended = tokio::time::timeout(self.limits.timeout, self.start(&mut store)).await;
                usage.fuel = self.limits.fuel.saturating_sub(store.get_fuel().unwrap_or_default());
                usage.memory = store.data().ledger.used();
                self.judge(ended.ok(), store.data().ledger.refused)
            }
            Err(failure) => Err(failure),
        };
        let (bytes, over) = stdout.take();
        let result = if over {
            Err(Failure::Output { reason: format!("has more than {MAX_OUTPUT} bytes") })
        } else {
            ended.and_then(|()| parse(&bytes))
        };
        usage.time = begun.elapsed();
        let stderr = String::from_utf8_lossy(&stderr.take().0).into_owned();
        Outcome { result, stderr, usage }
    }

    async fn start(&self, store: &mut Store<State>) -> wasmtime::Result<Result<(), ()>> {
        match &self.command {
            Command::Component(pre) => {
                let command = pre.instantiate_async(&mut *store).await?;
                command.wasi_cli_run().call_run(store).await
            }
            Command::Core(pre) => {
                let instance = pre.instantiate_async(&mut *store).await?;
                let start = instance.get_typed_func::<(), ()>(&mut *store, "_start")?;
                start.call_async(store, ()).await.map(Ok)
            }
        }
    }

    fn store(&self, input: Bytes, stdout: &Capture, stderr: &Capture) -> Result<Store<State>, Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::Start { reason: error.to_string() };
        let mut wasi = self.wasi().map_err(|error| failed(&error))?;
        wasi.stdin(MemoryInputPipe::new(input)).stdout(stdout.clone()).stderr(stderr.clone());
        let mut wasi = wasi.build_p1();
        wasi.ctx().table.set_max_capacity(MAX_HANDLES);
        let ledger = Ledger::new(std::sync::Arc::clone(&self.total), self.limits.max_memory);
        let mut store = Store::new(&self.engine, State { wasi, ledger });
        store.limiter(|state| &mut state.ledger);
        store.set_hostcall_fuel(MAX_HANDED_OVER);
        store.set_fuel(self.limits.fuel).map_err(|error| failed(&error))?;
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        Ok(store)
    }

    /// What a module is given: clocks, randomness, and what the limits name. No network, no arguments.
    pub(crate) fn wasi(&self) -> Result<WasiCtxBuilder, LoadError> {
        let mut wasi = WasiCtxBuilder::new();
        wasi.allow_tcp(false).allow_udp(false).allow_ip_name_lookup(false).max_random_size(MAX_RANDOM);
        for (name, value) in &self.limits.env {
            wasi.env(name, value);
        }
        for dir in &self.limits.dirs {
            let perms = if dir.read_only { FsPerms::ReadOnly } else { FsPerms::ReadWrite };
            wasi.preopened_dir(&dir.host, &dir.guest, perms)
                .map_err(|error| LoadError::Dir { path: dir.host.clone(), reason: error.to_string() })?;
        }
        Ok(wasi)
    }

    fn judge(&self, ended: Option<wasmtime::Result<Result<(), ()>>>, refused: bool) -> Result<(), Failure> {
        let failure = match ended {
            None => return Err(Failure::Timeout { ms: self.limits.timeout.as_millis() }),
            Some(Ok(Ok(()))) => return Ok(()),
            Some(Ok(Err(()))) => Failure::Exit { code: 1 },
            Some(Err(error)) => match (error.downcast_ref::<I32Exit>(), error.downcast_ref::<Trap>()) {
                (Some(I32Exit(0)), _) => return Ok(()),
                (Some(I32Exit(code)), _) => Failure::Exit { code: *code },
                (None, Some(Trap::OutOfFuel)) => return Err(Failure::Fuel { fuel: self.limits.fuel }),
                (None, Some(trap)) => Failure::Trap { reason: trap.to_string() },
                (None, None) => Failure::Trap { reason: error.root_cause().to_string() },
            },
        };
        // A module that is refused memory aborts, or exits as its language does then.
        if refused {
            let total = self.limits.total_memory.max(self.limits.max_memory);
            return Err(Failure::Memory { limit: self.limits.max_memory, total });
        }
        Err(failure)
    }
}

fn parse(bytes: &[u8]) -> Result<Value, Failure> {
    let wrong = |reason: String| Err(Failure::Output { reason });
    // Small values take many times their length in memory, here and at the caller.
    if values_at_most(bytes) > MAX_VALUES - ENVELOPE {
        return wrong(format!("has more than {} values", MAX_VALUES - ENVELOPE));
    }
    serde_json::from_slice(bytes).or_else(|error| wrong(format!("is not JSON: {error}")))
}
