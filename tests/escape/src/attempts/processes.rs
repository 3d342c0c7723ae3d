//! Other processes: tracing, reading, signalling, taking their descriptors.

use std::os::fd::AsRawFd;

use crate::attempt::Attempt;
use crate::sys::{self, Stop, reached, sc};
use crate::target::Targets;

const TRACE: &str = "seccomp";

pub(super) fn all() -> Vec<Attempt> {
    vec![
        Attempt::new("ptrace-attach", "ptrace(2) that attaches to init", TRACE, |t| {
            sc!("ptrace(PTRACE_ATTACH)", libc::SYS_ptrace, libc::PTRACE_ATTACH, t.init, 0, 0)?;
            reached("init is traced")
        }),
        Attempt::new("ptrace-seize", "ptrace(2) that seizes init", TRACE, |t| {
            sc!("ptrace(PTRACE_SEIZE)", libc::SYS_ptrace, libc::PTRACE_SEIZE, t.init, 0, 0)?;
            reached("init is traced")
        }),
        Attempt::new(
            "ptrace-child",
            "ptrace(2) of its own child, with which a filter's verdict can be changed between check and use",
            TRACE,
            |_| {
                sys::in_child("ptrace(PTRACE_TRACEME)", || {
                    sc!("ptrace", libc::SYS_ptrace, libc::PTRACE_TRACEME, 0, 0, 0).map(drop)
                })
            },
        ),
        Attempt::new("process-vm-readv", "process_vm_readv(2) from init", TRACE, |t| {
            vm(t, libc::SYS_process_vm_readv)
        }),
        Attempt::new("process-vm-writev", "process_vm_writev(2) into init", TRACE, |t| {
            vm(t, libc::SYS_process_vm_writev)
        }),
        Attempt::new("kcmp", "kcmp(2) with init, to learn what is shared with it", TRACE, |t| {
            sc!("kcmp(2)", libc::SYS_kcmp, sys::getpid(), t.init, 2, 0, 0)?;
            reached("init was compared with")
        }),
        Attempt::new("pidfd-getfd", "pidfd_getfd(2): a copy of init's descriptor", TRACE, |t| {
            let pidfd = sys::fd(sc!("pidfd_open(2)", libc::SYS_pidfd_open, t.init, 0)?);
            drop(sys::fd(sc!("pidfd_getfd(2)", libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), 0, 0)?));
            reached("init's descriptor 0")
        }),
        Attempt::new("process-madvise", "process_madvise(2) on init's memory", TRACE, |t| {
            let pidfd = sys::fd(sc!("pidfd_open(2)", libc::SYS_pidfd_open, t.init, 0)?);
            let (address, length) = mapping(t)?;
            let vector = [address, length];
            // MADV_COLD
            sc!(
                "process_madvise(2)",
                libc::SYS_process_madvise,
                pidfd.as_raw_fd(),
                vector.as_ptr(),
                1,
                20,
                0
            )?;
            reached("advice on init's memory")
        }),
        Attempt::new("move-pages", "move_pages(2): where init's pages are", TRACE, |t| {
            let (address, _) = mapping(t)?;
            let (pages, mut status) = ([address], [0_i32; 1]);
            sc!("move_pages(2)", libc::SYS_move_pages, t.init, 1, pages.as_ptr(), 0, status.as_mut_ptr(), 0)?;
            reached("the node of init's page")
        }),
        Attempt::new("kill-host", "kill(2) of a process on the host", "namespaces", |t| {
            sys::kill(t.bystander, 0)?;
            reached("the bystander can be signalled")
        }),
        Attempt::new("tgkill-host", "tgkill(2) of a process on the host", "namespaces", |t| {
            sc!("tgkill(2)", libc::SYS_tgkill, t.bystander, t.bystander, 0)?;
            reached("the bystander can be signalled")
        }),
        Attempt::new("sigqueue-host", "rt_sigqueueinfo(2) to a process on the host", "namespaces", |t| {
            let mut info = [0_i32; 32];
            (info[0], info[2]) = (libc::SIGCONT, libc::SI_QUEUE);
            sc!("rt_sigqueueinfo(2)", libc::SYS_rt_sigqueueinfo, t.bystander, libc::SIGCONT, info.as_ptr())?;
            reached("a signal arrived")
        }),
        Attempt::new(
            "pidfd-signal-host",
            "pidfd_send_signal(2) to a process on the host",
            "namespaces",
            |t| {
                let pidfd = sys::fd(sc!("pidfd_open(2)", libc::SYS_pidfd_open, t.bystander, 0)?);
                sc!(
                    "pidfd_send_signal(2)",
                    libc::SYS_pidfd_send_signal,
                    pidfd.as_raw_fd(),
                    libc::SIGCONT,
                    0,
                    0
                )?;
                reached("a signal arrived")
            },
        ),
        Attempt::new(
            "kill-init",
            "kill(2) of init, which holds the agent's output",
            "namespaces (another user's process)",
            |t| {
                sys::kill(t.init, libc::SIGCONT)?;
                reached("init can be signalled")
            },
        ),
        Attempt::new("prlimit-init", "prlimit64(2) of init", "namespaces (another user's process)", |t| {
            let limit = [64_u64, 64];
            sc!("prlimit64(2)", libc::SYS_prlimit64, t.init, libc::RLIMIT_NOFILE, limit.as_ptr(), 0)?;
            reached("init's limits changed")
        })
        // A container whose root lacks CAP_SYS_RESOURCE may still lower its own processes' limits.
        .absent(&[libc::ENOSYS]),
        Attempt::new("priority-init", "setpriority(2) of init", "namespaces (another user's process)", |t| {
            sc!("setpriority(2)", libc::SYS_setpriority, libc::PRIO_PROCESS, t.init, 19)?;
            reached("init has become slow")
        }),
        Attempt::new("mrelease", "process_mrelease(2): another process's memory", TRACE, |t| {
            let pidfd = sys::fd(sc!("pidfd_open(2)", libc::SYS_pidfd_open, t.init, 0)?);
            match sc!("process_mrelease(2)", libc::SYS_process_mrelease, pidfd.as_raw_fd(), 0) {
                // It is let in, and told that this process is not being killed.
                Err(stop) if stop.errno == libc::EINVAL => reached("the kernel would reap a dying process"),
                other => other.and_then(|_| reached("memory was reaped")),
            }
        }),
    ]
}

/// The beginning of init's stack mapping: where it may be read, from /proc; else the usual place.
fn mapping(t: &Targets) -> Result<(usize, usize), Stop> {
    let path = format!("/proc/{}/maps", t.init);
    let Ok(text) = std::fs::read_to_string(path) else { return Ok((0x7fff_0000_0000, 4096)) };
    let line =
        text.lines().find(|l| l.ends_with("[stack]")).ok_or_else(|| Stop::because("no stack is mapped"))?;
    let end = line.split(['-', ' ']).nth(1).unwrap_or_default();
    let end = usize::from_str_radix(end, 16).map_err(|_| Stop::because("maps cannot be read"))?;
    Ok((end - 4096, 4096))
}

fn vm(t: &Targets, nr: libc::c_long) -> crate::sys::Tried {
    let (address, length) = mapping(t)?;
    let mut page = vec![0_u8; length];
    // Eight bytes at the very end of a stack are never used.
    let (local, remote) = ([page.as_mut_ptr() as usize, 8], [address + length - 8, 8]);
    sc!("process_vm(2)", nr, t.init, local.as_ptr(), 1, remote.as_ptr(), 1, 0)?;
    reached("init's memory")
}
