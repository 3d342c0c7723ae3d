//! What agents may use of the network, and have used: the user's side of the maps `LIMITS` and `SPENT`.
//!
//! The programs count, this writes what they hold agents to. What was used belongs to an account and not to a cgroup: an agent that is
//! started again has not used less. Accounts of agents that are gone are forgotten once nothing of theirs counts any more.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::time::Duration;

use aion_probe_types::layout::{Limit, LimitKey, MAX_DESTINATIONS, MAX_SPENT, Spent, SpentKey, limit};
use aion_probe_types::{LimitKind, hour};
use aya::maps::{HashMap, MapData, MapError};
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::maps;

type Account = [u64; 2];
type LimitMap = HashMap<MapData, [u64; LimitKey::WORDS], [u64; Limit::WORDS]>;
type SpentMap = HashMap<MapData, [u64; SpentKey::WORDS], [u64; Spent::WORDS]>;

/// As the kernel has it: only where there is none.
const NO_EXIST: u64 = 1;
/// Accounts at which those that are over are looked for the first time.
const SWEEP_AT: usize = 256;
/// And at the latest: all their entries fit twice.
const MOST_BEFORE_SWEEP: usize = 4096;
const SECOND_NS: u64 = 1_000_000_000;
/// What comes at once uses up as much of the time ahead, and an account is kept that long: no longer than for its bytes.
const MAX_BURST_NS: u64 = 3600 * SECOND_NS;

/// How often connections may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionRate {
    /// So many; at least 1.
    pub count: u32,
    /// In a minute; else in a second.
    pub per_minute: bool,
    /// So many at once, after a while without; at least 1.
    pub burst: u32,
}

/// What an agent, or one destination of it, may use of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NetLimits {
    /// Bytes sent in an hour, from the network header on.
    pub bytes_out: Option<u64>,
    /// Bytes received in an hour.
    pub bytes_in: Option<u64>,
    /// Connections, and first datagrams to somewhere.
    pub connections: Option<ConnectionRate>,
}

/// What was used of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NetUse {
    /// Bytes sent within the hour.
    pub out: u64,
    /// When the first of them stop to count; none: there are none.
    pub out_frees_in: Option<Duration>,
    /// Bytes received within the hour.
    pub received: u64,
    /// When the first of them stop to count.
    pub in_frees_in: Option<Duration>,
    /// Bytes sent and received since the account began.
    pub totals: (u64, u64),
    /// Connections that began.
    pub connections: u64,
    /// Connections that were refused because they came too early.
    pub refused_rate: u64,
    /// Connections that were refused because no bytes were left.
    pub refused_bytes: u64,
    /// Packets that were dropped because no bytes were left: sent, received.
    pub dropped: (u64, u64),
}

impl NetLimits {
    fn to_limit(self, account: Account) -> Limit {
        let mut limit = Limit {
            account,
            bytes_out: self.bytes_out.unwrap_or(0),
            bytes_in: self.bytes_in.unwrap_or(0),
            ..Limit::default()
        };
        if let Some(rate) = self.connections {
            let (time, code) = match rate.per_minute {
                true => (60 * SECOND_NS, limit::PER_MINUTE),
                false => (SECOND_NS, limit::PER_SECOND),
            };
            limit.interval_ns = (time / u64::from(rate.count.max(1))).max(1);
            let burst_ns = limit.interval_ns.saturating_mul(u64::from(rate.burst.saturating_sub(1)));
            limit.burst_ns = burst_ns.min(MAX_BURST_NS);
            limit.rate = code.into();
        }
        limit
    }

    /// Which of its limits connections meet that come too early.
    #[must_use]
    pub const fn rate_kind(self) -> Option<LimitKind> {
        match self.connections {
            Some(ConnectionRate { per_minute: true, .. }) => Some(LimitKind::PerMinute),
            Some(_) => Some(LimitKind::PerSecond),
            None => None,
        }
    }
}

