//! What became of each program.

/// How the probes came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Adoption {
    /// Nothing was pinned: loaded and attached.
    Fresh,
    /// Pinned by an earlier process, same object: opened, nothing touched.
    Adopted,
    /// Pinned with another object whose maps fit: programs were replaced, agents and counters kept.
    Upgraded,
    /// Pinned with maps that do not fit: loaded anew. Every agent must be added again; what was pinned
    /// before stays attached until [`crate::Probes::retire_previous`].
    Replaced,
}

/// What became of one program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProgramState {
    /// It runs.
    Attached,
    /// Loaded, and attached only while an agent asks for it.
    OnDemand,
    /// This kernel does not have it, or does not let us.
    Unavailable {
        /// Why, for people.
        reason: String,
    },
}

/// One program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramReport {
    /// Its name in the object.
    pub name: &'static str,
    /// What became of it.
    pub state: ProgramState,
}

/// All programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// How the probes came to be.
    pub adoption: Adoption,
    /// Each program.
    pub programs: Vec<ProgramReport>,
}
