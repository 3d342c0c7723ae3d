//! The kernel's own machinery: programs for it, code in it, and its other system call tables.

use std::arch::asm;

use crate::attempt::{Attempt, Control};
use crate::sys::{self, Stop, Tried, reached, sc};

/// Errors that come after the check of rights: the kernel would have done it for better arguments.
fn entitled(result: Result<usize, Stop>, past: &[i32], what: &str) -> Tried {
    match result {
        Err(stop) if past.contains(&stop.errno) => {
            reached(format!("{what} ({stop}: only the argument was wrong)"))
        }
        Err(stop) => Err(stop),
        Ok(_) => reached(what),
    }
}

pub(super) fn programs() -> Vec<Attempt> {
    vec![
        Attempt::new("bpf-map", "bpf(2) that makes a map", "seccomp", |_| {
            // BPF_MAP_CREATE of an array: type, key size, value size, entries
            let attributes = [2_u32, 4, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            drop(sys::fd(sc!("bpf(BPF_MAP_CREATE)", libc::SYS_bpf, 0, attributes.as_ptr(), 64)?));
            reached("a BPF map")
        }),
        Attempt::new("bpf-program", "bpf(2) that loads a socket filter", "seccomp", |_| {
            // mov r0, 0; exit
            let program = [0x0000_0000_0000_00b7_u64, 0x0000_0000_0000_0095];
            let license = c"GPL";
            #[repr(C)]
            struct Load(u32, u32, u64, u64, [u64; 12]);
            let attributes = Load(1, 2, program.as_ptr() as u64, license.as_ptr() as u64, [0; 12]);
            drop(sys::fd(sc!("bpf(BPF_PROG_LOAD)", libc::SYS_bpf, 5, &raw const attributes, 48)?));
            reached("a BPF program")
        }),
        Attempt::new(
            "bpf-list",
            "bpf(2) that lists the programs of others, such as those that hold agents",
            "seccomp",
            |_| {
                let mut attributes = [0_u32; 16];
                match sc!("bpf(BPF_PROG_GET_NEXT_ID)", libc::SYS_bpf, 11, attributes.as_mut_ptr(), 64) {
                    Err(stop) if stop.errno == libc::ENOENT => reached("the list, which is empty"),
                    other => other.and_then(|_| reached(format!("program {}", attributes[1]))),
                }
            },
        ),
        Attempt::new("perf-self", "perf_event_open(2) on itself", "seccomp", |_| perf(0, -1)),
        Attempt::new("perf-machine", "perf_event_open(2) on a whole processor", "seccomp", |_| perf(-1, 0)),
        Attempt::new(
            "userfaultfd",
            "userfaultfd(2), which stops the kernel in the middle of an access",
            "seccomp",
            |_| {
                drop(sys::fd(sc!("userfaultfd(2)", libc::SYS_userfaultfd, libc::O_CLOEXEC)?));
                reached("a userfaultfd")
            },
        ),
        Attempt::new(
            "io-uring",
            "io_uring_setup(2), whose operations no seccomp filter sees",
            "seccomp",
            |_| {
                let mut parameters = [0_u32; 30];
                drop(sys::fd(sc!(
                    "io_uring_setup(2)",
                    libc::SYS_io_uring_setup,
                    8,
                    parameters.as_mut_ptr()
                )?));
                reached("a ring")
            },
        ),
        Attempt::new("io-uring-register", "io_uring_register(2) without a ring", "seccomp", |_| {
            entitled(
                sc!("io_uring_register(2)", libc::SYS_io_uring_register, 999, 0, 0, 0),
                &[libc::EBADF, libc::EINVAL],
                "the call is there",
            )
        }),
        Attempt::new(
            "fanotify-content",
            "fanotify_init(2) that can hold up and deny other processes' opens",
            "seccomp",
            |_| {
                // FAN_CLASS_CONTENT
                drop(sys::fd(sc!("fanotify_init(2)", libc::SYS_fanotify_init, 4, libc::O_RDONLY)?));
                reached("a fanotify group with permission events")
            },
        ),
        Attempt::new("fanotify-mount", "fanotify_mark(2) on the whole root mount", "seccomp", |_| {
            let group = sys::fd(sc!("fanotify_init(2)", libc::SYS_fanotify_init, 0, libc::O_RDONLY)?);
            let root = c"/";
            let group = std::os::fd::AsRawFd::as_raw_fd(&group);
            // FAN_MARK_ADD | FAN_MARK_MOUNT, FAN_OPEN
            sc!(
                "fanotify_mark(2)",
                libc::SYS_fanotify_mark,
                group,
                0x11,
                0x20,
                libc::AT_FDCWD,
                root.as_ptr()
            )?;
            reached("every open below / is told")
        }),
        Attempt::new(
            "memfd-secret",
            "memfd_secret(2): pages that not even the kernel sees",
            "seccomp",
            |_| {
                drop(sys::fd(sc!("memfd_secret(2)", 447, 0)?));
                reached("secret memory")
            },
        ),
        Attempt::new(
            "modify-ldt",
            "modify_ldt(2): segments of its own, with a history of kernel bugs",
            "seccomp",
            |_| {
                // entry 0, base 0, limit 0xfff, 32 bit, in pages, usable
                let entry = [0_u32, 0, 0xfff, 0x51];
                sc!("modify_ldt(2)", libc::SYS_modify_ldt, 1, entry.as_ptr(), 16)?;
                reached("a segment")
            },
        ),
        Attempt::new("migrate-pages", "migrate_pages(2) of another process", "seccomp", |t| {
            let (old, new) = ([1_u64], [1_u64]);
            sc!("migrate_pages(2)", libc::SYS_migrate_pages, t.init, 64, old.as_ptr(), new.as_ptr())?;
            reached("init's pages can be moved")
        }),
    ]
}

fn perf(pid: i32, cpu: i32) -> Tried {
    // struct perf_event_attr: PERF_TYPE_SOFTWARE, its size, PERF_COUNT_SW_CPU_CLOCK
    let mut attributes = [0_u32; 32];
    (attributes[0], attributes[1]) = (1, 128);
    drop(sys::fd(sc!(
        "perf_event_open(2)",
        libc::SYS_perf_event_open,
        attributes.as_ptr(),
        pid,
        cpu,
        -1_i32,
        8
    )?));
    reached("a perf event")
}

pub(super) fn code() -> Vec<Attempt> {
    let junk = b"not a module\0";
    vec![
        Attempt::new("init-module", "init_module(2)", "seccomp", |_| {
            entitled(
                sc!("init_module(2)", libc::SYS_init_module, junk.as_ptr(), junk.len(), c"".as_ptr()),
                &[libc::ENOEXEC],
                "the kernel would load a module",
            )
        }),
        Attempt::new("finit-module", "finit_module(2)", "seccomp", |_| {
            entitled(
                sc!("finit_module(2)", libc::SYS_finit_module, -1_i32, c"".as_ptr(), 0),
                &[libc::EBADF, libc::ENOEXEC],
                "the kernel would load a module",
            )
        }),
        Attempt::new("delete-module", "delete_module(2)", "seccomp", |_| {
            entitled(
                sc!("delete_module(2)", libc::SYS_delete_module, c"aion_no_such".as_ptr(), libc::O_NONBLOCK),
                &[libc::ENOENT],
                "the kernel would unload a module",
            )
        }),
        Attempt::new("kexec-load", "kexec_load(2) of another kernel", "seccomp", |_| {
            // Flags that do not exist: refused after the check of rights, before anything is done.
            entitled(
                sc!("kexec_load(2)", libc::SYS_kexec_load, 0, 0, 0, 0x4000_0000),
                &[libc::EINVAL],
                "the kernel would load another",
            )
        }),
        Attempt::new("kexec-file-load", "kexec_file_load(2) of another kernel", "seccomp", |_| {
            entitled(
                sc!(
                    "kexec_file_load(2)",
                    libc::SYS_kexec_file_load,
                    -1_i32,
                    -1_i32,
                    1,
                    c"".as_ptr(),
                    0x4000_0000
                ),
                &[libc::EINVAL, libc::EBADF],
                "the kernel would load another",
            )
        }),
    ]
}

/// Filters are written for one table of system calls. The others are reached by other instructions and bits.
pub(super) fn architectures() -> Vec<Attempt> {
    let x32 = |id, what, nr: i64| {
        Attempt::new(id, format!("{what} by its x32 number"), "seccomp", move |_| {
            sc!("x32 system call", 0x4000_0000 | nr, 0).and_then(|_| reached("the x32 table"))
        })
    };
    vec![
        x32("x32-getpid", "getpid", libc::SYS_getpid),
        x32("x32-unshare", "unshare", libc::SYS_unshare),
        Attempt::new("i386-getpid", "getpid by int 0x80, with the 32-bit table", "seccomp", |_| match int80(
            20, 0, 0, 0,
        ) {
            n if n == i64::from(sys::getpid()) => reached("the 32-bit table"),
            n => Err(Stop::at("int 0x80", (-n) as i32)),
        }),
        Attempt::new("i386-unshare", "unshare by int 0x80", "seccomp", |_| {
            i386("unshare", int80(310, libc::CLONE_NEWUTS as u32, 0, 0))
        }),
        Attempt::new(
            "i386-socketcall",
            "a packet socket by int 0x80, where the arguments are in memory",
            "seccomp",
            |_| {
                let Some(arguments) = Low::new() else { return Err(Stop::last("memory below 4 GiB")) };
                arguments.put(&[libc::AF_PACKET as u32, libc::SOCK_RAW as u32, 0]);
                i386("socketcall", int80(102, 1, arguments.address(), 0))
            },
        ),
        Attempt::new("i386-ptrace", "ptrace by int 0x80", "seccomp", |_| {
            sys::in_child("ptrace by int 0x80", || {
                i386("ptrace", int80(26, libc::PTRACE_TRACEME, 0, 0)).map(drop)
            })
        }),
        Attempt::new(
            "no-randomisation",
            "personality(2) that switches off address randomisation",
            "seccomp",
            |_| {
                sc!("personality(2)", libc::SYS_personality, libc::ADDR_NO_RANDOMIZE)?;
                reached("fixed addresses for what it executes")
            },
        )
        .control(Control::User),
        Attempt::new(
            "read-implies-exec",
            "personality(2) that makes all memory executable",
            "seccomp",
            |_| {
                sc!("personality(2)", libc::SYS_personality, libc::READ_IMPLIES_EXEC)?;
                reached("executable data")
            },
        )
        .control(Control::User),
        Attempt::new("map-page-zero", "personality(2) that maps the page at address 0", "seccomp", |_| {
            sc!("personality(2)", libc::SYS_personality, libc::MMAP_PAGE_ZERO)?;
            reached("page zero")
        })
        .control(Control::User),
    ]
}

fn i386(what: &str, got: i64) -> Tried {
    if got < 0 {
        Err(Stop::at(format!("{what} by int 0x80"), (-got) as i32))
    } else {
        reached("the 32-bit table")
    }
}

fn int80(nr: u32, a: u32, b: u32, c: u32) -> i64 {
    let got: i64;
    // SAFETY: a system call with numbers; rbx belongs to the compiler and is put back.
    unsafe {
        asm!(
            "push rbx",
            "mov ebx, {a:e}",
            "int 0x80",
            "pop rbx",
            a = in(reg) a,
            inout("rax") i64::from(nr) => got,
            in("ecx") b,
            in("edx") c,
            lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _,
        );
    }
    i64::from(got as i32)
}

/// Memory that a 32-bit pointer reaches.
struct Low(*mut u32);

impl Low {
    fn new() -> Option<Self> {
        // SAFETY: a new anonymous mapping.
        let got = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                4096,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT,
                -1_i32,
                0,
            )
        };
        (got != libc::MAP_FAILED).then_some(Self(got.cast()))
    }

    fn put(&self, words: &[u32]) {
        // SAFETY: the page holds 1024 words, and is ours.
        unsafe { std::ptr::copy_nonoverlapping(words.as_ptr(), self.0, words.len().min(1024)) };
    }

    fn address(&self) -> u32 {
        self.0 as usize as u32
    }
}
