//! A new launcher takes over what an earlier one left: agents that run are watched again, agents that ended
//! meanwhile get their exit, and what belongs to no agent (parked slots, half-made launches) is removed.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aion_cgroup::{AgentGroup, LimitCounters};
use aion_egress::Rules;
use aion_launcher_proto::v1;
use aion_probes::{AgentConfig, AuditMode, NetPolicy};
use aion_sandbox::{InitProcess, NetworkMode};
use aion_types::ExitReason;
use serde_json::json;

use crate::Failure;
use crate::agent::{Agent, Journal, Run, Told};
use crate::audit::Entry;
use crate::failure::chain;
use crate::launcher::{Launcher, Owner};
use crate::lock::write;
use crate::process::is_in_group;
use crate::request::NetworkLimits;
use crate::slots::{GROUP_PATIENCE, Held};
use crate::state::{Phase, Record, Stored};
use crate::{clock, devices, egress, limits, restrain, withhold};

/// Takes over. The threads do not run yet: what is found to have ended is worked on when they do. False: the probes do not know all of an
/// agent that runs, and those before must go on to hold it.
pub(crate) fn adopt(launcher: &Arc<Launcher>) -> Result<bool, Failure> {
    let mut groups = HashSet::new();
    let mut found = Vec::new();
    for stored in launcher.table.all()? {
        if let Some((agent, run)) = recall(launcher, stored) {
            groups.extend(run.as_ref().map(|run| run.held.name.clone()));
            found.push((agent, run));
        }
    }
    remove_orphans(launcher, &groups)?;
    let (mut running, mut ended, mut all_known) = (0_usize, 0_usize, true);
    for (agent, run) in found {
        write(&launcher.agents).insert(agent.id.clone(), Arc::clone(&agent));
        if let Some(run) = run {
            match take_over(launcher, &agent, run) {
                Some(known) => {
                    running += 1;
                    all_known &= known;
                }
                None => ended += 1,
            }
        }
    }
    tracing::info!(running, ended, "took over what an earlier launcher left");
    Ok(all_known)
}

/// What the table says of an agent. `None` when it was never really there.
fn recall(launcher: &Launcher, stored: Stored) -> Option<(Arc<Agent>, Option<Run>)> {
    let Stored { id, spec, record } = stored;
    let spec = spec.map(|mut spec| {
        launcher.ceilings.lower(&mut spec);
        Arc::new(spec)
    });
    let Some(mut record) = record else {
        tracing::error!(agent = %id, "the agent's record cannot be read: it counts as lost");
        let mut record = Record {
            agent: v1::AgentState { id: id.as_str().to_owned(), ..v1::AgentState::default() },
            ..Record::default()
        };
        if let Some(spec) = &spec {
            spec.tenant.as_str().clone_into(&mut record.agent.tenant);
            spec.name.as_str().clone_into(&mut record.agent.name);
            record.agent.incarnation = spec.incarnation;
        }
        lost(&mut record);
        return Some((Agent::new(id, spec, record), None));
    };
    match record.phase() {
        // The launcher died under it. aiond will ask again; a first launch leaves no trace.
        Phase::Launching if record.agent.incarnation == 0 => {
            if let Err(failure) = launcher.table.remove(&id) {
                tracing::error!(agent = %id, code = failure.code.as_str(), %failure, "a half-made agent cannot be removed");
            }
            let _ = std::fs::remove_dir_all(launcher.folder.agent(&id));
            None
        }
        Phase::Launching => {
            record.agent.incarnation -= 1;
            lost(&mut record);
            Some((Agent::new(id, spec, record), None))
        }
        Phase::Running => {
            let run = find(launcher, &record, spec.as_deref().is_some_and(|s| s.audit_strict));
            let own = spec.as_deref().and_then(|s| s.limits.cpu_millis);
            if let (Some(run), Some(millis)) = (&run, restrain::quota(own, &record.agent.restraints))
                && let Err(e) = run.held.group.limit_cpu(Some(millis))
            {
                tracing::error!(agent = %id, error = chain(&e), "the agent's CPU quota cannot be set again");
            }
            Some((Agent::new(id, spec, record), run))
        }
        Phase::Exited | Phase::Unknown => Some((Agent::new(id, spec, record), None)),
    }
}

