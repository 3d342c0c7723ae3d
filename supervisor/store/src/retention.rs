//! How the event index stays bounded: the oldest rows go as one range, by count and by age.
//!
//! The audit log keeps its own history; this is only what can be queried quickly. Range tombstones are written
//! rarely and in large steps, so that they cost readers nothing.

use crate::batch::{Batch, Durability};
use crate::db::Store;
use crate::error::Error;
use crate::keys;

/// Trimming fewer rows than this waits for the next time.
const MIN_STEP: u64 = 1024;

/// What a trim did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Trimmed {
    /// Rows that went, as a number of sequence numbers.
    pub rows: u64,
    /// The oldest record that is left.
    pub oldest: u64,
}

impl Store {
    /// Drops rows over the count or older than the age of [`crate::Options`].
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn trim_events(&self, now_ns: u64) -> Result<Trimmed, Error> {
        let oldest = self.oldest_event()?;
        let next = self.cursor()?.saturating_add(1);
        let age = u64::try_from(self.options().max_event_age.as_nanos()).unwrap_or(u64::MAX);
        let by_count = next.saturating_sub(self.options().max_events);
        let by_age = self.first_since(oldest, next, now_ns.saturating_sub(age))?;
        let floor = by_count.max(by_age).clamp(oldest, next);
        let rows = floor - oldest;
        if rows < MIN_STEP.min(self.options().max_events.div_ceil(16).max(1)) {
            return Ok(Trimmed { rows: 0, oldest });
        }
        self.drop_below(floor)?;
        tracing::debug!(rows, floor, "trimmed the event index");
        Ok(Trimmed { rows, oldest: floor })
    }

    /// The first record in `oldest..next` that is not older than `since_ns`. Clocks may step, so this is exact only
    /// as far as times rise with sequence numbers; retention needs no more.
    fn first_since(&self, oldest: u64, next: u64, since_ns: u64) -> Result<u64, Error> {
        let (mut low, mut high) = (oldest, next);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.event(middle)? {
                Some(row) if row.time_ns >= since_ns => high = middle,
                _ => low = middle + 1,
            }
        }
        Ok(low)
    }

    fn drop_below(&self, floor: u64) -> Result<(), Error> {
        let mut batch = Batch::bookkeeping();
        batch.delete_range(keys::EVENTS, keys::event(0).to_vec(), keys::event(floor).to_vec());
        for id in self.indexed_agents()? {
            batch.delete_range(keys::EVENTS, keys::by_agent(&id, 0), keys::by_agent(&id, floor));
            // The name of an agent that is gone is kept as long as a row names it.
            if self.newest_of(&id)?.is_none_or(|seq| seq < floor) && !self.exists(&id)? {
                batch.delete(keys::NAMES, keys::name_of_id(&id));
            }
        }
        batch.put(keys::META, keys::META_FLOOR, crate::codec::raw(&floor.to_be_bytes()));
        let _serial = self.serialise();
        self.write(batch, Durability::Process)
    }

    fn indexed_agents(&self) -> Result<Vec<String>, Error> {
        let mut ids = Vec::new();
        self.with_iterator(keys::EVENTS, |iter| {
            iter.seek(b"a");
            while let Some((id, _)) = iter.key().and_then(keys::by_agent_parts) {
                let id = id.to_owned();
                iter.seek(keys::by_agent(&id, u64::MAX));
                if iter.key().and_then(keys::by_agent_parts).is_some_and(|(same, _)| same == id) {
                    iter.next();
                }
                ids.push(id);
            }
            Ok(())
        })?;
        Ok(ids)
    }

    fn newest_of(&self, id: &str) -> Result<Option<u64>, Error> {
        self.with_iterator(keys::EVENTS, |iter| {
            iter.seek_for_prev(keys::by_agent(id, u64::MAX));
            Ok(iter.key().and_then(keys::by_agent_parts).filter(|(same, _)| *same == id).map(|(_, seq)| seq))
        })
    }

    fn exists(&self, id: &str) -> Result<bool, Error> {
        let Some(bytes) = self.get(keys::NAMES, &keys::name_of_id(id))? else { return Ok(false) };
        let full = crate::codec::payload(keys::NAMES, &bytes)?;
        let tenant = full.split(|&b| b == 0).next().unwrap_or_default();
        let mut key = vec![b'a'];
        key.extend_from_slice(tenant);
        key.push(0);
        key.extend_from_slice(id.as_bytes());
        Ok(self.get(keys::AGENTS, &key)?.is_some())
    }
}
