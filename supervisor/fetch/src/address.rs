//! Addresses that are not of the public Internet. What one address holds of another (a mapped, translated or tunnelled one)
//! counts as the other, too: the packet may end up there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Why an address is not an ordinary one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Special {
    /// `0.0.0.0/8`, `::`.
    Unspecified,
    /// This host.
    Loopback,
    /// Another address of this host.
    Own,
    /// A private network (RFC 1918, unique local, site-local).
    Private,
    /// This link.
    LinkLocal,
    /// Where clouds serve credentials to their machines.
    Metadata,
    /// Between a provider and its customers (RFC 6598).
    Shared,
    /// For measurements of devices.
    Benchmark,
    /// For examples.
    Documentation,
    /// A group.
    Multicast,
    /// Everybody.
    Broadcast,
    /// Reserved, or in no use of the public Internet.
    Reserved,
}

impl Special {
    /// In words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unspecified => "an unspecified address",
            Self::Loopback => "a loopback address",
            Self::Own => "an address of this host",
            Self::Private => "a private address",
            Self::LinkLocal => "a link-local address",
            Self::Metadata => "an address where clouds serve credentials",
            Self::Shared => "an address of shared space",
            Self::Benchmark => "an address for benchmarks",
            Self::Documentation => "an address for documentation",
            Self::Multicast => "a multicast address",
            Self::Broadcast => "the broadcast address",
            Self::Reserved => "a reserved address",
        }
    }

    /// Whether a rule may let it be connected to: it is a place, and one at most.
    #[must_use]
    pub const fn is_a_place(self) -> bool {
        !matches!(self, Self::Unspecified | Self::Multicast | Self::Broadcast)
    }
}

/// What is special about an address, here and now.
pub(crate) fn special_here(address: IpAddr) -> Option<Special> {
    special(address).or_else(|| is_own(address).then_some(Special::Own))
}

