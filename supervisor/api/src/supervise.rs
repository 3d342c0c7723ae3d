//! The daemon's own work, beside requests: it follows the launcher, restarts, removes, indexes, and tidies up.

use std::sync::Arc;
use std::time::Duration;

use aion_launcher_client::WatchEvent;
use aion_launcher_proto::v1 as launcher;
use aion_store::AgentState;
use aion_types::{AgentId, ErrorCode, TenantId};
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval};

use crate::clock::now_ns;
use crate::core::Core;
use crate::problem::Outcome;

/// How often old rows are looked for.
const TIDY: Duration = Duration::from_secs(60);
/// Expired request ids that go in one step.
const TIDY_STEP: usize = 1000;
/// When something that was due failed for a passing reason, it is tried again after this.
pub(crate) const AGAIN_NS: u64 = 1_000_000_000;

impl Core {
    /// Runs until shutdown.
    pub(crate) async fn supervise(self: Arc<Self>) {
        let wake = Arc::new(Notify::new());
        let tasks = [
            tokio::spawn(Arc::clone(&self).follow_launcher(Arc::clone(&wake))),
            tokio::spawn(Arc::clone(&self).index(wake)),
            tokio::spawn(Arc::clone(&self).detect()),
            tokio::spawn(Arc::clone(&self).record_undelivered()),
            tokio::spawn(Arc::clone(&self).mind_the_clocks()),
            tokio::spawn(Arc::clone(&self).tidy()),
        ];
        self.shutdown.cancelled().await;
        for task in tasks {
            task.abort();
        }
    }

    async fn follow_launcher(self: Arc<Self>, index: Arc<Notify>) {
        let mut watch = self.launcher.watch(*self.indexed.borrow());
        loop {
            match watch.next().await {
                WatchEvent::Synced { hello, agents } => {
                    tracing::info!(
                        version = hello.version,
                        epoch = hello.epoch,
                        agents = agents.len(),
                        "launcher"
                    );
                    self.exec_exits.found();
                    self.figures.found(&agents);
                    self.mind_resolvers(&agents);
                    self.trail.flush().await;
                    if let Err(problem) = self.reconcile(&agents).await {
                        tracing::error!(code = problem.code().as_str(), %problem, "cannot compare the records with the launcher's table");
                    }
                    self.hold_meanwhile();
                    index.notify_one();
                }
                WatchEvent::Lost => self.exec_exits.lost(),
                WatchEvent::Agent(state) => {
                    self.mind_resolver(&state);
                    self.noticed(&state);
                }
                WatchEvent::Audit(_) => index.notify_one(),
                WatchEvent::ExecExited(exited) => self.exec_exits.ended(exited),
            }
        }
    }

    /// Takes a notice in.
    pub(crate) fn noticed(&self, state: &launcher::AgentState) {
        if self.tool_runs.noticed(state) {
            return;
        }
        self.figures_of_end(state);
        let (Ok(tenant), Ok(id)) = (TenantId::parse(&state.tenant), AgentId::parse(&state.id)) else {
            tracing::warn!(id = state.id, tenant = state.tenant, "a notice about what is no agent");
            return;
        };
        match self.take_in(&tenant, &id, state) {
            Ok(_) => {}
            // It is being removed.
            Err(problem) if problem.code() == ErrorCode::AgentNotFound => {}
            Err(problem) => {
                // A full disk, mostly: the next sync, or the next look, brings it again.
                tracing::error!(%tenant, agent = %id, code = problem.code().as_str(), %problem, "cannot write down what became of an agent");
                self.timers.set(now_ns().saturating_add(AGAIN_NS), &tenant, &id);
            }
        }
    }

    async fn mind_the_clocks(self: Arc<Self>) {
        loop {
            let (tenant, id) = self.timers.next().await;
            let core = Arc::clone(&self);
            tokio::spawn(async move {
                if let Err(problem) = core.look_after(&tenant, &id).await {
                    tracing::warn!(%tenant, agent = %id, code = problem.code().as_str(), %problem, "what was due failed");
                    if problem.is_passing() {
                        core.timers.set(now_ns().saturating_add(AGAIN_NS), &tenant, &id);
                    }
                }
            });
        }
    }

    /// Does what an agent's record says is due.
    async fn look_after(&self, tenant: &TenantId, id: &AgentId) -> Outcome<()> {
        let Some(record) = self.agents.get(tenant, id)? else { return Ok(()) };
        match record.state {
            AgentState::Starting => {
                if record.restart_at_ns > now_ns() {
                    self.timers.set(record.restart_at_ns, tenant, id);
                    return Ok(());
                }
                self.relaunch(tenant, id).await
            }
            AgentState::Exited | AgentState::Failed if record.auto_remove => {
                if self.agents.is_followed(id) {
                    // Somebody still reads its output.
                    self.timers.set(now_ns().saturating_add(AGAIN_NS / 2), tenant, id);
                    return Ok(());
                }
                let _op = self.agents.lock(id).await;
                let Some(record) = self.agents.get(tenant, id)? else { return Ok(()) };
                if record.state.is_live() {
                    return Ok(());
                }
                self.remove_locked(&record, false, None).await?;
                let detail = json!({"name": record.name.as_str(), "subject": "aiond"});
                self.trail.own(tenant.as_str(), id.as_str(), "api.agent.remove", "auto-remove", detail).await;
                Ok(())
            }
            // A notice could not be written down, or the launcher could not be asked: the table has the same.
            state if state.is_live() => self.settle(tenant, id).await,
            _ => Ok(()),
        }
    }

    async fn tidy(self: Arc<Self>) {
        let mut ticks = interval(TIDY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let store = Arc::clone(&self.store);
            let done = tokio::task::spawn_blocking(move || -> Result<(), aion_store::Error> {
                while store.expire_requests(now_ns(), TIDY_STEP)? == TIDY_STEP {}
                store.trim_events(now_ns())?;
                Ok(())
            })
            .await;
            if let Some(kernel) = self.kernel.get().cloned() {
                let _ = tokio::task::spawn_blocking(move || kernel.tidy()).await;
            }
            match done {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "tidying up failed"),
                Err(error) => tracing::error!(%error, "tidying up did not run to its end"),
            }
        }
    }
}
