//! The host's table: agents reach neither the host nor each other, nobody reaches them, and what leaves does so under
//! the host's address.
//!
//! It knows links by the beginning of their names, so that agents come and go without a change to it.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::nft::{
    Chain, Expr, Hook, Side, drop_it, family, link_begins, link_is, masquerade, not_established, reject,
    source_outside,
};

/// What the table is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    /// How the names of the agents' links begin.
    pub(crate) links: String,
    /// The agents' addresses.
    pub(crate) v4: (Ipv4Addr, u8),
    /// The same of IPv6.
    pub(crate) v6: (Ipv6Addr, u8),
    /// Links of the host that forward IPv4 for agents alone.
    pub(crate) guarded_v4: Vec<String>,
    /// The same of IPv6.
    pub(crate) guarded_v6: Vec<String>,
}

/// Before a host's own rules, which may accept what is not theirs.
const EARLY: i32 = -10;
const SOURCE_NAT: i32 = 100;

fn rule(parts: impl IntoIterator<Item = Vec<Expr>>, verdict: Expr) -> Vec<Expr> {
    parts.into_iter().flatten().chain([verdict]).collect()
}

pub(crate) fn chains(layout: &Layout) -> Vec<Chain> {
    let from = || link_begins(Side::From, &layout.links, true);
    let to = || link_begins(Side::To, &layout.links, true);
    let not_to = || link_begins(Side::To, &layout.links, false);
    let mut forward = vec![
        rule([from(), to()], reject()),
        rule([from(), source_outside(&layout.v4.0.octets(), layout.v4.1)], drop_it()),
        rule([from(), source_outside(&layout.v6.0.octets(), layout.v6.1)], drop_it()),
        rule([to(), not_established()], drop_it()),
    ];
    for (number, links) in [(2, &layout.guarded_v4), (10, &layout.guarded_v6)] {
        let guard = |link: &String| rule([family(number), link_is(Side::From, link), not_to()], drop_it());
        forward.extend(links.iter().map(guard));
    }
    let filter = |name, hook, rules| Chain { name, hook, kind: "filter", priority: EARLY, rules };
    vec![
        filter("input", Hook::Input, vec![rule([from()], reject())]),
        filter("forward", Hook::Forward, forward),
        filter("output", Hook::Output, vec![rule([to(), not_established()], drop_it())]),
        Chain {
            name: "postrouting",
            hook: Hook::Postrouting,
            kind: "nat",
            priority: SOURCE_NAT,
            rules: vec![rule([from()], masquerade())],
        },
    ]
}
