//! Budgets of bytes and rates of connections, as the kernel holds them.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use aion_probes::{AgentConfig, ConnectionRate, NetLimits, NetPolicy, Verdict};

use crate::world::{EVENTS, Seen, What, World, drain};

fn out(bytes: u64) -> NetLimits {
    NetLimits { bytes_out: Some(bytes), ..NetLimits::default() }
}

fn rate(count: u32, per_minute: bool, burst: u32) -> NetLimits {
    let connections = Some(ConnectionRate { count, per_minute, burst });
    NetLimits { connections, ..NetLimits::default() }
}

fn server() -> (UdpSocket, String) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    (socket, address)
}

/// Packets and bytes that wait.
fn arrived(socket: &UdpSocket) -> (usize, usize) {
    socket.set_nonblocking(true).unwrap();
    let mut bytes = [0; 4096];
    let mut sum = (0, 0);
    while let Ok(len) = socket.recv(&mut bytes) {
        sum = (sum.0 + 1, sum.1 + len);
    }
    sum
}

/// The lines of limits that refused something.
fn lines(seen: &[Seen]) -> Vec<String> {
    let limit = |seen: &Seen| match &seen.what {
        What::Net(net) => net.limit.map(|limit| {
            assert_eq!(net.verdict, Verdict::Denied);
            limit.to_string()
        }),
        _ => None,
    };
    seen.iter().filter_map(limit).collect()
}

#[test]
fn no_byte_leaves_beyond_the_budget_whoever_is_dead_and_however_often_it_starts() {
    let Some(world) = World::new(1 << 20) else { return };
    let mut opened = world.open();
    let agent = world.agent(&opened.probes, EVENTS);
    let (socket, to) = server();
    opened.probes.limit(agent.id, "one", &[out(20_000)]).unwrap();
    // 1000 bytes, and 28 of headers.
    assert_eq!(agent.help(&["flood", &to, "1", "40", "1000"]), "19 EPERM");
    assert_eq!(arrived(&socket), (19, 19_000));
    assert_eq!(agent.help(&["udp-connect", &to]), "EPERM", "no connection is worth beginning");
    assert_eq!(lines(&drain(&mut opened)), ["resources.network.bytes_out_per_hour"]);
    let used = opened.probes.net_use(agent.id).unwrap()[0];
    assert_eq!((used.out, used.totals.0, used.refused_bytes), (19 * 1028, 19 * 1028, 1));
    assert_eq!(used.dropped.0, 22);
    let frees = used.out_frees_in.unwrap();
    assert!(frees > Duration::from_secs(55 * 60) && frees <= Duration::from_secs(65 * 60), "{frees:?}");
    // Nobody holds anything but the pins; then another launcher says the same again.
    drop(opened);
    assert_eq!(agent.help(&["udp-connect", &to]), "EPERM");
    let opened = world.open();
    opened.probes.add_agent(agent.id, EVENTS).unwrap();
    opened.probes.limit(agent.id, "one", &[out(20_000)]).unwrap();
    opened.probes.update_agent(agent.id, AgentConfig { strict: true, ..EVENTS }).unwrap();
    assert_eq!(agent.help(&["udp-connect", &to]), "EPERM");
    // Started anew it has used no less; another agent has.
    opened.probes.remove_agent(agent.id).unwrap();
    let (again, other) = (world.cgroup("again"), world.cgroup("other"));
    for (cgroup, account) in [(&again, "one"), (&other, "two")] {
        opened.probes.add_agent(cgroup.id, EVENTS).unwrap();
        opened.probes.limit(cgroup.id, account, &[out(20_000)]).unwrap();
    }
    assert_eq!(again.help(&["udp-connect", &to]), "EPERM");
    assert_eq!(other.help(&["flood", &to, "1", "5", "1000"]), "5 ok");
    // With more to use it goes on from there.
    opened.probes.limit(again.id, "one", &[out(40_000)]).unwrap();
    assert_eq!(again.help(&["flood", &to, "1", "40", "1000"]), "19 EPERM");
}

#[test]
fn what_comes_is_counted_apart_from_what_goes() {
    let Some(world) = World::new(1 << 20) else { return };
    let opened = world.open();
    let agent = world.agent(&opened.probes, EVENTS);
    let (socket, to) = server();
    let limits = NetLimits { bytes_in: Some(20_000), ..NetLimits::default() };
    opened.probes.limit(agent.id, "in", &[limits]).unwrap();
    let answers = std::thread::spawn(move || {
        let (_, from) = socket.recv_from(&mut [0; 9]).unwrap();
        (0..40).for_each(|_| drop(socket.send_to(&[b'y'; 1000], from)));
    });
    assert_eq!(agent.help(&["listen", &to]), "19");
    answers.join().unwrap();
    let used = opened.probes.net_use(agent.id).unwrap()[0];
    assert_eq!((used.received, used.dropped), (19 * 1028, (0, 21)));
    assert!(used.out < 100, "{used:?}");
}

