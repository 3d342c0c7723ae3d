//! Stop, Kill, Pause, Resume and Remove.

use std::sync::Arc;
use std::time::Duration;

use aion_api_proto::v1 as api;
use aion_store::{AgentRecord, AgentState, Batch};
use aion_types::{AgentId, ErrorCode, TenantId};
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use crate::clock::{from_duration, now_ns};
use crate::convert;
use crate::core::Core;
use crate::lifecycle::{self, Command};
use crate::principal::Principal;
use crate::problem::{Outcome, Problem};
use crate::requests::Claim;
use crate::stage::Action;
use crate::trail::Entry;

const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;
/// Between asking and killing, unless the request says otherwise.
const DEFAULT_GRACE: Duration = Duration::from_secs(10);
/// The longest grace.
const MAX_GRACE: Duration = Duration::from_secs(3600);
/// How long the launcher's notice of an end may take once nothing of the agent is left.
const NOTICE: Duration = Duration::from_secs(10);

/// What a mutation of one agent is about, for the audit log.
struct Told {
    action: Action,
    request_id: String,
    agent: String,
    detail: serde_json::Value,
}

impl Core {
    pub(crate) async fn stop(
        self: Arc<Self>,
        principal: Principal,
        request: api::StopRequest,
        claim: Claim,
    ) -> Outcome<api::Agent> {
        let told = Told {
            action: Action::Stop,
            request_id: request.request_id,
            agent: request.agent,
            detail: json!({"grace_ms": request.grace.as_ref().and_then(from_duration).map(|g| g.as_millis())}),
        };
        let grace = match &request.grace {
            None => Some(DEFAULT_GRACE),
            Some(given) => from_duration(given),
        };
        let core = Arc::clone(&self);
        self.audited(principal, told, async |record| {
            let grace = grace.ok_or_else(|| Problem::field("grace", "it is negative"))?.min(MAX_GRACE);
            core.end_gently(&record, grace, &claim).await
        })
        .await
    }

    /// SIGTERM, then after the grace the end of everything. The lock is not held while it is waited, so that an
    /// impatient kill comes through.
    async fn end_gently(&self, record: &AgentRecord, grace: Duration, claim: &Claim) -> Outcome<AgentRecord> {
        let (tenant, id) = (&record.tenant, &record.id);
        let mut follower = self.agents.follow(id);
        let deadline = Instant::now() + grace;
        {
            let _op = self.agents.lock(id).await;
            let mut batch = Batch::new();
            claim.note(&mut batch, id.as_str());
            let now = self.agents.update(tenant, id, batch, |record, _| {
                if claim.resumed && !record.state.is_live() {
                    return Ok(());
                }
                lifecycle::check(record, Command::Stop)?;
                lifecycle::begin_stop(record);
                Ok(())
            })?;
            if !now.state.is_live() {
                self.set_clocks(&now);
                return Ok(now);
            }
            if !grace.is_zero() {
                // A frozen agent cannot hear a signal.
                self.gone_is_fine(self.launcher.thaw(id.as_str()).await.map(|_| ()))?;
                self.gone_is_fine(self.launcher.signal(id.as_str(), SIGTERM).await.map(|_| ()))?;
            }
        }
        while Instant::now() < deadline {
            let Some(now) = self.agents.get(tenant, id)? else { return Err(Problem::not_found(id.as_str())) };
            if !now.state.is_live() {
                return Ok(now);
            }
            if timeout_at(deadline, follower.changed()).await.is_err() {
                break;
            }
        }
        let _op = self.agents.lock(id).await;
        self.kill_all(tenant, id, "stop").await
    }

