//! Exec, fork, exit, with lineage; and nobody else's.

use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use aion_probes::Origin;

use crate::world::{EVENTS, Seen, What, World, drain};

#[test]
fn a_life_with_lineage() {
    let Some(world) = World::new(1 << 20) else { return };
    let mut opened = world.open();
    let agent = world.agent(&opened.probes, EVENTS);
    agent.run(&["/bin/sh", "-c", "/bin/true one 'two three'; exit 7"]);
    let seen = drain(&mut opened);
    let [shell, fork, child, gone, end] = seen.as_slice() else { panic!("{seen:#?}") };
    assert!(seen.iter().all(|s| s.cgroup == agent.id));

    let What::Exec { filename, args, start_ns: shell_start, .. } = &shell.what else { panic!("{shell:?}") };
    assert_eq!(filename, "/bin/sh");
    assert_eq!(args[1], b"-c");
    assert_eq!(shell.ppid, std::process::id());

    let What::Fork(forked) = &fork.what else { panic!("{fork:?}") };
    assert_eq!(fork.pid, shell.pid);

    let What::Exec { filename, args, truncated, start_ns, comm, .. } = &child.what else {
        panic!("{child:?}")
    };
    assert_eq!((filename.as_str(), comm.as_bytes()), ("/bin/true", b"true".as_slice()));
    assert_eq!(args, &[b"/bin/true".to_vec(), b"one".to_vec(), b"two three".to_vec()]);
    assert!(!truncated);
    assert_eq!((child.pid, child.ppid, *start_ns), (forked.child, shell.pid, forked.child_start_ns));

    let What::Exit(exit) = &gone.what else { panic!("{gone:?}") };
    assert_eq!((gone.pid, exit.code, exit.signal, exit.start_ns), (child.pid, 0, 0, *start_ns));
    let What::Exit(exit) = &end.what else { panic!("{end:?}") };
    assert_eq!((end.pid, exit.code, exit.signal, exit.start_ns), (shell.pid, 7, 0, *shell_start));
}

/// The last program that the agent executed.
fn origin(seen: &[Seen]) -> Origin {
    let exec = seen.iter().rev().find_map(|s| match s.what {
        What::Exec { origin, .. } => Some(origin),
        _ => None,
    });
    exec.unwrap_or_else(|| panic!("{seen:#?}"))
}

#[test]
fn where_a_program_comes_from() {
    let Some(world) = World::new(1 << 20) else { return };
    let mut opened = world.open();
    let agent = world.agent(&opened.probes, EVENTS);
    agent.run(&["/bin/true"]);
    let plain = origin(&drain(&mut opened));
    assert_eq!(plain, Origin { writable: plain.writable, ..Origin::default() });

    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("copy");
    std::fs::copy("/bin/true", &copy).unwrap();
    agent.run(&[copy.to_str().unwrap()]);
    assert_eq!(origin(&drain(&mut opened)), Origin { writable: true, ..Origin::default() });

    let script = "exec 9<\"$0\"; rm \"$0\"; exec /proc/self/fd/9";
    agent.run(&["/bin/sh", "-c", script, copy.to_str().unwrap()]);
    let gone = origin(&drain(&mut opened));
    assert_eq!(gone, Origin { writable: true, unlinked: true, ..Origin::default() });

    let memory = nix::sys::memfd::memfd_create("x", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).unwrap();
    let mut memory = std::fs::File::from(memory);
    std::io::copy(&mut std::fs::File::open("/bin/true").unwrap(), &mut memory).unwrap();
    let path = format!("/proc/{}/fd/{}", std::process::id(), memory.as_raw_fd());
    // What is open for writing cannot be executed.
    let read_only = std::fs::File::open(&path).unwrap();
    drop(memory);
    let path = format!("/proc/{}/fd/{}", std::process::id(), read_only.as_raw_fd());
    agent.run(&[&path]);
    let found = origin(&drain(&mut opened));
    assert!(found.memfd && found.unlinked, "{found:?}");
}

