//! Names that a profile may use: errnos, argument constants, and system calls newer than the installed libseccomp.

use std::fmt;

use libseccomp::{ScmpArch, ScmpSyscall};

/// An errno, shown by its name.
pub(crate) struct Errno(pub(crate) i32);

macro_rules! errnos {
    ($($name:ident),*) => {
        const ERRNOS: &[(&str, i32)] = &[$((stringify!($name), libc::$name)),*];
    };
}
// What system calls plausibly answer when they are refused.
errnos!(
    EPERM,
    ENOENT,
    ESRCH,
    EBADF,
    EAGAIN,
    EACCES,
    ENODEV,
    EINVAL,
    ENOTTY,
    ENOSYS,
    EPROTONOSUPPORT,
    EOPNOTSUPP,
    EAFNOSUPPORT,
    ENOPROTOOPT
);

impl Errno {
    pub(crate) fn parse(name: &str) -> Result<i32, String> {
        ERRNOS.iter().find(|(n, _)| *n == name).map(|(_, e)| *e).ok_or_else(|| {
            let known: Vec<&str> = ERRNOS.iter().map(|(n, _)| *n).collect();
            format!(
                "{:?} is not an errno that a rule may give; use one of {}",
                shorten(name),
                known.join(", ")
            )
        })
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match ERRNOS.iter().find(|(_, e)| *e == self.0) {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

macro_rules! constants {
    ($($name:ident),* ; $($own:literal = $value:expr),* $(,)?) => {
        /// `as u32` keeps the bits: the kernel, too, sees an `int` as 32 bits.
        #[allow(clippy::cast_sign_loss, clippy::cast_possible_truncation, reason = "bit patterns, not quantities")]
        #[allow(clippy::unnecessary_cast, reason = "libc's types differ from constant to constant")]
        const CONSTANTS: &[(&str, u64)] = &[
            $((stringify!($name), libc::$name as u32 as u64),)*
            $(($own, $value),)*
        ];
    };
}
constants!(
    AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_VSOCK, AF_ALG, AF_XDP,
    SOCK_STREAM, SOCK_DGRAM, SOCK_RAW, SOCK_SEQPACKET,
    IPPROTO_IP, IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_ICMPV6, IPPROTO_MPTCP,
    NETLINK_ROUTE,
    CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET,
    CLONE_THREAD, CLONE_PTRACE,
    TIOCSTI, TIOCLINUX, TIOCSETD, TIOCCONS,
    PROT_EXEC, PROT_WRITE, MAP_SHARED,
    PR_SET_PDEATHSIG, PR_GET_PDEATHSIG, PR_GET_DUMPABLE, PR_SET_DUMPABLE, PR_GET_KEEPCAPS, PR_SET_KEEPCAPS,
    PR_GET_TIMING, PR_SET_NAME, PR_GET_NAME, PR_GET_SECCOMP, PR_SET_SECCOMP, PR_CAPBSET_READ, PR_CAPBSET_DROP,
    PR_GET_TSC, PR_GET_SECUREBITS, PR_SET_TIMERSLACK, PR_GET_TIMERSLACK, PR_SET_CHILD_SUBREAPER,
    PR_GET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS, PR_GET_TID_ADDRESS, PR_SET_THP_DISABLE,
    PR_GET_THP_DISABLE, PR_CAP_AMBIENT, PR_SET_MM
    ;
    "PR_GET_SPECULATION_CTRL" = 52, "PR_SET_SPECULATION_CTRL" = 53, "PR_SET_MDWE" = 65, "PR_GET_MDWE" = 66,
    "PR_SET_VMA" = 0x5356_4d41, "PR_GET_AUXV" = 0x4155_5856, "PR_SET_PTRACER" = 0x5961_6d61,
    "PER_LINUX" = 0, "PER_LINUX32" = 8, "UNAME26" = 0x2_0000, "ADDR_NO_RANDOMIZE" = 0x4_0000,
    "PER_QUERY" = 0xffff_ffff, "SOCK_TYPE_MASK" = 0xf,
);

/// The value of a constant, or of a hexadecimal text.
pub(crate) fn constant(text: &str) -> Result<u64, String> {
    if let Some(hex) = text.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16)
            .map_err(|_| format!("{:?} is not a 64-bit number", shorten(text)));
    }
    CONSTANTS.iter().find(|(n, _)| *n == text).map(|(_, v)| *v).ok_or_else(|| {
        format!("{:?} is not a constant that rules know; write its number, as 27 or \"0x1b\"", shorten(text))
    })
}

/// System calls that came after libseccomp 2.5.4 (Debian 12). From 424 on, all architectures share the numbers.
const NEWER: &[(&str, u32)] = &[
    ("set_mempolicy_home_node", 450),
    ("cachestat", 451),
    ("fchmodat2", 452),
    ("map_shadow_stack", 453),
    ("futex_wake", 454),
    ("futex_wait", 455),
    ("futex_requeue", 456),
    ("statmount", 457),
    ("listmount", 458),
    ("lsm_get_self_attr", 459),
    ("lsm_set_self_attr", 460),
    ("lsm_list_modules", 461),
    ("mseal", 462),
    ("setxattrat", 463),
    ("getxattrat", 464),
    ("listxattrat", 465),
    ("removexattrat", 466),
    ("open_tree_attr", 467),
    ("file_getattr", 468),
    ("file_setattr", 469),
];

/// The number of a system call on x86_64.
pub(crate) fn syscall(name: &str) -> Result<u32, String> {
    if let Some((_, nr)) = NEWER.iter().find(|(n, _)| *n == name) {
        return Ok(*nr);
    }
    // A NUL would make libseccomp's binding panic; nothing else but these characters is in a name.
    let plausible = !name.is_empty()
        && name.len() <= 64
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    let number = plausible
        .then(|| ScmpSyscall::from_name_by_arch(name, ScmpArch::X8664).ok())
        .flatten()
        .and_then(|s| u32::try_from(s.as_raw_syscall()).ok());
    number.ok_or_else(|| format!("{:?} is not a system call of x86_64", shorten(name)))
}

/// Enough of a text to recognise it in a message.
pub(crate) fn shorten(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_their_numbers() {
        assert_eq!(syscall("read"), Ok(0));
        assert_eq!(syscall("clone3"), Ok(435));
        assert_eq!(syscall("mseal"), Ok(462));
        for bad in ["", "reed", "recv", "read\0", "READ", &"x".repeat(100)] {
            assert!(syscall(bad).is_err(), "{bad}");
        }
        assert_eq!(constant("0x5412"), Ok(0x5412));
        assert_eq!(constant("TIOCSTI"), Ok(0x5412));
        assert_eq!(constant("PR_SET_VMA"), Ok(0x5356_4d41));
        assert!(constant("0xfffffffffffffffff").is_err());
        assert!(constant("AF_NOPE").is_err());
        assert_eq!(Errno::parse("EPERM"), Ok(1));
        assert!(Errno::parse("EWHAT").is_err());
    }
}
