//! Rows of the kernel API: tenants, tools, models, memories, decisions, usage. What is in them is their owner's business; here
//! they are bytes under a key, with a time to live where they have one.
//!
//! Keys of several parts are joined by NUL, which no part holds. A row that is past its time is not shown, also before it is swept.

use crate::batch::{Batch, Durability};
use crate::db::Store;
use crate::error::Error;
use crate::{codec, keys};

/// Rows that go as a range cost one entry, however many they are: steps are so much larger.
const IN_ORDER: usize = 64;

/// What a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Table {
    /// Tenants, by name.
    Tenants,
    /// Tools, by tenant (empty: everybody's) and name.
    Tools,
    /// Models, by name.
    Models,
    /// Secrets that the kernel uses for agents, by tenant and name.
    Secrets,
    /// What was used, by account.
    Usage,
    /// Memories, by tenant, agent, type and key.
    Memory,
    /// Decisions, by audit id, which begins with the time that they are kept from.
    Decisions,
    /// What persons were asked.
    Approvals,
    /// What agents sent each other, by tenant, receiver and time.
    Mail,
    /// Calls that may cost something and have begun, by audit id.
    UnderWay,
    /// Nonces of requests whose time lies ahead, by tenant.
    Nonces,
}

impl Table {
    const fn place(self) -> (&'static str, u8) {
        match self {
            Self::Tenants => (keys::KERNEL, b't'),
            Self::Tools => (keys::KERNEL, b'o'),
            Self::Models => (keys::KERNEL, b'm'),
            Self::Secrets => (keys::KERNEL, b's'),
            Self::Usage => (keys::KERNEL, b'u'),
            Self::Approvals => (keys::KERNEL, b'p'),
            Self::Nonces => (keys::KERNEL, b'n'),
            Self::UnderWay => (keys::KERNEL, b'w'),
            Self::Mail => (keys::MEMORY, b'g'),
            Self::Memory => (keys::MEMORY, b'k'),
            Self::Decisions => (keys::DECISIONS, b'd'),
        }
    }

    /// Whether its keys are in the order of their ends: then the first rows are those that are over, and no list of them is needed. Every
    /// system call writes such a row, and with a list it would write two, at both ends of the family: no file of a flush would be
    /// apart from the others, and each compaction would write all of them again.
    const fn ends_in_order(self) -> bool {
        matches!(self, Self::Decisions)
    }

    fn key(self, parts: &[&str]) -> Vec<u8> {
        let mut key = vec![self.place().1];
        for (i, part) in parts.iter().enumerate() {
            if i > 0 {
                key.push(0);
            }
            key.extend_from_slice(part.as_bytes());
        }
        key
    }
}

/// A row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The parts of its key.
    pub key: Vec<String>,
    /// When it is gone, nanoseconds since 1970; 0: never.
    pub expires_ns: u64,
    /// What is in it.
    pub value: Vec<u8>,
}

impl Batch {
    /// Puts a row, which is gone after `expires_ns` (nanoseconds since 1970; 0: never). Parts hold no NUL.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when a part holds a NUL.
    pub fn put_row(
        &mut self,
        table: Table,
        parts: &[&str],
        expires_ns: u64,
        value: &[u8],
    ) -> Result<(), Error> {
        let (family, _) = table.place();
        if parts.iter().any(|part| part.contains('\0')) {
            return Err(Error::Corrupt { family, detail: "a key with a NUL".to_owned() });
        }
        self.rows = true;
        let key = table.key(parts);
        let mut row = Vec::with_capacity(8 + value.len());
        row.extend_from_slice(&expires_ns.to_be_bytes());
        row.extend_from_slice(value);
        if expires_ns != 0 && !table.ends_in_order() {
            self.put(family, keys::row_expiry(expires_ns, &key), Vec::new());
        }
        self.put(family, key, codec::raw(&row));
        Ok(())
    }

