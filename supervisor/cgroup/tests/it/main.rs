//! The facade on the real kernel, whatever this host mounts. Needs root.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may, its helpers too")]

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aion_cgroup::{AgentGroup, BlockDevice, Hierarchy, Limits, Mode, Parent};

const SOON: Duration = Duration::from_secs(5);

/// A parent group of this test alone, removed at the end.
struct Playground(Parent);

impl Playground {
    fn new(name: &str) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: not root");
            return None;
        }
        let hierarchy = Hierarchy::detect().unwrap();
        let name = format!("aion-test-{name}-{}", std::process::id());
        Some(Self(Parent::open(hierarchy, &name).unwrap()))
    }
}

impl Drop for Playground {
    fn drop(&mut self) {
        self.0.remove_all(SOON).unwrap();
        assert_eq!(self.0.groups().unwrap(), [""; 0], "left behind");
    }
}

/// A shell that runs in the group, on both sides.
fn shell(group: &AgentGroup, script: &str) -> Child {
    let v2 = group.unified_path().map(|p| p.join("cgroup.procs"));
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(script).stdin(Stdio::piped()).process_group(0);
    let child = command.spawn().unwrap();
    group.join_v1(child.id()).unwrap();
    if let Some(v2) = v2 {
        std::fs::write(v2, child.id().to_string()).unwrap();
    }
    child
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < SOON, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn usual() -> Limits {
    Limits {
        cpu_millis: Some(500),
        cpu_weight: Some(50),
        memory_bytes: Some(64 << 20),
        pids: Some(20),
        ..Limits::default()
    }
}

#[test]
fn limits_are_set_changed_and_lifted() {
    let Some(ground) = Playground::new("limits") else { return };
    let mut group = AgentGroup::create(&ground.0, "a").unwrap();
    group.set_limits(&usual(), false).unwrap();
    let more = Limits { memory_bytes: Some(128 << 20), pids: Some(30), cpu_millis: Some(2000), ..usual() };
    group.set_limits(&more, false).unwrap();
    group.set_limits(&usual(), false).unwrap();
    group.set_limits(&Limits::default(), false).unwrap();
    let disk = BlockDevice::of("/".as_ref());
    let io = Limits {
        io_read_bps: Some(1 << 20),
        io_write_bps: Some(1 << 20),
        devices: disk.into_iter().collect(),
        ..usual()
    };
    let missing = group.set_limits(&io, true).unwrap();
    eprintln!("missing here: {missing:?}");
    group.set_limits(&usual(), true).unwrap();
}

#[test]
fn freeze_thaw_kill_remove() {
    let Some(ground) = Playground::new("states") else { return };
    let group = AgentGroup::create(&ground.0, "a").unwrap();
    let mut child = shell(&group, "while :; do :; done");
    until("it burns time", || group.stats().cpu_usec > 20_000);
    group.freeze(SOON).unwrap();
    assert!(group.is_frozen());
    let before = group.stats().cpu_usec;
    std::thread::sleep(Duration::from_millis(60));
    assert!(group.stats().cpu_usec - before < 10_000, "it runs on");
    group.thaw(SOON).unwrap();
    until("it runs again", || group.stats().cpu_usec > before + 20_000);
    group.freeze(SOON).unwrap();
    group.kill().unwrap();
    group.wait_empty(SOON).unwrap();
    child.wait().unwrap();
    group.remove(SOON).unwrap();
    assert!(ground.0.groups().unwrap().is_empty());
}

#[test]
fn hundred_processes_die_at_once() {
    let Some(ground) = Playground::new("many") else { return };
    let group = AgentGroup::create(&ground.0, "a").unwrap();
    let mut child = shell(&group, "read x; i=0; while [ $i -lt 100 ]; do sleep 100 & i=$((i+1)); done; wait");
    drop(child.stdin.take());
    until("all are there", || group.stats().pids >= 100 || group.processes().unwrap().len() >= 100);
    let start = Instant::now();
    group.kill().unwrap();
    group.wait_empty(SOON).unwrap();
    eprintln!("killed in {:?}", start.elapsed());
    assert!(group.is_empty().unwrap());
    child.wait().unwrap();
}

#[test]
fn pids_limit_is_counted_and_told() {
    let Some(ground) = Playground::new("pids") else { return };
    let mut group = AgentGroup::create(&ground.0, "a").unwrap();
    group.set_limits(&Limits { pids: Some(4), ..Limits::default() }, false).unwrap();
    let mut child = shell(&group, "read x; for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait");
    drop(child.stdin.take());
    until("a fork is refused", || group.limit_counters().pids_hits > 0);
    group.kill_and_remove(SOON).unwrap();
    child.wait().unwrap();
}

#[test]
fn memory_limit_kills_and_wakes() {
    use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
    let Some(ground) = Playground::new("memory") else { return };
    let mut group = AgentGroup::create(&ground.0, "a").unwrap();
    group.set_limits(&Limits { memory_bytes: Some(16 << 20), ..Limits::default() }, false).unwrap();
    let events = group.limit_events().unwrap();
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    let flags = EpollFlags::EPOLLET | EpollFlags::EPOLLPRI | EpollFlags::EPOLLIN;
    for event in &events {
        epoll.add(event, EpollEvent::new(flags, event.kind as u64)).unwrap();
    }
    let mut child = shell(&group, "read x; head -c 200m /dev/zero | tail");
    drop(child.stdin.take());
    let start = Instant::now();
    while group.limit_counters().oom_kills == 0 {
        assert!(start.elapsed() < SOON, "no OOM kill");
        let mut ready = [EpollEvent::empty(); 4];
        epoll.wait(&mut ready, EpollTimeout::from(100u8)).unwrap();
    }
    assert!(group.stats().memory_peak_bytes <= 17 << 20);
    group.kill_and_remove(SOON).unwrap();
    child.wait().unwrap();
}

#[test]
fn a_thread_carries_its_children_into_the_v1_groups() {
    let Some(ground) = Playground::new("thread") else { return };
    if ground.0.hierarchy().mode() == Mode::Unified {
        eprintln!("skipped: no v1 here");
        return;
    }
    let group = AgentGroup::create(&ground.0, "a").unwrap();
    let path = group.path().display().to_string();
    let groups = std::thread::spawn(move || {
        let start = Instant::now();
        let doors = group.v1_doors().unwrap();
        for door in &doors {
            nix::unistd::write(&door.enter, b"0").unwrap();
        }
        let took = start.elapsed();
        let shown = Command::new("/bin/cat").arg("/proc/self/cgroup").output().unwrap().stdout;
        for door in &doors {
            nix::unistd::write(&door.leave, b"0").unwrap();
        }
        eprintln!("entered in {took:?}");
        group.remove(SOON).unwrap();
        String::from_utf8(shown).unwrap()
    })
    .join()
    .unwrap();
    let inside = groups.lines().filter(|l| l.ends_with(&path)).count();
    assert!(inside >= 1, "{groups}");
}

#[test]
fn bad_names_make_nothing() {
    let Some(ground) = Playground::new("names") else { return };
    for bad in ["", "..", "a/b", "cgroup.procs", "a\0b"] {
        assert!(AgentGroup::create(&ground.0, bad).is_err(), "{bad:?}");
    }
    AgentGroup::create(&ground.0, "twice").unwrap();
    assert!(AgentGroup::create(&ground.0, "twice").is_err());
}

#[test]
fn a_group_that_has_used_up_its_quota_freezes_and_ends_at_once() {
    let Some(ground) = Playground::new("quota") else { return };
    let mut group = AgentGroup::create(&ground.0, "hog").unwrap();
    // A hundredth of a processor: it stands still for 99 of 100 ms.
    let limits = Limits { cpu_millis: Some(10), ..Limits::default() };
    if !group.set_limits(&limits, true).unwrap().is_empty() {
        eprintln!("skipped: no CPU quota here");
        return;
    }
    let mut hog = shell(&group, "while :; do :; done");
    let Some(unified) = group.unified_path().map(std::path::Path::to_owned) else {
        eprintln!("skipped: no unified hierarchy to compare with");
        group.kill().unwrap();
        group.wait_empty(SOON).unwrap();
        hog.wait().unwrap();
        return;
    };
    let round = |freeze: &dyn Fn()| {
        let mut took = Duration::ZERO;
        for n in 0..10 {
            // At another moment of the period each time.
            std::thread::sleep(Duration::from_millis(110 + 10 * n));
            let begun = Instant::now();
            freeze();
            took += begun.elapsed();
            assert!(group.is_frozen());
            group.thaw(SOON).unwrap();
        }
        took
    };
    // Side by side: with the quota in place, as the kernel does it, and as the facade does.
    let kept = round(&|| {
        std::fs::write(unified.join("cgroup.freeze"), "1").unwrap();
        let events = unified.join("cgroup.events");
        until("frozen", || std::fs::read_to_string(&events).unwrap().contains("frozen 1"));
    });
    let lifted = round(&|| group.freeze(SOON).unwrap());
    assert!(lifted * 2 < kept, "{lifted:?} instead of {kept:?}");
    let before = group.stats().cpu_usec;
    std::thread::sleep(Duration::from_secs(1));
    let used = group.stats().cpu_usec - before;
    assert!(used < 300_000, "the quota is back: {used} us");
    group.kill().unwrap();
    group.wait_empty(SOON).unwrap();
    hog.wait().unwrap();
}
