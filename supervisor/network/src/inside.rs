//! What is done inside an agent's network namespace, by a thread that enters it and ends.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::BorrowedFd;

use aion_sys::clone::flags::NEWNET;
use rustix::io::Errno;

use crate::Error;
use crate::link::{self, Family};
use crate::netlink::Netlink;

/// Where an agent's resolver listens, on its own loopback.
pub const RESOLVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)), 53);
/// What the agent's end is called.
pub(crate) const LINK: &str = "eth0";

fn enter<T: Send>(pidfd: BorrowedFd<'_>, work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    std::thread::scope(|scope| {
        let run = move || {
            aion_sys::ns::enter(pidfd, NEWNET).map_err(Error::kernel("enter the agent's network"))?;
            work()
        };
        let thread = std::thread::Builder::new().name("network".to_owned());
        let thread = thread.spawn_scoped(scope, run).map_err(Error::io("start a thread"))?;
        thread.join().unwrap_or_else(|_| Err(Error::new("set up the agent's network", "the thread panicked")))
    })
}

/// Brings the agent's links up, with its addresses and the way out.
pub(crate) fn set_up(pidfd: BorrowedFd<'_>, addresses: &[IpAddr]) -> Result<(), Error> {
    enter(pidfd, || {
        let failed = |what: &'static str| Error::kernel(what);
        let mut netlink = Netlink::route().map_err(failed("open a netlink socket"))?;
        link::loopback_up(&mut netlink).map_err(failed("bring the loopback up"))?;
        let links = link::links(&mut netlink).map_err(failed("list the agent's links"))?;
        let index = links.iter().find(|(_, name)| name == LINK).map(|(index, _)| *index);
        let index = index.ok_or(Errno::NODEV).map_err(failed("find the agent's link"))?;
        link::up(&mut netlink, LINK).map_err(failed("bring the agent's link up"))?;
        for address in addresses {
            link::add_address(&mut netlink, index, *address)
                .map_err(Error::kernel(format!("give the agent the address {address}")))?;
            link::add_route(&mut netlink, Family::of(*address), None, index)
                .map_err(failed("make the agent's default route"))?;
        }
        Ok(())
    })
}

/// The sockets of the agent's resolver: inside its network, to be served from outside.
///
/// # Errors
/// They are there already, or the namespace cannot be entered.
pub fn open_resolver(pidfd: BorrowedFd<'_>) -> Result<(UdpSocket, TcpListener), Error> {
    enter(pidfd, || {
        let udp = UdpSocket::bind(RESOLVER).map_err(Error::io(format!("bind {RESOLVER} (UDP)")))?;
        let tcp = TcpListener::bind(RESOLVER).map_err(Error::io(format!("bind {RESOLVER} (TCP)")))?;
        Ok((udp, tcp))
    })
}
