//! A host, an Internet and agents, each a network namespace that the test makes; needs root, and `ip` and `unshare`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a failing test panics, a skipped one says so"
)]

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use aion_network::{Network, Options, RESOLVER, open_resolver};
use aion_sys::clone::flags::NEWNET;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// A namespace that lives as long as its process.
struct Space {
    child: Child,
    pidfd: OwnedFd,
}

impl Space {
    fn new() -> Self {
        let own = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        let child =
            Command::new("unshare").args(["-n", "sleep", "600"]).stdin(Stdio::null()).spawn().unwrap();
        let ns = format!("/proc/{}/ns/net", child.id());
        while std::fs::read_link(&ns).is_ok_and(|ns| ns == own) {
            std::thread::sleep(Duration::from_millis(2));
        }
        let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
        Self { pidfd: pidfd_open(pid, PidfdFlags::empty()).unwrap(), child }
    }

    fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let entered = || {
                aion_sys::ns::enter(self.pidfd.as_fd(), NEWNET).unwrap();
                work()
            };
            scope.spawn(entered).join().unwrap()
        })
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ip(line: &str) {
    let done = Command::new("ip").args(line.split(' ')).output().unwrap();
    assert!(done.status.success(), "ip {line}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A link carries nothing until the kernel has taken note of its other end, which may take a second.
fn await_link(name: &str) {
    for _ in 0..500 {
        let links = Command::new("ip").args(["-br", "link", "show", name]).output().unwrap().stdout;
        if String::from_utf8_lossy(&links).split_whitespace().nth(1) == Some("UP") {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{name} does not come up");
}

fn serve(address: &str) -> (SocketAddr, std::thread::JoinHandle<Option<IpAddr>>) {
    let listener = TcpListener::bind(address).unwrap();
    let at = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let served = std::thread::spawn(move || {
        for _ in 0..150 {
            if let Ok((mut stream, peer)) = listener.accept() {
                stream.write_all(b"hello").unwrap();
                return Some(peer.ip());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    });
    (at, served)
}

fn fetch(to: SocketAddr) -> Result<String, std::io::Error> {
    let mut text = String::new();
    TcpStream::connect_timeout(&to, Duration::from_secs(1))?.read_to_string(&mut text)?;
    Ok(text)
}

fn switch(file: &str) -> String {
    std::fs::read_to_string(format!("/proc/sys/net/{file}")).unwrap_or_default().trim().to_owned()
}

#[test]
fn agents_reach_the_world_and_neither_host_nor_each_other() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: not root");
        return;
    }
    // The host is this thread's own namespace: the machine's is never touched.
    std::thread::spawn(as_host).join().unwrap();
}

fn as_host() {
    aion_sys::ns::unshare(NEWNET).unwrap();
    let world = Space::new();
    ip("link set lo up");
    ip(&format!("link add up0 type veth peer name eth0 netns {}", world.child.id()));
    ip("addr add 203.0.113.1/24 dev up0");
    ip("-6 addr add 2001:db8::1/64 dev up0 nodad");
    ip("link set up0 up");
    world.run(|| {
        ip("addr add 203.0.113.9/24 dev eth0");
        ip("-6 addr add 2001:db8::9/64 dev eth0 nodad");
        ip("link set eth0 up");
        await_link("eth0");
        // A world that would bring packets to agents, if the host let it.
        ip("route add 100.96.0.0/16 via 203.0.113.1");
    });
    ip("route add default via 203.0.113.9");
    ip("-6 route add default via 2001:db8::9");
    let dir = tempfile::tempdir().unwrap();
    let record = dir.path().join("network");
    let instance = "0123456789abcdef";
    let options =
        Options { instance: instance.to_owned(), pool: None, uplinks: Vec::new(), record: record.clone() };
    let network = Network::new(options).unwrap();
    let (one, two) = (Space::new(), Space::new());
    let a = network.attach(one.child.id(), one.pidfd.as_fd()).unwrap();
    let b = network.attach(two.child.id(), two.pidfd.as_fd()).unwrap();
    assert_eq!((a.link.as_str(), a.v4.to_string().as_str()), ("aion-0123-0", "100.96.0.1"));
    assert_ne!((a.v4, &a.link), (b.v4, &b.link));
    assert_eq!(switch("ipv4/conf/up0/forwarding"), "1");

    let (v4, served) = world.run(|| serve("203.0.113.9:0"));
    assert_eq!(one.run(|| fetch(v4)).unwrap(), "hello");
    assert_eq!(served.join().unwrap().unwrap().to_string(), "203.0.113.1", "under the host's address");
    if a.v6.is_some() {
        let (v6, served) = world.run(|| serve("[2001:db8::9]:0"));
        assert_eq!(two.run(|| fetch(v6)).unwrap(), "hello");
        assert_eq!(served.join().unwrap().unwrap().to_string(), "2001:db8::1");
    } else {
        println!("no IPv6: {:?}", a.no_v6);
    }

    // Neither the host nor another agent is reached, and nobody reaches an agent.
    let host = serve("0.0.0.0:0");
    for address in ["203.0.113.1", "127.0.0.1"] {
        let to = SocketAddr::new(address.parse().unwrap(), host.0.port());
        assert!(one.run(|| fetch(to)).is_err(), "{address}");
    }
    assert_eq!(host.1.join().unwrap(), None);
    let agent = two.run(|| serve("0.0.0.0:0"));
    let to = SocketAddr::new(b.v4.into(), agent.0.port());
    assert!(one.run(|| fetch(to)).is_err() && world.run(|| fetch(to)).is_err() && fetch(to).is_err());
    assert_eq!(agent.1.join().unwrap(), None);
    // What the host did not forward before it does not forward now.
    let third = Space::new();
    ip(&format!("link add third type veth peer name eth0 netns {}", third.child.id()));
    ip("addr add 198.51.100.1/24 dev third");
    ip("link set third up");
    third.run(|| {
        ip("addr add 198.51.100.9/24 dev eth0");
        ip("link set eth0 up");
        await_link("eth0");
        ip("route add default via 198.51.100.1");
    });
    world.run(|| ip("route add 198.51.100.0/24 via 203.0.113.1"));
    let (to, served) = third.run(|| serve("198.51.100.9:0"));
    assert!(world.run(|| fetch(to)).is_err());
    assert_eq!(served.join().unwrap(), None);

    // The resolver's sockets stand inside.
    let (udp, _tcp) = open_resolver(one.pidfd.as_fd()).unwrap();
    udp.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    one.run(|| std::net::UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"q", RESOLVER).unwrap());
    assert_eq!(udp.recv(&mut [0; 9]).unwrap(), 1);
    assert!(open_resolver(one.pidfd.as_fd()).is_err(), "there is one");

    network.detach(a.number).unwrap();
    assert!(one.run(|| fetch(v4)).is_err());
    let (v4, served) = world.run(|| serve("203.0.113.9:0"));
    assert_eq!(two.run(|| fetch(v4)).unwrap(), "hello");
    drop(served);
    Network::purge(instance, &record).unwrap();
    assert_eq!(switch("ipv4/conf/up0/forwarding"), "0");
    assert!(!record.exists());
    let left = Command::new("ip").args(["-br", "link"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&left.stdout).contains("aion-"));
}
