//! Init's own seccomp filter: what it needs once the agent runs, and nothing else.

const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
const KILL_PROCESS: u32 = 0x8000_0000;
const LOAD_WORD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;
const OFFSET_NR: u32 = 0;
const OFFSET_ARCH: u32 = 4;

#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xc000_00b7;

const ALLOWED: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_pwrite64,
    libc::SYS_ppoll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    libc::SYS_ioctl,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_fallocate,
    libc::SYS_pread64,
    libc::SYS_ftruncate,
    libc::SYS_pidfd_send_signal,
    libc::SYS_kill,
    libc::SYS_close,
    libc::SYS_exit_group,
    libc::SYS_exit,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_write,
    libc::SYS_clock_gettime,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_tgkill,
    libc::SYS_getuid,
    libc::SYS_getgid,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
];

/// Beside a task's folder. Which files it is about is Landlock's to say.
const FOR_TASKS: &[libc::c_long] = &[
    libc::SYS_openat2,
    libc::SYS_openat,
    libc::SYS_getdents64,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_unlinkat,
    libc::SYS_fdatasync,
    libc::SYS_sync_file_range,
];

/// A binary search. When a filter is loaded the kernel tries it with every call's number: a list would take it six times as
/// long.
fn search(numbers: &[u32], put: &mut impl FnMut(u16, u8, u8, u32)) {
    if let [] | [_] = numbers {
        // The refusal is stepped over; the number of none is not one of a call.
        put(JUMP_EQUAL, 1, 0, numbers.first().copied().unwrap_or(u32::MAX));
        put(RETURN, 0, 0, ERRNO | libc::EPERM.unsigned_abs());
        return put(RETURN, 0, 0, ALLOW);
    }
    let (below, above) = numbers.split_at(numbers.len() / 2);
    let over = u8::try_from(3 * below.len() + below.len() - 1).unwrap_or(u8::MAX);
    put(JUMP_GREATER_OR_EQUAL, over, 0, above[0]);
    search(below, put);
    search(above, put);
}

pub(crate) fn program(task: bool) -> Vec<u8> {
    let allowed: Vec<_> = ALLOWED.iter().chain(FOR_TASKS.iter().filter(|_| task)).copied().collect();
    let mut out = Vec::with_capacity((allowed.len() + 6) * 8);
    let mut put = |code: u16, on_true: u8, on_false: u8, value: u32| {
        out.extend_from_slice(&code.to_ne_bytes());
        out.extend_from_slice(&[on_true, on_false]);
        out.extend_from_slice(&value.to_ne_bytes());
    };
    put(LOAD_WORD, 0, 0, OFFSET_ARCH);
    put(JUMP_EQUAL, 1, 0, ARCH);
    put(RETURN, 0, 0, KILL_PROCESS);
    put(LOAD_WORD, 0, 0, OFFSET_NR);
    let mut numbers: Vec<u32> = allowed.iter().filter_map(|&nr| u32::try_from(nr).ok()).collect();
    numbers.sort_unstable();
    search(&numbers, &mut put);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the program answers for a call of this machine.
    fn answer(program: &[u8], nr: u32) -> u32 {
        let (mut at, mut loaded) = (0, 0);
        loop {
            let one = &program[at * 8..at * 8 + 8];
            let code = u16::from_ne_bytes([one[0], one[1]]);
            let value = u32::from_ne_bytes([one[4], one[5], one[6], one[7]]);
            let jump = |holds: bool| usize::from(if holds { one[2] } else { one[3] });
            match code {
                LOAD_WORD => loaded = if value == OFFSET_NR { nr } else { ARCH },
                JUMP_EQUAL => at += jump(loaded == value),
                JUMP_GREATER_OR_EQUAL => at += jump(loaded >= value),
                RETURN => return value,
                _ => panic!("{code:#x}"),
            }
            at += 1;
        }
    }

    #[test]
    fn what_is_listed_is_allowed_and_nothing_else() {
        for task in [false, true] {
            let program = program(task);
            for nr in (0..1024).chain([0x4000_0000, u32::MAX]) {
                let listed = ALLOWED
                    .iter()
                    .chain(FOR_TASKS.iter().filter(|_| task))
                    .any(|&n| u32::try_from(n) == Ok(nr));
                assert_eq!(answer(&program, nr) == ALLOW, listed, "{nr}");
            }
        }
    }
}
