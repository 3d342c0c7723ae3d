//! Counters per agent: the maps' side of `counters`, and the inner maps that only some agents have.

use std::fmt;

use aion_probe_types::layout::{Agent, BUCKETS, SYSCALLS, Stats, flag};
use aya::maps::{MapError, PerCpuArray, PerCpuValues};
use aya::util::nr_cpus;

use crate::counters::{AgentCounters, NetBytes, SyscallCounter};
use crate::error::Error;
use crate::maps::{self, CountMap, HistMap, Maps};

/// Makes the inner maps, and takes them away. A slot without an agent that counts points at a shared empty
/// map: the kernel's array of maps would keep the last one alive otherwise.
#[derive(Default)]
pub(crate) struct Tables {
    empty_counts: Option<CountMap>,
    empty_hists: Option<HistMap>,
}

impl fmt::Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tables").finish_non_exhaustive()
    }
}

fn counts_failed(source: MapError) -> Error {
    maps::error("COUNTS", "write", source)
}

fn hists_failed(source: MapError) -> Error {
    maps::error("HISTS", "write", source)
}

/// Whether a change of flags brings one of `bits` where there was none.
const fn gains(from: u32, to: u32, bits: u32) -> bool {
    from & bits == 0 && to & bits != 0
}

impl Tables {
    /// Gives a slot what its new flags need and its old ones did not.
    pub(crate) fn prepare(&mut self, maps: &mut Maps, slot: u32, from: u32, to: u32) -> Result<(), Error> {
        if gains(from, to, flag::SYSCALLS) {
            let map = PerCpuArray::create(SYSCALLS, 0).map_err(counts_failed)?;
            maps.counts.set(slot, &map, 0).map_err(counts_failed)?;
        }
        if gains(from, to, flag::LATENCY) {
            let map = PerCpuArray::create(SYSCALLS, 0).map_err(hists_failed)?;
            maps.hists.set(slot, &map, 0).map_err(hists_failed)?;
        }
        Ok(())
    }

    /// Takes away what its old flags needed and its new ones do not.
    pub(crate) fn release(&mut self, maps: &mut Maps, slot: u32, from: u32, to: u32) -> Result<(), Error> {
        if gains(to, from, flag::SYSCALLS) {
            let empty = match self.empty_counts.take() {
                Some(map) => map,
                None => PerCpuArray::create(SYSCALLS, 0).map_err(counts_failed)?,
            };
            maps.counts.set(slot, &empty, 0).map_err(counts_failed)?;
            self.empty_counts = Some(empty);
        }
        if gains(to, from, flag::LATENCY) {
            let empty = match self.empty_hists.take() {
                Some(map) => map,
                None => PerCpuArray::create(SYSCALLS, 0).map_err(hists_failed)?,
            };
            maps.hists.set(slot, &empty, 0).map_err(hists_failed)?;
            self.empty_hists = Some(empty);
        }
        Ok(())
    }
}

/// Values that an element of a per-CPU map has.
pub(crate) fn cpus() -> Result<usize, Error> {
    nr_cpus().map_err(|(_, source)| Error::Io {
        action: "count the processors from",
        path: "/sys/devices/system/cpu/possible".into(),
        source,
    })
}

/// Sums the words of all CPUs.
fn sum<const N: usize>(values: &PerCpuValues<[u64; N]>) -> [u64; N] {
    let mut total = [0u64; N];
    for cpu in values.iter() {
        for (to, from) in total.iter_mut().zip(cpu) {
            *to = to.wrapping_add(*from);
        }
    }
    total
}

impl Maps {
    pub(crate) fn clear_stats(&mut self, slot: u32) -> Result<(), Error> {
        let failed = |source| maps::error("STATS", "write", source);
        let zero = PerCpuValues::try_from(vec![[0; Stats::WORDS]; cpus()?])
            .map_err(|source| failed(MapError::IoError(source)))?;
        self.stats.set(slot, zero, 0).map_err(failed)
    }

    pub(crate) fn counters(&self, slot: u32) -> Result<AgentCounters, Error> {
        let words = self.stats.get(&slot, 0).map_err(|source| maps::error("STATS", "read", source))?;
        let stats = Stats::from_words(sum(&words));
        Ok(AgentCounters {
            events: stats.events,
            dropped: stats.dropped,
            denied: stats.denied,
            throttled: stats.throttled,
            net: NetBytes {
                rx_bytes: stats.rx_bytes,
                rx_packets: stats.rx_packets,
                tx_bytes: stats.tx_bytes,
                tx_packets: stats.tx_packets,
            },
        })
    }

    pub(crate) fn syscalls(&self, agent: Agent) -> Result<Vec<SyscallCounter>, Error> {
        if agent.flags & flag::SYSCALLS == 0 {
            return Ok(Vec::new());
        }
        let read_counts = |source| maps::error("COUNTS", "read", source);
        let read_hists = |source| maps::error("HISTS", "read", source);
        let counts = self.counts.get(&agent.slot, 0).map_err(read_counts)?;
        let hists = if agent.flags & flag::LATENCY == 0 {
            None
        } else {
            Some(self.hists.get(&agent.slot, 0).map_err(read_hists)?)
        };
        let mut all = Vec::new();
        for nr in 0..SYSCALLS {
            let [count, errors] = sum(&counts.get(&nr, 0).map_err(read_counts)?);
            if count == 0 {
                continue;
            }
            let latency_log2_ns = match &hists {
                None => Vec::new(),
                Some(hists) => trim(sum(&hists.get(&nr, 0).map_err(read_hists)?)),
            };
            all.push(SyscallCounter { nr, count, errors, latency_log2_ns });
        }
        Ok(all)
    }
}

fn trim(buckets: [u64; BUCKETS]) -> Vec<u64> {
    let used = buckets.iter().rposition(|&n| n != 0).map_or(0, |last| last + 1);
    buckets.into_iter().take(used).collect()
}
