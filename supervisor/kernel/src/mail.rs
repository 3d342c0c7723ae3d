//! `agent.list`, `agent.send`, `agent.receive`: messages between agents of one tenant.
//!
//! A message waits in its receiver's inbox, on disk, until the receiver says that it has it or its time is over. Invariants: who
//! sent it is what the door found out; an inbox is bounded, and no sender can fill it alone; a message is for one registration of an
//! agent, and another under the same name never sees it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aion_manifest::parse_capabilities;
use aion_store::{Batch, Durability, Store, Table};
use aion_syscall::{Need, Reason, Refusal};
use aion_types::{AgentName, AgentUri, ErrorCode, TenantId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::sync::broadcast;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::kernel::{Call, Kernel, now_ns};
use crate::params::{number, text};
use crate::rows;

/// Bytes of a message as JSON.
const MAX_BODY: usize = 64 << 10;
/// Messages of an inbox, of one sender in it, and bytes of all.
const IN_BOX: usize = 256;
const OF_SENDER: usize = 64;
const BOX_BYTES: usize = 4 << 20;
/// A message lives so long: when nothing is said, and at most.
const USUAL_TTL_S: u64 = 86_400;
const MAX_TTL_S: u64 = 604_800;
/// A call waits for messages no longer.
const MAX_WAIT_MS: u64 = 60_000;
/// Messages of an answer, and ids that are told to have come.
const USUAL_PAGE: u64 = 10;
const MAX_PAGE: u64 = 100;
/// Calls of one agent that wait at once, and of all.
const WAIT_OF_AGENT: usize = 4;
const WAIT_OF_ALL: usize = 1024;

/// What is asked for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum MailCall {
    List { after: String, limit: u64 },
    Send { to: AgentName, body: Value, ttl_s: u64 },
    Receive { wait: Duration, limit: usize, ack: Vec<String> },
}

#[derive(Debug, Serialize, Deserialize)]
struct MailRow {
    from: String,
    /// The receiver's id.
    to: String,
    body: Value,
    sent_ns: u64,
}

impl MailCall {
    pub(crate) fn read(
        syscall: &str,
        params: &Map<String, Value>,
        tenant: &TenantId,
    ) -> Result<Self, Refusal> {
        let known: &[&str] = match syscall {
            "agent.send" => &["to", "body", "ttl_s"],
            "agent.receive" => &["wait_ms", "limit", "ack"],
            _ => &["after", "limit"],
        };
        if let Some(unknown) = params.keys().find(|key| !known.contains(&key.as_str())) {
            let shown: String = unknown.chars().take(80).collect();
            return Err(Refusal::field(format!("params.{shown}"), "it is not a field")
                .hint(format!("the fields are {}", known.join(", "))));
        }
        match syscall {
            "agent.send" => Ok(Self::Send {
                to: receiver(params, tenant)?,
                body: body(params)?,
                ttl_s: number(params, "ttl_s", USUAL_TTL_S, 1, MAX_TTL_S)?,
            }),
            "agent.receive" => Ok(Self::Receive {
                wait: Duration::from_millis(number(params, "wait_ms", 0, 0, MAX_WAIT_MS)?),
                limit: usize::try_from(number(params, "limit", USUAL_PAGE, 1, MAX_PAGE)?).unwrap_or(1),
                ack: ack(params)?,
            }),
            _ => Ok(Self::List {
                after: text(params, "after")?.unwrap_or_default().to_owned(),
                limit: number(params, "limit", MAX_PAGE, 1, MAX_PAGE)?,
            }),
        }
    }

    pub(crate) fn needs(&self) -> Result<Vec<Need>, Refusal> {
        match self {
            Self::Send { to, .. } => need(to.as_str()).map(|need| vec![need]),
            Self::List { .. } | Self::Receive { .. } => Ok(Vec::new()),
        }
    }

    pub(crate) fn target(&self) -> &str {
        match self {
            Self::Send { to, .. } => to.as_str(),
            Self::List { .. } | Self::Receive { .. } => "",
        }
    }

