//! What an agent with network mode `egress` may reach: rules of addresses, names and ports, and the addresses that
//! no rule reaches by accident.
//!
//! Pure: no clock, no socket. The manifest reads rules with it, the launcher turns them into entries of the
//! kernel's table and judges addresses that a name resolved to, the resolver asks which names it may look up. IPv4 is
//! its mapped form (`::ffff:a.b.c.d`) everywhere, so an address has one spelling.

mod cidr;
mod name;
mod rule;
mod rules;
mod special;

pub use cidr::Cidr;
pub use name::Name;
pub use rule::{Rule, Target};
pub use rules::{Entry, MAX_RULES, Rules};
pub use special::{Block, Kind, NEVER_NAMED, block_of, blocks, wanted, wanted_of};