fn lost(record: &mut Record) {
    record.agent.exit = Some(v1::Exit {
        code: 0,
        signal: 9,
        reason: ExitReason::Lost.as_str().to_owned(),
        time_ns: clock::wall_ns(),
    });
    record.set_phase(Phase::Exited);
}

/// The processes of an agent that ran when it was last heard of. init's number counts only with its start time
/// and its group.
fn find(launcher: &Launcher, record: &Record, strict: bool) -> Option<Run> {
    let group = match AgentGroup::open(launcher.slots.parent(), &record.slot) {
        Ok(group) => group,
        Err(e) => {
            tracing::error!(
                slot = record.slot,
                error = chain(&e),
                "the agent's control group cannot be opened"
            );
            return None;
        }
    };
    let same_boot = record.boot_id == launcher.boot_id;
    let process = |pid: u32, start: u64| {
        let here = same_boot && pid != 0 && is_in_group(pid, group.path());
        if here { InitProcess::adopt(pid, start).ok() } else { None }
    };
    let init = process(record.agent.init_pid, record.init_start);
    let first = process(record.agent.pid, record.agent_start);
    launcher.slots.mark_uids(record.uid_base);
    // An agent that has ended meanwhile gives its network back like any other.
    if let Some(number) = record.network {
        launcher.network.adopt(number);
    }
    let limit_events = if init.is_some() { group.limit_events().unwrap_or_default() } else { Vec::new() };
    // Refused forks have been told. A kill for want of memory ends the agent, so one that runs met it unseen.
    let told = LimitCounters { oom_kills: 0, ..group.limit_counters() };
    Some(Run {
        init_pid: record.agent.init_pid,
        agent_pidfd: first.and_then(|p| p.pidfd().try_clone_to_owned().ok()),
        init: Mutex::new(init),
        tty: Mutex::new(None),
        strict,
        adopted: true,
        probed: launcher.probes.get().is_some(),
        network: record.network,
        resolver: None,
        reach: Mutex::new(egress::Reach::taken_up(record)),
        journal: Mutex::new(Journal { cursor: record.journal_cursor, ..Journal::default() }),
        told: Mutex::new(Told {
            limits: told,
            dropped: record.agent.dropped_events,
            // Packets that its limits dropped may not have been told: all that are counted are told once more.
            ..Told::default()
        }),
        held: Held { name: record.slot.clone(), group, uid_base: record.uid_base, limit_events },
    })
}

/// Of one that runs, whether the probes know all of it.
fn take_over(launcher: &Arc<Launcher>, agent: &Arc<Agent>, run: Run) -> Option<bool> {
    let run = Arc::new(run);
    let alive = crate::lock::lock(&run.init).is_some();
    let (isolated, deadline, paused, spec, tenant, given, uses) = {
        let mut inner = agent.lock();
        inner.run = Some(Arc::clone(&run));
        let isolated = restrain::is_isolated(&inner.record.agent.restraints);
        (
            isolated,
            inner.record.deadline_ns,
            inner.record.paused,
            inner.spec.clone(),
            inner.record.agent.tenant.clone(),
            inner.record.devices.clone(),
            devices::uses(&inner.record.devices, &inner.record.withheld_files),
        )
    };
    let cgroup_id = run.held.group.id();
    let profile = spec.as_ref().map(|s| s.seccomp_profile.clone()).unwrap_or_default();
    let files = spec.as_deref().map(withhold::texts).unwrap_or_default();
    let id = agent.id.as_str().to_owned();
    launcher.own(cgroup_id, Owner { id, tenant, profile, files, devices: given });
    let mut known = true;
    if alive {
        // Probes that were replaced do not know it any more; for others this changes nothing.
        if let Some(probes) = launcher.probes.get() {
            let egress = spec.as_deref().filter(|s| s.network == NetworkMode::Egress).map(|s| &s.egress);
            let reach = |launched: &Rules| {
                let mut reach = crate::lock::lock(&run.reach);
                let done = reach.take_over(probes, cgroup_id, launched);
                agent.lock().record.reach_is_behind = done.is_err();
                done
            };
            let limits = spec.as_deref().and_then(|spec| spec.network_limits.as_ref());
            let hold =
                |limits: &NetworkLimits| probes.limit(cgroup_id, limits.account.as_str(), &limits.all());
            // What takes most away comes first, and each whatever became of the others.
            let steps = [
                probes.add_agent(cgroup_id, config(spec.as_deref())),
                probes.isolate(cgroup_id, isolated),
                probes.set_devices(cgroup_id, &uses),
                probes.arm(cgroup_id),
                limits.map_or(Ok(()), hold),
                egress.map_or(Ok(()), reach),
            ];
            for e in steps.into_iter().filter_map(Result::err) {
                known = false;
                tracing::error!(agent = %agent.id, tenant = agent.tenant(), error = chain(&e), "the probes keep what they know of the agent");
            }
        }
        withhold::take_over(launcher, agent, &run);
        restore_pause(agent, &run, paused);
        limits::tell(
            launcher,
            agent,
            vec![Entry::new("agent.adopted", "allowed", &json!({ "pid": run.init_pid }))],
        );
        tracing::info!(agent = %agent.id, tenant = agent.tenant(), pid = run.init_pid, "adopted");
    }
    launcher.exits.watch(agent, &run, deadline);
    alive.then_some(known)
}

