//! Verdicts and bytes.

use std::io::{Read, Write};
use std::net::TcpListener;

use aion_probes::{AgentConfig, NetOp, NetPolicy, Verdict};

use crate::world::{EVENTS, Seen, What, World, drain};

fn nets(seen: &[Seen]) -> Vec<(NetOp, String, Verdict)> {
    seen.iter()
        .filter_map(|s| match &s.what {
            What::Net(net) => Some((net.op, net.addr.to_string(), net.verdict)),
            _ => None,
        })
        .collect()
}

#[test]
fn allowed_and_recorded() {
    let Some(world) = World::new(1 << 20) else { return };
    let mut opened = world.open();
    let agent = world.agent(&opened.probes, EVENTS);
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = server.local_addr().unwrap().to_string();
    assert_eq!(agent.help(&["connect", &to]), "ok");
    assert_eq!(agent.help(&["bind", "127.0.0.1:0"]), "ok");
    assert_eq!(agent.help(&["udp", "127.0.0.1:0", "127.0.0.1:9"]), "ok");
    let seen = nets(&drain(&mut opened));
    assert_eq!(
        seen,
        [
            (NetOp::Connect, to, Verdict::Allowed),
            (NetOp::Bind, "127.0.0.1:0".to_owned(), Verdict::Allowed),
            (NetOp::Bind, "127.0.0.1:0".to_owned(), Verdict::Allowed),
            (NetOp::Send, "127.0.0.1:9".to_owned(), Verdict::Allowed),
        ]
    );
}

#[test]
fn denied_and_recorded() {
    let Some(world) = World::new(1 << 20) else { return };
    let mut opened = world.open();
    let agent = world.agent(&opened.probes, AgentConfig { net: NetPolicy::DenyAll, ..EVENTS });
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = server.local_addr().unwrap().to_string();
    assert_eq!(agent.help(&["connect", &to]), "EPERM");
    assert_eq!(agent.help(&["bind", "0.0.0.0:0"]), "EPERM");
    assert_eq!(agent.help(&["connect", "[2001:db8::1]:443"]), "EPERM");
    let seen = nets(&drain(&mut opened));
    assert_eq!(
        seen,
        [
            (NetOp::Connect, to.clone(), Verdict::Denied),
            (NetOp::Bind, "0.0.0.0:0".to_owned(), Verdict::Denied),
            (NetOp::Connect, "[2001:db8::1]:443".to_owned(), Verdict::Denied),
        ]
    );
    assert_eq!(opened.probes.counters(agent.id).unwrap().denied, 3);
    // Live: the same agent, let through.
    opened.probes.update_agent(agent.id, EVENTS).unwrap();
    assert_eq!(agent.help(&["connect", &to]), "ok");
}

#[test]
fn loopback_only() {
    let Some(world) = World::new(1 << 20) else { return };
    let mut opened = world.open();
    let agent = world.agent(&opened.probes, AgentConfig { net: NetPolicy::LoopbackOnly, ..EVENTS });
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    assert_eq!(agent.help(&["connect", &format!("127.0.0.1:{port}")]), "ok");
    assert_eq!(agent.help(&["connect", "192.0.2.1:80"]), "EPERM");
    assert_eq!(agent.help(&["bind", "0.0.0.0:0"]), "ok");
    assert_eq!(agent.help(&["bind", "192.0.2.1:0"]), "EPERM");
    assert_eq!(agent.help(&["udp", "127.0.0.1:0", "192.0.2.1:53"]), "EPERM");
    if std::path::Path::new("/proc/sys/net/ipv6").exists() {
        assert_eq!(agent.help(&["bind", "[::]:0"]), "ok");
        assert_eq!(agent.help(&["connect", &format!("[::ffff:127.0.0.1]:{port}")]), "ok");
        assert_eq!(agent.help(&["connect", "[::ffff:192.0.2.1]:80"]), "EPERM");
        assert_eq!(agent.help(&["connect", "[2001:db8::1]:80"]), "EPERM");
    }
    let denied = nets(&drain(&mut opened)).iter().filter(|(.., v)| *v == Verdict::Denied).count() as u64;
    assert_eq!(opened.probes.counters(agent.id).unwrap().denied, denied);
}

#[test]
fn a_cgroup_that_is_not_entered_reaches_nothing() {
    let Some(world) = World::new(1 << 20) else { return };
    let mut opened = world.open();
    let stranger = world.cgroup("stranger");
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    assert_eq!(stranger.help(&["connect", &server.local_addr().unwrap().to_string()]), "EPERM");
    assert!(drain(&mut opened).is_empty());
}

#[test]
fn bytes_are_counted() {
    let Some(world) = World::new(1 << 20) else { return };
    let opened = world.open();
    let agent = world.agent(&opened.probes, EVENTS);
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = server.local_addr().unwrap().to_string();
    let peer = std::thread::spawn(move || {
        let (mut stream, _) = server.accept().unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        stream.write_all(&vec![b'y'; 50_000]).unwrap();
        got.len()
    });
    assert_eq!(agent.help(&["send", &to, "100000"]), "50000");
    assert_eq!(peer.join().unwrap(), 100_000);
    // Headers, and what a busy machine makes TCP send twice, count too.
    let net = opened.probes.net_bytes(agent.id).unwrap();
    assert!((100_000..300_000).contains(&net.tx_bytes), "{net:?}");
    assert!((50_000..200_000).contains(&net.rx_bytes), "{net:?}");
    assert!(net.tx_packets > 3 && net.rx_packets > 3, "{net:?}");
}
