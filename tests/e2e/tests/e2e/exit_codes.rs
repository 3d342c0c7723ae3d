//! What `run` and `wait` end with.

use std::time::{Duration, Instant};

use aion_e2e::eventually;
use nix::sys::signal::Signal;

use crate::Shared;
use crate::agent::{detached_sh, is_alive, pair, path, run, sh, workspace};

pub(crate) fn the_childs_code(shared: &Shared) {
    for code in [0, 1, 3, 42, 125, 126, 127, 255] {
        sh(pair(shared), &[], &format!("exit {code}")).done().expect(code);
    }
}

pub(crate) fn not_found_and_not_executable(shared: &Shared) {
    let daemons = pair(shared);
    run(daemons, &[], &["/no/such/program"]).done().expect(127).says("COMMAND_NOT_FOUND");
    run(daemons, &[], &["no-such-program-anywhere"]).done().expect(127).says("COMMAND_NOT_FOUND");
    run(daemons, &[], &["/etc/passwd"]).done().expect(126).says("COMMAND_NOT_EXECUTABLE");
    run(daemons, &[], &["/usr"]).done().expect(126);
}

pub(crate) fn signals(shared: &Shared) {
    let daemons = pair(shared);
    sh(daemons, &[], "kill -TERM $$").done().expect(143);
    sh(daemons, &[], "kill -KILL $$").done().expect(137);
    sh(daemons, &[], "kill -SEGV $$").done().expect(139);

    // Those that the command line gets are the agent's.
    for (signal, code) in [(Signal::SIGTERM, 42), (Signal::SIGINT, 43), (Signal::SIGHUP, 44)] {
        let script = "trap 'exit 42' TERM; trap 'exit 43' INT; trap 'exit 44' HUP; echo ready; while :; do sleep 0.05; done";
        let mut live = sh(daemons, &[], script).spawn();
        live.await_text("ready");
        live.signal(signal);
        live.done().expect(code);
    }

    // A second ctrl-c kills what ignores the first.
    let mut live = sh(daemons, &[], "trap '' INT TERM; echo ready; while :; do sleep 0.05; done").spawn();
    live.await_text("ready");
    live.signal(Signal::SIGINT);
    std::thread::sleep(Duration::from_millis(300));
    assert!(live.runs(), "it ignores the first");
    live.signal(Signal::SIGINT);
    let begun = Instant::now();
    live.done().expect(137);
    assert!(begun.elapsed() < Duration::from_secs(10));
}

pub(crate) fn own_errors(shared: &Shared) {
    let daemons = pair(shared);
    daemons.ctl(["run"]).done().expect(125);
    daemons
        .ctl(["run", "--workspace", "/no/such/folder", "--", "true"])
        .done()
        .expect(125)
        .says("WORKSPACE_INVALID");
    daemons.ctl(["run", "--name", "Not Valid", "--", "true"]).done().expect(125);
    daemons
        .ctl(["--socket", "/no/such.sock", "run", "--", "true"])
        .done()
        .expect(125)
        .says("DAEMON_UNAVAILABLE");
}

pub(crate) fn wait_prints_the_code(shared: &Shared) {
    let daemons = pair(shared);
    let agent = detached_sh(daemons, "wait", &[], "sleep 0.3; exit 7");
    assert_eq!(daemons.ctl(["wait", &agent.name]).ok().text(), "7\n");
    assert_eq!(agent.inspect()["exit"], serde_json::json!({"code": 7, "signal": 0, "reason": "exited"}));
    assert_eq!(daemons.ctl(["wait", &agent.name]).ok().text(), "7\n", "and once more, at once");
    let slow = detached_sh(daemons, "wait", &[], "sleep 60");
    daemons.ctl(["wait", "--timeout", "200ms", &slow.name]).done().expect(1).says("WAIT_TIMEOUT");
}

pub(crate) fn rm_leaves_nothing(shared: &Shared) {
    let daemons = pair(shared);
    let name = daemons.name("rm");
    let dir = workspace();
    let waits = "while [ ! -e go ]; do sleep 0.05; done";
    let live = daemons
        .ctl(["run", "--rm", "--name", &name, "--workspace", path(&dir), "--", "sh", "-c", waits])
        .spawn();
    eventually("it runs", Duration::from_secs(20), || daemons.ctl(["inspect", &name]).done().code == 0);
    let pid = u32::try_from(daemons.ctl(["inspect", &name]).json()["pid"].as_u64().unwrap_or(0)).unwrap();
    std::fs::write(dir.path().join("go"), "").unwrap();
    live.done().expect(0);
    daemons.ctl(["inspect", &name]).done().expect(4);
    assert!(pid == 0 || !is_alive(pid));
    // The name is free at once.
    daemons.ctl(["run", "--rm", "--name", &name, "--", "true"]).ok();

    // In the background the daemon does it.
    daemons.ctl(["run", "--rm", "-d", "--name", &name, "--", "true"]).ok();
    eventually("it is removed", Duration::from_secs(20), || daemons.ctl(["inspect", &name]).done().code == 4);
}
