//! Verdicts and bytes.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

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
fn an_isolated_agent_reaches_nothing_until_its_network_is_given_back() {
    let Some(world) = World::new(1 << 20) else { return };
    let opened = world.open();
    let agent = world.agent(&opened.probes, EVENTS);
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = server.local_addr().unwrap().to_string();
    assert_eq!(agent.help(&["connect", &to]), "ok");
    opened.probes.isolate(agent.id, true).unwrap();
    assert_eq!(agent.help(&["connect", &to]), "EPERM");
    assert_eq!(agent.help(&["bind", "127.0.0.1:0"]), "EPERM");
    // Another handle, another mode, the same agent again: it stays.
    drop(opened);
    let opened = world.open();
    opened.probes.add_agent(agent.id, EVENTS).unwrap();
    opened.probes.update_agent(agent.id, AgentConfig { strict: true, ..EVENTS }).unwrap();
    opened.probes.arm(agent.id).unwrap();
    assert_eq!(agent.help(&["connect", &to]), "EPERM");
    opened.probes.isolate(agent.id, false).unwrap();
    assert_eq!(agent.help(&["connect", &to]), "ok");
    assert!(opened.probes.isolate(agent.id + 1, true).is_err());
}

#[test]
fn an_open_connection_of_an_isolated_agent_is_dead() {
    if !std::path::Path::new("/bin/bash").exists() {
        return println!("skipped: no bash, which connects by itself");
    }
    let Some(world) = World::new(1 << 20) else { return };
    let opened = world.open();
    let agent = world.agent(&opened.probes, EVENTS);
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = server.local_addr().unwrap().to_string();
    let script =
        format!("exec 9<>/dev/tcp/{}; while :; do echo x >&9; sleep 0.05; done", to.replace(':', "/"));
    let mut child = agent.spawn(&["/bin/bash", "-c", &script]);
    let (mut stream, _) = server.accept().unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(1500))).unwrap();
    let mut byte = [0; 1];
    stream.read_exact(&mut byte).unwrap();
    opened.probes.isolate(agent.id, true).unwrap();
    let mut came = 0;
    // What was on its way comes; then nothing does.
    while let Ok(1..) = stream.read(&mut byte) {
        came += 1;
        assert!(came < 100, "it goes on");
    }
    opened.probes.isolate(agent.id, false).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.read_exact(&mut byte).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
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

fn entries(texts: &[&str]) -> Vec<aion_egress::Entry> {
    aion_egress::Rules::parse(texts).unwrap().entries()
}

#[test]
fn egress_reaches_what_its_entries_say() {
    let Some(world) = World::new(1 << 20) else { return };
    let opened = world.open();
    let agent = world.agent(&opened.probes, AgentConfig { net: NetPolicy::Egress, ..EVENTS });
    let says = |address: &str| agent.help(&["udp-connect", address]);
    assert_eq!(says("198.51.100.1:443"), "EPERM", "nothing is reached before it is entered");
    let rules = [
        "198.51.100.0/24:443",
        "198.51.100.7:*",
        "10.0.0.0/8:80",
        "169.254.0.0/16:80",
        "*:53",
        "[fd77::/16]:80",
    ];
    opened.probes.set_reach(agent.id, &entries(&rules)).unwrap();
    for (address, expected) in [
        ("198.51.100.1:443", "ok"),
        ("198.51.100.1:444", "EPERM"),
        ("198.51.101.1:443", "EPERM"),
        ("198.51.100.7:9", "ok"),
        ("10.200.1.1:80", "ok"),
        ("10.200.1.1:53", "EPERM"),
        ("8.8.8.8:53", "ok"),
        ("8.8.8.8:54", "EPERM"),
        ("192.168.0.1:53", "EPERM"),
        ("127.0.0.1:9", "ok"),
        ("169.254.1.1:80", "ok"),
        ("169.254.169.254:80", "EPERM"),
        ("169.254.169.254:53", "EPERM"),
        ("0.0.0.0:53", "EPERM"),
        ("224.0.0.1:53", "EPERM"),
        ("255.255.255.255:53", "EPERM"),
        ("100.100.100.200:53", "EPERM"),
    ] {
        assert_eq!(says(address), expected, "{address}");
    }
    if std::path::Path::new("/proc/sys/net/ipv6").exists() {
        for (address, expected) in [
            ("[::ffff:198.51.100.1]:443", "ok"),
            ("[::ffff:198.51.100.1]:444", "EPERM"),
            ("[::ffff:169.254.169.254]:53", "EPERM"),
            ("[::ffff:192.168.0.1]:53", "EPERM"),
            ("[::]:53", "EPERM"),
            ("[::1]:53", "ok"),
            ("[fe80::1]:53", "EPERM"),
            ("[64:ff9b::a9fe:a9fe]:53", "EPERM"),
            ("[2002:a9fe:a9fe::1]:53", "EPERM"),
            ("[ff02::1]:53", "EPERM"),
        ] {
            assert_eq!(says(address), expected, "{address}");
        }
        assert_ne!(says("[fd77::1]:80"), "EPERM");
    }
    let (own, others) = (agent.help(&["bind", "127.0.0.1:0"]), agent.help(&["bind", "192.0.2.2:0"]));
    assert_eq!((own.as_str(), others.as_str()), ("ok", "EPERM"));
    // Rules that are taken back are gone.
    opened.probes.set_reach(agent.id, &entries(&["198.51.100.7:*"])).unwrap();
    assert_eq!((says("198.51.100.1:443").as_str(), says("198.51.100.7:9").as_str()), ("EPERM", "ok"));
}

#[test]
fn what_a_name_added_runs_out_and_survives_the_loader() {
    let Some(world) = World::new(1 << 20) else { return };
    let opened = world.open();
    let agent = world.agent(&opened.probes, AgentConfig { net: NetPolicy::Egress, ..EVENTS });
    opened.probes.reach_for(agent.id, &entries(&["8.8.8.8:443"]), Duration::from_secs(2)).unwrap();
    opened.probes.reach_for(agent.id, &entries(&["8.8.4.4:443"]), Duration::from_secs(600)).unwrap();
    drop(opened);
    assert_eq!(agent.help(&["udp-connect", "8.8.8.8:443"]), "ok");
    std::thread::sleep(Duration::from_millis(2100));
    assert_eq!(agent.help(&["udp-connect", "8.8.8.8:443"]), "EPERM", "it runs out without a daemon");
    assert_eq!(agent.help(&["udp-connect", "8.8.4.4:443"]), "ok");
    let again = world.open();
    // Each agent has room for so many: neither more, nor at the cost of another.
    let other = world.cgroup("other");
    again.probes.add_agent(other.id, AgentConfig { net: NetPolicy::Egress, ..EVENTS }).unwrap();
    let many: Vec<String> = (0..400).map(|i| format!("9.{}.{}.1:443", i / 200, i % 200)).collect();
    let full = many.chunks(50).map(|some| {
        let some: Vec<&str> = some.iter().map(String::as_str).collect();
        again.probes.reach_for(agent.id, &entries(&some), Duration::from_secs(60))
    });
    let outcomes: Vec<bool> = full.map(|r| r.is_ok()).collect();
    assert_eq!(outcomes, [true, true, true, true, true, true, false, false]);
    again.probes.reach_for(other.id, &entries(&["9.9.9.9:443"]), Duration::from_secs(60)).unwrap();
    assert_eq!(other.help(&["udp-connect", "8.8.4.4:443"]), "EPERM", "another's entries are another's");
    again.probes.remove_agent(agent.id).unwrap();
    assert_eq!(other.help(&["udp-connect", "9.9.9.9:443"]), "ok");
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
