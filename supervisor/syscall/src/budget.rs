//! What calls may cost: amounts are reserved before the work and settled after it.
//!
//! A reservation is the most that a call can cost, cut to what is left. Many calls at once on one account overspend it by one
//! call at most: the one that was cut. While it is under way no other is cut, whatever those that end leave. Time comes in as an
//! argument.

use std::collections::HashMap;
use std::hash::Hash;

/// What is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Account {
    /// One task.
    Task {
        /// Whose.
        tenant: String,
        /// Which.
        task: String,
    },
    /// One task, in an hour.
    TaskHour {
        /// Whose.
        tenant: String,
        /// Which.
        task: String,
    },
    /// One task, in a minute.
    TaskMinute {
        /// Whose.
        tenant: String,
        /// Which.
        task: String,
    },
    /// An agent, in a minute.
    AgentMinute {
        /// Whose.
        tenant: String,
        /// Its name.
        name: String,
    },
    /// An agent, in an hour.
    Agent {
        /// Whose.
        tenant: String,
        /// Its name.
        name: String,
    },
    /// A tenant, in an hour.
    Tenant {
        /// Which.
        tenant: String,
    },
}

impl Account {
    /// How long until it begins anew, in milliseconds; none: never.
    const fn window_ms(&self) -> Option<u64> {
        match self {
            Self::Task { .. } => None,
            Self::TaskMinute { .. } | Self::AgentMinute { .. } => Some(60_000),
            Self::TaskHour { .. } | Self::Agent { .. } | Self::Tenant { .. } => Some(3_600_000),
        }
    }
}

impl std::fmt::Display for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Task { task, .. } => write!(f, "task {task}"),
            Self::TaskHour { task, .. } => write!(f, "task {task}, this hour"),
            Self::TaskMinute { task, .. } => write!(f, "task {task}, this minute"),
            Self::AgentMinute { tenant, name } => write!(f, "agent://{tenant}/{name}, this minute"),
            Self::Agent { tenant, name } => write!(f, "agent://{tenant}/{name}, this hour"),
            Self::Tenant { tenant } => write!(f, "tenant {tenant}, this hour"),
        }
    }
}

/// An amount of both currencies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limit {
    /// Millionths of a US dollar.
    pub usd_micros: u64,
    /// Tokens.
    pub tokens: u64,
}

/// What an account may have; none: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Millionths of a US dollar.
    pub usd_micros: Option<u64>,
    /// Tokens.
    pub tokens: Option<u64>,
}

/// An account has nothing left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortage {
    /// Which.
    pub account: Account,
    /// `usd` or `tokens`.
    pub what: &'static str,
    /// Its limit.
    pub limit: u64,
    /// Used and reserved.
    pub used: u64,
    /// When it begins anew, in milliseconds from now.
    pub retry_after_ms: Option<u64>,
}

#[derive(Debug, Default)]
struct Entry {
    since_ms: u64,
    spent: Limit,
    reserved: Limit,
    under_way: u32,
    /// A call is under way that may cost more dollars, more tokens, than were left.
    cut: [bool; 2],
    seen_ms: u64,
}

/// What was put aside for one call. Every reservation is settled, also when the call fails.
#[derive(Debug)]
#[must_use = "a reservation that is not settled is never freed"]
pub struct Reservation {
    parts: Vec<(Account, Limit, [bool; 2])>,
}

/// The accounts.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: HashMap<Account, Entry>,
}

impl Ledger {
    /// Puts what a call may cost aside in all accounts, or in none.
    ///
    /// # Errors
    /// [`Shortage`] of the first account that has nothing left of what the call costs.
    pub fn reserve(
        &mut self,
        now_ms: u64,
        accounts: &[(Account, Limits)],
        most: Limit,
    ) -> Result<Reservation, Shortage> {
        let mut parts = Vec::with_capacity(accounts.len());
        for (account, limits) in accounts {
            let entry = self.entry(now_ms, account);
            let used = Limit {
                usd_micros: entry.spent.usd_micros.saturating_add(entry.reserved.usd_micros),
                tokens: entry.spent.tokens.saturating_add(entry.reserved.tokens),
            };
            let left = |limit: Option<u64>, used: u64| limit.map_or(u64::MAX, |l| l.saturating_sub(used));
            let usd = left(limits.usd_micros, used.usd_micros);
            let tokens = left(limits.tokens, used.tokens);
            let short = |what, limit: Option<u64>, used| Shortage {
                account: account.clone(),
                what,
                limit: limit.unwrap_or(u64::MAX),
                used,
                retry_after_ms: account
                    .window_ms()
                    .map(|window| entry.since_ms.saturating_add(window).saturating_sub(now_ms)),
            };
            let cut = [most.usd_micros > usd, most.tokens > tokens];
            if cut[0] && (usd == 0 || entry.cut[0]) {
                return Err(short("usd", limits.usd_micros, used.usd_micros));
            }
            if cut[1] && (tokens == 0 || entry.cut[1]) {
                return Err(short("tokens", limits.tokens, used.tokens));
            }
            let part = Limit { usd_micros: most.usd_micros.min(usd), tokens: most.tokens.min(tokens) };
            parts.push((account.clone(), part, cut));
        }
        for (account, part, cut) in &parts {
            if let Some(entry) = self.entries.get_mut(account) {
                entry.reserved.usd_micros = entry.reserved.usd_micros.saturating_add(part.usd_micros);
                entry.reserved.tokens = entry.reserved.tokens.saturating_add(part.tokens);
                entry.under_way += 1;
                entry.cut = [entry.cut[0] || cut[0], entry.cut[1] || cut[1]];
            }
        }
        Ok(Reservation { parts })
    }

