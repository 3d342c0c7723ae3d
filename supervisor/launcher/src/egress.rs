//! Agents with network mode `egress`: their network, their resolver's sockets, and what names add to what they reach.
//!
//! aiond resolves, and is not trusted with it: a name counts only if a rule of the agent has it, an address only if it is
//! public or a rule of addresses names it, and for a bounded time.

use std::net::{IpAddr, Ipv6Addr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use aion_egress::{Name, Rules};
use aion_launcher_proto::v1;
use aion_network::{Attached, Network, Options, RESOLVER};
use aion_probes::NetPolicy;
use aion_sandbox::{NetworkMode, Slot, mounts};
use aion_types::{AgentId, ErrorCode, LayerName, LayerReport, LayerState};

use crate::Failure;
use crate::launcher::Launcher;
use crate::options::RunOptions;
use crate::request::{Launch, Resolved};
use crate::state::{Folder, replace};

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
        let rules = self.egress_rules(&agent)?;
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
        let rules = self.egress_rules(&agent)?;
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
        Ok(v1::ResolvedOk { addresses })
    }

    fn egress_rules(&self, agent: &crate::agent::Agent) -> Result<Rules, Failure> {
        let spec = agent.lock().spec.clone();
        match spec.as_deref() {
            Some(Launch { network: NetworkMode::Egress, egress, .. }) => Ok(egress.clone()),
            _ => Err(Failure::field("id", format!("agent {} has no network of mode egress", agent.id))),
        }
    }
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
