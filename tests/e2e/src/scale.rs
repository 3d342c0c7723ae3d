//! How much the suite does: `AION_E2E_SCALE` is small in emulated machines, full in the soak.

use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

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

/// What starting a program takes at most on a machine that is called fast here.
const START: Duration = Duration::from_millis(2);

/// By how much everything takes longer here: at least eight times in an emulated machine, more where starting a
/// program is slower still. Measured once; every deadline of the suites is multiplied by it.
#[must_use]
pub fn slowness() -> u32 {
    static SLOWNESS: OnceLock<u32> = OnceLock::new();
    *SLOWNESS.get_or_init(|| {
        let least = if std::env::var_os("AION_IN_VM").is_some() { 8 } else { 1 };
        factor(start_of_a_program()).max(least)
    })
}

fn factor(start: Duration) -> u32 {
    u32::try_from(start.as_micros() / START.as_micros()).unwrap_or(u32::MAX).clamp(1, 30)
}

/// The middle one of seven.
fn start_of_a_program() -> Duration {
    let mut times: Vec<Duration> = (0..7)
        .map(|_| {
            let begun = Instant::now();
            // Where there is no such program, nothing is said about the machine.
            let _ = Command::new("/bin/true").stdin(Stdio::null()).status();
            begun.elapsed()
        })
        .collect();
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// A length of time on this machine.
pub(crate) fn stretched(time: Duration) -> Duration {
    time * slowness()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_machine_is_left_alone_and_a_slow_one_has_an_end() {
        assert_eq!(factor(Duration::from_micros(700)), 1);
        assert_eq!(factor(Duration::from_millis(5)), 2);
        assert_eq!(factor(Duration::from_secs(9)), 30);
    }
}
