//! The folder that pieces are kept in: which there are, by their names.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::piece::{Line, Mark, Name};
use crate::{Error, Result};

/// Ends that a journal is asked about.
const MAX_ENDS: usize = 256;

/// Pieces in a folder. Other files in it are nobody's concern.
#[derive(Debug, Clone)]
pub struct Pieces {
    dir: PathBuf,
    names: Vec<Name>,
}

impl Pieces {
    /// Looks into a folder.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn list(dir: &Path) -> Result<Self> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir).map_err(Error::io("list", dir))? {
            let entry = entry.map_err(Error::io("list", dir))?;
            names.extend(entry.file_name().to_str().and_then(|name| name.parse::<Name>().ok()));
        }
        names.sort_unstable_by_key(|name| (name.from, name.to.commit, name.to.line));
        Ok(Self { dir: dir.to_owned(), names })
    }

    /// In the order of their commits.
    #[must_use]
    pub fn names(&self) -> &[Name] {
        &self.names
    }

    /// Where one is.
    #[must_use]
    pub fn path(&self, name: &Name) -> PathBuf {
        self.dir.join(name.to_string())
    }

    /// Where it can be gone on with: the last end of each history, the furthest first.
    #[must_use]
    pub fn ends(&self) -> Vec<Mark> {
        let mut ends = BTreeMap::<Line, Mark>::new();
        for name in &self.names {
            let end = ends.entry(name.to.line).or_insert(name.to);
            if name.to.commit > end.commit {
                *end = name.to;
            }
        }
        let mut ends: Vec<Mark> = ends.into_values().collect();
        ends.sort_unstable_by_key(|end| std::cmp::Reverse(end.commit));
        ends.truncate(MAX_ENDS);
        ends
    }
}
