//! Devices that agents may open: the user's side of the map `DEVICES`.
//!
//! What is in the map is known here too, and read again after a restart. A change first takes what goes, and only then gives what
//! comes: at no time may an agent do more than before and than afterwards.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use aion_probe_types::device::{DeviceKey, access};
use aya::maps::{HashMap, MapData, MapError};

use crate::error::Error;
use crate::maps;

type Words = [u64; DeviceKey::WORDS];
type Map = HashMap<MapData, Words, u64>;

/// Entries of one agent, at most.
const MAX_ENTRIES: usize = 64;

/// A character device, and what of it an agent has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceUse {
    /// Its driver.
    pub major: u32,
    /// Which of the driver's.
    pub minor: u32,
    /// Opening for reading.
    pub read: bool,
    /// Opening for writing.
    pub write: bool,
}

impl DeviceUse {
    fn bits(self) -> u32 {
        let read = if self.read { access::READ } else { 0 };
        let write = if self.write { access::WRITE } else { 0 };
        read | write
    }
}

/// What an agent's entries are to be.
fn entries(cgroup: u64, devices: &[DeviceUse]) -> BTreeMap<DeviceKey, u32> {
    let mut all: BTreeMap<DeviceKey, u32> = BTreeMap::new();
    for device in devices.iter().filter(|device| device.bits() != 0) {
        let key = DeviceKey { cgroup, major: device.major, minor: device.minor };
        *all.entry(key).or_default() |= device.bits();
    }
    all
}

/// The entries of all agents.
pub(crate) struct DeviceTable {
    map: Map,
    agents: BTreeMap<u64, BTreeMap<DeviceKey, u32>>,
}

impl fmt::Debug for DeviceTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceTable").field("agents", &self.agents.len()).finish_non_exhaustive()
    }
}

fn failed(action: &'static str) -> impl Fn(MapError) -> Error {
    move |source| maps::error("DEVICES", action, source)
}

impl DeviceTable {
    /// Reads what is there.
    pub(crate) fn open(dir: &Path) -> Result<Self, Error> {
        let map: Map = maps::open(dir, "DEVICES")?;
        let mut agents: BTreeMap<u64, BTreeMap<DeviceKey, u32>> = BTreeMap::new();
        for item in map.iter() {
            let (words, word) = item.map_err(failed("read"))?;
            let key = DeviceKey::from_words(words);
            let bits = u32::try_from(word).unwrap_or(u32::MAX);
            agents.entry(key.cgroup).or_default().insert(key, bits);
        }
        Ok(Self { map, agents })
    }

    fn write(&mut self, key: DeviceKey, bits: u32) -> Result<(), Error> {
        self.map.insert(key.to_words(), u64::from(bits), 0).map_err(failed("write"))?;
        self.agents.entry(key.cgroup).or_default().insert(key, bits);
        Ok(())
    }

    fn erase(&mut self, key: DeviceKey) -> Result<(), Error> {
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

    /// Makes `devices` all that an agent may open.
    pub(crate) fn set(&mut self, cgroup: u64, devices: &[DeviceUse]) -> Result<(), Error> {
        let wanted = entries(cgroup, devices);
        if wanted.len() > MAX_ENTRIES {
            return Err(Error::DevicesFull { cgroup_id: cgroup, max: MAX_ENTRIES });
        }
        let known = self.agents.get(&cgroup).cloned().unwrap_or_default();
        for (key, bits) in &known {
            match bits & wanted.get(key).copied().unwrap_or(0) {
                0 => self.erase(*key)?,
                left if left != *bits => self.write(*key, left)?,
                _ => {}
            }
        }
        for (key, bits) in wanted {
            if known.get(&key) != Some(&bits) {
                self.write(key, bits)?;
            }
        }
        Ok(())
    }

    /// Takes out all entries of an agent.
    pub(crate) fn clear(&mut self, cgroup: u64) -> Result<(), Error> {
        self.set(cgroup, &[])?;
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
    fn uses_of_one_device_are_one_entry() {
        let of = |minor, read, write| DeviceUse { major: 10, minor, read, write };
        let all = entries(
            7,
            &[of(229, true, false), of(229, false, true), of(232, true, false), of(1, false, false)],
        );
        let key = |minor| DeviceKey { cgroup: 7, major: 10, minor };
        assert_eq!(all, BTreeMap::from([(key(229), access::READ | access::WRITE), (key(232), access::READ)]));
    }
}
