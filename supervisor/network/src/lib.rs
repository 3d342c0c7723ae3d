//! A network of its own for an agent: a veth pair out of its namespace, addresses, routes, and NAT at the host's edge.
//!
//! Made by messages to the kernel (rtnetlink, nf_tables), without programs that would have to be there. What is made is
//! called `aion-…`: links `aion-HASH-N`, one table `aion-HASH`. Who may be reached is not decided here but by the
//! probes; the table keeps agents from the host, from each other, and from being reached.

mod error;
mod forwarding;
mod inside;
mod link;
mod netlink;
mod network;
mod nft;
mod pool;
mod record;
mod rules;

pub use error::Error;
pub use inside::{RESOLVER, open_resolver};
pub use network::{Attached, Network, Options};
