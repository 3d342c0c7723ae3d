//! What a machine's console says: the markers of guest-init and the closing lines of test programs.

use std::time::Duration;

/// How one suite ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) passed: u32,
    pub(crate) failed: u32,
    pub(crate) ignored: u32,
    pub(crate) seconds: u64,
    /// The suite's exit status; none when it never came to its end.
    pub(crate) status: Option<i32>,
}

impl Outcome {
    /// It came to its end, said so, and ran something.
    pub(crate) fn is_ok(&self) -> bool {
        self.status == Some(0) && self.failed == 0 && self.passed > 0
    }

    pub(crate) fn word(&self) -> &'static str {
        match self.status {
            _ if self.is_ok() => "ok",
            None => "DID NOT END",
            Some(0) if self.failed == 0 => "RAN NOTHING",
            Some(_) => "FAILED",
        }
    }
}

/// The console of one boot, read line by line.
#[derive(Debug, Default)]
pub(crate) struct Console {
    suites: Vec<(String, Outcome)>,
    running: Option<Duration>,
    /// How often PID 1 of the guest was reached.
    pub(crate) boots: u32,
    cut: bool,
    switched_off: bool,
    /// Why the machine's end is not the one it should have come to.
    pub(crate) ended_badly: Option<String>,
}

impl Console {
    /// Takes a line; says whether somebody who watches wants to see it.
    pub(crate) fn read(&mut self, line: &str, at: Duration) -> bool {
        if let Some(marker) = line.strip_prefix("@@aion ") {
            self.marker(marker, at);
            return true;
        }
        if line.contains("Kernel panic") {
            self.ended_badly = Some(line.to_owned());
            return true;
        }
        if self.running.is_none() {
            return false;
        }
        let Some((_, outcome)) = self.suites.last_mut() else { return false };
        if line.starts_with("test ") && !line.starts_with("test result") {
            if line.ends_with("... ok") {
                outcome.passed += 1;
            } else if line.contains("... ignored") {
                outcome.ignored += 1;
            } else if line.ends_with("... FAILED") {
                outcome.failed += 1;
            }
        }
        true
    }

    fn marker(&mut self, marker: &str, at: Duration) {
        let mut words = marker.split(' ');
        match (words.next(), words.next(), words.next()) {
            (Some("begin"), Some(name), _) => {
                self.suites.push((name.to_owned(), Outcome::default()));
                self.running = Some(at);
            }
            (Some("end"), Some(_), Some(status)) => {
                let begun = self.running.take().unwrap_or(at);
                if let Some((_, outcome)) = self.suites.last_mut() {
                    outcome.status = status.parse().ok();
                    outcome.seconds = at.saturating_sub(begun).as_secs();
                }
            }
            (Some("up"), ..) => self.boots += 1,
            (Some("cut"), ..) => self.cut = true,
            (Some("off"), ..) => self.switched_off = true,
            (Some("fail"), ..) => self.ended_badly = Some(marker.to_owned()),
            _ => {}
        }
    }

    /// It said that it is done, or will never be.
    pub(crate) fn is_over(&self) -> bool {
        self.switched_off || self.ended_badly.is_some()
    }

    /// Whether the power is to be cut; told once.
    pub(crate) fn take_cut(&mut self) -> bool {
        std::mem::take(&mut self.cut)
    }

    /// To be called when the machine is gone.
    pub(crate) fn finish(&mut self) {
        if !self.switched_off && self.ended_badly.is_none() {
            self.ended_badly = Some("it went down before it was switched off".to_owned());
        }
    }

    /// How this suite ended; not at all when it never began.
    pub(crate) fn suite(&self, name: &str) -> Outcome {
        self.suites.iter().find(|(n, _)| n == name).map(|(_, outcome)| outcome.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Console {
        let mut console = Console::default();
        for (second, line) in lines.iter().enumerate() {
            console.read(line, Duration::from_secs(second as u64));
        }
        console.finish();
        console
    }

    #[test]
    fn counts_tests_between_the_markers() {
        let console = read(&[
            "test not::counted ... ok",
            "@@aion begin e2e",
            "test a ... ok",
            "test b ... FAILED",
            "test c ... ignored, needs KVM",
            "test result: FAILED. 1 passed; 1 failed; 1 ignored",
            "@@aion end e2e 101",
            "@@aion off",
        ]);
        let outcome = console.suite("e2e");
        assert_eq!((outcome.passed, outcome.failed, outcome.ignored, outcome.seconds), (1, 1, 1, 5));
        assert_eq!(outcome.word(), "FAILED");
        assert_eq!(console.ended_badly, None);
    }

    #[test]
    fn a_suite_that_ran_nothing_or_did_not_end_is_no_success() {
        let console =
            read(&["@@aion begin smoke", "@@aion end smoke 0", "@@aion begin e2e", "test a ... ok"]);
        assert_eq!(console.suite("smoke").word(), "RAN NOTHING");
        assert_eq!(console.suite("e2e").word(), "DID NOT END");
        assert_eq!(console.suite("escape").word(), "DID NOT END");
        assert!(console.ended_badly.is_some());
    }

    #[test]
    fn a_cut_is_told_once_and_ends_nothing() {
        let mut console = Console::default();
        for line in ["@@aion up", "@@aion begin ship", "@@aion cut"] {
            console.read(line, Duration::ZERO);
        }
        assert!(console.take_cut() && !console.take_cut() && !console.is_over());
        console.read("@@aion up", Duration::ZERO);
        assert_eq!(console.boots, 2);
    }

    #[test]
    fn a_panic_is_told() {
        let console = read(&["[    1.0] Kernel panic - not syncing: Attempted to kill init!"]);
        assert!(console.ended_badly.unwrap().contains("panic"));
    }
}
