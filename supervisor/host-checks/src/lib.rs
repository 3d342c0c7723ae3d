//! What this host's kernel gives each layer of isolation, what is missing, and how to get it.
//!
//! Read-only: looks at /proc, /sys and the answers of a few harmless system calls. Neighbours: `aion-launcher` answers
//! `aionctl doctor` with it. A check never fails; what cannot be found out is told as degraded with the reason.

mod bpf;
mod checks;
mod kernel;

pub use kernel::Release;

/// How well a host serves a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// All of it is there.
    Ok,
    /// Works, with something less.
    Degraded,
    /// The layer cannot be had.
    Missing,
}

impl State {
    /// The word that `doctor` shows.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Missing => "missing",
        }
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it is.
    pub state: State,
    /// What was found.
    pub detail: String,
    /// What to do; empty when nothing is to be done.
    pub fix: String,
}

impl Check {
    pub(crate) fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, state: State::Ok, detail: detail.into(), fix: String::new() }
    }

    pub(crate) fn degraded(name: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, state: State::Degraded, detail: detail.into(), fix: fix.into() }
    }

    pub(crate) fn missing(name: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, state: State::Missing, detail: detail.into(), fix: fix.into() }
    }
}

/// Looks at everything.
#[must_use]
pub fn all() -> Vec<Check> {
    let release = Release::running();
    let mut found = vec![
        checks::kernel(&release),
        checks::cgroup(),
        checks::limits(),
        checks::namespaces(),
        checks::user_namespaces(),
        checks::id_mapped_mounts(&release),
        checks::landlock(aion_sys::landlock::abi()),
        checks::seccomp(),
        checks::volumes(),
        checks::capabilities(),
    ];
    found.extend(bpf::all());
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_that_is_not_ok_says_what_to_do() {
        let found = all();
        assert!(found.len() >= 12, "{found:#?}");
        for check in found {
            assert!(!check.detail.is_empty(), "{check:?}");
            assert_eq!(check.fix.is_empty(), check.state == State::Ok, "{check:?}");
        }
    }
}
