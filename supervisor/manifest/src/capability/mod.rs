//! Capabilities: a small grammar of what an agent may do, and the arithmetic of rules.
//!
//! `grammar` reads and writes them, `pattern` compares what they cover, `policy` meets the global rules with an agent's. Pure.

mod effective;
mod grammar;
mod pattern;
mod policy;

pub use effective::{Effective, Exception, Grant, Refusal, Verdict, effective};
pub use grammar::{Access, Capability, Coarse, Family, MemoryKind, MemoryOp, parse_capabilities};
pub use pattern::{HostPattern, NamePattern, PathPattern, PortPattern};
pub use policy::{ApprovalRule, Asked, CapabilityPolicy, Rule};

pub(crate) use grammar::parse_rule;
pub(crate) use pattern::clean_path as check_path;
