//! Whom agents with policy `Egress` reach: the user's side of the map `EGRESS`.
//!
//! The map is one trie for all agents. What is in it is known here too, and read again after a restart, so that an agent's part
//! can be bounded and taken out without walking through the others'.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use aion_egress::{Cidr, Entry};
use aion_probe_types::layout::{Egress, EgressKey, IDLE_TCP_NS};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{MapData, MapError};

use crate::error::Error;
use crate::maps;

type Words = [u64; EgressKey::WORDS];
type Trie = LpmTrie<MapData, Words, [u64; Egress::WORDS]>;
/// An entry's place: its bits, and what they are of.
type At = (u32, EgressKey);

/// Entries of one agent, at most. Each takes two nodes of 96 bytes, so they stay below 64 KiB.
const MAX_ENTRIES: usize = 320;

const ADDRESS_BITS: u32 = 128;

/// The entries of all agents.
pub(crate) struct EgressTable {
    trie: Trie,
    agents: BTreeMap<u64, BTreeMap<At, Egress>>,
}

impl fmt::Debug for EgressTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EgressTable").field("agents", &self.agents.len()).finish_non_exhaustive()
    }
}

fn failed(action: &'static str) -> impl Fn(MapError) -> Error {
    move |source| maps::error("EGRESS", action, source)
}

fn place(cgroup: u64, cidr: Cidr, port: u16) -> At {
    let key = EgressKey { cgroup, port: port.to_be_bytes(), zero: [0; 6], addr: cidr.octets() };
    (EgressKey::HEAD_BITS + u32::from(cidr.fixed_bits()), key)
}

/// What the kernel is told that an entry names. Of one address it is judged here, once, and not with every packet.
fn narrowness(entry: &Entry) -> u32 {
    let is_judged = u32::from(entry.cidr.fixed_bits()) == ADDRESS_BITS
        && aion_egress::wanted_of(entry.cidr).is_some_and(|wanted| entry.named >= wanted);
    if is_judged { Egress::JUDGED } else { entry.named.into() }
}

/// Whether it has run out and carries no connection any more.
const fn is_over(value: &Egress, now: u64) -> bool {
    let is_used = value.used_ns != 0 && value.used_ns.saturating_add(IDLE_TCP_NS) >= now;
    value.expires_ns < now && !is_used
}

/// An entry with what a name adds to it. An address that several names lead to counts for the destinations of all of them; what is over
/// says nothing of whom it leads to today.
fn renewed(before: Option<Egress>, entry: &Entry, now: u64, until: u64) -> Egress {
    let before = before.filter(|before| !is_over(before, now)).unwrap_or_default();
    Egress {
        expires_ns: before.expires_ns.max(until),
        named: before.named.max(narrowness(entry)),
        counted: before.counted | entry.counted,
        ..before
    }
}

impl EgressTable {
    /// Reads what is there, and writes the blocks that a rule must name.
    pub(crate) fn open(dir: &Path) -> Result<Self, Error> {
        let trie: Trie = maps::open(dir, "EGRESS")?;
        let mut agents: BTreeMap<u64, BTreeMap<At, Egress>> = BTreeMap::new();
        for item in trie.iter() {
            let (key, words) = item.map_err(failed("read"))?;
            let at = EgressKey::from_words(key.data());
            agents.entry(at.cgroup).or_default().insert((key.prefix_len(), at), Egress::from_words(words));
        }
        let mut table = Self { trie, agents };
        for (cidr, named) in aion_egress::wanted() {
            let value = Egress { expires_ns: u64::MAX, named: named.into(), ..Egress::default() };
            table.write(place(0, cidr, 0), value)?;
        }
        Ok(table)
    }

    fn write(&mut self, at: At, value: Egress) -> Result<(), Error> {
        self.trie.insert(&Key::new(at.0, at.1.to_words()), value.to_words(), 0).map_err(failed("write"))?;
        self.agents.entry(at.1.cgroup).or_default().insert(at, value);
        Ok(())
    }

    fn erase(&mut self, at: At) -> Result<(), Error> {
        match self.trie.remove(&Key::new(at.0, at.1.to_words())) {
            Ok(()) | Err(MapError::KeyNotFound) => {}
            Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(failed("delete from")(source)),
        }
        if let Some(entries) = self.agents.get_mut(&at.1.cgroup) {
            entries.remove(&at);
        }
        Ok(())
    }

    /// Makes `entries` all that the agent reaches for good. Of what names added stays what `named` has, all of it without. What goes,
    /// goes first: at no time more is reached than before and than afterwards.
    pub(crate) fn set(
        &mut self,
        cgroup: u64,
        entries: &[Entry],
        named: Option<&BTreeSet<Entry>>,
    ) -> Result<(), Error> {
        if entries.len() > MAX_ENTRIES {
            return Err(Error::EgressFull { cgroup_id: cgroup, max: MAX_ENTRIES });
        }
        let place_of = |entry: &Entry| place(cgroup, entry.cidr, entry.port);
        let wanted: BTreeSet<At> = entries.iter().map(place_of).collect();
        let named: Option<BTreeSet<At>> = named.map(|named| named.iter().map(place_of).collect());
        let stays = |at: &At, value: &Egress| {
            let by_name = value.expires_ns != u64::MAX;
            wanted.contains(at) || (by_name && named.as_ref().is_none_or(|named| named.contains(at)))
        };
        let known = self.agents.get(&cgroup).into_iter().flatten();
        let gone: Vec<At> = known.filter(|(at, value)| !stays(at, value)).map(|(at, _)| *at).collect();
        for at in gone {
            self.erase(at)?;
        }
        for entry in entries {
            let (named, counted) = (narrowness(entry), entry.counted);
            let value = Egress { expires_ns: u64::MAX, used_ns: 0, named, counted };
            self.write(place_of(entry), value)?;
        }
        Ok(())
    }

