//! System calls that more than one part of AION must know by name.

/// Without these no program can be started, run and ended: every seccomp profile allows them, and a learned one keeps them.
pub const NEEDED_CALLS: &[&str] = &[
    "execve",
    "execveat",
    "exit",
    "exit_group",
    "rt_sigreturn",
    "read",
    "write",
    "close",
    "mmap",
    "munmap",
    "mprotect",
    "brk",
    "futex",
    "sendmsg",
];
