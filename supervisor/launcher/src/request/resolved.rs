//! What a name resolved to, checked.

use std::net::IpAddr;
use std::time::Duration;

use aion_egress::Name;
use aion_launcher_proto::v1;
use aion_types::AgentId;

use crate::Failure;
use crate::egress;
use crate::request::field::{self, Checked};

/// Addresses of one answer.
const MAX_ADDRESSES: usize = 32;
/// The longest time that an answer holds, in seconds, whatever it says.
const MAX_TTL_S: u32 = 3600;

/// An answer of the resolver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Whose name.
    pub id: AgentId,
    /// The name.
    pub name: Name,
    /// What it resolved to.
    pub addresses: Vec<IpAddr>,
    /// For how long.
    pub time: Duration,
}

impl Resolved {
    /// Checks it field by field.
    ///
    /// # Errors
    /// `INVALID_FIELD` with the first field that is wrong.
    pub fn check(resolved: &v1::Resolved) -> Checked<Self> {
        let addresses = &resolved.addresses;
        if addresses.len() > MAX_ADDRESSES {
            let why = format!("{} addresses, at most {MAX_ADDRESSES} are allowed", addresses.len());
            return Err(Failure::field("addresses", why));
        }
        if resolved.ttl_s == 0 || resolved.ttl_s > MAX_TTL_S {
            let why = format!("{} is not within 1 and {MAX_TTL_S}", resolved.ttl_s);
            return Err(Failure::field("ttl_s", why));
        }
        let wrong = || Failure::field("addresses", "an address has 4 or 16 bytes");
        Ok(Self {
            id: field::agent_id(&resolved.id)?,
            name: egress::name(&resolved.name)?,
            addresses: addresses
                .iter()
                .map(|bytes| egress::address(bytes).ok_or_else(wrong))
                .collect::<Checked<_>>()?,
            time: Duration::from_secs(resolved.ttl_s.into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_bounded() {
        let good = v1::Resolved {
            id: "01J00000000000000000000000".to_owned(),
            name: "api.example.com".to_owned(),
            addresses: vec![vec![8, 8, 8, 8], vec![0; 16]],
            ttl_s: 60,
        };
        assert_eq!(Resolved::check(&good).unwrap().addresses.len(), 2);
        let field = |change: fn(&mut v1::Resolved)| {
            let mut bad = good.clone();
            change(&mut bad);
            Resolved::check(&bad).unwrap_err().field
        };
        assert_eq!(field(|r| r.id = "x".to_owned()), "id");
        assert_eq!(field(|r| r.name = "a b".to_owned()), "name");
        assert_eq!(field(|r| r.addresses = vec![vec![1; 5]]), "addresses");
        assert_eq!(field(|r| r.addresses = vec![vec![1; 4]; 33]), "addresses");
        assert_eq!(
            (field(|r| r.ttl_s = 0), field(|r| r.ttl_s = 3601)),
            ("ttl_s".to_owned(), "ttl_s".to_owned())
        );
    }
}
