//! A further command in a running sandbox has the same layers, and its end is seen.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::time::Duration;

use aion_sandbox::{ExecFds, ExecPlan, Executing, Launched, Plan};

use crate::ends::until;
use crate::harness::{Home, PATIENCE, read_journal, sh, skip, spawner};

fn run(agent: &Launched, plan: Plan) -> (Result<Executing, aion_sandbox::Error>, std::io::PipeReader) {
    let (output, theirs) = std::io::pipe().unwrap();
    let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let errors = theirs.try_clone().unwrap();
    let fds = ExecFds { stdin: null(), stdout: theirs.into(), stderr: errors.into() };
    let slot = spawner().spawn_exec(None, Duration::from_secs(10)).unwrap();
    let executing = slot.run(agent.init.pidfd(), &ExecPlan { plan, tty: None }, &fds);
    (executing, output)
}

fn text(mut output: std::io::PipeReader) -> String {
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn it_sees_what_the_agent_sees() {
    if skip() {
        return;
    }
    let home = Home::new();
    let look = "readlink /proc/self/ns/* | grep -v pid_for | sort | md5sum; \
        grep -E '^(Uid|Gid|Groups|Cap.*|NoNewPrivs|Seccomp):' /proc/self/status; pwd; ls /; ls /proc/self/fd | wc -l";
    let agent = home.launch(&sh(&format!("{look}; echo ready; sleep 1000"))).unwrap();
    until(|| read_journal(&home.journal()).text().ends_with("ready\n"));
    let (executing, output) = run(&agent, sh(&format!("{look}; echo ready; echo ps: /proc/[0-9]*; exit 42")));
    let mut executing = executing.unwrap();
    assert_ne!(executing.pid, 0);
    let seen = text(output);
    let (same, ps) = seen.split_once("ps: ").unwrap();
    assert_eq!(same, read_journal(&home.journal()).text());
    assert!(ps.starts_with("/proc/1 ") && ps.contains(" /proc/2"), "{ps}");
    let ended = executing.helper.wait(Some(PATIENCE)).unwrap().unwrap();
    assert_eq!((ended.code, ended.signal), (42, 0));
    agent.init.signal(libc::SIGKILL).unwrap();
    home.finish(agent);
}

#[test]
fn it_ends_by_signals_and_with_the_agent() {
    if skip() {
        return;
    }
    let home = Home::new();
    let agent = home.launch(&sh("sleep 1000")).unwrap();
    let (executing, _output) = run(&agent, sh("kill -9 $$"));
    let ended = executing.unwrap().helper.wait(Some(PATIENCE)).unwrap().unwrap();
    assert_eq!((ended.code, ended.signal), (0, 9));
    let (missing, _output) = run(&agent, crate::harness::argv(&["no-such-program"]));
    assert_eq!(missing.unwrap_err().shell_code(), Some(127));
    let (executing, _output) = run(&agent, sh("sleep 1000"));
    let mut executing = executing.unwrap();
    agent.init.signal(libc::SIGTERM).unwrap();
    home.finish(agent);
    assert_eq!(executing.helper.wait(Some(PATIENCE)).unwrap().unwrap().signal, 9);
}

#[test]
fn its_denied_calls_are_told() {
    if skip() {
        return;
    }
    let home = Home::new();
    let agent = home.launch(&sh("sleep 1000")).unwrap();
    let script = "import ctypes\nctypes.CDLL(None).unshare(0x10000000)";
    let (executing, _output) = run(&agent, crate::harness::argv(&["python3", "-c", script]));
    let mut executing = executing.unwrap();
    executing.helper.wait(Some(PATIENCE)).unwrap().unwrap();
    let denied = executing.next_denied().unwrap().unwrap();
    assert_eq!((i64::from(denied.nr), denied.count), (libc::SYS_unshare, 1));
    assert!(executing.next_denied().unwrap().is_none());
    agent.init.signal(libc::SIGKILL).unwrap();
    home.finish(agent);
}