    /// What is left of the tightest account: (millionths of a dollar, tokens); `u64::MAX` where there is no limit.
    #[must_use]
    pub fn left(&mut self, now_ms: u64, accounts: &[(Account, Limits)]) -> Limit {
        let mut left = Limit { usd_micros: u64::MAX, tokens: u64::MAX };
        for (account, limits) in accounts {
            let entry = self.entry(now_ms, account);
            let rest = |limit: Option<u64>, spent: u64, reserved: u64| {
                limit.map_or(u64::MAX, |l| l.saturating_sub(spent.saturating_add(reserved)))
            };
            left.usd_micros = left.usd_micros.min(rest(
                limits.usd_micros,
                entry.spent.usd_micros,
                entry.reserved.usd_micros,
            ));
            left.tokens = left.tokens.min(rest(limits.tokens, entry.spent.tokens, entry.reserved.tokens));
        }
        left
    }

    /// Frees a reservation and counts what was used in its place.
    pub fn settle(&mut self, now_ms: u64, reservation: Reservation, used: Limit) {
        for (account, part, cut) in reservation.parts {
            let entry = self.entry(now_ms, &account);
            // There was this one alone.
            entry.cut = [entry.cut[0] && !cut[0], entry.cut[1] && !cut[1]];
            entry.reserved.usd_micros = entry.reserved.usd_micros.saturating_sub(part.usd_micros);
            entry.reserved.tokens = entry.reserved.tokens.saturating_sub(part.tokens);
            entry.under_way = entry.under_way.saturating_sub(1);
            entry.spent.usd_micros = entry.spent.usd_micros.saturating_add(used.usd_micros);
            entry.spent.tokens = entry.spent.tokens.saturating_add(used.tokens);
        }
    }

    /// What an account has used so far, and since when.
    #[must_use]
    pub fn spent(&self, account: &Account) -> Option<(Limit, u64)> {
        self.entries.get(account).map(|entry| (entry.spent, entry.since_ms))
    }

    /// Takes up what was written down before a restart.
    pub fn restore(&mut self, account: Account, since_ms: u64, spent: Limit) {
        let entry = Entry { since_ms, spent, seen_ms: since_ms, ..Entry::default() };
        self.entries.insert(account, entry);
    }

    /// Forgets accounts that nobody has used for an hour and that are in no window any more; tasks stay for a day.
    pub fn forget_old(&mut self, now_ms: u64) {
        const DAY_MS: u64 = 86_400_000;
        self.entries.retain(|account, entry| {
            let keep = account.window_ms().unwrap_or(DAY_MS);
            entry.under_way > 0 || now_ms.saturating_sub(entry.seen_ms.max(entry.since_ms)) < keep
        });
    }

