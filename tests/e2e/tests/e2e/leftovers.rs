//! Stopping everything leaves nothing in the kernel, however it was stopped.

use std::time::Duration;

use aion_e2e::{Daemons, Which, leftovers, until};

use crate::agent::detached;

fn busy(daemons: &Daemons) {
    let spread = "for i in 1 2 3 4 5; do (setsid sleep 300 &) ; done; echo ready; sleep 300";
    for n in 0..5 {
        let agent = detached(daemons, &format!("busy-{n}"), &[], &["sh", "-c", spread]);
        agent.await_log("ready");
        // It stays: whoever stops the daemons ends it.
        std::mem::forget(agent);
    }
    daemons.ctl(["run", "-d", "--network", "host", "--", "sleep", "300"]).ok();
    daemons.ctl(["run", "-d", "--rm", "--", "true"]).ok();
}

pub(crate) fn stopping_everything_leaves_nothing() {
    let daemons = Daemons::start().unwrap();
    busy(&daemons);
    let state = daemons.state().to_owned();
    let seen = leftovers(&state);
    for what in ["process", "cgroup", "pinned objects"] {
        assert!(
            seen.iter().any(|thing| thing.starts_with(what)),
            "the look from outside sees no {what}: {seen:?}"
        );
    }
    daemons.finish().unwrap();
}

pub(crate) fn purge_after_a_crash() {
    let daemons = Daemons::start().unwrap();
    busy(&daemons);
    daemons.kill(Which::Launcher);
    daemons.kill(Which::Aiond);
    daemons.purge().unwrap();
    // Whoever inherits dead processes may take a moment to bury them.
    let clean = until(Duration::from_secs(10), || leftovers(daemons.state()).is_empty().then_some(()));
    assert!(clean.is_some(), "left behind: {:?}", leftovers(daemons.state()));
}
