//! SIGKILL for aion-launcher, and for both: what agents may not do they still may not, and nothing is forgotten.

use std::net::TcpListener;
use std::time::Duration;

use aion_e2e::{Daemons, Which, eventually};

use crate::agent::{Agent, detached, is_alive, path, workspace};

/// Tries what is denied, again and again, and notes each answer down where the test can read it without a daemon.
const TRIES: &str = r#"
import os, socket, time, ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
port = int(sys.argv[1])
n = 0
while True:
    n += 1
    got = []
    try:
        socket.create_connection(('127.0.0.1', port), 0.5); got.append('connected')
    except OSError: pass
    if libc.unshare(0x10000000) == 0: got.append('unshared')
    if libc.mount(b'x', b'/tmp', b'tmpfs', 0, None) == 0: got.append('mounted')
    try:
        open('/usr/x', 'w'); got.append('wrote')
    except OSError: pass
    try:
        pids = [os.fork() for _ in range(1)]
        if pids[0] == 0: os._exit(0)
        os.waitpid(pids[0], 0)
    except OSError: got.append('no fork')
    with open('/workspace/tries', 'a') as f: f.write('%d %s\n' % (n, ','.join(got) or 'denied'))
    print(n, flush=True)
    time.sleep(0.05)
"#;

fn tries(dir: &tempfile::TempDir) -> Vec<String> {
    std::fs::read_to_string(dir.path().join("tries")).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn still_denied(dir: &tempfile::TempDir, why: &str) {
    let before = tries(dir).len();
    eventually(why, Duration::from_secs(20), || tries(dir).len() > before + 5);
    for line in tries(dir) {
        assert!(line.ends_with(" denied"), "{why}: {line}");
    }
}

fn numbers(text: &str) -> Vec<u64> {
    text.lines().map(|line| line.parse().unwrap()).collect()
}

pub(crate) fn agents_are_readopted() {
    let daemons = Daemons::start().unwrap();
    let dir = workspace();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let agent =
        detached(&daemons, "denied", &["--workspace", path(&dir)], &["/usr/bin/python3", "-c", TRIES, &port]);
    let pid = agent.pid();
    let layers = agent.inspect()["layers"].clone();
    still_denied(&dir, "before");
    for _ in 0..3 {
        daemons.kill(Which::Launcher);
        assert!(is_alive(pid));
        still_denied(&dir, "without the launcher");
        // What needs the launcher says so.
        daemons
            .ctl(["run", "--", "true"])
            .env("AION_RECONNECT_SECONDS", "1")
            .done()
            .expect(125)
            .says("LAUNCHER_UNAVAILABLE");
        daemons.ctl(["ps"]).ok();
        daemons.start_one(Which::Launcher).unwrap();
        daemons.await_ready().unwrap();
        let value = agent.inspect();
        assert_eq!((value["state"].as_str(), value["pid"].as_u64()), (Some("running"), Some(u64::from(pid))));
        assert_eq!(value["layers"], layers, "as they were");
        still_denied(&dir, "after it was adopted");
    }
    // It obeys as before.
    daemons.ctl(["exec", &agent.name, "--", "true"]).ok();
    daemons.ctl(["pause", &agent.name]).ok();
    daemons.ctl(["resume", &agent.name]).ok();
    daemons.ctl(["stop", "-t", "1", &agent.name]).ok();
    assert!(!is_alive(pid));
    let seen = numbers(&agent.logs().text());
    assert_eq!(seen, (1..=u64::try_from(seen.len()).unwrap()).collect::<Vec<_>>());
    assert!(!agent.records("agent.adopted").is_empty(), "the log says that it was adopted");
    // Probes and audit go on: what an agent does now is recorded.
    let next = detached(&daemons, "next", &[], &["/bin/echo", "marker-next"]);
    next.wait();
    assert!(next.records("proc.exec").iter().any(|record| record.to_string().contains("marker-next")));
    daemons.ctl(["audit", "verify"]).ok();
    drop((agent, next));
    daemons.finish().unwrap();
}

pub(crate) fn what_ended_meanwhile_is_known() {
    let daemons = Daemons::start().unwrap();
    let dir = workspace();
    let ends = |stem: &str, script: &str| {
        let script = format!("while [ ! -e go ]; do sleep 0.1; done; {script}");
        detached(&daemons, stem, &["--workspace", path(&dir)], &["sh", "-c", &script])
    };
    let by_itself = ends("itself", "echo bye; exit 21");
    let by_signal = ends("signal", "kill -SEGV $$");
    let stays = ends("stays", "sleep 100");
    let (pid, first, second) = (stays.pid(), by_itself.pid(), by_signal.pid());
    daemons.kill(Which::Launcher);
    std::fs::write(dir.path().join("go"), "").unwrap();
    eventually("they end", Duration::from_secs(20), || !is_alive(first) && !is_alive(second));
    daemons.start_one(Which::Launcher).unwrap();
    daemons.await_ready().unwrap();
    assert_eq!(by_itself.wait(), 21);
    assert_eq!(by_itself.logs().text(), "bye\n");
    assert_eq!(by_signal.wait(), 139);
    assert_eq!(stays.pid(), pid);
    drop((by_itself, by_signal, stays));
    daemons.finish().unwrap();
}

pub(crate) fn enforcement_holds_without_daemons() {
    let daemons = Daemons::start().unwrap();
    let dir = workspace();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let agent =
        detached(&daemons, "alone", &["--workspace", path(&dir)], &["/usr/bin/python3", "-c", TRIES, &port]);
    let bomb = "import os, time\nn = 0\nwhile not os.path.exists('/workspace/go'): time.sleep(0.05)\ntry:\n  while True:\n    if os.fork() == 0: time.sleep(60); os._exit(0)\n    n += 1\nexcept OSError: open('/workspace/bomb', 'w').write(str(n))\ntime.sleep(1)\nos._exit(17)";
    let limited = detached(
        &daemons,
        "limited",
        &["--workspace", path(&dir), "--pids", "20"],
        &["/usr/bin/python3", "-c", bomb],
    );
    let (pid, second) = (agent.pid(), limited.pid());
    still_denied(&dir, "before");
    daemons.kill(Which::Aiond);
    daemons.kill(Which::Launcher);
    still_denied(&dir, "with both dead");
    std::fs::write(dir.path().join("go"), "").unwrap();
    eventually("the bomb is limited", Duration::from_secs(20), || dir.path().join("bomb").exists());
    let made: u32 = std::fs::read_to_string(dir.path().join("bomb")).unwrap().parse().unwrap_or(0);
    assert!(made <= 20, "{made}");
    eventually("it ends", Duration::from_secs(20), || !is_alive(second));
    assert!(is_alive(pid));
    daemons.start_one(Which::Launcher).unwrap();
    daemons.start_one(Which::Aiond).unwrap();
    daemons.await_ready().unwrap();
    assert_eq!(limited.wait(), 17);
    assert_eq!(agent.pid(), pid);
    still_denied(&dir, "afterwards");
    let before = tries(&dir).len();
    let text = Agent::logs(&agent).text();
    let seen = numbers(&text);
    assert!(seen.len() + 2 >= before, "the output went on: {} lines of {before}", seen.len());
    assert_eq!(seen, (1..=u64::try_from(seen.len()).unwrap()).collect::<Vec<_>>(), "and all of it is there");
    drop((agent, limited));
    daemons.finish().unwrap();
}
