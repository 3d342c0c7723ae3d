//! What the kernel answers under each profile.

use aion_seccomp::Action;
use libc::{EINVAL, ENOSYS, EPERM, EPROTONOSUPPORT};

use crate::{load, probe, python};

/// Arguments with which no call does anything, should the filter fail: bad pointers, descriptors and flags.
fn harmless() -> Vec<u64> {
    vec![u64::MAX - 15; 6]
}

fn nr(call: libc::c_long) -> u32 {
    u32::try_from(call).unwrap()
}

#[test]
fn every_denied_call_fails_with_its_errno() {
    if !python() {
        return;
    }
    for name in ["default-restrictive", "tool-strict", "network-client"] {
        let (profile, filter) = load(name);
        let mut calls = Vec::new();
        let mut expected = Vec::new();
        for group in profile.groups().iter().filter(|g| !g.is_conditional()) {
            let errno = match group.action() {
                Action::Allow => continue,
                Action::Errno(e) | Action::Notify(e) => e,
            };
            for call in group.syscalls() {
                // What the installed libseccomp does not know is in `arguments_decide`.
                let known =
                    libseccomp::ScmpSyscall::from_name(call).map(|s| u32::try_from(s.as_raw_syscall()));
                if let Ok(Ok(number)) = known {
                    calls.push((number, harmless()));
                    expected.push((call.to_owned(), errno, matches!(group.action(), Action::Notify(_))));
                }
            }
        }
        assert!(calls.len() > 60, "{name}: {}", calls.len());
        let report = probe(&filter, &calls, &[], &std::env::temp_dir());
        let mut reported = report.reported.into_iter();
        for ((call, errno, notified), ((number, _), result)) in
            expected.iter().zip(calls.iter().zip(&report.results))
        {
            assert_eq!(*result, (-1, *errno), "{name}: {call}");
            if *notified {
                assert_eq!(reported.next(), Some(*number), "{name}: {call} was not reported");
            }
        }
        assert_eq!(reported.next(), None, "{name}: reported more than was denied");
    }
}

