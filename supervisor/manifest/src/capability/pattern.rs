//! Patterns that are either one thing or everything below it, so that of two that overlap one covers the other.

use std::fmt;

use aion_egress::Cidr;

use crate::error::quote;

/// The longest path that the kernel takes.
const MAX_PATH: usize = 4095;

/// An absolute path, or a folder with all that is in it (`/data/**`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathPattern {
    path: String,
    subtree: bool,
}

impl PathPattern {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (path, subtree) = match text.strip_suffix("/**") {
            Some("") => ("/", true),
            Some(path) => (path, true),
            None => (text, false),
        };
        clean_path(path)?;
        if path.contains(['*', '?', '[']) {
            return Err(format!(
                "{} has a wildcard that cannot be enforced; name one path, or a folder as \"/dir/**\"",
                quote(text)
            ));
        }
        Ok(Self { path: path.to_owned(), subtree })
    }

    /// One file or folder, whatever letters its name has.
    ///
    /// # Errors
    /// Says what is wrong with a path that is not absolute and clean.
    pub fn one(path: &str) -> Result<Self, String> {
        clean_path(path)?;
        Ok(Self { path: path.to_owned(), subtree: false })
    }

    /// Everything.
    #[must_use]
    pub fn everything() -> Self {
        Self { path: "/".to_owned(), subtree: true }
    }

    pub(crate) fn subtree_of(path: &str) -> Self {
        Self { path: path.to_owned(), subtree: true }
    }

    /// The path, without `/**`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether it is a folder with all that is in it.
    #[must_use]
    pub const fn is_subtree(&self) -> bool {
        self.subtree
    }

    pub(crate) fn covers(&self, other: &Self) -> bool {
        if self.subtree {
            is_within(&other.path, &self.path)
        } else {
            !other.subtree && self.path == other.path
        }
    }
}

/// Whether a path is a folder or lies in it. Both are clean.
pub(crate) fn is_within(path: &str, folder: &str) -> bool {
    folder == "/" || path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Absolute, without `.`, `..`, empty parts, trailing slash or control characters.
pub(crate) fn clean_path(path: &str) -> Result<(), String> {
    if !path.starts_with('/') {
        return Err(format!("{} is not an absolute path; begin it with '/'", quote(path)));
    }
    if path.len() > MAX_PATH {
        return Err(format!("the path has {} bytes, at most {MAX_PATH} are allowed", path.len()));
    }
    if let Some(c) = path.chars().find(|c| c.is_control()) {
        return Err(format!("{} contains the control character {c:?}; remove it", quote(path)));
    }
    if path == "/" {
        return Ok(());
    }
    for part in path.split('/').skip(1) {
        match part {
            "" => {
                return Err(format!(
                    "{} has an empty part; write one '/' between parts, none at the end",
                    quote(path)
                ));
            }
            "." | ".." => {
                return Err(format!("{} contains {part:?}; write the path without it", quote(path)));
            }
            _ => {}
        }
    }
    Ok(())
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.path.as_str(), self.subtree) {
            ("/", true) => f.write_str("/**"),
            (path, true) => write!(f, "{path}/**"),
            (path, false) => f.write_str(path),
        }
    }
}

/// A name (`web_search`), a prefix (`web_*`) or all (`*`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamePattern {
    prefix: String,
    open: bool,
}

impl NamePattern {
    pub(crate) fn parse(text: &str, what: &str) -> Result<Self, String> {
        let (prefix, open) = match text.strip_suffix('*') {
            Some(prefix) => (prefix, true),
            None => (text, false),
        };
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '@' | ':');
        if (prefix.is_empty() && !open) || text.len() > 128 || !prefix.chars().all(good) {
            return Err(format!(
                "{} is not the name of a {what}; use letters, digits and _-./@: (at most 128), or a prefix with '*' at its end",
                quote(text)
            ));
        }
        Ok(Self { prefix: prefix.to_owned(), open })
    }

    /// Every name.
    #[must_use]
    pub const fn any() -> Self {
        Self { prefix: String::new(), open: true }
    }

    pub(crate) fn covers(&self, other: &Self) -> bool {
        if self.open {
            other.prefix.starts_with(&self.prefix)
        } else {
            !other.open && self.prefix == other.prefix
        }
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.prefix, if self.open { "*" } else { "" })
    }
}

/// A host: a name or address, a domain (`*.example.com`), or all (`*`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    /// Any.
    Any,
    /// Every name below this domain; kept with its leading dot.
    Below(String),
    /// One name, IPv4 address, or IPv6 address (written in brackets).
    One(String),
    /// A block of addresses.
    Block(Cidr),
}

impl HostPattern {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{} is not a host; write a name, an address, [IPv6 address], a block as 10.0.0.0/8, \"*.domain\" or \"*\"",
                quote(text)
            )
        };
        if text == "*" {
            return Ok(Self::Any);
        }
        if text.contains('/') {
            return Cidr::parse(text).map(Self::Block);
        }
        if let Some(inner) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
            let address: std::net::Ipv6Addr = inner.parse().map_err(|_| wrong())?;
            return Ok(Self::One(format!("[{address}]")));
        }
        let (domain, below) = match text.strip_prefix("*.") {
            Some(domain) => (domain, true),
            None => (text, false),
        };
        let label = |l: &str| {
            !l.is_empty()
                && l.len() <= 63
                && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                && !l.starts_with('-')
                && !l.ends_with('-')
        };
        if domain.len() > 253 || !domain.split('.').all(label) {
            return Err(wrong());
        }
        let domain = domain.to_ascii_lowercase();
        Ok(if below { Self::Below(format!(".{domain}")) } else { Self::One(domain) })
    }

    pub(crate) fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (Self::Below(a), Self::Below(b) | Self::One(b)) => b.ends_with(a.as_str()),
            (Self::One(a), Self::One(b)) => a == b,
            (Self::Block(a), Self::Block(b)) => a.covers(*b),
            (Self::Block(a), Self::One(b)) => Cidr::parse(b).is_ok_and(|b| a.covers(b)),
            _ => false,
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Below(domain) => write!(f, "*{domain}"),
            Self::One(host) => f.write_str(host),
            Self::Block(block) => write!(f, "{block}"),
        }
    }
}

/// A port, or all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortPattern {
    /// Any.
    Any,
    /// One.
    One(u16),
}

impl PortPattern {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        match text.parse::<u16>() {
            Ok(port) if digits && port != 0 => Ok(Self::One(port)),
            _ => Err(format!("{} is not a port; write 1 to 65535, or \"*\"", quote(text))),
        }
    }

    pub(crate) const fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (Self::One(a), Self::One(b)) => *a == *b,
            _ => false,
        }
    }
}

impl fmt::Display for PortPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::One(port) => write!(f, "{port}"),
        }
    }
}
