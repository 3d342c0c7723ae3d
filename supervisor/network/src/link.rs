//! Links, addresses and routes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustix::io::Errno;

use crate::netlink::{Body, CREATE, EXCLUSIVE, Netlink, attributes, u32_at};

const NEWLINK: u16 = 16;
const DELLINK: u16 = 17;
const GETLINK: u16 = 18;
const NEWADDR: u16 = 20;
const NEWROUTE: u16 = 24;
const GETROUTE: u16 = 26;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_PID: u16 = 19;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const IFA_F_NODAD: u32 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;

const INET: u8 = 2;
const INET6: u8 = 10;
const IFF_UP: u32 = 1;
/// Nobody asks for addresses: the only other end is known, and both ends have the same one.
const IFF_NOARP: u32 = 0x80;
const TABLE_MAIN: u8 = 254;
const UNICAST: u8 = 1;
const PROTOCOL_STATIC: u8 = 4;
const SCOPE_LINK: u8 = 253;
/// `struct ifinfomsg`, `struct rtmsg`.
const IFINFO: usize = 16;
const RTMSG: usize = 12;

/// A family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    const fn number(self) -> u8 {
        match self {
            Self::V4 => INET,
            Self::V6 => INET6,
        }
    }

    pub(crate) const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn ifinfo(family: u8, index: u32, flags: u32) -> Vec<u8> {
    let mut bytes = vec![family, 0, 0, 0];
    bytes.extend_from_slice(&index.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    // Which flags are meant.
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes
}

/// A veth pair: `name` here, `peer` in the namespace of a process. Both have one hardware address.
pub(crate) fn add_veth(
    netlink: &mut Netlink,
    name: &str,
    peer: &str,
    pid: u32,
    address: [u8; 6],
) -> Result<(), Errno> {
    let other = Body::new(&ifinfo(0, 0, 0))
        .text(IFLA_IFNAME, peer)
        .attr(IFLA_ADDRESS, &address)
        .native(IFLA_NET_NS_PID, pid);
    let data = Body::default().nest(VETH_INFO_PEER, &other);
    let info = Body::default().attr(IFLA_INFO_KIND, b"veth").nest(IFLA_INFO_DATA, &data);
    let body = Body::new(&ifinfo(0, 0, 0))
        .text(IFLA_IFNAME, name)
        .attr(IFLA_ADDRESS, &address)
        .nest(IFLA_LINKINFO, &info);
    netlink.request(NEWLINK, CREATE | EXCLUSIVE, body)
}

/// Brings a link up that resolves no addresses and makes up none of its own.
pub(crate) fn up(netlink: &mut Netlink, name: &str) -> Result<(), Errno> {
    const NO_ADDRESS: u8 = 1;
    let inet6 = Body::default().attr(IFLA_INET6_ADDR_GEN_MODE, &[NO_ADDRESS]);
    let families = Body::default().nest(u16::from(INET6), &inet6);
    let quiet = Body::new(&ifinfo(0, 0, 0)).text(IFLA_IFNAME, name).nest(IFLA_AF_SPEC, &families);
    match netlink.request(NEWLINK, 0, quiet) {
        // A kernel without IPv6.
        Ok(()) | Err(Errno::AFNOSUPPORT | Errno::OPNOTSUPP) => {}
        Err(errno) => return Err(errno),
    }
    netlink.request(NEWLINK, 0, Body::new(&ifinfo(0, 0, IFF_UP | IFF_NOARP)).text(IFLA_IFNAME, name))
}

/// Brings the loopback up.
pub(crate) fn loopback_up(netlink: &mut Netlink) -> Result<(), Errno> {
    netlink.request(NEWLINK, 0, Body::new(&ifinfo(0, 1, IFF_UP)))
}

/// Removes a link, and with it its peer. One that is not there is no error.
pub(crate) fn remove(netlink: &mut Netlink, name: &str) -> Result<(), Errno> {
    match netlink.request(DELLINK, 0, Body::new(&ifinfo(0, 0, 0)).text(IFLA_IFNAME, name)) {
        Err(Errno::NODEV) => Ok(()),
        done => done,
    }
}

/// All links: index and name.
pub(crate) fn links(netlink: &mut Netlink) -> Result<Vec<(u32, String)>, Errno> {
    let name = |body: &[u8]| {
        let name = attributes(body, IFINFO).into_iter().find(|(kind, _)| *kind == IFLA_IFNAME)?.1;
        Some((u32_at(body, 4)?, String::from_utf8_lossy(name.strip_suffix(b"\0")?).into_owned()))
    };
    let all = netlink.dump(GETLINK, Body::new(&ifinfo(0, 0, 0)))?;
    Ok(all.iter().filter_map(|body| name(body)).collect())
}

/// Gives a link an address of its own, without a network around it.
pub(crate) fn add_address(netlink: &mut Netlink, index: u32, address: IpAddr) -> Result<(), Errno> {
    let family = Family::of(address);
    let bits = if family == Family::V4 { 32 } else { 128 };
    let mut fixed = vec![family.number(), bits, 0, 0];
    fixed.extend_from_slice(&index.to_ne_bytes());
    let mut body = Body::new(&fixed).attr(IFA_LOCAL, &octets(address)).attr(IFA_ADDRESS, &octets(address));
    if family == Family::V6 {
        body = body.native(IFA_FLAGS, IFA_F_NODAD);
    }
    netlink.request(NEWADDR, CREATE | EXCLUSIVE, body)
}

/// A route through a link: to one address, or to everything. A route to the same address that is there already is
/// an error (`EXIST`): it is somebody else's.
pub(crate) fn add_route(
    netlink: &mut Netlink,
    family: Family,
    to: Option<IpAddr>,
    index: u32,
) -> Result<(), Errno> {
    let bits = match to {
        None => 0,
        Some(IpAddr::V4(_)) => 32,
        Some(IpAddr::V6(_)) => 128,
    };
    let scope = if family == Family::V4 { SCOPE_LINK } else { 0 };
    let mut fixed = vec![family.number(), bits, 0, 0, TABLE_MAIN, PROTOCOL_STATIC, scope, UNICAST];
    fixed.extend_from_slice(&0u32.to_ne_bytes());
    let mut body = Body::new(&fixed);
    if let Some(to) = to {
        body = body.attr(RTA_DST, &octets(to));
    }
    netlink.request(NEWROUTE, CREATE | EXCLUSIVE, body.native(RTA_OIF, index))
}

/// A route of the host's main table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    /// Its first address.
    pub(crate) to: IpAddr,
    /// How many bits of it count; 0 is the default route.
    pub(crate) bits: u8,
    /// The link that it goes out of.
    pub(crate) link: u32,
}