    /// Deletes a row. Its entry in the list of what expires stays behind and does nothing when its time comes.
    pub fn delete_row(&mut self, table: Table, parts: &[&str]) {
        self.delete(table.place().0, table.key(parts));
    }
}

impl Store {
    /// A row; none when there is none, or its time is over.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn row(&self, table: Table, parts: &[&str], now_ns: u64) -> Result<Option<Row>, Error> {
        let (family, _) = table.place();
        let Some(bytes) = self.get(family, &table.key(parts))? else { return Ok(None) };
        let (expires_ns, value) = decode(family, &bytes)?;
        if is_over(expires_ns, now_ns) {
            return Ok(None);
        }
        let key = parts.iter().map(|part| (*part).to_owned()).collect();
        Ok(Some(Row { key, expires_ns, value: value.to_vec() }))
    }

    /// Visits rows in the order of their keys until `visit` says false: those whose first parts are `parts`, after the key `after`
    /// when one is given.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn rows(
        &self,
        table: Table,
        parts: &[&str],
        after: Option<&[&str]>,
        now_ns: u64,
        mut visit: impl FnMut(Row) -> bool,
    ) -> Result<(), Error> {
        let (family, _) = table.place();
        let mut prefix = table.key(parts);
        if !parts.is_empty() {
            prefix.push(0);
        }
        let from = after.map_or_else(
            || prefix.clone(),
            |after| {
                let mut key = table.key(after);
                key.push(1);
                key
            },
        );
        let mut failed = None;
        self.scan(family, &from, |key, value| {
            let Some(rest) = key.strip_prefix(prefix.as_slice()) else { return false };
            let (expires_ns, value) = match decode(family, value) {
                Ok(row) => row,
                Err(error) => {
                    failed = Some(error);
                    return false;
                }
            };
            if is_over(expires_ns, now_ns) {
                return true;
            }
            let rest = String::from_utf8_lossy(rest);
            let key = parts
                .iter()
                .map(|part| (*part).to_owned())
                .chain(rest.split('\0').map(str::to_owned))
                .collect();
            visit(Row { key, expires_ns, value: value.to_vec() })
        })?;
        failed.map_or(Ok(()), Err)
    }

    /// Deletes rows whose time is over, `step` of each list at most, and says how many were looked at. A row that cannot be read goes when
    /// its turn comes: nobody will read it, and others wait behind it.
    ///
    /// # Errors
    /// When they cannot be read or deleted.
    pub fn sweep_rows(&self, now_ns: u64, step: usize) -> Result<usize, Error> {
        let mut looked = 0;
        // Decisions of versions before are on a list, too.
        for family in [keys::KERNEL, keys::MEMORY, keys::DECISIONS] {
            let mut due = Vec::new();
            self.scan(family, &[keys::ROW_EXPIRY], |key, _| match keys::row_expiry_parts(key) {
                Some((at, row)) if at <= now_ns && due.len() < step => {
                    due.push((key.to_vec(), row.to_vec()));
                    true
                }
                _ => false,
            })?;
            looked += due.len();
            if due.is_empty() {
                continue;
            }
            // Nobody writes a row between the look at it and its end.
            let _alone = self.rows_alone();
            let mut batch = Batch::bookkeeping();
            for (entry, row) in due {
                // The row may have been written again with another time.
                if let Some(bytes) = self.get(family, &row)?
                    && may_go(family, &bytes, now_ns)
                {
                    batch.delete(family, row);
                }
                batch.delete(family, entry);
            }
            self.write(batch, Durability::Process)?;
        }
        looked += self.sweep_in_order(Table::Decisions, now_ns, step.saturating_mul(IN_ORDER))?;
        Ok(looked)
    }

    /// Deletes the first rows of a table whose keys are in the order of their ends, as one range.
    fn sweep_in_order(&self, table: Table, now_ns: u64, most: usize) -> Result<usize, Error> {
        let (family, kind) = table.place();
        let (mut over, mut end) = (0, Vec::new());
        self.scan(family, &[kind], |key, value| {
            if over >= most || key.first() != Some(&kind) || !may_go(family, value, now_ns) {
                return false;
            }
            over += 1;
            key.clone_into(&mut end);
            true
        })?;
        if over > 0 {
            // The last of them goes, too.
            end.push(0);
            let mut batch = Batch::bookkeeping();
            batch.delete_range(family, vec![kind], end);
            self.write(batch, Durability::Process)?;
        }
        Ok(over)
    }
}

