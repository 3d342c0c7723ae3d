//! Any bytes decode to an event or an error; what the programs write decodes to what they meant.

#![expect(clippy::unwrap_used, reason = "a test fails by panic")]

use aion_probe_types::layout::{ARGV_MAX, PATH_MAX, hook_name, kind};
use aion_probe_types::{DecodeError, Kind, NetOp, PrivSource, Verdict, decode};
use proptest::prelude::*;

/// A head of `kind` with recognisable fields.
fn head(kind: u16, flags: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    for word in [10u32, 11, 9] {
        bytes.extend(word.to_ne_bytes());
    }
    for word in [77u64, 123_456] {
        bytes.extend(word.to_ne_bytes());
    }
    bytes
}

fn words(bytes: &mut Vec<u8>, words: &[u32]) {
    for word in words {
        bytes.extend(word.to_ne_bytes());
    }
}

fn exec(filename: &[u8], argv: &[u8]) -> Vec<u8> {
    let mut bytes = head(kind::EXEC, 0);
    words(&mut bytes, &[1000, 1001, 1002, 1003]);
    bytes.extend(5u64.to_ne_bytes());
    bytes.extend(42u64.to_ne_bytes());
    words(&mut bytes, &[2]);
    bytes.extend(u16::try_from(filename.len()).unwrap().to_ne_bytes());
    bytes.extend(u16::try_from(argv.len()).unwrap().to_ne_bytes());
    bytes.extend(b"name\0\0\0\0\0\0\0\0\0\0\0\0");
    bytes.extend(filename);
    bytes.extend(argv);
    bytes
}

#[test]
fn heads_and_fields() {
    let bytes = exec(b"/bin/ls\0", b"ls\0-l\0\0");
    let event = decode(&bytes).unwrap();
    assert_eq!((event.pid, event.tid, event.ppid), (10, 11, 9));
    assert_eq!((event.cgroup_id, event.time_ns), (77, 123_456));
    let Kind::Exec(exec) = event.kind else { panic!("{event:?}") };
    assert_eq!(exec.filename, b"/bin/ls");
    assert_eq!(exec.args().collect::<Vec<_>>(), [b"ls".as_slice(), b"-l", b""]);
    assert_eq!((exec.cred.uid, exec.cred.egid, exec.cred.cap_effective), (1000, 1003, 5));
    assert_eq!((exec.start_ns, exec.ns_pid, exec.comm.as_bytes()), (42, 2, b"name".as_slice()));
    assert_eq!(event.kind.as_str(), "proc.exec");
}

#[test]
fn an_exec_without_arguments() {
    let bytes = exec(b"", b"");
    let Kind::Exec(exec) = decode(&bytes).unwrap().kind else { panic!() };
    assert_eq!(exec.args().count(), 0);
    let bytes = exec_one_empty();
    let Kind::Exec(exec) = decode(&bytes).unwrap().kind else { panic!() };
    assert_eq!(exec.args().collect::<Vec<_>>(), [b""]);
}

fn exec_one_empty() -> Vec<u8> {
    exec(b"x\0", b"\0")
}

#[test]
fn exits_are_wait_statuses() {
    for (status, code, signal, core) in
        [(0u32, 0u8, 0u8, false), (7 << 8, 7, 0, false), (9, 0, 9, false), (139, 0, 11, true)]
    {
        let mut bytes = head(kind::EXIT, 4);
        words(&mut bytes, &[status, 1000, 0, 0]);
        bytes.extend([0; 16]);
        let Kind::Exit(exit) = decode(&bytes).unwrap().kind else { panic!() };
        assert_eq!((exit.code, exit.signal, exit.core, exit.oom), (code, signal, core, true));
    }
}

