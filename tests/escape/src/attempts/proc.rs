//! What /proc and /sys would tell, and let be changed.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};

use crate::attempt::{Attempt, Control};
use crate::sys::{self, Stop, Tried, at, reached};
use crate::target::{self, Targets};

/// Writes the value that is there already: it takes the right to change it, and changes nothing.
fn rewrite(path: &str) -> Tried {
    let value = fs::read(path).map_err(at(format!("read {path}")))?;
    let mut file =
        fs::OpenOptions::new().write(true).open(path).map_err(at(format!("open {path} for writing")))?;
    file.write_all(&value).map_err(at(format!("write {path}")))?;
    reached(format!("{path} was written"))
}

fn open_for_writing(path: &str) -> Tried {
    sys::open(path, libc::O_WRONLY)?;
    reached(format!("{path} is open for writing"))
}

pub(super) fn writes() -> Vec<Attempt> {
    const READ_ONLY: &str = "rootfs (/proc/sys is read-only), namespaces";
    const NO_SYS: &str = "rootfs (no /sys)";
    let mut attempts: Vec<Attempt> = [
        (
            "core-pattern",
            "kernel/core_pattern",
            "a program that the kernel runs as root outside at every crash",
        ),
        ("modprobe-path", "kernel/modprobe", "the program that the kernel runs as root to load modules"),
        ("randomize-va-space", "kernel/randomize_va_space", "switching off address randomisation for all"),
        ("panic-on-oops", "kernel/panic", "what a kernel does when it fails"),
        ("overcommit", "vm/overcommit_memory", "memory policy of the machine"),
        ("suid-dumpable", "fs/suid_dumpable", "core dumps of setuid programs"),
        ("protected-symlinks", "fs/protected_symlinks", "protection of shared folders"),
        ("pid-max", "kernel/pid_max", "the number of processes"),
    ]
    .into_iter()
    .map(|(id, name, what)| {
        let path = format!("/proc/sys/{name}");
        Attempt::new(format!("sysctl-{id}"), format!("{path}: {what}"), READ_ONLY, move |_| rewrite(&path))
            .absent(&[libc::ENOENT])
    })
    .collect();
    attempts.push(
        Attempt::new("sysctl-ip-forward", "routing between networks", READ_ONLY, |_| {
            rewrite("/proc/sys/net/ipv4/ip_forward")
        })
        .control(Control::Fresh(libc::CLONE_NEWNET)),
    );
    for (id, path, what, layer) in [
        ("sysrq", "/proc/sysrq-trigger", "reboot, crash, kill everything", "rootfs (masked), namespaces"),
        (
            "irq-affinity",
            "/proc/irq/default_smp_affinity",
            "interrupts of the machine",
            "rootfs (masked), namespaces",
        ),
        (
            "binfmt-register",
            "/proc/sys/fs/binfmt_misc/register",
            "an interpreter for everybody's programs",
            READ_ONLY,
        ),
        ("thp", "/sys/kernel/mm/transparent_hugepage/enabled", "huge pages of the machine", NO_SYS),
        (
            "uevent-helper",
            "/sys/kernel/uevent_helper",
            "a program that the kernel runs as root at every event",
            NO_SYS,
        ),
        ("power-state", "/sys/power/state", "sending the machine to sleep", NO_SYS),
        ("cpu-online", "/sys/devices/system/cpu/cpu1/online", "switching processors off", NO_SYS),
        ("ksm", "/sys/kernel/mm/ksm/run", "merging of equal pages, a side channel", NO_SYS),
    ] {
        attempts.push(
            Attempt::new(id, format!("{path}: {what}"), layer, move |_| open_for_writing(path))
                .absent(&[libc::ENOENT, libc::EIO]),
        );
    }
    for (id, path) in
        [("debugfs", "/sys/kernel/debug"), ("tracefs", "/sys/kernel/tracing"), ("bpffs", "/sys/fs/bpf")]
    {
        attempts.push(
            Attempt::new(format!("list-{id}"), format!("listing {path}"), NO_SYS, move |_| {
                let count = fs::read_dir(path).map_err(at(format!("list {path}")))?.count();
                reached(format!("{path} with {count} entries"))
            })
            .absent(&[libc::ENOENT]),
        );
    }
    attempts
}

