//! Which nonces were seen within the time that a request may be late. Bounded: a tenant that fills its share is held up, never
//! let through unseen, and takes no room from the others.

use std::collections::{BTreeSet, HashMap, HashSet};

use aion_types::TenantId;
use sha2::{Digest as _, Sha256};

/// Nonces that are remembered of one tenant, about 70 bytes each: 3,400 a second for as long as a request is good.
const OF_TENANT: usize = 1 << 20;
/// Of all tenants.
const OF_ALL: usize = 1 << 22;

/// What stands for a nonce: short, and nobody finds two with the same.
type Mark = [u8; 16];

/// What became of a nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    New,
    Before,
    NoRoom,
}

#[derive(Debug, Default)]
struct Seen {
    marks: HashSet<Mark>,
    over: BTreeSet<(u64, Mark)>,
}

impl Seen {
    /// Forgets what is over, and says how many.
    fn forget(&mut self, now_ms: u64) -> usize {
        let before = self.over.len();
        while let Some((until, mark)) = self.over.first().copied()
            && until < now_ms
        {
            self.over.pop_first();
            self.marks.remove(&mark);
        }
        before - self.over.len()
    }
}

/// The nonces.
#[derive(Debug, Default)]
pub(crate) struct Nonces {
    tenants: HashMap<TenantId, Seen>,
    all: usize,
}

impl Nonces {
    /// Takes a nonce that is good until `until_ms`.
    pub(crate) fn take(&mut self, now_ms: u64, until_ms: u64, tenant: &TenantId, nonce: &str) -> Taken {
        if self.all >= OF_ALL {
            self.all -= self.tenants.values_mut().map(|seen| seen.forget(now_ms)).sum::<usize>();
        }
        if !self.tenants.contains_key(tenant) {
            self.tenants.retain(|_, seen| !seen.over.is_empty());
        }
        let seen = self.tenants.entry(tenant.clone()).or_default();
        self.all -= seen.forget(now_ms);
        let mark = mark(nonce);
        if seen.marks.contains(&mark) {
            return Taken::Before;
        }
        if seen.over.len() >= OF_TENANT || self.all >= OF_ALL {
            return Taken::NoRoom;
        }
        seen.marks.insert(mark);
        seen.over.insert((until_ms, mark));
        self.all += 1;
        Taken::New
    }
}

fn mark(nonce: &str) -> Mark {
    let mut mark = Mark::default();
    for (to, from) in mark.iter_mut().zip(Sha256::digest(nonce.as_bytes())) {
        *to = from;
    }
    mark
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_for_each_tenant_and_time() {
        let (a, b) = (TenantId::parse("a").unwrap(), TenantId::parse("b").unwrap());
        let mut nonces = Nonces::default();
        assert_eq!(nonces.take(0, 100, &a, "n"), Taken::New);
        assert_eq!(nonces.take(50, 150, &a, "n"), Taken::Before);
        assert_eq!(nonces.take(50, 150, &b, "n"), Taken::New);
        assert_eq!(nonces.take(101, 201, &a, "n"), Taken::New, "the time of the first is over");
        assert_eq!(nonces.take(151, 151, &a, "m"), Taken::New);
        assert_eq!(nonces.all, 3);
        assert_eq!(nonces.take(202, 300, &a, "o"), Taken::New, "whatever came first, what is over goes");
        assert_eq!((nonces.all, nonces.tenants.get(&a).map(|seen| seen.marks.len())), (2, Some(1)));
    }

    #[test]
    fn a_tenant_that_fills_its_share_holds_up_itself_alone() {
        let (a, b) = (TenantId::parse("a").unwrap(), TenantId::parse("b").unwrap());
        let mut nonces = Nonces::default();
        for n in 0..OF_TENANT {
            assert_eq!(nonces.take(0, 100, &a, &n.to_string()), Taken::New);
        }
        assert_eq!(nonces.take(0, 100, &a, "more"), Taken::NoRoom);
        assert_eq!(nonces.take(0, 100, &a, "1"), Taken::Before);
        assert_eq!(nonces.take(0, 100, &b, "more"), Taken::New);
        assert_eq!(nonces.take(101, 200, &a, "more"), Taken::New);
    }
}
