//! A host and an Internet for tests of network mode `egress`: network namespaces of the test's own, so that the machine's
//! network is never touched. The Internet has a name server, web servers on all its addresses, and somebody who sees every
//! packet that reaches it.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aion_e2e::{Daemons, until};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{RData, Record, RecordType};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, socket};

/// The host, and the name server.
pub(crate) const HOST: &str = "45.90.0.1";
pub(crate) const DNS: &str = "45.90.0.9";
/// What `good.example` has, and what nothing that agents may use has.
pub(crate) const GOOD: [&str; 2] = ["45.90.1.10", "2a0f:2::10"];
pub(crate) const OTHER: [&str; 2] = ["45.90.1.20", "2a0f:2::20"];
pub(crate) const PRIVATE: &str = "10.77.0.5";
pub(crate) const METADATA: &str = "169.254.169.254";

/// A network namespace, kept by a process.
pub(crate) struct Space {
    child: Child,
}

impl Space {
    fn new() -> Self {
        let own = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        let child =
            Command::new("unshare").args(["-n", "sleep", "900"]).stdin(Stdio::null()).spawn().unwrap();
        let space = Self { child };
        let entered =
            until(Duration::from_secs(10), || (std::fs::read_link(space.path()).ok()? != own).then_some(()));
        entered.expect("a network namespace");
        space
    }

    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.child.id()).into()
    }

    /// Does something in there.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let path = self.path();
        std::thread::scope(|scope| {
            let entered = move || {
                setns(File::open(path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
                work()
            };
            scope.spawn(entered).join().unwrap()
        })
    }

    pub(crate) fn ip(&self, line: &str) {
        let done = Command::new("nsenter")
            .arg(format!("--net={}", self.path().display()))
            .arg("ip")
            .args(line.split(' '))
            .output()
            .unwrap();
        assert!(done.status.success(), "ip {line}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What reached the Internet from the host: protocol, destination, port.
pub(crate) type Packet = (u8, IpAddr, u16);

/// Records of a name, and for how long they are good.
#[derive(Clone)]
pub(crate) struct Zone {
    pub(crate) data: Vec<RData>,
    pub(crate) ttl: u32,
}

pub(crate) struct World {
    pub(crate) daemons: Option<Daemons>,
    pub(crate) host: Space,
    pub(crate) internet: Space,
    pub(crate) names: Arc<Mutex<HashMap<String, Zone>>>,
    /// What the name server was asked.
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
    packets: Arc<Mutex<BTreeSet<Packet>>>,
    _dir: tempfile::TempDir,
}

pub(crate) fn address(text: &str) -> RData {
    match text.parse().unwrap() {
        IpAddr::V4(v4) => RData::A(A(v4)),
        IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
    }
}

pub(crate) fn alias(to: &str) -> RData {
    RData::CNAME(CNAME(to.parse().unwrap()))
}

/// What this kernel lacks for `egress`, if it lacks something.
pub(crate) fn missing() -> Option<String> {
    let protocol = SockProtocol::NetlinkNetFilter;
    socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)
        .err()
        .map(|error| format!("this kernel has no nf_tables, and no module of it is at hand: {error}"))
}

impl World {
    pub(crate) fn start() -> Self {
        let (host, internet) = (Space::new(), Space::new());
        host.ip("link set lo up");
        // Kernels before 6.17 forward IPv6 on all links or on none.
        host.run(|| {
            let conf = Path::new("/proc/sys/net/ipv6/conf/all");
            if !conf.join("force_forwarding").exists() {
                std::fs::write(conf.join("forwarding"), "1").unwrap();
            }
        });
        host.ip(&format!("link add up0 type veth peer name wire netns {}", internet.child.id()));
        for line in [
            &format!("addr add {HOST}/24 dev up0"),
            "-6 addr add 2a0f:1::1/64 dev up0 nodad",
            "link set up0 up",
        ] {
            host.ip(line);
        }
        internet.ip("link set lo up");
        internet.ip(&format!("addr add {DNS}/24 dev wire"));
        internet.ip("-6 addr add 2a0f:1::9/64 dev wire nodad");
        internet.ip("link set wire up");
        for address in [GOOD[0], OTHER[0], PRIVATE, METADATA] {
            internet.ip(&format!("addr add {address}/32 dev lo"));
        }
        for address in [GOOD[1], OTHER[1]] {
            internet.ip(&format!("-6 addr add {address}/128 dev lo nodad"));
        }
        host.ip(&format!("route add default via {DNS}"));
        host.ip("-6 route add default via 2a0f:1::9");
        // Agents' own addresses are no way in.
        internet.ip(&format!("route add 100.96.0.0/16 via {HOST}"));
        let up = until(Duration::from_secs(10), || {
            let state = internet.run(|| std::fs::read_to_string("/proc/net/dev").unwrap());
            let links = Command::new("nsenter")
                .arg(format!("--net={}", internet.path().display()))
                .args(["ip", "-br", "link", "show", "wire"])
                .output()
                .ok()?;
            let up = String::from_utf8_lossy(&links.stdout).split_whitespace().nth(1) == Some("UP");
            (up && !state.is_empty()).then_some(())
        });
        up.expect("the wire between the host and the Internet");
        let names = Arc::new(Mutex::new(HashMap::new()));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let packets = Arc::new(Mutex::new(BTreeSet::new()));
        internet.run(|| {
            for port in [80, 443, 8080] {
                web(TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap());
            }
            // Each from its own address, or the answer would be another's.
            for address in [GOOD, OTHER].as_flattened() {
                for port in [7, 443] {
                    echo(UdpSocket::bind((address.parse::<IpAddr>().unwrap(), port)).unwrap());
                }
            }
            name_server(
                UdpSocket::bind((DNS.parse::<Ipv4Addr>().unwrap(), 53)).unwrap(),
                Arc::clone(&names),
                Arc::clone(&asked),
            );
            watch(Arc::clone(&packets));
        });
        let dir = tempfile::Builder::new().prefix("aion-egress-").tempdir().unwrap();
        let daemons = Daemons::start_inside(dir.path(), &[("AION_DNS", DNS)], &host.path()).unwrap();
        let world = Self { daemons: Some(daemons), host, internet, names, asked, packets, _dir: dir };
        world.name("good.example", 60, GOOD.map(address).to_vec());
        world.name("other.example", 60, OTHER.map(address).to_vec());
        world
    }

    pub(crate) fn daemons(&self) -> &Daemons {
        self.daemons.as_ref().unwrap()
    }

    pub(crate) fn name(&self, name: &str, ttl: u32, data: Vec<RData>) {
        self.names.lock().unwrap().insert(name.to_owned(), Zone { data, ttl });
    }

    /// What came since the last look, without what is the name server's.
    pub(crate) fn packets(&self) -> BTreeSet<Packet> {
        // What is on its way arrives.
        std::thread::sleep(Duration::from_millis(100));
        let dns: IpAddr = DNS.parse().unwrap();
        let all = std::mem::take(&mut *self.packets.lock().unwrap());
        all.into_iter().filter(|packet| *packet != (17, dns, 53)).collect()
    }

    /// Ends the daemons, and checks that nothing of theirs is left on the host.
    pub(crate) fn finish(mut self) {
        self.daemons.take().unwrap().finish().unwrap();
        let of = |what: &'static str, words: &[&str]| {
            let done = Command::new("nsenter")
                .arg(format!("--net={}", self.host.path().display()))
                .args(words)
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&done.stdout).into_owned();
            assert!(!text.contains("aion-"), "{what} left: {text}");
        };
        of("links", &["ip", "-br", "link"]);
        of("routes", &["ip", "route"]);
        let forwarding =
            self.host.run(|| std::fs::read_to_string("/proc/sys/net/ipv4/conf/up0/forwarding").unwrap());
        assert_eq!(forwarding.trim(), "0", "the host forwards as before");
    }
}

