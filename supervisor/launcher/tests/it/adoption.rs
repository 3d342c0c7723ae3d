//! Agents outlive the launcher, denied what they were denied; the next one takes them over.

use aion_launcher_proto::v1;

use crate::client::{borrowed, until};
use crate::daemon::Daemon;
use crate::fixtures::{id, python, sh};
use crate::leftovers;
use crate::records::records;

const HEART: &str = "import socket, time\n\
    def denied():\n\
    \x20 s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
    \x20 s.settimeout(0.2)\n\
    \x20 try: s.connect(('192.0.2.1', 80)); return 'open'\n\
    \x20 except OSError as e: return str(e.errno)\n\
    while True:\n\
    \x20 print(denied(), flush=True); time.sleep(0.02)";

fn lines(daemon: &Daemon, id: &str) -> usize {
    daemon.output(id).0.iter().filter(|b| **b == b'\n').count()
}

#[test]
fn killed_and_started_again_it_knows_its_agents() {
    let Some(mut daemon) = Daemon::start(&[]) else { return };
    let mut client = daemon.client();
    let (heart, brief, frozen) =
        (python(HEART), sh("sleep 0.5; echo bye; exit 6"), sh("while :; do :; done"));
    let before = client.launch(&heart).unwrap();
    client.launch(&brief).unwrap();
    client.launch(&frozen).unwrap();
    client.freeze(&frozen.id).unwrap();
    until("it beats", || lines(&daemon, &heart.id) > 3);
    let group = daemon.cgroup();
    daemon.murder();
    let at = lines(&daemon, &heart.id);
    until("it beats without a launcher", || lines(&daemon, &heart.id) > at + 5);
    std::thread::sleep(std::time::Duration::from_millis(600));
    daemon.again();
    let mut client = daemon.client();
    let after = client.get(&heart.id).unwrap();
    assert_eq!((after.pid, after.state.as_str(), &after.layers), (before.pid, "running", &before.layers));
    let exit = client.wait(&brief.id).exit.unwrap();
    assert_eq!((exit.code, exit.reason.as_str()), (6, "exited"));
    assert_eq!(client.get(&frozen.id).unwrap().state, "frozen");
    assert_eq!(client.thaw(&frozen.id).unwrap().state, "running");

    // It obeys as before.
    client.freeze(&heart.id).unwrap();
    let at = lines(&daemon, &heart.id);
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert!(lines(&daemon, &heart.id) <= at + 1);
    client.thaw(&heart.id).unwrap();
    let (_read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let fds = [write.try_clone().unwrap(), write.try_clone().unwrap(), write];
    let exec =
        v1::Exec { id: heart.id.clone(), exec_id: id(), argv: vec![b"true".to_vec()], ..Default::default() };
    client.exec(exec, &borrowed(&fds)).unwrap();
    assert_eq!(client.kill(&heart.id).unwrap().exit.unwrap().reason, "killed");
    client.kill(&frozen.id).unwrap();
    for agent in [&heart, &brief, &frozen] {
        client.remove(&agent.id).unwrap();
    }
    until("the adoption is in the log", || {
        records(&daemon).iter().any(|r| r.kind == "agent.adopted" && r.agent == heart.id)
    });
    assert!(!leftovers::find(&group).is_empty(), "the pool is there");
}

#[test]
fn nothing_was_allowed_meanwhile() {
    let Some(mut daemon) = Daemon::start(&[]) else { return };
    let mut client = daemon.client();
    let heart = python(HEART);
    client.launch(&heart).unwrap();
    for _ in 0..3 {
        daemon.murder();
        let at = lines(&daemon, &heart.id);
        until("it beats", || lines(&daemon, &heart.id) > at + 3);
        daemon.again();
    }
    let mut client = daemon.client();
    client.kill(&heart.id).unwrap();
    let out = String::from_utf8(daemon.output(&heart.id).0).unwrap();
    let mut answers: Vec<&str> = out.lines().collect();
    answers.sort_unstable();
    answers.dedup();
    assert_eq!(answers, ["1"], "EPERM each time");
}

#[test]
fn a_deadline_survives() {
    let Some(mut daemon) = Daemon::start(&[]) else { return };
    let mut asked = sh("sleep 100");
    asked.limits.as_mut().unwrap().wall_ms = 1500;
    daemon.client().launch(&asked).unwrap();
    daemon.murder();
    daemon.again();
    assert_eq!(daemon.client().wait(&asked.id).exit.unwrap().reason, "timeout");
}

#[test]
fn stopped_in_order_it_leaves_agents_running() {
    let Some(mut daemon) = Daemon::start(&[]) else { return };
    let asked = python(HEART);
    daemon.client().launch(&asked).unwrap();
    until("it beats", || lines(&daemon, &asked.id) > 3);
    daemon.stop();
    let left = leftovers::find(&daemon.cgroup());
    assert!(!left.iter().any(|l| l.contains("slot") && l.ends_with("aion-launcher")), "{left:?}");
    let at = lines(&daemon, &asked.id);
    until("it beats on", || lines(&daemon, &asked.id) > at + 3);
    daemon.again();
    daemon.client().kill(&asked.id).unwrap();
}

#[test]
fn agents_that_died_with_the_launcher_have_an_exit() {
    let Some(mut daemon) = Daemon::start(&[]) else { return };
    let asked = sh("sleep 100");
    let state = daemon.client().launch(&asked).unwrap();
    daemon.murder();
    let pid = nix::unistd::Pid::from_raw(state.init_pid.cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL).unwrap();
    daemon.again();
    let exit = daemon.client().wait(&asked.id).exit.unwrap();
    assert_eq!((exit.signal, exit.reason.as_str()), (9, "lost"));
}

#[test]
fn purge_leaves_nothing() {
    let Some(mut daemon) = Daemon::start(&[]) else { return };
    let asked = python(HEART);
    daemon.client().launch(&asked).unwrap();
    daemon.murder();
    assert!(daemon.purge());
    assert_eq!(leftovers::find(&daemon.cgroup()), [""; 0]);
    until("no loop device", || leftovers::loops(daemon.state()).is_empty());
    daemon.again();
    assert_eq!(daemon.client().get(&asked.id).unwrap().exit.unwrap().reason, "killed");
}

#[test]
fn purge_with_grace_lets_agents_end_by_themselves() {
    let Some(mut daemon) = Daemon::start(&[]) else { return };
    let polite = sh("trap 'echo saved; exit 0' TERM; echo ready; while :; do sleep 0.05; done");
    let deaf = sh("trap '' TERM; echo ready; while :; do sleep 0.05; done");
    for asked in [&polite, &deaf] {
        daemon.client().launch(asked).unwrap();
        until("it listens", || !daemon.output(&asked.id).0.is_empty());
    }
    daemon.murder();
    assert!(
        daemon.command(&["purge", "--grace", "2", "--state"]).arg(daemon.state()).status().unwrap().success()
    );
    assert_eq!(leftovers::find(&daemon.cgroup()), [""; 0]);
    assert_eq!(daemon.output(&polite.id).0, b"ready\nsaved\n");
    daemon.again();
    // Also of the one that ended by itself: it was the host's doing, and what it was to do is to be done again.
    for asked in [&polite, &deaf] {
        assert_eq!(daemon.client().get(&asked.id).unwrap().exit.unwrap().reason, "killed");
    }
}

#[test]
fn it_can_take_its_agents_with_it() {
    let Some(mut daemon) = Daemon::start(&["--stop-agents-on-exit"]) else { return };
    let asked = python(HEART);
    daemon.client().launch(&asked).unwrap();
    daemon.stop();
    assert_eq!(leftovers::find(&daemon.cgroup()), [""; 0]);
}
