//! How much the suite does: `AION_E2E_SCALE` is small in emulated machines, full in the soak.

use std::time::Duration;

/// The size of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// For emulated machines: every behaviour, small numbers.
    Small,
    /// For every day.
    Normal,
    /// The numbers that AION promises.
    Full,
}

impl Scale {
    /// What the environment asks for.
    #[must_use]
    pub fn current() -> Self {
        match std::env::var("AION_E2E_SCALE").as_deref() {
            Ok("small") => Self::Small,
            Ok("full") => Self::Full,
            _ => Self::Normal,
        }
    }

    /// One of three numbers.
    #[must_use]
    pub const fn pick<T: Copy>(self, small: T, normal: T, full: T) -> T {
        match self {
            Self::Small => small,
            Self::Normal => normal,
            Self::Full => full,
        }
    }
}

/// By how much everything takes longer here: an emulated CPU is some ten times slower.
#[must_use]
pub fn slowness() -> u32 {
    if std::env::var_os("AION_IN_VM").is_some() { 8 } else { 1 }
}

/// A length of time on this machine.
pub(crate) fn stretched(time: Duration) -> Duration {
    time * slowness()
}