/// Whether packets to a public address would not leave this host: what listens there may trust that a firewall stands before it.
/// The kernel says so by the way that it would take; nothing is sent.
fn is_own(address: IpAddr) -> bool {
    let any = match address {
        IpAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        IpAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let source = UdpSocket::bind(any).and_then(|socket| {
        socket.connect((address, 9))?;
        socket.local_addr()
    });
    // Without a way there will be no connection either.
    source.is_ok_and(|source| source.ip() == address)
}

/// What is special about an address; none: it is of the public Internet.
#[must_use]
pub fn special(address: IpAddr) -> Option<Special> {
    match address {
        IpAddr::V4(v4) => special_v4(v4),
        IpAddr::V6(v6) => special_v6(v6),
    }
}

/// AWS, Azure, GCP and most others; AWS ECS and EKS; Alibaba; Oracle; Azure's wire server.
const METADATA: [[u8; 4]; 6] = [
    [169, 254, 169, 254],
    [169, 254, 170, 2],
    [169, 254, 170, 23],
    [100, 100, 100, 200],
    [192, 0, 0, 192],
    [168, 63, 129, 16],
];

fn special_v4(address: Ipv4Addr) -> Option<Special> {
    let octets = address.octets();
    if METADATA.contains(&octets) {
        return Some(Special::Metadata);
    }
    Some(match octets {
        [0, ..] => Special::Unspecified,
        [127, ..] => Special::Loopback,
        [10, ..] | [192, 168, ..] | [172, 16..=31, ..] => Special::Private,
        [169, 254, ..] => Special::LinkLocal,
        [100, 64..=127, ..] => Special::Shared,
        [198, 18 | 19, ..] => Special::Benchmark,
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Special::Documentation,
        // IETF protocols; AS112 and AMT stay reserved; the relays of 6to4.
        [192, 0, 0, _] | [192, 31, 196, _] | [192, 52, 193, _] | [192, 175, 48, _] | [192, 88, 99, _] => {
            Special::Reserved
        }
        [224..=239, ..] => Special::Multicast,
        [255, 255, 255, 255] => Special::Broadcast,
        [240..=255, ..] => Special::Reserved,
        _ => return None,
    })
}

fn v4(high: u16, low: u16) -> Ipv4Addr {
    let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
    Ipv4Addr::new(a, b, c, d)
}

fn special_v6(address: Ipv6Addr) -> Option<Special> {
    let inner = |high, low| special_v4(v4(high, low));
    // A tunnel's address is never needed to reach a public host.
    let tunnel = |high, low| Some(inner(high, low).unwrap_or(Special::Reserved));
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some(Special::Unspecified),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some(Special::Loopback),
        // Mapped, and translated by NAT64.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => inner(high, low),
        // Compatible and SIIT, both gone.
        [0, 0, 0, 0, 0, 0, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => tunnel(high, low),
        // NAT64 of a local network.
        [0x64, 0xff9b, 1, ..] => Some(Special::Private),
        [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254] | [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254] => {
            Some(Special::Metadata)
        }
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Some(Special::Private),
        [0xfe80..=0xfebf, ..] => Some(Special::LinkLocal),
        [0xff00..=0xffff, ..] => Some(Special::Multicast),
        // 6to4 has the address after its prefix, Teredo turned round at its end.
        [0x2002, high, low, ..] => tunnel(high, low),
        [0x2001, 0, .., high, low] => tunnel(!high, !low),
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Some(Special::Documentation),
        [0x2001, 2, 0, ..] => Some(Special::Benchmark),
        [0x2001, 1..=0x1ff, ..] => Some(Special::Reserved),
        // ISATAP, below any prefix.
        [_, _, _, _, 0 | 0x200, 0x5efe, high, low] => tunnel(high, low),
        [0x2000..=0x3fff, ..] => None,
        _ => Some(Special::Reserved),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str) -> Option<Special> {
        special(text.parse().unwrap())
    }

    #[test]
    fn every_block_is_known_at_both_ends() {
        use Special as S;
        for (kind, addresses) in [
            (S::Unspecified, &["0.0.0.0", "0.255.255.255", "::", "::ffff:0.0.0.0"][..]),
            (S::Loopback, &["127.0.0.1", "127.255.255.255", "::1", "::ffff:127.0.0.1"]),
            (S::Private, &["10.0.0.0", "10.255.255.255", "172.16.0.0", "172.31.255.255", "192.168.0.0"]),
            (S::Private, &["192.168.255.255", "fc00::", "fdff::1", "fec0::1", "64:ff9b:1::1"]),
            (S::LinkLocal, &["169.254.0.0", "169.254.255.255", "fe80::1", "febf::1"]),
            (S::Metadata, &["169.254.169.254", "100.100.100.200", "fd00:ec2::254", "168.63.129.16"]),
            (S::Metadata, &["::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1"]),
            (S::Shared, &["100.64.0.0", "100.127.255.255", "::ffff:100.64.0.1"]),
            (S::Benchmark, &["198.18.0.0", "198.19.255.255", "2001:2::1"]),
            (S::Documentation, &["192.0.2.1", "198.51.100.1", "203.0.113.255", "2001:db8::1", "3fff::1"]),
            (S::Multicast, &["224.0.0.0", "239.255.255.255", "ff02::1"]),
            (S::Broadcast, &["255.255.255.255"]),
            (S::Reserved, &["240.0.0.0", "255.255.255.254", "192.0.0.1", "192.88.99.1", "100::1", "5f00::1"]),
            (S::Reserved, &["2001:10::1", "2001:20::1", "2001:1ff::1", "1::1", "4000::1", "fe00::1"]),
        ] {
            for address in addresses {
                assert_eq!(of(address), Some(kind), "{address}");
            }
        }
    }

    #[test]
    fn what_egress_takes_for_special_is_special_here() {
        for block in aion_egress::blocks().filter(|block| block.cidr.fixed_bits() > 0) {
            let first = Ipv6Addr::from(block.cidr.octets());
            let last = Ipv6Addr::from_bits(
                first.to_bits() | u128::MAX.checked_shr(block.cidr.fixed_bits().into()).unwrap_or(0),
            );
            for address in [first, last] {
                assert!(special(address.into()).is_some(), "{address} of {:?}", block.cidr);
            }
        }
    }

    #[test]
    fn neighbours_of_the_blocks_are_public() {
        for address in [
            "1.0.0.0",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "191.255.255.255",
            "192.0.1.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "8.8.8.8",
            "2000::1",
            "2001:4860:4860::8888",
            "2606:4700::1111",
            "2003::1",
            "3ffe::1",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
        ] {
            assert_eq!(of(address), None, "{address}");
        }
    }

    #[test]
    fn what_is_inside_a_tunnel_counts() {
        assert_eq!(of("2002:0a00:0001::1"), Some(Special::Private));
        assert_eq!(of("2002:808:808::1"), Some(Special::Reserved), "6to4 of a public address is no use");
        // Teredo: the client's address is the last 32 bits, inverted.
        assert_eq!(of("2001:0:1:2:3:4:80ff:fffe"), Some(Special::Loopback));
        assert_eq!(of("2001:0:1:2:3:4:f7f7:f7f7"), Some(Special::Reserved));
        assert_eq!(of("2600:1::5efe:10.0.0.1"), Some(Special::Private));
        assert_eq!(of("::10.0.0.1"), Some(Special::Private));
        assert_eq!(of("::ffff:0:10.0.0.1"), Some(Special::Private));
    }

    #[test]
    fn this_host_is_known_by_the_way_to_it() {
        assert!(is_own("127.0.0.1".parse().unwrap()));
        assert!(!is_own("8.8.8.8".parse().unwrap()) && !is_own("2001:4860:4860::8888".parse().unwrap()));
        assert_eq!(special_here("127.0.0.1".parse().unwrap()), Some(Special::Loopback));
    }

    #[test]
    fn some_can_be_allowed_by_no_rule() {
        for (address, place) in [("0.0.0.0", false), ("224.0.0.1", false), ("255.255.255.255", false)] {
            assert_eq!(of(address).unwrap().is_a_place(), place);
        }
        assert!(of("127.0.0.1").unwrap().is_a_place() && of("10.0.0.1").unwrap().is_a_place());
    }

    proptest! {
        #[test]
        fn a_mapped_or_translated_address_is_as_special_as_itself(bits: u32) {
            let inner = Ipv4Addr::from(bits);
            let plain = special(IpAddr::V4(inner));
            prop_assert_eq!(special(IpAddr::V6(inner.to_ipv6_mapped())), plain);
            let [a, b, c, d] = inner.octets();
            let nat64 = Ipv6Addr::from([0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d]);
            prop_assert_eq!(special(IpAddr::V6(nat64)), plain);
        }
    }
}