    /// How long it may wait.
    pub(crate) const fn wait(&self) -> Duration {
        match self {
            Self::Receive { wait, .. } => *wait,
            Self::List { .. } | Self::Send { .. } => Duration::ZERO,
        }
    }
}

fn need(name: &str) -> Result<Need, Refusal> {
    let wrong = |message| Refusal::field("params.to", message);
    let capability = parse_capabilities(&format!("agent:send:{name}")).map_err(wrong)?.pop();
    let capability = capability.ok_or_else(|| Refusal::field("params.to", "it is nobody's name"))?;
    Ok(Need { capability, word: String::new() })
}

fn receiver(params: &Map<String, Value>, tenant: &TenantId) -> Result<AgentName, Refusal> {
    let wrong =
        |why: String| Refusal::field("params.to", why).hint("write an agent's name, or agent://TENANT/NAME");
    let given = text(params, "to")?.ok_or_else(|| wrong("it is missing: who gets it?".to_owned()))?;
    if !given.contains("://") {
        return AgentName::parse(given).map_err(|error| wrong(error.to_string()));
    }
    let uri = AgentUri::parse(given).map_err(|error| wrong(error.to_string()))?;
    if uri.tenant == *tenant {
        return Ok(uri.name);
    }
    let message = format!("{uri} is of another tenant than {tenant}");
    Err(Refusal::denied(message, "kernel: messages stay in their tenant").at("params.to"))
}

fn body(params: &Map<String, Value>) -> Result<Value, Refusal> {
    let body = params.get("body").cloned().ok_or_else(|| Refusal::field("params.body", "it is missing"))?;
    let size = body.to_string().len();
    if size > MAX_BODY {
        let message = format!("the message has {size} bytes, at most {MAX_BODY} are taken");
        return Err(Refusal::new(Reason::TooLarge, ErrorCode::TooLarge, message).at("params.body"));
    }
    Ok(body)
}

fn ack(params: &Map<String, Value>) -> Result<Vec<String>, Refusal> {
    let wrong =
        || Refusal::field("params.ack", format!("it is not a list of at most {MAX_PAGE} ids of messages"));
    let list = match params.get("ack") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(list) => list.as_array().filter(|list| list.len() <= 100).ok_or_else(wrong)?,
    };
    let id = |value: &Value| {
        let id = value
            .as_str()
            .filter(|id| id.len() <= 64 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
        id.map(str::to_owned).ok_or_else(wrong)
    };
    list.iter().map(id).collect()
}

/// Who waits for messages.
pub(crate) struct Mail {
    /// Somebody's inbox has something new.
    sent: broadcast::Sender<AgentUri>,
    waiting: Mutex<HashMap<AgentUri, usize>>,
    stopping: CancellationToken,
    /// Counting an inbox and putting something into it is one thing.
    post: Arc<Mutex<()>>,
}

impl Default for Mail {
    fn default() -> Self {
        Self {
            sent: broadcast::channel(256).0,
            waiting: Mutex::default(),
            stopping: CancellationToken::new(),
            post: Arc::default(),
        }
    }
}

/// A call that waits.
struct Waiter<'a> {
    mail: &'a Mail,
    agent: AgentUri,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut all = self.mail.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.agent) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.agent);
            }
        }
    }
}

impl Mail {
    /// Ends what waits. The daemon is stopping.
    pub(crate) fn close(&self) {
        self.stopping.cancel();
    }

    fn wait(&self, agent: &AgentUri) -> Result<Waiter<'_>, Refusal> {
        let mut all = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let of_all: usize = all.values().sum();
        let count = all.entry(agent.clone()).or_default();
        if *count >= WAIT_OF_AGENT || of_all >= WAIT_OF_ALL {
            let message =
                format!("{agent} waits for messages {WAIT_OF_AGENT} times already, or too many others do");
            if *count == 0 {
                all.remove(agent);
            }
            return Err(Refusal::new(Reason::Exhausted, ErrorCode::ResourceExhausted, message)
                .by("agent.receive: calls that wait")
                .retry_after(1000));
        }
        *count += 1;
        Ok(Waiter { mail: self, agent: agent.clone() })
    }
}

