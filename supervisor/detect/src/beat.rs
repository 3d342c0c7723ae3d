//! Beats: the same again and again at even distances, for each value of some fields.

use std::collections::VecDeque;

use crate::rule::Beacon;
use crate::window::Reached;

/// Values that are followed at once; the one that was silent longest goes for another.
pub(crate) const FOLLOWED: usize = 32;
/// Beats of one value that can be asked for, at most.
pub const BEATS: u32 = 64;

#[derive(Debug, Clone, Default)]
struct Row {
    key: u64,
    last_ns: u64,
    beats: VecDeque<(u64, u64)>,
}

/// The rows of one agent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Beats {
    rows: Vec<Row>,
}

impl Beats {
    pub(crate) fn add(
        &mut self,
        rule: &Beacon,
        span_ns: u64,
        now_ns: u64,
        seq: u64,
        key: u64,
    ) -> Option<Reached> {
        let row = self.row(key);
        let last_ns = std::mem::replace(&mut row.last_ns, now_ns);
        if last_ns != 0 && now_ns - last_ns < rule.min_ns {
            // A program opens several connections at once: they are one beat. One that never pauses has none.
            return None;
        }
        row.beats.push_back((now_ns, seq));
        let wanted = usize::try_from(rule.count).unwrap_or(usize::MAX);
        while row.beats.len() > wanted
            || row.beats.front().is_some_and(|(time, _)| time.saturating_add(span_ns) <= now_ns)
        {
            row.beats.pop_front();
        }
        if row.beats.len() < wanted || !is_even(&row.beats, rule.jitter_percent) {
            return None;
        }
        let (first_ns, first_seq) = row.beats.front().copied().unwrap_or((now_ns, seq));
        row.beats.clear();
        Some(Reached { value: u64::from(rule.count), first_ns, first_seq })
    }

    fn row(&mut self, key: u64) -> &mut Row {
        let found = self.rows.iter().position(|row| row.key == key);
        let at = found.unwrap_or_else(|| {
            if self.rows.len() >= FOLLOWED {
                let silent = (0..self.rows.len()).min_by_key(|&at| self.rows[at].last_ns).unwrap_or(0);
                self.rows.swap_remove(silent);
            }
            self.rows.push(Row { key, ..Row::default() });
            self.rows.len() - 1
        });
        &mut self.rows[at]
    }
}

/// Whether the distances deviate from their mean by no more than so many per cent of it.
fn is_even(beats: &VecDeque<(u64, u64)>, jitter_percent: u32) -> bool {
    let millis = |ns: u64| f64::from(u32::try_from(ns / 1_000_000).unwrap_or(u32::MAX));
    let gaps: Vec<f64> =
        beats.iter().zip(beats.iter().skip(1)).map(|(from, to)| millis(to.0 - from.0)).collect();
    let Ok(count) = u32::try_from(gaps.len()) else { return false };
    if count == 0 {
        return false;
    }
    let mean = gaps.iter().sum::<f64>() / f64::from(count);
    let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / f64::from(count);
    variance.sqrt() <= mean * f64::from(jitter_percent) / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::Filter;

    const S: u64 = 1_000_000_000;

    fn rule() -> Beacon {
        let of = Filter { kinds: Vec::new(), tests: Vec::new() };
        Beacon { of, by: Vec::new(), count: 5, jitter_percent: 10, min_ns: 2 * S }
    }

    fn run(times: impl IntoIterator<Item = u64>) -> bool {
        let mut beats = Beats::default();
        times.into_iter().any(|time| beats.add(&rule(), 600 * S, time, 1, 7).is_some())
    }

    #[test]
    fn even_distances_are_a_beat_and_others_are_not() {
        assert!(run((0..5).map(|n| 1000 * S + n * 10 * S)));
        assert!(run((0..5).map(|n| 1000 * S + n * 10 * S + n % 2 * S / 2)), "some jitter");
        assert!(run((0..10).map(|n| 1000 * S + n / 2 * 10 * S + n % 2)), "two at once are one");
        assert!(!run((0..4).map(|n| 1000 * S + n * 10 * S)), "too few");
        assert!(!run([0, 3, 20, 24, 60, 64, 100].map(|n| (1000 + n) * S)), "uneven");
        assert!(!run((0..50).map(|n| 1000 * S + n * S)), "too fast to be a beat");
        assert!(!run((0..20).map(|n| 1000 * S + n * 200 * S)), "too slow for the window");
    }

    #[test]
    fn the_number_of_values_is_bounded() {
        let mut beats = Beats::default();
        for key in 0..1000 {
            beats.add(&rule(), 600 * S, key * S, 1, key);
        }
        assert_eq!(beats.rows.len(), FOLLOWED);
        assert!(beats.rows.iter().all(|row| row.key >= 1000 - 32), "the newest are kept");
    }
}
