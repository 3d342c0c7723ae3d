//! How agents end: codes, signals, all at once, and without anybody looking.

use std::time::{Duration, Instant};

use aion_agent_journal::Exit;
use aion_sandbox::InitProcess;

use crate::harness::{Home, PATIENCE, argv, sh, skip};

#[test]
fn exit_codes_and_signals_are_told_apart() {
    if skip() {
        return;
    }
    for (script, code, signal) in
        [("exit 0", 0, 0), ("exit 255", 255, 0), ("kill -9 $$", 0, 9), ("kill -11 $$", 0, 11)]
    {
        let seen = Home::new().run(&sh(script));
        assert_eq!(seen.exit, Some(Exit { code, signal }), "{script}");
        let shell = if signal == 0 { code } else { 128 + signal };
        assert_eq!((seen.ended.code, seen.ended.signal), (shell, 0), "{script}");
    }
}

#[test]
fn five_hundred_instant_exits_are_all_seen() {
    if skip() {
        return;
    }
    let began = Instant::now();
    let lane = |lane: u32| {
        for n in 0..250u32 {
            let code = u8::try_from((n * 2 + lane) % 256).unwrap();
            let home = Home::new();
            let mut plan = argv(&["/bin/sh", "-c", &format!("exit {code}")]);
            if n % 2 == 0 {
                // Without a shell it is gone even sooner.
                plan.argv = vec![if code == 0 { b"/bin/true".to_vec() } else { b"/bin/false".to_vec() }];
            }
            let expected = if n % 2 == 0 { u8::from(code != 0) } else { code };
            let launched = home.launch(&plan).unwrap();
            assert_ne!(launched.agent_pid, 0);
            let seen = home.finish(launched);
            assert_eq!(seen.exit, Some(Exit { code: expected, signal: 0 }), "{n}");
            assert_eq!(seen.ended.code, expected);
        }
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| lane(1));
        lane(0);
        other.join().unwrap();
    });
    println!("500 agents in {:?}", began.elapsed());
}

#[test]
fn signals_to_init_reach_the_agent() {
    if skip() {
        return;
    }
    let script =
        "trap 'echo term; exit 7' TERM; trap 'echo hup' HUP; echo ready; while :; do sleep 0.05; done";
    let home = Home::new();
    let launched = home.launch(&sh(script)).unwrap();
    until(|| crate::harness::read_journal(&home.journal()).text().contains("ready"));
    launched.init.signal(libc::SIGHUP).unwrap();
    until(|| crate::harness::read_journal(&home.journal()).text().contains("hup"));
    launched.init.signal(libc::SIGTERM).unwrap();
    let seen = home.finish(launched);
    assert_eq!(seen.exit, Some(Exit { code: 7, signal: 0 }));
    assert_eq!(seen.text(), "ready\nhup\nterm\n");
}

#[test]
fn those_left_behind_are_killed_and_hold_nothing_up() {
    if skip() {
        return;
    }
    // They hold the pipe open, ignore signals, and are in sessions of their own.
    let script = "for i in 1 2 3; do setsid sh -c 'trap \"\" TERM HUP; sleep 1000' & done; echo out; exit 4";
    let home = Home::new();
    let began = Instant::now();
    let seen = home.run(&sh(script));
    assert_eq!((seen.exit, seen.text().as_str()), (Some(Exit { code: 4, signal: 0 }), "out\n"));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn orphans_are_reaped() {
    if skip() {
        return;
    }
    let script =
        "for i in 1 2 3 4 5; do (true &) ; done; sleep 0.3; grep -l '^State:.Z' /proc/[0-9]*/status; true";
    assert_eq!(Home::new().run(&sh(script)).good(), "");
}

#[test]
fn the_agent_cannot_signal_or_trace_init() {
    if skip() {
        return;
    }
    let mut plan = sh(
        "kill -9 1 && echo killed; kill -TERM 1 && echo termed; kill -STOP 1 && echo stopped; echo x > /proc/1/mem; true",
    );
    assert_eq!(Home::new().run(&plan).good(), "");
    plan.landlock = None;
    plan.seccomp = None;
    assert_eq!(Home::new().run(&plan).good(), "");
}

#[test]
fn killing_init_kills_everything() {
    if skip() {
        return;
    }
    let home = Home::new();
    let mut launched = home.launch(&sh("sleep 1000 & sleep 1000")).unwrap();
    let agent = InitProcess::adopt(launched.agent_pid, start_time(launched.agent_pid)).unwrap();
    let again = InitProcess::adopt(launched.init.pid(), launched.init.start_time()).unwrap();
    assert!(InitProcess::adopt(launched.init.pid(), launched.init.start_time() + 1).is_err());
    again.signal(libc::SIGKILL).unwrap();
    let ended = launched.init.wait(Some(PATIENCE)).unwrap().unwrap();
    assert_eq!(ended.signal, 9);
    let mut agent = agent;
    assert!(agent.wait(Some(PATIENCE)).unwrap().is_some());
}

fn start_time(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.split(' ').nth(19).unwrap().parse().unwrap()
}

pub(crate) fn until(mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "it does not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}
