//! What this launcher gives at most, whatever it is asked for: aiond may have been taken over.
//!
//! A limit above a ceiling becomes the ceiling, and an agent without a limit gets it; the report of layer `cgroup` says
//! so. Nothing legitimate meets the defaults.

use std::path::Path;

use aion_cgroup::{Controller, Hierarchy};
use aion_types::ErrorCode;

use crate::Failure;
use crate::options::{HostNetwork, RunOptions};
use crate::request::{Launch, Limits};

const MIB: u64 = 1 << 20;

/// The ceilings; `None` is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ceilings {
    pub(crate) agents: usize,
    pub(crate) cpu_millis: Option<u32>,
    pub(crate) mem_bytes: Option<u64>,
    pub(crate) pids: Option<u32>,
    pub(crate) disk_bytes: u64,
    pub(crate) host_network: bool,
    /// Nodes, or folders of them as `/dev/dri/**`.
    pub(crate) devices: Vec<String>,
}

impl Ceilings {
    /// From the options. What the host cannot limit at all has no ceiling: such a limit fails a launch only when it was
    /// asked for.
    pub(crate) fn new(options: &RunOptions, hierarchy: &Hierarchy) -> Self {
        let can = |controller| hierarchy.has(controller);
        let memory = options.max_mem_mib.map_or_else(most_of_the_memory, |mib| mib.saturating_mul(MIB));
        Self {
            agents: usize::try_from(options.max_agents).unwrap_or(usize::MAX),
            cpu_millis: options.max_cpu_millis.filter(|n| *n > 0 && can(Controller::Cpu)),
            mem_bytes: Some(memory).filter(|n| *n > 0 && can(Controller::Memory)),
            pids: Some(options.max_pids).filter(|n| *n > 0 && can(Controller::Pids)),
            disk_bytes: options.max_disk_mib.saturating_mul(MIB),
            host_network: options.host_network == HostNetwork::Allow,
            devices: options.device.clone(),
        }
    }

    /// Lowers what is above; answers which limits that were asked for that concerned.
    pub(crate) fn lower(&self, launch: &mut Launch) {
        let mut lowered = Vec::new();
        let Limits { cpu_millis, mem_bytes, pids, disk_bytes, .. } = &mut launch.limits;
        lower("cpu_millis", cpu_millis, self.cpu_millis, &mut lowered);
        lower("mem_bytes", mem_bytes, self.mem_bytes, &mut lowered);
        lower("pids", pids, self.pids, &mut lowered);
        if disk_bytes.is_some() {
            lower("disk_bytes", disk_bytes, Some(self.disk_bytes), &mut lowered);
        }
        launch.lowered = lowered;
    }

    /// Refuses what this launcher does not do.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` with as many agents as there may be, `POLICY_DENIED` for the host's network and for devices.
    pub(crate) fn check(&self, launch: &Launch, agents: usize) -> Result<(), Failure> {
        if agents >= self.agents {
            let message =
                format!("{agents} agents run, and this launcher has room for no more (--max-agents)");
            return Err(Failure::new(ErrorCode::ResourceExhausted, message));
        }
        if !self.host_network && launch.network == aion_sandbox::NetworkMode::Host {
            let message = "this launcher gives no agent the host's network (--host-network refuse)";
            return Err(Failure::new(ErrorCode::PolicyDenied, message));
        }
        let is_given = |node: &Path| self.devices.iter().any(|named| covers(named, node));
        if let Some(device) = launch.devices.iter().find(|device| !is_given(&device.path)) {
            let node = device.path.display();
            let message = format!("this launcher gives no agent {node}: start it with --device {node}");
            return Err(Failure::new(ErrorCode::PolicyDenied, message));
        }
        Ok(())
    }
}

/// Whether an option names a node, by itself or by a folder.
fn covers(named: &str, node: &Path) -> bool {
    match named.strip_suffix("/**") {
        Some(folder) => node != Path::new(folder) && node.starts_with(folder),
        None => node == Path::new(named),
    }
}

