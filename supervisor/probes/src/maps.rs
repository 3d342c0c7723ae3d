//! The pinned maps, opened.

use std::fmt;
use std::path::Path;

use aion_probe_types::layout::{BUCKETS, State, Stats};
use aya::maps::{Array, ArrayOfMaps, HashMap, Map, MapData, MapError, PerCpuArray};

use crate::error::Error;

/// Names of the maps that are pinned.
pub(crate) const NAMES: [&str; 18] = [
    "AGENTS",
    "STATE",
    "EVENTS",
    "STATS",
    "COUNTS",
    "HISTS",
    "STARTS",
    "THROTTLED",
    "EXITED",
    "EGRESS",
    "LIMITS",
    "SPENT",
    "FLOWS",
    "WITHHELD",
    "DEVICES",
    "WINDOWS",
    "GRAMS",
    "GRAM_CALLS",
];

pub(crate) type CountMap = PerCpuArray<MapData, [u64; 2]>;
pub(crate) type HistMap = PerCpuArray<MapData, [u64; BUCKETS]>;

pub(crate) fn error(map: &'static str, action: &'static str, source: MapError) -> Error {
    Error::Map { map, action, source: Box::new(source) }
}

/// Maps that control needs.
pub(crate) struct Maps {
    pub(crate) agents: HashMap<MapData, u64, [u32; 2]>,
    pub(crate) state: Array<MapData, [u64; State::WORDS]>,
    pub(crate) stats: PerCpuArray<MapData, [u64; Stats::WORDS]>,
    pub(crate) counts: ArrayOfMaps<MapData, CountMap>,
    pub(crate) hists: ArrayOfMaps<MapData, HistMap>,
}

impl fmt::Debug for Maps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Maps").finish_non_exhaustive()
    }
}

/// Opens the pinned map `name`.
pub(crate) fn data(dir: &Path, name: &'static str) -> Result<MapData, Error> {
    MapData::from_pin(dir.join(name)).map_err(|source| error(name, "open", source))
}

/// Opens the pinned map `name` with its type checked against the kernel's.
pub(crate) fn open<M: TryFrom<Map, Error = MapError>>(dir: &Path, name: &'static str) -> Result<M, Error> {
    Map::from_map_data(data(dir, name)?).and_then(M::try_from).map_err(|source| error(name, "open", source))
}

impl Maps {
    pub(crate) fn open(dir: &Path) -> Result<Self, Error> {
        Ok(Self {
            agents: open(dir, "AGENTS")?,
            state: open(dir, "STATE")?,
            stats: open(dir, "STATS")?,
            counts: open(dir, "COUNTS")?,
            hists: open(dir, "HISTS")?,
        })
    }

    pub(crate) fn state(&self) -> Result<State, Error> {
        self.state.get(&0, 0).map(State::from_words).map_err(|source| error("STATE", "read", source))
    }

    pub(crate) fn set_state(&mut self, state: State) -> Result<(), Error> {
        self.state.set(0, state.to_words(), 0).map_err(|source| error("STATE", "write", source))
    }
}
