//! Everything the threads share: the agents, the pool, the probes, the audit log.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use aion_probes::Probes;
use aion_types::{AgentId, ErrorCode};
use aion_volumes::Volumes;

use crate::Failure;
use crate::agent::Agent;
use crate::audit::{Allowance, AuditLog, Shared};
use crate::ceilings::Ceilings;
use crate::drain::Drain;
use crate::exits::Exits;
use crate::grams::Grams;
use crate::hub::Hub;
use crate::lock::{lock, read, write};
use crate::profiles::Profiles;
use crate::slots::Slots;
use crate::state::{Folder, GivenDevice, Group, StoredAgents};

/// How long a killed group may take to be empty and cleaned up.
pub(crate) const END_PATIENCE: Duration = Duration::from_secs(30);

/// The launcher.
#[derive(Debug)]
pub(crate) struct Launcher {
    pub(crate) folder: Folder,
    pub(crate) group: Group,
    /// aiond's user; root where this host has none.
    pub(crate) user: u32,
    pub(crate) boot_id: String,
    pub(crate) epoch: u64,
    pub(crate) table: StoredAgents,
    pub(crate) agents: RwLock<HashMap<AgentId, Arc<Agent>>>,
    /// Whose records they are, by cgroup id.
    pub(crate) owners: RwLock<HashMap<u64, Arc<Owner>>>,
    pub(crate) slots: Arc<Slots>,
    pub(crate) volumes: Option<Arc<Volumes>>,
    pub(crate) profiles: Profiles,
    pub(crate) probes: ProbesState,
    pub(crate) audit: AuditLog,
    pub(crate) ceilings: Ceilings,
    pub(crate) network: aion_network::Network,
    pub(crate) wasm_runner: PathBuf,
    /// Records a second that one connection may append, and what all may.
    pub(crate) append_rate: (u32, Shared),
    pub(crate) hub: Arc<Hub>,
    pub(crate) exits: Exits,
    pub(crate) drain: Drain,
    pub(crate) grams: Grams,
    /// Held while the set of agents changes, so that one id is launched once.
    pub(crate) births: Mutex<()>,
}

/// The probes, or why there are none.
#[derive(Debug)]
pub(crate) enum ProbesState {
    /// They are loaded.
    Loaded {
        probes: Arc<Probes>,
        /// What became of each program.
        report: aion_probes::Report,
    },
    /// They are not.
    Missing {
        /// Why.
        reason: String,
    },
}

impl ProbesState {
    pub(crate) fn get(&self) -> Option<&Arc<Probes>> {
        match self {
            Self::Loaded { probes, .. } => Some(probes),
            Self::Missing { .. } => None,
        }
    }

    /// Whether BPF LSM programs are attached.
    pub(crate) fn lsm(&self) -> Result<(), String> {
        match self {
            Self::Missing { reason } => Err(reason.clone()),
            Self::Loaded { report, .. } => lsm_of(report),
        }
    }
}

fn lsm_of(report: &aion_probes::Report) -> Result<(), String> {
    let mut reason = "the object has no LSM programs".to_owned();
    for program in report.programs.iter().filter(|p| p.name.starts_with("lsm")) {
        match &program.state {
            aion_probes::ProgramState::Attached => return Ok(()),
            aion_probes::ProgramState::Unavailable { reason: why } => reason.clone_from(why),
            aion_probes::ProgramState::OnDemand => {}
        }
    }
    Err(reason)
}

/// Whose a kernel record is.
#[derive(Debug)]
pub(crate) struct Owner {
    pub(crate) id: String,
    pub(crate) tenant: String,
    /// For the rule of a denied call.
    pub(crate) profile: String,
    /// For the rule of a withheld file, by its number.
    pub(crate) files: Vec<String>,
    /// For the name of a device, by its number.
    pub(crate) devices: Vec<GivenDevice>,
}

impl Launcher {
    /// An agent by its id.
    pub(crate) fn agent(&self, id: &AgentId) -> Result<Arc<Agent>, Failure> {
        let found = read(&self.agents).get(id).cloned();
        found.ok_or_else(|| Failure::new(ErrorCode::AgentNotFound, format!("no agent {id}")))
    }

    /// What a new connection may append to the audit log.
    pub(crate) fn allowance(&self) -> Allowance {
        let (rate, shared) = &self.append_rate;
        Allowance::new(*rate, shared.clone())
    }

    /// All agents, oldest first.
    pub(crate) fn all(&self) -> Vec<Arc<Agent>> {
        let mut all: Vec<_> = read(&self.agents).values().cloned().collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// The agent of this id, made by `make` when there is none.
    pub(crate) fn agent_or(&self, id: &AgentId, make: impl FnOnce() -> Arc<Agent>) -> Arc<Agent> {
        let _birth = lock(&self.births);
        if let Some(agent) = read(&self.agents).get(id) {
            return Arc::clone(agent);
        }
        let agent = make();
        write(&self.agents).insert(id.clone(), Arc::clone(&agent));
        agent
    }

    /// From now on the records of this group are the agent's.
    pub(crate) fn own(&self, cgroup_id: u64, owner: Owner) {
        let first = {
            let mut owners = write(&self.owners);
            owners.insert(cgroup_id, Arc::new(owner));
            owners.len() == 1
        };
        // While no agent runs the drain thread sleeps.
        if first {
            self.drain.poke();
        }
    }

    pub(crate) fn disown(&self, cgroup_id: u64) {
        write(&self.owners).remove(&cgroup_id);
    }

    /// Writes an agent's record and tells the watchers.
    pub(crate) fn publish(&self, agent: &Agent) -> Result<(), Failure> {
        let (record, view) = {
            let inner = agent.lock();
            (inner.record.clone(), inner.view())
        };
        let written = self.table.write_record(&agent.id, &record);
        self.hub.tell(aion_launcher_proto::v1::notice::Kind::Agent(view));
        written
    }
}