fn web(listener: TcpListener) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let _ = stream.set_read_timeout(Some(Duration::from_secs(30)));
                let mut head = [0; 4096];
                while let Ok(1..) = stream.read(&mut head) {
                    let to =
                        stream.local_addr().map(|to| to.ip().to_canonical().to_string()).unwrap_or_default();
                    let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{to}", to.len());
                    if stream.write_all(text.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

fn echo(socket: UdpSocket) {
    std::thread::spawn(move || {
        let mut bytes = [0; 2048];
        while let Ok((len, from)) = socket.recv_from(&mut bytes) {
            let _ = socket.send_to(&bytes[..len], from);
        }
    });
}

fn name_server(socket: UdpSocket, names: Arc<Mutex<HashMap<String, Zone>>>, asked: Arc<Mutex<Vec<String>>>) {
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok((len, from)) = socket.recv_from(&mut bytes) {
            let Ok(question) = Message::from_vec(&bytes[..len]) else { continue };
            let kind = question.queries[0].query_type;
            let mut name = question.queries[0].name.to_ascii().trim_end_matches('.').to_owned();
            asked.lock().unwrap().push(name.clone());
            let mut answer = question.into_response();
            answer.metadata.response_code = ResponseCode::NXDomain;
            while let Some(zone) = names.lock().unwrap().get(&name).cloned() {
                answer.metadata.response_code = ResponseCode::NoError;
                let own = zone
                    .data
                    .iter()
                    .filter(|data| matches!(data.record_type(), k if k == kind || k == RecordType::CNAME));
                let mut next = None;
                for data in own {
                    if let RData::CNAME(to) = data {
                        next = Some(to.0.to_ascii().trim_end_matches('.').to_owned());
                    }
                    answer.add_answer(Record::from_rdata(
                        format!("{name}.").parse().unwrap(),
                        zone.ttl,
                        data.clone(),
                    ));
                }
                let Some(next) = next else { break };
                name = next;
            }
            let _ = socket.send_to(&answer.to_vec().unwrap(), from);
        }
    });
}

