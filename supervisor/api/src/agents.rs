//! The agents' records while the daemon runs: one writer at a time for each, and a bell for those who wait.
//!
//! The store is the truth; this only orders access to it. Two locks for each agent: `op` is held over a whole
//! mutation (seconds), `write` over one read-modify-write of the record (microseconds), so that a sighting by the
//! launcher is taken in while a mutation waits for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use aion_store::{AgentRecord, Batch, Durability, Store};
use aion_types::{AgentId, AgentName, TenantId};
use tokio::sync::{OwnedMutexGuard, watch};

use crate::problem::{Outcome, Problem};

/// Everything that exists once for each agent that somebody is busy with.
pub(crate) struct Cell {
    op: Arc<tokio::sync::Mutex<()>>,
    write: Mutex<()>,
    changed: watch::Sender<u64>,
}

/// Follows one agent.
pub(crate) struct Follower {
    _cell: Arc<Cell>,
    changes: watch::Receiver<u64>,
}

impl Follower {
    /// Waits for the next change of the record, or its removal.
    pub(crate) async fn changed(&mut self) {
        // The sender lives in the cell, which is held here.
        let _ = self.changes.changed().await;
    }
}

/// The agents.
pub(crate) struct Agents {
    store: Arc<Store>,
    cells: Mutex<HashMap<AgentId, Weak<Cell>>>,
}

impl Agents {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self { store, cells: Mutex::default() }
    }

    fn cell(&self, id: &AgentId) -> Arc<Cell> {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cell) = cells.get(id).and_then(Weak::upgrade) {
            return cell;
        }
        if cells.len() >= 64 && cells.len() == cells.capacity() {
            cells.retain(|_, cell| cell.strong_count() > 0);
        }
        let cell =
            Arc::new(Cell { op: Arc::default(), write: Mutex::default(), changed: watch::Sender::new(0) });
        cells.insert(id.clone(), Arc::downgrade(&cell));
        cell
    }

    /// Waits until no other mutation of this agent is under way.
    pub(crate) async fn lock(&self, id: &AgentId) -> OpGuard {
        let cell = self.cell(id);
        let guard = Arc::clone(&cell.op).lock_owned().await;
        OpGuard { _guard: guard, _cell: cell }
    }

    /// Follows an agent's changes.
    pub(crate) fn follow(&self, id: &AgentId) -> Follower {
        let cell = self.cell(id);
        Follower { changes: cell.changed.subscribe(), _cell: cell }
    }

    /// Whether somebody follows it right now.
    pub(crate) fn is_followed(&self, id: &AgentId) -> bool {
        self.cell(id).changed.receiver_count() > 0
    }

    /// A tenant's agent, by id or name.
    pub(crate) fn find(&self, tenant: &TenantId, id_or_name: &str) -> Outcome<AgentRecord> {
        self.lookup(tenant, id_or_name)?.ok_or_else(|| Problem::not_found(id_or_name))
    }

    fn lookup(&self, tenant: &TenantId, id_or_name: &str) -> Outcome<Option<AgentRecord>> {
        if id_or_name.is_empty() {
            return Err(Problem::field("agent", "it is empty: give an agent's id or name"));
        }
        // Names are lower case and ids upper case, so that one text is never both.
        if let Ok(id) = AgentId::parse(id_or_name) {
            return Ok(self.store.agent(tenant, &id)?);
        }
        let Ok(name) = AgentName::parse(id_or_name) else { return Ok(None) };
        let Some(id) = self.store.agent_by_name(tenant, &name)? else { return Ok(None) };
        Ok(self.store.agent(tenant, &id)?)
    }

    /// The record, when it is there.
    pub(crate) fn get(&self, tenant: &TenantId, id: &AgentId) -> Outcome<Option<AgentRecord>> {
        Ok(self.store.agent(tenant, id)?)
    }

    /// Changes a record; what `change` adds to the batch is written with it. `change` may refuse, and then nothing
    /// is written. Answers with the record as it is now.
    pub(crate) fn update(
        &self,
        tenant: &TenantId,
        id: &AgentId,
        mut batch: Batch,
        change: impl FnOnce(&mut AgentRecord, &mut Batch) -> Outcome<()>,
    ) -> Outcome<AgentRecord> {
        let cell = self.cell(id);
        let _write = cell.write.lock().unwrap_or_else(PoisonError::into_inner);
        let mut record = self.store.agent(tenant, id)?.ok_or_else(|| Problem::not_found(id.as_str()))?;
        let before = record.clone();
        change(&mut record, &mut batch)?;
        let differs = record != before;
        if differs {
            batch.put_agent(&record)?;
        }
        if !batch.is_empty() {
            self.store.commit(batch, Durability::Process)?;
        }
        if differs {
            cell.changed.send_modify(|n| *n += 1);
        }
        Ok(record)
    }

    /// Commits a batch that adds or removes the agent itself, and wakes those who wait for it. Synced to disk.
    pub(crate) async fn commit(&self, id: &AgentId, batch: Batch) -> Outcome<()> {
        let cell = self.cell(id);
        let store = Arc::clone(&self.store);
        tokio::task::spawn_blocking(move || {
            let _write = cell.write.lock().unwrap_or_else(PoisonError::into_inner);
            store.commit(batch, Durability::Host)?;
            cell.changed.send_modify(|n| *n += 1);
            Ok(())
        })
        .await
        .map_err(|error| Problem::internal("a commit did not run to its end", &error))?
    }
}

/// Held while an agent is being mutated.
pub(crate) struct OpGuard {
    _guard: OwnedMutexGuard<()>,
    _cell: Arc<Cell>,
}
