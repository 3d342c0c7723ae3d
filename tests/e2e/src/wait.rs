//! Waiting for something to become true, with an end.

use std::time::{Duration, Instant};

use crate::scale::stretched;

/// Asks again and again until there is an answer; `None` when time is up. Time is stretched on slow machines.
pub fn until<T>(time: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + stretched(time);
    let mut pause = Duration::from_millis(2);
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// As [`until`], for a plain question.
///
/// # Panics
/// When time is up, naming what was waited for.
pub fn eventually(what: &str, time: Duration, mut ask: impl FnMut() -> bool) {
    assert!(until(time, || ask().then_some(())).is_some(), "waited {time:?} in vain: {what}");
}