fn lower<T: Copy + PartialOrd>(
    name: &'static str,
    value: &mut Option<T>,
    ceiling: Option<T>,
    lowered: &mut Vec<&'static str>,
) {
    let Some(ceiling) = ceiling else { return };
    match *value {
        Some(asked) if asked <= ceiling => {}
        Some(_) => {
            *value = Some(ceiling);
            lowered.push(name);
        }
        None => *value = Some(ceiling),
    }
}

/// Nine tenths of the host's memory, so that one agent meets its limit before the host has none left. 0 when it is not
/// known.
fn most_of_the_memory() -> u64 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib =
        |line: &str| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok();
    info.lines().find_map(kib).map_or(0, |kib| kib.saturating_mul(1024) / 10 * 9)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aion_sandbox::NetworkMode;

    fn ceilings() -> Ceilings {
        Ceilings {
            agents: 2,
            cpu_millis: None,
            mem_bytes: Some(1 << 30),
            pids: Some(100),
            disk_bytes: 1 << 32,
            host_network: false,
            devices: Vec::new(),
        }
    }

    fn launch() -> Launch {
        let mut launch = Launch::check(&crate::request::tests_usual()).unwrap();
        launch.limits = Limits::default();
        launch
    }

    #[test]
    fn what_is_above_is_lowered_and_what_is_not_limited_gets_a_limit() {
        let mut launch = launch();
        launch.limits = Limits { mem_bytes: Some(1 << 31), cpu_millis: Some(9000), ..Limits::default() };
        ceilings().lower(&mut launch);
        assert_eq!(launch.limits.mem_bytes, Some(1 << 30));
        assert_eq!((launch.limits.pids, launch.limits.cpu_millis), (Some(100), Some(9000)));
        assert_eq!(
            launch.limits.disk_bytes, None,
            "a folder of the host would need a limit that it cannot have"
        );
        assert_eq!(launch.lowered, ["mem_bytes"]);
        launch.limits.disk_bytes = Some(1 << 40);
        launch.limits.mem_bytes = Some(1 << 20);
        ceilings().lower(&mut launch);
        assert_eq!((launch.limits.disk_bytes, launch.limits.mem_bytes), (Some(1 << 32), Some(1 << 20)));
        assert_eq!(launch.lowered, ["disk_bytes"]);
    }

    #[test]
    fn the_hosts_network_and_one_agent_too_many_are_refused() {
        let mut launch = launch();
        assert_eq!(ceilings().check(&launch, 1), Ok(()));
        assert_eq!(ceilings().check(&launch, 2).unwrap_err().code, ErrorCode::ResourceExhausted);
        launch.network = NetworkMode::Host;
        assert_eq!(ceilings().check(&launch, 0).unwrap_err().code, ErrorCode::PolicyDenied);
        assert_eq!(Ceilings { host_network: true, ..ceilings() }.check(&launch, 0), Ok(()));
    }

    #[test]
    fn devices_are_given_by_name_and_by_folder_and_none_unasked() {
        let mut raw = crate::request::tests_usual();
        raw.devices = vec![aion_launcher_proto::v1::Device { path: "/dev/dri/card0".into(), writable: true }];
        let launch = Launch::check(&raw).unwrap();
        let check = |named: &[&str]| {
            let devices = named.iter().map(|node| (*node).to_owned()).collect();
            Ceilings { devices, ..ceilings() }.check(&launch, 0).map_err(|refused| refused.code)
        };
        for named in [&["/dev/dri/card0"][..], &["/dev/kvm", "/dev/dri/**"], &["/dev/**"]] {
            assert_eq!(check(named), Ok(()), "{named:?}");
        }
        for named in [&[][..], &["/dev/dri"], &["/dev/dri/card"], &["/dev/dr/**"], &["/dev/dri/card0/**"]] {
            assert_eq!(check(named), Err(ErrorCode::PolicyDenied), "{named:?}");
        }
    }

    #[test]
    fn the_host_has_memory() {
        assert!(most_of_the_memory() > 64 * MIB);
    }
}
