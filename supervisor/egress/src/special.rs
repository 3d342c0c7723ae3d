//! Blocks that are not of the public Internet: reached only by a rule that lies within the very block.
//!
//! An address may lie in two of them (169.254.169.254 is link-local, and where clouds serve credentials); the
//! narrower one counts. Blocks that carry another family's address (6to4, NAT64, Teredo) are whole blocks here: what
//! comes out at their other end is not known.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::Cidr;

/// Why a block is special.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// No place: unspecified, a group, everybody. No rule reaches it.
    NoPlace,
    /// A host itself.
    Loopback,
    /// This link.
    LinkLocal,
    /// Where clouds serve credentials to their machines.
    Metadata,
    /// A private network, or one between a provider and its customers.
    Private,
    /// For benchmarks, documentation, or nobody.
    Reserved,
    /// A tunnel to addresses that are not seen.
    Tunnel,
}

impl Kind {
    /// In words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoPlace => "no place that can be connected to",
            Self::Loopback => "a loopback address",
            Self::LinkLocal => "a link-local address",
            Self::Metadata => "an address where clouds serve credentials",
            Self::Private => "a private address",
            Self::Reserved => "a reserved address",
            Self::Tunnel => "a tunnel's address",
        }
    }
}

/// A special block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Which addresses.
    pub cidr: Cidr,
    /// Why.
    pub kind: Kind,
}

/// How specific a rule would have to be to reach a block that no rule may reach: more than any is.
pub const NEVER_NAMED: u8 = 129;

type V4 = ([u8; 4], u8, Kind);
type V6 = ([u16; 8], u8, Kind);

const fn v6(head: [u16; 3], len: u8, kind: Kind) -> V6 {
    ([head[0], head[1], head[2], 0, 0, 0, 0, 0], len, kind)
}

const BLOCKS_V4: &[V4] = &[
    ([0, 0, 0, 0], 8, Kind::NoPlace),
    ([127, 0, 0, 0], 8, Kind::Loopback),
    ([10, 0, 0, 0], 8, Kind::Private),
    ([172, 16, 0, 0], 12, Kind::Private),
    ([192, 168, 0, 0], 16, Kind::Private),
    ([100, 64, 0, 0], 10, Kind::Private),
    ([169, 254, 0, 0], 16, Kind::LinkLocal),
    // AWS, Azure, GCP and most others; AWS ECS and EKS; Alibaba; Oracle; Azure's wire server.
    ([169, 254, 169, 254], 32, Kind::Metadata),
    ([169, 254, 170, 2], 32, Kind::Metadata),
    ([169, 254, 170, 23], 32, Kind::Metadata),
    ([100, 100, 100, 200], 32, Kind::Metadata),
    ([192, 0, 0, 192], 32, Kind::Metadata),
    ([168, 63, 129, 16], 32, Kind::Metadata),
    ([192, 0, 0, 0], 24, Kind::Reserved),
    ([192, 0, 2, 0], 24, Kind::Reserved),
    ([192, 31, 196, 0], 24, Kind::Reserved),
    ([192, 52, 193, 0], 24, Kind::Reserved),
    ([192, 88, 99, 0], 24, Kind::Reserved),
    ([192, 175, 48, 0], 24, Kind::Reserved),
    ([198, 18, 0, 0], 15, Kind::Reserved),
    ([198, 51, 100, 0], 24, Kind::Reserved),
    ([203, 0, 113, 0], 24, Kind::Reserved),
    ([224, 0, 0, 0], 4, Kind::NoPlace),
    ([240, 0, 0, 0], 4, Kind::Reserved),
    ([255, 255, 255, 255], 32, Kind::NoPlace),
];

