//! What was used: the ledger, and its rows on disk.

use std::sync::{Mutex, MutexGuard, PoisonError};

use aion_store::{Batch, Durability, Store, Table};
use aion_syscall::{Account, Ledger, Limit, Limits, Reason, Refusal, Reservation, Shortage};
use aion_types::ErrorCode;
use serde::{Deserialize, Serialize};

use crate::rows;

/// A row of an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageRow {
    /// `agent`, `tenant` or `task`; with a quota of their own `agent_minute`, `task_minute`, `task_hour`.
    pub kind: String,
    /// Whose.
    pub tenant: String,
    /// The agent's name or the task's id; empty for a tenant.
    pub name: String,
    /// When the hour began, milliseconds since 1970; for a task, when it first used something.
    pub since_ms: u64,
    /// Calls since then.
    pub calls: u64,
    /// Millionths of a US dollar since then.
    pub usd_micros: u64,
    /// Tokens since then.
    pub tokens: u64,
}

const DAY_NS: u64 = 86_400 * 1_000_000_000;

/// Rows stay for a week, and to the end of its day: each time that rows end at is an entry on disk.
const fn until(now_ns: u64) -> u64 {
    (now_ns / DAY_NS).saturating_add(8).saturating_mul(DAY_NS)
}

#[derive(Default)]
pub(crate) struct Accounts {
    ledger: Mutex<Ledger>,
}

fn parts(account: &Account) -> [&str; 3] {
    match account {
        Account::Task { tenant, task } => ["task", tenant, task],
        Account::TaskHour { tenant, task } => ["task_hour", tenant, task],
        Account::TaskMinute { tenant, task } => ["task_minute", tenant, task],
        Account::AgentMinute { tenant, name } => ["agent_minute", tenant, name],
        Account::Agent { tenant, name } => ["agent", tenant, name],
        Account::Tenant { tenant } => ["tenant", tenant, ""],
    }
}

fn account([kind, tenant, name]: [String; 3]) -> Account {
    match kind.as_str() {
        "task" => Account::Task { tenant, task: name },
        "task_hour" => Account::TaskHour { tenant, task: name },
        "task_minute" => Account::TaskMinute { tenant, task: name },
        "agent_minute" => Account::AgentMinute { tenant, name },
        "agent" => Account::Agent { tenant, name },
        _ => Account::Tenant { tenant },
    }
}

/// A call that may cost something and has begun. Its row goes when it is settled.
#[derive(Debug, Serialize, Deserialize)]
struct UnderWay {
    /// What it is charged to: kind, tenant, name.
    accounts: Vec<[String; 3]>,
    usd_micros: u64,
    tokens: u64,
}

/// A call's amount that was put aside.
#[must_use = "what is not settled is never freed"]
pub(crate) struct Held {
    reservation: Reservation,
    /// The call has a row.
    is_written: bool,
}

impl Accounts {
    /// Takes up what was written down. Calls that were under way when the kernel ended are charged with all that they could cost: nobody
    /// knows what they did.
    pub(crate) fn restore(store: &Store, now_ns: u64) -> Result<Self, Refusal> {
        let mut ledger = Ledger::default();
        for row in all(store, now_ns)? {
            let spent = Limit { usd_micros: row.usd_micros, tokens: row.tokens };
            ledger.restore(account([row.kind, row.tenant, row.name]), row.since_ms, spent);
        }
        let accounts = Self { ledger: Mutex::new(ledger) };
        let open: Vec<(Vec<String>, UnderWay)> = rows::all(store, Table::UnderWay, now_ns)?;
        for (key, call) in open {
            let audit_id = key.concat();
            tracing::warn!(
                audit_id,
                "a call was under way when the kernel ended: it is charged with all that it could cost"
            );
            let of: Vec<_> =
                call.accounts.into_iter().map(|parts| (account(parts), Limits::default())).collect();
            let most = Limit { usd_micros: call.usd_micros, tokens: call.tokens };
            let reservation = accounts.locked().reserve(now_ns / 1_000_000, &of, most).map_err(refusal)?;
            let held = Held { reservation, is_written: true };
            accounts.settle(store, now_ns, &audit_id, &of, held, most);
        }
        Ok(accounts)
    }

