//! Short-lived memories: a key and a value for each agent and type, with a time to live.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use aion_manifest::MemoryTtl;
use aion_store::{Batch, Durability, Store, Table};
use aion_syscall::{Reason, Refusal};
use aion_types::{AgentName, AgentUri, ErrorCode, TenantId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::rows;

const MAX_KEY: usize = 512;
/// The largest value with its meta data, as JSON.
pub(crate) const MAX_VALUE: usize = 256 << 10;
/// Rows that one query gives at most, and looks at.
const MAX_LIMIT: usize = 1000;
const MAX_LOOKED_AT: usize = 100_000;
/// Rows that are forgotten in one write.
const FORGOTTEN: usize = 1000;
/// An answer holds no more bytes of values than that.
const MAX_ANSWER: usize = 4 << 20;

/// What one agent may keep: rows, and bytes of keys and values.
const MAX_ROWS: u64 = 100_000;
const MAX_BYTES: u64 = 256 << 20;
/// What is kept is counted again after so long, because time takes some of it away.
const COUNT_AGAIN_NS: u64 = 300_000_000_000;
/// Agents whose memories are counted.
const MAX_COUNTED: usize = 10_000;

/// How much each agent keeps, as far as it was counted: never less than it is.
#[derive(Default)]
pub(crate) struct Kept(Mutex<HashMap<AgentUri, Count>>);

#[derive(Clone, Copy)]
struct Count {
    rows: u64,
    bytes: u64,
    at_ns: u64,
}

impl Kept {
    /// Counts a row in, or refuses it.
    fn take(&self, store: &Store, agent: &AgentUri, size: u64, now_ns: u64) -> Result<(), Refusal> {
        let fits = |count: &Count| count.rows < MAX_ROWS && count.bytes.saturating_add(size) <= MAX_BYTES;
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(agent).copied();
        let mut count = match known {
            Some(count) if fits(&count) && now_ns.saturating_sub(count.at_ns) < COUNT_AGAIN_NS => count,
            // Full as it seems: a second look each second, not with each call.
            Some(count) if !fits(&count) && now_ns.saturating_sub(count.at_ns) < 1_000_000_000 => count,
            _ => {
                let mut count = Count { rows: 0, bytes: 0, at_ns: now_ns };
                let parts = [agent.tenant.as_str(), agent.name.as_str()];
                store
                    .rows(Table::Memory, &parts, None, now_ns, |row| {
                        count.rows += 1;
                        let size = row.value.len() + row.key.iter().map(String::len).sum::<usize>();
                        count.bytes = count.bytes.saturating_add(u64::try_from(size).unwrap_or(u64::MAX));
                        true
                    })
                    .map_err(|error| rows::failed(&error))?;
                count
            }
        };
        let fits = fits(&count);
        if fits {
            // A row that is written again is counted twice until the next count.
            count.rows += 1;
            count.bytes = count.bytes.saturating_add(size);
        }
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_COUNTED {
            all.clear();
        }
        all.insert(agent.clone(), count);
        if fits {
            return Ok(());
        }
        let message = format!(
            "{agent} keeps {} memories with {} bytes; {MAX_ROWS} with {MAX_BYTES} are the limit",
            count.rows, count.bytes
        );
        Err(Refusal::new(Reason::Exhausted, ErrorCode::QuotaExceeded, message)
            .by("kernel: memory of an agent")
            .hint("delete some, or give them less time with ttl_s"))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Short,
    Long,
    Episodic,
}

impl Kind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Long => "long",
            Self::Episodic => "episodic",
        }
    }

    const fn ttl_s(self, ttl: &MemoryTtl) -> u64 {
        match self {
            Self::Short => ttl.short_s,
            Self::Long => ttl.long_s,
            Self::Episodic => ttl.episodic_s,
        }
    }

    pub(crate) fn of(params: &Map<String, Value>) -> Result<Self, Refusal> {
        match params.get("type") {
            None | Some(Value::Null) => Ok(Self::Short),
            Some(Value::String(text)) => match text.as_str() {
                "short" => Ok(Self::Short),
                "long" => Ok(Self::Long),
                "episodic" => Ok(Self::Episodic),
                _ => Err(Refusal::field("params.type", "it is none of short, long, episodic")),
            },
            Some(_) => Err(Refusal::field("params.type", "it is not a text")),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct MemoryRow {
    value: Value,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    meta: Value,
    created_ns: u64,
}

fn key_of(params: &Map<String, Value>) -> Result<&str, Refusal> {
    match params.get("key").and_then(Value::as_str) {
        Some(key) if (1..=MAX_KEY).contains(&key.len()) && !key.contains('\0') => Ok(key),
        Some(_) => Err(Refusal::field("params.key", format!("use 1 to {MAX_KEY} bytes without NUL"))),
        None => Err(Refusal::field("params.key", "it is missing, or is not a text")),
    }
}

fn only(params: &Map<String, Value>, known: &[&str]) -> Result<(), Refusal> {
    match params.keys().find(|key| !known.contains(&key.as_str())) {
        Some(unknown) => {
            let shown: String = unknown.chars().take(80).collect();
            Err(Refusal::field(format!("params.{shown}"), "it is not a parameter of this call")
                .hint(format!("the parameters are {}", known.join(", "))))
        }
        None => Ok(()),
    }
}

pub(crate) fn put(
    store: &Store,
    kept: &Kept,
    agent: &AgentUri,
    ttl: &MemoryTtl,
    params: &Map<String, Value>,
    now_ns: u64,
) -> Result<Value, Refusal> {
    only(params, &["type", "key", "value", "meta", "ttl_s"])?;
    let (kind, key) = (Kind::of(params)?, key_of(params)?);
    let value =
        params.get("value").cloned().ok_or_else(|| Refusal::field("params.value", "it is missing"))?;
    let meta = match params.get("meta") {
        None | Some(Value::Null) => Value::Null,
        Some(meta @ Value::Object(_)) => meta.clone(),
        Some(_) => return Err(Refusal::field("params.meta", "it is not an object")),
    };
    let most = kind.ttl_s(ttl);
    let ttl_s = match params.get("ttl_s") {
        None | Some(Value::Null) => most,
        Some(given) => match given.as_u64() {
            Some(seconds) if (1..=most).contains(&seconds) => seconds,
            _ => {
                return Err(Refusal::field(
                    "params.ttl_s",
                    format!("use 1 to {most}, as spec.memory has it"),
                ));
            }
        },
    };
    let size = value.to_string().len() + meta.to_string().len();
    if size > MAX_VALUE {
        let message = format!("the value has {size} bytes, at most {MAX_VALUE} are kept");
        return Err(Refusal::new(Reason::TooLarge, ErrorCode::TooLarge, message).at("params.value"));
    }
    kept.take(store, agent, u64::try_from(size + key.len()).unwrap_or(u64::MAX), now_ns)?;
    let expires_ns = now_ns.saturating_add(ttl_s.saturating_mul(1_000_000_000));
    let row = MemoryRow { value, meta, created_ns: now_ns };
    let parts = [agent.tenant.as_str(), agent.name.as_str(), kind.as_str(), key];
    rows::put(store, Table::Memory, &parts, expires_ns, &row, Durability::Process)?;
    Ok(json!({"key": key, "type": kind.as_str(), "ttl_s": ttl_s}))
}

pub(crate) fn get(
    store: &Store,
    agent: &AgentUri,
    params: &Map<String, Value>,
    now_ns: u64,
) -> Result<Value, Refusal> {
    only(params, &["type", "key"])?;
    let (kind, key) = (Kind::of(params)?, key_of(params)?);
    let parts = [agent.tenant.as_str(), agent.name.as_str(), kind.as_str(), key];
    let row: Option<MemoryRow> = rows::get(store, Table::Memory, &parts, now_ns)?;
    let Some(row) = row else {
        let shown: String = key.chars().take(80).collect();
        let message = format!("there is no {} memory {shown:?}", kind.as_str());
        return Err(Refusal::new(Reason::NotFound, ErrorCode::KeyNotFound, message).at("params.key"));
    };
    Ok(
        json!({"key": key, "type": kind.as_str(), "value": row.value, "meta": row.meta, "created_ns": row.created_ns}),
    )
}

pub(crate) fn delete(store: &Store, agent: &AgentUri, params: &Map<String, Value>) -> Result<Value, Refusal> {
    only(params, &["type", "key"])?;
    let (kind, key) = (Kind::of(params)?, key_of(params)?);
    rows::delete(store, Table::Memory, &[agent.tenant.as_str(), agent.name.as_str(), kind.as_str(), key])?;
    Ok(json!({"key": key, "type": kind.as_str()}))
}

/// Forgets the memories of a tenant as such: whoever has its name next is somebody else.
pub(crate) fn forget(store: &Store, tenant: &TenantId) -> Result<(), Refusal> {
    let whole = AgentName::whole_tenant();
    loop {
        let mut keys = Vec::new();
        let visit = |row: aion_store::Row| {
            keys.push(row.key);
            keys.len() < FORGOTTEN
        };
        let visited = store.rows(Table::Memory, &[tenant.as_str(), whole.as_str()], None, 0, visit);
        visited.map_err(|error| rows::failed(&error))?;
        if keys.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new();
        for key in &keys {
            batch.delete_row(Table::Memory, &key.iter().map(String::as_str).collect::<Vec<_>>());
        }
        store.commit(batch, Durability::Host).map_err(|error| rows::failed(&error))?;
    }
}

/// What a query's filter says: a prefix of the key, and fields of the meta data that must be equal.
struct Filter<'a> {
    prefix: &'a str,
    meta: Vec<(&'a String, &'a Value)>,
}

fn filter_of<'a>(agent: &AgentUri, params: &'a Map<String, Value>) -> Result<Filter<'a>, Refusal> {
    let mut filter = Filter { prefix: "", meta: Vec::new() };
    let map = match params.get("filter") {
        None | Some(Value::Null) => return Ok(filter),
        Some(Value::Object(map)) => map,
        Some(_) => return Err(Refusal::field("params.filter", "it is not an object")),
    };
    for (name, value) in map {
        let text = value.as_str();
        match name.as_str() {
            // Nobody sees another's memories; who says whose they are must say it right.
            "tenant" if text == Some(agent.tenant.as_str()) => {}
            "agent" if text == Some(agent.name.as_str()) || text.is_some_and(|t| t == agent.to_string()) => {}
            "tenant" | "agent" => {
                let message = format!("{agent} sees its own memories alone");
                return Err(
                    Refusal::denied(message, "kernel: memory is private").at(format!("params.filter.{name}"))
                );
            }
            "key_prefix" => {
                filter.prefix =
                    text.ok_or_else(|| Refusal::field("params.filter.key_prefix", "it is not a text"))?;
            }
            _ => filter.meta.push((name, value)),
        }
    }
    Ok(filter)
}

