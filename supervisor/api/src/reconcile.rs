//! After a (re)connection: the records against the launcher's table.
//!
//! What runs is adopted, what ended meanwhile gets its exit, what was to be launched and never was is launched under
//! the same id and incarnation (the launcher answers a repetition with the first result), what was being stopped is
//! stopped. Reconciling twice changes nothing. What was found is told in one line of the log.

use std::collections::HashMap;
use std::sync::Arc;

use aion_launcher_proto::v1 as launcher;
use aion_store::{AgentRecord, AgentState, Batch, Durability};
use aion_types::{AgentId, AgentName, TenantId};

use crate::clock::now_ns;
use crate::core::Core;
use crate::problem::Outcome;
use crate::{lifecycle, tool_runs};

/// How long an interrupted stop goes on asking before it kills.
const REST_OF_GRACE_NS: u64 = 5_000_000_000;

/// What a comparison found, in numbers of agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Found {
    /// They run, and are looked after from here on.
    running: u64,
    /// They ended while nobody looked.
    ended: u64,
    /// They are to be launched, or launched again.
    to_launch: u64,
    /// They should run, and the launcher does not have them.
    missing: u64,
    /// The launcher has them, and they were not on record.
    unknown: u64,
    /// What became of them could not be written down.
    failed: u64,
}

impl Found {
    fn count(&mut self, before: AgentState, now: AgentState, is_in_table: bool) {
        let place = match now {
            AgentState::Starting => &mut self.to_launch,
            AgentState::Running | AgentState::Paused | AgentState::Stopping if is_in_table => {
                &mut self.running
            }
            AgentState::Running | AgentState::Paused | AgentState::Stopping => &mut self.missing,
            AgentState::Created | AgentState::Exited | AgentState::Failed if before.is_live() => {
                &mut self.ended
            }
            AgentState::Created | AgentState::Exited | AgentState::Failed => return,
        };
        *place += 1;
    }

    fn tell(self) {
        let Self { running, ended, to_launch, missing, unknown, failed } = self;
        tracing::info!(
            running,
            ended,
            to_launch,
            missing,
            unknown,
            failed,
            "compared the records with the launcher's table"
        );
    }
}

impl Core {
    pub(crate) async fn reconcile(self: &Arc<Self>, table: &[launcher::AgentState]) -> Outcome<()> {
        let mut known: HashMap<&str, &launcher::AgentState> =
            table.iter().map(|state| (state.id.as_str(), state)).collect();
        let mut records = Vec::new();
        self.store.each_agent(|record| {
            // Agents that ended long ago and are not in the table either need no look.
            if record.state.is_live() || known.contains_key(record.id.as_str()) || record.auto_remove {
                records.push(record);
            }
        })?;
        let mut found = Found::default();
        for record in &records {
            let state = known.remove(record.id.as_str());
            if let Err(problem) = self.reconcile_one(record, state, &mut found) {
                found.failed += 1;
                tracing::error!(agent = %record.id, code = problem.code().as_str(), %problem, "cannot reconcile");
            }
        }
        self.tool_runs.synced(table);
        for orphan in known.into_values() {
            match tool_runs::is_tool_run(orphan) {
                true if self.tool_runs.knows(&orphan.id) => {}
                // Whoever waited for it is gone with the daemon before.
                true => self.end_tool_run(&orphan.id, std::time::Duration::ZERO),
                false => {
                    found.unknown += 1;
                    self.adopt_orphan(orphan).await;
                }
            }
        }
        found.tell();
        Ok(())
    }

    fn reconcile_one(
        self: &Arc<Self>,
        record: &AgentRecord,
        state: Option<&launcher::AgentState>,
        found: &mut Found,
    ) -> Outcome<()> {
        let (tenant, id, before) = (&record.tenant, &record.id, record.state);
        let record = match state {
            Some(state) => self.take_in(tenant, id, state)?,
            None => record.clone(),
        };
        found.count(before, record.state, state.is_some());
        self.set_clocks(&record);
        match (record.state, state) {
            // The table's copy may be of the incarnation before, or missing: it is (still) to be launched. An operation
            // that is under way holds the agent's lock, and what it finds afterwards decides.
            (AgentState::Starting, _) if record.restart_at_ns == 0 => self.timers.set(now_ns(), tenant, id),
            (AgentState::Running | AgentState::Paused | AgentState::Stopping, None) => {
                self.look_twice(&record)
            }
            (AgentState::Stopping, Some(_)) => self.finish_stop(&record),
            _ => {}
        }
        Ok(())
    }

