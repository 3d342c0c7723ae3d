//! Servers of tools, kept warm: one for a tool and a tenant, started by the first call and ended when nobody has called for a
//! while. What a server keeps in mind is of one tenant.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use aion_mcp::{Client, Error, HttpOptions, Options, ToolResult};
use aion_syscall::{Reason, Refusal};
use aion_types::{ErrorCode, TenantId};
use futures::FutureExt as _;
use serde_json::{Map, Value};

use crate::host::{Host, Running, Sandbox};
use crate::kernel::now_ns;

mod turns;

use turns::Turns;

/// Servers of one tenant, and of all.
const OF_TENANT: usize = 16;
const OF_ALL: usize = 64;
/// A server that nobody has called for so long is ended.
const IDLE: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_secs(15);
/// A result of 4 MiB as text and as an object, escaped.
const MAX_MESSAGE: usize = 16 << 20;
/// A server that has not said hello by then is ended.
const HELLO: Duration = Duration::from_secs(60);
/// After a start that failed the next one waits, twice as long each time.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LAST_WAIT: Duration = Duration::from_secs(30);
/// A server in which a call was given up has so long to show that it lives.
const SIGN_OF_LIFE: Duration = if cfg!(test) { Duration::from_millis(200) } else { Duration::from_secs(30) };
/// Standard error that a failure shows.
const SHOWN: usize = 2000;

/// How a server comes to be.
#[derive(Clone)]
pub(crate) enum Start {
    /// In a sandbox, over pipes.
    Sandbox(Box<Sandbox>),
    /// It runs elsewhere, and is reached over HTTP.
    Http(String),
}

/// Which server.
#[derive(Clone)]
pub(crate) struct Spec {
    pub(crate) tenant: TenantId,
    pub(crate) tool: String,
    /// Of the tool's manifest and files: another is another server.
    pub(crate) digest: String,
    pub(crate) start: Start,
}

type Key = (String, String, String);

struct Live {
    client: Client,
    running: Option<Box<dyn Running>>,
    /// It is being asked whether it lives.
    asked: AtomicBool,
    turns: Turns,
}

impl Live {
    fn new(client: Client, running: Option<Box<dyn Running>>) -> Self {
        Self { client, running, asked: AtomicBool::new(false), turns: Turns::default() }
    }

    /// What it wrote to standard error from then on.
    async fn said(&self, since_ns: u64) -> String {
        let said = match &self.running {
            Some(running) => running.said(since_ns).await,
            None => String::new(),
        };
        let from = said.char_indices().rev().nth(SHOWN).map_or(0, |(at, _)| at);
        match said.get(from..).unwrap_or_default() {
            "" => String::new(),
            end => format!("; it wrote: {end}"),
        }
    }
}

#[derive(Default)]
struct State {
    live: Option<Arc<Live>>,
    failures: u32,
    not_before: Option<Instant>,
}

struct Slot {
    state: tokio::sync::Mutex<State>,
    calls: AtomicUsize,
    used: Mutex<Instant>,
}

/// Counts a call for as long as this lives.
struct Calling(Arc<Slot>);

impl Calling {
    fn begin(slot: Arc<Slot>) -> Self {
        slot.calls.fetch_add(1, Ordering::SeqCst);
        Self(slot)
    }
}

impl Drop for Calling {
    fn drop(&mut self) {
        *self.0.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.0.calls.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A call that a server owes an answer. When it is given up, in whatever way, the server is asked whether it lives: one that hangs would
/// take every later caller's time.
struct Owed {
    slot: Arc<Slot>,
    live: Arc<Live>,
    answered: bool,
}

impl Drop for Owed {
    fn drop(&mut self) {
        if self.answered {
            self.live.turns.answered(Instant::now());
        }
        if self.answered || self.live.asked.swap(true, Ordering::SeqCst) {
            return;
        }
        let (slot, live) = (Arc::clone(&self.slot), Arc::clone(&self.live));
        // Without a runtime the kernel itself is ending.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            let lives = match tokio::time::timeout(SIGN_OF_LIFE, live.client.ping()).await {
                Ok(Err(error)) => {
                    !matches!(error, Error::Timeout { .. } | Error::Closed(_) | Error::SessionEnded)
                }
                Ok(Ok(())) => true,
                Err(_) => false,
            };
            live.asked.store(false, Ordering::SeqCst);
            if !lives {
                slot.lost(&live).await;
                // Who waits in it still waits for nothing, and holds its sandbox.
                live.client.close().await;
            }
        });
    }
}