pub(super) fn reads() -> Vec<Attempt> {
    const OWNER: &str = "namespaces (root's file), rootfs (masked)";
    let mut attempts = vec![
        Attempt::new("kallsyms", "addresses of the kernel in /proc/kallsyms", "capabilities", |_| {
            let text = fs::read_to_string("/proc/kallsyms").map_err(at("/proc/kallsyms"))?;
            addresses(&text, |line| line.split(' ').next())
        }),
        Attempt::new("modules", "addresses of modules in /proc/modules", "capabilities", |_| {
            let text = fs::read_to_string("/proc/modules").map_err(at("/proc/modules"))?;
            if text.is_empty() {
                return Err(Stop::at("no module is loaded", libc::ENODEV));
            }
            addresses(&text, |line| line.rsplit(' ').find_map(|w| w.strip_prefix("0x")))
        })
        .absent(&[libc::ENOENT, libc::ENODEV]),
        Attempt::new("iomem", "the physical memory map", "capabilities", |_| {
            let text = fs::read_to_string("/proc/iomem").map_err(at("/proc/iomem"))?;
            addresses(&text, |line| line.trim().split([' ', '-']).nth(1))
        }),
        Attempt::new("pagemap", "physical addresses of its own pages", "capabilities", |_| {
            let page = [1_u8; 4096];
            let mut file = fs::File::open("/proc/self/pagemap").map_err(at("/proc/self/pagemap"))?;
            file.seek(SeekFrom::Start(page.as_ptr() as u64 / 4096 * 8)).map_err(at("seek"))?;
            let mut entry = [0; 8];
            file.read_exact(&mut entry).map_err(at("read /proc/self/pagemap"))?;
            match u64::from_le_bytes(entry) & ((1 << 55) - 1) {
                0 => Err(Stop::because("the frame number is hidden")),
                frame => reached(format!("frame {frame:#x}")),
            }
        }),
        Attempt::new("dmesg", "the kernel's log by syslog(2)", "seccomp", |_| {
            let mut buffer = [0_u8; 4096];
            sys::sc!("syslog(2)", libc::SYS_syslog, 3, buffer.as_mut_ptr(), buffer.len())?;
            reached("the kernel's log")
        }),
    ];
    for (id, path) in [
        ("kcore", "/proc/kcore"),
        ("kmsg", "/proc/kmsg"),
        ("slabinfo", "/proc/slabinfo"),
        ("vmallocinfo", "/proc/vmallocinfo"),
        ("timer-list", "/proc/timer_list"),
        ("kpagecount", "/proc/kpagecount"),
    ] {
        attempts.push(
            Attempt::new(format!("read-{id}"), format!("reading {path}"), OWNER, move |_| {
                let file = sys::open(path, libc::O_RDONLY | libc::O_NONBLOCK)?;
                let mut byte = [0_u8; 8];
                // A masked file is /dev/null in its place.
                match fs::File::from(file).read(&mut byte) {
                    Ok(0) => Err(Stop::because(format!("{path} is empty: masked"))),
                    Err(e) if e.kind() != std::io::ErrorKind::WouldBlock => {
                        Err(at(format!("read {path}"))(e))
                    }
                    _ => reached(format!("{path} is open")),
                }
            })
            .absent(&[libc::ENOENT, libc::EIO]),
        );
    }
    attempts.push(Attempt::new(
        "host-processes",
        "another process's command line in /proc",
        "namespaces",
        |t: &Targets| {
            for entry in fs::read_dir("/proc").map_err(at("/proc"))?.flatten() {
                let known = fs::read(entry.path().join("cmdline"))
                    .is_ok_and(|line| line.starts_with(target::BYSTANDER.as_bytes()));
                if known {
                    return reached(format!("the bystander, as {}", entry.path().display()));
                }
            }
            Err(Stop::because(format!("no process {} is seen", t.bystander)))
        },
    ));
    attempts.push(Attempt::new(
        "host-connections",
        "the host's open ports in /proc/net/tcp",
        "namespaces",
        |t| {
            let text = fs::read_to_string("/proc/net/tcp").map_err(at("/proc/net/tcp"))?;
            if t.tcp4 != 0 && text.contains(&format!(":{:04X} ", t.tcp4)) {
                return reached("the host's listening ports");
            }
            Err(Stop::because("the host's ports are not listed"))
        },
    ));
    attempts.push(Attempt::new("host-interfaces", "the host's network interfaces", "namespaces", |t| {
        let text = fs::read_to_string("/proc/net/dev").map_err(at("/proc/net/dev"))?;
        let others = text.lines().skip(2).filter(|l| !l.trim_start().starts_with("lo:")).count();
        match (others, t.address.is_empty() && t.control) {
            (0, true) => Err(Stop::at("this host has no interface", libc::ENODEV)),
            (0, false) => Err(Stop::because("only lo is there")),
            (n, _) => reached(format!("{n} interfaces besides lo")),
        }
    }));
    attempts
}