    pub(crate) async fn kill(
        self: Arc<Self>,
        principal: Principal,
        request: api::KillRequest,
        claim: Claim,
    ) -> Outcome<api::Agent> {
        let signal = if request.signal == 0 { SIGKILL } else { request.signal };
        let told = Told {
            action: Action::Kill,
            request_id: request.request_id,
            agent: request.agent,
            detail: json!({"signal": signal}),
        };
        let core = Arc::clone(&self);
        self.audited(principal, told, async |record| {
            if !(1..=64).contains(&signal) {
                return Err(Problem::field("signal", format!("{signal} is no signal: 1 to 64")));
            }
            let (tenant, id) = (&record.tenant, &record.id);
            let _op = core.agents.lock(id).await;
            let mut batch = Batch::new();
            claim.note(&mut batch, id.as_str());
            let now = core.agents.update(tenant, id, batch, |record, _| {
                if claim.resumed && !record.state.is_live() {
                    return Ok(());
                }
                if signal == SIGKILL {
                    lifecycle::check(record, Command::Stop)?;
                    lifecycle::begin_stop(record);
                    return Ok(());
                }
                lifecycle::check(record, Command::Signal)
            })?;
            if !now.state.is_live() {
                core.set_clocks(&now);
                return Ok(now);
            }
            if signal == SIGKILL {
                return core.kill_all(tenant, id, "kill").await;
            }
            if claim.resumed {
                // A signal is not sent twice: the first attempt may have sent it.
                return Ok(now);
            }
            let state = core.launcher.signal(id.as_str(), signal).await?;
            core.take_in(tenant, id, &state)
        })
        .await
    }

    /// Ends what is still being stopped.
    pub(crate) async fn kill_if_stopping(&self, tenant: &TenantId, id: &AgentId) -> Outcome<()> {
        let _op = self.agents.lock(id).await;
        match self.agents.get(tenant, id)? {
            Some(now) if now.state == AgentState::Stopping => {
                self.kill_all(tenant, id, "stop").await.map(|_| ())
            }
            _ => Ok(()),
        }
    }

    /// Kills the whole agent and waits until its end is written down. The caller holds its lock.
    pub(crate) async fn kill_all(
        &self,
        tenant: &TenantId,
        id: &AgentId,
        reason: &str,
    ) -> Outcome<AgentRecord> {
        let mut follower = self.agents.follow(id);
        match self.launcher.kill(id.as_str(), reason).await {
            Ok(state) => {
                self.take_in(tenant, id, &state)?;
            }
            Err(error) if error.code() == ErrorCode::AgentNotFound => {
                let record = self.agents.update(tenant, id, Batch::bookkeeping(), |record, _| {
                    if record.state.is_live() {
                        lifecycle::vanished(record, now_ns());
                    }
                    Ok(())
                })?;
                self.set_clocks(&record);
            }
            Err(error) if error.code() == ErrorCode::AgentNotRunning => {}
            Err(error) => return Err(error.into()),
        }
        let deadline = Instant::now() + NOTICE;
        loop {
            let Some(now) = self.agents.get(tenant, id)? else { return Err(Problem::not_found(id.as_str())) };
            if !now.state.is_live() {
                return Ok(now);
            }
            if timeout_at(deadline, follower.changed()).await.is_err() {
                let message = format!("aion-launcher killed {} and does not say how it ended", now.name);
                return Err(Problem::new(ErrorCode::LauncherUnavailable, message));
            }
        }
    }

    /// An agent that has ended meanwhile needs no signal any more.
    pub(crate) fn gone_is_fine(&self, result: Result<(), aion_launcher_client::Error>) -> Outcome<()> {
        match result {
            Err(error) if !matches!(error.code(), ErrorCode::AgentNotRunning | ErrorCode::AgentNotFound) => {
                Err(error.into())
            }
            _ => Ok(()),
        }
    }

    pub(crate) async fn pause(
        self: Arc<Self>,
        principal: Principal,
        request: api::PauseRequest,
        claim: Claim,
    ) -> Outcome<api::Agent> {
        let told = Told::of(Action::Pause, request.request_id, request.agent);
        let core = Arc::clone(&self);
        self.audited(principal, told, async |record| {
            core.freeze_or_thaw(&record, Command::Pause, &claim).await
        })
        .await
    }

    pub(crate) async fn resume(
        self: Arc<Self>,
        principal: Principal,
        request: api::ResumeRequest,
        claim: Claim,
    ) -> Outcome<api::Agent> {
        let told = Told::of(Action::Resume, request.request_id, request.agent);
        let core = Arc::clone(&self);
        self.audited(principal, told, async |record| {
            core.freeze_or_thaw(&record, Command::Resume, &claim).await
        })
        .await
    }

