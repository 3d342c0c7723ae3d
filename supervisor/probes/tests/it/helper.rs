//! What runs inside agents: this test program again, told by a variable what to do. Prints `HELPER word`.

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;

use nix::errno::Errno;

fn say(what: impl std::fmt::Display) {
    println!("\nHELPER {what}");
}

fn result<T>(result: std::io::Result<T>) {
    match result {
        Ok(_) => say("ok"),
        Err(error) => say(format!("{:?}", Errno::from_raw(error.raw_os_error().unwrap_or(0)))),
    }
}

fn errno<T>(result: nix::Result<T>) {
    match result {
        Ok(_) => say("ok"),
        Err(error) => say(format!("{error:?}")),
    }
}

#[test]
fn helper() {
    let Ok(words) = std::env::var("AION_IT_HELPER") else { return };
    let words: Vec<&str> = words.split(' ').collect();
    let number = |at: usize| words[at].parse::<usize>().unwrap();
    match words[0] {
        "connect" => result(TcpStream::connect(words[1])),
        "bind" => result(TcpListener::bind(words[1])),
        "udp" => result(UdpSocket::bind(words[1]).and_then(|socket| socket.send_to(b"x", words[2]))),
        // Nothing is sent: the verdict alone.
        "udp-connect" => {
            let any = if words[1].starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
            result(UdpSocket::bind(any).and_then(|socket| socket.connect(words[1])));
        }
        // How many of so many connections may begin, in all of so many threads.
        "connects" => {
            let begin = || (0..number(3)).filter(|_| connected(words[1]).is_ok()).count();
            say(in_threads(number(2), &begin));
        }
        // How many of so many packets of so many bytes leave, and how the last one ended.
        "flood" => {
            let sockets: Vec<UdpSocket> = (0..number(2)).map(|_| connected(words[1]).unwrap()).collect();
            let bytes = vec![b'x'; number(4)];
            let flood = |socket: &UdpSocket| (0..number(3)).filter(|_| socket.send(&bytes).is_ok()).count();
            let sent: usize = std::thread::scope(|scope| {
                let threads: Vec<_> = sockets.iter().map(|one| scope.spawn(move || flood(one))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).sum()
            });
            say(sent);
            result(sockets[0].send(&bytes));
        }
        // How many packets come back for one.
        "listen" => {
            let socket = connected(words[1]).unwrap();
            socket.set_read_timeout(Some(std::time::Duration::from_secs(1))).unwrap();
            socket.send(b"x").unwrap();
            let mut bytes = [0; 4096];
            let mut came = 0;
            while socket.recv(&mut bytes).is_ok() {
                came += 1;
            }
            say(came);
        }
        "send" => {
            let mut stream = TcpStream::connect(words[1]).unwrap();
            stream.write_all(&vec![b'x'; number(2)]).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut back = Vec::new();
            stream.read_to_end(&mut back).unwrap();
            say(back.len());
        }
        "getppid" => {
            for _ in 0..number(1) {
                std::hint::black_box(nix::unistd::getppid());
            }
            say("ok");
        }
        // Rounds of the same calls, in the order that each line names.
        "rounds" => {
            say("round");
            for line in std::io::stdin().lines() {
                let calls: [fn(); 4] = match line.unwrap().as_str() {
                    "one" => [CALLS[0], CALLS[1], CALLS[2], CALLS[3]],
                    _ => [CALLS[0], CALLS[2], CALLS[1], CALLS[3]],
                };
                (0..200).for_each(|_| calls.iter().for_each(|call| call()));
                say("round");
            }
        }
        // So many calls in an order that hardly ever comes again.
        "random-calls" => {
            let mut state = 1u64;
            for _ in 0..number(1) {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                CALLS[usize::try_from(state >> 61).unwrap()]();
            }
            say("ok");
        }
        "threads" => {
            let threads: Vec<_> = (0..number(1)).map(|_| std::thread::spawn(|| ())).collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            say("ok");
        }
        "die" => {
            for _ in 0..number(1) {
                std::thread::spawn(|| {
                    loop {
                        std::hint::spin_loop();
                    }
                });
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
            let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
        }
        "open-write" => result(std::fs::write(words[1], "x")),
        "open-read" => result(std::fs::File::open(words[1])),
        // The standard library refuses to truncate what it does not write to.
        "open-trunc" => {
            let flags = nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_TRUNC;
            errno(nix::fcntl::open(words[1], flags, nix::sys::stat::Mode::empty()));
        }
        "open-device" => {
            use nix::fcntl::OFlag;
            let how = match words[2] {
                "r" => OFlag::O_RDONLY,
                "w" => OFlag::O_WRONLY,
                _ => OFlag::O_RDWR,
            };
            let flags = how | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
            errno(nix::fcntl::open(words[1], flags, nix::sys::stat::Mode::empty()));
        }
        "mknod" => {
            use nix::sys::stat::{Mode, SFlag, makedev, mknod};
            let part = |at: usize| words[at].parse::<u64>().unwrap();
            errno(mknod(words[1], SFlag::S_IFCHR, Mode::S_IRUSR, makedev(part(2), part(3))));
        }
        "unlink" => result(std::fs::remove_file(words[1])),
        "mkdir" => result(std::fs::create_dir(words[1])),
        "rmdir" => result(std::fs::remove_dir(words[1])),
        "rename" => result(std::fs::rename(words[1], words[2])),
        "link" => result(std::fs::hard_link(words[1], words[2])),
        "symlink" => result(std::os::unix::fs::symlink("/", words[1])),
        "fifo" => errno(nix::unistd::mkfifo(words[1], nix::sys::stat::Mode::S_IRUSR)),
        "truncate" => errno(nix::unistd::truncate(words[1], 0)),
        "chmod" => result(std::fs::set_permissions(words[1], std::fs::Permissions::from_mode(0o600))),
        "unprivileged-mount" => {
            // libtest runs this in a thread; only this thread needs to lose its privileges.
            errno(nix::unistd::setresuid(65534.into(), 65534.into(), 65534.into()));
            errno(mount(words[1]));
        }
        "mount" => errno(mount(words[1])),
        "no-new-privs-mount" => {
            errno(nix::sys::prctl::set_no_new_privs());
            errno(mount(words[1]));
        }
        "bpf" => result(
            aion_probes::Probes::open_or_load(&aion_probes::Options {
                object: aion_probes::Object::Bytes(Vec::new()),
                pin_dir: words[1].into(),
                cgroup: "/sys/fs/cgroup".into(),
                ring_bytes: 4096,
            })
            .map_err(|error| root_cause(&error)),
        ),
        "kill" => {
            let pid = nix::unistd::Pid::from_raw(number(1).try_into().unwrap());
            errno(nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT));
        }
        "eat" => {
            let mut memory = vec![0u8; number(1) << 20];
            for page in memory.chunks_mut(4096) {
                page[0] = 1;
            }
            std::hint::black_box(&memory);
            say("ok");
        }
        "adopt" => {
            let options = aion_probes::Options {
                object: aion_probes::Object::Path(words[1].into()),
                pin_dir: words[2].into(),
                cgroup: words[3].into(),
                ring_bytes: aion_probes::Options::RING_BYTES,
            };
            let opened = aion_probes::Probes::open_or_load(&options).unwrap();
            say(format!("{:?}", opened.report.adoption));
            for (id, config) in opened.probes.agents().unwrap() {
                say(format!("{id} {:?} {}", config.mode, opened.probes.events(id).unwrap()));
            }
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            say(status.lines().find(|line| line.starts_with("VmRSS")).unwrap());
        }
        other => panic!("no such helper: {other}"),
    }
}

/// Calls that do nothing.
const CALLS: [fn(); 8] = [
    || _ = black_box(nix::unistd::getppid()),
    || _ = black_box(nix::unistd::getuid()),
    || _ = black_box(nix::unistd::getgid()),
    || _ = black_box(nix::unistd::geteuid()),
    || _ = black_box(nix::unistd::getegid()),
    || _ = black_box(nix::unistd::getpid()),
    || _ = black_box(nix::unistd::gettid()),
    || _ = black_box(nix::unistd::getpgrp()),
];

fn connected(to: &str) -> std::io::Result<UdpSocket> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(to)?;
    Ok(socket)
}

fn in_threads(count: usize, work: &(impl Fn() -> usize + Sync)) -> usize {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    })
}

fn mount(at: &str) -> nix::Result<()> {
    nix::mount::mount(Some("none"), at, Some("tmpfs"), nix::mount::MsFlags::empty(), None::<&str>)
}

/// The system call's error at the bottom.
fn root_cause(error: &(dyn std::error::Error + 'static)) -> std::io::Error {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return std::io::Error::from_raw_os_error(io.raw_os_error().unwrap_or(0));
        }
        next = error.source();
    }
    std::io::Error::other("no system call failed")
}