#[test]
fn arguments_decide() {
    if !python() {
        return;
    }
    const HIGH: u64 = 1 << 32;
    let ok = i32::MIN;
    let (_, filter) = load("default-restrictive");
    // Each with the errno of the filter, or of the kernel when the filter lets it through; `ok` means success.
    let cases: Vec<(libc::c_long, Vec<u64>, i32, &str)> = vec![
        (libc::SYS_socket, vec![1, 1, 0], ok, "unix stream"),
        (libc::SYS_socket, vec![1, 3, 0], ok, "unix raw is a datagram socket"),
        (libc::SYS_socket, vec![2, 1 | 0o2_000_000, 6], ok, "tcp, close-on-exec"),
        (libc::SYS_socket, vec![10, 2, 17], ok, "udp over v6"),
        (libc::SYS_socket, vec![16, 3, 0], ok, "rtnetlink, as libc asks for it"),
        (libc::SYS_socket, vec![2, 3, 1], EPERM, "raw icmp"),
        (libc::SYS_socket, vec![2, 3 | 0o2_000_000, 255], EPERM, "raw, close-on-exec"),
        (libc::SYS_socket, vec![2, 1, 262], EPROTONOSUPPORT, "mptcp"),
        (libc::SYS_socket, vec![2, 1, 132], EPERM, "sctp"),
        (libc::SYS_socket, vec![17, 3, 0], EPERM, "packet"),
        (libc::SYS_socket, vec![17 | HIGH, 3, 0], EPERM, "packet, upper half set"),
        (libc::SYS_socket, vec![1 | HIGH, 1, 0], ok, "unix, upper half set: the kernel does not see it"),
        (libc::SYS_socket, vec![40, 1, 0], EPERM, "vsock"),
        (libc::SYS_socket, vec![38, 5, 0], EPERM, "alg"),
        (libc::SYS_socket, vec![44, 3, 0], EPERM, "xdp"),
        (libc::SYS_socket, vec![16, 3, 15], EPERM, "netlink uevent"),
        (libc::SYS_socket, vec![16, 3, 4], EPERM, "netlink sock_diag"),
        (libc::SYS_socketpair, vec![30, 1, 0, 0], EPERM, "tipc pair"),
        (libc::SYS_ioctl, vec![0, 0x5412, 1], EPERM, "TIOCSTI"),
        (libc::SYS_ioctl, vec![0, 0x5412 | HIGH, 1], EPERM, "TIOCSTI, upper half set"),
        (libc::SYS_ioctl, vec![0, 0x541c, 1], EPERM, "TIOCLINUX"),
        (libc::SYS_ioctl, vec![99, 0x5401, 0], libc::EBADF, "TCGETS"),
        (libc::SYS_clone, vec![0x1000_0000 | 17, 0, 0, 0, 0], EPERM, "CLONE_NEWUSER"),
        (libc::SYS_clone, vec![0x4000_0000 | 17, 0, 0, 0, 0], EPERM, "CLONE_NEWNET"),
        (libc::SYS_clone, vec![0x0002_0000 | HIGH, 0, 0, 0, 0], EPERM, "CLONE_NEWNS"),
        // CLONE_THREAD without CLONE_VM: the kernel refuses it, after the filter let it through.
        (libc::SYS_clone, vec![0x0001_0000, 0, 0, 0, 0], EINVAL, "plain clone"),
        (libc::SYS_clone3, vec![0, 88], ENOSYS, "clone3"),
        (libc::SYS_prctl, vec![39, 0, 0, 0, 0], ok, "PR_GET_NO_NEW_PRIVS"),
        (libc::SYS_prctl, vec![35, 1, 0, 0, 0], EINVAL, "PR_SET_MM"),
        (libc::SYS_prctl, vec![62, 0, 0, 0, 0], EINVAL, "PR_SCHED_CORE"),
        (libc::SYS_personality, vec![0xffff_ffff], ok, "personality, asked"),
        (libc::SYS_personality, vec![0x4_0000], EPERM, "ADDR_NO_RANDOMIZE"),
        (libc::SYS_getppid, vec![], ok, "getppid"),
        (9999, vec![], ENOSYS, "a call that nobody knows"),
        (452, vec![99, 0, 0, 0x1000], libc::EFAULT, "fchmodat2, newer than libseccomp, is let through"),
        (libc::SYS_chmod, vec![0, 0o755], libc::EFAULT, "an ordinary mode"),
        (libc::SYS_chmod, vec![0, 0o4755], EPERM, "a setuid file"),
        (libc::SYS_fchmodat, vec![99, 0, 0o2755 | HIGH], EPERM, "a setgid file, upper half set"),
        (libc::SYS_openat, vec![99, 0, 0o102, 0o4755], EPERM, "making a setuid file"),
        (
            libc::SYS_openat,
            vec![99, 0, 0, 0o4755],
            libc::EFAULT,
            "opening without making: the mode means nothing",
        ),
        (0x4000_0000 | 39, vec![], ENOSYS, "getpid of the x32 ABI"),
        (-1, vec![], ENOSYS, "no call at all"),
    ];
    let calls: Vec<_> = cases
        .iter()
        .map(|(call, args, ..)| (u32::try_from(*call & 0xffff_ffff).unwrap(), args.clone()))
        .collect();
    let report = probe(&filter, &calls, &[], &std::env::temp_dir());
    for ((.., errno, what), (value, got)) in cases.iter().zip(&report.results) {
        let answer = if *value == -1 { *got } else { ok };
        // A kernel without fchmodat2 says ENOSYS, and one that checks flags first EINVAL: neither is the filter's EPERM.
        if what.starts_with("fchmodat2") {
            assert_ne!(answer, EPERM, "{what}");
        } else {
            assert_eq!(answer, *errno, "{what}");
        }
    }
    for call in [libc::SYS_clone3, libc::SYS_prctl] {
        assert!(!report.reported.contains(&nr(call)), "unsupported calls are not worth a report");
    }
    assert!(
        report.reported.contains(&nr(libc::SYS_socket)) && report.reported.contains(&nr(libc::SYS_ioctl))
    );
}

#[test]
fn profiles_differ_as_they_say() {
    if !python() {
        return;
    }
    let calls = vec![
        (nr(libc::SYS_socket), vec![2, 1, 0]),
        (nr(libc::SYS_listen), vec![99, 1]),
        (nr(libc::SYS_bind), vec![99, 0, 0]),
        (nr(libc::SYS_chown), vec![0, 0, 0]),
        (nr(libc::SYS_socketpair), vec![1, 1, 0, 0]),
    ];
    let errnos = |name: &str| -> Vec<i32> {
        probe(&load(name).1, &calls, &[], &std::env::temp_dir()).results.iter().map(|r| r.1).collect()
    };
    assert_eq!(errnos("default-restrictive"), [0, libc::EBADF, libc::EBADF, libc::EFAULT, libc::EFAULT]);
    assert_eq!(errnos("network-client"), [0, EPERM, libc::EBADF, libc::EFAULT, libc::EFAULT]);
    assert_eq!(errnos("tool-strict"), [EPERM, EPERM, EPERM, EPERM, libc::EFAULT]);
}

#[test]
fn the_default_profile_is_of_the_size_that_it_claims() {
    let (profile, filter) = load("default-restrictive");
    assert!((270..=310).contains(&profile.allowed_count()), "{}", profile.allowed_count());
    assert!(filter.instructions() < 1200, "{}", filter.instructions());
    assert!(profile.groups().iter().all(|g| g.reason().len() >= 10));
    // What runs all the time must not go through the listener.
    for hot in [libc::SYS_clone3, libc::SYS_futex, libc::SYS_openat, libc::SYS_prctl] {
        assert!(filter.notify.iter().all(|&(n, _)| n != nr(hot)), "{hot}");
    }
}
