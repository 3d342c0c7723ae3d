//! The end of an agent: who and what ended it, its last records, and the removal of all that was its own.

use std::sync::Arc;
use std::time::Duration;

use aion_launcher_proto::v1;
use aion_sandbox::Ended;
use aion_types::{Exit, ExitReason};
use nix::libc;
use serde_json::json;

use crate::agent::{Agent, Run};
use crate::audit::Entry;
use crate::clock;
use crate::denials::{self, syscall_name};
use crate::failure::chain;
use crate::grams;
use crate::launcher::{END_PATIENCE, Launcher};
use crate::limits;
use crate::lock::lock;
use crate::network_limits;
use crate::state::Phase;

/// Everything that is done once init has ended.
pub(crate) fn finish(launcher: &Arc<Launcher>, agent: &Arc<Agent>, run: &Arc<Run>) {
    let ended =
        lock(&run.init).as_mut().and_then(|init| init.wait(Some(Duration::from_secs(5))).ok().flatten());
    let group = &run.held.group;
    // What init did not take with it: commands that were run in the sandbox.
    if group.is_populated()
        && let Err(e) = group.kill().and_then(|()| group.wait_empty(END_PATIENCE))
    {
        tracing::error!(agent = %agent.id, tenant = agent.tenant(), error = chain(&e), "processes of an ended agent are left");
    }
    denials::read(launcher, agent, run);
    limits::look(launcher, agent, run, true);
    network_limits::look(launcher, agent, run, true);
    let drained = launcher.drain.now();
    let mut counters = match launcher.probes.get() {
        Some(probes) if run.probed => probes.remove_agent(group.id()).ok(),
        _ => None,
    };
    if let Some(counters) = &counters {
        crate::drops::tell(launcher, agent, run, counters.counters.dropped);
    }
    if let Some(model) = counters.as_mut().and_then(|counters| counters.grams.take()) {
        grams::keep(launcher, &agent.id, &model);
    }
    // Records that still wait keep their owner: a group's number is not given out again.
    if drained {
        launcher.disown(group.id());
    }
    let seen = Seen {
        written: lock(&run.journal).exit,
        ended: if run.adopted { None } else { ended },
        oom: group.limit_counters().oom_kills > 0,
    };
    let exit = note(launcher, agent, run, &seen, counters);
    agent.tell_ended();
    tell(launcher, agent, run, exit);
    if let Some(number) = run.network
        && let Err(e) = launcher.network.detach(number)
    {
        tracing::error!(agent = %agent.id, tenant = agent.tenant(), error = chain(&e), "the agent's network is left");
    }
    launcher.slots.release(&run.held);
    if let Some(volumes) = &launcher.volumes {
        volumes.rest(agent.id.as_str());
    }
    agent.end_run();
}

/// Writes the exit into the record and tells the watchers.
fn note(
    launcher: &Launcher,
    agent: &Agent,
    run: &Run,
    seen: &Seen,
    counters: Option<aion_probes::FinalCounters>,
) -> Exit {
    // Before the agent's own lock: the drain takes the two in this order.
    let journal_cursor = lock(&run.journal).cursor;
    let exit = {
        let mut inner = agent.lock();
        let exit = decide(seen, &inner.record.kill_reason);
        let record = &mut inner.record;
        record.agent.exit = Some(v1::Exit {
            code: i32::from(exit.code),
            signal: i32::from(exit.signal),
            reason: exit.reason.as_str().to_owned(),
            time_ns: seen.written.map_or_else(clock::wall_ns, |(_, time)| time),
        });
        record.journal_cursor = journal_cursor;
        record.paused = false;
        record.set_phase(Phase::Exited);
        if let Some(counters) = counters {
            record.agent.dropped_events += counters.counters.dropped;
            let net = counters.counters.net;
            (record.agent.net_rx_bytes, record.agent.net_tx_bytes) = (net.rx_bytes, net.tx_bytes);
            inner.last_counters = counters;
        }
        exit
    };
    if let Err(failure) = launcher.publish(agent) {
        tracing::error!(agent = %agent.id, tenant = agent.tenant(), code = failure.code.as_str(), %failure, "the agent's record cannot be written");
    }
    exit
}

