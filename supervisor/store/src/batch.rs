//! A batch: what is written together, or not at all.

use aion_types::{AgentId, AgentName, TenantId};

use crate::agent::AgentRecord;
use crate::error::Error;
use crate::event::EventRow;
use crate::requests::{RequestKey, RequestRow};
use crate::{codec, keys};

/// What a commit outlives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// A crash of the daemon. Enough for what the launcher knows too.
    Process,
    /// A crash of the host: the write-ahead log is synced.
    Host,
}

pub(crate) enum Op {
    Put { family: &'static str, key: Vec<u8>, value: Vec<u8> },
    Delete { family: &'static str, key: Vec<u8> },
    DeleteRange { family: &'static str, from: Vec<u8>, to: Vec<u8> },
}

impl Op {
    /// Whether a name gets another owner, or loses its own.
    pub(crate) fn is_of_a_name(&self) -> bool {
        let (Self::Put { family, .. } | Self::Delete { family, .. } | Self::DeleteRange { family, .. }) =
            self;
        *family == keys::NAMES
    }
}

pub(crate) struct NameClaim {
    pub(crate) tenant: TenantId,
    pub(crate) name: AgentName,
    pub(crate) id: AgentId,
}

/// Writes to be committed together.
#[derive(Default)]
pub struct Batch {
    pub(crate) ops: Vec<Op>,
    pub(crate) claims: Vec<NameClaim>,
    /// First and last of the event rows, to check that they continue the index.
    pub(crate) events: Option<(u64, u64)>,
    pub(crate) cursor: Option<u64>,
    /// The agent whose name a claim may take over.
    pub(crate) inherits: Option<AgentId>,
    /// The daemon's own bookkeeping may use the reserve that a user's request may not.
    pub(crate) bookkeeping: bool,
    /// Rows are written, which the sweep must not take for the old ones.
    pub(crate) rows: bool,
}

impl Batch {
    /// An empty batch for a user's request.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty batch for the daemon's own bookkeeping, which may use the last reserve of disk.
    #[must_use]
    pub fn bookkeeping() -> Self {
        Self { bookkeeping: true, ..Self::default() }
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    pub(crate) fn put(&mut self, family: &'static str, key: impl Into<Vec<u8>>, value: Vec<u8>) {
        self.ops.push(Op::Put { family, key: key.into(), value });
    }

    pub(crate) fn delete(&mut self, family: &'static str, key: impl Into<Vec<u8>>) {
        self.ops.push(Op::Delete { family, key: key.into() });
    }

    pub(crate) fn delete_range(&mut self, family: &'static str, from: Vec<u8>, to: Vec<u8>) {
        self.ops.push(Op::DeleteRange { family, from, to });
    }

    /// A new agent: its record, what to launch, its manifest, and its name, which must be free.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the record cannot be encoded.
    pub fn create_agent(&mut self, record: &AgentRecord, launch: &[u8], manifest: &str) -> Result<(), Error> {
        let (tenant, id) = (&record.tenant, &record.id);
        self.claims.push(NameClaim { tenant: tenant.clone(), name: record.name.clone(), id: id.clone() });
        self.put(keys::NAMES, keys::name(tenant, &record.name), codec::raw(id.as_str().as_bytes()));
        let mut full_name = tenant.as_str().as_bytes().to_vec();
        full_name.push(0);
        full_name.extend_from_slice(record.name.as_str().as_bytes());
        self.put(keys::NAMES, keys::name_of_id(id.as_str()), codec::raw(&full_name));
        self.put(keys::AGENTS, keys::launch(tenant, id), codec::raw(launch));
        self.put(keys::AGENTS, keys::manifest(tenant, id), codec::raw(manifest.as_bytes()));
        self.put_agent(record)
    }

    /// The manifest that an agent was made from which has none of its own.
    pub fn made_from(&mut self, record: &AgentRecord, manifest: &str) {
        let key = keys::origin(&record.tenant, &record.id);
        self.put(keys::AGENTS, key, codec::raw(manifest.as_bytes()));
    }

    /// A new agent in the place of an old one of the same name, which is forgotten.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the record cannot be encoded.
    pub fn replace_agent(
        &mut self,
        old: &AgentRecord,
        record: &AgentRecord,
        launch: &[u8],
        manifest: &str,
    ) -> Result<(), Error> {
        self.remove_agent(old);
        self.create_agent(record, launch, manifest)?;
        self.inherits = Some(old.id.clone());
        Ok(())
    }

    /// A changed agent.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the record cannot be encoded.
    pub fn put_agent(&mut self, record: &AgentRecord) -> Result<(), Error> {
        let value = codec::json(keys::AGENTS, record)?;
        self.put(keys::AGENTS, keys::agent(&record.tenant, &record.id), value);
        Ok(())
    }

    /// Forgets an agent and frees its name. Its events stay.
    pub fn remove_agent(&mut self, record: &AgentRecord) {
        let (tenant, id) = (&record.tenant, &record.id);
        self.claims.retain(|claim| &claim.id != id);
        self.delete(keys::NAMES, keys::name(tenant, &record.name));
        self.delete(keys::AGENTS, keys::agent(tenant, id));
        self.delete(keys::AGENTS, keys::launch(tenant, id));
        self.delete(keys::AGENTS, keys::manifest(tenant, id));
        self.delete(keys::AGENTS, keys::origin(tenant, id));
    }

    /// Rows for the event index, in order; the cursor moves with them.
    pub fn index_events(&mut self, rows: &[EventRow]) {
        for row in rows {
            self.put(keys::EVENTS, keys::event(row.seq), codec::message(row));
            if row.agent.len() == keys::ID_LEN {
                self.put(keys::EVENTS, keys::by_agent(&row.agent, row.seq), Vec::new());
            }
            let first = self.events.map_or(row.seq, |(first, _)| first);
            self.events = Some((first, row.seq));
            self.cursor = Some(row.seq);
        }
        if let Some(cursor) = self.cursor {
            self.put(keys::META, keys::META_CURSOR, codec::raw(&cursor.to_be_bytes()));
        }
    }

    /// The newest audit record that the detections have looked at.
    pub fn detected(&mut self, seq: u64) {
        self.put(keys::META, keys::META_DETECTED, codec::raw(&seq.to_be_bytes()));
    }

    /// What is known about a request id.
    pub fn put_request(&mut self, key: &RequestKey, row: &RequestRow) {
        let at = keys::request(&key.tenant, &key.id);
        self.put(keys::REQUESTS, keys::expiry(row.expires_ns, &at), Vec::new());
        self.put(keys::REQUESTS, at, row.encode());
    }

    /// Forgets a request id: the request may be tried again.
    pub fn forget_request(&mut self, key: &RequestKey) {
        // Its expiry row stays behind and does nothing when its time comes.
        self.delete(keys::REQUESTS, keys::request(&key.tenant, &key.id));
    }
}