/// The unicast routes of the main table.
pub(crate) fn routes(netlink: &mut Netlink, family: Family) -> Result<Vec<Route>, Errno> {
    let mut fixed = vec![0; RTMSG];
    if let Some(first) = fixed.first_mut() {
        *first = family.number();
    }
    let all = netlink.dump(GETROUTE, Body::new(&fixed))?;
    Ok(all.iter().flat_map(|body| route(body, family)).collect())
}

fn route(body: &[u8], family: Family) -> Vec<Route> {
    let [own, bits, _, _, table, _, _, kind] = body.first_chunk::<8>().copied().unwrap_or_default();
    let attributes = attributes(body, RTMSG);
    let find = |wanted: u16| attributes.iter().find(|(kind, _)| *kind == wanted).map(|(_, value)| *value);
    let table = find(RTA_TABLE).and_then(|v| u32_at(v, 0)).unwrap_or_else(|| table.into());
    if own != family.number() || kind != UNICAST || table != u32::from(TABLE_MAIN) {
        return Vec::new();
    }
    let to = match (family, find(RTA_DST)) {
        (Family::V4, None) => Some(Ipv4Addr::UNSPECIFIED.into()),
        (Family::V6, None) => Some(Ipv6Addr::UNSPECIFIED.into()),
        (Family::V4, Some(v)) => <[u8; 4]>::try_from(v).ok().map(|a| Ipv4Addr::from(a).into()),
        (Family::V6, Some(v)) => <[u8; 16]>::try_from(v).ok().map(|a| Ipv6Addr::from(a).into()),
    };
    let Some(to) = to else { return Vec::new() };
    let one = find(RTA_OIF).and_then(|v| u32_at(v, 0));
    one.into_iter().chain(hops(find(RTA_MULTIPATH))).map(|link| Route { to, bits, link }).collect()
}

/// The links of a route with several: `struct rtnexthop` after `struct rtnexthop`.
fn hops(value: Option<&[u8]>) -> Vec<u32> {
    let mut rest = value.unwrap_or_default();
    let mut links = Vec::new();
    while let (Some(len), Some(link)) =
        (rest.first_chunk::<2>().map(|l| u16::from_ne_bytes(*l)), u32_at(rest, 4))
    {
        links.push(link);
        rest = rest.get(usize::from(len.max(8)).next_multiple_of(4)..).unwrap_or_default();
    }
    links
}
