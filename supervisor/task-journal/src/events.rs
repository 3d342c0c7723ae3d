//! Reading events: all of them in order, or those of one task from its last back to its first.

use std::collections::VecDeque;

use crate::error::Error;
use crate::format::{self, Event};
use crate::journal::Journal;
use crate::keys::{self, EVENTS};

/// Events in order.
#[derive(Debug, Default)]
pub struct EventsPage {
    /// The events.
    pub events: Vec<Event>,
    /// Where to go on.
    pub next: u64,
    /// There is nothing after `next` yet.
    pub end: bool,
    /// Retention has dropped events after the one that was asked for: the page may have gaps.
    pub gaps: bool,
}

/// Events of one task, newest first.
#[derive(Debug, Default)]
pub struct HistoryPage {
    /// The events.
    pub events: Vec<Event>,
    /// The event to go on from; 0: this was all.
    pub next: u64,
}

impl Journal {
    /// Events after a sequence number, at most `limit`.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn events_after(&self, seq: u64, limit: usize) -> Result<EventsPage, Error> {
        let mut page = EventsPage { next: seq, end: true, ..EventsPage::default() };
        page.gaps = self.number(keys::META_PRUNED)?.unwrap_or(0) > seq;
        let Some(first) = seq.checked_add(1) else { return Ok(page) };
        self.scan(EVENTS, &first.to_be_bytes(), |key, value| {
            if page.events.len() >= limit {
                page.end = false;
                return Ok(false);
            }
            let seq = event_seq(key)?;
            page.events.push(format::event(seq, value)?);
            page.next = seq;
            Ok::<_, Error>(true)
        })?;
        Ok(page)
    }

    /// One event.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn event(&self, seq: u64) -> Result<Option<Event>, Error> {
        self.get(EVENTS, &seq.to_be_bytes())?.map(|value| format::event(seq, &value)).transpose()
    }

    /// Events of a task, newest first, from `last` on: the task's last event as its row names it, or the `next` of
    /// the page before.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn history(&self, last: u64, limit: usize) -> Result<HistoryPage, Error> {
        let mut page = HistoryPage { next: last, ..HistoryPage::default() };
        while page.events.len() < limit {
            let Some(event) = self.before(page.next)? else { break };
            page.next = event.previous;
            page.events.push(event);
        }
        Ok(page)
    }

    /// Events of a task after `seq`, oldest first, at most `limit`. It walks back from `last`, the task's last event.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn history_after(&self, last: u64, seq: u64, limit: usize) -> Result<EventsPage, Error> {
        let mut kept = VecDeque::new();
        let (mut at, mut end) = (last, true);
        while at > seq {
            let Some(event) = self.before(at)? else { break };
            at = event.previous;
            kept.push_front(event);
            if kept.len() > limit {
                kept.pop_back();
                end = false;
            }
        }
        let next = kept.back().map_or(seq, |event| event.seq);
        Ok(EventsPage { events: kept.into(), next, end, gaps: false })
    }

    /// The event `seq`; none at the start of a chain or where retention has cut it.
    fn before(&self, seq: u64) -> Result<Option<Event>, Error> {
        if seq == 0 {
            return Ok(None);
        }
        match self.event(seq)? {
            Some(event) if event.previous >= seq => Err(Error::Corrupt {
                family: EVENTS,
                detail: format!("event {seq} names a later one as the one before it"),
            }),
            other => Ok(other),
        }
    }
}

pub(crate) fn event_seq(key: &[u8]) -> Result<u64, Error> {
    keys::number(key)
        .ok_or_else(|| Error::Corrupt { family: EVENTS, detail: "a key is not a number".to_owned() })
}