    fn entry(&mut self, now_ms: u64, account: &Account) -> &mut Entry {
        let window = account.window_ms();
        let entry = self
            .entries
            .entry(account.clone())
            .or_insert_with(|| Entry { since_ms: now_ms, ..Entry::default() });
        if window.is_some_and(|window| now_ms.saturating_sub(entry.since_ms) >= window) {
            // What is under way stays reserved; what was spent is another hour's.
            entry.since_ms = now_ms;
            entry.spent = Limit::default();
        }
        entry.seen_ms = now_ms;
        entry
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn agent() -> Account {
        Account::Agent { tenant: "t".to_owned(), name: "a".to_owned() }
    }

    fn usd(micros: u64) -> Limit {
        Limit { usd_micros: micros, tokens: 0 }
    }

    fn limits(micros: u64) -> Limits {
        Limits { usd_micros: Some(micros), tokens: None }
    }

    #[test]
    fn what_is_gone_is_refused_and_comes_back_with_the_hour() {
        let mut ledger = Ledger::default();
        let accounts = [(agent(), limits(100))];
        let first = ledger.reserve(0, &accounts, usd(60)).unwrap();
        let second = ledger.reserve(0, &accounts, usd(60)).unwrap();
        let shortage = ledger.reserve(1000, &accounts, usd(1)).unwrap_err();
        assert_eq!((shortage.what, shortage.limit, shortage.used), ("usd", 100, 100));
        assert_eq!(shortage.retry_after_ms, Some(3_599_000));
        // What costs nothing is never refused.
        let free = ledger.reserve(0, &accounts, usd(0)).unwrap();
        ledger.settle(0, free, usd(0));
        ledger.settle(0, first, usd(10));
        ledger.settle(0, second, usd(60));
        assert_eq!(ledger.spent(&agent()), Some((usd(70), 0)));
        let third = ledger.reserve(3_600_000, &accounts, usd(100)).unwrap();
        ledger.settle(3_600_000, third, usd(100));
        assert_eq!(ledger.spent(&agent()), Some((usd(100), 3_600_000)));
    }

    #[test]
    fn what_cheap_calls_leave_lets_no_second_call_be_cut() {
        let mut ledger = Ledger::default();
        let accounts = [(agent(), limits(100))];
        // Ten that may cost ten each, and cost nine.
        let first: Vec<_> = (0..10).map(|_| ledger.reserve(0, &accounts, usd(10)).unwrap()).collect();
        let mut second = Vec::new();
        for reservation in first {
            ledger.settle(0, reservation, usd(9));
            second.extend(ledger.reserve(0, &accounts, usd(10)));
        }
        for reservation in second {
            ledger.settle(0, reservation, usd(10));
        }
        let (spent, _) = ledger.spent(&agent()).unwrap();
        assert!((100..=110).contains(&spent.usd_micros), "{spent:?}");
        // When the one that was cut has ended, the next hour begins as every hour.
        let next = ledger.reserve(3_600_000, &accounts, usd(200)).unwrap();
        assert!(ledger.reserve(3_600_000, &accounts, usd(200)).is_err());
        ledger.settle(3_600_000, next, usd(1));
        let next = ledger.reserve(3_600_000, &accounts, usd(200)).unwrap();
        ledger.settle(3_600_000, next, usd(1));
    }

    #[test]
    fn a_rate_begins_anew_with_its_minute_or_hour() {
        let (tenant, task, name) = ("t".to_owned(), "x".to_owned(), "a".to_owned());
        for (account, window) in [
            (Account::TaskMinute { tenant: tenant.clone(), task: task.clone() }, 60_000),
            (Account::AgentMinute { tenant: tenant.clone(), name }, 60_000),
            (Account::TaskHour { tenant, task }, 3_600_000),
        ] {
            let mut ledger = Ledger::default();
            let accounts = [(account, limits(10))];
            let first = ledger.reserve(0, &accounts, usd(10)).unwrap();
            ledger.settle(0, first, usd(10));
            let shortage = ledger.reserve(1, &accounts, usd(1)).unwrap_err();
            assert_eq!(shortage.retry_after_ms, Some(window - 1));
            let next = ledger.reserve(window, &accounts, usd(1)).unwrap();
            ledger.settle(window, next, usd(1));
        }
    }

    #[test]
    fn all_accounts_or_none() {
        let mut ledger = Ledger::default();
        let task = Account::Task { tenant: "t".to_owned(), task: "x".to_owned() };
        let accounts = [(agent(), limits(100)), (task.clone(), limits(0))];
        assert!(ledger.reserve(0, &accounts, usd(5)).is_err());
        let only = [(agent(), limits(100))];
        assert_eq!(ledger.left(0, &only).usd_micros, 100, "nothing stays reserved");
        // A task's account never begins anew.
        let rest = [(task.clone(), limits(10))];
        let r = ledger.reserve(0, &rest, usd(10)).unwrap();
        ledger.settle(0, r, usd(10));
        assert!(ledger.reserve(u64::MAX / 2, &rest, usd(1)).unwrap_err().retry_after_ms.is_none());
    }

    #[test]
    fn accounts_are_forgotten_when_nobody_uses_them() {
        let mut ledger = Ledger::default();
        let held = ledger.reserve(0, &[(agent(), limits(9))], usd(1)).unwrap();
        ledger.forget_old(10_000_000);
        assert!(ledger.spent(&agent()).is_some(), "a call is under way");
        ledger.settle(0, held, usd(1));
        ledger.forget_old(10_000_000);
        assert!(ledger.spent(&agent()).is_none());
    }

    proptest! {
        /// However calls overlap, an account is overspent by one call at most.
        #[test]
        fn many_at_once_overspend_by_one_call(costs in prop::collection::vec(1u64..50, 1..200), limit in 1u64..500, ends in prop::collection::vec(any::<bool>(), 200)) {
            let mut ledger = Ledger::default();
            let accounts = [(agent(), limits(limit))];
            let mut open = Vec::new();
            let mut end = ends.into_iter().cycle();
            for cost in costs {
                if let Ok(reservation) = ledger.reserve(0, &accounts, usd(cost)) {
                    open.push((reservation, cost));
                }
                if end.next().unwrap() && let Some((reservation, cost)) = open.pop() {
                    ledger.settle(0, reservation, usd(cost));
                }
            }
            for (reservation, cost) in open {
                ledger.settle(0, reservation, usd(cost));
            }
            let spent = ledger.spent(&agent()).map_or(0, |(spent, _)| spent.usd_micros);
            prop_assert!(spent < limit + 50, "{spent} of {limit}");
        }
    }
}
