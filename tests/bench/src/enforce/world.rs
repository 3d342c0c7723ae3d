//! A host and what lies beyond it, in network namespaces of the benchmark's own, and a pair of daemons on that host.
//!
//! Beyond it are a name server and somebody who takes connections. Where the kernel has no nf_tables or no links for that, the host
//! stands alone, and its agents can have its own network at most.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockProtocol, SockType, listen, socket};

use super::names;
use super::space::Space;
use crate::schedule::aion::{Daemons, Ground, Settings, clone_dir, copy};

/// The host, and what is beside it: the name server, and the way to all else.
const HOST: &str = "45.90.0.1";
const BEYOND: &str = "45.90.0.9";
/// Who takes connections, on [`GATE`] to let them go at once.
pub(crate) const SERVER: &str = "45.90.1.20";
pub(crate) const GATE: &str = "80";
const GATE_PORT: u16 = 80;
/// Nobody: to connect a datagram socket makes no packet.
pub(crate) const NOBODY: &str = "45.92.0.1";
pub(crate) const NOBODYS: &str = "45.92.0.0/16";
const RULES: &str = "agent.capabilities.yaml";
const WIRE: Duration = Duration::from_secs(10);

/// Which detections the daemons have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detections {
    Shipped,
    None,
}

/// All of it.
#[derive(Debug)]
pub(crate) struct World {
    // Ended before the host goes on which they stand.
    pub(crate) daemons: Daemons,
    pub(crate) host: Space,
    beyond: Result<Space, String>,
    policies: PathBuf,
}

impl World {
    /// A host with something beyond it, if this kernel can.
    pub(crate) async fn start(folder: &Path, detections: Detections) -> Result<Self> {
        let host = Space::new()?;
        let beyond = reach(&host).map_err(|error| format!("{error:#}"));
        Self::on(folder, detections, host, beyond).await
    }

    /// A host that stands alone.
    pub(crate) async fn alone(folder: &Path, detections: Detections) -> Result<Self> {
        Self::on(folder, detections, Space::new()?, Err("this host stands alone".to_owned())).await
    }

    async fn on(
        folder: &Path,
        detections: Detections,
        host: Space,
        beyond: Result<Space, String>,
    ) -> Result<Self> {
        if beyond.is_err() {
            lead_nowhere(&host)?;
        }
        let policies = folder.join("policies");
        copy(&clone_dir()?.join("policies"), &policies)?;
        if detections == Detections::None {
            fs::remove_dir_all(policies.join("detections"))?;
            fs::create_dir(policies.join("detections"))?;
        }
        let ground = Ground {
            netns: Some(host.path()),
            policies: Some(policies.clone()),
            dns: beyond.is_ok().then(|| BEYOND.to_owned()),
        };
        let settings = Settings { slots: 1, min_run_ms: 0 };
        let daemons = Daemons::start_on(folder, settings, ground).await?;
        Ok(Self { daemons, host, beyond, policies })
    }

    /// What lies beyond the host; an error says why there is nothing, and so no network mode `egress`.
    pub(crate) fn beyond(&self) -> Result<&Space> {
        self.beyond.as_ref().map_err(|why| anyhow!("no network mode egress here: {why}"))
    }

    /// Puts the shipped rules in place, with one more that denies. They are read when aiond is asked to.
    pub(crate) fn deny(&self, rule: Option<&str>) -> Result<()> {
        let shipped = fs::read_to_string(clone_dir()?.join("policies").join(RULES))?;
        let text = rule.map_or_else(|| shipped.clone(), |rule| denying(&shipped, rule));
        // As a whole, as an editor does it.
        fs::write(self.policies.join("new"), text)?;
        fs::rename(self.policies.join("new"), self.policies.join(RULES))?;
        Ok(())
    }

    /// Ends all of it and leaves nothing.
    pub(crate) fn finish(self) -> Result<()> {
        self.daemons.finish()
    }
}

fn denying(shipped: &str, rule: &str) -> String {
    shipped.replacen("\ndeny:\n", &format!("\ndeny:\n  - {rule}\n"), 1)
}

/// A way for addresses of which nothing is sent.
pub(crate) fn lead_nowhere(host: &Space) -> Result<()> {
    host.ip(&format!("route add {NOBODYS} dev lo")).map(drop)
}

/// Makes what lies beyond a host, and the way there.
fn reach(host: &Space) -> Result<Space> {
    let protocol = SockProtocol::NetlinkNetFilter;
    socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)
        .context("this kernel has no nf_tables, and no module of it is at hand")?;
    let beyond = Space::new()?;
    host.ip(&format!("link add up0 type veth peer name wire netns {}", beyond.path().display()))
        .context("this kernel has no veth")?;
    host.ip(&format!("addr add {HOST}/24 dev up0"))?;
    host.ip("link set up0 up")?;
    beyond.ip(&format!("addr add {BEYOND}/24 dev wire"))?;
    beyond.ip("link set wire up")?;
    beyond.ip(&format!("addr add {SERVER}/32 dev lo"))?;
    host.ip(&format!("route add default via {BEYOND}"))?;
    let begun = Instant::now();
    while beyond.ip("-br link show wire")?.split_whitespace().nth(1) != Some("UP") {
        if begun.elapsed() > WIRE {
            bail!("the wire between the host and what lies beyond it stays down");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    beyond.run(|| {
        names::serve(UdpSocket::bind((BEYOND, 53)).context("a name server")?);
        let gate = server(GATE_PORT)?;
        // Until the benchmark ends; each connection is let go at once.
        std::thread::spawn(move || gate.incoming().for_each(drop));
        Ok(())
    })?;
    Ok(beyond)
}

/// Takes connections beyond the host, where this is called. As many wait as the kernel lets: one that finds no room comes again after a second.
pub(crate) fn server(port: u16) -> Result<TcpListener> {
    let listener = TcpListener::bind((SERVER, port)).context("a server")?;
    listen(&listener, Backlog::MAXALLOWABLE).context("a server")?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::denying;

    #[test]
    fn the_shipped_rules_take_one_more() {
        let shipped = include_str!("../../../../policies/agent.capabilities.yaml");
        let text = denying(shipped, "net:connect:45.90.1.0/24:*");
        let rule = text.find("\n  - net:connect:45.90.1.0/24:*\n").unwrap();
        assert!(text.find("\ndeny:\n").unwrap() < rule && text.contains("fs:read:/etc/shadow"));
    }
}
