//! One more program in an agent.

use std::time::Duration;

use aion_e2e::until;
use nix::sys::signal::Signal;

use crate::Shared;
use crate::agent::{detached, pair};

pub(crate) fn codes_and_streams(shared: &Shared) {
    let daemons = pair(shared);
    let agent = detached(daemons, "exec", &[], &["sleep", "60"]);
    let exec = |args: &[&str]| daemons.ctl(["exec", &agent.name, "--"]).args(args).done();
    let done = exec(&["sh", "-c", "echo out; echo err >&2; exit 3"]).expect(3);
    assert_eq!((done.text().as_str(), done.err.as_str()), ("out\n", "err\n"));
    exec(&["true"]).expect(0);
    exec(&["/no/such/program"]).expect(127).says("COMMAND_NOT_FOUND");
    exec(&["/etc/passwd"]).expect(126).says("COMMAND_NOT_EXECUTABLE");
    exec(&["sh", "-c", "kill -KILL $$"]).expect(137);
    let big = exec(&["/usr/bin/python3", "-c", "import sys; sys.stdout.write('x' * 3000000)"]).expect(0);
    assert_eq!(big.out.len(), 3_000_000);
}

pub(crate) fn stdin_and_environment(shared: &Shared) {
    let daemons = pair(shared);
    let agent = detached(daemons, "exec", &["--env", "OWN=agent"], &["sleep", "60"]);
    let input: Vec<u8> = (0..300_000u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
    let done = daemons.ctl(["exec", "-i", &agent.name, "--", "cat"]).stdin(input.clone()).ok();
    assert!(done.out == input, "what went in came out");
    // Without -i there is nothing to read, and no waiting for it.
    assert_eq!(daemons.ctl(["exec", &agent.name, "--", "cat"]).ok().text(), "");
    let done = daemons.ctl([
        "exec",
        "-e",
        "MORE=x",
        "-w",
        "/tmp",
        &agent.name,
        "--",
        "sh",
        "-c",
        "echo $OWN $MORE; pwd",
    ]);
    assert_eq!(done.ok().text(), "agent x\n/tmp\n");
}

pub(crate) fn it_is_as_confined_as_the_agent(shared: &Shared) {
    let daemons = pair(shared);
    let agent = detached(daemons, "exec", &[], &["sleep", "60"]);
    let exec = |script: &str| daemons.ctl(["exec", &agent.name, "--", "sh", "-c", script]).ok().text();
    let status = exec("grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status | tr -s '\\t ' ' '");
    assert_eq!(status, "CapEff: 0000000000000000\nCapBnd: 0000000000000000\nNoNewPrivs: 1\nSeccomp: 2\n");
    for namespace in ["pid", "net", "mnt", "ipc", "uts", "user", "cgroup"] {
        let inside = exec(&format!("readlink /proc/self/ns/{namespace}"));
        let own = std::fs::read_link(format!("/proc/{}/ns/{namespace}", agent.pid())).unwrap();
        assert_eq!(inside.trim(), own.to_str().unwrap(), "{namespace}");
    }
    assert!(exec("cat /proc/*/comm").contains("sleep"), "it sees the agent");
    assert_eq!(exec("(echo x > /usr/x) 2>/dev/null && echo written; true"), "");
}

/// Whether whoever started the tests has this signal ignored, as shells do for what they run in the background: the command
/// line inherits that, and keeps to it.
fn is_ignored(signal: Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    let bit = u32::try_from(signal as i32 - 1).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap() >> bit & 1 == 1
}

pub(crate) fn a_signal_ends_it(shared: &Shared) {
    let daemons = pair(shared);
    let agent = detached(daemons, "exec", &[], &["sleep", "60"]);
    let signals =
        [(Signal::SIGINT, 130), (Signal::SIGTERM, 143), (Signal::SIGHUP, 129), (Signal::SIGQUIT, 131)];
    for (signal, code) in signals.into_iter().filter(|(signal, _)| !is_ignored(*signal)) {
        let mut exec = daemons.ctl(["exec", &agent.name, "--", "sh", "-c", "echo up; sleep 40"]).spawn();
        exec.await_text("up");
        exec.signal(signal);
        let done = exec.done().expect(code);
        assert!(done.took < Duration::from_secs(20), "{signal}: {:?}", done.took);
    }
    // A terminal has keys for two of them; the others end the session, and the program with its terminal.
    let mut exec = daemons.ctl(["exec", "-t", &agent.name, "--", "sh", "-c", "echo up; sleep 41"]).spawn();
    exec.await_text("up");
    exec.signal(Signal::SIGTERM);
    exec.done().expect(143);
    let gone = until(Duration::from_secs(10), || {
        let seen =
            daemons.ctl(["exec", &agent.name, "--", "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"]);
        Some(()).filter(|()| !seen.ok().text().contains("sleep 41"))
    });
    gone.expect("the program ends with its terminal");
}

pub(crate) fn it_needs_a_running_agent(shared: &Shared) {
    let daemons = pair(shared);
    let agent = detached(daemons, "exec", &[], &["true"]);
    agent.wait();
    daemons.ctl(["exec", &agent.name, "--", "true"]).done().expect(3).says("AGENT_NOT_RUNNING");
    daemons.ctl(["exec", "nobody-at-all", "--", "true"]).done().expect(4).says("AGENT_NOT_FOUND");
}