/// A launcher that died while it held back a strict agent left it frozen.
fn restore_pause(agent: &Agent, run: &Run, paused: bool) {
    let group = &run.held.group;
    let done = match (paused, group.is_frozen()) {
        (false, true) => group.thaw(Duration::from_secs(1)),
        (true, false) => group.freeze(Duration::from_secs(1)),
        _ => Ok(()),
    };
    if let Err(e) = done {
        tracing::warn!(agent = %agent.id, error = chain(&e), "the agent is slow to stop or go on");
    }
}

fn config(spec: Option<&crate::request::Launch>) -> AgentConfig {
    match spec {
        Some(spec) => {
            AgentConfig { mode: spec.audit, strict: spec.audit_strict, net: egress::policy(spec.network) }
        }
        None => AgentConfig { mode: AuditMode::Events, strict: false, net: NetPolicy::LoopbackOnly },
    }
}

/// Removes what belongs to no agent. What cannot be removed is told, and left for the next time.
fn remove_orphans(launcher: &Launcher, groups: &HashSet<String>) -> Result<(), Failure> {
    let parent = launcher.slots.parent();
    for name in parent.groups()?.into_iter().filter(|name| !groups.contains(name)) {
        let gone = AgentGroup::open(parent, &name).and_then(|group| group.kill_and_remove(GROUP_PATIENCE));
        match gone {
            Ok(()) => tracing::info!(cgroup = name, "removed a slot that an earlier launcher left"),
            Err(e) => tracing::error!(cgroup = name, error = chain(&e), "a slot cannot be removed"),
        }
    }
    let known: HashSet<u64> = groups
        .iter()
        .filter_map(|name| AgentGroup::open(parent, name).ok())
        .map(|group| group.id())
        .collect();
    if let Some(probes) = launcher.probes.get() {
        for (cgroup_id, _) in probes.agents().unwrap_or_default() {
            if !known.contains(&cgroup_id)
                && let Err(e) = probes.remove_agent(cgroup_id)
            {
                tracing::error!(cgroup_id, error = chain(&e), "the probes keep an agent that is gone");
            }
        }
    }
    match launcher.network.remove_orphans() {
        Ok(names) => {
            names.iter().for_each(|link| tracing::info!(link, "removed a link that an earlier launcher left"))
        }
        Err(e) => tracing::error!(error = chain(&e), "a link of an agent that is gone cannot be removed"),
    }
    if let Some(volumes) = &launcher.volumes {
        let agents: HashSet<String> =
            launcher.table.all()?.into_iter().map(|stored| stored.id.as_str().to_owned()).collect();
        for name in volumes.names().unwrap_or_default().into_iter().filter(|name| !agents.contains(name)) {
            if let Err(e) = volumes.remove(&name) {
                tracing::error!(volume = name, error = chain(&e), "a volume cannot be removed");
            }
        }
    }
    Ok(())
}
