//! From a launch to its removal.

use aion_launcher_proto::v1::{self, request::Op, response::Result as Answer};

use crate::client::until;
use crate::daemon::Daemon;
use crate::fixtures::{directory, launch, python, sh};
use crate::leftovers;

#[test]
fn hello_tells_who_answers() {
    let Some(daemon) = Daemon::start(&[]) else { return };
    match daemon.client().call(Op::Hello(v1::Hello { protocol: 1 })).unwrap() {
        Answer::Hello(hello) => {
            assert_eq!((hello.protocol, hello.epoch), (1, 1));
            assert_eq!(hello.version, env!("CARGO_PKG_VERSION"));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(
        daemon.client().call(Op::Hello(v1::Hello { protocol: 2 })).unwrap_err().code,
        "PROTOCOL_MISMATCH"
    );
}

#[test]
fn an_agent_runs_ends_and_is_removed() {
    let Some(daemon) = Daemon::start(&[]) else { return };
    let mut client = daemon.client();
    let mut watch = daemon.client().watch(0);
    let asked =
        python("import sys, os; print('out', os.getpid()); print('err', file=sys.stderr); sys.exit(7)");
    let state = client.launch(&asked).unwrap();
    assert_eq!((state.state.as_str(), state.id.as_str()), ("running", asked.id.as_str()));
    assert!(state.pid > 0 && state.init_pid > 0 && state.cgroup_id > 0);
    eprintln!("launched in {} us", state.launch_ns / 1000);
    for layer in &state.layers {
        eprintln!("{:16} {:12} {}", layer.name, layer.state, layer.detail);
        let fine = layer.state == "active" || ["lsm", "network", "disk"].contains(&layer.name.as_str());
        assert!(fine, "{layer:?}");
    }
    let names: Vec<&str> = state.layers.iter().map(|l| l.name.as_str()).collect();
    for wanted in [
        "cgroup",
        "namespaces",
        "probes",
        "rootfs",
        "devices",
        "workspace",
        "disk",
        "network",
        "rlimits",
        "session",
        "capabilities",
        "no-new-privs",
        "landlock",
        "seccomp",
        "lsm",
    ] {
        assert!(names.contains(&wanted), "no layer {wanted} in {names:?}");
    }
    let exit = watch.exit_of(&asked.id);
    assert_eq!((exit.code, exit.signal, exit.reason.as_str()), (7, 0, "exited"));
    let (out, err) = daemon.output(&asked.id);
    assert!(out.starts_with(b"out "), "{}", String::from_utf8_lossy(&out));
    assert_eq!(err, b"err\n");
    client.remove(&asked.id).unwrap();
    assert!(client.list().is_empty());
    assert!(!daemon.state().join("agents").join(&asked.id).exists());
    assert_eq!(client.remove(&asked.id).unwrap_err().code, "AGENT_NOT_FOUND");
}

#[test]
fn a_repeated_launch_is_answered_with_the_first() {
    let Some(daemon) = Daemon::start(&[]) else { return };
    let mut client = daemon.client();
    let asked = sh("sleep 100");
    let first = client.launch(&asked).unwrap();
    assert_eq!(client.launch(&asked).unwrap().pid, first.pid);
    let next = v1::Launch { incarnation: 1, ..asked.clone() };
    assert_eq!(client.launch(&next).unwrap_err().code, "AGENT_RUNNING");
    assert_eq!(client.remove(&asked.id).unwrap_err().code, "AGENT_RUNNING");
    let killed = client.kill(&asked.id).unwrap();
    assert_eq!(killed.state, "exited");
    assert_eq!(killed.exit.as_ref().unwrap().reason, "killed");
    assert_eq!(client.launch(&asked).unwrap().exit, killed.exit);
    let again = client.launch(&next).unwrap();
    assert_eq!(again.incarnation, 1);
    assert_ne!(again.pid, first.pid);
    assert_eq!(client.launch(&asked).unwrap_err().field, "incarnation");
    client.kill(&asked.id).unwrap();
}

#[test]
fn a_restart_keeps_the_workspace_and_the_journal() {
    let Some(daemon) = Daemon::start(&[]) else { return };
    let mut client = daemon.client();
    let asked = sh("cat note 2>/dev/null; echo first > note; echo done");
    client.launch(&asked).unwrap();
    assert_eq!(client.wait(&asked.id).exit.unwrap().code, 0);
    client.launch(&v1::Launch { incarnation: 1, ..asked.clone() }).unwrap();
    assert_eq!(client.wait(&asked.id).exit.unwrap().code, 0);
    assert_eq!(String::from_utf8(daemon.output(&asked.id).0).unwrap(), "done\nfirst\ndone\n");
    client.remove(&asked.id).unwrap();
    until("the volume is gone", || !leftovers::loops(daemon.state()).iter().any(|l| l.contains(&asked.id)));
}

#[test]
fn what_an_agent_makes_in_a_folder_belongs_to_its_owner() {
    let Some(daemon) = Daemon::start(&[]) else { return };
    // Not in /tmp, which may be a tmpfs: before Linux 6.3 its owners cannot be mapped.
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    nix::unistd::chown(
        dir.path(),
        Some(nix::unistd::Uid::from_raw(4321)),
        Some(nix::unistd::Gid::from_raw(4321)),
    )
    .unwrap();
    let mut client = daemon.client();
    let mut asked = sh("echo hi > made && stat -c %u made");
    asked.workspace = directory(dir.path());
    asked.limits.as_mut().unwrap().disk_bytes = 0;
    client.launch(&asked).unwrap();
    assert_eq!(client.wait(&asked.id).exit.unwrap().code, 0);
    assert_eq!(daemon.output(&asked.id).0, b"1000\n");
    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata(dir.path().join("made")).unwrap().uid(), 4321);
}

#[test]
fn freeze_and_thaw() {
    let Some(daemon) = Daemon::start(&[]) else { return };
    let mut client = daemon.client();
    let asked = sh("while :; do :; done");
    client.launch(&asked).unwrap();
    until("it burns time", || client.stats(&asked.id).cpu_usec > 20_000);
    assert_eq!(client.freeze(&asked.id).unwrap().state, "frozen");
    let before = client.stats(&asked.id).cpu_usec;
    std::thread::sleep(std::time::Duration::from_millis(80));
    assert!(client.stats(&asked.id).cpu_usec - before < 20_000);
    assert_eq!(client.get(&asked.id).unwrap().state, "frozen");
    assert_eq!(client.thaw(&asked.id).unwrap().state, "running");
    until("it goes on", || client.stats(&asked.id).cpu_usec > before + 20_000);
    client.freeze(&asked.id).unwrap();
    assert_eq!(client.kill(&asked.id).unwrap().exit.unwrap().reason, "killed");
    assert_eq!(client.freeze(&asked.id).unwrap_err().code, "AGENT_NOT_RUNNING");
}

#[test]
fn signals_reach_the_first_process() {
    let Some(daemon) = Daemon::start(&[]) else { return };
    let mut client = daemon.client();
    let asked = sh("trap 'echo got; exit 3' TERM; echo ready; while :; do sleep 0.05; done");
    client.launch(&asked).unwrap();
    until("it is ready", || daemon.output(&asked.id).0.starts_with(b"ready"));
    client.signal(&asked.id, 15).unwrap();
    let exit = client.wait(&asked.id).exit.unwrap();
    assert_eq!((exit.code, exit.reason.as_str()), (3, "exited"));
    let plain = sh("sleep 100");
    client.launch(&plain).unwrap();
    client.signal(&plain.id, 9).unwrap();
    let exit = client.wait(&plain.id).exit.unwrap();
    assert_eq!((exit.signal, exit.reason.as_str()), (9, "signaled"));
}

#[test]
fn a_hundred_processes_stop_at_once() {
    let Some(daemon) = Daemon::start(&[]) else { return };
    let mut client = daemon.client();
    let asked = sh("i=0; while [ $i -lt 100 ]; do sleep 100 & i=$((i+1)); done; wait");
    client.launch(&asked).unwrap();
    until("all are there", || client.stats(&asked.id).pids >= 101);
    let start = std::time::Instant::now();
    client.kill(&asked.id).unwrap();
    eprintln!("stopped in {:?}", start.elapsed());
    let group = client.get(&asked.id).unwrap().cgroup;
    // The answer is the agent's end; the empty group goes after it.
    until("nothing is left", || leftovers::find(&group).is_empty());
}

#[test]
fn a_terminal_is_handed_over_and_can_be_had_again() {
    use std::io::Write;
    let Some(daemon) = Daemon::start(&[]) else { return };
    let mut client = daemon.client();
    let mut asked = sh("tty; stty size; read line; echo \"line: $line\"");
    (asked.tty, asked.rows, asked.cols) = (true, 30, 90);
    let (_, fds) = client.call_with(Op::Launch(asked.clone()), &[]).unwrap();
    assert_eq!(fds.len(), 1);
    until("the terminal is there", || daemon.output(&asked.id).0.windows(5).any(|w| w == b"30 90"));
    let (_, mut again) = client.call_with(Op::OpenTty(v1::OpenTty { id: asked.id.clone() }), &[]).unwrap();
    std::fs::File::from(again.pop().unwrap()).write_all(b"hello\n").unwrap();
    assert_eq!(client.wait(&asked.id).exit.unwrap().code, 0);
    let out = String::from_utf8(daemon.output(&asked.id).0).unwrap();
    assert!(out.contains("line: hello"), "{out}");
}

#[test]
fn logs_come_as_a_descriptor() {
    let Some(daemon) = Daemon::start(&[]) else { return };
    let mut client = daemon.client();
    let asked = launch(&["/bin/echo", "hello"]);
    client.launch(&asked).unwrap();
    client.wait(&asked.id);
    let (_, mut fds) = client.call_with(Op::OpenLog(v1::OpenLog { id: asked.id.clone() }), &[]).unwrap();
    let file = std::fs::File::from(fds.pop().unwrap());
    let mut reader = aion_agent_journal::Reader::open(file, 0).unwrap();
    assert!(reader.last_exit().unwrap().is_some());
}

/// Not a benchmark, which needs a quiet machine: it tells what a launch costs here and now.
#[test]
fn many_agents_in_a_row() {
    let Some(daemon) = Daemon::start(&[]) else { return };
    let mut client = daemon.client();
    let mut watch = daemon.client().watch(u64::MAX);
    let begun = std::time::Instant::now();
    let mut took = Vec::new();
    for _ in 0..100 {
        let asked = launch(&["/bin/true"]);
        let state = client.launch(&asked).unwrap();
        took.push(state.launch_ns / 1000);
        assert_eq!(watch.exit_of(&asked.id).code, 0);
        client.remove(&asked.id).unwrap();
    }
    took.sort_unstable();
    eprintln!(
        "launch: p50 {} us, p90 {} us; {:?} each with its end",
        took[50],
        took[90],
        begun.elapsed() / 100
    );
    for (name, us) in daemon.cpu_time() {
        eprintln!("{name:16} {} us of processor time for each", us / 100);
    }
    assert!(client.list().is_empty());
}

#[test]
fn the_table_comes_in_pages() {
    let Some(daemon) = Daemon::start(&[]) else { return };
    let mut client = daemon.client();
    let mut ids: Vec<String> = (0..3)
        .map(|_| {
            let asked = launch(&["/bin/true"]);
            client.launch(&asked).unwrap();
            asked.id
        })
        .collect();
    ids.sort();
    let mut page = |after: &str, limit| {
        let page = client.page(after, limit).unwrap();
        (page.agents.into_iter().map(|agent| agent.id).collect::<Vec<_>>(), page.more)
    };
    assert_eq!(page("", 2), (ids[..2].to_vec(), true));
    assert_eq!(page(&ids[1], 2), (ids[2..].to_vec(), false));
    assert_eq!(page("", 3), (ids.clone(), false));
    assert_eq!(page(&ids[2], 3), (Vec::new(), false));
    assert_eq!(page("", 0), (ids, false));
    assert_eq!(client.page("no id", 2).unwrap_err().field, "after");
}
