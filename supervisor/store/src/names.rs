//! Whose a name is, remembered: each system call asks for it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aion_types::AgentId;

/// Names that are remembered.
const MOST: usize = 16_384;

/// What was read, until a name changes.
#[derive(Debug, Default)]
pub(crate) struct Names(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Grows when a name changes: what was read before is not remembered after.
    version: u64,
    owners: HashMap<Vec<u8>, AgentId>,
}

impl Names {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The owner, or the version under which to remember what is read now.
    pub(crate) fn find(&self, key: &[u8]) -> Result<AgentId, u64> {
        let known = self.known();
        known.owners.get(key).cloned().ok_or(known.version)
    }

    /// What was read after `version` was given.
    pub(crate) fn remember(&self, version: u64, key: Vec<u8>, owner: AgentId) {
        let mut known = self.known();
        if known.version == version {
            if known.owners.len() >= MOST {
                known.owners.clear();
            }
            known.owners.insert(key, owner);
        }
    }

    /// Names have changed. Called after they did.
    pub(crate) fn changed(&self) {
        let mut known = self.known();
        known.version += 1;
        known.owners.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_before_a_change_is_not_remembered() {
        let (names, key) = (Names::default(), b"nt\0a".to_vec());
        let id = AgentId::from_parts(1, 1);
        let before = names.find(&key).unwrap_err();
        names.changed();
        names.remember(before, key.clone(), id.clone());
        let now = names.find(&key).unwrap_err();
        names.remember(now, key.clone(), id.clone());
        assert_eq!(names.find(&key), Ok(id));
        names.changed();
        assert!(names.find(&key).is_err());
    }
}
