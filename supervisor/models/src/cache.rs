//! Answers that are kept for a while: bounded by bytes, the least recently used leaves first. Pure; told the time.
//!
//! A key is a hash over the caller's scope, the model and the whole body, so an answer is found only by the tenant
//! that paid for it, for the same question to the same configuration.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use bytes::Bytes;

/// SHA-256 over scope, model and body.
pub(crate) type Key = [u8; 32];

/// What an entry takes beside its answer: two maps' nodes, rounded up.
const OVERHEAD: usize = 256;

#[derive(Debug)]
struct Entry {
    answer: Bytes,
    until: Instant,
    used: u64,
}

#[derive(Debug)]
pub(crate) struct Cache {
    room: usize,
    taken: usize,
    entries: HashMap<Key, Entry>,
    by_use: BTreeMap<u64, Key>,
    clock: u64,
}

impl Cache {
    pub(crate) fn new(room: usize) -> Self {
        Self { room, taken: 0, entries: HashMap::new(), by_use: BTreeMap::new(), clock: 0 }
    }

    pub(crate) fn get(&mut self, key: &Key, now: Instant) -> Option<Bytes> {
        if self.entries.get(key)?.until <= now {
            self.remove(key);
            return None;
        }
        let used = self.tick();
        let entry = self.entries.get_mut(key)?;
        self.by_use.remove(&entry.used);
        self.by_use.insert(used, *key);
        entry.used = used;
        Some(entry.answer.clone())
    }

    /// Keeps an answer, unless it alone would take more than a quarter of the room.
    pub(crate) fn put(&mut self, key: Key, answer: Bytes, ttl: Duration, now: Instant) {
        self.remove(&key);
        let size = answer.len() + OVERHEAD;
        let Some(until) = now.checked_add(ttl) else { return };
        if size > self.room / 4 {
            return;
        }
        while self.taken + size > self.room {
            let Some((_, oldest)) = self.by_use.first_key_value() else { break };
            let oldest = *oldest;
            self.remove(&oldest);
        }
        let used = self.tick();
        self.by_use.insert(used, key);
        self.entries.insert(key, Entry { answer, until, used });
        self.taken += size;
    }

    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.by_use.remove(&entry.used);
            self.taken -= entry.answer.len() + OVERHEAD;
        }
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(10);

    fn answer(size: usize) -> Bytes {
        Bytes::from(vec![b'x'; size])
    }

    #[test]
    fn forgets_after_its_time() {
        let now = Instant::now();
        let mut cache = Cache::new(1 << 20);
        cache.put([1; 32], answer(10), TTL, now);
        assert!(cache.get(&[1; 32], now + TTL - Duration::from_millis(1)).is_some());
        assert!(cache.get(&[1; 32], now + TTL).is_none());
        assert_eq!((cache.taken, cache.entries.len(), cache.by_use.len()), (0, 0, 0));
    }

    #[test]
    fn the_least_recently_used_leaves_first() {
        let now = Instant::now();
        let mut cache = Cache::new(4000);
        for id in 0..4 {
            cache.put([id; 32], answer(1000 - OVERHEAD), TTL, now);
        }
        assert!(cache.get(&[0; 32], now).is_some());
        cache.put([4; 32], answer(1000 - OVERHEAD), TTL, now);
        assert!(cache.get(&[1; 32], now).is_none() && cache.get(&[0; 32], now).is_some());
        assert_eq!((cache.taken, cache.entries.len(), cache.by_use.len()), (4000, 4, 4));
    }

    #[test]
    fn never_takes_more_than_its_room() {
        let now = Instant::now();
        let mut cache = Cache::new(10_000);
        for round in 0..1000_usize {
            let id = u8::try_from(round % 251).unwrap();
            cache.put([id; 32], answer(round * 7 % 3000), TTL, now);
            assert!(cache.taken <= 10_000);
        }
        cache.put([255; 32], answer(2501), TTL, now);
        assert!(cache.get(&[255; 32], now).is_none());
        let mut none = Cache::new(0);
        none.put([1; 32], answer(1), TTL, now);
        assert!(none.get(&[1; 32], now).is_none());
    }
}
