//! How many messages a server may send that nobody asked for: a bucket that refills with time.

use std::time::Duration;

use tokio::time::Instant;

use crate::Closed;

pub(crate) struct Allowance {
    most: u32,
    left: u32,
    filled: Instant,
}

impl Allowance {
    pub(crate) fn new(most: u32, now: Instant) -> Self {
        Self { most, left: most, filled: now }
    }

    /// Counts one message.
    pub(crate) fn take(&mut self, now: Instant) -> Result<(), Closed> {
        if self.left == 0 {
            let whole =
                u32::try_from(now.saturating_duration_since(self.filled).as_secs()).unwrap_or(u32::MAX);
            self.left = (self.most / 10).max(1).saturating_mul(whole).min(self.most);
            self.filled += Duration::from_secs(whole.into());
        }
        self.left = self.left.checked_sub(1).ok_or(Closed::Flood)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_refills_with_time() {
        let mut now = Instant::now();
        let mut allowance = Allowance::new(20, now);
        let mut taken = |now| (0..100).take_while(|_| allowance.take(now).is_ok()).count();
        assert_eq!(taken(now), 20);
        now += Duration::from_secs(1);
        assert_eq!(taken(now), 2);
        now += Duration::from_secs(3600);
        assert_eq!(taken(now), 20);
    }
}