pub(crate) fn query(
    store: &Store,
    agent: &AgentUri,
    params: &Map<String, Value>,
    now_ns: u64,
) -> Result<Value, Refusal> {
    only(params, &["type", "filter", "limit", "after", "knn"])?;
    if params.get("knn").is_some_and(|knn| !knn.is_null()) {
        return Err(Refusal::field(
            "params.knn",
            "this kernel finds memories by key and by meta data, not by likeness",
        )
        .hint("use filter"));
    }
    let kind = Kind::of(params)?;
    let filter = filter_of(agent, params)?;
    let limit = match params.get("limit") {
        None | Some(Value::Null) => 100,
        Some(given) => match given.as_u64().and_then(|n| usize::try_from(n).ok()) {
            Some(n) if (1..=MAX_LIMIT).contains(&n) => n,
            _ => return Err(Refusal::field("params.limit", format!("use 1 to {MAX_LIMIT}"))),
        },
    };
    let after = match params.get("after") {
        None | Some(Value::Null) => None,
        Some(Value::String(after)) => Some(after.as_str()),
        Some(_) => return Err(Refusal::field("params.after", "it is not a text")),
    };
    let parts = [agent.tenant.as_str(), agent.name.as_str(), kind.as_str()];
    let from = after.map(|after| [parts[0], parts[1], parts[2], after]);
    let (mut items, mut bytes, mut looked, mut next, mut broken) = (Vec::new(), 0, 0, None, None);
    let mut seen = String::new();
    store
        .rows(Table::Memory, &parts, from.as_ref().map(<[&str; 4]>::as_slice), now_ns, |row| {
            let key = row.key.last().cloned().unwrap_or_default();
            if items.len() >= limit || looked >= MAX_LOOKED_AT || bytes >= MAX_ANSWER {
                next = Some(std::mem::take(&mut seen));
                return false;
            }
            looked += 1;
            seen.clone_from(&key);
            if !key.starts_with(filter.prefix) {
                return true;
            }
            match serde_json::from_slice::<MemoryRow>(&row.value) {
                Ok(memory) => {
                    if filter.meta.iter().all(|(name, value)| memory.meta.get(name) == Some(value)) {
                        bytes += row.value.len();
                        items.push(json!({
                            "key": key, "type": kind.as_str(), "value": memory.value, "meta": memory.meta,
                            "created_ns": memory.created_ns,
                        }));
                    }
                    true
                }
                Err(error) => {
                    broken = Some(rows::corrupt(&error));
                    false
                }
            }
        })
        .map_err(|error| rows::failed(&error))?;
    match broken {
        Some(refusal) => Err(refusal),
        None => Ok(json!({"items": items, "next": next})),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_keeps_no_more_than_its_share() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("db"), aion_store::Options::default()).unwrap();
        let agent = AgentUri::parse("agent://t/a").unwrap();
        let kept = Kept::default();
        assert!(kept.take(&store, &agent, MAX_BYTES - 10, 0).is_ok());
        let full = kept.take(&store, &agent, 11, 1).unwrap_err();
        assert_eq!(full.code, ErrorCode::QuotaExceeded);
        assert!(
            kept.take(&store, &AgentUri::parse("agent://t/b").unwrap(), 11, 1).is_ok(),
            "others are not full"
        );
        // Nothing was written, so that the next count finds room.
        assert!(kept.take(&store, &agent, 11, 2_000_000_000).is_ok());
    }
}
