//! The operator's rules while agents run: read anew, and what they take from running agents is taken by the kernel.
//!
//! A host that is not reached any more is withheld by aion-launcher, of the hosts that the agent was launched with: nothing can be given
//! that a launch did not give. Files and programs likewise (`held_files`), where the kernel can. The rest of a sandbox stays as it was
//! set up until the next start, and is told.

use std::collections::BTreeSet;
use std::sync::Arc;

use aion_api_proto::v1 as api;
use aion_egress::{Rule, Rules};
use aion_launcher_proto::v1 as launcher;
use aion_manifest::{AgentSpec, CapabilityPolicy, Overrides, withheld_hosts};
use aion_store::AgentRecord;
use aion_types::{AgentId, ErrorCode, TenantId};
use futures::{StreamExt as _, stream};
use prost::Message as _;
use serde_json::json;

use crate::core::Core;
use crate::permitted::Bounds;
use crate::problem::{Outcome, Problem};
use crate::tasks::{AGENT, ATTEMPT};

/// Agents that are told of at once.
const AT_ONCE: usize = 16;

/// Reads the operator's rules.
pub(crate) type ReadPolicy = Arc<dyn Fn() -> Result<CapabilityPolicy, aion_manifest::Error> + Send + Sync>;

/// Who is looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Which<'a> {
    All,
    Of(&'a TenantId),
}

/// Tells the log of one that is not held, where nobody waits for the answer.
fn tell_failure(held: &api::HeldAgent) {
    if !held.error.is_empty() {
        tracing::warn!(agent = held.id, error = held.error, "an agent is not held to the rules");
    }
}

impl Core {
    /// Takes the rules as they are now in the file, and holds all agents to them; `dry_run` looks and changes nothing.
    pub(crate) async fn reload_policy(self: &Arc<Self>, dry_run: bool) -> Outcome<Vec<api::HeldAgent>> {
        // One after the other from the reading on: what is read last holds.
        let _turn = self.policy_turn.lock().await;
        let read = self.read_policy.get().ok_or_else(|| {
            Problem::new(ErrorCode::DaemonUnavailable, "this daemon has no file with rules")
        })?;
        let read = Arc::clone(read);
        let policy = tokio::task::spawn_blocking(move || read())
            .await
            .map_err(|error| Problem::internal("reading the rules did not run to its end", &error))??;
        let policy = Arc::new(policy);
        if !dry_run {
            self.kernel()?.set_policy(Arc::clone(&policy))?;
        }
        self.hold(Which::All, Some(&policy), dry_run).await
    }

    /// Holds a tenant's running agents to bounds that have changed.
    ///
    /// # Errors
    /// Some are not held; the next meeting with the launcher, or reload, does it.
    pub(crate) async fn hold_tenant(self: &Arc<Self>, tenant: &TenantId) -> Outcome<()> {
        let held = self.hold_to_bounds(Which::Of(tenant)).await.map_err(|problem| {
            let message =
                format!("{tenant} is changed, its running agents are not held to that yet: {problem}");
            Problem::new(problem.code(), message)
                .hint("`aionctl policy reload` holds them, and aiond does when aion-launcher is back")
        })?;
        let failed: Vec<_> = held.iter().filter(|one| !one.error.is_empty()).collect();
        let Some(first) = failed.first() else { return Ok(()) };
        let message = format!(
            "{tenant} is changed, {} of its running agents are not held to that yet: {}: {}",
            failed.len(),
            first.name,
            first.error
        );
        Err(Problem::new(ErrorCode::LauncherUnavailable, message).hint("`aionctl policy reload` tries again"))
    }

    /// Holds running agents to what their bounds are now.
    pub(crate) async fn hold_to_bounds(self: &Arc<Self>, which: Which<'_>) -> Outcome<Vec<api::HeldAgent>> {
        let _turn = self.policy_turn.lock().await;
        self.hold(which, None, false).await
    }

