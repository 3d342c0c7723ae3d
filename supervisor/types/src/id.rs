//! Identifiers. Each is checked once, at the door, and cannot be wrong afterwards.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is empty.
    #[error("it is empty")]
    Empty,
    /// The text is longer than allowed.
    #[error("it has {len} characters, at most {max} are allowed")]
    TooLong {
        /// How long it is.
        len: usize,
        /// How long it may be.
        max: usize,
    },
    /// A character that is not allowed, and where.
    #[error(
        "character {ch:?} at position {at} is not allowed: use a-z, 0-9 and '-', beginning and ending with a letter or digit"
    )]
    BadChar {
        /// The character.
        ch: char,
        /// Its position, from 1.
        at: usize,
    },
    /// A character that a tenant's name does not have, and where.
    #[error(
        "character {ch:?} at position {at} is not allowed: use letters, digits, '-', '_' and '.', beginning and ending with a letter or digit"
    )]
    BadTenantChar {
        /// The character.
        ch: char,
        /// Its position, from 1.
        at: usize,
    },
    /// Not an agent's address.
    #[error("it is not an agent's address: write agent://TENANT/NAME")]
    NotAddress,
    /// Not a ULID.
    #[error("it is not a ULID (26 characters of Crockford base 32)")]
    NotUlid,
}

/// An agent's identity for its whole life: a ULID, so that ids sort by creation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AgentId(String);

impl AgentId {
    /// Takes a ULID in its text form, upper case.
    ///
    /// # Errors
    /// [`IdError::NotUlid`] for anything else.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let ulid = ulid::Ulid::from_string(text).map_err(|_| IdError::NotUlid)?;
        let canonical = ulid.to_string();
        if canonical != text {
            return Err(IdError::NotUlid);
        }
        Ok(Self(canonical))
    }

    /// Makes one from a time and randomness that the caller brings.
    #[must_use]
    pub fn from_parts(unix_ms: u64, random: u128) -> Self {
        Self(ulid::Ulid::from_parts(unix_ms, random).to_string())
    }

    /// The text form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A DNS label: 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit.
fn label(text: &str) -> Result<String, IdError> {
    const MAX: usize = 63;
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    let len = text.chars().count();
    if len > MAX {
        return Err(IdError::TooLong { len, max: MAX });
    }
    for (i, ch) in text.chars().enumerate() {
        let inner = i != 0 && i + 1 != len;
        if !(ch.is_ascii_lowercase() || ch.is_ascii_digit() || (ch == '-' && inner)) {
            return Err(IdError::BadChar { ch, at: i + 1 });
        }
    }
    Ok(text.to_owned())
}

/// 1 to 63 letters of either case, digits, '-', '_' and '.', beginning and ending with a letter or digit. Never a path.
fn tenant_name(text: &str) -> Result<String, IdError> {
    const MAX: usize = 63;
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    let len = text.chars().count();
    if len > MAX {
        return Err(IdError::TooLong { len, max: MAX });
    }
    for (i, ch) in text.chars().enumerate() {
        let inner = i != 0 && i + 1 != len;
        if !(ch.is_ascii_alphanumeric() || (matches!(ch, '-' | '_' | '.') && inner)) {
            return Err(IdError::BadTenantChar { ch, at: i + 1 });
        }
    }
    Ok(text.to_owned())
}

macro_rules! label_type {
    ($(#[$doc:meta])* $name:ident, $check:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            #[doc = $what]
            ///
            /// # Errors
            /// [`IdError`] says what is wrong, and where.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                $check(text).map(Self)
            }

            /// The text form.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
    };
}

label_type!(
    /// An agent's name, unique within its tenant.
    AgentName,
    label,
    "Takes a DNS label (1 to 63 of a-z, 0-9, '-')."
);
impl AgentName {
    /// What stands in an agent's place where something is the tenant's own. No agent is called so: it does not parse.
    #[must_use]
    pub fn whole_tenant() -> Self {
        Self(Self::WHOLE_TENANT.to_owned())
    }

    /// Whether it is [`AgentName::whole_tenant`].
    #[must_use]
    pub fn is_whole_tenant(&self) -> bool {
        self.0 == Self::WHOLE_TENANT
    }

    const WHOLE_TENANT: &str = "@tenant";
}

label_type!(
    /// A tenant. `default` is the one of local operators.
    TenantId,
    tenant_name,
    "Takes 1 to 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit."
);

/// How the kernel API names an agent: `agent://TENANT/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AgentUri {
    /// Whose it is.
    pub tenant: TenantId,
    /// Its name there.
    pub name: AgentName,
}

impl AgentUri {
    const SCHEME: &str = "agent://";

    /// Takes `agent://TENANT/NAME`.
    ///
    /// # Errors
    /// [`IdError`] says what is wrong.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let rest = text.strip_prefix(Self::SCHEME).ok_or(IdError::NotAddress)?;
        let (tenant, name) = rest.split_once('/').ok_or(IdError::NotAddress)?;
        Ok(Self { tenant: TenantId::parse(tenant)?, name: AgentName::parse(name)? })
    }
}

impl fmt::Display for AgentUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}/{}", Self::SCHEME, self.tenant, self.name)
    }
}

impl TryFrom<String> for AgentUri {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        Self::parse(&text)
    }
}

impl From<AgentUri> for String {
    fn from(uri: AgentUri) -> Self {
        uri.to_string()
    }
}

macro_rules! text_traits {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::parse(text)
            }
        }
        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                Self::parse(&text)
            }
        }
        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
    )*};
}
text_traits!(AgentId, AgentName, TenantId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "researcher-1", "0", &"x".repeat(63)] {
            assert!(AgentName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a/b", "..", "é", &"x".repeat(64)] {
            assert!(AgentName::parse(bad).is_err(), "{bad}");
        }
        let whole = AgentName::whole_tenant();
        assert!(whole.is_whole_tenant() && AgentName::parse(whole.as_str()).is_err());
        assert_eq!(AgentName::parse("a/b"), Err(IdError::BadChar { ch: '/', at: 2 }));
    }

    #[test]
    fn tenants_may_be_upper_case_and_are_no_paths() {
        for good in ["default", "tenantA", "Acme.Corp_2", "x"] {
            assert!(TenantId::parse(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "-a", "a.", "a b", "a\0b", "é"] {
            assert!(TenantId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_name_tenant_and_agent() {
        let uri = AgentUri::parse("agent://tenantA/researcher-1").unwrap();
        assert_eq!((uri.tenant.as_str(), uri.name.as_str()), ("tenantA", "researcher-1"));
        assert_eq!(uri.to_string(), "agent://tenantA/researcher-1");
        for bad in
            ["", "tenantA/x", "agent://tenantA", "agent:///x", "agent://a/b/c", "agent://a/B", "http://a/b"]
        {
            assert!(AgentUri::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn agent_ids_are_canonical_ulids() {
        let id = AgentId::from_parts(1_700_000_000_000, 7);
        assert_eq!(AgentId::parse(id.as_str()), Ok(id.clone()));
        assert_eq!(AgentId::parse(&id.as_str().to_lowercase()), Err(IdError::NotUlid));
        assert_eq!(AgentId::parse("../../etc/passwd"), Err(IdError::NotUlid));
    }
}
