//! Start, and the launches that the daemon does by itself: restarts, and what a crash left in between.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use aion_api_proto::v1 as api;
use aion_launcher_client::Error as LauncherError;
use aion_launcher_proto::v1 as launcher;
use aion_store::{AgentRecord, AgentState, Batch};
use aion_types::{AgentId, ErrorCode, TenantId};
use prost::Message as _;
use serde_json::json;

use crate::clock::now_ns;
use crate::core::Core;
use crate::lifecycle::{self, Command};
use crate::permitted::Bounds;
use crate::principal::Principal;
use crate::problem::{Outcome, Problem};
use crate::requests::Claim;
use crate::stage::Action;
use crate::tasks::ATTEMPT;
use crate::trail::Entry;
use crate::{convert, launch};

impl Core {
    pub(crate) async fn start(
        self: Arc<Self>,
        principal: Principal,
        request: api::StartRequest,
        claim: Claim,
    ) -> Outcome<api::Agent> {
        let mut agent = String::new();
        let outcome = self.try_start(&principal, &request, &claim, &mut agent).await;
        let name = outcome.as_ref().map_or(request.agent.as_str(), |record| record.name.as_str());
        let detail = json!({"name": name, "request_id": request.request_id});
        let entry = Entry { principal: &principal, kind: Action::Start.kind(), agent: &agent, detail };
        self.trail.record(entry, outcome.as_ref().map(|_| ())).await;
        outcome.map(|record| convert::agent(&record))
    }

    async fn try_start(
        &self,
        principal: &Principal,
        request: &api::StartRequest,
        claim: &Claim,
        agent: &mut String,
    ) -> Outcome<AgentRecord> {
        let tenant = principal.tenant();
        let found = self.agents.find(tenant, &request.agent)?;
        found.id.as_str().clone_into(agent);
        let _op = self.agents.lock(&found.id).await;
        let before = self.agents.find(tenant, found.id.as_str())?;
        let resumed = claim.resumed && claim.agent.as_deref() == Some(found.id.as_str());
        if resumed && before.state != AgentState::Starting {
            // The first attempt came so far before the daemon went down; this is its answer.
            return answer_of(before);
        }
        let record = if resumed {
            before.clone()
        } else {
            lifecycle::check(&before, Command::Start)?;
            let mut batch = Batch::new();
            claim.note(&mut batch, found.id.as_str());
            self.agents.update(tenant, &found.id, batch, |record, _| {
                lifecycle::begin_start(record);
                Ok(())
            })?
        };
        match self.launch(&record).await {
            Ok(record) => Ok(record),
            Err(problem) if problem.meta("executed") == "no" => {
                // Nothing happened at the launcher: it is as it was, and no later launch surprises the user.
                self.agents.update(tenant, &found.id, Batch::bookkeeping(), |record, _| {
                    *record = before.clone();
                    Ok(())
                })?;
                Err(problem)
            }
            Err(problem) => Err(problem),
        }
    }

    /// Launches an agent whose record says `starting`, and writes down what came of it. The caller holds its lock.
    pub(crate) async fn launch(&self, record: &AgentRecord) -> Outcome<AgentRecord> {
        self.launch_with(record, Vec::new(), None).await
    }

    /// As [`Core::launch`], with what a job is given, and the bounds that it was judged by already.
    pub(crate) async fn launch_with(
        &self,
        record: &AgentRecord,
        fds: Vec<OwnedFd>,
        judged: Option<Bounds>,
    ) -> Outcome<AgentRecord> {
        let (tenant, id) = (&record.tenant, &record.id);
        let judged = judged.or_else(|| self.bounds(tenant).ok());
        let plan = match self.launch_message(record) {
            Ok(plan) => plan,
            Err(problem) => {
                self.refused(record, &problem, false)?;
                return Err(problem);
            }
        };
        if plan.door {
            self.open_door(record)?;
        }
        match self.launcher.launch_with(plan, fds).await {
            Ok((state, _tty)) => {
                if let Some(judged) = &judged {
                    self.hold_launched(record, &state, judged).await;
                }
                self.take_in(tenant, id, &state)
            }
            Err(error @ LauncherError::Unreachable { .. }) => {
                // `executed` tells the caller, and is of use to clients, too.
                Err(Problem::from(error).with("executed", "no"))
            }
            Err(error) if error.is_ambiguous() => {
                tracing::warn!(agent = %id, %error, "a launch whose end is not known");
                Err(Problem::from(error)
                    .with("executed", "unknown")
                    .hint("it is looked after as soon as aion-launcher answers again"))
            }
            Err(error) => {
                let problem = Problem::from(error).with("agent", id.as_str());
                self.refused(record, &problem, true)?;
                Err(problem)
            }
        }
    }

