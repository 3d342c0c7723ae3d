//! What was used: the ledger, and its rows on disk.

use std::sync::{Mutex, PoisonError};

use aion_store::{Durability, Store, Table};
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

/// Rows stay so long.
const KEEP_NS: u64 = 7 * 86_400 * 1_000_000_000;

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

impl Accounts {
    /// Takes up what was written down.
    pub(crate) fn restore(store: &Store, now_ns: u64) -> Result<Self, Refusal> {
        let mut ledger = Ledger::default();
        for row in all(store, now_ns)? {
            let account = match row.kind.as_str() {
                "task" => Account::Task { tenant: row.tenant, task: row.name },
                "task_hour" => Account::TaskHour { tenant: row.tenant, task: row.name },
                "task_minute" => Account::TaskMinute { tenant: row.tenant, task: row.name },
                "agent_minute" => Account::AgentMinute { tenant: row.tenant, name: row.name },
                "agent" => Account::Agent { tenant: row.tenant, name: row.name },
                _ => Account::Tenant { tenant: row.tenant },
            };
            ledger.restore(account, row.since_ms, Limit { usd_micros: row.usd_micros, tokens: row.tokens });
        }
        Ok(Self { ledger: Mutex::new(ledger) })
    }

    pub(crate) fn reserve(
        &self,
        now_ns: u64,
        accounts: &[(Account, Limits)],
        most: Limit,
    ) -> Result<Reservation, Refusal> {
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        ledger.reserve(now_ns / 1_000_000, accounts, most).map_err(refusal)
    }

    /// Settles, and writes down what costs something.
    pub(crate) fn settle(
        &self,
        store: &Store,
        now_ns: u64,
        accounts: &[(Account, Limits)],
        reservation: Reservation,
        used: Limit,
    ) {
        let mut rows = Vec::new();
        {
            let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
            ledger.settle(now_ns / 1_000_000, reservation, used);
            if used != Limit::default() {
                for (account, _) in accounts {
                    if let Some((spent, since_ms)) = ledger.spent(account) {
                        rows.push((account.clone(), spent, since_ms));
                    }
                }
            }
        }
        for (account, spent, since_ms) in rows {
            let [kind, tenant, name] = parts(&account);
            let row = UsageRow {
                kind: kind.to_owned(),
                tenant: tenant.to_owned(),
                name: name.to_owned(),
                since_ms,
                calls: 0,
                usd_micros: spent.usd_micros,
                tokens: spent.tokens,
            };
            let until = now_ns.saturating_add(KEEP_NS);
            let written =
                rows::put(store, Table::Usage, &[kind, tenant, name], until, &row, Durability::Process);
            if let Err(refusal) = written {
                tracing::error!(%account, %refusal, "what an account has used is in memory only");
            }
        }
    }

    pub(crate) fn tidy(&self, now_ns: u64) {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner).forget_old(now_ns / 1_000_000);
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
    let mut found = Vec::new();
    let mut broken = None;
    store
        .rows(Table::Usage, &[], None, now_ns, |row| match serde_json::from_slice(&row.value) {
            Ok(row) => {
                found.push(row);
                true
            }
            Err(error) => {
                broken = Some(rows::corrupt(&error));
                false
            }
        })
        .map_err(|error| rows::failed(&error))?;
    broken.map_or(Ok(found), Err)
}
