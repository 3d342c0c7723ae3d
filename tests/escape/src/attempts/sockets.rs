//! Sockets of all families, and whom they reach.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::Duration;

use crate::attempt::{Attempt, Control};
use crate::sys::{self, Stop, Tried, at, reached, sc};
use crate::target::Targets;

const ALG: i32 = 38;
const XDP: i32 = 44;

pub(super) fn families() -> Vec<Attempt> {
    let make = |id: &'static str, what: &'static str, family: i32, kind: i32, protocol: i32| {
        Attempt::new(format!("socket-{id}"), format!("socket(2): {what}"), "seccomp", move |_| {
            drop(sys::socket(family, kind, protocol)?);
            reached(what)
        })
    };
    let (raw, datagram, stream) = (libc::SOCK_RAW, libc::SOCK_DGRAM, libc::SOCK_STREAM);
    vec![
        make("raw", "raw IPv4, any packet", libc::AF_INET, raw, libc::IPPROTO_RAW),
        make("raw-icmp", "raw ICMP", libc::AF_INET, raw, libc::IPPROTO_ICMP),
        make("raw6", "raw IPv6", libc::AF_INET6, raw, libc::IPPROTO_ICMPV6),
        make("packet", "packets of all interfaces", libc::AF_PACKET, raw, 0x0300),
        make("packet-datagram", "packets without their link header", libc::AF_PACKET, datagram, 0),
        make("vsock", "the hypervisor and other machines on it", libc::AF_VSOCK, stream, 0),
        make("alg", "the kernel's ciphers, with a history of bugs", ALG, libc::SOCK_SEQPACKET, 0),
        make("xdp", "the network card's rings", XDP, raw, 0),
        make("key", "IPsec keys", libc::AF_KEY, raw, 2),
        make("bluetooth", "radios", libc::AF_BLUETOOTH, raw, 1),
        make("can", "a car's bus", libc::AF_CAN, raw, 1),
        make("tipc", "cluster sockets, loaded on demand", libc::AF_TIPC, stream, 0),
        make("rds", "cluster sockets, loaded on demand", libc::AF_RDS, libc::SOCK_SEQPACKET, 0),
        make("sctp", "SCTP", libc::AF_INET, stream, libc::IPPROTO_SCTP),
        make("mptcp", "TCP over several paths", libc::AF_INET, stream, 262),
        make("netlink-audit", "the kernel's audit", libc::AF_NETLINK, raw, libc::NETLINK_AUDIT),
        make("netlink-uevent", "device events", libc::AF_NETLINK, raw, libc::NETLINK_KOBJECT_UEVENT),
        make(
            "netlink-netfilter",
            "firewall rules, with a history of bugs",
            libc::AF_NETLINK,
            raw,
            libc::NETLINK_NETFILTER,
        ),
        make(
            "netlink-generic",
            "generic netlink: many drivers behind one door",
            libc::AF_NETLINK,
            raw,
            libc::NETLINK_GENERIC,
        ),
        make("netlink-diag", "other processes' sockets", libc::AF_NETLINK, raw, 4),
        make("netlink-xfrm", "IPsec policies", libc::AF_NETLINK, raw, libc::NETLINK_XFRM),
        Attempt::new("socketpair-vsock", "socketpair(2) of another family than Unix", "seccomp", move |_| {
            let mut pair = [0_i32; 2];
            sc!("socketpair(2)", libc::SYS_socketpair, 30, stream, 0, pair.as_mut_ptr())?;
            reached("a pair of TIPC sockets")
        }),
    ]
}

fn tcp(address: &str, port: u16) -> Tried {
    if port == 0 || address.is_empty() {
        return Err(Stop::at("no such address on this host", libc::EAFNOSUPPORT));
    }
    let to = format!("{address}:{port}").parse().map_err(|_| Stop::because("an address"))?;
    TcpStream::connect_timeout(&to, Duration::from_secs(2)).map_err(at(format!("connect to {to}")))?;
    reached(format!("connected to {to}"))
}

fn unix(path: &str) -> Tried {
    UnixStream::connect(path).map_err(at(format!("connect to {path}")))?;
    reached(format!("connected to {path}"))
}

