//! The circuit breaker: a pure state machine that is told the time.
//!
//! Closed lets everything through and counts failures in a row; open refuses until its pause is over; half-open lets
//! one probe through, whose outcome decides. A ticket belongs to the period that it was given in: what a call from
//! before has to say no longer matters.

use std::time::{Duration, Instant};

/// What the breaker does with calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Lets them through.
    Closed,
    /// Refuses them.
    Open,
    /// Lets one through at a time.
    HalfOpen,
}

impl State {
    /// `closed`, `open` or `half-open`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Inner {
    Closed { failures: u32 },
    Open { until: Instant },
    HalfOpen { probing: bool },
}

/// The right to one attempt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticket {
    period: u64,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The backend answered, be it with a refusal.
    Answered,
    /// A transport failure, a 5xx, or no answer in the time that the model is given.
    Failed,
    /// The caller gave up: says nothing about the backend.
    Abandoned,
}

#[derive(Debug)]
pub(crate) struct Breaker {
    threshold: u32,
    pause: Duration,
    inner: Inner,
    period: u64,
}

impl Breaker {
    pub(crate) fn new(threshold: u32, pause: Duration) -> Self {
        Self { threshold: threshold.max(1), pause, inner: Inner::Closed { failures: 0 }, period: 0 }
    }

    /// Lets an attempt through, or says how long to wait.
    pub(crate) fn admit(&mut self, now: Instant) -> Result<Ticket, Duration> {
        match self.inner {
            Inner::Closed { .. } => {}
            Inner::Open { until } if now < until => return Err(until - now),
            // Nobody knows how long the probe takes; a whole pause is never too short a wait.
            Inner::HalfOpen { probing: true } => return Err(self.pause),
            Inner::Open { .. } | Inner::HalfOpen { probing: false } => {
                self.enter(Inner::HalfOpen { probing: true });
            }
        }
        Ok(Ticket { period: self.period })
    }

    pub(crate) fn settle(&mut self, ticket: Ticket, outcome: Outcome, now: Instant) {
        if ticket.period != self.period {
            return;
        }
        match (self.inner, outcome) {
            (Inner::Closed { .. }, Outcome::Answered) => self.inner = Inner::Closed { failures: 0 },
            (Inner::Closed { failures }, Outcome::Failed) if failures + 1 < self.threshold => {
                self.inner = Inner::Closed { failures: failures + 1 };
            }
            (Inner::Closed { .. } | Inner::HalfOpen { .. }, Outcome::Failed) => {
                self.enter(Inner::Open { until: now + self.pause });
            }
            (Inner::HalfOpen { .. }, Outcome::Answered) => self.enter(Inner::Closed { failures: 0 }),
            (Inner::HalfOpen { .. }, Outcome::Abandoned) => self.enter(Inner::HalfOpen { probing: false }),
            (Inner::Closed { .. }, Outcome::Abandoned) | (Inner::Open { .. }, _) => {}
        }
    }

    /// What it would do now.
    pub(crate) fn state(&self, now: Instant) -> State {
        match self.inner {
            Inner::Closed { .. } => State::Closed,
            Inner::Open { until } if now < until => State::Open,
            Inner::Open { .. } | Inner::HalfOpen { .. } => State::HalfOpen,
        }
    }

    fn enter(&mut self, inner: Inner) {
        self.inner = inner;
        self.period += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(5);

    fn open(now: Instant) -> Breaker {
        let mut breaker = Breaker::new(3, PAUSE);
        for _ in 0..3 {
            let ticket = breaker.admit(now).unwrap();
            breaker.settle(ticket, Outcome::Failed, now);
        }
        breaker
    }

    #[test]
    fn opens_after_failures_in_a_row() {
        let now = Instant::now();
        let mut breaker = Breaker::new(3, PAUSE);
        for outcome in [Outcome::Failed, Outcome::Failed, Outcome::Answered, Outcome::Failed, Outcome::Failed]
        {
            let ticket = breaker.admit(now).unwrap();
            breaker.settle(ticket, outcome, now);
            assert_eq!(breaker.state(now), State::Closed);
        }
        let ticket = breaker.admit(now).unwrap();
        breaker.settle(ticket, Outcome::Abandoned, now);
        assert_eq!(breaker.state(now), State::Closed);
        let ticket = breaker.admit(now).unwrap();
        breaker.settle(ticket, Outcome::Failed, now);
        assert_eq!(breaker.state(now), State::Open);
        assert_eq!(breaker.admit(now + Duration::from_secs(2)).unwrap_err(), Duration::from_secs(3));
    }

    #[test]
    fn one_probe_decides() {
        let now = Instant::now();
        let mut breaker = open(now);
        let later = now + PAUSE;
        assert_eq!(breaker.state(later), State::HalfOpen);
        let probe = breaker.admit(later).unwrap();
        assert_eq!(breaker.admit(later).unwrap_err(), PAUSE);
        breaker.settle(probe, Outcome::Failed, later);
        assert_eq!(breaker.state(later), State::Open);
        let later = later + PAUSE;
        let probe = breaker.admit(later).unwrap();
        breaker.settle(probe, Outcome::Answered, later);
        assert_eq!(breaker.state(later), State::Closed);
    }

    #[test]
    fn an_abandoned_probe_makes_room_for_the_next() {
        let now = Instant::now();
        let mut breaker = open(now);
        let later = now + PAUSE;
        let probe = breaker.admit(later).unwrap();
        breaker.settle(probe, Outcome::Abandoned, later);
        assert!(breaker.admit(later).is_ok());
    }

    #[test]
    fn late_news_is_no_news() {
        let now = Instant::now();
        let mut breaker = Breaker::new(1, PAUSE);
        let (old, other) = (breaker.admit(now).unwrap(), breaker.admit(now).unwrap());
        breaker.settle(old, Outcome::Failed, now);
        breaker.settle(other, Outcome::Answered, now);
        assert_eq!(breaker.state(now), State::Open);
        let probe = breaker.admit(now + PAUSE).unwrap();
        breaker.settle(other, Outcome::Failed, now + PAUSE);
        breaker.settle(probe, Outcome::Answered, now + PAUSE);
        assert_eq!(breaker.state(now + PAUSE), State::Closed);
    }
}
