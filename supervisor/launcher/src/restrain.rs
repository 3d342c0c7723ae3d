//! What is taken from an agent while it runs: processor time, its network. Kept in its record, so that a new launcher and the next
//! incarnation hold it to the same; an agent does not get out of it by ending. An operator gives it back.

use std::sync::Arc;

use aion_launcher_proto::v1;
use aion_types::{AgentId, LayerName};
use serde_json::json;

use crate::Failure;
use crate::agent::Agent;
use crate::audit::Entry;
use crate::clock;
use crate::failure::chain;
use crate::launcher::Launcher;
use crate::limits;
use crate::lock::lock;

pub(crate) const FROZEN: &str = "frozen";
const THROTTLED: &str = "throttled";
const ISOLATED: &str = "isolated";

pub(crate) fn new(kind: &str, reason: &str, cpu_millis: u32) -> v1::Restraint {
    v1::Restraint { kind: kind.to_owned(), reason: reason.to_owned(), since_ns: clock::wall_ns(), cpu_millis }
}

/// Notes one in the agent's record, or that it is over.
pub(crate) fn note(agent: &Agent, kind: &str, restraint: Option<v1::Restraint>) {
    let restraints = &mut agent.lock().record.agent.restraints;
    restraints.retain(|known| known.kind != kind);
    restraints.extend(restraint);
}

/// The CPU quota: the agent's own, or what is left of it.
pub(crate) fn quota(own: Option<u32>, restraints: &[v1::Restraint]) -> Option<u32> {
    let left = restraints.iter().filter(|r| r.kind == THROTTLED && r.cpu_millis > 0).map(|r| r.cpu_millis);
    own.into_iter().chain(left).min()
}

pub(crate) fn is_isolated(restraints: &[v1::Restraint]) -> bool {
    restraints.iter().any(|restraint| restraint.kind == ISOLATED)
}

/// What the next incarnation is held to.
pub(crate) fn that_stay(restraints: &[v1::Restraint]) -> Vec<v1::Restraint> {
    restraints.iter().filter(|restraint| restraint.kind != FROZEN).cloned().collect()
}

impl Launcher {
    /// Leaves an agent so much processor time, or gives back what it had.
    pub(crate) fn throttle(
        &self,
        id: &AgentId,
        cpu_millis: Option<u32>,
        reason: &str,
    ) -> Result<v1::AgentState, Failure> {
        let agent = self.agent(id)?;
        let _turn = lock(&agent.turn);
        let before = agent.lock().record.agent.restraints.iter().find(|r| r.kind == THROTTLED).cloned();
        let restraint = cpu_millis.map(|millis| new(THROTTLED, reason, millis));
        if before.is_none() && restraint.is_none() {
            return Ok(agent.view());
        }
        if let Some(run) = agent.running() {
            let own = agent.lock().spec.as_ref().and_then(|spec| spec.limits.cpu_millis);
            let millis = quota(own, restraint.as_slice());
            let failed = |why: String| Failure::layer(LayerName::Cgroup, 0, format!("no CPU quota: {why}"));
            if let Some(why) = run.held.group.limit_cpu(millis).map_err(|e| failed(chain(&e)))? {
                return Err(failed(why));
            }
        } else if restraint.is_some() {
            return Err(Failure::not_running(id));
        }
        let (kind, detail) = match &restraint {
            Some(new) => ("agent.throttled", json!({ "cpu_millis": new.cpu_millis, "reason": reason })),
            None => ("agent.unthrottled", json!({ "reason": reason })),
        };
        note(&agent, THROTTLED, restraint);
        self.told(&agent, kind, &detail);
        Ok(agent.view())
    }

    /// Takes an agent's network away, or gives it back.
    pub(crate) fn isolate(&self, id: &AgentId, on: bool, reason: &str) -> Result<v1::AgentState, Failure> {
        let agent = self.agent(id)?;
        let _turn = lock(&agent.turn);
        let before = is_isolated(&agent.lock().record.agent.restraints);
        if let Some(run) = agent.running() {
            let Some(probes) = self.probes.get().filter(|_| run.probed) else {
                return Err(Failure::layer(LayerName::Probes, 0, "no probes, which would hold it"));
            };
            probes.isolate(run.held.group.id(), on)?;
        } else if on {
            return Err(Failure::not_running(id));
        }
        if before != on {
            note(&agent, ISOLATED, on.then(|| new(ISOLATED, reason, 0)));
            let kind = if on { "agent.isolated" } else { "agent.reconnected" };
            self.told(&agent, kind, &json!({ "reason": reason }));
        }
        Ok(agent.view())
    }

    fn told(&self, agent: &Arc<Agent>, kind: &'static str, detail: &serde_json::Value) {
        if let Err(failure) = self.publish(agent) {
            tracing::error!(agent = %agent.id, tenant = agent.tenant(), code = failure.code.as_str(), %failure, "the agent's record cannot be written");
        }
        limits::tell(self, agent, vec![Entry::new(kind, "allowed", detail)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_never_above_the_agents_own() {
        let throttled = [new(THROTTLED, "rule", 100)];
        assert_eq!(quota(Some(1000), &throttled), Some(100));
        assert_eq!(quota(Some(50), &throttled), Some(50));
        assert_eq!(quota(None, &throttled), Some(100));
        assert_eq!(quota(None, &[]), None);
        assert_eq!(quota(Some(1000), &[new(ISOLATED, "rule", 0)]), Some(1000));
    }

    #[test]
    fn ending_gets_nobody_out_but_of_the_freezer() {
        let all = [new(FROZEN, "a", 0), new(THROTTLED, "b", 1), new(ISOLATED, "c", 0)];
        let kept: Vec<String> = that_stay(&all).into_iter().map(|restraint| restraint.kind).collect();
        assert_eq!(kept, [THROTTLED, ISOLATED]);
        assert!(is_isolated(&that_stay(&all)));
    }
}
