//! Alerts under way, and those that the receiver failed on several times in a row: they wait for their own time beside the queue, so
//! that others go on.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use crate::alert::Alert;

/// An alert that is being sent.
#[derive(Debug)]
pub(crate) struct Trying {
    pub(crate) alert: Arc<Alert>,
    /// All tries send the same bytes, so that a receiver that has them already may compare.
    pub(crate) body: Bytes,
    /// Alerts that found no room before, which this one tells.
    pub(crate) dropped: u64,
    pub(crate) begun: Instant,
    pub(crate) tries: u32,
    /// It is tried again no sooner.
    pub(crate) due: Instant,
}

/// Those that wait aside, the one that was put there first in front.
#[derive(Debug, Default)]
pub(crate) struct Aside(VecDeque<Trying>);

impl Aside {
    /// Sets one aside. Of more than so many the first has to go.
    pub(crate) fn put(&mut self, alert: Trying, most: usize) -> Option<Trying> {
        self.0.push_back(alert);
        if self.0.len() > most { self.0.pop_front() } else { None }
    }

    /// One whose time has come.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<Trying> {
        let at = self.0.iter().position(|alert| alert.due <= now)?;
        self.0.remove(at)
    }

    /// When the next one's time comes.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.0.iter().map(|alert| alert.due).min()
    }

    /// The first, whatever its time.
    pub(crate) fn take(&mut self) -> Option<Trying> {
        self.0.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aion_detect::Severity;

    use super::*;

    #[test]
    fn each_has_its_time_and_the_first_makes_room() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let trying = |rule: &str, due| Trying {
            alert: Arc::new(crate::webhooks::tests::alert(rule, Severity::High)),
            body: Bytes::new(),
            dropped: 0,
            begun,
            tries: 3,
            due,
        };
        let rule = |alert: Option<Trying>| alert.map(|alert| alert.alert.rule.clone());
        let mut aside = Aside::default();
        assert!(aside.put(trying("late", at(30)), 2).is_none());
        assert!(aside.put(trying("soon", at(10)), 2).is_none());
        assert_eq!(aside.next_due(), Some(at(10)));
        assert!(aside.take_due(at(9)).is_none());
        assert_eq!(rule(aside.take_due(at(10))).as_deref(), Some("soon"));
        assert!(aside.put(trying("other", at(40)), 2).is_none());
        assert_eq!(rule(aside.put(trying("more", at(50)), 2)).as_deref(), Some("late"));
        assert_eq!(rule(aside.take()).as_deref(), Some("other"));
    }
}
