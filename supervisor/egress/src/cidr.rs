//! A block of addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IPv4 is mapped, so its prefixes are 96 bits longer.
const MAPPED: u8 = 96;

/// A block of addresses; a single one is a block of length 128. IPv4 is kept as mapped IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    bits: u128,
    len: u8,
}

impl Cidr {
    /// One address.
    #[must_use]
    pub fn one(address: IpAddr) -> Self {
        Self { bits: bits(address), len: 128 }
    }

    /// A block by its first address and its length in that family; `None` when the length is too long or bits are set
    /// beyond it, which is how typing errors look.
    #[must_use]
    pub fn new(address: IpAddr, len: u8) -> Option<Self> {
        let len = match address {
            IpAddr::V4(_) => MAPPED.checked_add(len)?,
            IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() && len < MAPPED => return None,
            IpAddr::V6(_) => len,
        };
        let bits = bits(address);
        (len <= 128 && bits & !mask(len) == 0).then_some(Self { bits, len })
    }

    /// Reads `10.0.0.0/8`, `10.1.2.3`, `[fd00::/8]` or `[::1]`.
    ///
    /// # Errors
    /// What is wrong, and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let inner = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
        let (address, len) = match inner.unwrap_or(text).split_once('/') {
            Some((address, len)) => (address, Some(len)),
            None => (inner.unwrap_or(text), None),
        };
        let wrong = || format!("{text:?} is neither an address nor a block; write 10.0.0.0/8 or [fd00::/8]");
        let address: IpAddr = match inner {
            Some(_) => address.parse::<Ipv6Addr>().map_err(|_| wrong())?.into(),
            None => address.parse::<Ipv4Addr>().map_err(|_| wrong())?.into(),
        };
        let Some(len) = len else { return Ok(Self::one(address)) };
        let digits = !len.is_empty() && len.len() <= 3 && len.bytes().all(|b| b.is_ascii_digit());
        let len = len.parse::<u8>().ok().filter(|_| digits).ok_or_else(wrong)?;
        Self::new(address, len).ok_or_else(|| {
            format!("{text:?} is no block: the length is too long, or the address has bits beyond it; write the block's first address")
        })
    }

    /// The first address, as 16 bytes in network order.
    #[must_use]
    pub const fn octets(self) -> [u8; 16] {
        self.bits.to_be_bytes()
    }

    /// How many of 128 bits are fixed.
    #[must_use]
    pub const fn fixed_bits(self) -> u8 {
        self.len
    }

    /// Every address of IPv4.
    #[must_use]
    pub fn all_v4() -> Self {
        Self { bits: bits(Ipv4Addr::UNSPECIFIED.into()), len: MAPPED }
    }

    /// Every address of IPv6 that is of the public Internet, if it is of no narrower special block.
    #[must_use]
    pub const fn global_v6() -> Self {
        Self { bits: 0x2000 << 112, len: 3 }
    }

    /// Every address there is.
    #[must_use]
    pub const fn everything() -> Self {
        Self { bits: 0, len: 0 }
    }

    /// Whether all of `other` is in it.
    #[must_use]
    pub const fn covers(self, other: Self) -> bool {
        self.len <= other.len && (self.bits ^ other.bits) & mask(self.len) == 0
    }

    /// Whether the address is in it.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        self.covers(Self::one(address))
    }
}

const fn mask(len: u8) -> u128 {
    if len == 0 { 0 } else { u128::MAX << (128 - len) }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v6 = Ipv6Addr::from_bits(self.bits);
        match (v6.to_ipv4_mapped(), self.len) {
            (Some(v4), 128) => write!(f, "{v4}"),
            (Some(v4), len @ MAPPED..) => write!(f, "{v4}/{}", len - MAPPED),
            (_, 128) => write!(f, "[{v6}]"),
            (_, len) => write!(f, "[{v6}/{len}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        Cidr::parse(text).unwrap_or_else(|e| panic!("{e}"))
    }

    #[test]
    fn what_is_read_is_written_the_same() {
        for text in ["10.0.0.0/8", "10.1.2.3", "0.0.0.0/0", "[fd00::/8]", "[::1]", "[::/0]", "[2001:db8::1]"]
        {
            assert_eq!(cidr(text).to_string(), text);
        }
        assert_eq!(cidr("[::ffff:10.0.0.1]"), cidr("10.0.0.1"));
        assert_eq!(cidr("10.1.2.3/32"), cidr("10.1.2.3"));
    }

    #[test]
    fn what_is_no_block_is_refused() {
        for text in [
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "fd00::/8",
            "[10.0.0.0/8]",
            "[fd00::/129]",
            "x",
            "",
        ] {
            assert!(Cidr::parse(text).is_err(), "{text}");
        }
        assert!(Cidr::parse("[::ffff:0:0/90]").is_err(), "half of the mapped block is no family's");
    }

    #[test]
    fn blocks_cover() {
        assert!(
            cidr("10.0.0.0/8").covers(cidr("10.9.0.0/16")) && cidr("10.0.0.0/8").covers(cidr("10.0.0.0/8"))
        );
        assert!(
            !cidr("10.9.0.0/16").covers(cidr("10.0.0.0/8")) && !cidr("10.0.0.0/8").covers(cidr("11.0.0.1"))
        );
        assert!(cidr("[::/0]").covers(cidr("1.2.3.4")), "mapped addresses are IPv6 addresses");
        assert!(!cidr("0.0.0.0/0").covers(cidr("[::1]")));
        assert!(cidr("10.0.0.0/8").contains("::ffff:10.1.1.1".parse().unwrap()));
    }
}
