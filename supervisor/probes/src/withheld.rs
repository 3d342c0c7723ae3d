//! Files and programs that are withheld from running agents: the user's side of the map `WITHHELD`.
//!
//! What is in the map is known here too, and read again after a restart. A change first withholds what either side of it withholds,
//! and only then gives back: at no time may an agent do more than before and than afterwards.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use aion_probe_types::withheld::{Withheld, WithheldKey};
use aya::maps::{HashMap, MapData, MapError};

use crate::error::Error;
use crate::maps;

type Words = [u64; WithheldKey::WORDS];
type Map = HashMap<MapData, Words, u64>;

/// Entries of one agent, at most.
const MAX_ENTRIES: usize = 1024;

/// A use of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileAccess {
    /// Opening for reading.
    Read,
    /// Opening for writing, making, removing, renaming, linking.
    Write,
    /// Executing.
    Exec,
}

/// A file, or a folder with all that is below it on its mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilePlace {
    /// The inode's number, as the kernel itself has it (`ino` of fdinfo).
    pub inode: u64,
    /// The device of its file system, as the kernel itself has it (as in mountinfo): see [`FilePlace::new`].
    dev: u32,
}

impl FilePlace {
    /// Everything there is; for execution alone.
    pub const EVERYTHING: Self = Self { inode: 0, dev: 0 };

    /// By device number and inode. None for numbers that no device has.
    #[must_use]
    pub const fn new(major: u32, minor: u32, inode: u64) -> Option<Self> {
        if major >= 1 << 12 || minor >= 1 << 20 || inode == 0 {
            return None;
        }
        Some(Self { inode, dev: major << 20 | minor })
    }
}

/// One use of one place that is withheld.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WithheldFile {
    /// Of what.
    pub place: FilePlace,
    /// Which.
    pub access: FileAccess,
    /// The rule's number, from 1 on: records have it.
    pub rule: u16,
}

/// What an agent's entries are to be.
fn entries(cgroup: u64, files: &[WithheldFile]) -> BTreeMap<WithheldKey, Withheld> {
    let mut all: BTreeMap<WithheldKey, Withheld> = BTreeMap::new();
    for file in files {
        let key = WithheldKey { cgroup, inode: file.place.inode, dev: file.place.dev, zero: 0 };
        let none = Withheld::default();
        let one = match file.access {
            FileAccess::Read => Withheld { read: file.rule, ..none },
            FileAccess::Write => Withheld { write: file.rule, ..none },
            FileAccess::Exec => Withheld { exec: file.rule, ..none },
        };
        let known = all.entry(key).or_default();
        *known = known.or(one);
    }
    all
}

/// The entries of all agents.
pub(crate) struct WithheldTable {
    map: Map,
    agents: BTreeMap<u64, BTreeMap<WithheldKey, Withheld>>,
}

impl fmt::Debug for WithheldTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WithheldTable").field("agents", &self.agents.len()).finish_non_exhaustive()
    }
}

fn failed(action: &'static str) -> impl Fn(MapError) -> Error {
    move |source| maps::error("WITHHELD", action, source)
}

impl WithheldTable {
    /// Reads what is there.
    pub(crate) fn open(dir: &Path) -> Result<Self, Error> {
        let map: Map = maps::open(dir, "WITHHELD")?;
        let mut agents: BTreeMap<u64, BTreeMap<WithheldKey, Withheld>> = BTreeMap::new();
        for item in map.iter() {
            let (words, word) = item.map_err(failed("read"))?;
            let key = WithheldKey::from_words(words);
            agents.entry(key.cgroup).or_default().insert(key, Withheld::from_word(word));
        }
        Ok(Self { map, agents })
    }

    fn write(&mut self, key: WithheldKey, value: Withheld) -> Result<(), Error> {
        self.map.insert(key.to_words(), value.to_word(), 0).map_err(failed("write"))?;
        self.agents.entry(key.cgroup).or_default().insert(key, value);
        Ok(())
    }

    fn erase(&mut self, key: WithheldKey) -> Result<(), Error> {
        match self.map.remove(&key.to_words()) {
            Ok(()) | Err(MapError::KeyNotFound) => {}
            Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(failed("delete from")(source)),
        }
        if let Some(entries) = self.agents.get_mut(&key.cgroup) {
            entries.remove(&key);
        }
        Ok(())
    }

    /// Withholds `files` beside what is withheld already.
    pub(crate) fn add(&mut self, cgroup: u64, files: &[WithheldFile]) -> Result<(), Error> {
        let wanted = entries(cgroup, files);
        if wanted.len() > MAX_ENTRIES {
            return Err(Error::WithheldFull { cgroup_id: cgroup, max: MAX_ENTRIES });
        }
        for (key, value) in wanted {
            let known = self.agents.get(&cgroup).and_then(|known| known.get(&key)).copied();
            let both = known.unwrap_or_default().or(value);
            if known != Some(both) {
                self.write(key, both)?;
            }
        }
        Ok(())
    }

    /// Gives back all but `files`, which [`WithheldTable::add`] was told of.
    pub(crate) fn keep(&mut self, cgroup: u64, files: &[WithheldFile]) -> Result<(), Error> {
        let wanted = entries(cgroup, files);
        let known = self.agents.get(&cgroup).into_iter().flatten();
        let gone: Vec<WithheldKey> =
            known.filter(|(key, _)| !wanted.contains_key(key)).map(|(key, _)| *key).collect();
        for key in gone {
            self.erase(key)?;
        }
        for (key, value) in wanted {
            if self.agents.get(&cgroup).and_then(|known| known.get(&key)) != Some(&value) {
                self.write(key, value)?;
            }
        }
        Ok(())
    }

    /// Takes out all entries of an agent.
    pub(crate) fn clear(&mut self, cgroup: u64) -> Result<(), Error> {
        self.keep(cgroup, &[])?;
        self.agents.remove(&cgroup);
        Ok(())
    }

    /// Agents that have entries.
    pub(crate) fn owners(&self) -> Vec<u64> {
        self.agents.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_as_the_kernel_numbers_them() {
        let place = FilePlace::new(8, 1, 42).unwrap();
        assert_eq!((place.inode, place.dev), (42, 0x0080_0001));
        assert_eq!(FilePlace::new(1 << 12, 0, 1), None);
        assert_eq!(FilePlace::new(0, 1 << 20, 1), None);
        // It would be everything.
        assert_eq!(FilePlace::new(0, 0, 0), None);
    }

    #[test]
    fn uses_of_one_place_are_one_entry() {
        let place = FilePlace::new(0, 30, 2).unwrap();
        let of = |access, rule| WithheldFile { place, access, rule };
        let all = entries(7, &[of(FileAccess::Read, 1), of(FileAccess::Write, 2), of(FileAccess::Exec, 9)]);
        let value = Withheld { read: 1, write: 2, exec: 9, zero: 0 };
        assert_eq!(all, BTreeMap::from([(WithheldKey { cgroup: 7, inode: 2, dev: 30, zero: 0 }, value)]));
    }
}