pub(super) fn reach() -> Vec<Attempt> {
    vec![
        Attempt::new("loopback-tcp", "a TCP port on the host's 127.0.0.1", "namespaces", |t: &Targets| {
            tcp("127.0.0.1", t.tcp4)
        }),
        Attempt::new("loopback-tcp6", "a TCP port on the host's ::1", "namespaces", |t| tcp("[::1]", t.tcp6)),
        Attempt::new("loopback-udp", "a UDP port on the host's 127.0.0.1", "namespaces", |t| {
            let socket = UdpSocket::bind("127.0.0.1:0").map_err(at("bind"))?;
            socket.connect(("127.0.0.1", t.udp)).map_err(at("connect"))?;
            socket.send(b"hello").map_err(at("send"))?;
            // A closed port answers with ICMP, which the next call tells.
            std::thread::sleep(Duration::from_millis(20));
            socket.send(b"hello").map_err(at("send"))?;
            reached("a datagram arrived")
        }),
        Attempt::new("host-tcp", "a TCP port on the host's own address", "namespaces", |t| {
            tcp(&t.address, t.tcp_any)
        }),
        Attempt::new("internet-udp", "a route to the world", "namespaces", |t| {
            if t.control && t.address.is_empty() {
                return Err(Stop::at("this host has no network", libc::EAFNOSUPPORT));
            }
            let socket = UdpSocket::bind("0.0.0.0:0").map_err(at("bind"))?;
            socket.connect("203.0.113.1:53").map_err(at("connect to 203.0.113.1"))?;
            reached("the kernel has a route to 203.0.113.1")
        }),
        Attempt::new("abstract-unix", "an abstract Unix socket of the host", "namespaces", |t| {
            let name = SocketAddr::from_abstract_name(&t.abstract_name).map_err(at("a name"))?;
            UnixStream::connect_addr(&name).map_err(at("connect to an abstract socket"))?;
            reached("connected to an abstract socket")
        }),
        Attempt::new("path-unix", "a Unix socket of the host by its path", "rootfs", |t| unix(&t.socket())),
        Attempt::new("docker-socket", "the socket of a container engine", "rootfs", |_| {
            unix("/run/docker.sock")
        })
        .control(Control::Fresh(libc::CLONE_NEWNS))
        .prepare(|_| {
            sys::mount("none", "/run", "tmpfs", 0, "")?;
            let listener = std::os::unix::net::UnixListener::bind("/run/docker.sock").map_err(at("bind"))?;
            std::mem::forget(listener);
            Ok(())
        }),
        Attempt::new("dbus-socket", "the system's message bus", "rootfs", |_| {
            unix("/run/dbus/system_bus_socket")
        })
        .control(Control::Fresh(libc::CLONE_NEWNS))
        .prepare(|_| {
            sys::mount("none", "/run", "tmpfs", 0, "")?;
            std::fs::create_dir("/run/dbus").map_err(at("mkdir"))?;
            let listener =
                std::os::unix::net::UnixListener::bind("/run/dbus/system_bus_socket").map_err(at("bind"))?;
            std::mem::forget(listener);
            Ok(())
        }),
        Attempt::new(
            "aion-sockets",
            "AION's own sockets, to launch an agent without a sandbox",
            "rootfs",
            |t| {
                let mut last = Stop::because("no path of AION is known");
                for path in &t.aion {
                    match unix(path) {
                        Ok(how) => return Ok(how),
                        Err(stop) => last = stop,
                    }
                }
                Err(last)
            },
        ),
        Attempt::new(
            "forged-credentials",
            "SCM_CREDENTIALS that say: root, process 1",
            "capabilities",
            |_| {
                let (mut ours, theirs) = UnixStream::pair().map_err(at("socketpair"))?;
                let on = 1_i32;
                sc!(
                    "setsockopt(2)",
                    libc::SYS_setsockopt,
                    ours.as_raw_fd(),
                    libc::SOL_SOCKET,
                    libc::SO_PASSCRED,
                    &raw const on,
                    4
                )?;
                // cmsghdr: length, level, type; ucred: pid, uid, gid
                let control = [28_u32, 0, libc::SOL_SOCKET as u32, libc::SCM_CREDENTIALS as u32, 1, 0, 0, 0];
                let byte = [b'x'];
                let part = [byte.as_ptr() as usize, 1];
                let message = [0_usize, 0, part.as_ptr() as usize, 1, control.as_ptr() as usize, 32, 0];
                sc!(
                    "sendmsg(2) with credentials",
                    libc::SYS_sendmsg,
                    theirs.as_raw_fd(),
                    message.as_ptr(),
                    0
                )?;
                let mut got = [0];
                ours.read_exact(&mut got).map_err(at("read"))?;
                ours.write_all(b"y").map_err(at("write"))?;
                reached("somebody believes that this is root")
            },
        ),
    ]
}
