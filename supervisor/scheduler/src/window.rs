//! Rates as strict sliding windows: never more than the limit in any window, counted in steps of a twentieth of it.

use std::collections::VecDeque;

use crate::Quotas;
use crate::codec::{DecodeError, Reader, Writer};

const STEPS: u64 = 20;

/// What was used lately, by step of time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Window {
    steps: VecDeque<(u64, u64)>,
    sum: u64,
}

impl Window {
    fn step(now: u64, length: u64) -> u64 {
        now / (length / STEPS)
    }

    fn forget(&mut self, now: u64, length: u64) {
        let step = Self::step(now, length);
        while let Some(&(first, amount)) = self.steps.front() {
            if first + STEPS >= step {
                break;
            }
            self.steps.pop_front();
            self.sum -= amount;
        }
    }

    pub(crate) fn add(&mut self, now: u64, length: u64, amount: u64) {
        self.forget(now, length);
        let step = Self::step(now, length);
        match self.steps.back_mut() {
            Some((last, sum)) if *last == step => *sum = sum.saturating_add(amount),
            _ => self.steps.push_back((step, amount)),
        }
        self.sum = self.steps.iter().fold(0, |sum: u64, (_, amount)| sum.saturating_add(*amount));
    }

    /// When less than the limit will have been used; none: now.
    pub(crate) fn frees_at(&self, now: u64, length: u64, limit: u64) -> Option<u64> {
        let step = Self::step(now, length);
        let mut left: u64 = 0;
        // From the newest back: the first step at which the sum reaches the limit must leave the window.
        for &(at, amount) in self.steps.iter().rev() {
            if at + STEPS < step {
                break;
            }
            left = left.saturating_add(amount);
            if left >= limit {
                return Some((at + STEPS + 1) * (length / STEPS));
            }
        }
        None
    }

    fn encode(&self, w: &mut Writer) {
        w.len(self.steps.len());
        for &(step, amount) in &self.steps {
            w.int(step);
            w.int(amount);
        }
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut window = Self::default();
        for _ in 0..r.len()? {
            let (step, amount) = (r.int()?, r.int()?);
            window.sum = window.sum.saturating_add(amount);
            window.steps.push_back((step, amount));
        }
        Ok(window)
    }
}

const MINUTE: u64 = 60_000;
const HOUR: u64 = 3_600_000;

/// The three rates of a tenant or an agent. Only those that have a limit are counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rates {
    tokens: Window,
    usd: Window,
    tasks: Window,
}

impl Rates {
    pub(crate) fn used(&mut self, quotas: &Quotas, now: u64, tokens: u64, usd: u64) -> bool {
        let mut counted = false;
        if quotas.token_rate.is_some() && tokens != 0 {
            self.tokens.add(now, MINUTE, tokens);
            counted = true;
        }
        if quotas.usd_micros_per_hour.is_some() && usd != 0 {
            self.usd.add(now, HOUR, usd);
            counted = true;
        }
        counted
    }

    pub(crate) fn begun(&mut self, quotas: &Quotas, now: u64) {
        if quotas.tasks_per_minute.is_some() {
            self.tasks.add(now, MINUTE, 1);
        }
    }

    /// The quota that is used up for longest, and when it frees up.
    pub(crate) fn limited(&self, quotas: &Quotas, now: u64) -> Option<(&'static str, u64)> {
        let all = [
            ("token_rate", &self.tokens, MINUTE, quotas.token_rate),
            ("usd_per_hour", &self.usd, HOUR, quotas.usd_micros_per_hour),
            ("tasks_per_minute", &self.tasks, MINUTE, quotas.tasks_per_minute),
        ];
        all.into_iter()
            .filter_map(|(name, window, length, limit)| Some((name, window.frees_at(now, length, limit?)?)))
            .max_by_key(|(_, at)| *at)
    }

    pub(crate) fn encode(&self, w: &mut Writer) {
        self.tokens.encode(w);
        self.usd.encode(w);
        self.tasks.encode(w);
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { tokens: Window::decode(r)?, usd: Window::decode(r)?, tasks: Window::decode(r)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the pace, no minute holds more than the limit, and the time that is named is right.
    #[test]
    fn no_minute_holds_more_than_the_limit() {
        let mut window = Window::default();
        let mut begun: Vec<u64> = Vec::new();
        let mut now = 1_700_000_000_123;
        for round in 0..5000u64 {
            match window.frees_at(now, MINUTE, 7) {
                None => {
                    window.add(now, MINUTE, 1);
                    begun.push(now);
                    now += round * 37 % 911;
                }
                Some(at) => {
                    assert!(at > now && at <= now + MINUTE + MINUTE / STEPS);
                    assert_eq!(window.frees_at(at - 1, MINUTE, 7), Some(at));
                    assert_eq!(window.frees_at(at, MINUTE, 7), None);
                    now = at;
                }
            }
        }
        for pair in begun.windows(8) {
            assert!(pair[7] - pair[0] > MINUTE, "8 within {} ms", pair[7] - pair[0]);
        }
    }
}