impl NetUse {
    fn of(spent: &Spent, now: u64) -> Self {
        let frees = |words| hour::frees_in(words, now).map(Duration::from_nanos);
        Self {
            out: hour::used(&spent.sent, now),
            out_frees_in: frees(&spent.sent),
            received: hour::used(&spent.received, now),
            in_frees_in: frees(&spent.received),
            totals: (spent.sent_total, spent.received_total),
            connections: spent.connections,
            refused_rate: spent.refused_rate,
            refused_bytes: spent.refused_bytes,
            dropped: (spent.dropped_out, spent.dropped_in),
        }
    }
}

/// The limits of all agents.
pub(crate) struct LimitTable {
    limits: LimitMap,
    spent: SpentMap,
    /// By cgroup: whose use it is, and of how many destinations.
    agents: BTreeMap<u64, (Account, u64)>,
    /// Those that have entries in `SPENT`.
    accounts: BTreeSet<Account>,
    sweep_at: usize,
}

impl fmt::Debug for LimitTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimitTable").field("agents", &self.agents.len()).finish_non_exhaustive()
    }
}

/// Short, and nobody else's.
fn account(name: &str) -> Account {
    let digest: [u8; 32] = Sha256::digest(name.as_bytes()).into();
    let word =
        |at: usize| digest.iter().skip(at).take(8).fold(0_u64, |word, &byte| (word << 8) | u64::from(byte));
    [word(0), word(8)]
}

fn failed(map: &'static str, action: &'static str) -> impl Fn(MapError) -> Error {
    move |source| maps::error(map, action, source)
}

