//! The revisions of the protocol that this crate speaks, and where they differ.

use std::fmt;

/// A revision of the Model Context Protocol, in the order in which they were published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Revision {
    /// 2024-11-05.
    V2024_11_05,
    /// 2025-03-26: streamable HTTP, batches, annotations.
    V2025_03_26,
    /// 2025-06-18: no batches any more, structured results, the version header.
    V2025_06_18,
}

impl Revision {
    /// The newest that this crate speaks; what a client asks for.
    pub const LATEST: Self = Self::V2025_06_18;
    /// What the specification says to assume of an HTTP request without `MCP-Protocol-Version`.
    pub const ASSUMED: Self = Self::V2025_03_26;

    /// Reads a revision; `None` when this crate does not speak it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::V2024_11_05, Self::V2025_03_26, Self::V2025_06_18].into_iter().find(|one| one.as_str() == text)
    }

    /// As it is written in messages and headers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V2024_11_05 => "2024-11-05",
            Self::V2025_03_26 => "2025-03-26",
            Self::V2025_06_18 => "2025-06-18",
        }
    }

    /// Whether a message may be an array of messages. The first revision leaves it to JSON-RPC, which has them.
    pub(crate) fn has_batches(self) -> bool {
        self < Self::V2025_06_18
    }

    /// Whether tools have an output schema and results a structured part.
    pub(crate) fn has_structured_results(self) -> bool {
        self >= Self::V2025_06_18
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