/// Sees every packet that comes in by the wire.
fn watch(packets: Arc<Mutex<BTreeSet<Packet>>>) {
    let all =
        socket(AddressFamily::Packet, SockType::Datagram, SockFlag::empty(), SockProtocol::EthAll).unwrap();
    std::thread::spawn(move || {
        let all: OwnedFd = all;
        let mut bytes = vec![0; 65_536];
        while let Ok(len) = recv(all.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
            if let Some(packet) = packet(&bytes[..len]) {
                packets.lock().unwrap().insert(packet);
            }
        }
    });
}

/// What a packet is, if it came from the host and is no business of the link's own.
fn packet(bytes: &[u8]) -> Option<Packet> {
    let v4 = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(at..at + 4)?).ok()?));
    let v6 = |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes.get(at..at + 16)?).ok()?));
    let (protocol, from, to, data): (u8, IpAddr, IpAddr, usize) = match bytes.first()? >> 4 {
        4 => (*bytes.get(9)?, v4(12)?.into(), v4(16)?.into(), usize::from(bytes[0] & 15) * 4),
        6 => (*bytes.get(6)?, v6(8)?.into(), v6(24)?.into(), 40),
        _ => return None,
    };
    let port = u16::from_be_bytes(bytes.get(data + 2..data + 4).unwrap_or(&[0, 0]).try_into().ok()?);
    let own: [IpAddr; 2] = [HOST.parse().ok()?, "2a0f:1::1".parse().ok()?];
    // Answers of the Internet's own are seen, too; so are neighbours asking for each other, and groups.
    let link =
        to.is_multicast() || (protocol == 58 && bytes.get(40).is_some_and(|kind| (130..=143).contains(kind)));
    (!link && !own.contains(&to) && (own.contains(&from) || !is_internet(from)))
        .then_some((protocol, to, port))
}

fn is_internet(from: IpAddr) -> bool {
    let all = [DNS, GOOD[0], GOOD[1], OTHER[0], OTHER[1], PRIVATE, METADATA, "2a0f:1::9"];
    all.iter().any(|own| own.parse() == Ok(from)) || from.is_loopback() || !is_routable(from)
}

fn is_routable(from: IpAddr) -> bool {
    match from {
        IpAddr::V4(v4) => !v4.is_unspecified(),
        IpAddr::V6(v6) => !v6.is_unspecified() && !v6.is_unicast_link_local(),
    }
}
