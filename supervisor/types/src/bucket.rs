//! Tokens that come at a rate, up to a number. Pure: time comes in as an argument.

/// A bucket of tokens.
#[derive(Debug, Clone)]
pub struct Bucket {
    per_second: f64,
    most: f64,
    tokens: f64,
    at_ms: u64,
}

impl Bucket {
    /// A full bucket: `per_second` tokens come each second, `most` are kept.
    #[must_use]
    pub fn new(per_second: u32, most: u32, now_ms: u64) -> Self {
        let (per_second, most) = (f64::from(per_second.max(1)), f64::from(most.max(1)));
        Self { per_second, most, tokens: most, at_ms: now_ms }
    }

    /// Takes one.
    ///
    /// # Errors
    /// In how many milliseconds there is one again.
    pub fn take(&mut self, now_ms: u64) -> Result<(), u64> {
        let passed = u32::try_from(now_ms.saturating_sub(self.at_ms)).unwrap_or(u32::MAX);
        self.tokens = (self.tokens + f64::from(passed) / 1000.0 * self.per_second).min(self.most);
        self.at_ms = self.at_ms.max(now_ms);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        let ms = ((1.0 - self.tokens) / self.per_second * 1000.0).ceil();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is within 1 and 1000"
        )]
        Err((ms as u64).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_empties_and_fills() {
        let mut bucket = Bucket::new(10, 3, 0);
        assert!((0..3).all(|_| bucket.take(0).is_ok()));
        assert_eq!(bucket.take(0), Err(100));
        assert_eq!(bucket.take(50), Err(50));
        assert_eq!(bucket.take(100), Ok(()));
        assert!(bucket.take(100).is_err());
        // Time that goes back gives nothing.
        assert!(bucket.take(0).is_err());
    }
}