    /// Holds all of them, for the rules may have changed while this daemon or the launcher was away.
    pub(crate) fn hold_meanwhile(self: &Arc<Self>) {
        let core = Arc::clone(self);
        tokio::spawn(async move {
            match core.hold_to_bounds(Which::All).await {
                Ok(held) => {
                    held.iter().for_each(tell_failure);
                }
                Err(problem) => {
                    tracing::warn!(code = problem.code().as_str(), %problem, "running agents were not compared with the rules")
                }
            }
        });
    }

    /// Holds one that was launched while its bounds changed.
    pub(crate) async fn hold_launched(
        &self,
        record: &AgentRecord,
        state: &launcher::AgentState,
        before: &Bounds,
    ) {
        let is_same = self.bounds(&record.tenant).is_ok_and(|now| now.same(before));
        if !is_same {
            let _turn = self.policy_turn.lock().await;
            let bounds = self.bounds(&record.tenant);
            let held = self.hold_hosts(state, record, &bounds, false).await;
            tell_failure(&self.hold_files(state, record, &bounds, held, false).await);
        }
    }

    async fn hold(
        self: &Arc<Self>,
        which: Which<'_>,
        global: Option<&Arc<CapabilityPolicy>>,
        dry_run: bool,
    ) -> Outcome<Vec<api::HeldAgent>> {
        let table = self.launcher.list().await?;
        let counts = |state: &launcher::AgentState| match which {
            _ if state.state == "exited" => false,
            Which::All => true,
            Which::Of(tenant) => state.tenant == tenant.as_str(),
        };
        let known = |state: launcher::AgentState| {
            let record = self.record_of(&state)?;
            let bounds = self.bounds(&record.tenant).map(|bounds| match global {
                Some(global) => bounds.under(Arc::clone(global)),
                None => bounds,
            });
            Some((state, record, bounds))
        };
        let running: Vec<_> = table.into_iter().filter(counts).filter_map(known).collect();
        // What the kernel can hold it holds before manifests are read for what it cannot.
        let held: Vec<_> = stream::iter(running)
            .map(|(state, record, bounds)| async move {
                let held = self.hold_hosts(&state, &record, &bounds, dry_run).await;
                let held = self.hold_files(&state, &record, &bounds, held, dry_run).await;
                (held, state.holds_files, record, bounds)
            })
            .buffered(AT_ONCE)
            .collect()
            .await;
        let core = Arc::clone(self);
        let told = tokio::task::spawn_blocking(move || {
            type Held = (api::HeldAgent, bool, AgentRecord, Outcome<Bounds>);
            let told = |(held, holds_files, record, bounds): Held| {
                let until_restart = core.kept(&record, &bounds, holds_files);
                let held = api::HeldAgent { until_restart, ..held };
                let is_told = !held.withheld.is_empty()
                    || !held.given_back.is_empty()
                    || !held.withheld_files.is_empty()
                    || !held.files_given_back.is_empty()
                    || !held.until_restart.is_empty()
                    || !held.error.is_empty();
                is_told.then_some(held)
            };
            held.into_iter().filter_map(told).collect()
        });
        told.await.map_err(|error| Problem::internal("comparing did not run to its end", &error))
    }

    /// The record of what runs; none: it is no agent, as a tool's run.
    pub(crate) fn record_of(&self, state: &launcher::AgentState) -> Option<AgentRecord> {
        let (tenant, id) = (TenantId::parse(&state.tenant).ok()?, AgentId::parse(&state.id).ok()?);
        self.agents.get(&tenant, &id).ok().flatten()
    }

    /// What a running agent's sandbox keeps, and why it should not. Blocks.
    fn kept(&self, record: &AgentRecord, bounds: &Outcome<Bounds>, holds_files: bool) -> Vec<String> {
        match (bounds, self.runs_by(record)) {
            (Ok(bounds), Some(spec)) => {
                let beyond =
                    bounds.policies().flat_map(|policy| spec.beyond_while_running(policy, holds_files));
                beyond.map(|problem| problem.message).collect()
            }
            (Err(problem), _) => vec![problem.to_string()],
            (_, None) => Vec::new(),
        }
    }

