//! How an agent's first process ended.

use serde::{Deserialize, Serialize};

/// Why it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExitReason {
    /// By itself.
    Exited,
    /// By a signal from inside, or one that somebody sent through AION other than a kill.
    Signaled,
    /// The memory limit.
    Oom,
    /// The wall-clock limit.
    Timeout,
    /// `stop` (after its grace period) or `kill`.
    Killed,
    /// Nobody saw it end: the host went down under it.
    Lost,
}

impl ExitReason {
    /// The word that `inspect` shows.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exited => "exited",
            Self::Signaled => "signaled",
            Self::Oom => "oom",
            Self::Timeout => "timeout",
            Self::Killed => "killed",
            Self::Lost => "lost",
        }
    }

    /// Reads the word back; anything unknown is [`ExitReason::Lost`].
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text {
            "exited" => Self::Exited,
            "signaled" => Self::Signaled,
            "oom" => Self::Oom,
            "timeout" => Self::Timeout,
            "killed" => Self::Killed,
            _ => Self::Lost,
        }
    }
}

/// An exit: a code, or a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Exit {
    /// 0..=255; 0 when a signal ended it.
    pub code: u8,
    /// 0 when it exited by itself.
    pub signal: u8,
    /// Why.
    pub reason: ExitReason,
}

impl Exit {
    /// The code as a shell shows it: the exit code, or 128 + signal.
    #[must_use]
    pub const fn shell_code(self) -> u8 {
        if self.signal == 0 { self.code } else { 128u8.saturating_add(self.signal) }
    }
}
