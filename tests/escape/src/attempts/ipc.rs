//! System V and POSIX objects, and keys.

use std::os::fd::AsRawFd;

use crate::attempt::Attempt;
use crate::sys::{self, Stop, reached, sc};
use crate::target::Targets;

pub(super) fn all() -> Vec<Attempt> {
    vec![
        Attempt::new("sysv-shm", "System V shared memory of the host", "namespaces", |t: &Targets| {
            let id = sc!("shmget(2)", libc::SYS_shmget, t.key, 0, 0)?;
            sc!("shmat(2)", libc::SYS_shmat, id, 0, 0)?;
            reached("shared memory of the host")
        }),
        Attempt::new("sysv-queue", "a System V queue of the host", "namespaces", |t| {
            sc!("msgget(2)", libc::SYS_msgget, t.key, 0)?;
            reached("a queue of the host")
        }),
        Attempt::new("sysv-semaphore", "a System V semaphore of the host", "namespaces", |t| {
            sc!("semget(2)", libc::SYS_semget, t.key, 0, 0)?;
            reached("a semaphore of the host")
        }),
        Attempt::new("posix-queue", "a POSIX queue of the host", "namespaces", |t| {
            let name = sys::text(t.posix_name.trim_start_matches('/'));
            if t.posix_name.is_empty() {
                return Err(Stop::because("no queue is known"));
            }
            drop(sys::fd(sc!("mq_open(2)", libc::SYS_mq_open, name.as_ptr(), libc::O_RDWR, 0, 0)?));
            reached("a queue of the host")
        }),
        Attempt::new("posix-shm", "POSIX shared memory of the host, in /dev/shm", "rootfs", |t| {
            if t.posix_name.is_empty() {
                return Err(Stop::because("no shared memory is known"));
            }
            sys::open(&format!("/dev/shm{}", t.posix_name), libc::O_RDWR)?;
            reached("shared memory of the host")
        }),
        Attempt::new("add-key", "add_key(2) to a keyring that is not namespaced", "seccomp", |_| {
            let (kind, name) = (c"user", c"aion-escape");
            // KEY_SPEC_PROCESS_KEYRING
            sc!("add_key(2)", libc::SYS_add_key, kind.as_ptr(), name.as_ptr(), b"x".as_ptr(), 1, -2_i32)?;
            reached("a key in the kernel")
        }),
        Attempt::new(
            "request-key",
            "request_key(2), for which the kernel runs a program outside",
            "seccomp",
            |_| match sc!(
                "request_key(2)",
                libc::SYS_request_key,
                c"user".as_ptr(),
                c"aion-none".as_ptr(),
                0,
                0
            ) {
                Err(stop) if stop.errno == libc::ENOKEY => reached("the keyrings were searched"),
                other => other.and_then(|_| reached("a key")),
            },
        ),
        Attempt::new(
            "keyctl-user",
            "keyctl(2): the keyring that all processes of a user share",
            "seccomp",
            |_| {
                // KEYCTL_GET_KEYRING_ID of KEY_SPEC_USER_KEYRING
                sc!("keyctl(2)", libc::SYS_keyctl, 0, -4_i32, 1)?;
                reached("the user's keyring")
            },
        ),
        Attempt::new("keyctl-join", "keyctl(2): joining a session keyring by name", "seccomp", |_| {
            sc!("keyctl(2)", libc::SYS_keyctl, 1, c"aion-escape".as_ptr())?;
            reached("a session keyring")
        }),
        Attempt::new(
            "session-keyring",
            "keys of whoever started the daemons, in the inherited session keyring",
            "session",
            |_| {
                let text = std::fs::read_to_string("/proc/keys").map_err(sys::at("/proc/keys"))?;
                match text.lines().find(|line| line.contains("aion-canary")) {
                    Some(line) => reached(line.to_owned()),
                    None => Err(Stop::because("no key of another is seen")),
                }
            },
        )
        .prepare(|_| {
            sc!("keyctl(2)", libc::SYS_keyctl, 1, c"aion-escape-control".as_ptr())?;
            // KEY_SPEC_SESSION_KEYRING
            sc!(
                "add_key(2)",
                libc::SYS_add_key,
                c"user".as_ptr(),
                c"aion-canary".as_ptr(),
                b"x".as_ptr(),
                1,
                -3_i32
            )?;
            Ok(())
        }),
        Attempt::new(
            "memfd-from-init",
            "passing through a descriptor of init, found by its number in /proc/1/fd",
            "namespaces (another user's process)",
            |t| {
                let file = sys::open(&format!("/proc/{}/fd/0", t.init), libc::O_RDONLY | libc::O_NONBLOCK)?;
                reached(format!("init's descriptor 0, as {}", file.as_raw_fd()))
            },
        ),
    ]
}
