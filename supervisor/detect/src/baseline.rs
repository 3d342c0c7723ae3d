//! Baselines: what is usual for an agent, as a moving average with a deviation (EWMA), and when something is far above.
//!
//! Only intervals in which something happened are learned from: an agent that waits for an hour does not become one whose
//! first step is odd. What is odd is learned from as if it had been at the limit, so that it cannot make itself usual at once: at that of
//! `sigma` and `at_least`, as `factor` says what is worth telling and not what is usual.

use crate::rule::Deviation;
use crate::window::Reached;

/// The weight of the newest interval.
const ALPHA: f64 = 0.1;

/// The baseline of one rate of one agent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Baseline {
    begin_ns: u64,
    first_seq: u64,
    current: u64,
    /// The current interval was told of already.
    told: bool,
    mean: f64,
    variance: f64,
    learned: u32,
}

impl Baseline {
    pub(crate) fn add(&mut self, rule: &Deviation, now_ns: u64, seq: u64, amount: u64) -> Option<Reached> {
        let begin_ns = now_ns - now_ns % rule.every_ns.max(1);
        if begin_ns != self.begin_ns {
            self.close(rule);
            (self.begin_ns, self.first_seq, self.current, self.told) = (begin_ns, seq, 0, false);
        }
        self.current = self.current.saturating_add(amount);
        // Amounts only grow within an interval, so it need not be over to be too much.
        if self.told || self.learned < rule.warm_up || real(self.current) < self.limit(rule) {
            return None;
        }
        self.told = true;
        Some(Reached { value: self.current, first_ns: self.begin_ns, first_seq: self.first_seq })
    }

    /// From where on it is too much.
    pub(crate) fn limit(&self, rule: &Deviation) -> f64 {
        self.usual(rule).max(self.mean * f64::from(rule.factor))
    }

    /// Up to where it is learned from as it is.
    fn usual(&self, rule: &Deviation) -> f64 {
        // What comes at random deviates by the root of its mean.
        let deviation = self.variance.sqrt().max(self.mean.sqrt()).max(1.0);
        real(rule.at_least).max(self.mean + f64::from(rule.sigma) * deviation)
    }

    fn close(&mut self, rule: &Deviation) {
        if self.current == 0 {
            return;
        }
        let mut value = real(self.current);
        if self.learned >= rule.warm_up {
            value = value.min(self.usual(rule));
        }
        if self.learned == 0 {
            self.mean = value;
        } else {
            let off = value - self.mean;
            let step = ALPHA * off;
            self.mean += step;
            self.variance = (1.0 - ALPHA) * (self.variance + off * step);
        }
        self.learned = self.learned.saturating_add(1);
    }
}

/// As near as a float comes.
fn real(n: u64) -> f64 {
    let half = |n: u64| f64::from(u32::try_from(n & u64::from(u32::MAX)).unwrap_or(u32::MAX));
    half(n >> 32) * 4_294_967_296.0 + half(n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::{Filter, Rate};
    use proptest::prelude::*;

    const EVERY: u64 = 10;

    fn rule() -> Deviation {
        let of = Filter { kinds: Vec::new(), tests: Vec::new() };
        Deviation { rate: Rate::Forks, of, every_ns: EVERY, sigma: 6, at_least: 50, factor: 1, warm_up: 6 }
    }

    fn run(intervals: impl IntoIterator<Item = u64>) -> Option<usize> {
        run_by(&rule(), intervals)
    }

    fn run_by(rule: &Deviation, intervals: impl IntoIterator<Item = u64>) -> Option<usize> {
        let mut line = Baseline::default();
        intervals
            .into_iter()
            .enumerate()
            .position(|(at, amount)| line.add(rule, (at as u64 + 1) * EVERY, 1, amount).is_some())
    }

    #[test]
    fn far_above_habit_is_found_after_the_warm_up_alone() {
        assert_eq!(run([10, 11, 9, 10, 12, 10, 500]), Some(6));
        assert_eq!(run([10, 500, 10, 10, 10]), None, "not learned yet");
        assert_eq!(run([10, 11, 9, 10, 12, 10, 40]), None, "below the floor");
        assert_eq!(run([1000, 1020, 990, 1000, 1010, 1000, 1100]), None, "within the noise");
    }

    #[test]
    fn steady_work_may_get_more_of_the_processors_by_a_factor() {
        let steady = |last| (0..20).map(|at| 1000 + at % 3 * 10).chain([last]);
        let fourfold = Deviation { factor: 4, ..rule() };
        assert_eq!(run(steady(2500)), Some(20));
        assert_eq!(run_by(&fourfold, steady(2500)), None);
        assert_eq!(run_by(&fourfold, steady(4500)), Some(20));
    }

    /// The most that is less than a limit.
    fn below(limit: f64) -> u64 {
        (0..40).rev().fold(0, |all, bit| if real(all | 1 << bit) < limit { all | 1 << bit } else { all })
    }

    #[test]
    fn a_factor_lets_nobody_climb_faster() {
        let climbed = |rule: &Deviation| {
            let mut line = Baseline::default();
            for at in 1..=26 {
                let mut closed = line.clone();
                closed.close(rule);
                let amount = if at <= 7 { 100 } else { below(closed.limit(rule)) };
                assert!(line.add(rule, at * EVERY, 1, amount).is_none(), "{amount} in {line:?}");
            }
            line.mean
        };
        let (plain, fourfold) = (climbed(&rule()), climbed(&Deviation { factor: 4, ..rule() }));
        assert!(plain > 200.0 && fourfold < plain * 1.1, "{plain} {fourfold}");
    }

    #[test]
    fn what_is_odd_does_not_become_usual_at_once() {
        let mut line = Baseline::default();
        let mut found = 0;
        for at in 1..=9 {
            let amount = if at > 6 { 5000 } else { 100 };
            found += u32::from(line.add(&rule(), at * EVERY, 1, amount).is_some());
        }
        assert_eq!(found, 3);
    }

    #[test]
    fn an_interval_is_told_of_once_and_before_it_is_over() {
        let mut line = Baseline::default();
        for at in 1..=6 {
            assert!(line.add(&rule(), at * EVERY, 1, 10).is_none());
        }
        let found: Vec<bool> = (0..100).map(|_| line.add(&rule(), 70, 1, 1).is_some()).collect();
        assert_eq!(found.iter().filter(|f| **f).count(), 1);
        assert_eq!(found.iter().position(|f| *f), Some(49));
    }

    #[test]
    fn large_numbers_are_taken_as_they_are() {
        assert_eq!(real(0), 0.0);
        assert_eq!(real(1 << 40), 1_099_511_627_776.0);
    }

    proptest! {
        #[test]
        fn steady_rates_are_never_odd(rate in 1u64..100_000, count in 1usize..200) {
            prop_assert_eq!(run(std::iter::repeat_n(rate, count)), None);
        }

        #[test]
        fn any_amounts_keep_the_figures_finite(amounts: Vec<u64>) {
            let mut line = Baseline::default();
            for (at, amount) in amounts.into_iter().enumerate() {
                let _ = line.add(&rule(), at as u64 * EVERY, 1, amount);
                prop_assert!(line.mean.is_finite() && line.variance.is_finite() && line.variance >= 0.0);
            }
        }
    }
}
