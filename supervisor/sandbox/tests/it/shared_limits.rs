//! Limits that the kernel keeps for each user are not shared with the host's users, nor between agents.

use crate::ends::until;
use crate::harness::{Home, argv, read_journal, skip};

/// Takes all that there is, says how many, and keeps them.
const HOLD_INOTIFY: &str = "import ctypes, time\nl = ctypes.CDLL(None)\nn = 0\n\
    while n < 900 and l.inotify_init1(0) >= 0: n += 1\nprint(n, flush=True)\ntime.sleep(100)";

#[test]
fn an_agent_takes_inotify_instances_from_nobody() {
    if skip() {
        return;
    }
    let plan = argv(&["python3", "-c", HOLD_INOTIFY]);
    let (first, second) = (Home::new(), Home::new());
    let held = |home: &Home| {
        let agent = home.launch(&plan).unwrap();
        until(|| read_journal(&home.journal()).text().ends_with('\n'));
        (agent, read_journal(&home.journal()).text().trim().parse::<u32>().unwrap())
    };
    let (one, of_one) = held(&first);
    let ours = rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::CLOEXEC);
    let (other, of_other) = held(&second);
    for (home, agent) in [(&first, one), (&second, other)] {
        agent.init.signal(libc::SIGKILL).unwrap();
        home.finish(agent);
    }
    assert!(of_one > 0, "it could not take any");
    assert!(ours.is_ok(), "an agent holds {of_one}, and root of the host gets none");
    assert_eq!(of_one, of_other, "one agent left less for the other");
}