pub(crate) struct Servers {
    host: Arc<dyn Host>,
    slots: Mutex<HashMap<Key, Arc<Slot>>>,
}

impl Servers {
    /// On a runtime: a task ends what is idle for as long as this lives.
    pub(crate) fn start(host: Arc<dyn Host>) -> Arc<Self> {
        let servers = Arc::new(Self { host, slots: Mutex::default() });
        tokio::spawn(end_idle(Arc::downgrade(&servers)));
        servers
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// A tool was installed anew, or removed: its servers end with the calls that are under way.
    pub(crate) fn forget(&self, tool: &str) {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).retain(|(_, name, _), _| name != tool);
    }

    /// Calls a tool of a server; starts the server when it does not run.
    pub(crate) async fn call(
        &self,
        spec: Spec,
        name: &str,
        arguments: Map<String, Value>,
        deadline: Instant,
    ) -> Result<ToolResult, Refusal> {
        let calling = self.slot(&spec)?;
        let (slot, host, tool) = (Arc::clone(&calling.0), Arc::clone(&self.host), spec.tool.clone());
        // A start goes on when this caller has no time left: the next one finds a server.
        let started = tokio::spawn(async move { slot.live(host.as_ref(), spec).await });
        let live = started.await.unwrap_or_else(|error| {
            let message = format!("the server's start did not run to its end: {error}");
            Err(Refusal::new(Reason::Internal, ErrorCode::Internal, message))
        })?;
        let mut owed = Owed { slot: Arc::clone(&calling.0), live: Arc::clone(&live), answered: false };
        let (turn, since_ns) = (live.turns.begin(Instant::now()), now_ns());
        let called = live.client.call_tool(name, arguments, deadline.into()).await;
        owed.answered = !matches!(called, Err(Error::Timeout { .. }));
        let error = match called {
            Ok(result) => return Ok(result),
            Err(error) => error,
        };
        let mut refusal = refusal_of(&tool, &error);
        if matches!(error, Error::Closed(_) | Error::SessionEnded) {
            calling.0.lost(&live).await;
            // Other calls are other agents', and what it wrote may tell of them.
            let said = match live.turns.alone(turn) {
                true => live.said(since_ns).await,
                false if live.running.is_some() => {
                    "; it served other calls, so what it wrote is not shown".to_owned()
                }
                false => String::new(),
            };
            refusal.message.push_str(&said);
        }
        Err(refusal)
    }

    fn slot(&self, spec: &Spec) -> Result<Calling, Refusal> {
        let key = (spec.tenant.to_string(), spec.tool.clone(), spec.digest.clone());
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(&key) {
            return Ok(Calling::begin(Arc::clone(slot)));
        }
        let of_tenant = slots.keys().filter(|(tenant, _, _)| *tenant == key.0).count();
        let own = of_tenant >= OF_TENANT;
        if own || slots.len() >= OF_ALL {
            let idle = slots.iter().filter(|((tenant, _, _), slot)| {
                (!own || *tenant == key.0) && slot.calls.load(Ordering::SeqCst) == 0
            });
            let oldest =
                idle.min_by_key(|(_, slot)| *slot.used.lock().unwrap_or_else(PoisonError::into_inner));
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else {
                let message = "as many servers of tools as there may be are at work";
                let refusal = Refusal::new(Reason::Exhausted, ErrorCode::ResourceExhausted, message);
                return Err(refusal.retry_after(1000));
            };
            slots.remove(&oldest);
        }
        let slot = Arc::new(Slot {
            state: tokio::sync::Mutex::default(),
            calls: AtomicUsize::new(0),
            used: Mutex::new(Instant::now()),
        });
        slots.insert(key, Arc::clone(&slot));
        Ok(Calling::begin(slot))
    }
}