/// Whether there was nothing to take out.
fn is_missing(error: &MapError) -> bool {
    match error {
        MapError::KeyNotFound => true,
        MapError::SyscallError(error) => error.io_error.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}

impl LimitTable {
    /// Reads what is there.
    pub(crate) fn open(dir: &Path) -> Result<Self, Error> {
        let limits: LimitMap = maps::open(dir, "LIMITS")?;
        let spent: SpentMap = maps::open(dir, "SPENT")?;
        let mut agents: BTreeMap<u64, (Account, u64)> = BTreeMap::new();
        for item in limits.iter() {
            let (key, value) = item.map_err(failed("LIMITS", "read"))?;
            let (key, value) = (LimitKey::from_words(key), Limit::from_words(value));
            let known = agents.entry(key.cgroup).or_insert((value.account, 0));
            known.1 = known.1.max(key.destination);
        }
        let mut accounts = BTreeSet::new();
        for key in spent.keys() {
            accounts.insert(SpentKey::from_words(key.map_err(failed("SPENT", "read"))?).account);
        }
        let mut table = Self { limits, spent, agents, accounts, sweep_at: 0 };
        table.sweep(crate::probes::now_ns())?;
        Ok(table)
    }

    /// Holds an agent to limits: its own, then those of its destinations. What its account has used counts on.
    pub(crate) fn set(
        &mut self,
        cgroup: u64,
        name: &str,
        limits: &[NetLimits],
        now: u64,
    ) -> Result<(), Error> {
        let account = account(name);
        if self.accounts.len() >= self.sweep_at && !self.accounts.contains(&account) {
            self.sweep(now)?;
        }
        self.accounts.insert(account);
        // Where a limit is, there is something to count in: programs refuse what they cannot count.
        for (destination, limit) in (0..=u64::from(MAX_DESTINATIONS)).zip(limits) {
            let key = SpentKey { account, destination };
            match self.spent.insert(key.to_words(), [0; Spent::WORDS], NO_EXIST) {
                Ok(()) => {}
                Err(MapError::SyscallError(error))
                    if error.io_error.kind() == std::io::ErrorKind::AlreadyExists => {}
                // As the kernel says that a map is full.
                Err(MapError::SyscallError(error))
                    if error.io_error.kind() == std::io::ErrorKind::ArgumentListTooLong =>
                {
                    return Err(Error::LimitsFull { max: MAX_SPENT });
                }
                Err(source) => return Err(failed("SPENT", "write")(source)),
            }
            let key = LimitKey { cgroup, destination };
            self.agents.entry(cgroup).or_insert((account, 0)).1 = destination;
            self.limits
                .insert(key.to_words(), limit.to_limit(account).to_words(), 0)
                .map_err(failed("LIMITS", "write"))?;
        }
        Ok(())
    }

    /// What an agent's account has used: in all, and with its destinations. Nothing of an agent without limits.
    pub(crate) fn used(&self, cgroup: u64, now: u64) -> Result<Vec<NetUse>, Error> {
        let Some(&(account, last)) = self.agents.get(&cgroup) else { return Ok(Vec::new()) };
        (0..=last)
            .map(|destination| {
                let key = SpentKey { account, destination };
                let words = self.spent.get(&key.to_words(), 0).map_err(failed("SPENT", "read"))?;
                Ok(NetUse::of(&Spent::from_words(words), now))
            })
            .collect()
    }

    /// Takes an agent out; what it used stays.
    pub(crate) fn clear(&mut self, cgroup: u64) -> Result<(), Error> {
        let Some((_, last)) = self.agents.remove(&cgroup) else { return Ok(()) };
        for destination in 0..=last {
            match self.limits.remove(&LimitKey { cgroup, destination }.to_words()) {
                Err(error) if !is_missing(&error) => return Err(failed("LIMITS", "delete from")(error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Agents that have limits.
    pub(crate) fn owners(&self) -> Vec<u64> {
        self.agents.keys().copied().collect()
    }

    /// Forgets accounts that nobody goes by and that have used nothing for an hour.
    fn sweep(&mut self, now: u64) -> Result<(), Error> {
        let live: BTreeSet<Account> = self.agents.values().map(|(account, _)| *account).collect();
        let gone: Vec<Account> = self.accounts.difference(&live).copied().collect();
        for account in gone {
            let mut kept = false;
            for destination in 0..=u64::from(MAX_DESTINATIONS) {
                let key = SpentKey { account, destination }.to_words();
                let spent = match self.spent.get(&key, 0) {
                    Ok(words) => Spent::from_words(words),
                    Err(error) if is_missing(&error) => continue,
                    Err(error) => return Err(failed("SPENT", "read")(error)),
                };
                let is_over = hour::used(&spent.sent, now) == 0
                    && hour::used(&spent.received, now) == 0
                    && spent.due_ns <= now;
                if !is_over {
                    kept = true;
                    continue;
                }
                match self.spent.remove(&key) {
                    Err(error) if !is_missing(&error) => return Err(failed("SPENT", "delete from")(error)),
                    _ => {}
                }
            }
            if !kept {
                self.accounts.remove(&account);
            }
        }
        self.sweep_at = self.accounts.len().saturating_mul(2).clamp(SWEEP_AT, MOST_BEFORE_SWEEP);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_becomes_an_interval_and_a_burst() {
        let of = |count, per_minute, burst| {
            let connections = Some(ConnectionRate { count, per_minute, burst });
            let limit = NetLimits { connections, ..NetLimits::default() }.to_limit([1, 2]);
            (limit.interval_ns, limit.burst_ns, limit.rate)
        };
        assert_eq!(of(5, false, 5), (SECOND_NS / 5, 4 * SECOND_NS / 5, 1));
        assert_eq!(of(30, true, 1), (2 * SECOND_NS, 0, 2));
        assert_eq!(of(1, true, 10_000).1, MAX_BURST_NS);
        assert_eq!(NetLimits::default().to_limit([1, 2]), Limit { account: [1, 2], ..Limit::default() });
    }

    #[test]
    fn accounts_are_told_apart() {
        assert_ne!(account("a"), account("b"));
        assert_eq!(account("a"), account("a"));
    }
}
