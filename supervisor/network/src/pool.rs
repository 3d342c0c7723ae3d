//! Addresses of agents: the same numbers in IPv4 and IPv6.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::link::Route;

/// A block of IPv4 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pool {
    first: Ipv4Addr,
    bits: u8,
}

/// In the space between providers and customers, then in private ones; the first that no route of the host touches.
const USUAL: [Pool; 4] = [
    Pool { first: Ipv4Addr::new(100, 96, 0, 0), bits: 16 },
    Pool { first: Ipv4Addr::new(10, 213, 0, 0), bits: 16 },
    Pool { first: Ipv4Addr::new(172, 29, 0, 0), bits: 16 },
    Pool { first: Ipv4Addr::new(192, 168, 240, 0), bits: 20 },
];

/// A unique local block; no route leads there but those of agents.
pub(crate) const V6: (Ipv6Addr, u8) = (Ipv6Addr::new(0xfd61, 0x696f, 0x6e00, 0, 0, 0, 0, 0), 64);

impl Pool {
    /// Reads `100.96.0.0/16`: 256 to 65,536 addresses, which are enough for 4096 agents from /20 on.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a pool; write a block of private addresses as 100.96.0.0/16");
        let (first, bits) = text.split_once('/').ok_or_else(wrong)?;
        let (first, bits): (Ipv4Addr, u8) =
            (first.parse().map_err(|_| wrong())?, bits.parse().map_err(|_| wrong())?);
        let private = first.is_private() || (first.octets()[0] == 100 && first.octets()[1] & 0xc0 == 64);
        if !(16..=24).contains(&bits) || !private || first.to_bits() & (u32::MAX >> bits) != 0 {
            return Err(wrong());
        }
        Ok(Self { first, bits })
    }

    /// A block that no route of the host leads to.
    pub(crate) fn choose(routes: &[Route]) -> Option<Self> {
        USUAL.into_iter().find(|pool| !routes.iter().any(|route| pool.meets(route)))
    }

    pub(crate) fn meets(self, route: &Route) -> bool {
        let IpAddr::V4(to) = route.to else { return false };
        let bits = route.bits.min(self.bits);
        // A default route leads everywhere; it is asked last.
        bits != 0 && (to.to_bits() ^ self.first.to_bits()) >> (32 - u32::from(bits)) == 0
    }

    pub(crate) fn block(self) -> (Ipv4Addr, u8) {
        (self.first, self.bits)
    }

    /// How many agents have addresses in it; the first and the last address are nobody's.
    pub(crate) fn size(self) -> u32 {
        (1 << (32 - u32::from(self.bits))) - 2
    }

    pub(crate) fn v4(self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first.to_bits() + 1 + number % self.size())
    }

    pub(crate) fn v6(number: u32) -> Ipv6Addr {
        Ipv6Addr::from_bits(V6.0.to_bits() + 1 + u128::from(number))
    }
}

impl std::fmt::Display for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.first, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(to: &str, bits: u8) -> Route {
        Route { to: to.parse().unwrap(), bits, link: 1 }
    }

    #[test]
    fn a_pool_that_the_host_uses_is_not_taken() {
        assert_eq!(Pool::choose(&[route("0.0.0.0", 0)]), Some(USUAL[0]));
        assert_eq!(Pool::choose(&[route("100.64.0.0", 10)]), Some(USUAL[1]));
        assert_eq!(Pool::choose(&[route("100.96.7.0", 24), route("10.0.0.0", 8)]), Some(USUAL[2]));
        let all = [
            route("100.64.0.0", 10),
            route("10.0.0.0", 8),
            route("172.16.0.0", 12),
            route("192.168.0.0", 16),
        ];
        assert_eq!(Pool::choose(&all), None);
    }

    #[test]
    fn pools_are_read_and_numbered() {
        let pool = Pool::parse("10.9.0.0/24").unwrap();
        assert_eq!(
            (pool.size(), pool.v4(0), pool.v4(253), pool.v4(254)),
            (254, [10, 9, 0, 1].into(), [10, 9, 0, 254].into(), [10, 9, 0, 1].into())
        );
        assert_eq!(Pool::parse(&pool.to_string()).unwrap(), pool);
        assert_eq!(Pool::v6(0).to_string(), "fd61:696f:6e00::1");
        for bad in ["8.8.0.0/16", "10.0.0.0/8", "10.9.0.1/24", "10.9.0.0", "10.9.0.0/25", "x/16"] {
            assert!(Pool::parse(bad).is_err(), "{bad}");
        }
    }
}
