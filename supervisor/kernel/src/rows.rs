//! Rows of the store as JSON.

use aion_store::{Batch, Durability, Store, Table};
use aion_syscall::{Reason, Refusal};
use aion_types::ErrorCode;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What the store's failures are to a caller.
pub(crate) fn failed(error: &aion_store::Error) -> Refusal {
    let code = match error {
        aion_store::Error::DiskFull { .. } => ErrorCode::DiskFull,
        _ => ErrorCode::Internal,
    };
    tracing::error!(%error, "the store failed");
    let reason = if code == ErrorCode::DiskFull { Reason::Unavailable } else { Reason::Internal };
    Refusal::new(reason, code, error.to_string())
}

pub(crate) fn corrupt(error: &serde_json::Error) -> Refusal {
    tracing::error!(%error, "a row does not read as it was written");
    Refusal::new(
        Reason::Internal,
        ErrorCode::Internal,
        format!("a row does not read as it was written: {error}"),
    )
}

pub(crate) fn get<T: DeserializeOwned>(
    store: &Store,
    table: Table,
    parts: &[&str],
    now_ns: u64,
) -> Result<Option<T>, Refusal> {
    let Some(row) = store.row(table, parts, now_ns).map_err(|error| failed(&error))? else { return Ok(None) };
    serde_json::from_slice(&row.value).map(Some).map_err(|error| corrupt(&error))
}

/// All rows of a table, with their keys.
pub(crate) fn all<T: DeserializeOwned>(
    store: &Store,
    table: Table,
    now_ns: u64,
) -> Result<Vec<(Vec<String>, T)>, Refusal> {
    let (mut found, mut broken) = (Vec::new(), None);
    store
        .rows(table, &[], None, now_ns, |row| match serde_json::from_slice(&row.value) {
            Ok(value) => {
                found.push((row.key, value));
                true
            }
            Err(error) => {
                broken = Some(corrupt(&error));
                false
            }
        })
        .map_err(|error| failed(&error))?;
    broken.map_or(Ok(found), Err)
}

pub(crate) fn put<T: Serialize>(
    store: &Store,
    table: Table,
    parts: &[&str],
    expires_ns: u64,
    value: &T,
    durability: Durability,
) -> Result<(), Refusal> {
    let mut batch = Batch::new();
    add(&mut batch, table, parts, expires_ns, value)?;
    store.commit(batch, durability).map_err(|error| failed(&error))
}

pub(crate) fn add<T: Serialize>(
    batch: &mut Batch,
    table: Table,
    parts: &[&str],
    expires_ns: u64,
    value: &T,
) -> Result<(), Refusal> {
    let bytes = serde_json::to_vec(value).map_err(|error| corrupt(&error))?;
    batch.put_row(table, parts, expires_ns, &bytes).map_err(|error| failed(&error))
}

pub(crate) fn delete(store: &Store, table: Table, parts: &[&str]) -> Result<(), Refusal> {
    let mut batch = Batch::new();
    batch.delete_row(table, parts);
    store.commit(batch, Durability::Host).map_err(|error| failed(&error))
}
