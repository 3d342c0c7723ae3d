//! New namespaces, and other processes' namespaces.

use std::os::fd::AsRawFd;

use crate::attempt::{Attempt, Control};
use crate::sys::{self, Tried, at, reached, sc};
use crate::target::Targets;

const NEWTIME: i32 = 0x80;
const KINDS: &[(&str, i32)] = &[
    ("user", libc::CLONE_NEWUSER),
    ("mnt", libc::CLONE_NEWNS),
    ("pid", libc::CLONE_NEWPID),
    ("net", libc::CLONE_NEWNET),
    ("ipc", libc::CLONE_NEWIPC),
    ("uts", libc::CLONE_NEWUTS),
    ("cgroup", libc::CLONE_NEWCGROUP),
    ("time", NEWTIME),
];

/// `struct clone_args` of clone3(2).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

pub(super) fn unshare_and_clone() -> Vec<Attempt> {
    let mut attempts = Vec::new();
    for &(name, flag) in KINDS {
        attempts.push(Attempt::new(
            format!("unshare-{name}"),
            format!("unshare(2) of the {name} namespace"),
            "seccomp",
            move |_| sys::unshare(flag).and_then(|()| reached("a new namespace")),
        ));
        // In clone(2) the bit of CLONE_NEWTIME belongs to the exit signal.
        if flag != NEWTIME {
            attempts.push(Attempt::new(
                format!("clone-{name}"),
                format!("clone(2) into a new {name} namespace"),
                "seccomp",
                move |_| {
                    sys::spawned(sc!("clone(2)", libc::SYS_clone, flag | libc::SIGCHLD, 0, 0, 0, 0)?);
                    reached("a process in a new namespace")
                },
            ));
        }
        attempts.push(Attempt::new(
            format!("clone3-{name}"),
            format!(
                "clone3(2) into a new {name} namespace: its flags are in memory, out of a filter's sight"
            ),
            "seccomp",
            move |_| clone3(CloneArgs { flags: flag as u64, ..CloneArgs::default() }),
        ));
    }
    attempts.push(
        Attempt::new(
            "unshare-user-map",
            "a new user namespace in which the caller is root",
            "seccomp",
            |_| {
                sys::unshare(libc::CLONE_NEWUSER)?;
                std::fs::write("/proc/self/setgroups", "deny").map_err(at("/proc/self/setgroups"))?;
                std::fs::write("/proc/self/uid_map", "0 65534 1").map_err(at("/proc/self/uid_map"))?;
                reached("root in a namespace of its own")
            },
        )
        .control(Control::User),
    );
    attempts.push(
        Attempt::new(
            "clone3-into-cgroup",
            "clone3(2) with CLONE_INTO_CGROUP, out of the agent's cgroup",
            "seccomp",
            |_| {
                let root = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
                    .into_iter()
                    .find(|p| std::path::Path::new(p).join("cgroup.procs").exists())
                    .map_or_else(|| sys::open("/", libc::O_RDONLY), |p| sys::open(p, libc::O_RDONLY))?;
                let cgroup = root.as_raw_fd() as u64;
                clone3(CloneArgs { flags: 0x2_0000_0000, cgroup, ..CloneArgs::default() })
            },
        )
        .absent(&[libc::ENOSYS, libc::EBADF]),
    );
    attempts.push(Attempt::new(
        "clone3-set-tid",
        "clone3(2) with a chosen process number, as a way to meet a number that somebody still trusts",
        "seccomp",
        |_| {
            // On a host that lives long somebody may have the number.
            let with = |tid: i32| {
                let set_tid = &raw const tid as u64;
                clone3(CloneArgs { set_tid, set_tid_size: 1, ..CloneArgs::default() })
            };
            let taken = |tid: &i32| std::path::Path::new(&format!("/proc/{tid}")).exists();
            with((31_000..32_000).rev().find(|tid| !taken(tid)).unwrap_or(31_999))
        },
    ));
    attempts
}

fn clone3(mut args: CloneArgs) -> Tried {
    args.exit_signal = libc::SIGCHLD as u64;
    sys::spawned(sc!("clone3(2)", libc::SYS_clone3, &raw const args, size_of::<CloneArgs>())?);
    reached("a new process")
}

pub(super) fn setns() -> Vec<Attempt> {
    let mut attempts: Vec<Attempt> = KINDS
        .iter()
        .map(|&(name, flag)| {
            Attempt::new(
                format!("setns-{name}"),
                format!("setns(2) into init's {name} namespace"),
                "namespaces (another user's process), seccomp",
                move |t: &Targets| {
                    let file = sys::open(&format!("/proc/{}/ns/{name}", t.init_apart), libc::O_RDONLY)?;
                    sc!("setns(2)", libc::SYS_setns, file.as_raw_fd(), flag)?;
                    reached("another process's namespace")
                },
            )
            .absent(&[libc::ENOENT, libc::ENOSYS])
        })
        .collect();
    attempts.push(Attempt::new(
        "setns-own-user",
        "setns(2) with the caller's own mount namespace, which needs no other process",
        "seccomp",
        |_| {
            let file = sys::open("/proc/self/ns/mnt", libc::O_RDONLY)?;
            sc!("setns(2)", libc::SYS_setns, file.as_raw_fd(), 0)?;
            reached("setns was performed")
        },
    ));
    attempts.push(Attempt::new(
        "setns-pidfd",
        "setns(2) into all of init's namespaces by pidfd",
        "seccomp",
        |t| {
            let pidfd = sys::fd(sc!("pidfd_open(2)", libc::SYS_pidfd_open, t.init_apart, 0)?);
            let flags = libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWUTS;
            sc!("setns(2) by pidfd", libc::SYS_setns, pidfd.as_raw_fd(), flags)?;
            reached("init's namespaces")
        },
    ));
    attempts.push(
        Attempt::new(
            "pidfd-get-namespace",
            "the pidfd ioctl that hands out a process's namespaces without /proc",
            "namespaces (another user's process)",
            |t| {
                let pidfd = sys::fd(sc!("pidfd_open(2)", libc::SYS_pidfd_open, t.init_apart, 0)?);
                // PIDFD_GET_NET_NAMESPACE, since Linux 6.11.
                drop(sys::fd(sys::ioctl("PIDFD_GET_NET_NAMESPACE", &pidfd, 0xFF04, 0)?));
                reached("a descriptor of init's network namespace")
            },
        )
        .absent(&[libc::EINVAL, libc::ENOTTY, libc::ENOSYS]),
    );
    attempts.push(Attempt::new(
        "namespace-parent",
        "the ioctl that gives the parent of a user namespace: the host's",
        "namespaces",
        |t| {
            let file = sys::open(&t.user_namespace, libc::O_RDONLY)?;
            // NS_GET_PARENT
            drop(sys::fd(sys::ioctl("NS_GET_PARENT", &file, 0xB702, 0)?));
            reached("a descriptor of the parent's namespace")
        },
    ));
    attempts.push(Attempt::new(
        "timens-offsets",
        "shifting the clocks of a time namespace",
        "seccomp",
        |_| {
            sys::unshare(NEWTIME)?;
            std::fs::write("/proc/self/timens_offsets", "monotonic 1000 0\n")
                .map_err(at("timens_offsets"))?;
            reached("another monotonic clock")
        },
    ));
    attempts
}
