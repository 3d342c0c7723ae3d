//! What must be signed here.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use crate::{Kind, SignedBy, Trust, Untrusted};

/// What must be signed, and by whom. The keys can be exchanged while it is asked.
#[derive(Debug, Default)]
pub struct Guard {
    required: BTreeSet<Kind>,
    trust: RwLock<Arc<Trust>>,
}

impl Guard {
    /// These must be signed, by these keys.
    #[must_use]
    pub fn new(required: impl IntoIterator<Item = Kind>, trust: Trust) -> Self {
        Self { required: required.into_iter().collect(), trust: RwLock::new(Arc::new(trust)) }
    }

    /// Trusts other keys from now on.
    pub fn exchange(&self, trust: Trust) {
        *self.trust.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(trust);
    }

    /// The keys.
    #[must_use]
    pub fn trust(&self) -> Arc<Trust> {
        Arc::clone(&self.trust.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether such a thing must be signed.
    #[must_use]
    pub fn requires(&self, kind: Kind) -> bool {
        self.required.contains(&kind)
    }

    /// Looks at what comes in; `now` in seconds since 1970. Where nothing must be signed, what is not signed may come in. What is signed
    /// is looked at wherever a key is trusted: a signature that is there is never passed over.
    ///
    /// # Errors
    /// It may not come in.
    pub fn admit(
        &self,
        kind: Kind,
        payload: &[u8],
        signature: &str,
        now: u64,
    ) -> Result<Option<SignedBy>, Untrusted> {
        let trust = self.trust();
        let is_signed = !signature.trim().is_empty();
        if self.requires(kind) || (is_signed && !trust.is_empty()) {
            return trust.verify(kind, payload, signature, now).map(Some);
        }
        Ok(None)
    }

    /// Looks at what came in at some time before it is used, with the fingerprint of the key that had signed it.
    ///
    /// # Errors
    /// It must be signed and was not, or by a key that is not trusted any more.
    pub fn keeps(&self, kind: Kind, signed_by: Option<&str>) -> Result<(), Untrusted> {
        if !self.requires(kind) {
            return Ok(());
        }
        match signed_by {
            Some(fingerprint) if self.trust().has(fingerprint, kind) => Ok(()),
            Some(fingerprint) => Err(Untrusted::withdrawn(fingerprint)),
            None => Err(Untrusted::missing()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Reason, SecretKey};

    fn key(byte: u8) -> SecretKey {
        SecretKey::from_bytes(&[byte; 32]).unwrap()
    }

    fn trust(key: &SecretKey, more: &str) -> Trust {
        Trust::parse([("a", format!("{more}{}", key.public_pem()).as_str())]).unwrap()
    }

    #[test]
    fn what_must_be_signed_comes_in_signed_alone() {
        let (a, b) = (key(1), key(2));
        let guard = Guard::new([Kind::Tools], trust(&a, ""));
        let admit =
            |kind, signature: &str| guard.admit(kind, b"x", signature, 0).map_err(|error| error.reason);
        assert_eq!(admit(Kind::Tools, &a.sign(b"x")).unwrap().unwrap().name, "a");
        assert_eq!(admit(Kind::Tools, ""), Err(Reason::Missing));
        assert_eq!(admit(Kind::Tools, &b.sign(b"x")), Err(Reason::Unknown));
        assert_eq!(admit(Kind::Agents, ""), Ok(None));
        // A signature that is there must be good.
        assert_eq!(admit(Kind::Agents, &a.sign(b"y")), Err(Reason::Unknown));
        assert!(admit(Kind::Agents, &a.sign(b"x")).unwrap().is_some());
        // Without any key there is nothing to look at it with.
        let none = Guard::default();
        assert_eq!(none.admit(Kind::Agents, b"x", "nonsense", 0), Ok(None));
        let none = Guard::new([Kind::Agents], Trust::default());
        assert_eq!(none.admit(Kind::Agents, b"x", &a.sign(b"x"), 0).unwrap_err().reason, Reason::Unknown);
    }

    #[test]
    fn what_came_in_stays_while_its_key_is_trusted() {
        let a = key(1);
        let print = a.public("a").fingerprint().to_owned();
        // Its time is over: that is nothing to what has come in.
        let guard = Guard::new([Kind::Tools], trust(&a, "not-after: 2001-01-01\n"));
        assert_eq!(guard.keeps(Kind::Tools, Some(&print)), Ok(()));
        assert_eq!(guard.keeps(Kind::Tools, None).unwrap_err().reason, Reason::Missing);
        assert_eq!(guard.keeps(Kind::Agents, None), Ok(()));
        guard.exchange(trust(&key(2), ""));
        assert_eq!(guard.keeps(Kind::Tools, Some(&print)).unwrap_err().reason, Reason::Withdrawn);
        guard.exchange(trust(&a, "signs: agents\n"));
        assert_eq!(guard.keeps(Kind::Tools, Some(&print)).unwrap_err().reason, Reason::Withdrawn);
    }
}