    pub(crate) async fn freeze_or_thaw(
        &self,
        record: &AgentRecord,
        command: Command,
        claim: &Claim,
    ) -> Outcome<AgentRecord> {
        let (tenant, id) = (&record.tenant, &record.id);
        let _op = self.agents.lock(id).await;
        let mut batch = Batch::new();
        claim.note(&mut batch, id.as_str());
        self.agents.update(tenant, id, batch, |record, _| lifecycle::check(record, command))?;
        let state = if command == Command::Pause {
            self.launcher.freeze(id.as_str(), "").await?
        } else {
            self.launcher.thaw(id.as_str()).await?
        };
        self.take_in(tenant, id, &state)
    }

    pub(crate) async fn remove(
        self: Arc<Self>,
        principal: Principal,
        request: api::RemoveRequest,
        claim: Claim,
    ) -> Outcome<api::RemoveResponse> {
        if claim.resumed && self.agents.find(principal.tenant(), &request.agent).is_err() {
            return Ok(api::RemoveResponse {});
        }
        let mut told = Told::of(Action::Remove, request.request_id, request.agent);
        told.detail = json!({"force": request.force});
        let core = Arc::clone(&self);
        self.audited(principal, told, async |record| {
            let _op = core.agents.lock(&record.id).await;
            core.remove_locked(&record, request.force, Some(&claim)).await
        })
        .await?;
        Ok(api::RemoveResponse {})
    }

    /// Removes an agent, killing it first when forced. The caller holds its lock.
    pub(crate) async fn remove_locked(
        &self,
        record: &AgentRecord,
        force: bool,
        claim: Option<&Claim>,
    ) -> Outcome<AgentRecord> {
        let (tenant, id) = (&record.tenant, &record.id);
        let mut batch = Batch::bookkeeping();
        if let Some(claim) = claim {
            claim.note(&mut batch, id.as_str());
        }
        let now = self.agents.update(tenant, id, batch, |record, _| {
            lifecycle::check(record, Command::Remove { force })?;
            if record.state.is_live() {
                lifecycle::begin_stop(record);
            }
            Ok(())
        })?;
        let now = if now.state.is_live() { self.kill_all(tenant, id, "remove").await? } else { now };
        self.forget_at_launcher(&now).await?;
        let mut batch = Batch::bookkeeping();
        batch.remove_agent(&now);
        self.agents.commit(id, batch).await?;
        self.unregistered(&now, false);
        Ok(now)
    }

    /// Has the launcher remove its files of an agent that has ended.
    pub(crate) async fn forget_at_launcher(&self, record: &AgentRecord) -> Outcome<()> {
        // A launch that was refused, or whose answer was lost, may have left something, too.
        if !record.launched && record.state == AgentState::Created {
            return Ok(());
        }
        match self.launcher.remove(record.id.as_str(), false).await {
            Err(error) if error.code() != ErrorCode::AgentNotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Finds the agent, does the work, and records how it ended.
    async fn audited(
        self: Arc<Self>,
        principal: Principal,
        told: Told,
        work: impl AsyncFnOnce(AgentRecord) -> Outcome<AgentRecord>,
    ) -> Outcome<api::Agent> {
        let found = self.agents.find(principal.tenant(), &told.agent);
        let id = found.as_ref().map_or(String::new(), |record| record.id.to_string());
        let outcome = match found {
            Ok(record) => work(record).await,
            Err(problem) => Err(problem),
        };
        let mut detail = told.detail;
        detail["name"] = json!(outcome.as_ref().map_or(told.agent.as_str(), |record| record.name.as_str()));
        detail["request_id"] = json!(told.request_id);
        let entry = Entry { principal: &principal, kind: told.action.kind(), agent: &id, detail };
        self.trail.record(entry, outcome.as_ref().map(|_| ())).await;
        outcome.map(|record| convert::agent(&record))
    }
}

impl Told {
    fn of(action: Action, request_id: String, agent: String) -> Self {
        Self { action, request_id, agent, detail: json!({}) }
    }
}
