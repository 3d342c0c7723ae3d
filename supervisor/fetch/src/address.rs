//! Addresses that are not of the public Internet. What one address holds of another (a mapped, translated or tunnelled one)
//! counts as the other, too: the packet may end up there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use aion_egress::{Cidr, Kind, block_of};

/// Why an address is not an ordinary one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Special {
    /// Of a block that `aion-egress` lists.
    Of(Kind),
    /// Another address of this host.
    Own,
}

impl Special {
    /// In words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Of(kind) => kind.as_str(),
            Self::Own => "an address of this host",
        }
    }

    /// Whether a rule may let it be connected to: it is a place, and one at most.
    #[must_use]
    pub const fn is_a_place(self) -> bool {
        !matches!(self, Self::Of(Kind::NoPlace))
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
    kind(address).map(Special::Of)
}

fn listed(address: IpAddr) -> Option<Kind> {
    block_of(Cidr::one(address)).map(|block| block.kind)
}

fn v4(high: u16, low: u16) -> Ipv4Addr {
    let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
    Ipv4Addr::new(a, b, c, d)
}

/// Of what holds another address, that one's.
fn kind(address: IpAddr) -> Option<Kind> {
    let IpAddr::V6(v6) = address else { return listed(address) };
    let inner = |high, low| listed(v4(high, low).into());
    // A tunnel's address is never needed to reach a public host.
    let tunnel = |high, low| Some(inner(high, low).unwrap_or(Kind::Tunnel));
    match v6.segments() {
        // Translated by NAT64.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => inner(high, low),
        // Compatible and SIIT, both gone.
        [0, 0, 0, 0, 0, 0, high, low] if (high, low) > (0, 1) => tunnel(high, low),
        [0, 0, 0, 0, 0xffff, 0, high, low] => tunnel(high, low),
        // 6to4 has the address after its prefix, Teredo turned round at its end.
        [0x2002, high, low, ..] => tunnel(high, low),
        [0x2001, 0, .., high, low] => tunnel(!high, !low),
        // ISATAP, below any prefix.
        [_, _, _, _, 0 | 0x200, 0x5efe, high, low] => listed(address).or_else(|| tunnel(high, low)),
        _ => listed(address),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str) -> Option<Kind> {
        kind(text.parse().unwrap())
    }

    #[test]
    fn every_block_is_known_at_both_ends() {
        use Kind as K;
        for (kind, addresses) in [
            (K::NoPlace, &["0.0.0.0", "0.255.255.255", "::", "::ffff:0.0.0.0"][..]),
            (K::NoPlace, &["224.0.0.0", "239.255.255.255", "ff02::1", "255.255.255.255"]),
            (K::Loopback, &["127.0.0.1", "127.255.255.255", "::1", "::ffff:127.0.0.1"]),
            (K::Private, &["10.0.0.0", "10.255.255.255", "172.16.0.0", "172.31.255.255", "192.168.0.0"]),
            (K::Private, &["192.168.255.255", "fc00::", "fdff::1", "fec0::1"]),
            (K::Private, &["100.64.0.0", "100.127.255.255", "::ffff:100.64.0.1"]),
            (K::LinkLocal, &["169.254.0.0", "169.254.255.255", "fe80::1", "febf::1", "fe80::5efe:8.8.8.8"]),
            (K::Metadata, &["169.254.169.254", "100.100.100.200", "fd00:ec2::254", "168.63.129.16"]),
            (K::Metadata, &["::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1"]),
            (K::Reserved, &["198.18.0.0", "198.19.255.255", "2001:2::1"]),
            (K::Reserved, &["192.0.2.1", "198.51.100.1", "203.0.113.255", "2001:db8::1", "3fff::1"]),
            (K::Reserved, &["240.0.0.0", "255.255.255.254", "192.0.0.1", "192.88.99.1", "100::1", "5f00::1"]),
            (K::Reserved, &["2001:10::1", "2001:20::1", "2001:1ff::1", "1::1", "4000::1", "fe00::1"]),
            (K::Tunnel, &["64:ff9b:1::1"]),
        ] {
            for address in addresses {
                assert_eq!(of(address), Some(kind), "{address}");
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
        assert_eq!(of("2002:0a00:0001::1"), Some(Kind::Private));
        assert_eq!(of("2002:808:808::1"), Some(Kind::Tunnel), "6to4 of a public address is no use");
        // Teredo: the client's address is the last 32 bits, inverted.
        assert_eq!(of("2001:0:1:2:3:4:80ff:fffe"), Some(Kind::Loopback));
        assert_eq!(of("2001:0:1:2:3:4:f7f7:f7f7"), Some(Kind::Tunnel));
        assert_eq!(of("2600:1::5efe:10.0.0.1"), Some(Kind::Private));
        assert_eq!(of("::10.0.0.1"), Some(Kind::Private));
        assert_eq!(of("::ffff:0:10.0.0.1"), Some(Kind::Private));
    }

    #[test]
    fn this_host_is_known_by_the_way_to_it() {
        assert!(is_own("127.0.0.1".parse().unwrap()));
        assert!(!is_own("8.8.8.8".parse().unwrap()) && !is_own("2001:4860:4860::8888".parse().unwrap()));
        assert_eq!(special_here("127.0.0.1".parse().unwrap()), Some(Special::Of(Kind::Loopback)));
    }

    #[test]
    fn some_can_be_allowed_by_no_rule() {
        for (address, place) in [
            ("0.0.0.0", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("127.0.0.1", true),
            ("10.0.0.1", true),
        ] {
            assert_eq!(special(address.parse().unwrap()).unwrap().is_a_place(), place);
        }
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
