//! The command line. Each option is also an environment variable.

use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand, ValueEnum};
use nix::unistd::{Gid, Group, Uid, User};

/// The privileged half of AION: owns the agents' processes, control groups, probes and the audit log.
///
/// Agents outlive it: stopped or killed, it leaves them running, denied what they were denied, and adopts them
/// when it is started again with the same state folder.
#[derive(Debug, Parser)]
#[command(name = "aion-launcher", version, max_term_width = 100)]
pub struct Options {
    /// Something else than to run
    #[command(subcommand)]
    pub command: Option<Action>,
    /// How to run
    #[command(flatten)]
    pub run: RunOptions,
}

/// Something else than to run.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Keep the control group that a service manager delegated for agents, while launchers come and go. Starts and serves nothing.
    Hold,
    /// Kill every agent of a state folder and remove its control groups, volumes and pinned probes.
    /// Works while no launcher runs. Output, exits and the audit log stay.
    Purge {
        /// The state folder
        #[arg(long, env = "AION_STATE", value_name = "DIR", default_value = "/var/lib/aion")]
        state: PathBuf,
        /// Ask the agents to end first (SIGTERM), and give them so long to write their checkpoints
        #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=600))]
        grace: u16,
    },
}

/// How to run.
#[derive(Debug, Clone, Parser)]
pub struct RunOptions {
    /// The state folder
    #[arg(long, env = "AION_STATE", value_name = "DIR", default_value = "/var/lib/aion")]
    pub state: PathBuf,
    /// The static aion-init binary [default: beside this program, else /usr/libexec/aion/aion-init]
    #[arg(long, env = "AION_INIT", value_name = "PATH")]
    pub init: Option<PathBuf>,
    /// The folder of profiles; seccomp profiles are in its folder "seccomp"
    #[arg(long, env = "AION_PROFILES", value_name = "DIR", default_value = "/usr/share/aion/profiles")]
    pub profiles: PathBuf,
    /// The user that aiond runs as (name or number); root may always connect
    #[arg(long, env = "AION_USER", value_name = "USER", default_value = "aion")]
    pub user: String,
    /// The group that may read output and the audit log (name or number)
    #[arg(long, env = "AION_GROUP", value_name = "GROUP", default_value = "aion")]
    pub group: String,
    /// The socket [default: STATE/run/launcher.sock]
    #[arg(long, env = "AION_LAUNCHER_SOCKET", value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// The BPF object [default: aion-probes.bpf.o beside this program, else in /usr/lib/aion]
    #[arg(long, env = "AION_BPF_OBJECT", value_name = "PATH")]
    pub bpf_object: Option<PathBuf>,
    /// The control group that holds all agents, below the cgroup mount points [default: aion-HASH, of the
    /// state folder]
    #[arg(long, env = "AION_CGROUP", value_name = "NAME")]
    pub cgroup: Option<String>,
    /// How many slots (and volumes) are kept ready
    #[arg(long, env = "AION_POOL", value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(0..=256))]
    pub pool: u16,
    /// Size of the ring buffer of the probes in MiB, a power of two
    #[arg(long, env = "AION_RING_MIB", value_name = "MIB", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub ring_mib: u32,
    /// Remove the oldest segments of the audit log when it has more MiB than this; 0 keeps everything
    #[arg(long, env = "AION_AUDIT_MAX_MIB", value_name = "MIB", default_value_t = 8192)]
    pub audit_max_mib: u64,
    /// Records a second that one connection may add to the audit log; ten times as many at once
    #[arg(long, env = "AION_AUDIT_APPEND_RATE", value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub audit_append_rate: u32,
    /// Agents that may run at once
    #[arg(long, env = "AION_MAX_AGENTS", value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=8000))]
    pub max_agents: u32,
    /// Memory of one agent at most, whatever it asks for; 0 is no ceiling [default: nine tenths of the host's]
    #[arg(long, env = "AION_MAX_MEM_MIB", value_name = "MIB")]
    pub max_mem_mib: Option<u64>,
    /// Processes of one agent at most; 0 is no ceiling
    #[arg(long, env = "AION_MAX_PIDS", value_name = "N", default_value_t = 32_768)]
    pub max_pids: u32,
    /// Thousandths of a processor for one agent at most [default: all processors]
    #[arg(long, env = "AION_MAX_CPU_MILLIS", value_name = "N")]
    pub max_cpu_millis: Option<u32>,
    /// Size of one managed workspace at most, and of one without a limit
    #[arg(long, env = "AION_MAX_DISK_MIB", value_name = "MIB", default_value_t = 1_048_576, value_parser = clap::value_parser!(u64).range(16..=1_073_741_824))]
    pub max_disk_mib: u64,
    /// Whether an agent may have the host's network when its manifest asks for it
    #[arg(long, env = "AION_HOST_NETWORK", value_name = "WHETHER", default_value = "allow")]
    pub host_network: HostNetwork,
    /// A device that agents may be given, as /dev/dri/renderD128 or /dev/dri/**; can be given several times [default: none]
    #[arg(long, env = "AION_DEVICES", value_name = "NODE", value_delimiter = ',')]
    pub device: Vec<String>,
    /// Addresses of agents with network mode egress, as 100.96.0.0/16 [default: a private block that no route of the host
    /// leads to]
    #[arg(long, env = "AION_EGRESS_POOL", value_name = "BLOCK")]
    pub egress_pool: Option<String>,
    /// A link that leads agents with network mode egress out; can be given several times [default: those of the default
    /// routes]
    #[arg(long, env = "AION_EGRESS_UPLINK", value_name = "LINK", value_delimiter = ',')]
    pub egress_uplink: Vec<String>,
    /// Kill every agent at the end, and remove everything
    #[arg(long, env = "AION_STOP_AGENTS_ON_EXIT")]
    pub stop_agents_on_exit: bool,
    /// How to write the log: to standard error, or to systemd's journal with fields to ask for, as AION_AGENT= and AION_TENANT=;
    /// AION_LOG sets its level
    #[arg(long, env = "AION_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// Whether an agent may have the host's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum HostNetwork {
    /// Yes; each time is recorded
    Allow,
    /// No agent gets it
    Refuse,
}

