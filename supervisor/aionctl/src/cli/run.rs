//! `run`: its flags are also the shortest manifest there is.

use std::path::PathBuf;
use std::time::Duration;

use aion_types::{ByteSize, CpuMillis, LayerName};
use clap::{Args, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  aionctl run -- python3 -c 'print(2 ** 100)'
  aionctl run --rm --workspace . --memory 256Mi --timeout 2m -- node index.js
  aionctl run -f agent.yml --detach

Without a manifest the defaults are safe: no network, one CPU, 512 MiB of memory, 256
processes, 1 GiB of disk, and the seccomp profile default-restrictive.

SIGINT, SIGTERM, SIGHUP and SIGQUIT go to the agent; a second SIGINT within two seconds kills
it. With --tty the keys ctrl-p ctrl-q leave the agent running and return.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RunArgs {
    /// Take the agent from this manifest ('-': from stdin); the flags below change it
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// The agent's name; two random words when there is none
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Forget the agent when it has ended
    #[arg(long)]
    pub(crate) rm: bool,
    /// Print the agent's id and leave it running
    #[arg(short, long, conflicts_with = "tty")]
    pub(crate) detach: bool,
    /// Give the agent a terminal: this one
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Show this folder writable at /workspace, the working directory
    #[arg(short, long, value_name = "DIR", help_heading = "Agent")]
    pub(crate) workspace: Option<PathBuf>,
    /// Show the workspace read-only
    #[arg(long, help_heading = "Agent")]
    pub(crate) read_only_workspace: bool,
    /// Use this folder as the agent's root file system, read-only
    #[arg(long, value_name = "DIR", help_heading = "Agent")]
    pub(crate) rootfs: Option<PathBuf>,
    /// Set a variable of the agent's environment; NAME alone takes its value from here
    #[arg(short, long = "env", value_name = "NAME[=VALUE]", help_heading = "Agent")]
    pub(crate) env: Vec<String>,
    /// Label the agent
    #[arg(short, long = "label", value_name = "KEY=VALUE", value_parser = pair, help_heading = "Agent")]
    pub(crate) labels: Vec<(String, String)>,
    /// Give the agent this secret at /run/secrets/NAME
    #[arg(long = "secret", value_name = "NAME", help_heading = "Agent")]
    pub(crate) secrets: Vec<String>,
    /// Allow something more, as fs:read:/data/** or exec:/usr/bin/git
    #[arg(long = "allow", value_name = "RULE", help_heading = "Agent")]
    pub(crate) allow: Vec<String>,
    /// What to do when the agent ends: never, on-failure, always
    #[arg(long, value_name = "POLICY", help_heading = "Agent", conflicts_with = "rm")]
    pub(crate) restart: Option<String>,
    /// Processors, as 0.5, 2 or 1500m
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub(crate) cpus: Option<CpuMillis>,
    /// Memory, as 512Mi
    #[arg(short, long, value_name = "SIZE", help_heading = "Limits")]
    pub(crate) memory: Option<ByteSize>,
    /// Processes and threads
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub(crate) pids: Option<u32>,
    /// Disk in the managed workspace and the private folders, as 1Gi
    #[arg(long, value_name = "SIZE", help_heading = "Limits")]
    pub(crate) disk: Option<ByteSize>,
    /// The largest file, as 100Mi
    #[arg(long, value_name = "SIZE", help_heading = "Limits")]
    pub(crate) file_size: Option<ByteSize>,
    /// Open files of one process
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub(crate) open_files: Option<u32>,
    /// Wall clock, as 90s or 1h; the agent is killed when it is over
    #[arg(long, value_name = "TIME", value_parser = span, help_heading = "Limits")]
    pub(crate) timeout: Option<Duration>,
    /// The network the agent sees
    #[arg(long, value_name = "MODE", help_heading = "Isolation")]
    pub(crate) network: Option<NetworkMode>,
    /// What the probes tell of the agent; `strict` can be given beside another mode
    #[arg(long, value_name = "MODE", value_delimiter = ',', help_heading = "Isolation")]
    pub(crate) audit: Vec<AuditMode>,
    /// The system calls that are allowed, by the profile's name
    #[arg(long, value_name = "NAME", help_heading = "Isolation")]
    pub(crate) seccomp_profile: Option<String>,
    /// The class of limits, by the profile's name
    #[arg(long, value_name = "NAME", help_heading = "Isolation")]
    pub(crate) cgroup_profile: Option<String>,
    /// Start even when this layer cannot be set up in full
    #[arg(long = "allow-degraded", value_name = "LAYER", value_parser = layer, help_heading = "Isolation")]
    pub(crate) allow_degraded: Vec<LayerName>,
    /// The program and its arguments; with -f they replace the manifest's
    #[arg(trailing_var_arg = true, value_name = "CMD", required_unless_present = "file")]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum NetworkMode {
    /// An empty network of its own
    None,
    /// Its own, with a way out to what `--allow net:connect:HOST:PORT` names
    Egress,
    /// The host's network
    Host,
}

impl NetworkMode {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Egress => "egress",
            Self::Host => "host",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AuditMode {
    /// Programs, processes, connections, files opened for writing, denials
    Events,
    /// And how often each system call was made
    Count,
    /// And how long they took
    Latency,
    /// And one event for each system call
    Full,
    /// Freeze the agent before an event of its would be lost
    Strict,
}

impl AuditMode {
    /// The mode's word; `strict` is none.
    pub(crate) const fn mode(self) -> Option<&'static str> {
        match self {
            Self::Events => Some("events"),
            Self::Count => Some("count"),
            Self::Latency => Some("latency"),
            Self::Full => Some("full"),
            Self::Strict => None,
        }
    }
}

/// KEY=VALUE with a key.
fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

fn layer(text: &str) -> Result<LayerName, String> {
    text.parse().map_err(|()| {
        let known: Vec<&str> = LayerName::ALL.iter().map(|layer| layer.as_str()).collect();
        format!("no such layer; there are {}", known.join(", "))
    })
}

pub(super) fn span(text: &str) -> Result<Duration, String> {
    let length = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            humantime::parse_duration(text).map_err(|_| "write a length of time as 90s, 5m or 1h30m")?
        }
    };
    if length.is_zero() { Err("it is zero".to_owned()) } else { Ok(length) }
}