    /// An agent that should be in the table and was not. It may have been launched after the table was read, so the
    /// table is read again while nobody can launch it; only then is it lost.
    fn look_twice(self: &Arc<Self>, record: &AgentRecord) {
        let core = Arc::clone(self);
        let (tenant, id) = (record.tenant.clone(), record.id.clone());
        tokio::spawn(async move {
            if let Err(problem) = core.settle(&tenant, &id).await {
                tracing::warn!(agent = %id, code = problem.code().as_str(), %problem, "cannot find out what became of an agent");
                core.timers.set(now_ns().saturating_add(crate::supervise::AGAIN_NS), &tenant, &id);
            }
        });
    }

    /// Compares one agent with the launcher's table, which is the truth about what runs.
    pub(crate) async fn settle(&self, tenant: &TenantId, id: &AgentId) -> Outcome<()> {
        let _op = self.agents.lock(id).await;
        let table = self.launcher.list().await?;
        if let Some(state) = table.iter().find(|state| state.id == id.as_str()) {
            self.take_in(tenant, id, state)?;
            return Ok(());
        }
        let mut ended = false;
        let record = self.agents.update(tenant, id, Batch::bookkeeping(), |record, _| {
            if matches!(record.state, AgentState::Running | AgentState::Paused | AgentState::Stopping) {
                lifecycle::vanished(record, now_ns());
                ended = true;
            }
            Ok(())
        })?;
        if ended {
            self.incarnation_ended(&record);
        }
        self.set_clocks(&record);
        Ok(())
    }

    /// A stop that was cut off: by a crash of ours, or of the launcher.
    fn finish_stop(self: &Arc<Self>, record: &AgentRecord) {
        let core = Arc::clone(self);
        let (tenant, id) = (record.tenant.clone(), record.id.clone());
        tokio::spawn(async move {
            let grace = tokio::time::sleep(std::time::Duration::from_nanos(REST_OF_GRACE_NS));
            tokio::select! {
                () = grace => {}
                () = core.shutdown.cancelled() => return,
            }
            if let Err(problem) = core.kill_if_stopping(&tenant, &id).await {
                tracing::warn!(agent = %id, code = problem.code().as_str(), %problem, "cannot finish a stop");
            }
        });
    }

    /// The launcher has an agent that is not on record: a database from before, or none. It is taken on record, so
    /// that it can be seen, stopped and removed; how to launch it again is not known.
    async fn adopt_orphan(&self, state: &launcher::AgentState) {
        let (Ok(tenant), Ok(id)) = (TenantId::parse(&state.tenant), AgentId::parse(&state.id)) else {
            tracing::error!(id = state.id, tenant = state.tenant, "the launcher has what is no agent");
            return;
        };
        let fallback = format!("orphan-{}", state.id.to_lowercase());
        for name in [state.name.as_str(), fallback.as_str()] {
            let Ok(name) = AgentName::parse(name) else { continue };
            let mut record = orphan(&tenant, &id, name, state);
            if let Some(seen) = crate::convert::sighting(state, now_ns()) {
                lifecycle::sighted(&mut record, &seen);
            }
            let mut batch = Batch::bookkeeping();
            let created = batch
                .create_agent(&record, &[], "")
                .and_then(|()| self.store.commit(batch, Durability::Host));
            match created {
                Ok(()) => {
                    tracing::warn!(agent = %id, name = %record.name, "adopted an agent that was not on record");
                    return;
                }
                Err(aion_store::Error::NameTaken { .. }) => {}
                Err(error) => {
                    tracing::error!(agent = %id, %error, "cannot adopt an agent that is not on record");
                    return;
                }
            }
        }
    }
}

fn orphan(tenant: &TenantId, id: &AgentId, name: AgentName, state: &launcher::AgentState) -> AgentRecord {
    AgentRecord {
        state: AgentState::Starting,
        incarnation: state.incarnation,
        launched: true,
        created_ns: state.started_ns,
        started_ns: state.started_ns,
        labels: [("aion.orphan".to_owned(), "true".to_owned())].into(),
        ..AgentRecord::new(id.clone(), tenant.clone(), name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_agent_is_counted_once_and_those_that_ended_before_are_not() {
        let mut found = Found::default();
        for (before, now, is_in_table) in [
            (AgentState::Running, AgentState::Running, true),
            (AgentState::Starting, AgentState::Running, true),
            (AgentState::Running, AgentState::Exited, true),
            (AgentState::Running, AgentState::Starting, true),
            (AgentState::Starting, AgentState::Starting, false),
            (AgentState::Paused, AgentState::Paused, false),
            (AgentState::Exited, AgentState::Exited, true),
            (AgentState::Created, AgentState::Created, false),
        ] {
            found.count(before, now, is_in_table);
        }
        let expected = Found { running: 2, ended: 1, to_launch: 2, missing: 1, ..Found::default() };
        assert_eq!(found, expected);
    }
}
