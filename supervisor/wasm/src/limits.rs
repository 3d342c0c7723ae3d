//! What a call may use, and what it is given.

use std::path::PathBuf;
use std::time::Duration;

/// Bytes of a call's standard output.
pub(crate) const MAX_OUTPUT: usize = 4 << 20;
/// Bytes of standard error that are kept: the last ones.
pub(crate) const MAX_STDERR: usize = 16 << 10;
/// Handles that a call may hold: each costs memory of this process, not of the instance.
pub(crate) const MAX_HANDLES: usize = 4096;
/// Bytes that a module may hand over in one call of an import.
pub(crate) const MAX_HANDED_OVER: usize = 8 << 20;
/// Elements of all tables of a call.
pub(crate) const MAX_TABLE_ELEMENTS: usize = 1 << 20;
/// The longest run of random bytes that one call of an import gives.
pub(crate) const MAX_RANDOM: u64 = 1 << 20;

/// The limits of each call.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of linear memory of one call; 64 MiB.
    pub max_memory: usize,
    /// Bytes of linear memory of all calls that run at once; 128 MiB.
    pub total_memory: usize,
    /// Units of computation, about one for each instruction; 10,000,000,000.
    pub fuel: u64,
    /// Wall time; 30 s.
    pub timeout: Duration,
    /// Folders that the module sees; none.
    pub dirs: Vec<Dir>,
    /// Its environment; empty.
    pub env: Vec<(String, String)>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_memory: 64 << 20,
            total_memory: 128 << 20,
            fuel: 10_000_000_000,
            timeout: Duration::from_secs(30),
            dirs: Vec::new(),
            env: Vec::new(),
        }
    }
}

/// A folder that a module sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dir {
    /// Where it is.
    pub host: PathBuf,
    /// What the module calls it.
    pub guest: String,
    /// Whether the module may only read.
    pub read_only: bool,
}

impl std::str::FromStr for Dir {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, guest) = text.split_once('=').ok_or("write HOST=GUEST or HOST=GUEST:ro")?;
        let (guest, read_only) = guest.strip_suffix(":ro").map_or((guest, false), |guest| (guest, true));
        if host.is_empty() || guest.is_empty() {
            return Err("both sides of '=' name a folder");
        }
        Ok(Self { host: PathBuf::from(host), guest: guest.to_owned(), read_only })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders() {
        let dir = |host: &str, guest: &str, read_only| Dir {
            host: PathBuf::from(host),
            guest: guest.to_owned(),
            read_only,
        };
        assert_eq!("/a=/b".parse(), Ok(dir("/a", "/b", false)));
        assert_eq!("/a=/b:ro".parse(), Ok(dir("/a", "/b", true)));
        assert_eq!("a=.:ro".parse(), Ok(dir("a", ".", true)));
        for wrong in ["", "/a", "=/b", "/a=", "/a=:ro"] {
            assert!(wrong.parse::<Dir>().is_err(), "{wrong}");
        }
    }
}