#[test]
fn addresses_of_both_families() {
    let net = |op: u8, family: u8, flags: u16, addr: [u8; 16]| {
        let mut bytes = head(kind::NET, flags);
        bytes.extend([op, family]);
        bytes.extend(443u16.to_ne_bytes());
        // A protocol of two bytes, and no limit.
        words(&mut bytes, &[6]);
        bytes.extend(addr);
        bytes.extend([0; 16]);
        bytes
    };
    let mut v4 = [0; 16];
    v4[..4].copy_from_slice(&[192, 0, 2, 1]);
    let bytes = net(1, 4, 2, v4);
    let Kind::Net(seen) = decode(&bytes).unwrap().kind else { panic!() };
    assert_eq!((seen.op, seen.verdict), (NetOp::Connect, Verdict::Denied));
    assert_eq!(seen.addr.to_string(), "192.0.2.1:443");
    let mut v6 = [0; 16];
    v6[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    v6[15] = 1;
    let bytes = net(3, 6, 0, v6);
    let Kind::Net(seen) = decode(&bytes).unwrap().kind else { panic!() };
    assert_eq!((seen.op, seen.verdict), (NetOp::Send, Verdict::Allowed));
    assert_eq!(seen.addr.to_string(), "[2001:db8::1]:443");
    assert_eq!(decode(&net(4, 4, 0, v4)), Err(DecodeError::BadField { field: "op", value: 4 }));
    assert_eq!(decode(&net(1, 5, 0, v4)), Err(DecodeError::BadField { field: "family", value: 5 }));
}

#[test]
fn the_limit_that_refused_is_a_line_of_the_manifest() {
    let net = |limit: u8, destination: u8| {
        let mut bytes = head(kind::NET, 2);
        bytes.extend([1, 4]);
        bytes.extend(443u16.to_ne_bytes());
        bytes.extend(262u16.to_ne_bytes());
        bytes.extend([limit, destination]);
        bytes.extend([0; 32]);
        bytes
    };
    let line = |limit, destination| {
        let bytes = net(limit, destination);
        let Kind::Net(seen) = decode(&bytes).unwrap().kind else { panic!() };
        assert_eq!(seen.protocol, 262);
        seen.limit.map(|limit| limit.to_string())
    };
    assert_eq!(line(0, 0), None);
    assert_eq!(line(1, 0).unwrap(), "resources.network.connections_per_second");
    assert_eq!(line(2, 1).unwrap(), "resources.network.destinations[0].connections_per_minute");
    assert_eq!(line(3, 8).unwrap(), "resources.network.destinations[7].bytes_out_per_hour");
    assert_eq!(line(4, 0).unwrap(), "resources.network.bytes_in_per_hour");
    assert_eq!(decode(&net(5, 0)), Err(DecodeError::BadField { field: "limit", value: 5 }));
}

#[test]
fn sources_of_privilege_changes() {
    for (source, meant) in [
        (1, PrivSource::Exec),
        (2, PrivSource::Syscall(105)),
        (3, PrivSource::SetUid),
        (4, PrivSource::CapSet),
    ] {
        let mut bytes = head(kind::PRIV, 0);
        words(&mut bytes, &[source, 105]);
        bytes.extend([0; 48 + 16]);
        let Kind::PrivChange(change) = decode(&bytes).unwrap().kind else { panic!() };
        assert_eq!(change.source, meant);
    }
}

#[test]
fn paths_may_have_unused_room_after_them() {
    let file = |len: usize, room: usize| {
        let mut bytes = head(kind::FILE, 0);
        bytes.extend(5u64.to_ne_bytes());
        words(&mut bytes, &[1, 2, u32::try_from(len).unwrap(), 0]);
        bytes.extend(vec![b'p'; room]);
        bytes
    };
    for (len, room) in [(0, 0), (10, 10), (10, PATH_MAX), (PATH_MAX, PATH_MAX)] {
        let bytes = file(len, room);
        let Kind::OpenWrite(open) = decode(&bytes).unwrap().kind else { panic!() };
        assert_eq!((open.path.len(), open.inode, open.dev, open.flags), (len, 5, 1, 2));
    }
    assert!(matches!(decode(&file(10, 9)), Err(DecodeError::Short { .. })));
    assert!(matches!(decode(&file(PATH_MAX + 1, 2 * PATH_MAX)), Err(DecodeError::BadField { .. })));
    assert!(matches!(decode(&file(10, PATH_MAX + 8)), Err(DecodeError::Trailing { .. })));
}

#[test]
fn hooks_have_names() {
    assert_eq!(hook_name(1), Some("bpf"));
    assert_eq!(hook_name(0), None);
    assert_eq!(hook_name(40), Some("path_rename"));
    let mut bytes = head(kind::LSM_DENIED, 2);
    words(&mut bytes, &[999, 1, 0, 0]);
    bytes.extend([0; 16]);
    assert_eq!(decode(&bytes), Err(DecodeError::BadField { field: "hook", value: 999 }));
}

#[test]
fn a_device_that_was_refused() {
    let record = |what: u32, access: u32| {
        let mut bytes = head(kind::DEVICE_DENIED, 2);
        for word in [10u32, 229, what, access] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(*b"dd\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        bytes
    };
    let bytes = record(2, 6);
    let Kind::DeviceDenied(denied) = decode(&bytes).unwrap().kind else { panic!() };
    assert_eq!((denied.major, denied.minor, denied.block), (10, 229, false));
    assert_eq!((denied.read, denied.write, denied.mknod), (true, true, false));
    assert_eq!(denied.comm.as_bytes(), b"dd");
    assert_eq!(decode(&record(3, 6)), Err(DecodeError::BadField { field: "kind", value: 3 }));
}

#[test]
fn unknown_kinds_and_nothing() {
    assert_eq!(decode(&head(99, 0)), Err(DecodeError::UnknownKind { kind: 99 }));
    assert_eq!(decode(&[]), Err(DecodeError::Short { need: 2, have: 0 }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn any_bytes_give_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..1200)) {
        if let Err(error) = decode(&bytes) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    /// Random bytes seldom have a known kind: give them one.
    #[test]
    fn any_body_of_a_known_kind_gives_an_answer(
        number in kind::FORK..=kind::DEVICE_DENIED + 1,
        flags in any::<u16>(),
        body in prop::collection::vec(any::<u8>(), 0..1200),
    ) {
        let mut bytes = head(number, flags);
        bytes.extend(body);
        if let Ok(event) = decode(&bytes) {
            prop_assert!(!event.kind.as_str().is_empty());
            prop_assert_eq!(event.cgroup_id, 77);
        }
    }

    #[test]
    fn arguments_come_back(args in prop::collection::vec("[^\0]{0,20}", 1..10)) {
        let mut argv = Vec::new();
        for arg in &args {
            argv.extend(arg.as_bytes());
            argv.push(0);
        }
        prop_assume!(argv.len() <= ARGV_MAX);
        let bytes = exec(b"/f\0", &argv);
        let Kind::Exec(exec) = decode(&bytes).unwrap().kind else { panic!() };
        prop_assert_eq!(exec.args().collect::<Vec<_>>(), args.iter().map(String::as_bytes).collect::<Vec<_>>());
    }

    /// Every cut of a good record is refused, never misread.
    #[test]
    fn cut_records_are_refused(at in 0usize..100) {
        let bytes = exec(b"/bin/ls\0", b"ls\0-l\0");
        prop_assume!(at < bytes.len());
        let refused = matches!(decode(&bytes[..at]), Err(DecodeError::Short { .. }));
        prop_assert!(refused);
    }
}
