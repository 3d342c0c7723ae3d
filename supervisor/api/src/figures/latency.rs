//! The kernel's histograms of system calls as Prometheus has them: powers of two of nanoseconds become powers of four, numbers of calls
//! become kinds.

use std::collections::BTreeMap;

use aion_launcher_proto::v1 as launcher;

use crate::syscalls;

/// Bounds from 2^10 ns, each four times the one before, to 2^32 ns.
const BOUNDS: usize = 12;
const FIRST: u8 = 10;

/// Which calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Calls {
    All,
    Read,
    Write,
    Sync,
}

impl Calls {
    /// What of input and output a call is; none: it is neither.
    fn of(name: &str) -> Option<Self> {
        match name {
            "read" | "pread64" | "readv" | "preadv" | "preadv2" => Some(Self::Read),
            "write" | "pwrite64" | "writev" | "pwritev" | "pwritev2" => Some(Self::Write),
            "fsync" | "fdatasync" | "msync" | "sync" | "syncfs" | "sync_file_range" => Some(Self::Sync),
            _ => None,
        }
    }

    /// The label; none: it is all of them.
    pub(super) const fn op(self) -> Option<&'static str> {
        match self {
            Self::All => None,
            Self::Read => Some("read"),
            Self::Write => Some("write"),
            Self::Sync => Some("sync"),
        }
    }
}

/// How long calls took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Latency {
    /// Calls between the bound before and this one; the last: beyond all.
    buckets: [u64; BOUNDS + 1],
    /// Nearly: the kernel knows the power of two, and half of the next is added.
    sum_ns: u64,
}

impl Latency {
    /// Takes the kernel's in: bucket `i` counts calls of `2^i..2^(i+1)` ns.
    fn take_in(&mut self, log2_ns: &[u64]) {
        for (i, &count) in log2_ns.iter().enumerate() {
            let at = (i + 1).saturating_sub(FIRST.into()).div_ceil(2).min(BOUNDS);
            if let Some(bucket) = self.buckets.get_mut(at) {
                *bucket = bucket.saturating_add(count);
            }
            let low = u32::try_from(i).ok().and_then(|i| 1_u64.checked_shl(i)).unwrap_or(u64::MAX);
            let middle = low.saturating_add(low / 2);
            self.sum_ns = self.sum_ns.saturating_add(count.saturating_mul(middle));
        }
    }

    /// What came since an earlier look.
    pub(super) fn since(&self, before: &Self) -> Self {
        let mut more = Self { sum_ns: self.sum_ns.saturating_sub(before.sum_ns), ..*self };
        for (bucket, before) in more.buckets.iter_mut().zip(before.buckets) {
            *bucket = bucket.saturating_sub(before);
        }
        more
    }

    pub(super) fn add(&mut self, more: &Self) {
        self.sum_ns = self.sum_ns.saturating_add(more.sum_ns);
        for (bucket, more) in self.buckets.iter_mut().zip(more.buckets) {
            *bucket = bucket.saturating_add(more);
        }
    }

    /// Upper bounds in seconds, with the calls that took no longer.
    pub(super) fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        let bounds = (0_i32..).map(|at| 2_f64.powi(i32::from(FIRST) + 2 * at) / 1e9);
        let mut sum = 0_u64;
        bounds.zip(self.buckets).take(BOUNDS).map(move |(bound, count)| {
            sum = sum.saturating_add(count);
            (bound, sum)
        })
    }

    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, &count| sum.saturating_add(count))
    }

    pub(super) fn sum_seconds(&self) -> f64 {
        std::time::Duration::from_nanos(self.sum_ns).as_secs_f64()
    }
}

/// The histograms of a run, kind by kind; none where the kernel keeps none.
pub(super) fn of_counters(counters: &[launcher::SyscallCounter]) -> BTreeMap<Calls, Latency> {
    let mut all: BTreeMap<Calls, Latency> = BTreeMap::new();
    for counter in counters.iter().filter(|counter| !counter.latency_log2_ns.is_empty()) {
        let kinds = Some(Calls::All).into_iter().chain(Calls::of(&syscalls::name(counter.nr)));
        for kind in kinds {
            all.entry(kind).or_default().take_in(&counter.latency_log2_ns);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(log2_ns: &[u64]) -> Latency {
        let mut latency = Latency::default();
        latency.take_in(log2_ns);
        latency
    }

    #[test]
    fn powers_of_two_are_put_below_the_bound_that_holds_them() {
        // 512 to 1023 ns, 1024 to 2047, 2048 to 4095, 4096 to 8191.
        let mut log2_ns = [0_u64; 13];
        log2_ns[9..13].copy_from_slice(&[1, 2, 3, 4]);
        let latency = of(&log2_ns);
        let first: Vec<(f64, u64)> = latency.cumulative().take(3).collect();
        assert_eq!(first, [(0.000_001_024, 1), (0.000_004_096, 6), (0.000_016_384, 10)]);
        assert_eq!(latency.count(), 10);
        assert_eq!(latency.sum_ns, 768 + 2 * 1536 + 3 * 3072 + 4 * 6144);
    }

    #[test]
    fn what_is_beyond_all_bounds_is_counted() {
        let mut log2_ns = [0_u64; 64];
        (log2_ns[31], log2_ns[32], log2_ns[63]) = (1, 1, 1);
        let latency = of(&log2_ns);
        assert_eq!(latency.cumulative().last(), Some((4.294_967_296, 1)));
        assert_eq!((latency.count(), latency.cumulative().count()), (3, BOUNDS));
    }

    #[test]
    fn calls_are_of_kinds_and_looks_are_told_apart() {
        let call = |name: &str, log2_ns: &[u64]| {
            let nr = (0..500).find(|nr| syscalls::name(*nr) == name).unwrap();
            launcher::SyscallCounter { nr, latency_log2_ns: log2_ns.to_vec(), ..Default::default() }
        };
        let counters =
            [call("read", &[0, 2]), call("fdatasync", &[0, 0, 1]), call("getpid", &[5]), call("write", &[])];
        let all = of_counters(&counters);
        let counts: Vec<(Calls, u64)> = all.iter().map(|(kind, latency)| (*kind, latency.count())).collect();
        assert_eq!(counts, [(Calls::All, 8), (Calls::Read, 2), (Calls::Sync, 1)]);
        let mut sum = of(&[1, 1]);
        let more = of(&[3, 1]).since(&sum);
        assert_eq!(more, of(&[2]));
        sum.add(&more);
        assert_eq!(sum, of(&[3, 1]));
    }
}
