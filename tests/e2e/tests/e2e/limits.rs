//! Limits, and the events that say which of them was reached.

use aion_e2e::slowness;

use crate::Shared;
use crate::agent::{Agent, detached, pair, python, sh};

/// Runs an agent that reaches a limit, and stays to be asked about it.
fn limited<'a>(shared: &'a Shared, stem: &str, flags: &[&str], program: &[&str]) -> (Agent<'a>, i32) {
    let agent = detached(pair(shared), stem, flags, program);
    let code = agent.wait();
    (agent, code)
}

pub(crate) fn memory(shared: &Shared) {
    let hog = "b = []\nfor i in range(400): b.append(bytearray(1 << 20))\nprint('unharmed')";
    let done = python(pair(shared), &["--memory", "64Mi"], hog).done().expect(137);
    assert!(done.err.contains("memory"), "{}", done.err);
    assert_eq!(done.text(), "");

    let (agent, code) = limited(shared, "oom", &["--memory", "64Mi"], &["/usr/bin/python3", "-c", hog]);
    assert_eq!(code, 137);
    assert_eq!(agent.inspect()["exit"]["reason"], "oom");
    let events = agent.records("mem.oom");
    assert!(!events.is_empty(), "an event says so");
    // Inside the limit nothing happens.
    let modest = "b = bytearray(40 << 20)\nprint('fine')";
    assert_eq!(python(pair(shared), &["--memory", "128Mi"], modest).ok().text(), "fine\n");
}

pub(crate) fn processes(shared: &Shared) {
    let bomb = "import os, time\nn = 0\ntry:\n  while True:\n    if os.fork() == 0: time.sleep(30); os._exit(0)\n    n += 1\n\
                except OSError as e: print(n, e.errno, flush=True)\n";
    let (agent, code) = limited(shared, "bomb", &["--pids", "20"], &["/usr/bin/python3", "-c", bomb]);
    assert_eq!(code, 0);
    let text = agent.logs().text();
    let (made, errno) = text.trim().split_once(' ').unwrap();
    assert_eq!(errno, "11", "EAGAIN");
    let made: u32 = made.parse().unwrap();
    assert!((15..=20).contains(&made), "{made} of 20");
    let events = agent.records("limit.hit");
    assert!(events.iter().any(|event| event.to_string().contains("pids")), "{events:?}");
}

pub(crate) fn file_size(shared: &Shared) {
    let script =
        "trap '' XFSZ; dd if=/dev/zero of=big bs=64k count=64 2>&1 | grep -c 'too large'; stat -c %s big";
    let out = sh(pair(shared), &["--file-size", "1Mi"], script).ok().text();
    assert_eq!(out, "1\n1048576\n");
}

pub(crate) fn disk(shared: &Shared) {
    let agent = detached(pair(shared), "disk", &["--disk", "32Mi"], &["sleep", "30"]);
    let layer =
        agent.inspect()["layers"].as_array().unwrap().iter().find(|layer| layer["name"] == "disk").cloned();
    if layer.is_none_or(|layer| layer["state"] != "active") {
        // The next best limits are the file's and the memory's; what is left is told in the layer.
        return;
    }
    let script = "dd if=/dev/zero of=/workspace/big bs=1M count=64 2>&1 | grep -c 'No space left'; \
        for i in 1 2 3 4; do dd if=/dev/zero of=/workspace/f$i bs=1M count=16 2>/dev/null; done; du -sm /workspace | cut -f1";
    let out = sh(pair(shared), &["--disk", "32Mi"], script).ok().text();
    let (full, used) = out.trim().split_once('\n').unwrap();
    assert_eq!(full, "1", "ENOSPC");
    assert!(used.parse::<u32>().unwrap() <= 33, "{used} MiB are used");
}

pub(crate) fn wall_clock(shared: &Shared) {
    let time = format!("{}ms", 600 * slowness());
    let done =
        sh(pair(shared), &["--timeout", &time], "trap '' TERM; echo begun; sleep 120").done().expect(137);
    assert_eq!(done.text(), "begun\n");
    assert!(done.err.contains("time limit"), "{}", done.err);
    let (agent, code) = limited(shared, "clock", &["--timeout", &time], &["sleep", "120"]);
    assert_eq!((code, agent.inspect()["exit"]["reason"].as_str()), (137, Some("timeout")));
    let events = agent.records("limit.hit");
    assert!(!events.is_empty(), "an event says so");
}

pub(crate) fn processor(shared: &Shared) {
    // Without the interpreter's own start, which may take longer than all of it.
    let busy = "import time\nbegun = time.process_time()\nend = time.monotonic() + 1.5\nwhile time.monotonic() < end: pass\nprint(time.process_time() - begun)";
    let used: f64 = python(pair(shared), &["--cpus", "0.2"], busy).ok().text().trim().parse().unwrap();
    // A fifth, with room for the group's period.
    assert!(used < 0.75, "{used} s of processor in 1.5 s");
}

pub(crate) fn open_files(shared: &Shared) {
    let program = "import os\nn = 0\ntry:\n  while True: os.open('/dev/null', 0); n += 1\nexcept OSError as e: print(n, e.errno)";
    let out = python(pair(shared), &["--open-files", "64"], program).ok().text();
    assert_eq!(out, "61 24\n", "64 with the three that it has");
}