    fn locked(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts aside what a call may cost, and writes down that it has begun when it may cost something.
    pub(crate) fn reserve(
        &self,
        store: &Store,
        now_ns: u64,
        audit_id: &str,
        accounts: &[(Account, Limits)],
        most: Limit,
    ) -> Result<Held, Refusal> {
        let now_ms = now_ns / 1_000_000;
        let reservation = self.locked().reserve(now_ms, accounts, most).map_err(refusal)?;
        if most == Limit::default() {
            return Ok(Held { reservation, is_written: false });
        }
        let call = UnderWay {
            accounts: accounts.iter().map(|(account, _)| parts(account).map(str::to_owned)).collect(),
            usd_micros: most.usd_micros,
            tokens: most.tokens,
        };
        match rows::put(store, Table::UnderWay, &[audit_id], 0, &call, Durability::Process) {
            Ok(()) => Ok(Held { reservation, is_written: true }),
            Err(refusal) => {
                self.locked().settle(now_ms, reservation, Limit::default());
                Err(refusal)
            }
        }
    }

    /// Settles, and writes down what costs something.
    pub(crate) fn settle(
        &self,
        store: &Store,
        now_ns: u64,
        audit_id: &str,
        accounts: &[(Account, Limits)],
        held: Held,
        used: Limit,
    ) {
        let mut spent = Vec::new();
        {
            let mut ledger = self.locked();
            ledger.settle(now_ns / 1_000_000, held.reservation, used);
            if used != Limit::default() {
                let of = |(account, _): &(Account, _)| Some((account.clone(), ledger.spent(account)?));
                spent.extend(accounts.iter().filter_map(of));
            }
        }
        if spent.is_empty() && !held.is_written {
            return;
        }
        let mut batch = Batch::new();
        let until = until(now_ns);
        let added = spent.iter().try_for_each(|(account, (spent, since_ms))| {
            let [kind, tenant, name] = parts(account);
            let row = UsageRow {
                kind: kind.to_owned(),
                tenant: tenant.to_owned(),
                name: name.to_owned(),
                since_ms: *since_ms,
                calls: 0,
                usd_micros: spent.usd_micros,
                tokens: spent.tokens,
            };
            rows::add(&mut batch, Table::Usage, &[kind, tenant, name], until, &row)
        });
        if held.is_written {
            batch.delete_row(Table::UnderWay, &[audit_id]);
        }
        let written = added
            .and_then(|()| store.commit(batch, Durability::Process).map_err(|error| rows::failed(&error)));
        if let Err(refusal) = written {
            tracing::error!(audit_id, %refusal, "what a call has cost is in memory only");
        }
    }

    pub(crate) fn tidy(&self, now_ns: u64) {
        self.locked().forget_old(now_ns / 1_000_000);
    }
}

fn refusal(shortage: Shortage) -> Refusal {
    let amount = |n: u64| match shortage.what {
        "usd" => format!("{}.{:06} USD", n / 1_000_000, n % 1_000_000),
        _ => format!("{n} tokens"),
    };
    let message = format!(
        "the budget of {} has nothing left: {} of {} are used or reserved",
        shortage.account,
        amount(shortage.used),
        amount(shortage.limit)
    );
    let mut refusal = Refusal::new(Reason::Exhausted, ErrorCode::BudgetExceeded, message)
        .by(format!("budget: {}: {}", shortage.account, shortage.what));
    refusal.retry_after_ms = shortage.retry_after_ms;
    refusal
}

/// All rows, for people.
pub(crate) fn all(store: &Store, now_ns: u64) -> Result<Vec<UsageRow>, Refusal> {
    Ok(rows::all(store, Table::Usage, now_ns)?.into_iter().map(|(_, row)| row).collect())
}

#[cfg(test)]
mod tests {
    use aion_store::Options;

    use super::*;

    const NOW_NS: u64 = 100 * DAY_NS;

    fn accounts() -> [(Account, Limits); 2] {
        let agent = Account::Agent { tenant: "t".to_owned(), name: "a".to_owned() };
        let limits = Limits { usd_micros: Some(100), tokens: None };
        [(agent, limits), (Account::Tenant { tenant: "t".to_owned() }, Limits::default())]
    }

    fn usd(usd_micros: u64) -> Limit {
        Limit { usd_micros, tokens: 0 }
    }

    #[test]
    fn a_call_that_the_end_of_the_kernel_cut_off_is_charged_once_with_all_that_it_could_cost() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("db"), Options::default()).unwrap();
        let (accounts, of) = (Accounts::default(), accounts());
        let cut_off = accounts.reserve(&store, NOW_NS, "sc-1", &of, usd(30)).unwrap();
        let done = accounts.reserve(&store, NOW_NS, "sc-2", &of, usd(30)).unwrap();
        accounts.settle(&store, NOW_NS, "sc-2", &of, done, usd(5));
        let free = accounts.reserve(&store, NOW_NS, "sc-3", &of, Limit::default()).unwrap();
        std::mem::forget((cut_off, free));
        for _ in 0..2 {
            let restored = Accounts::restore(&store, NOW_NS).unwrap();
            let spent: Vec<_> = all(&store, NOW_NS).unwrap().iter().map(|row| row.usd_micros).collect();
            assert_eq!(spent, [35, 35], "of the agent and of the tenant");
            let most = restored.locked().left(NOW_NS / 1_000_000, &of);
            assert_eq!(most.usd_micros, 65, "nothing stays reserved");
        }
    }
}
