//! Sliding windows: how many, how much, how many different, within the last so long.
//!
//! A window never counts what is older. Up to [`EXACT`] it counts exactly; above, events are gathered in [`PARTS`] parts of the
//! window, and a part goes as a whole when its beginning is too old: so it may count up to a 64th of the window less, never more.

use std::collections::VecDeque;

/// Thresholds up to this are counted event by event.
pub(crate) const EXACT: u64 = 64;
/// Parts of a window otherwise.
pub(crate) const PARTS: u64 = 64;
/// Different values that can be asked for, at most.
pub const DISTINCT: u64 = 256;

/// When a threshold was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reached {
    pub(crate) value: u64,
    pub(crate) first_ns: u64,
    pub(crate) first_seq: u64,
}

#[derive(Debug, Clone, Copy)]
struct Part {
    begin_ns: u64,
    first_seq: u64,
    amount: u64,
}

/// Adds up amounts.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    span_ns: u64,
    part_ns: u64,
    parts: VecDeque<Part>,
}

impl Window {
    /// `exact`: each amount is one event, and no more of them than [`EXACT`] are waited for.
    pub(crate) fn new(span_ns: u64, exact: bool) -> Self {
        let part_ns = if exact { 1 } else { (span_ns / PARTS).max(1) };
        Self { span_ns, part_ns, parts: VecDeque::new() }
    }

    /// Adds an amount; times do not go backwards.
    pub(crate) fn add(&mut self, now_ns: u64, seq: u64, amount: u64, at_least: u64) -> Option<Reached> {
        while let Some(oldest) = self.parts.front()
            && oldest.begin_ns.saturating_add(self.span_ns) <= now_ns
        {
            self.parts.pop_front();
        }
        let begin_ns = now_ns - now_ns % self.part_ns;
        match self.parts.back_mut() {
            Some(last) if last.begin_ns == begin_ns => last.amount = last.amount.saturating_add(amount),
            _ => self.parts.push_back(Part { begin_ns, first_seq: seq, amount }),
        }
        let total = self.parts.iter().fold(0, |sum: u64, part| sum.saturating_add(part.amount));
        if total < at_least {
            return None;
        }
        let first = self.parts.front().copied();
        let reached = Reached {
            value: total,
            first_ns: first.map_or(now_ns, |part| part.begin_ns),
            first_seq: first.map_or(seq, |part| part.first_seq),
        };
        self.parts.clear();
        Some(reached)
    }
}

/// Counts different values, by their hash.
#[derive(Debug, Clone, Default)]
pub(crate) struct Distinct {
    seen: Vec<(u64, u64, u64)>,
}

impl Distinct {
    /// `at_least` is at most [`DISTINCT`]: with so many it is reached, so no more are kept.
    pub(crate) fn add(
        &mut self,
        span_ns: u64,
        now_ns: u64,
        seq: u64,
        value: u64,
        at_least: u64,
    ) -> Option<Reached> {
        self.seen.retain(|(_, last_ns, _)| last_ns.saturating_add(span_ns) > now_ns);
        match self.seen.iter_mut().find(|(known, ..)| *known == value) {
            Some((_, last_ns, _)) => *last_ns = now_ns,
            None => self.seen.push((value, now_ns, seq)),
        }
        let count = u64::try_from(self.seen.len()).unwrap_or(u64::MAX);
        if count < at_least {
            return None;
        }
        let first = self.seen.iter().min_by_key(|(_, _, seq)| *seq).copied().unwrap_or((0, now_ns, seq));
        self.seen.clear();
        Some(Reached { value: count, first_ns: first.1, first_seq: first.2 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a window should say: the amounts of the last `span`.
    fn naive(events: &[(u64, u64)], span: u64) -> u64 {
        let now = events.last().map_or(0, |event| event.0);
        events.iter().filter(|(time, _)| time.saturating_add(span) > now).map(|(_, amount)| amount).sum()
    }

    fn times() -> impl Strategy<Value = Vec<u64>> {
        prop::collection::vec(0u64..50, 1..300).prop_map(|gaps| {
            let mut now = 1000;
            gaps.into_iter()
                .map(|gap| {
                    now += gap;
                    now
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn small_thresholds_are_exact(times in times(), at_least in 1u64..=EXACT, span in 1u64..2000) {
            let mut window = Window::new(span, true);
            let mut since: Vec<(u64, u64)> = Vec::new();
            for (seq, time) in times.into_iter().enumerate() {
                since.push((time, 1));
                let reached = window.add(time, seq as u64, 1, at_least).is_some();
                prop_assert_eq!(reached, naive(&since, span) >= at_least);
                if reached { since.clear(); }
                prop_assert!(window.parts.len() as u64 <= EXACT);
            }
        }

        #[test]
        fn large_ones_never_count_too_much_and_miss_a_part_at_most(
            times in times(), at_least in 65u64..500, span in 64u64..4000, amount in 1u64..20,
        ) {
            let mut window = Window::new(span, false);
            let mut since: Vec<(u64, u64)> = Vec::new();
            for (seq, time) in times.into_iter().enumerate() {
                since.push((time, amount));
                let reached = window.add(time, seq as u64, amount, at_least).is_some();
                if reached { prop_assert!(naive(&since, span) >= at_least); }
                let sure = naive(&since, span - span / PARTS - 1);
                if sure >= at_least { prop_assert!(reached); }
                if reached { since.clear(); }
                prop_assert!(window.parts.len() as u64 <= PARTS + 2);
            }
        }

        #[test]
        fn different_values_are_counted_once(values in prop::collection::vec((0u64..20, 0u64..30), 1..200),
            at_least in 1u64..15, span in 1u64..300) {
            let mut distinct = Distinct::default();
            let mut last = std::collections::BTreeMap::new();
            let mut now = 0;
            for (seq, (value, gap)) in values.into_iter().enumerate() {
                now += gap;
                last.insert(value, now);
                let count = last.values().filter(|time| **time + span > now).count() as u64;
                let reached = distinct.add(span, now, seq as u64, value, at_least).is_some();
                prop_assert_eq!(reached, count >= at_least);
                if reached { last.clear(); }
            }
        }
    }
}