    async fn hold_hosts(
        &self,
        state: &launcher::AgentState,
        record: &AgentRecord,
        bounds: &Outcome<Bounds>,
        dry_run: bool,
    ) -> api::HeldAgent {
        let mut held = api::HeldAgent {
            tenant: state.tenant.clone(),
            id: state.id.clone(),
            name: record.name.to_string(),
            ..api::HeldAgent::default()
        };
        if state.network() != launcher::Network::Egress {
            return held;
        }
        let hosts = match self.hosts_of(record) {
            Ok(hosts) => hosts,
            Err(problem) => return api::HeldAgent { error: problem.to_string(), ..held },
        };
        held.withheld = match bounds {
            Ok(bounds) => {
                let mut seen = BTreeSet::new();
                let all = bounds.policies().flat_map(|policy| withheld_hosts(&hosts, policy));
                all.filter(|(host, _)| seen.insert(host.clone()))
                    .map(|(host, why)| api::WithheldHost { host, why })
                    .collect()
            }
            // Nobody knows what it may reach.
            Err(problem) => hosts
                .iter()
                .map(|host| api::WithheldHost { host: host.clone(), why: problem.to_string() })
                .collect(),
        };
        let now: BTreeSet<&str> = held.withheld.iter().map(|one| one.host.as_str()).collect();
        let before: BTreeSet<&str> = state.withheld.iter().map(String::as_str).collect();
        held.given_back = before.difference(&now).map(|host| (*host).to_owned()).collect();
        // What is withheld already is asked for all the same: the launcher may be behind with it.
        if dry_run || (now.is_empty() && before.is_empty()) {
            return held;
        }
        let is_new = now != before;
        let rules: Vec<String> = now.iter().map(|host| (*host).to_owned()).collect();
        let left: Vec<&String> = hosts.iter().filter(|host| !now.contains(host.as_str())).collect();
        match self.launcher.withhold(&state.id, rules).await {
            Ok(_) => {
                if let Ok(rules) = Rules::parse(&left) {
                    self.set_names(&state.id, rules);
                }
                if !is_new {
                    return held;
                }
                let told: Vec<_> =
                    held.withheld.iter().map(|one| json!({"host": one.host, "why": one.why})).collect();
                let detail = json!({"withheld": told, "given_back": held.given_back});
                self.trail.own(&state.tenant, &state.id, "api.policy.held", "policy", detail).await;
            }
            Err(error) if error.code() == ErrorCode::AgentNotRunning => {
                (held.withheld, held.given_back) = (Vec::new(), Vec::new());
            }
            Err(error) => held.error = error.to_string(),
        }
        held
    }

    /// The hosts that it was launched with, as the launcher writes them.
    fn hosts_of(&self, record: &AgentRecord) -> Outcome<Vec<String>> {
        let bytes = self.store.launch_of(&record.tenant, &record.id)?.unwrap_or_default();
        let plan = launcher::Launch::decode(bytes.as_slice())
            .map_err(|error| Problem::internal("a stored launch cannot be read", &error))?;
        let written = |host: String| host.parse::<Rule>().map_or(host, |rule| rule.to_string());
        Ok(plan.egress.into_iter().map(written).collect())
    }

    /// The manifest that it runs by; the process of an attempt has that of its agent, as it was at the launch.
    pub(crate) fn runs_by(&self, record: &AgentRecord) -> Option<AgentSpec> {
        if !record.labels.contains_key(ATTEMPT) {
            return self.spec_of(record);
        }
        let Some(yaml) = self.store.origin_of(&record.tenant, &record.id).ok()? else {
            // A version that wrote none launched it: the agent's manifest as it is now is the nearest to it.
            return self.spec_of(&self.agents.find(&record.tenant, record.labels.get(AGENT)?).ok()?);
        };
        AgentSpec::parse(yaml.as_bytes(), "agent.yml", Overrides::default(), &self.options.manifests).ok()
    }
}
