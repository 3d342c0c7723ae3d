//! One rule: whom, on which port.

use std::fmt;
use std::str::FromStr;

use crate::{Cidr, Name};

/// Whom a rule reaches.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// Every public address, and every name.
    Any,
    /// A block of addresses.
    Block(Cidr),
    /// One name.
    Name(Name),
    /// Every name below a domain.
    Below(Name),
}

/// Whom, on which port, over TCP and UDP alike.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// Whom.
    pub target: Target,
    /// On which port; `None` is all of them.
    pub port: Option<u16>,
}

impl FromStr for Rule {
    type Err = String;

    /// Reads `HOST:PORT`, as in `net:connect:HOST:PORT`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (host, port) =
            text.rsplit_once(':').ok_or_else(|| format!("{text:?} lacks a port; write HOST:PORT"))?;
        let digits = !port.is_empty() && port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit());
        let port = match port {
            "*" => None,
            _ => Some(
                port.parse::<u16>()
                    .ok()
                    .filter(|p| digits && *p != 0)
                    .ok_or_else(|| format!("{port:?} is not a port; write 1 to 65535, or \"*\""))?,
            ),
        };
        let looks_like_an_address = host.starts_with('[')
            || host.contains('/')
            || host.split('.').next_back().is_some_and(|l| l.bytes().all(|b| b.is_ascii_digit()));
        let target = match host.strip_prefix("*.") {
            _ if host == "*" => Target::Any,
            Some(domain) => Target::Below(Name::parse(domain)?),
            None if looks_like_an_address => Target::Block(Cidr::parse(host)?),
            None => Target::Name(Name::parse(host)?),
        };
        Ok(Self { target, port })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Target::Any => f.write_str("*")?,
            Target::Block(block) => write!(f, "{block}")?,
            Target::Name(name) => write!(f, "{name}")?,
            Target::Below(domain) => write!(f, "*.{domain}")?,
        }
        match self.port {
            None => f.write_str(":*"),
            Some(port) => write!(f, ":{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_round_trip() {
        for text in [
            "api.example.com:443",
            "*.example.com:*",
            "10.0.0.0/8:80",
            "[fd00::/8]:*",
            "[::1]:53",
            "*:443",
            "1.2.3.4:1",
        ] {
            assert_eq!(text.parse::<Rule>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for text in [
            "",
            "host",
            "host:0",
            "host:+1",
            "host:65536",
            "1.2.3:80",
            "1.2.3.4/40:80",
            "*.:1",
            "*.1.2.3.4/8:1",
        ] {
            assert!(text.parse::<Rule>().is_err(), "{text}");
        }
    }
}