fn tell(launcher: &Launcher, agent: &Agent, run: &Run, exit: Exit) {
    let stats = run.held.group.stats();
    let (incarnation, tenant, calls) = {
        let inner = agent.lock();
        let calls: serde_json::Map<_, _> =
            inner.last_counters.syscalls.iter().map(|c| (syscall_name(c.nr), json!(c.count))).collect();
        (inner.record.agent.incarnation, inner.record.agent.tenant.clone(), calls)
    };
    let detail = json!({
        "code": exit.code, "signal": exit.signal, "reason": exit.reason.as_str(), "incarnation": incarnation,
        "cpu_usec": stats.cpu_usec, "throttled_usec": stats.throttled_usec, "memory_peak": stats.memory_peak_bytes,
    });
    let mut entries = Vec::new();
    if !calls.is_empty() {
        // Of what the kernel counted nothing is left afterwards.
        let counted = json!({ "incarnation": incarnation, "calls": calls });
        entries.push(Entry::new("agent.counted", "allowed", &counted));
    }
    entries.push(Entry::new("agent.exited", "allowed", &detail));
    for (signal, limit, rule) in
        [(libc::SIGXFSZ, "file_size", "limits.file_size_bytes"), (libc::SIGXCPU, "cpu_time", "rlimits")]
    {
        if i32::from(exit.signal) == signal {
            entries.push(Entry::new("limit.hit", "denied", &json!({ "limit": limit })).rule(rule));
        }
    }
    limits::tell(launcher, agent, entries);
    // Not `code`: that is an error's, in systemd's journal AION_CODE.
    tracing::info!(agent = %agent.id, tenant, exit_code = exit.code, signal = exit.signal, reason = exit.reason.as_str(), "ended");
}

/// All that is known about an end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// What init wrote into the journal, and when.
    pub(crate) written: Option<(aion_agent_journal::Exit, u64)>,
    /// How init itself ended, if it was our child.
    pub(crate) ended: Option<Ended>,
    /// The kernel killed processes of the group for want of memory.
    pub(crate) oom: bool,
}

/// How it ended. What init wrote is the truth about the first process; without it init was killed too.
pub(crate) fn decide(seen: &Seen, kill_reason: &str) -> Exit {
    const KILL: u8 = 9;
    let asked = (!kill_reason.is_empty()).then(|| ExitReason::parse(kill_reason));
    if let Some((exit, _)) = seen.written {
        let reason = match exit.signal {
            0 => ExitReason::Exited,
            KILL => asked.unwrap_or(if seen.oom { ExitReason::Oom } else { ExitReason::Signaled }),
            _ => ExitReason::Signaled,
        };
        return Exit { code: exit.code, signal: exit.signal, reason };
    }
    let by_signal = |signal, reason| Exit { code: 0, signal, reason };
    match (asked, seen.ended) {
        (Some(reason), _) => by_signal(KILL, reason),
        (None, _) if seen.oom => by_signal(KILL, ExitReason::Oom),
        // Somebody on the host killed init.
        (None, Some(Ended { signal, .. })) if signal != 0 => by_signal(signal, ExitReason::Killed),
        // It ended and could not write it down: the disk is full. It ends as its agent did.
        (None, Some(Ended { code, .. })) if code > 128 => by_signal(code - 128, ExitReason::Signaled),
        (None, Some(Ended { code, .. })) => Exit { code, signal: 0, reason: ExitReason::Exited },
        (None, None) => by_signal(KILL, ExitReason::Lost),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(code: u8, signal: u8) -> Option<(aion_agent_journal::Exit, u64)> {
        Some((aion_agent_journal::Exit { code, signal }, 1))
    }

    fn decided(seen: Seen, kill_reason: &str) -> (u8, u8, &'static str) {
        let exit = decide(&seen, kill_reason);
        (exit.code, exit.signal, exit.reason.as_str())
    }

    #[test]
    fn what_init_wrote_is_the_truth() {
        let seen = |written| Seen { written, ended: None, oom: false };
        assert_eq!(decided(seen(written(3, 0)), ""), (3, 0, "exited"));
        assert_eq!(decided(seen(written(0, 15)), ""), (0, 15, "signaled"));
        // It was faster than the kill.
        assert_eq!(decided(seen(written(0, 0)), "killed"), (0, 0, "exited"));
        assert_eq!(decided(seen(written(0, 9)), "killed"), (0, 9, "killed"));
        assert_eq!(decided(seen(written(0, 9)), ""), (0, 9, "signaled"));
        assert_eq!(decided(Seen { oom: true, ..seen(written(0, 9)) }, ""), (0, 9, "oom"));
        // A child ran out of memory; the agent went on and ended well.
        assert_eq!(decided(Seen { oom: true, ..seen(written(0, 0)) }, ""), (0, 0, "exited"));
    }

    #[test]
    fn without_a_record_init_was_killed_too() {
        let seen = |ended, oom| Seen { written: None, ended, oom };
        let end = |code, signal| Some(Ended { code, signal });
        assert_eq!(decided(seen(end(0, 9), false), "timeout"), (0, 9, "timeout"));
        assert_eq!(decided(seen(end(0, 9), true), ""), (0, 9, "oom"));
        assert_eq!(decided(seen(end(0, 9), false), ""), (0, 9, "killed"));
        assert_eq!(decided(seen(end(7, 0), false), ""), (7, 0, "exited"));
        assert_eq!(decided(seen(end(137, 0), false), ""), (0, 9, "signaled"));
        assert_eq!(decided(seen(None, false), ""), (0, 9, "lost"));
        assert_eq!(decided(seen(None, false), "killed"), (0, 9, "killed"));
    }
}
