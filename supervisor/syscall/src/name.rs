//! Names of system calls: `family.verb`, lower case.

use std::fmt;

/// The longest name.
pub const MAX_NAME: usize = 64;

/// A well-formed name. That the kernel has such a call is not known here.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SyscallName(String);

impl SyscallName {
    /// Takes `family.verb`: two parts or more of a-z, 0-9 and '_', with '.' between, 64 characters at most.
    ///
    /// # Errors
    /// Says what a name looks like.
    pub fn parse(text: &str) -> Result<Self, String> {
        let part = |p: &str| {
            !p.is_empty() && p.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        };
        if text.len() > MAX_NAME || !text.contains('.') || !text.split('.').all(part) {
            let shown: String = text.chars().take(80).collect();
            return Err(format!("{shown:?} is not the name of a system call; write it as tool.invoke"));
        }
        Ok(Self(text.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether an entry of an allow-list covers it: the name itself, its family as `memory.*`, or `*`.
    #[must_use]
    pub fn is_covered_by(&self, pattern: &str) -> bool {
        match pattern.strip_suffix('*') {
            Some("") => true,
            Some(family) => family.ends_with('.') && self.0.starts_with(family),
            None => pattern == self.0,
        }
    }
}

impl fmt::Display for SyscallName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_a_family() {
        for good in ["tool.invoke", "memory.put", "fs.read_at", "a.b.c"] {
            assert!(SyscallName::parse(good).is_ok(), "{good}");
        }
        for bad in
            ["", "tool", "Tool.invoke", "tool.", ".x", "a..b", "a/b.c", &format!("a.{}", "x".repeat(64))]
        {
            assert!(SyscallName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn wildcards_end_at_a_dot() {
        let name = SyscallName::parse("memory.put").unwrap();
        for covering in ["memory.put", "memory.*", "*"] {
            assert!(name.is_covered_by(covering), "{covering}");
        }
        for other in ["memory.query", "mem*", "memory", "memory.p*", "", "tool.*"] {
            assert!(!name.is_covered_by(other), "{other}");
        }
    }
}