const BLOCKS_V6: &[V6] = &[
    // All that is not global unicast, and in it:
    v6([0, 0, 0], 3, Kind::Reserved),
    ([0; 8], 128, Kind::NoPlace),
    ([0, 0, 0, 0, 0, 0, 0, 1], 128, Kind::Loopback),
    v6([0x64, 0xff9b, 0], 96, Kind::Tunnel),
    v6([0x64, 0xff9b, 1], 48, Kind::Tunnel),
    v6([0x4000, 0, 0], 2, Kind::Reserved),
    v6([0x8000, 0, 0], 1, Kind::Reserved),
    v6([0xfc00, 0, 0], 7, Kind::Private),
    v6([0xfec0, 0, 0], 10, Kind::Private),
    ([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128, Kind::Metadata),
    ([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128, Kind::Metadata),
    v6([0xfe80, 0, 0], 10, Kind::LinkLocal),
    v6([0xff00, 0, 0], 8, Kind::NoPlace),
    // Global unicast has these:
    v6([0x2001, 0, 0], 23, Kind::Reserved),
    v6([0x2001, 0, 0], 32, Kind::Tunnel),
    v6([0x2001, 0xdb8, 0], 32, Kind::Reserved),
    v6([0x2002, 0, 0], 16, Kind::Tunnel),
    v6([0x3fff, 0, 0], 20, Kind::Reserved),
];

/// Every special block; one may lie in another. Mapped IPv4 lies in a reserved block of IPv6 that does not count for it.
pub fn blocks() -> impl Iterator<Item = Block> {
    let v4 = BLOCKS_V4.iter().map(|(octets, len, kind)| (IpAddr::from(Ipv4Addr::from(*octets)), *len, *kind));
    let v6 = BLOCKS_V6.iter().map(|(words, len, kind)| (IpAddr::from(Ipv6Addr::from(*words)), *len, *kind));
    v4.chain(v6).filter_map(|(first, len, kind)| Some(Block { cidr: Cidr::new(first, len)?, kind }))
}

/// For the kernel's table: of the narrowest block that holds an address, how narrow a special block a rule must name (as
/// [`crate::Entry::named`] says) to reach it.
pub fn wanted() -> impl Iterator<Item = (Cidr, u8)> {
    let public = [(Cidr::everything(), 0), (Cidr::all_v4(), 0)];
    let special = blocks().map(|block| {
        let never = matches!(block.kind, Kind::NoPlace | Kind::Loopback);
        (block.cidr, if never { NEVER_NAMED } else { block.cidr.fixed_bits() })
    });
    public.into_iter().chain(special)
}

/// How narrow a special block a rule must name to reach all of `cidr`, which is one address or lies in one block: what the kernel finds
/// in the table of [`wanted`].
#[must_use]
pub fn wanted_of(cidr: Cidr) -> Option<u8> {
    let covering = wanted().filter(|(block, _)| block.covers(cidr));
    covering.max_by_key(|(block, _)| block.fixed_bits()).map(|(_, wanted)| wanted)
}

/// The narrowest special block that all of `cidr` lies in.
#[must_use]
pub fn block_of(cidr: Cidr) -> Option<Block> {
    let narrowest = blocks().filter(|b| b.cidr.covers(cidr)).max_by_key(|b| b.cidr.fixed_bits())?;
    // Mapped IPv4 is judged by the blocks of IPv4 alone.
    let mapped = Cidr::all_v4();
    (!mapped.covers(cidr) || narrowest.cidr.fixed_bits() >= mapped.fixed_bits()).then_some(narrowest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> Option<Kind> {
        block_of(Cidr::parse(text).unwrap()).map(|b| b.kind)
    }

    #[test]
    fn no_block_is_mistyped() {
        assert_eq!(blocks().count(), BLOCKS_V4.len() + BLOCKS_V6.len());
    }

    #[test]
    fn addresses_are_of_the_narrowest_block() {
        for (address, expected) in [
            ("8.8.8.8", None),
            ("[2606:4700::1111]", None),
            ("[2001:4860::8888]", None),
            ("127.0.0.1", Some(Kind::Loopback)),
            ("[::1]", Some(Kind::Loopback)),
            ("[::ffff:127.0.0.1]", Some(Kind::Loopback)),
            ("[::ffff:8.8.8.8]", None),
            ("10.255.0.1", Some(Kind::Private)),
            ("172.32.0.1", None),
            ("172.31.255.255", Some(Kind::Private)),
            ("169.254.0.1", Some(Kind::LinkLocal)),
            ("169.254.169.254", Some(Kind::Metadata)),
            ("[fd00:ec2::254]", Some(Kind::Metadata)),
            ("[fd00::1]", Some(Kind::Private)),
            ("[fe80::1]", Some(Kind::LinkLocal)),
            ("[ff02::1]", Some(Kind::NoPlace)),
            ("0.0.0.0", Some(Kind::NoPlace)),
            ("255.255.255.255", Some(Kind::NoPlace)),
            ("[64:ff9b::a9fe:a9fe]", Some(Kind::Tunnel)),
            ("[2002:a00:1::1]", Some(Kind::Tunnel)),
            ("[2001:0:1::]", Some(Kind::Tunnel)),
            ("[4000::1]", Some(Kind::Reserved)),
            ("[fe00::1]", Some(Kind::Reserved)),
        ] {
            assert_eq!(kind(address), expected, "{address}");
        }
    }

    #[test]
    fn a_block_wider_than_a_special_one_is_of_none() {
        assert_eq!(kind("0.0.0.0/0"), None);
        assert_eq!(kind("168.0.0.0/5"), None);
        assert_eq!(kind("169.254.0.0/16"), Some(Kind::LinkLocal));
        assert_eq!(kind("[::/0]"), None);
    }
}
