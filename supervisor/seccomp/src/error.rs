//! What can be wrong with a profile. Each message names the file and the group.

use std::path::PathBuf;

use aion_types::ErrorCode;

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name is not one that a file can have.
    #[error("{name:?} is not a profile name: use 1 to 63 of a-z, 0-9 and '-'")]
    BadName {
        /// The name, shortened.
        name: String,
    },
    /// There is no such file.
    #[error("there is no seccomp profile {name:?} in {dir}; there are: {known}", dir = dir.display())]
    NotFound {
        /// The name.
        name: String,
        /// The folder that was searched.
        dir: PathBuf,
        /// What is there instead.
        known: String,
    },
    /// The file cannot be read.
    #[error("cannot read seccomp profile {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Larger than a profile can be.
    #[error("seccomp profile {profile} is larger than {max} bytes")]
    TooLarge {
        /// The profile.
        profile: String,
        /// The limit.
        max: u64,
    },
    /// Not JSON, or not of this shape.
    #[error("seccomp profile {profile}: {source}")]
    Syntax {
        /// The profile.
        profile: String,
        /// With line and column.
        source: serde_json::Error,
    },
    /// Well formed, and wrong.
    #[error("seccomp profile {profile}, group {group:?}: {problem}")]
    Group {
        /// The profile.
        profile: String,
        /// The group.
        group: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// Wrong as a whole.
    #[error("seccomp profile {profile}: {problem}")]
    Profile {
        /// The profile.
        profile: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// libseccomp refused.
    #[error("libseccomp cannot compile profile {profile}: {step}")]
    Compile {
        /// The profile.
        profile: String,
        /// What it was asked.
        step: &'static str,
        /// What it said.
        #[source]
        source: libseccomp::error::SeccompError,
    },
    /// The program cannot be taken out of libseccomp.
    #[error("cannot export the filter of profile {profile}")]
    Export {
        /// The profile.
        profile: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The kernel takes at most 4096 instructions.
    #[error("seccomp profile {profile} needs {instructions} BPF instructions, the kernel takes at most 4096")]
    TooComplex {
        /// The profile.
        profile: String,
        /// How many it would need.
        instructions: usize,
    },
}

impl Error {
    /// The stable code that a user sees.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::BadName { .. } | Self::NotFound { .. } => ErrorCode::ProfileNotFound,
            Self::Compile { .. } | Self::Export { .. } => ErrorCode::Internal,
            _ => ErrorCode::ProfileInvalid,
        }
    }
}
