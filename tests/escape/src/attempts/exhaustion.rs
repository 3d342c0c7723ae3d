//! Using things up: each of these runs in an agent of its own, with small limits, and must meet them.

use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::attempt::{Attempt, Place};
use crate::sys::{self, Stop, Tried, at, reached, sc};
use crate::target::Targets;

/// What the driver's small agents may use at most, and what attempts therefore try to pass.
const MEMORY: usize = 192 << 20;
const PROCESSES: usize = 150;
const DISK: usize = 96 << 20;
const FILES: usize = 50_000;
const SCRATCH: usize = 160 << 20;

pub(super) fn all() -> Vec<Attempt> {
    let make = |id: &'static str, what: &'static str, layer, run: fn(&Targets) -> Tried| {
        Attempt::new(format!("exhaust-{id}"), what, layer, run).place(Place::Alone)
    };
    vec![
        make("memory", "192 MiB of memory where 64 are allowed", "cgroup", |_| {
            let mut memory = Vec::new();
            memory.try_reserve_exact(MEMORY).map_err(|_| Stop::at("malloc", libc::ENOMEM))?;
            for _ in 0..MEMORY / 4096 {
                memory.extend_from_slice(&[1_u8; 4096]);
            }
            std::hint::black_box(&memory);
            reached("192 MiB")
        }),
        make("memory-shared", "192 MiB of memory in a memfd, which is no process's own", "cgroup", |_| {
            let file = sys::fd(sc!("memfd_create(2)", libc::SYS_memfd_create, c"x".as_ptr(), 0)?);
            fill(&mut fs::File::from(file), MEMORY)
        }),
        make("memory-sysv", "192 MiB of System V shared memory", "cgroup", |_| {
            let id = sc!("shmget(2)", libc::SYS_shmget, libc::IPC_PRIVATE, MEMORY, 0o600)?;
            let address = sc!("shmat(2)", libc::SYS_shmat, id, 0, 0)?;
            sc!("shmctl(2)", libc::SYS_shmctl, id, libc::IPC_RMID, 0)?;
            // SAFETY: attached just now, with this size.
            unsafe { std::ptr::write_bytes(address as *mut u8, 1, MEMORY) };
            reached("192 MiB")
        }),
        make("processes", "150 processes where 40 are allowed", "cgroup", |_| {
            let mut children = Vec::new();
            let stopped = loop {
                if children.len() == PROCESSES {
                    break None;
                }
                match sys::fork(|| std::thread::sleep(Duration::from_secs(20))) {
                    Ok(pid) => children.push(pid),
                    Err(stop) => break Some(stop),
                }
            };
            children.iter().for_each(|&pid| sys::end(pid));
            let count = children.len();
            stopped.map_or_else(
                || reached(format!("{count} processes")),
                |stop| Err(Stop::at(format!("fork(2) after {count} processes"), stop.errno)),
            )
        }),
        make("fork-bomb", "processes that fork without end, for two seconds", "cgroup", |t| {
            let end = Instant::now() + Duration::from_secs(2) * t.slowness();
            // None of them ends before the time is over, so births are a count. Looking through /proc for it would
            // make each fork dearer than the one before, and whoever looks has to wait for his turn among them.
            let born = shared_counter()?;
            let pid = sys::fork(|| {
                while Instant::now() < end {
                    // Parent and child both go on. Each ends when the time is over.
                    let enough = born.load(Ordering::Relaxed) > PROCESSES * 2;
                    // SAFETY: one thread.
                    match if enough { -1 } else { unsafe { libc::fork() } } {
                        -1 => std::thread::sleep(Duration::from_millis(20)),
                        0 => {
                            born.fetch_add(1, Ordering::Relaxed);
                        }
                        _ => {}
                    }
                }
            })?;
            while Instant::now() < end && born.load(Ordering::Relaxed) <= PROCESSES {
                std::thread::sleep(Duration::from_millis(20));
            }
            let most = born.load(Ordering::Relaxed);
            sys::end(pid);
            if most > PROCESSES {
                reached(format!("{most} processes"))
            } else {
                Err(Stop::because(format!("at most {most} processes")))
            }
        }),
        make("disk", "96 MiB in the workspace where 32 are allowed", "disk", |t| {
            let path = t.in_workspace("large");
            let mut file = fs::File::create(&path).map_err(at("create"))?;
            let filled = fill(&mut file, DISK);
            let _ = fs::remove_file(&path);
            filled
        }),
        make("inodes", "50,000 files in the workspace", "disk", |t| {
            let folder = t.in_workspace("many");
            fs::create_dir_all(&folder).map_err(at("mkdir"))?;
            let mut stopped = None;
            for n in 0..FILES {
                if let Err(e) = fs::File::create(format!("{folder}/{n}")) {
                    stopped = Some(at(format!("creating file {n}"))(e));
                    break;
                }
            }
            for n in 0..FILES {
                if fs::remove_file(format!("{folder}/{n}")).is_err() {
                    break;
                }
            }
            let _ = fs::remove_dir(&folder);
            stopped.map_or_else(|| reached(format!("{FILES} files")), Err)
        }),
        make("scratch", "160 MiB in /tmp and /dev/shm", "rootfs (sized), cgroup", |_| {
            for folder in ["/tmp", "/dev/shm"] {
                let path = format!("{folder}/aion-escape-large-{}", sys::getpid());
                let mut file = fs::File::create(&path).map_err(at(format!("create {path}")))?;
                let filled = fill(&mut file, SCRATCH);
                let _ = fs::remove_file(&path);
                filled?;
            }
            reached("2 x 160 MiB")
        }),
        make("descriptors", "10,000 open files", "rlimits", |_| {
            let mut limit = [0_u64; 2];
            sc!("prlimit64(2)", libc::SYS_prlimit64, 0, libc::RLIMIT_NOFILE, 0, limit.as_mut_ptr())?;
            limit[0] = limit[1];
            sc!("prlimit64(2)", libc::SYS_prlimit64, 0, libc::RLIMIT_NOFILE, limit.as_ptr(), 0)?;
            many(10_000, "open /dev/null", || sys::open("/dev/null", libc::O_RDONLY))
                .and_then(|_| reached("10,000 files"))
        }),
        make(
            "inotify",
            "all inotify instances of a user, so that his other programs get none",
            "namespaces",
            |t| {
                let held =
                    hold(|| sc!("inotify_init1(2)", libc::SYS_inotify_init1, libc::O_CLOEXEC).map(sys::fd));
                let starved = neighbour(t, || is_starved("inotify"))?;
                let count = held.len();
                if starved {
                    reached(format!("{count} held: a neighbour gets none"))
                } else {
                    Err(Stop::because(format!("{count} held, a neighbour still gets one")))
                }
            },
        )
        .control(crate::attempt::Control::User),
        make("pending-signals", "all queued signals of a user", "namespaces", |t| {
            block_signal();
            let mut count = 0;
            while queue_signal() && count < 1_000_000 {
                count += 1;
            }
            let starved = neighbour(t, || is_starved("signals"))?;
            if starved {
                reached(format!("{count} queued: a neighbour can queue none"))
            } else {
                Err(Stop::because(format!("{count} queued, a neighbour still can")))
            }
        })
        .control(crate::attempt::Control::User),
        make("cpu", "two processors where a tenth of one is allowed", "cgroup", |_| {
            // The best of three: a busy host gives a control little, too.
            let mut share: f64 = 0.0;
            for _ in 0..3 {
                let (wall, before) = (Instant::now(), used());
                let worker = sys::fork(spin)?;
                spin();
                sys::wait(worker, Duration::from_secs(10));
                share = share.max((used() - before).as_secs_f64() / wall.elapsed().as_secs_f64());
            }
            if share > 0.3 {
                reached(format!("{share:.2} processors"))
            } else {
                Err(Stop::because(format!("{share:.2} processors")))
            }
        }),
    ]
}

