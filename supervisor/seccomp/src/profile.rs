//! A checked profile. What is in here can be compiled; nothing else can be made.

use crate::names::Errno;

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The kernel carries it out.
    Allow,
    /// It fails with this errno.
    Errno(i32),
    /// It fails with this errno, and the listener hears of it.
    Notify(i32),
}

/// A test of one argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) arg: u8,
    pub(crate) mask: u64,
    pub(crate) wide: bool,
    pub(crate) negated: bool,
    pub(crate) values: Vec<u64>,
}

/// A system call: its name, and its number on the one architecture that filters are made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Syscall {
    pub(crate) name: String,
    pub(crate) nr: u32,
}

/// Some system calls, what becomes of them, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub(crate) name: String,
    pub(crate) reason: String,
    pub(crate) action: Action,
    pub(crate) syscalls: Vec<Syscall>,
    pub(crate) when: Vec<Condition>,
}

impl Group {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Why it is there.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
    /// What becomes of its calls.
    #[must_use]
    pub const fn action(&self) -> Action {
        self.action
    }
    /// The names of its calls.
    pub fn syscalls(&self) -> impl Iterator<Item = &str> {
        self.syscalls.iter().map(|s| s.name.as_str())
    }
    /// Whether arguments decide.
    #[must_use]
    pub const fn is_conditional(&self) -> bool {
        !self.when.is_empty()
    }
}

/// A checked profile, with what it extends already merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) default_action: Action,
    pub(crate) groups: Vec<Group>,
}

impl Profile {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
    /// What it is for.
    #[must_use]
    pub fn description(&self) -> &str {
        &self.description
    }
    /// What becomes of a call that no group names.
    #[must_use]
    pub const fn default_action(&self) -> Action {
        self.default_action
    }
    /// The rules.
    #[must_use]
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }
    /// How many calls are allowed, at least for some arguments.
    #[must_use]
    pub fn allowed_count(&self) -> usize {
        let mut numbers: Vec<u32> = self
            .groups
            .iter()
            .filter(|g| g.action == Action::Allow)
            .flat_map(|g| g.syscalls.iter().map(|s| s.nr))
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers.len()
    }
    /// The group that denies a call whatever its arguments are, or by default denies it when no condition holds.
    #[must_use]
    pub fn denying_group(&self, nr: u32) -> Option<&Group> {
        let denies = |g: &&Group| g.action != Action::Allow && g.syscalls.iter().any(|s| s.nr == nr);
        self.groups
            .iter()
            .filter(denies)
            .find(|g| !g.is_conditional())
            .or_else(|| self.groups.iter().find(denies))
    }
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Allow => f.write_str("allow"),
            Self::Errno(e) => write!(f, "{}", Errno(*e)),
            Self::Notify(e) => write!(f, "{} and report", Errno(*e)),
        }
    }
}
