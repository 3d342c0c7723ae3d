//! What can go wrong with the probes.

use std::io;
use std::path::PathBuf;

/// An error of the probes.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object cannot be read.
    #[error("cannot read the BPF object {}", path.display())]
    Object {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A folder or file of the BPF file system, or the cgroup, cannot be used.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel or the loader refused the object or its maps.
    #[error("cannot load the BPF object")]
    Load {
        /// Why.
        #[source]
        source: Box<aya::EbpfError>,
    },
    /// A program that every agent needs cannot be loaded or attached.
    #[error("cannot attach the program {program}")]
    Attach {
        /// Its name.
        program: &'static str,
        /// Why.
        #[source]
        source: Box<aya::programs::ProgramError>,
    },
    /// A pinned link cannot be opened or pinned.
    #[error("cannot {action} the link of {program}")]
    Link {
        /// Whose link.
        program: String,
        /// What was tried.
        action: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A map cannot be opened, read or written.
    #[error("cannot {action} the map {map}")]
    Map {
        /// Its name.
        map: &'static str,
        /// What was tried.
        action: &'static str,
        /// Why.
        #[source]
        source: Box<aya::maps::MapError>,
    },
    /// The object lacks a map or program of this name.
    #[error("the BPF object has no {what} {name}")]
    Missing {
        /// `map` or `program`.
        what: &'static str,
        /// Its name.
        name: &'static str,
    },
    /// All entries are taken.
    #[error("the probes know {max} agents already")]
    Full {
        /// How many fit.
        max: u32,
    },
    /// An agent reaches too much at once.
    #[error(
        "the agent with cgroup id {cgroup_id} reaches {max} addresses already; fewer names or shorter answers fit"
    )]
    EgressFull {
        /// The agent.
        cgroup_id: u64,
        /// How many fit.
        max: usize,
    },
    /// What agents use is kept for an hour, also of those that ended.
    #[error(
        "there are too many agents with network limits within the hour: {max} limits fit; wait, or launch with fewer"
    )]
    LimitsFull {
        /// How many fit.
        max: u32,
    },
    /// Too much is withheld from an agent at once.
    #[error("the agent with cgroup id {cgroup_id} can be withheld {max} files and folders at most")]
    WithheldFull {
        /// The agent.
        cgroup_id: u64,
        /// How many fit.
        max: usize,
    },
    /// An agent has too many devices.
    #[error("the agent with cgroup id {cgroup_id} can have {max} devices at most")]
    DevicesFull {
        /// The agent.
        cgroup_id: u64,
        /// How many fit.
        max: usize,
    },
    /// The kernel cannot withhold files from a running agent.
    #[error("this kernel lacks a BPF LSM hook that withholding files needs")]
    NoFileHooks,
    /// The agent is not in the maps.
    #[error("no agent with cgroup id {cgroup_id}")]
    UnknownAgent {
        /// The id that was asked for.
        cgroup_id: u64,
    },
    /// An agent with this cgroup id is there already, with another configuration.
    #[error("an agent with cgroup id {cgroup_id} is there already")]
    AgentExists {
        /// The id.
        cgroup_id: u64,
    },
    /// An option makes no sense.
    #[error("option {option} cannot be {value}")]
    Option {
        /// Its name.
        option: &'static str,
        /// What was given.
        value: String,
    },
}
