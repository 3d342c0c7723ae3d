//! Reading the event index: forwards from a cursor, or the newest rows.
//!
//! A reader that asks for few agents walks their index, everyone else walks the rows. Each call looks at a bounded
//! number of rows, so that a filter that matches nothing cannot hold a thread for long.

use aion_types::AgentId;
use rocksdb::DBRawIterator;

use crate::db::Store;
use crate::error::Error;
use crate::event::{EventQuery, EventRow};
use crate::{codec, keys};

/// Up to so many agents the index by agent is cheaper than reading every row.
const INDEXED_AGENTS: usize = 8;

/// Some rows, and where to go on.
#[derive(Debug, Default)]
pub struct EventPage {
    /// In order of sequence number.
    pub rows: Vec<EventRow>,
    /// Ask for rows after this one next.
    pub next_after: u64,
    /// Whether there is more to look at now.
    pub more: bool,
}

impl Store {
    /// The oldest indexed record; one more than the cursor when there is none.
    ///
    /// # Errors
    /// When the row cannot be read.
    pub fn oldest_event(&self) -> Result<u64, Error> {
        let floor = self.number(keys::META_FLOOR)?.unwrap_or(0);
        let first = self.with_iterator(keys::EVENTS, |iter| {
            iter.seek(keys::event(floor));
            Ok(iter.key().and_then(keys::event_seq))
        })?;
        first.map_or_else(|| Ok(self.cursor()?.saturating_add(1)), Ok)
    }

    /// Rows after `after`, at most `limit`, having looked at `budget` rows at most.
    ///
    /// # Errors
    /// [`Error::CursorExpired`] when rows after `after` have been dropped.
    pub fn events_after(
        &self,
        query: &EventQuery,
        after: u64,
        limit: usize,
        budget: usize,
    ) -> Result<EventPage, Error> {
        let floor = self.number(keys::META_FLOOR)?.unwrap_or(0);
        let from = after.saturating_add(1);
        if from < floor {
            return Err(Error::CursorExpired { wanted: from, oldest: floor });
        }
        if query.agents.is_empty() || query.agents.len() > INDEXED_AGENTS {
            return self.walk_rows(query, from, limit, budget);
        }
        self.walk_index(query, from, limit, budget)
    }

    fn walk_rows(
        &self,
        query: &EventQuery,
        from: u64,
        limit: usize,
        budget: usize,
    ) -> Result<EventPage, Error> {
        let mut page = EventPage { next_after: from.saturating_sub(1), ..EventPage::default() };
        let mut looked = 0usize;
        self.with_iterator(keys::EVENTS, |iter| {
            iter.seek(keys::event(from));
            while let Some((seq, row)) = current(iter)? {
                if looked >= budget || page.rows.len() >= limit {
                    page.more = true;
                    break;
                }
                looked += 1;
                page.next_after = seq;
                if query.matches(&row) {
                    page.rows.push(row);
                }
                iter.next();
            }
            Ok(())
        })?;
        Ok(page)
    }

    fn walk_index(
        &self,
        query: &EventQuery,
        from: u64,
        limit: usize,
        budget: usize,
    ) -> Result<EventPage, Error> {
        let newest = self.cursor()?;
        // One budget's worth of numbers for each agent, then in order, cut where one agent's list was cut.
        let cap = budget.min(limit.saturating_mul(4).max(256));
        let mut seqs = Vec::new();
        let mut horizon = u64::MAX;
        for id in &query.agents {
            let (found, cut) = self.index_of(id, from, cap)?;
            if cut && let Some(&last) = found.last() {
                horizon = horizon.min(last);
            }
            seqs.extend(found);
        }
        seqs.sort_unstable();
        seqs.dedup();
        let mut page = EventPage { next_after: from.saturating_sub(1), ..EventPage::default() };
        for seq in seqs {
            if seq > horizon || page.rows.len() >= limit {
                page.more = true;
                return Ok(page);
            }
            page.next_after = seq;
            if let Some(row) = self.event(seq)?.filter(|row| query.matches(row)) {
                page.rows.push(row);
            }
        }
        page.more = horizon != u64::MAX;
        if !page.more {
            // All that these agents had when the look began was seen.
            page.next_after = page.next_after.max(newest);
        }
        Ok(page)
    }

    fn index_of(&self, id: &AgentId, from: u64, cap: usize) -> Result<(Vec<u64>, bool), Error> {
        let mut found = Vec::new();
        let mut cut = false;
        self.scan(keys::EVENTS, &keys::by_agent(id.as_str(), from), |key, _| {
            match keys::by_agent_parts(key) {
                Some((owner, _)) if owner != id.as_str() => false,
                Some((_, seq)) if found.len() < cap => {
                    found.push(seq);
                    true
                }
                Some(_) => {
                    cut = true;
                    false
                }
                None => false,
            }
        })?;
        Ok((found, cut))
    }

    /// One row.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn event(&self, seq: u64) -> Result<Option<EventRow>, Error> {
        self.get(keys::EVENTS, &keys::event(seq))?
            .map(|bytes| codec::from_message(keys::EVENTS, &bytes))
            .transpose()
    }

    /// The newest `limit` matching rows, oldest first, having looked at `budget` rows at most.
    ///
    /// # Errors
    /// When a row cannot be read.
    pub fn newest_events(
        &self,
        query: &EventQuery,
        limit: usize,
        budget: usize,
    ) -> Result<Vec<EventRow>, Error> {
        let mut rows = Vec::new();
        if let [only] = query.agents.as_slice() {
            let mut looked = 0usize;
            let mut seqs = Vec::new();
            self.with_iterator(keys::EVENTS, |iter| {
                iter.seek_for_prev(keys::by_agent(only.as_str(), u64::MAX));
                while let Some((owner, seq)) = iter.key().and_then(keys::by_agent_parts) {
                    if owner != only.as_str() || looked >= budget {
                        break;
                    }
                    looked += 1;
                    seqs.push(seq);
                    iter.prev();
                }
                Ok(())
            })?;
            for seq in seqs {
                if rows.len() >= limit {
                    break;
                }
                rows.extend(self.event(seq)?.filter(|row| query.matches(row)));
            }
        } else {
            let mut looked = 0usize;
            self.with_iterator(keys::EVENTS, |iter| {
                iter.seek_for_prev(keys::event(u64::MAX));
                while let Some((_, row)) = current(iter)? {
                    if looked >= budget || rows.len() >= limit {
                        break;
                    }
                    looked += 1;
                    if query.matches(&row) {
                        rows.push(row);
                    }
                    iter.prev();
                }
                Ok(())
            })?;
        }
        rows.reverse();
        Ok(rows)
    }
}

/// The row under the iterator; none at the end of the rows.
fn current(iter: &DBRawIterator<'_>) -> Result<Option<(u64, EventRow)>, Error> {
    let (Some(key), Some(value)) = (iter.key(), iter.value()) else { return Ok(None) };
    let Some(seq) = keys::event_seq(key) else { return Ok(None) };
    Ok(Some((seq, codec::from_message(keys::EVENTS, value)?)))
}