    fn launch_message(&self, record: &AgentRecord) -> Outcome<launcher::Launch> {
        let bytes = self.store.launch_of(&record.tenant, &record.id)?.ok_or_else(|| {
            Problem::new(ErrorCode::Internal, format!("it is not recorded how to launch {}", record.name))
                .hint("remove the agent and register it again")
        })?;
        let mut plan = launcher::Launch::decode(bytes.as_slice())
            .map_err(|error| Problem::internal("a stored launch cannot be read", &error))?;
        plan.incarnation = record.incarnation;
        // The process of an attempt is made anew from its agent's manifest, which was looked at then. It has none of its own, whatever a
        // label says.
        let of_an_attempt = record.labels.contains_key(ATTEMPT)
            && self.store.manifest_of(&record.tenant, &record.id)?.is_none_or(|yaml| yaml.is_empty());
        if !of_an_attempt {
            self.still_signed(record)?;
            self.still_permitted(record)?;
        }
        if let Ok(bounds) = self.bounds(&record.tenant) {
            bounds.limit_network(&mut plan);
        }
        launch::fill_secrets(&mut plan, &self.options.state)?;
        Ok(plan)
    }

    fn refused(&self, record: &AgentRecord, problem: &Problem, sent: bool) -> Outcome<()> {
        self.agents.update(&record.tenant, &record.id, Batch::bookkeeping(), |now, _| {
            if now.incarnation == record.incarnation {
                lifecycle::launch_refused(now, problem, sent, now_ns());
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Writes down what the launcher says of an agent, and sets the clocks that follow from it.
    pub(crate) fn take_in(
        &self,
        tenant: &TenantId,
        id: &AgentId,
        state: &launcher::AgentState,
    ) -> Outcome<AgentRecord> {
        let mut ended = false;
        let record = self.agents.update(tenant, id, Batch::bookkeeping(), |record, _| {
            let before = record.exit;
            if let Some(seen) = convert::sighting(state, now_ns()) {
                lifecycle::sighted(record, &seen);
            }
            ended = record.exit != before;
            Ok(())
        })?;
        if ended {
            self.incarnation_ended(&record);
        }
        self.set_clocks(&record);
        Ok(record)
    }

    /// What is due later because of the state an agent is in.
    pub(crate) fn set_clocks(&self, record: &AgentRecord) {
        if record.state == AgentState::Starting && record.restart_at_ns != 0 {
            self.timers.set(record.restart_at_ns, &record.tenant, &record.id);
        } else if record.auto_remove && matches!(record.state, AgentState::Exited | AgentState::Failed) {
            let linger = crate::clock::nanos(self.options.linger);
            self.timers.set(record.finished_ns.saturating_add(linger), &record.tenant, &record.id);
        }
    }

    /// Launches again what is due, as the restart rule or a crash left it.
    pub(crate) async fn relaunch(&self, tenant: &TenantId, id: &AgentId) -> Outcome<()> {
        let _op = self.agents.lock(id).await;
        let Some(record) = self.agents.get(tenant, id)? else { return Ok(()) };
        if record.state != AgentState::Starting || record.restart_at_ns > now_ns() {
            return Ok(());
        }
        if record.labels.contains_key(ATTEMPT) {
            // What it was to be given is gone with the daemon before: the attempt is lost, and another one follows.
            let lost = Problem::new(ErrorCode::LauncherUnavailable, "the launch of an attempt was cut off");
            return self.refused(&record, &lost, true);
        }
        let record = self.agents.update(tenant, id, Batch::bookkeeping(), |record, _| {
            lifecycle::begin_restart(record);
            Ok(())
        })?;
        tracing::info!(%tenant, agent = %id, name = %record.name, incarnation = record.incarnation, "launching again");
        self.launch(&record).await.map(|_| ())
    }
}

/// What the first attempt would have answered, judged by where the agent is now.
fn answer_of(record: AgentRecord) -> Outcome<AgentRecord> {
    if record.state != AgentState::Failed {
        return Ok(record);
    }
    let code = ErrorCode::parse(&record.failure_code).unwrap_or(ErrorCode::Internal);
    Err(Problem::new(code, record.message.clone()).with("agent", record.id.as_str()))
}
