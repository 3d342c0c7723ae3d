//! The kernel's release, compared by number.

use std::fmt;

/// `6.1.0-18-cloud-amd64` as numbers and text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Major and minor; 0.0 when it could not be read.
    pub number: (u32, u32),
    /// As the kernel tells it.
    pub text: String,
}

impl Release {
    /// The running kernel's.
    #[must_use]
    pub fn running() -> Self {
        Self::parse(std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim())
    }

    /// Reads a release.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut parts = text.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
        let number = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        Self { number, text: text.to_owned() }
    }

    /// Whether it is at least this version.
    #[must_use]
    pub fn at_least(&self, major: u32, minor: u32) -> bool {
        self.number >= (major, minor)
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::Release;

    #[test]
    fn releases_compare_by_number() {
        assert_eq!(Release::parse("6.1.0-18-cloud-amd64").number, (6, 1));
        assert!(Release::parse("6.12.3").at_least(6, 2));
        assert!(!Release::parse("5.15.0").at_least(6, 1));
        assert_eq!(Release::parse("").number, (0, 0));
    }
}
