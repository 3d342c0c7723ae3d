//! Rows: the state as keys and values. Every value begins with the version of its layout.

/// A changed entity.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    /// Its key: a letter for the kind, then what identifies it.
    pub key: Vec<u8>,
    /// Its value; none: it is deleted.
    pub value: Option<Vec<u8>>,
}

/// The keys, for those who read rows from a journal.
pub mod keys {
    use crate::TaskNumber;

    /// Node-wide numbers: one row.
    pub const GLOBALS: &[u8] = b"G";
    /// Tasks that have not ended, by number.
    pub const TASK: u8 = b'T';
    /// Tenants.
    pub const TENANT: u8 = b'N';
    /// Agents.
    pub const AGENT: u8 = b'A';
    /// Lanes: what tasks of one tenant for one agent or selector share.
    pub const LANE: u8 = b'L';
    /// Ended tasks, by tenant and number. Not needed to restore.
    pub const ENDED: u8 = b'e';
    /// Ended tasks' ids. Not needed to restore.
    pub const ENDED_INDEX: u8 = b'i';

    /// Everything that a restore needs has a key below this one; ended tasks lie above it.
    pub const END_OF_LIVE: &[u8] = b"a";

    /// A tenant, an agent or a lane.
    pub(crate) fn entity(kind: u8, id: u32) -> Vec<u8> {
        let mut key = Vec::with_capacity(5);
        key.push(kind);
        key.extend_from_slice(&id.to_be_bytes());
        key
    }

    /// The row of a task that has not ended.
    #[must_use]
    pub fn task(number: TaskNumber) -> Vec<u8> {
        let mut key = Vec::with_capacity(9);
        key.push(TASK);
        key.extend_from_slice(&number.0.to_be_bytes());
        key
    }

    /// What the keys of a tenant's ended tasks begin with; they are in order of submission.
    #[must_use]
    pub fn ended_of(tenant: &str) -> Vec<u8> {
        let mut key = Vec::with_capacity(tenant.len() + 10);
        key.push(ENDED);
        key.extend_from_slice(tenant.as_bytes());
        key.push(0);
        key
    }

    /// An ended task; its value is a [`crate::TaskView`].
    #[must_use]
    pub fn ended(tenant: &str, number: TaskNumber) -> Vec<u8> {
        let mut key = ended_of(tenant);
        key.extend_from_slice(&number.0.to_be_bytes());
        key
    }

    /// An ended task's id; its value is a [`crate::Ended`].
    #[must_use]
    pub fn ended_index(tenant: &str, id: &str) -> Vec<u8> {
        let mut key = Vec::with_capacity(tenant.len() + id.len() + 2);
        key.push(ENDED_INDEX);
        key.extend_from_slice(tenant.as_bytes());
        key.push(0);
        key.extend_from_slice(id.as_bytes());
        key
    }
}