/// How the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people
    Text,
    /// One JSON object a line
    Json,
    /// Entries of systemd's journal
    Journald,
}

impl RunOptions {
    pub(crate) fn init_path(&self) -> PathBuf {
        self.init.clone().unwrap_or_else(|| beside("aion-init", "/usr/libexec/aion/aion-init"))
    }

    /// The program that runs WebAssembly tools: the one of AION's own that a tool may see.
    pub(crate) fn wasm_runner() -> PathBuf {
        beside("aion-wasm", "/usr/libexec/aion/aion-wasm")
    }

    pub(crate) fn bpf_path(&self) -> PathBuf {
        self.bpf_object
            .clone()
            .unwrap_or_else(|| beside("aion-probes.bpf.o", "/usr/lib/aion/aion-probes.bpf.o"))
    }

    /// aiond's user; `None` when this host has none of that name, so that only root connects.
    pub(crate) fn uid(&self) -> anyhow::Result<Option<Uid>> {
        if let Ok(number) = self.user.parse() {
            return Ok(Some(Uid::from_raw(number)));
        }
        Ok(User::from_name(&self.user)?.map(|user| user.uid))
    }

    /// The readers' group; root's when this host has none of that name.
    pub(crate) fn gid(&self) -> anyhow::Result<Gid> {
        if let Ok(number) = self.group.parse() {
            return Ok(Gid::from_raw(number));
        }
        Ok(Group::from_name(&self.group)?.map_or(Gid::from_raw(0), |group| group.gid))
    }
}

fn beside(name: &str, installed: &str) -> PathBuf {
    let exe = std::env::current_exe().unwrap_or_default();
    // Beside it, or beside its folder `bin`.
    let near = exe.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|path| path.is_file());
    near.unwrap_or_else(|| Path::new(installed).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
    }
}
