//! The machine as a whole: its clock, name, ports, swap, accounts, quotas, power.

use crate::attempt::{Attempt, Control};
use crate::sys::{self, Stop, Tried, reached, sc};

fn entitled(result: Result<usize, Stop>, past: &[i32], what: &str) -> Tried {
    match result {
        Err(stop) if past.contains(&stop.errno) => {
            reached(format!("{what} ({stop}: only the argument was wrong)"))
        }
        Err(stop) => Err(stop),
        Ok(_) => reached(what),
    }
}

pub(super) fn all() -> Vec<Attempt> {
    vec![
        Attempt::new("clock-settime", "clock_settime(2)", "seccomp", |_| {
            let mut now = [0_i64; 2];
            sc!("clock_gettime(2)", libc::SYS_clock_gettime, libc::CLOCK_REALTIME, now.as_mut_ptr())?;
            sc!("clock_settime(2)", libc::SYS_clock_settime, libc::CLOCK_REALTIME, now.as_ptr())?;
            reached("the machine's clock was set")
        }),
        Attempt::new("settimeofday", "settimeofday(2) of the time zone, to what it is", "seccomp", |_| {
            let mut zone = [0_i32; 2];
            sc!("gettimeofday(2)", libc::SYS_gettimeofday, 0, zone.as_mut_ptr())?;
            sc!("settimeofday(2)", libc::SYS_settimeofday, 0, zone.as_ptr())?;
            reached("the machine's time zone was set")
        }),
        Attempt::new("adjtimex", "adjtimex(2) of the clock's tick, to what it is", "seccomp", |_| {
            adjust("adjtimex(2)", |timex| sc!("adjtimex(2)", libc::SYS_adjtimex, timex))
        }),
        Attempt::new(
            "clock-adjtime",
            "clock_adjtime(2) of the clock's tick, to what it is",
            "seccomp",
            |_| {
                adjust("clock_adjtime(2)", |timex| {
                    sc!("clock_adjtime(2)", libc::SYS_clock_adjtime, libc::CLOCK_REALTIME, timex)
                })
            },
        ),
        Attempt::new("sethostname", "sethostname(2)", "seccomp", |_| {
            sc!("sethostname(2)", libc::SYS_sethostname, c"escaped".as_ptr(), 7)?;
            reached("another host name")
        })
        .control(Control::Fresh(libc::CLONE_NEWUTS)),
        Attempt::new("setdomainname", "setdomainname(2)", "seccomp", |_| {
            sc!("setdomainname(2)", libc::SYS_setdomainname, c"escaped".as_ptr(), 7)?;
            reached("another domain name")
        })
        .control(Control::Fresh(libc::CLONE_NEWUTS)),
        Attempt::new("ioperm", "ioperm(2): the processor's I/O ports", "seccomp", |_| {
            sc!("ioperm(2)", libc::SYS_ioperm, 0x80, 1, 1)?;
            reached("port 0x80")
        }),
        Attempt::new("iopl", "iopl(2): all I/O ports", "seccomp", |_| {
            sc!("iopl(2)", libc::SYS_iopl, 3)?;
            reached("all ports")
        }),
        Attempt::new("reboot", "reboot(2), with a wrong key so that nothing happens", "seccomp", |_| {
            entitled(
                sc!("reboot(2)", libc::SYS_reboot, 0, 0, 0, 0),
                &[libc::EINVAL],
                "the machine would reboot",
            )
        }),
        Attempt::new("swapon", "swapon(2) of a file that is not there", "seccomp", |_| {
            entitled(
                sc!("swapon(2)", libc::SYS_swapon, c"/nonexistent/swap".as_ptr(), 0),
                &[libc::ENOENT],
                "memory could be written to a disk of its choice",
            )
        }),
        Attempt::new("swapoff", "swapoff(2) of a file that is not there", "seccomp", |_| {
            entitled(
                sc!("swapoff(2)", libc::SYS_swapoff, c"/nonexistent/swap".as_ptr()),
                &[libc::ENOENT],
                "swap could be taken away",
            )
        }),
        Attempt::new("acct", "acct(2): process accounting to a file that is not there", "seccomp", |_| {
            entitled(
                sc!("acct(2)", libc::SYS_acct, c"/nonexistent/acct".as_ptr()),
                &[libc::ENOENT],
                "every process of the machine would be written to a file",
            )
        }),
        Attempt::new("quotactl", "quotactl(2)", "seccomp", |_| {
            // Q_SYNC of all
            sc!("quotactl(2)", libc::SYS_quotactl, 0x8000_0100_u32, 0, 0, 0)?;
            reached("the quotas of the machine")
        }),
        Attempt::new("vhangup", "vhangup(2) of the terminal", "seccomp", |_| {
            sc!("setsid(2)", libc::SYS_setsid)
                .map(drop)
                .or_else(|s| if s.errno == libc::EPERM { Ok(()) } else { Err(s) })?;
            sc!("vhangup(2)", libc::SYS_vhangup)?;
            reached("the terminal hung up")
        }),
        Attempt::new(
            "realtime",
            "sched_setscheduler(2): a real-time process that nothing interrupts",
            "rlimits, capabilities",
            |_| {
                let priority = 1_i32;
                sc!(
                    "sched_setscheduler(2)",
                    libc::SYS_sched_setscheduler,
                    0,
                    libc::SCHED_FIFO,
                    &raw const priority
                )?;
                reached("real-time priority")
            },
        ),
        Attempt::new("nice", "setpriority(2) above everybody else", "rlimits, capabilities", |_| {
            sc!("setpriority(2)", libc::SYS_setpriority, libc::PRIO_PROCESS, 0, -20_i32)?;
            reached("nice -20")
        }),
        Attempt::new("ioprio", "ioprio_set(2): real-time disk priority", "capabilities", |_| {
            sc!("ioprio_set(2)", libc::SYS_ioprio_set, 1, 0, 1 << 13)?;
            reached("real-time disk priority")
        }),
        Attempt::new("mlock", "locking 32 MiB so that they can never be swapped out", "rlimits", |_| {
            let memory = vec![0_u8; 32 << 20];
            sc!("mlock(2)", libc::SYS_mlock, memory.as_ptr(), memory.len())?;
            reached("32 MiB locked")
        }),
        Attempt::new("raise-nofile", "raising the hard limit of open files", "capabilities", |_| {
            let mut limit = [0_u64; 2];
            sc!("prlimit64(2)", libc::SYS_prlimit64, 0, libc::RLIMIT_NOFILE, 0, limit.as_mut_ptr())?;
            limit[1] += 1;
            sc!("prlimit64(2)", libc::SYS_prlimit64, 0, libc::RLIMIT_NOFILE, limit.as_ptr(), 0)?;
            reached("a higher hard limit")
        })
        // A container whose root lacks CAP_SYS_RESOURCE cannot show it.
        .absent(&[libc::EPERM]),
        Attempt::new("add-address", "giving a network interface another address", "capabilities", |_| {
            let socket = sys::socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
            // struct ifreq: lo, and 10.9.9.9
            let mut request = [0_u8; 40];
            request[..2].copy_from_slice(b"lo");
            request[16] = libc::AF_INET as u8;
            request[20..24].copy_from_slice(&[10, 9, 9, 9]);
            sys::ioctl("SIOCSIFADDR", &socket, libc::SIOCSIFADDR, request.as_ptr() as usize)?;
            reached("another address")
        })
        .control(Control::Fresh(libc::CLONE_NEWNET)),
    ]
}

/// `struct timex` with ADJ_TICK and the tick that it has.
fn adjust(what: &str, call: impl Fn(*mut libc::timex) -> Result<usize, Stop>) -> Tried {
    // SAFETY: a structure of numbers, for which zero is a value.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    call(&raw mut timex)?;
    timex.modes = libc::ADJ_TICK;
    call(&raw mut timex)?;
    reached(format!("{what} sets the clock's speed"))
}
