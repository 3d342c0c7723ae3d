//! Agents with network mode `egress`: their network, their resolver's sockets, and what names add to what they reach.
//!
//! aiond resolves, and is not trusted with it: a name counts only if a rule of the agent has it, an address only if it is
//! public or a rule of addresses names it, and for a bounded time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use aion_egress::{Entry as Reached, Name, Rule, Rules};
use aion_launcher_proto::v1;
use aion_network::{Attached, Network, Options, RESOLVER};
use aion_probes::{NetPolicy, Probes};
use aion_sandbox::{NetworkMode, Slot, mounts};
use aion_types::{AgentId, ErrorCode, LayerName, LayerReport, LayerState};
use serde_json::json;

use crate::agent::Agent;
use crate::audit::Entry;
use crate::launcher::Launcher;
use crate::lock::lock;
use crate::options::RunOptions;
use crate::request::{Launch, Resolved};
use crate::state::{Folder, Record, replace};
use crate::{Failure, limits};

/// Names whose entries are known to be theirs.
const MAX_NAMES: usize = 512;
/// How the report of the network begins to say what is withheld.
const WITHHELD: &str = "; withheld: ";
/// A name's answer holds a little longer than its time: a program connects after it has asked.
const GRACE: Duration = Duration::from_secs(5);

impl From<aion_network::Error> for Failure {
    fn from(error: aion_network::Error) -> Self {
        let message = format!("layer network: {error}");
        Self::layer(LayerName::Network, error.errno(), message)
    }
}

/// The networks of this launcher's agents.
pub(crate) fn network(options: &RunOptions, folder: &Folder) -> Result<Network, aion_network::Error> {
    Network::new(Options {
        instance: folder.hash(),
        pool: options.egress_pool.clone(),
        uplinks: options.egress_uplink.clone(),
        record: folder.network(),
    })
}

/// What the probes let an agent through to.
pub(crate) fn policy(network: NetworkMode) -> NetPolicy {
    match network {
        NetworkMode::None => NetPolicy::LoopbackOnly,
        NetworkMode::Host => NetPolicy::AllowAll,
        NetworkMode::Egress => NetPolicy::Egress,
    }
}

/// The sockets of an agent's resolver.
#[derive(Debug)]
pub(crate) struct Resolver {
    udp: UdpSocket,
    tcp: TcpListener,
}

/// What has become of the hosts that an agent was launched with.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    withheld: Vec<Rule>,
    /// The kernel's table could not be made to say so.
    is_behind: bool,
    /// What names added, as far as this launcher saw it.
    names: BTreeMap<Name, BTreeSet<Reached>>,
}

impl Reach {
    /// As an earlier launcher left it.
    pub(crate) fn taken_up(record: &Record) -> Self {
        // What was written was read before; of what cannot be read any more, no rule is one.
        let withheld = record.withheld.iter().filter_map(|rule| rule.parse().ok()).collect();
        Self { withheld, is_behind: record.reach_is_behind, ..Self::default() }
    }

    /// Makes the kernel's table say what is reached now. `keep_names`: also all that names added.
    fn enter(
        &mut self,
        probes: &Probes,
        group: u64,
        launched: &Rules,
        keep_names: bool,
    ) -> Result<(), aion_probes::Error> {
        let rules = self.of(launched);
        let entries = rules.entries();
        let done = match keep_names {
            true => probes.set_reach(group, &entries),
            false => probes.renew_reach(group, &entries, &self.named(&rules)),
        };
        self.is_behind = done.is_err();
        done
    }

    /// Enters the rules of an agent that an earlier launcher left. One that died over a change may have left more than they allow, and
    /// what names added then is nobody's.
    pub(crate) fn take_over(
        &mut self,
        probes: &Probes,
        group: u64,
        launched: &Rules,
    ) -> Result<(), aion_probes::Error> {
        let keep_names = !self.is_behind;
        self.enter(probes, group, launched, keep_names)
    }

    /// The rules that hold now, of those of the launch.
    pub(crate) fn of(&self, launched: &Rules) -> Rules {
        launched.without(&self.withheld)
    }

    fn note(&mut self, name: &Name, entries: Vec<Reached>) {
        if self.names.len() >= MAX_NAMES && !self.names.contains_key(name) {
            // Its entries go when rules are withheld the next time: they could be anybody's.
            self.names.pop_first();
        }
        self.names.entry(name.clone()).or_default().extend(entries);
    }