/// Works for a second and a half of the wall clock.
fn spin() {
    let end = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < end {
        std::hint::black_box(0);
    }
}

/// Processor time of this process and its children.
fn used() -> Duration {
    [libc::RUSAGE_SELF, libc::RUSAGE_CHILDREN]
        .into_iter()
        .map(|who| {
            // SAFETY: a structure of numbers that outlives the call.
            let usage = unsafe {
                let mut usage: libc::rusage = std::mem::zeroed();
                libc::getrusage(who, &raw mut usage);
                usage
            };
            let time =
                |t: libc::timeval| Duration::from_micros(t.tv_sec as u64 * 1_000_000 + t.tv_usec as u64);
            time(usage.ru_utime) + time(usage.ru_stime)
        })
        .sum()
}

fn fill(file: &mut fs::File, bytes: usize) -> Tried {
    let block = vec![0x5a_u8; 1 << 20];
    for n in 0..bytes >> 20 {
        file.write_all(&block).map_err(at(format!("write(2) after {n} MiB")))?;
    }
    file.sync_all().map_err(at("fsync(2)"))?;
    reached(format!("{} MiB", bytes >> 20))
}

fn many(count: usize, what: &str, make: impl Fn() -> Result<OwnedFd, Stop>) -> Result<Vec<OwnedFd>, Stop> {
    let mut held = Vec::new();
    for n in 0..count {
        held.push(make().map_err(|s| Stop::at(format!("{what} after {n}"), s.errno))?);
    }
    Ok(held)
}

