//! Values of maps as the words that user space reads and writes: no pointer is cast anywhere.

use super::{Agent, Egress, EgressKey, Limit, LimitKey, Spent, SpentKey, State, Stats};

impl Agent {
    /// From a map's words.
    #[must_use]
    pub const fn from_words([slot, flags]: [u32; 2]) -> Self {
        Self { slot, flags }
    }
    /// To a map's words.
    #[must_use]
    pub const fn to_words(self) -> [u32; 2] {
        [self.slot, self.flags]
    }
}

impl EgressKey {
    /// Words of the structure.
    pub const WORDS: usize = 4;
    /// To a map's words.
    #[must_use]
    pub fn to_words(self) -> [u64; Self::WORDS] {
        let ([p0, p1], a) = (self.port, self.addr);
        let word = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&a[at..at + 8]);
            u64::from_ne_bytes(bytes)
        };
        [self.cgroup, u64::from_ne_bytes([p0, p1, 0, 0, 0, 0, 0, 0]), word(0), word(8)]
    }
    /// From a map's words.
    #[must_use]
    pub fn from_words([cgroup, port, high, low]: [u64; Self::WORDS]) -> Self {
        let [p0, p1, ..] = port.to_ne_bytes();
        let mut addr = [0; 16];
        addr[..8].copy_from_slice(&high.to_ne_bytes());
        addr[8..].copy_from_slice(&low.to_ne_bytes());
        Self { cgroup, port: [p0, p1], zero: [0; 6], addr }
    }
}

impl Egress {
    /// Words of the structure.
    pub const WORDS: usize = 3;
    /// To a map's words.
    #[must_use]
    pub const fn to_words(self) -> [u64; Self::WORDS] {
        let ([a, b, c, d], [e, f, g, h]) = (self.named.to_ne_bytes(), self.counted.to_ne_bytes());
        [self.expires_ns, self.used_ns, u64::from_ne_bytes([a, b, c, d, e, f, g, h])]
    }
    /// From a map's words.
    #[must_use]
    pub const fn from_words([expires_ns, used_ns, last]: [u64; Self::WORDS]) -> Self {
        let [a, b, c, d, e, f, g, h] = last.to_ne_bytes();
        let (named, counted) = (u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]));
        Self { expires_ns, used_ns, named, counted }
    }
}

impl LimitKey {
    /// Words of the structure.
    pub const WORDS: usize = 2;
    /// To a map's words.
    #[must_use]
    pub const fn to_words(self) -> [u64; Self::WORDS] {
        [self.cgroup, self.destination]
    }
    /// From a map's words.
    #[must_use]
    pub const fn from_words([cgroup, destination]: [u64; Self::WORDS]) -> Self {
        Self { cgroup, destination }
    }
}

impl Limit {
    /// Words of the structure.
    pub const WORDS: usize = 7;
    /// To a map's words.
    #[must_use]
    pub const fn to_words(self) -> [u64; Self::WORDS] {
        let [a, b] = self.account;
        [a, b, self.bytes_out, self.bytes_in, self.interval_ns, self.burst_ns, self.rate]
    }
    /// From a map's words.
    #[must_use]
    pub const fn from_words(words: [u64; Self::WORDS]) -> Self {
        let [a, b, bytes_out, bytes_in, interval_ns, burst_ns, rate] = words;
        Self { account: [a, b], bytes_out, bytes_in, interval_ns, burst_ns, rate }
    }
}

impl SpentKey {
    /// Words of the structure.
    pub const WORDS: usize = 3;
    /// To a map's words.
    #[must_use]
    pub const fn to_words(self) -> [u64; Self::WORDS] {
        let [a, b] = self.account;
        [a, b, self.destination]
    }
    /// From a map's words.
    #[must_use]
    pub const fn from_words([a, b, destination]: [u64; Self::WORDS]) -> Self {
        Self { account: [a, b], destination }
    }
}

impl Spent {
    /// Words of the structure.
    pub const WORDS: usize = 2 * crate::hour::WORDS + 8;
    /// From a map's words.
    #[must_use]
    pub fn from_words(words: [u64; Self::WORDS]) -> Self {
        let mut rest = words.iter().copied();
        let mut hour = || core::array::from_fn(|_| rest.next().unwrap_or(0));
        let (sent, received) = (hour(), hour());
        let [
            due_ns,
            sent_total,
            received_total,
            connections,
            refused_rate,
            refused_bytes,
            dropped_out,
            dropped_in,
        ] = core::array::from_fn(|_| rest.next().unwrap_or(0));
        Self {
            sent,
            received,
            due_ns,
            sent_total,
            received_total,
            connections,
            refused_rate,
            refused_bytes,
            dropped_out,
            dropped_in,
        }
    }
}

impl Stats {
    /// Words of the structure.
    pub const WORDS: usize = 8;
    /// From a map's words.
    #[must_use]
    pub const fn from_words(words: [u64; Self::WORDS]) -> Self {
        let [events, dropped, rx_bytes, rx_packets, tx_bytes, tx_packets, denied, throttled] = words;
        Self { events, dropped, rx_bytes, rx_packets, tx_bytes, tx_packets, denied, throttled }
    }
}

impl State {
    /// Words of the structure.
    pub const WORDS: usize = 10;
    /// From a map's words.
    #[must_use]
    pub fn from_words(words: [u64; Self::WORDS]) -> Self {
        let [versions, o0, o1, o2, o3, ring_bytes, woken_ns, wake_at, admit_below, stop_at] = words;
        let [a0, a1, a2, a3, g0, g1, g2, g3] = versions.to_ne_bytes();
        let mut object = [0; 32];
        for (to, from) in object.chunks_exact_mut(8).zip([o0, o1, o2, o3]) {
            to.copy_from_slice(&from.to_ne_bytes());
        }
        Self {
            abi: u32::from_ne_bytes([a0, a1, a2, a3]),
            generation: u32::from_ne_bytes([g0, g1, g2, g3]),
            object,
            ring_bytes,
            woken_ns,
            wake_at,
            admit_below,
            stop_at,
        }
    }
    /// To a map's words.
    #[must_use]
    pub fn to_words(self) -> [u64; Self::WORDS] {
        let [a0, a1, a2, a3] = self.abi.to_ne_bytes();
        let [g0, g1, g2, g3] = self.generation.to_ne_bytes();
        let mut words = [0; Self::WORDS];
        words[0] = u64::from_ne_bytes([a0, a1, a2, a3, g0, g1, g2, g3]);
        for (to, from) in words[1..5].iter_mut().zip(self.object.chunks_exact(8)) {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(from);
            *to = u64::from_ne_bytes(bytes);
        }
        words[5..].copy_from_slice(&[
            self.ring_bytes,
            self.woken_ns,
            self.wake_at,
            self.admit_below,
            self.stop_at,
        ]);
        words
    }
}