impl Kernel {
    /// Does a planned call.
    pub(crate) async fn mail(&self, call: &Call, what: MailCall) -> Result<Value, Refusal> {
        match what {
            MailCall::List { after, limit } => self.agents_seen(call, &after, limit),
            MailCall::Send { to, body, ttl_s } => self.send(call, to, body, ttl_s).await,
            MailCall::Receive { wait, limit, ack } => self.receive(call, wait, limit, ack).await,
        }
    }

    /// The agents that the caller may send to, and itself.
    fn agents_seen(&self, call: &Call, after: &str, limit: u64) -> Result<Value, Refusal> {
        let grants = match &call.agent {
            Some(uri) => Some(self.0.grants.of(self.0.host.as_ref(), uri)?),
            None => None,
        };
        let tenant = call.caller.tenant();
        let (found, next) = self.0.host.agents(tenant, after, usize::try_from(limit).unwrap_or(1))?;
        let mut items = Vec::new();
        for agent in found {
            let own = call.agent.as_ref().is_some_and(|uri| uri.name.as_str() == agent.name);
            if own || self.decide(call, grants.as_deref(), &[need(&agent.name)?]).allowed {
                let uri = format!("agent://{tenant}/{}", agent.name);
                items.push(json!({"agent_id": uri, "name": agent.name, "state": agent.state, "self": own}));
            }
        }
        Ok(json!({"items": items, "next": next}))
    }

    async fn send(&self, call: &Call, to: AgentName, body: Value, ttl_s: u64) -> Result<Value, Refusal> {
        let to = AgentUri { tenant: call.caller.tenant().clone(), name: to };
        let found = self.0.host.agent(&to.tenant, &to.name)?.ok_or_else(|| {
            Refusal::new(Reason::NotFound, ErrorCode::AgentNotFound, format!("there is no agent {to}"))
                .at("params.to")
                .hint("agent.list shows whom you may send to")
        })?;
        let from = call.agent.as_ref().map_or_else(|| call.caller.subject(), ToString::to_string);
        // As the audit id it grows with time, so that an inbox is in order.
        let id = format!("msg-{}", call.audit_id.trim_start_matches("sc-"));
        let sent_ns = now_ns();
        let until = sent_ns.saturating_add(ttl_s.saturating_mul(1_000_000_000));
        let row = MailRow { from, to: found.id, body, sent_ns };
        let (store, post) = (Arc::clone(&self.0.store), Arc::clone(&self.0.mail.post));
        let (key, own) = (id.clone(), to.clone());
        blocking(move || {
            let _alone = post.lock().unwrap_or_else(PoisonError::into_inner);
            room(&store, &own, &row)?;
            let parts = [own.tenant.as_str(), own.name.as_str(), key.as_str()];
            rows::put(&store, Table::Mail, &parts, until, &row, Durability::Host)
        })
        .await?;
        // Nobody may be waiting.
        let _ = self.0.mail.sent.send(to.clone());
        Ok(json!({"id": id, "to": to.to_string(), "expires_ms": until / 1_000_000}))
    }