fn hold(make: impl Fn() -> Result<OwnedFd, Stop>) -> Vec<OwnedFd> {
    let mut held = Vec::new();
    while let Ok(file) = make() {
        held.push(file);
        if held.len() == 100_000 {
            break;
        }
    }
    held
}

/// A number that this process shares with its children.
fn shared_counter() -> Result<&'static AtomicUsize, Stop> {
    // SAFETY: a new mapping, which is checked below.
    let memory = unsafe {
        let both = libc::PROT_READ | libc::PROT_WRITE;
        libc::mmap(std::ptr::null_mut(), 4096, both, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0)
    };
    if memory == libc::MAP_FAILED {
        return Err(Stop::last("mmap"));
    }
    // SAFETY: zeroes, at the begin of a page, that stay for as long as the process.
    Ok(unsafe { AtomicUsize::from_ptr(memory.cast()) })
}

fn queue_signal() -> bool {
    // SAFETY: numbers only.
    unsafe {
        libc::sigqueue(libc::getpid(), libc::SIGRTMIN(), libc::sigval { sival_ptr: std::ptr::null_mut() })
            == 0
    }
}

/// Blocks the signal, so that it stays queued.
fn block_signal() {
    // SAFETY: a set that outlives the calls.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGRTMIN());
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
    }
}

/// Whether this process can no longer have one of what somebody else holds all of.
pub(crate) fn is_starved(kind: &str) -> bool {
    if kind == "inotify" {
        return sc!("inotify_init1(2)", libc::SYS_inotify_init1, 0).is_err();
    }
    block_signal();
    !queue_signal()
}

/// Whether somebody else is starved while this process holds on to everything. In a control that is a child,
/// who is the same user; for an agent the driver looks from outside, over the workspace that they share.
fn neighbour(t: &Targets, is_starved: impl FnOnce() -> bool) -> Result<bool, Stop> {
    if t.control {
        let pid = sys::fork(|| sys::exit(i32::from(is_starved())))?;
        let status = sys::wait(pid, Duration::from_secs(5)).ok_or_else(|| Stop::because("no answer"))?;
        return Ok(libc::WEXITSTATUS(status) == 1);
    }
    fs::write(t.in_workspace("held"), "").map_err(at("telling the driver"))?;
    for _ in 0..1500 {
        if let Ok(verdict) = fs::read_to_string(t.in_workspace("verdict"))
            && !verdict.is_empty()
        {
            return Ok(verdict != "fine");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(Stop::because("nobody looked from outside"))
}
