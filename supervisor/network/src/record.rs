//! What was changed outside of agents, on disk before it is changed, so that it can be put back.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use crate::Error;
use crate::pool::Pool;

/// What is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Record {
    pub(crate) pool: Option<Pool>,
    /// Files below /proc/sys that were 0 and are 1.
    pub(crate) raised: BTreeSet<String>,
}

impl Record {
    /// Reads it; nothing was changed where there is none.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let text = match fs::read_to_string(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            text => text.map_err(Error::io(format!("read {}", path.display())))?,
        };
        let mut record = Self::default();
        for line in text.lines() {
            match line.split_once(' ') {
                Some(("pool", pool)) => record.pool = Pool::parse(pool).ok(),
                Some(("raised", file)) if is_ours(file) => {
                    record.raised.insert(file.to_owned());
                }
                _ => {}
            }
        }
        Ok(record)
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), Error> {
        let mut text = String::new();
        if let Some(pool) = self.pool {
            text.push_str(&format!("pool {pool}\n"));
        }
        for file in &self.raised {
            text.push_str(&format!("raised {file}\n"));
        }
        let new = path.with_extension("new");
        let write = || {
            let mut file = fs::File::create(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, path)
        };
        write().map_err(Error::io(format!("write {}", path.display())))
    }
}

/// Only what is switched here is ever switched back.
fn is_ours(file: &str) -> bool {
    let parts: Vec<&str> = file.split('/').collect();
    matches!(parts[..], ["net", "ipv4", "conf", link, "forwarding"] | ["net", "ipv6", "conf", link, "force_forwarding"]
        if !link.is_empty() && link != "." && link != "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_and_takes_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("network");
        assert_eq!(Record::read(&path).unwrap(), Record::default());
        let mut record = Record { pool: Pool::parse("10.9.0.0/24").ok(), ..Record::default() };
        record.raised.insert("net/ipv4/conf/eth0.7/forwarding".to_owned());
        record.write(&path).unwrap();
        assert_eq!(Record::read(&path).unwrap(), record);
        fs::write(&path, "raised kernel/modules_disabled\nraised net/ipv4/conf/../forwarding\nx\n").unwrap();
        assert_eq!(Record::read(&path).unwrap(), Record::default());
    }
}