impl Slot {
    /// The server that runs, or a new one.
    async fn live(&self, host: &dyn Host, spec: Spec) -> Result<Arc<Live>, Refusal> {
        let mut state = self.state.lock().await;
        if let Some(live) = &state.live {
            if live.client.closed().now_or_never().is_none() {
                return Ok(Arc::clone(live));
            }
            state.live = None;
        }
        let now = Instant::now();
        if let Some(wait) = state.not_before.and_then(|until| until.checked_duration_since(now)) {
            let message = format!("the server of tool {} could not be started a moment ago", spec.tool);
            let ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1);
            return Err(Refusal::new(Reason::Unavailable, ErrorCode::ToolFailed, message).retry_after(ms));
        }
        match start(host, spec).await {
            Ok(live) => {
                let live = Arc::new(live);
                *state = State { live: Some(Arc::clone(&live)), ..State::default() };
                Ok(live)
            }
            Err(refusal) => {
                let wait = FIRST_WAIT.saturating_mul(1 << state.failures.min(10)).min(LAST_WAIT);
                state.failures = state.failures.saturating_add(1);
                state.not_before = Some(Instant::now() + wait);
                Err(refusal)
            }
        }
    }

    /// A server is gone; the next call starts another.
    async fn lost(&self, live: &Arc<Live>) {
        let mut state = self.state.lock().await;
        if state.live.as_ref().is_some_and(|current| Arc::ptr_eq(current, live)) {
            state.live = None;
        }
    }
}

async fn start(host: &dyn Host, spec: Spec) -> Result<Live, Refusal> {
    let options = Options { name: "aion".to_owned(), max_message_bytes: MAX_MESSAGE, ..Options::default() };
    let failed = |message: String| Refusal::new(Reason::Failed, ErrorCode::ToolFailed, message);
    let tool = spec.tool;
    let live = match spec.start {
        Start::Sandbox(sandbox) => {
            let server = host.serve(*sandbox).await?;
            let client = Client::start(server.reader, server.writer, options);
            Live::new(client, Some(server.running))
        }
        Start::Http(url) => {
            let client = HttpOptions::new(&url).and_then(|place| Client::http(place, options));
            let client = client.map_err(|error| failed(format!("tool {tool}: {}", chain(&error))))?;
            Live::new(client, None)
        }
    };
    let why = match tokio::time::timeout(HELLO, live.client.initialize()).await {
        Ok(Ok(_)) => return Ok(live),
        Ok(Err(error)) => chain(&error),
        Err(_) => format!("it said no hello within {} s", HELLO.as_secs()),
    };
    Err(failed(format!("the server of tool {tool} did not start: {why}{}", live.said(0).await)))
}

async fn end_idle(servers: Weak<Servers>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(servers) = servers.upgrade() else { return };
        let now = Instant::now();
        servers.slots.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, slot| {
            let used = *slot.used.lock().unwrap_or_else(PoisonError::into_inner);
            slot.calls.load(Ordering::SeqCst) > 0 || now.duration_since(used) < IDLE
        });
    }
}

fn refusal_of(tool: &str, error: &Error) -> Refusal {
    match error {
        Error::Timeout { after, .. } => {
            let message = format!("tool {tool} did not answer within {} ms", after.as_millis());
            Refusal::new(Reason::Timeout, ErrorCode::DeadlineExceeded, message)
        }
        Error::TooLarge { bytes, limit } => {
            let message = format!("the arguments have {bytes} bytes, at most {limit} are taken");
            Refusal::new(Reason::TooLarge, ErrorCode::TooLarge, message).at("params")
        }
        other => {
            let message = format!("tool {tool}: {}", chain(other));
            Refusal::new(Reason::Failed, ErrorCode::ToolFailed, message)
        }
    }
}

/// An error with its causes. Texts of a server are cut: they are not ours.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing to a String does not fail.
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text.chars().take(SHOWN).collect()
}
