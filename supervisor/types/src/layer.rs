//! The layers of isolation, by name, and what became of each when an agent was launched.

use serde::{Deserialize, Serialize};

macro_rules! layers {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// A layer of isolation. The order is the order of set-up.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
        #[serde(rename_all = "kebab-case")]
        pub enum LayerName { $($(#[$doc])* #[serde(rename = $text)] $variant,)* }

        impl LayerName {
            /// All of them, in order of set-up.
            pub const ALL: &'static [LayerName] = &[$(LayerName::$variant),*];

            /// The name as manifests, `inspect` and errors show it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(LayerName::$variant => $text),* }
            }
        }

        impl std::str::FromStr for LayerName {
            type Err = ();
            fn from_str(text: &str) -> Result<Self, ()> {
                match text { $($text => Ok(LayerName::$variant),)* _ => Err(()) }
            }
        }
    };
}

layers! {
    /// The agent's own cgroup, with its limits.
    Cgroup = "cgroup",
    /// user, mount, pid, net, ipc, uts, cgroup and time namespaces.
    Namespaces = "namespaces",
    /// cgroup-BPF programs and the agent's entry in the probes' maps.
    Probes = "probes",
    /// The agent's root: read-only system, private /proc, /dev, /tmp, pivot_root.
    Rootfs = "rootfs",
    /// The device nodes in the agent's /dev, and the program that holds it to them.
    Devices = "devices",
    /// The writable workspace, and who owns what is made in it.
    Workspace = "workspace",
    /// The limit on what the agent may store.
    Disk = "disk",
    /// The network mode.
    Network = "network",
    /// rlimits.
    Rlimits = "rlimits",
    /// An empty session keyring and no inherited descriptor.
    Session = "session",
    /// Empty capability sets and bounding set.
    Capabilities = "capabilities",
    /// no_new_privs.
    NoNewPrivs = "no-new-privs",
    /// The Landlock domain.
    Landlock = "landlock",
    /// The seccomp filter.
    Seccomp = "seccomp",
    /// BPF LSM hooks, where the kernel has them.
    Lsm = "lsm",
}

impl std::fmt::Display for LayerName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What became of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LayerState {
    /// Set up, as asked.
    Active,
    /// Set up in part, or not at all, with the manifest's explicit leave (`allow_degraded`).
    Degraded,
    /// This kernel does not have it, and nothing asked for it by name.
    Unavailable,
    /// Not asked for.
    Off,
}

impl LayerState {
    /// The word that `inspect` shows.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Degraded => "degraded",
            Self::Unavailable => "unavailable",
            Self::Off => "off",
        }
    }
}

/// One layer of one agent, as set up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerReport {
    /// Which layer.
    pub name: LayerName,
    /// What became of it.
    pub state: LayerState,
    /// What exactly, for people.
    pub detail: String,
}

/// Short form of [`LayerReport`], for matching in tests and code.
pub type Layer = LayerReport;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for &layer in LayerName::ALL {
            assert_eq!(layer.as_str().parse(), Ok(layer));
        }
        assert_eq!("Seccomp".parse::<LayerName>(), Err(()));
    }
}