    /// Adds what holds until a time. All of it or nothing.
    pub(crate) fn add(&mut self, cgroup: u64, entries: &[Entry], now: u64, until: u64) -> Result<(), Error> {
        let new = |table: &Self| {
            let known = table.agents.get(&cgroup);
            let is_new = |e: &&Entry| known.is_none_or(|k| !k.contains_key(&place(cgroup, e.cidr, e.port)));
            known.map_or(0, BTreeMap::len) + entries.iter().filter(is_new).count()
        };
        if new(self) > MAX_ENTRIES {
            self.forget_old(cgroup, now)?;
        }
        if new(self) > MAX_ENTRIES {
            return Err(Error::EgressFull { cgroup_id: cgroup, max: MAX_ENTRIES });
        }
        for entry in entries {
            let at = place(cgroup, entry.cidr, entry.port);
            let before = self.agents.get(&cgroup).and_then(|known| known.get(&at)).copied();
            let before = match before {
                // A rule of addresses holds for good, and longer than a name's answer.
                Some(before)
                    if before.expires_ns >= until && before.counted | entry.counted == before.counted =>
                {
                    continue;
                }
                Some(before) => Some(Egress { used_ns: self.used(at)?, ..before }),
                None => None,
            };
            self.write(at, renewed(before, entry, now, until))?;
        }
        Ok(())
    }

    /// When the kernel last saw a packet of an entry.
    fn used(&self, at: At) -> Result<u64, Error> {
        let words = self.trie.get(&Key::new(at.0, at.1.to_words()), 0).map_err(failed("read"))?;
        Ok(Egress::from_words(words).used_ns)
    }

    /// Takes out what has run out and carries no connection any more.
    fn forget_old(&mut self, cgroup: u64, now: u64) -> Result<(), Error> {
        let known = self.agents.get(&cgroup).into_iter().flatten();
        let old: Vec<(At, Egress)> =
            known.filter(|(_, v)| v.expires_ns < now).map(|(at, v)| (*at, *v)).collect();
        for (at, value) in old {
            if is_over(&Egress { used_ns: self.used(at)?, ..value }, now) {
                self.erase(at)?;
            }
        }
        Ok(())
    }

    /// Takes out all that an agent reaches.
    pub(crate) fn clear(&mut self, cgroup: u64) -> Result<(), Error> {
        let known: Vec<At> = self.agents.get(&cgroup).into_iter().flatten().map(|(at, _)| *at).collect();
        for at in known {
            self.erase(at)?;
        }
        self.agents.remove(&cgroup);
        Ok(())
    }

    /// Agents that have entries.
    pub(crate) fn owners(&self) -> Vec<u64> {
        self.agents.keys().copied().filter(|&cgroup| cgroup != 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_counts_for_whom_it_leads_to_and_no_more_for_whom_it_led_to() {
        let (now, until) = (3 * IDLE_TCP_NS, 3 * IDLE_TCP_NS + 60);
        let entry =
            Entry { cidr: Cidr::one("192.0.2.1".parse().unwrap()), port: 443, named: 0, counted: 0b10 };
        let counted = |expires_ns, used_ns| {
            let before = Egress { expires_ns, used_ns, named: 0, counted: 0b01 };
            let after = renewed(Some(before), &entry, now, until);
            assert_eq!(after.expires_ns, until.max(expires_ns));
            after.counted
        };
        assert_eq!(counted(now + 1, 0), 0b11, "both names lead there");
        assert_eq!(counted(u64::MAX, 0), 0b11, "a rule of addresses");
        assert_eq!(counted(now - 1, now - 5), 0b11, "a connection is open");
        assert_eq!(counted(now - 1, now - IDLE_TCP_NS - 1), 0b10);
        assert_eq!(counted(now - 1, 0), 0b10, "it was never used");
        assert_eq!(renewed(None, &entry, now, until).counted, 0b10);
    }

    #[test]
    fn one_address_is_judged_when_it_is_written() {
        let entry =
            |text: &str, named| Entry { cidr: Cidr::parse(text).unwrap(), port: 443, named, counted: 0 };
        for (text, own, told) in [
            ("192.0.0.9", 0, 0),
            ("8.8.8.8", 0, Egress::JUDGED),
            ("[2606:4700::1111]", 0, Egress::JUDGED),
            ("8.8.8.0/24", 0, 0),
            // A private address, by a rule that names no private block, and by one that does.
            ("10.1.2.3", 0, 0),
            ("10.1.2.3", 104, Egress::JUDGED),
            ("169.254.169.254", 104, 104),
            ("127.0.0.1", 128, 128),
            ("[::ffff:127.0.0.1]", 128, 128),
        ] {
            assert_eq!(narrowness(&entry(text, own)), told, "{text}");
        }
    }
}