#[test]
fn what_many_do_at_once_is_counted_exactly() {
    let Some(world) = World::new(4 << 20) else { return };
    let opened = world.open();
    let agent = world.agent(&opened.probes, EVENTS);
    let (_socket, to) = server();
    opened.probes.limit(agent.id, "many", &[out(1_000_000)]).unwrap();
    assert_eq!(agent.help(&["flood", &to, "8", "400", "1000"]), format!("{} EPERM", 1_000_000 / 1028));
    let other = world.cgroup("rate");
    opened.probes.add_agent(other.id, EVENTS).unwrap();
    opened.probes.limit(other.id, "rate", &[rate(1, true, 50)]).unwrap();
    let begun: u64 = other.help(&["connects", &to, "8", "100"]).parse().unwrap();
    // One more for each minute that it took.
    assert!((50..53).contains(&begun), "{begun}");
    let used = opened.probes.net_use(other.id).unwrap()[0];
    assert_eq!((used.connections, used.refused_rate), (begun, 800 - begun));
}

#[test]
fn connections_beyond_the_rate_are_refused_until_it_gives_more() {
    let Some(world) = World::new(1 << 20) else { return };
    let mut opened = world.open();
    let agent = world.agent(&opened.probes, EVENTS);
    let (_socket, to) = server();
    opened.probes.limit(agent.id, "second", &[rate(1, false, 1)]).unwrap();
    let begun: usize = agent.help(&["connects", &to, "1", "2000"]).parse().unwrap();
    assert!((1..2000).contains(&begun), "{begun}");
    let lines = lines(&drain(&mut opened));
    assert_eq!(lines.len(), 2000 - begun);
    assert!(lines.iter().all(|line| line == "resources.network.connections_per_second"));
    let since = Instant::now();
    while agent.help(&["udp-connect", &to]) != "ok" {
        assert!(since.elapsed() < Duration::from_secs(20), "it never gives more");
    }
}

#[test]
fn datagrams_to_the_same_place_are_one_connection() {
    let Some(world) = World::new(1 << 20) else { return };
    let mut opened = world.open();
    let agent = world.agent(&opened.probes, EVENTS);
    let ((_first, one), (_second, two)) = (server(), server());
    opened.probes.limit(agent.id, "datagrams", &[rate(1, true, 1)]).unwrap();
    for (to, expected) in [(&one, "ok"), (&one, "ok"), (&two, "EPERM"), (&one, "ok")] {
        assert_eq!(agent.help(&["udp", "127.0.0.1:0", to]), expected);
    }
    assert_eq!(lines(&drain(&mut opened)), ["resources.network.connections_per_minute"]);
    // Listening begins no connection.
    assert_eq!(agent.help(&["bind", "127.0.0.1:0"]), "ok");
    // Without a rate there are none, and none is remembered: a rate that comes later finds a new place.
    let other = world.cgroup("bytes");
    opened.probes.add_agent(other.id, EVENTS).unwrap();
    opened.probes.limit(other.id, "bytes", &[out(1 << 20)]).unwrap();
    assert_eq!(other.help(&["udp", "127.0.0.1:0", &one]), "ok");
    let used = |id| opened.probes.net_use(id).unwrap()[0];
    assert!(used(other.id).out > 0);
    assert_eq!(used(other.id).connections, 0);
    opened.probes.limit(other.id, "bytes", &[rate(1, true, 1)]).unwrap();
    assert_eq!(other.help(&["udp", "127.0.0.1:0", &one]), "ok");
    assert_eq!(used(other.id).connections, 1);
}

#[test]
fn a_destination_at_its_limit_leaves_the_others_alone() {
    let Some(world) = World::new(1 << 20) else { return };
    let mut opened = world.open();
    let agent = world.agent(&opened.probes, AgentConfig { net: NetPolicy::Egress, ..EVENTS });
    let texts = ["198.51.100.0/24:443", "198.51.101.0/24:443", "198.51.102.0/24:*"];
    let destinations = [texts[0], texts[2]].map(|text| text.parse().unwrap()).to_vec();
    let rules = aion_egress::Rules::parse(&texts).unwrap().counting(destinations);
    opened.probes.set_reach(agent.id, &rules.entries()).unwrap();
    let limits = [NetLimits::default(), rate(1, true, 2), rate(1, true, 1)];
    opened.probes.limit(agent.id, "destinations", &limits).unwrap();
    for (to, expected) in [
        ("198.51.100.1:443", "ok"),
        ("198.51.100.2:443", "ok"),
        ("198.51.100.1:443", "EPERM"),
        ("198.51.101.1:443", "ok"),
        ("198.51.102.1:9", "ok"),
        ("198.51.102.2:443", "EPERM"),
        ("198.51.101.1:443", "ok"),
        ("127.0.0.1:9", "ok"),
        ("198.51.103.1:443", "EPERM"),
    ] {
        let got = agent.help(&["udp-connect", to]);
        // What is let through needs no way to lead there.
        let got = if got == "ENETUNREACH" { "ok" } else { got.as_str() };
        assert_eq!(got, expected, "{to}");
    }
    let expected = [0, 1].map(|at| format!("resources.network.destinations[{at}].connections_per_minute"));
    assert_eq!(lines(&drain(&mut opened)), expected);
    let used = opened.probes.net_use(agent.id).unwrap();
    let begun: Vec<u64> = used.iter().map(|used| used.connections).collect();
    assert_eq!(begun, [5, 2, 1], "what a destination refused is not missing in the whole");
    assert!(opened.probes.limit(agent.id + 1, "x", &limits).is_err());
    assert!(opened.probes.net_use(agent.id + 1).unwrap().is_empty());
}
