//! Which nonces were seen within the time that a request may be late. Bounded: a tenant that fills its share is held up, never
//! let through unseen.

use std::collections::{HashSet, VecDeque};

use aion_types::TenantId;

/// Nonces that are remembered in all.
const MOST: usize = 1 << 20;

/// The nonces, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Nonces {
    order: VecDeque<(u64, (TenantId, String))>,
    seen: HashSet<(TenantId, String)>,
}

impl Nonces {
    /// Takes a nonce that is good until `until_ms`; false: it was taken before, or there is no room to remember it.
    pub(crate) fn take(&mut self, now_ms: u64, until_ms: u64, tenant: &TenantId, nonce: &str) -> bool {
        while self.order.front().is_some_and(|(until, _)| *until < now_ms) {
            if let Some((_, key)) = self.order.pop_front() {
                self.seen.remove(&key);
            }
        }
        let key = (tenant.clone(), nonce.to_owned());
        if self.order.len() >= MOST || !self.seen.insert(key.clone()) {
            return false;
        }
        self.order.push_back((until_ms, key));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_for_each_tenant_and_time() {
        let (a, b) = (TenantId::parse("a").unwrap(), TenantId::parse("b").unwrap());
        let mut nonces = Nonces::default();
        assert!(nonces.take(0, 100, &a, "n"));
        assert!(!nonces.take(50, 150, &a, "n"));
        assert!(nonces.take(50, 150, &b, "n"));
        assert!(nonces.take(101, 201, &a, "n"), "the time of the first is over");
    }
}
