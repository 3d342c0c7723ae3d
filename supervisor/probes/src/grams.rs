//! Sequences of agents' system calls: the user's side of the maps `GRAMS` and `GRAM_CALLS`.
//!
//! The programs learn; this makes the tables, with what an agent is known for already, and reads them. A slot keeps its table when its
//! agent ends, and the next one's is written over it: a change of `GRAMS` itself waits for all programs that run (10 ms and more), and is
//! made once for a slot. So nobody may write to the table of an agent whose flag is not set. Layout and arithmetic are
//! `aion_probe_types::ngram`.

use std::fmt;
use std::path::Path;

use aion_probe_types::ngram::{self, Placed};
use aya::maps::{Array, ArrayOfMaps, MapData, MapError, PerCpuArray, PerCpuValues};

use crate::error::Error;
use crate::maps;
use crate::tables;

type Bucket = [u64; ngram::WAYS];
type Table = Array<MapData, Bucket>;

/// What an agent's system calls are known for: kept by the caller from one cgroup of the agent to the next.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GramModel {
    /// Sequences that were looked at.
    pub looked: u64,
    /// The different ones among them, in no order.
    pub grams: Vec<u64>,
}

/// How far that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GramCounts {
    /// Sequences that were looked at, with those of the model that it began with.
    pub looked: u64,
    /// Different ones that are known.
    pub known: u64,
    /// How often one was not known and found no room, since the table was made.
    pub unkept: u64,
}

impl GramModel {
    /// Different sequences that are kept at most.
    pub const MAX_GRAMS: u32 = ngram::CAPACITY;
}

/// The tables of all agents.
pub(crate) struct GramTables {
    tables: ArrayOfMaps<MapData, Table>,
    looked: PerCpuArray<MapData, u64>,
}

impl fmt::Debug for GramTables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GramTables").finish_non_exhaustive()
    }
}

fn failed(map: &'static str, action: &'static str) -> impl Fn(MapError) -> Error {
    move |source| maps::error(map, action, source)
}

fn make() -> Result<Table, Error> {
    Array::create(ngram::ENTRIES, 0).map_err(failed("GRAMS", "make a table for"))
}

/// The buckets of a model, and how many grams they hold. What is no gram is left out.
fn buckets(model: &GramModel) -> (Vec<Bucket>, u64) {
    let mut buckets: Vec<Bucket> = (0..ngram::BUCKETS).map(|_| [0; ngram::WAYS]).collect();
    let mut known = 0;
    for &gram in &model.grams {
        if ngram::is_gram(gram) && ngram::place(&mut buckets, gram) == Placed::New {
            known += 1;
        }
    }
    (buckets, known)
}

impl GramTables {
    pub(crate) fn open(dir: &Path) -> Result<Self, Error> {
        let (tables, looked) = (maps::open(dir, "GRAMS")?, maps::open(dir, "GRAM_CALLS")?);
        Ok(Self { tables, looked })
    }

    /// Gives a slot a table with what is known, and nothing of an earlier agent's. Before the agent's flag.
    pub(crate) fn begin(&mut self, slot: u32, model: &GramModel) -> Result<(), Error> {
        let write = failed("GRAMS", "write");
        let (buckets, known) = buckets(model);
        let (mut table, is_new) = match self.tables.get(&slot, 0) {
            Ok(table) => (table, false),
            Err(MapError::KeyNotFound) => (make()?, true),
            Err(e) => return Err(failed("GRAMS", "read")(e)),
        };
        for (at, bucket) in (0u32..).zip(&buckets) {
            // A new table is empty.
            if !is_new || *bucket != [0; ngram::WAYS] {
                table.set(at, bucket, 0).map_err(&write)?;
            }
        }
        let mut tally = [0; ngram::WAYS];
        tally[0] = known;
        table.set(ngram::TALLY, tally, 0).map_err(&write)?;
        let looked = failed("GRAM_CALLS", "write");
        let mut words = vec![0; tables::cpus()?];
        if let Some(first) = words.first_mut() {
            *first = model.looked;
        }
        let words = PerCpuValues::try_from(words).map_err(|source| looked(MapError::IoError(source)))?;
        self.looked.set(slot, words, 0).map_err(looked)?;
        if is_new {
            self.tables.set(slot, &table, 0).map_err(write)?;
        }
        Ok(())
    }

    /// How far a slot's table is.
    pub(crate) fn counts(&self, slot: u32) -> Result<GramCounts, Error> {
        let read = failed("GRAMS", "read");
        let table = self.tables.get(&slot, 0).map_err(&read)?;
        let [known, unkept, ..] = table.get(&ngram::TALLY, 0).map_err(read)?;
        let looked = self.looked.get(&slot, 0).map_err(failed("GRAM_CALLS", "read"))?;
        let looked = looked.iter().fold(0u64, |sum, words| sum.wrapping_add(*words));
        Ok(GramCounts { looked, known, unkept })
    }

    /// What a slot's table holds. What programs learn meanwhile may be in it or not.
    pub(crate) fn model(&self, slot: u32) -> Result<GramModel, Error> {
        let read = failed("GRAMS", "read");
        let looked = self.counts(slot)?.looked;
        let table = self.tables.get(&slot, 0).map_err(&read)?;
        let mut grams = Vec::new();
        for at in 0..ngram::BUCKETS {
            grams.extend(table.get(&at, 0).map_err(&read)?.into_iter().filter(|&word| word != 0));
        }
        Ok(GramModel { looked, grams })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_from_outside_is_taken_as_far_as_it_is_one() {
        let gram = (0..ngram::CALLS).fold(0, ngram::push);
        let model = GramModel { looked: 9, grams: vec![gram, 0, u64::MAX, gram] };
        let (table, known) = buckets(&model);
        assert_eq!(known, 1);
        let held: Vec<u64> = table.into_iter().flatten().filter(|&word| word != 0).collect();
        assert_eq!(held, [gram]);
    }
}