#[test]
fn sockets_as_standard_input_and_output() {
    let Some(world) = World::new(1 << 20) else { return };
    let mut opened = world.open();
    let agent = world.agent(&opened.probes, EVENTS);
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(server.local_addr().unwrap()).unwrap();
    let mut run = |stdin: Option<OwnedFd>, stdout: Option<OwnedFd>| {
        let mut command = agent.command(&["/bin/true"]);
        command.stdin(stdin.map_or_else(Stdio::null, Stdio::from));
        command.stdout(stdout.map_or_else(Stdio::null, Stdio::from));
        command.status().unwrap();
        let found = origin(&drain(&mut opened));
        (found.stdin_socket, found.stdout_socket)
    };
    let tcp = || Some(OwnedFd::from(stream.try_clone().unwrap()));
    assert_eq!(run(tcp(), tcp()), (true, true));
    assert_eq!(run(tcp(), None), (true, false));
    assert_eq!(run(None, tcp()), (false, true));
    let (pair, _other) = UnixStream::pair().unwrap();
    let unix = || Some(OwnedFd::from(pair.try_clone().unwrap()));
    assert_eq!(run(unix(), unix()), (false, false), "how programs talk to their children");
    let udp = UdpSocket::bind("[::1]:0").or_else(|_| UdpSocket::bind("127.0.0.1:0")).unwrap();
    assert_eq!(run(Some(udp.into()), None), (true, false));
}

#[test]
fn death_by_signal() {
    let Some(world) = World::new(1 << 20) else { return };
    let mut opened = world.open();
    let agent = world.agent(&opened.probes, EVENTS);
    agent.run(&["/bin/sh", "-c", "kill -9 $$"]);
    let seen = drain(&mut opened);
    let Some(Seen { what: What::Exit(exit), .. }) = seen.last() else { panic!("{seen:#?}") };
    assert_eq!((exit.code, exit.signal), (0, 9));
}

#[test]
fn long_arguments_are_cut_and_say_so() {
    let Some(world) = World::new(1 << 20) else { return };
    let mut opened = world.open();
    let agent = world.agent(&opened.probes, EVENTS);
    agent.run(&["/bin/true", &"x".repeat(2000)]);
    let seen = drain(&mut opened);
    let What::Exec { args, truncated, .. } = &seen[0].what else { panic!("{seen:#?}") };
    assert!(truncated);
    assert_eq!(args[0], b"/bin/true");
    assert_eq!(args[1].len(), 512 - 10);
}

#[test]
fn threads_are_no_processes() {
    let Some(world) = World::new(1 << 20) else { return };
    let mut opened = world.open();
    let agent = world.agent(&opened.probes, EVENTS);
    assert_eq!(agent.help(&["threads", "8"]), "ok");
    let seen = drain(&mut opened);
    assert_eq!(seen.len(), 2, "one exec, one exit: {seen:#?}");
}

#[test]
fn threads_that_die_together_are_one_exit() {
    let Some(world) = World::new(1 << 20) else { return };
    let mut opened = world.open();
    let agent = world.agent(&opened.probes, EVENTS);
    for _ in 0..30 {
        agent.help(&["die", "16"]);
    }
    let seen = drain(&mut opened);
    let exits = seen.iter().filter(|s| matches!(s.what, What::Exit(_))).count();
    assert_eq!((seen.len(), exits), (60, 30));
}

#[test]
fn bystanders_are_never_recorded_and_agents_told_apart() {
    let Some(world) = World::new(1 << 20) else { return };
    let mut opened = world.open();
    let one = world.agent(&opened.probes, EVENTS);
    let two = world.cgroup("two");
    let stranger = world.cgroup("stranger");
    opened.probes.add_agent(two.id, EVENTS).unwrap();
    let threads: Vec<_> = (0..2)
        .map(|_| {
            std::thread::spawn(|| {
                for _ in 0..50 {
                    Command::new("/bin/true").status().unwrap();
                }
            })
        })
        .collect();
    for _ in 0..20 {
        one.run(&["/bin/true"]);
        two.run(&["/bin/false"]);
        stranger.run(&["/bin/true"]);
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let seen = drain(&mut opened);
    assert_eq!(seen.len(), 2 * 20 * 2);
    for event in seen {
        match &event.what {
            What::Exec { filename, .. } if filename == "/bin/true" => assert_eq!(event.cgroup, one.id),
            What::Exec { filename, .. } if filename == "/bin/false" => assert_eq!(event.cgroup, two.id),
            What::Exit(exit) => assert_eq!(event.cgroup, if exit.code == 0 { one.id } else { two.id }),
            other => panic!("{other:?}"),
        }
    }
    // Removed agents are strangers again.
    let last = opened.probes.remove_agent(two.id).unwrap();
    assert_eq!((last.counters.events, last.counters.dropped), (40, 0));
    two.run(&["/bin/true"]);
    assert!(drain(&mut opened).is_empty());
    assert!(opened.probes.remove_agent(two.id).is_err());
}