fn addresses<'a>(text: &'a str, column: impl Fn(&'a str) -> Option<&'a str>) -> Tried {
    let found = text
        .lines()
        .filter_map(column)
        .find(|word| u64::from_str_radix(word, 16).is_ok_and(|address| address != 0));
    found.map_or_else(
        || Err(Stop::because("all addresses are zero")),
        |word| reached(format!("address {word}")),
    )
}

/// Init runs outside of what holds the agent; whoever gets into it is out.
pub(super) fn init() -> Vec<Attempt> {
    const LAYER: &str = "namespaces (another user's process, not dumpable)";
    let read = |id: &'static str, file: &'static str, what: &'static str| {
        Attempt::new(id, format!("/proc/1/{file}: {what}"), LAYER, move |t: &Targets| {
            let path = format!("/proc/{}/{file}", t.init);
            let bytes = fs::read(&path).map_err(at(format!("read {path}")))?;
            if bytes.is_empty() { Err(Stop::because(format!("{path} is empty"))) } else { reached(path) }
        })
    };
    let link = |id: &'static str, file: &'static str, what: &'static str| {
        Attempt::new(id, format!("/proc/1/{file}: {what}"), LAYER, move |t: &Targets| {
            let path = format!("/proc/{}/{file}", t.init);
            let to = fs::read_link(&path).map_err(at(format!("readlink {path}")))?;
            reached(format!("{path} is {}", to.display()))
        })
    };
    vec![
        Attempt::new("proc-1-mem", "writing init's memory through /proc/1/mem", LAYER, |t| {
            sys::open(&format!("/proc/{}/mem", t.init), libc::O_RDWR)?;
            reached("init's memory is open for writing")
        }),
        Attempt::new("proc-1-root", "the host's files through /proc/1/root", LAYER, |t| {
            let path = format!("/proc/{}/root{}", t.init, t.file());
            let text = fs::read_to_string(&path).map_err(at(format!("read {path}")))?;
            reached(text.trim().to_owned())
        }),
        Attempt::new("proc-1-cwd", "a folder outside through /proc/1/cwd", LAYER, |t| {
            let path = format!("/proc/{}/cwd/.", t.init);
            fs::read_dir(&path).map_err(at(format!("list {path}")))?;
            reached(path)
        }),
        Attempt::new("proc-1-fd", "init's descriptors through /proc/1/fd", LAYER, |t| {
            let path = format!("/proc/{}/fd", t.init);
            let count = fs::read_dir(&path).map_err(at(format!("list {path}")))?.count();
            reached(format!("{count} descriptors of init"))
        }),
        Attempt::new(
            "proc-1-exe",
            "overwriting the program of init through /proc/1/exe, as in CVE-2019-5736",
            LAYER,
            |t| {
                let file = sys::open(&format!("/proc/{}/exe", t.init), libc::O_RDONLY)?;
                let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
                match sys::open(&again, libc::O_WRONLY) {
                    Ok(_) => reached("init's program is open for writing"),
                    // All rights were there; it is only busy until the program ends.
                    Err(stop) if stop.errno == libc::ETXTBSY => {
                        reached("init's program can be written once it ends")
                    }
                    Err(stop) => Err(stop),
                }
            },
        ),
        read("proc-1-environ", "environ", "its environment"),
        read("proc-1-maps", "maps", "where its memory is"),
        read("proc-1-auxv", "auxv", "addresses for an attack on it"),
        read("proc-1-syscall", "syscall", "its registers"),
        link("proc-1-exe-link", "exe", "where its program is"),
        Attempt::new(
            "proc-1-oom",
            "making the kernel kill init first, by /proc/1/oom_score_adj",
            LAYER,
            |t| {
                let path = format!("/proc/{}/oom_score_adj", t.init);
                fs::write(&path, "500").map_err(at(format!("write {path}")))?;
                reached(path)
            },
        ),
        Attempt::new(
            "proc-self-oom",
            "exempting itself from being killed when memory runs out",
            "capabilities",
            |_| {
                fs::write("/proc/self/oom_score_adj", "-1000")
                    .map_err(at("write /proc/self/oom_score_adj"))?;
                reached("it is exempt")
            },
        )
        // A container whose root lacks CAP_SYS_RESOURCE cannot show it.
        .absent(&[libc::EACCES]),
    ]
}