    /// What names added that they would still add.
    fn named(&self, rules: &Rules) -> BTreeSet<Reached> {
        let still = |(name, entries): (&Name, &BTreeSet<Reached>)| -> Vec<Reached> {
            let would = |entry: &Reached| {
                let address = Ipv6Addr::from(entry.cidr.octets()).to_canonical();
                rules.admit(name, address).is_some_and(|admitted| admitted.contains(entry))
            };
            entries.iter().copied().filter(would).collect()
        };
        self.names.iter().flat_map(still).collect()
    }
}

/// Makes the network of a slot whose agent has mode `egress`.
pub(crate) fn attach(launcher: &Launcher, slot: &Slot) -> Result<Attached, Failure> {
    let gone = || Failure::layer(LayerName::Network, 0, "the slot's init is gone");
    Ok(launcher.network.attach(slot.init_pid(), slot.pidfd().ok_or_else(gone)?)?)
}

/// Opens the agent's resolver before the agent runs: what it asks waits there until somebody answers.
pub(crate) fn resolver(slot: &Slot) -> Result<Resolver, Failure> {
    let gone = || Failure::layer(LayerName::Network, 0, "the slot's init is gone");
    let (udp, tcp) = aion_network::open_resolver(slot.pidfd().ok_or_else(gone)?)?;
    Ok(Resolver { udp, tcp })
}

/// What is reported of it.
pub(crate) fn layer(attached: &Attached, rules: &Rules) -> LayerReport {
    let list: Vec<String> = rules.all().iter().map(ToString::to_string).collect();
    let v6 = match (attached.v6, &attached.no_v6) {
        (Some(v6), _) => format!(", {v6}"),
        (None, why) => format!("; no IPv6: {}", why.as_deref().unwrap_or("it is off")),
    };
    let detail = format!(
        "egress: {}{v6}; {} on the host; names by {}; reaches {}",
        attached.v4,
        attached.link,
        RESOLVER.ip(),
        if list.is_empty() { "nothing".to_owned() } else { list.join(" ") },
    );
    LayerReport { name: LayerName::Network, state: LayerState::Active, detail }
}

/// The agent's `/etc/resolv.conf`, as a mount.
pub(crate) fn resolv_conf(folder: &Folder) -> Result<OwnedFd, Failure> {
    let path = folder.resolv_conf();
    let text = format!("# AION answers names that the agent's rules have.\nnameserver {}\n", RESOLVER.ip());
    if std::fs::read_to_string(&path).ok().as_deref() != Some(text.as_str()) {
        replace(&path, text.as_bytes()).map_err(|e| Failure::state("write", &path, &e))?;
    }
    // Agents read it.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644))
        .map_err(|e| Failure::state("change the mode of", &path, &e))?;
    let file = mounts::open_path(&path, LayerName::Network)?;
    Ok(mounts::read_only(file.as_fd())?)
}

impl Launcher {
    /// The sockets of an agent's resolver, and its rules.
    pub(crate) fn open_resolver(&self, id: &AgentId) -> Result<(v1::ResolverOk, Vec<OwnedFd>), Failure> {
        let (agent, run) = self.running(id)?;
        let rules = lock(&run.reach).of(&launched(&agent)?);
        let (udp, tcp) = match &run.resolver {
            Some(Resolver { udp, tcp }) => {
                let copied = |e: std::io::Error| Failure::internal(format!("cannot copy a socket: {e}"));
                (udp.try_clone().map_err(copied)?, tcp.try_clone().map_err(copied)?)
            }
            // An earlier launcher made them; they are gone when nobody serves them.
            None => {
                let pidfd = run.pidfd().ok_or_else(|| Failure::not_running(id))?;
                aion_network::open_resolver(pidfd.as_fd())?
            }
        };
        let rules = rules.all().iter().map(ToString::to_string).collect();
        Ok((v1::ResolverOk { rules }, vec![udp.into(), tcp.into()]))
    }