    async fn receive(
        &self,
        call: &Call,
        wait: Duration,
        limit: usize,
        ack: Vec<String>,
    ) -> Result<Value, Refusal> {
        let Some(uri) = call.agent.clone() else {
            return Err(Refusal::field("agent_id", "whose messages are they? name an agent"));
        };
        let end = Instant::now() + wait;
        let mail = &self.0.mail;
        let _waiter = if wait.is_zero() { None } else { Some(mail.wait(&uri)?) };
        // Before the first look: what comes after it is not missed.
        let mut news = mail.sent.subscribe();
        let mut ack = Some(ack);
        loop {
            let (store, own, id) = (Arc::clone(&self.0.store), uri.clone(), call.agent_id.clone());
            let gone = ack.take().unwrap_or_default();
            let messages = blocking(move || {
                forget(&store, &own, &gone)?;
                look(&store, &own, &id, limit)
            })
            .await?;
            if !messages.is_empty() || Instant::now() >= end || mail.stopping.is_cancelled() {
                return Ok(json!({"messages": messages}));
            }
            loop {
                tokio::select! {
                    () = tokio::time::sleep_until(end) => break,
                    () = mail.stopping.cancelled() => break,
                    () = call.gone() => return Ok(json!({"messages": []})),
                    came = news.recv() => match came {
                        Ok(whose) if whose != uri => {}
                        // One for it, or more than were counted.
                        _ => break,
                    },
                }
            }
        }
    }
}

fn size_of(row: &MailRow) -> usize {
    row.body.to_string().len() + row.from.len()
}

fn read(value: &[u8]) -> Result<MailRow, Refusal> {
    serde_json::from_slice(value).map_err(|error| rows::corrupt(&error))
}

/// Visits an inbox in the order of time.
fn each(
    store: &Store,
    agent: &AgentUri,
    mut visit: impl FnMut(String, MailRow) -> bool,
) -> Result<(), Refusal> {
    let mut failed = None;
    let parts = [agent.tenant.as_str(), agent.name.as_str()];
    let visited = store.rows(Table::Mail, &parts, None, now_ns(), |row| match read(&row.value) {
        Ok(mail) => visit(row.key.into_iter().next_back().unwrap_or_default(), mail),
        Err(refusal) => {
            failed = Some(refusal);
            false
        }
    });
    visited.map_err(|error| rows::failed(&error))?;
    failed.map_or(Ok(()), Err)
}

/// Whether the inbox takes one more. What was for an earlier registration goes on the way.
fn room(store: &Store, agent: &AgentUri, new: &MailRow) -> Result<(), Refusal> {
    let (mut count, mut of_sender, mut bytes, mut stale) = (0, 0, size_of(new), Vec::new());
    each(store, agent, |id, row| {
        if row.to == new.to {
            count += 1;
            of_sender += usize::from(row.from == new.from);
            bytes += size_of(&row);
        } else {
            stale.push(id);
        }
        true
    })?;
    forget(store, agent, &stale)?;
    let full = match () {
        () if of_sender >= OF_SENDER => format!("{OF_SENDER} messages of yours"),
        () if count >= IN_BOX => format!("{IN_BOX} messages"),
        () if bytes > BOX_BYTES => format!("messages with {} MiB", BOX_BYTES >> 20),
        () => return Ok(()),
    };
    let message = format!("{full} wait for {agent} already, that is the limit");
    Err(Refusal::new(Reason::Exhausted, ErrorCode::QuotaExceeded, message)
        .by("agent.send: the inbox")
        .at("params.to")
        .hint("it takes more when the agent has said with `ack` that it has some")
        .retry_after(5000))
}

fn forget(store: &Store, agent: &AgentUri, ids: &[String]) -> Result<(), Refusal> {
    if ids.is_empty() {
        return Ok(());
    }
    let mut batch = Batch::new();
    for id in ids {
        batch.delete_row(Table::Mail, &[agent.tenant.as_str(), agent.name.as_str(), id]);
    }
    store.commit(batch, Durability::Host).map_err(|error| rows::failed(&error))
}

fn look(store: &Store, agent: &AgentUri, id: &str, limit: usize) -> Result<Vec<Value>, Refusal> {
    let mut messages = Vec::new();
    each(store, agent, |name, row| {
        if row.to == id {
            messages.push(json!({
                "id": name, "from": row.from, "body": row.body, "sent_ms": row.sent_ns / 1_000_000,
            }));
        }
        messages.len() < limit
    })?;
    Ok(messages)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| {
        Err(Refusal::new(Reason::Internal, ErrorCode::Internal, "the inbox was not looked at to its end"))
    })
}