const fn is_over(expires_ns: u64, now_ns: u64) -> bool {
    expires_ns != 0 && expires_ns <= now_ns
}

/// Whether the sweep takes a row.
fn may_go(family: &'static str, bytes: &[u8], now_ns: u64) -> bool {
    match decode(family, bytes) {
        Ok((expires_ns, _)) => is_over(expires_ns, now_ns),
        Err(error) => {
            tracing::warn!(%error, "a row that cannot be read is swept");
            true
        }
    }
}

fn decode<'a>(family: &'static str, bytes: &'a [u8]) -> Result<(u64, &'a [u8]), Error> {
    let payload = codec::payload(family, bytes)?;
    let (time, value) = payload
        .split_first_chunk::<8>()
        .ok_or_else(|| Error::Corrupt { family, detail: "a row without its time".to_owned() })?;
    Ok((u64::from_be_bytes(*time), value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("db"), Options::default()).unwrap();
        (dir, store)
    }

    fn put(store: &Store, parts: &[&str], expires: u64, value: &str) {
        let mut batch = Batch::new();
        batch.put_row(Table::Memory, parts, expires, value.as_bytes()).unwrap();
        store.commit(batch, Durability::Process).unwrap();
    }

    fn keys_of(store: &Store, parts: &[&str], after: Option<&[&str]>, now: u64) -> Vec<String> {
        let mut found = Vec::new();
        store
            .rows(Table::Memory, parts, after, now, |row| {
                found.push(row.key.join("/"));
                true
            })
            .unwrap();
        found
    }

    #[test]
    fn rows_are_found_by_their_first_parts_and_in_order() {
        let (_dir, store) = store();
        for key in [["t", "a", "1"], ["t", "a", "2"], ["t", "ab", "1"], ["t2", "a", "1"]] {
            put(&store, &key, 0, "x");
        }
        assert_eq!(keys_of(&store, &["t", "a"], None, 0), ["t/a/1", "t/a/2"]);
        assert_eq!(keys_of(&store, &["t"], Some(&["t", "a", "1"]), 0), ["t/a/2", "t/ab/1"]);
        assert_eq!(keys_of(&store, &[], None, 0).len(), 4);
        assert!(Batch::new().put_row(Table::Memory, &["a\0b"], 0, b"").is_err());
    }

    #[test]
    fn rows_end_with_their_time_and_are_swept() {
        let (_dir, store) = store();
        put(&store, &["t", "a"], 100, "x");
        put(&store, &["t", "b"], 100, "x");
        // Written again, to stay.
        put(&store, &["t", "b"], 0, "y");
        assert!(store.row(Table::Memory, &["t", "a"], 99).unwrap().is_some());
        assert!(store.row(Table::Memory, &["t", "a"], 100).unwrap().is_none());
        assert_eq!(keys_of(&store, &["t"], None, 100), ["t/b"]);
        assert_eq!(store.sweep_rows(99, 10).unwrap(), 0);
        // The second was listed once, with the time of its first writing.
        assert_eq!(store.sweep_rows(100, 10).unwrap(), 2);
        assert_eq!(store.sweep_rows(100, 10).unwrap(), 0);
        assert_eq!(store.row(Table::Memory, &["t", "b"], u64::MAX).unwrap().unwrap().value, b"y");
    }

    fn decide(store: &Store, audit_id: &str, expires: u64) {
        let mut batch = Batch::new();
        batch.put_row(Table::Decisions, &[audit_id], expires, b"x").unwrap();
        store.commit(batch, Durability::Process).unwrap();
    }

    fn all_keys(store: &Store) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        store
            .scan(keys::DECISIONS, &[], |key, _| {
                all.push(key.to_vec());
                true
            })
            .unwrap();
        all
    }

    #[test]
    fn decisions_go_in_the_order_of_their_keys_and_are_on_no_list() {
        let (_dir, store) = store();
        for (audit_id, expires) in [("sc-1", 100), ("sc-2", 100), ("sc-3", 101), ("sc-4", 0)] {
            decide(&store, audit_id, expires);
        }
        assert_eq!(all_keys(&store), [b"dsc-1", b"dsc-2", b"dsc-3", b"dsc-4"]);
        assert_eq!(store.sweep_rows(99, 10).unwrap(), 0);
        assert!(store.row(Table::Decisions, &["sc-1"], 99).unwrap().is_some());
        assert_eq!(store.sweep_rows(100, 10).unwrap(), 2);
        assert_eq!(all_keys(&store), [b"dsc-3", b"dsc-4"]);
        assert_eq!(store.sweep_rows(u64::MAX, 10).unwrap(), 1);
        assert_eq!(all_keys(&store), [b"dsc-4"], "what stays is kept");
        assert_eq!(store.sweep_rows(u64::MAX, 10).unwrap(), 0);
    }

    #[test]
    fn rows_that_cannot_be_read_hold_up_no_others() {
        let (_dir, store) = store();
        put(&store, &["t", "a"], 100, "x");
        put(&store, &["t", "b"], 100, "x");
        decide(&store, "sc-2", 100);
        decide(&store, "sc-3", 200);
        let mut batch = Batch::bookkeeping();
        batch.put(keys::DECISIONS, Table::Decisions.key(&["sc-1"]), Vec::new());
        batch.put(keys::MEMORY, Table::Memory.key(&["t", "a"]), Vec::new());
        store.commit(batch, Durability::Process).unwrap();
        assert_eq!(store.sweep_rows(150, 10).unwrap(), 4);
        assert_eq!(all_keys(&store), [b"dsc-3"]);
        for key in ["a", "b"] {
            assert_eq!(store.get(keys::MEMORY, &Table::Memory.key(&["t", key])).unwrap(), None);
        }
        assert_eq!(store.sweep_rows(150, 10).unwrap(), 0);
    }

    #[test]
    fn what_comes_after_one_that_is_not_over_waits_for_it() {
        let (_dir, store) = store();
        decide(&store, "sc-1", 102);
        decide(&store, "sc-2", 100);
        assert_eq!(store.sweep_rows(101, 10).unwrap(), 0);
        assert!(store.row(Table::Decisions, &["sc-2"], 101).unwrap().is_none(), "but it is not shown");
        assert_eq!(store.sweep_rows(102, 10).unwrap(), 2);
        assert!(all_keys(&store).is_empty());
    }

    #[test]
    fn decisions_that_a_version_before_has_listed_go_with_their_entries() {
        let (_dir, store) = store();
        decide(&store, "sc-1", 100);
        decide(&store, "sc-2", 200);
        let mut batch = Batch::bookkeeping();
        for (audit_id, expires) in [("sc-1", 100), ("sc-2", 200)] {
            let key = Table::Decisions.key(&[audit_id]);
            batch.put(keys::DECISIONS, keys::row_expiry(expires, &key), Vec::new());
        }
        store.commit(batch, Durability::Process).unwrap();
        while store.sweep_rows(150, 10).unwrap() > 0 {}
        assert_eq!(all_keys(&store).len(), 2, "the second, and its entry");
        while store.sweep_rows(200, 10).unwrap() > 0 {}
        assert!(all_keys(&store).is_empty());
    }
}
