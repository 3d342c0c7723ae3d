//! Between the store's records, the launcher's states and the API's messages.

use aion_api_proto::v1 as api;
use aion_launcher_proto::v1 as launcher;
use aion_store::{AgentRecord, AgentState, EventRow, LayerRow, RestraintRow};
use aion_types::{Exit, ExitReason};

use crate::clock::timestamp;
use crate::lifecycle::{Phase, Sighting};

pub(crate) fn agent(record: &AgentRecord) -> api::Agent {
    let degraded = |layer: &&LayerRow| matches!(layer.state.as_str(), "degraded" | "unavailable");
    api::Agent {
        id: record.id.to_string(),
        name: record.name.to_string(),
        tenant: record.tenant.to_string(),
        version: record.version.clone(),
        state: record.state.as_str().to_owned(),
        pid: record.pid,
        cgroup: record.cgroup.clone(),
        exit: record.exit.map(|ended| exit(ended.exit)),
        restarts: record.restarts,
        layers: record
            .layers
            .iter()
            .map(|l| api::Layer { name: l.name.clone(), state: l.state.clone(), detail: l.detail.clone() })
            .collect(),
        dropped_events: record.dropped_events,
        created: timestamp(record.created_ns),
        started: timestamp(record.started_ns),
        finished: timestamp(record.finished_ns),
        command: record.command.clone(),
        manifest_yaml: String::new(),
        message: record.message.clone(),
        last_heartbeat: timestamp(record.heartbeat_ns),
        degraded: record.layers.iter().filter(degraded).map(|layer| layer.name.clone()).collect(),
        workspace: record.workspace.clone(),
        audit: record.audit.clone(),
        labels: record.labels.clone().into_iter().collect(),
        tty: record.tty,
        auto_remove: record.auto_remove,
        restart_policy: record.restart.mode.as_str().to_owned(),
        launch_ns: record.launch_ns,
        status: record.status.clone().into_iter().collect(),
        signed_by: record.signed_by.clone(),
        restraints: record.restraints.iter().filter(|r| holds(record, r)).map(restraint).collect(),
    }
}

/// Whoever has ended is not frozen any more.
fn holds(record: &AgentRecord, restraint: &RestraintRow) -> bool {
    restraint.kind != "frozen" || record.state == AgentState::Paused
}

fn restraint(row: &RestraintRow) -> api::Restraint {
    api::Restraint {
        kind: row.kind.clone(),
        reason: row.reason.clone(),
        since: timestamp(row.since_ns),
        cpu_millis: row.cpu_millis,
    }
}

pub(crate) fn exit(exit: Exit) -> api::Exit {
    api::Exit {
        code: i32::from(exit.shell_code()),
        signal: i32::from(exit.signal),
        reason: exit.reason.as_str().to_owned(),
    }
}

/// The launcher's exit; numbers that cannot be become the nearest that can.
pub(crate) fn exit_of(exit: &launcher::Exit) -> Exit {
    Exit {
        code: u8::try_from(exit.code.clamp(0, 255)).unwrap_or(u8::MAX),
        signal: u8::try_from(exit.signal.clamp(0, 64)).unwrap_or(0),
        reason: ExitReason::parse(&exit.reason),
    }
}

/// What the launcher says of an agent; none for a state that this version does not know.
pub(crate) fn sighting(state: &launcher::AgentState, now_ns: u64) -> Option<Sighting> {
    let phase = match state.state.as_str() {
        "running" => Phase::Running,
        "frozen" => Phase::Frozen,
        "exited" => {
            let lost = launcher::Exit { reason: "lost".to_owned(), signal: 9, ..launcher::Exit::default() };
            let ended = state.exit.as_ref().unwrap_or(&lost);
            let time_ns = if ended.time_ns == 0 { now_ns } else { ended.time_ns };
            Phase::Ended { exit: exit_of(ended), time_ns }
        }
        _ => return None,
    };
    Some(Sighting {
        incarnation: state.incarnation,
        phase,
        pid: state.pid,
        cgroup: state.cgroup.clone(),
        layers: state
            .layers
            .iter()
            .map(|l| LayerRow { name: l.name.clone(), state: l.state.clone(), detail: l.detail.clone() })
            .collect(),
        started_ns: state.started_ns,
        dropped_events: state.dropped_events,
        launch_ns: state.launch_ns,
        restraints: state
            .restraints
            .iter()
            .map(|r| RestraintRow {
                kind: r.kind.clone(),
                reason: r.reason.clone(),
                since_ns: r.since_ns,
                cpu_millis: r.cpu_millis,
            })
            .collect(),
    })
}

pub(crate) fn record(row: EventRow, agent_name: String) -> api::Record {
    api::Record {
        seq: row.seq,
        time: timestamp(row.time_ns),
        tenant: row.tenant,
        agent: row.agent,
        agent_name,
        task: row.task,
        trace: row.trace,
        kind: row.kind,
        verdict: row.verdict,
        rule: row.rule,
        detail_json: row.detail_json,
    }
}
