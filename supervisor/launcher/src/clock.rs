//! Clocks. The monotonic one is the kernel's: its values mean the same to the next launcher of this boot.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

fn ns(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}

/// Nanoseconds since 1970.
pub(crate) fn wall_ns() -> u64 {
    ns(ClockId::Realtime)
}

/// Nanoseconds since boot, suspended time left out.
pub(crate) fn monotonic_ns() -> u64 {
    ns(ClockId::Monotonic)
}

pub(crate) fn as_ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The kernel's name for this boot.
pub(crate) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}