    /// Lets an agent reach what one of its names resolved to; answers which of the addresses it may hear of.
    pub(crate) fn resolved(&self, resolved: &Resolved) -> Result<v1::ResolvedOk, Failure> {
        let (agent, run) = self.running(&resolved.id)?;
        let mut reach = lock(&run.reach);
        let rules = reach.of(&launched(&agent)?);
        if !rules.allows_name(&resolved.name) {
            let message = format!("no rule of the agent has the name {}", resolved.name);
            return Err(Failure::new(ErrorCode::PolicyDenied, message));
        }
        let Some(probes) = self.probes.get() else {
            return Err(Failure::layer(LayerName::Probes, 0, "no probes"));
        };
        let mut addresses = Vec::new();
        let mut entries = Vec::new();
        for address in &resolved.addresses {
            let Some(more) = rules.admit(&resolved.name, *address) else { continue };
            entries.extend(more);
            addresses.push(octets(*address));
        }
        probes.reach_for(run.held.group.id(), &entries, resolved.time + GRACE).map_err(
            |error| match error {
                aion_probes::Error::EgressFull { .. } => {
                    Failure::new(ErrorCode::ResourceExhausted, error.to_string())
                }
                error => error.into(),
            },
        )?;
        reach.note(&resolved.name, entries);
        Ok(v1::ResolvedOk { addresses })
    }

    /// Takes hosts of its launch from a running agent, or gives them back. Connections to what is taken are cut. A launcher that dies in
    /// between has written down what is to be, and the next one does it.
    pub(crate) fn withhold(&self, id: &AgentId, withheld: Vec<Rule>) -> Result<v1::AgentState, Failure> {
        let agent = self.agent(id)?;
        let _turn = lock(&agent.turn);
        let run = agent.running().ok_or_else(|| Failure::not_running(id))?;
        let all = launched(&agent)?;
        if let Some(rule) = withheld.iter().find(|rule| !all.all().contains(rule)) {
            return Err(Failure::field("rules", format!("the agent was not launched with {rule}")));
        }
        let mut reach = lock(&run.reach);
        if reach.withheld == withheld && !reach.is_behind {
            return Ok(agent.view());
        }
        let told: Vec<String> = withheld.iter().map(ToString::to_string).collect();
        let before = {
            let mut inner = agent.lock();
            let record = &mut inner.record;
            let before = (record.withheld.clone(), record.agent.layers.clone());
            for layer in record.agent.layers.iter_mut().filter(|l| l.name == LayerName::Network.as_str()) {
                let kept = layer.detail.find(WITHHELD).unwrap_or(layer.detail.len());
                layer.detail.truncate(kept);
                if !told.is_empty() {
                    layer.detail.push_str(&format!("{WITHHELD}{}", told.join(" ")));
                }
            }
            record.withheld.clone_from(&told);
            record.reach_is_behind = true;
            before
        };
        if let Err(failure) = self.publish(&agent) {
            let mut inner = agent.lock();
            (inner.record.withheld, inner.record.agent.layers) = before;
            inner.record.reach_is_behind = reach.is_behind;
            return Err(failure);
        }
        // Where hosts are given back alone, what names added stays, also what an earlier launcher added.
        let only_back = !reach.is_behind && withheld.iter().all(|rule| reach.withheld.contains(rule));
        reach.withheld = withheld;
        // Until the table says so, whatever ends this before.
        reach.is_behind = true;
        let Some(probes) = self.probes.get() else {
            return Err(Failure::layer(LayerName::Probes, 0, "no probes"));
        };
        reach.enter(probes, run.held.group.id(), &all, only_back)?;
        agent.lock().record.reach_is_behind = false;
        if let Err(failure) = self.publish(&agent) {
            // The next launcher does it once more.
            tracing::warn!(agent = %id, tenant = agent.tenant(), code = failure.code.as_str(), %failure, "it is not written down that hosts are withheld by now");
        }
        limits::tell(self, &agent, vec![Entry::new("agent.egress", "allowed", &json!({ "withheld": told }))]);
        Ok(agent.view())
    }
}

fn launched(agent: &Agent) -> Result<Rules, Failure> {
    let spec = agent.lock().spec.clone();
    match spec.as_deref() {
        Some(Launch { network: NetworkMode::Egress, egress, .. }) => Ok(egress.clone()),
        _ => Err(Failure::field("id", format!("agent {} has no network of mode egress", agent.id))),
    }
}

/// Rules as they come.
pub(crate) fn rules(field: &str, texts: &[String]) -> Result<Vec<Rule>, Failure> {
    let rules = Rules::parse(texts).map_err(|why| Failure::field(field, why))?;
    Ok(rules.all().to_vec())
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// An address as it comes: 4 or 16 bytes.
pub(crate) fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        _ => None,
    }
}

/// A name as it comes.
pub(crate) fn name(text: &str) -> Result<Name, Failure> {
    Name::parse(text).map_err(|why| Failure::field("name", why))
}
