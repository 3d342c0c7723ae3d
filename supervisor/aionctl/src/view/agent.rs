//! An agent, as `ps` and `inspect` show it.

use std::collections::BTreeMap;

use aion_client::api;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use crate::output::{cell, state_cell, table};
use crate::text::{command_line, shorten};
use crate::when::Moment;

/// The JSON of an agent.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct AgentView {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) tenant: String,
    pub(crate) version: String,
    pub(crate) state: String,
    /// Of the first process; null when none runs.
    pub(crate) pid: Option<u32>,
    pub(crate) cgroup: Option<String>,
    /// Null until it has ended.
    pub(crate) exit: Option<ExitView>,
    pub(crate) restarts: u32,
    pub(crate) layers: Vec<LayerView>,
    pub(crate) dropped_events: u64,
    pub(crate) created: Option<String>,
    pub(crate) started: Option<String>,
    pub(crate) finished: Option<String>,
    pub(crate) command: Vec<String>,
    /// Why it failed, when it did.
    pub(crate) message: Option<String>,
    /// Layers that are not as asked.
    pub(crate) degraded: Vec<String>,
    pub(crate) workspace: String,
    pub(crate) audit: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) tty: bool,
    pub(crate) auto_remove: bool,
    pub(crate) restart_policy: String,
    /// The launcher's own part of the last start, in nanoseconds.
    pub(crate) launch_ns: u64,
    pub(crate) last_heartbeat: Option<String>,
    pub(crate) status: BTreeMap<String, String>,
    /// What was taken from it while it ran.
    pub(crate) restraints: Vec<RestraintView>,
    /// SHA-256 of the public key that signed its manifest; empty: not signed.
    pub(crate) signed_by: String,
    /// Only from `inspect`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) manifest: Option<serde_json::Value>,
    #[serde(skip)]
    times: Times,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct ExitView {
    /// As a shell shows it: the exit code, or 128 + signal.
    pub(crate) code: i32,
    /// 0 when it ended by itself.
    pub(crate) signal: i32,
    /// exited, signaled, oom, timeout, killed or lost.
    pub(crate) reason: String,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct RestraintView {
    /// frozen, throttled or isolated.
    pub(crate) kind: String,
    /// Why; empty: it was asked for.
    pub(crate) reason: String,
    pub(crate) since: Option<String>,
    /// Of throttled: thousandths of a processor that are left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_millis: Option<u32>,
}

impl RestraintView {
    /// In words.
    pub(crate) fn words(&self) -> String {
        let mut words = self.kind.clone();
        if let Some(millis) = self.cpu_millis {
            words.push_str(&format!(" to {millis}m of a processor"));
        }
        if !self.reason.is_empty() {
            words.push_str(&format!(" by {}", self.reason));
        }
        if let Some(since) = &self.since {
            words.push_str(&format!(" since {since}"));
        }
        words
    }
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct LayerView {
    pub(crate) name: String,
    pub(crate) state: String,
    pub(crate) detail: String,
}

#[derive(Debug, Clone, Default)]
struct Times {
    created: Option<Moment>,
    started: Option<Moment>,
    finished: Option<Moment>,
}

/// Whether an agent in this state has processes.
pub(crate) fn is_live(state: &str) -> bool {
    matches!(state, "starting" | "running" | "paused" | "stopping")
}

impl From<api::Agent> for AgentView {
    fn from(agent: api::Agent) -> Self {
        let times = Times {
            created: Moment::from_api(agent.created.as_ref()),
            started: Moment::from_api(agent.started.as_ref()),
            finished: Moment::from_api(agent.finished.as_ref()),
        };
        let manifest = (!agent.manifest_yaml.is_empty()).then(|| {
            serde_yaml::from_str(&agent.manifest_yaml)
                .unwrap_or(serde_json::Value::String(agent.manifest_yaml))
        });
        let live = is_live(&agent.state);
        let layer =
            |layer: api::Layer| LayerView { name: layer.name, state: layer.state, detail: layer.detail };
        let restraint = |restraint: api::Restraint| RestraintView {
            kind: restraint.kind,
            reason: restraint.reason,
            since: Moment::from_api(restraint.since.as_ref()).map(Moment::rfc3339),
            cpu_millis: (restraint.cpu_millis != 0).then_some(restraint.cpu_millis),
        };
        let exit = |exit: api::Exit| ExitView { code: exit.code, signal: exit.signal, reason: exit.reason };
        Self {
            id: agent.id,
            name: agent.name,
            tenant: agent.tenant,
            version: agent.version,
            state: agent.state,
            pid: (live && agent.pid != 0).then_some(agent.pid),
            cgroup: (!agent.cgroup.is_empty()).then_some(agent.cgroup),
            // A restarted agent runs again: the exit before is history.
            exit: agent.exit.filter(|_| !live).map(exit),
            restarts: agent.restarts,
            layers: agent.layers.into_iter().map(layer).collect(),
            dropped_events: agent.dropped_events,
            created: times.created.map(Moment::rfc3339),
            started: times.started.map(Moment::rfc3339),
            finished: times.finished.filter(|_| !live).map(Moment::rfc3339),
            command: agent.command,
            message: (!agent.message.is_empty()).then_some(agent.message),
            degraded: agent.degraded,
            workspace: agent.workspace,
            audit: agent.audit,
            labels: agent.labels.into_iter().collect(),
            tty: agent.tty,
            auto_remove: agent.auto_remove,
            restart_policy: agent.restart_policy,
            launch_ns: agent.launch_ns,
            last_heartbeat: Moment::from_api(agent.last_heartbeat.as_ref()).map(Moment::rfc3339),
            status: agent.status.into_iter().collect(),
            restraints: agent.restraints.into_iter().map(restraint).collect(),
            signed_by: agent.signed_by,
            manifest,
            times,
        }
    }
}

impl AgentView {
    /// `Up 3 minutes`, `Exited (0) 2 hours ago`.
    pub(crate) fn status_words(&self, now: Moment) -> String {
        let since = |time: Option<Moment>| time.map_or_else(|| "a while".to_owned(), |time| time.age(now));
        match self.state.as_str() {
            "running" => format!("Up {}", since(self.times.started)),
            "paused" => format!("Up {} (paused)", since(self.times.started)),
            "created" => "Created".to_owned(),
            "starting" => "Starting".to_owned(),
            "stopping" => "Stopping".to_owned(),
            "failed" => format!("Failed: {}", self.message.as_deref().unwrap_or("see inspect")),
            "exited" => match &self.exit {
                Some(exit) if exit.reason == "exited" => {
                    format!("Exited ({}) {} ago", exit.code, since(self.times.finished))
                }
                Some(exit) => {
                    format!("Exited ({}, {}) {} ago", exit.code, exit.reason, since(self.times.finished))
                }
                None => "Exited".to_owned(),
            },
            other => other.to_owned(),
        }
    }

    pub(crate) fn created_words(&self, now: Moment) -> String {
        self.times.created.map_or_else(String::new, |time| format!("{} ago", time.age(now)))
    }
}

/// The part of an id that is shown where space is short: its end, which is the random half. Every command takes it.
fn short_id(id: &str) -> &str {
    id.get(id.len().saturating_sub(10)..).unwrap_or(id)
}

/// `ps` for people.
pub(crate) fn agents_table(agents: &[AgentView], wide: bool, whole: bool, now: Moment) -> Table {
    let mut header = vec!["ID", "NAME", "COMMAND", "CREATED", "STATUS"];
    if wide {
        header.extend([
            "STATE",
            "PID",
            "RESTARTS",
            "TENANT",
            "AUDIT",
            "DROPPED",
            "DEGRADED",
            "WORKSPACE",
            "CGROUP",
        ]);
    }
    let mut rows = table(&header);
    for agent in agents {
        let command = command_line(&agent.command);
        let mut row = vec![
            cell(if whole { &agent.id } else { short_id(&agent.id) }),
            cell(&agent.name),
            cell(if whole { command } else { shorten(&command, 32) }),
            cell(agent.created_words(now)),
            cell(if whole { agent.status_words(now) } else { shorten(&agent.status_words(now), 48) }),
        ];
        if wide {
            let dash = || "-".to_owned();
            row.extend([
                state_cell(&agent.state),
                cell(agent.pid.map_or_else(dash, |pid| pid.to_string())).set_alignment(CellAlignment::Right),
                cell(agent.restarts.to_string()).set_alignment(CellAlignment::Right),
                cell(&agent.tenant),
                cell(&agent.audit),
                cell(agent.dropped_events.to_string()).set_alignment(CellAlignment::Right),
                cell(if agent.degraded.is_empty() { dash() } else { agent.degraded.join(",") }),
                cell(&agent.workspace),
                cell(agent.cgroup.clone().unwrap_or_else(dash)),
            ]);
        }
        rows.add_row(row);
    }
    rows
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample() -> api::Agent {
        api::Agent {
            id: "01JD5Z0000ABCDEFGHJKMNPQRS".to_owned(),
            name: "calm-otter".to_owned(),
            tenant: "default".to_owned(),
            state: "running".to_owned(),
            pid: 4242,
            cgroup: "aion/x/01JD5Z0000ABCDEFGHJKMNPQRS".to_owned(),
            layers: vec![api::Layer {
                name: "seccomp".to_owned(),
                state: "active".to_owned(),
                detail: "default-restrictive, 301 calls".to_owned(),
            }],
            created: Some(aion_client::timestamp(1_700_000_000_000_000_000)),
            started: Some(aion_client::timestamp(1_700_000_060_000_000_000)),
            command: vec!["python3".to_owned(), "-c".to_owned(), "print('\x1b[2J')".to_owned()],
            workspace: "managed".to_owned(),
            audit: "events".to_owned(),
            restart_policy: "never".to_owned(),
            manifest_yaml: "apiVersion: aion.os/v1\nkind: Agent\n".to_owned(),
            ..api::Agent::default()
        }
    }

    const NOW: Moment = Moment(1_700_000_240_000_000_000);

    #[test]
    fn the_json_of_a_running_agent() {
        insta::assert_json_snapshot!(AgentView::from(sample()));
    }

    #[test]
    fn the_json_of_an_ended_agent() {
        let mut agent = sample();
        agent.state = "exited".to_owned();
        agent.exit = Some(api::Exit { code: 137, signal: 9, reason: "oom".to_owned() });
        agent.finished = Some(aion_client::timestamp(1_700_000_100_000_000_000));
        let view = AgentView::from(agent);
        assert_eq!(view.status_words(NOW), "Exited (137, oom) 2 minutes ago");
        assert_eq!(view.pid, None);
        insta::assert_json_snapshot!(view.exit);
    }

    #[test]
    fn an_exit_before_the_restart_is_not_shown() {
        let mut agent = sample();
        agent.exit = Some(api::Exit { code: 1, signal: 0, reason: "exited".to_owned() });
        assert!(AgentView::from(agent).exit.is_none());
    }

    #[test]
    fn tables_show_no_control_character() {
        let agents = [AgentView::from(sample())];
        let mut narrow = agents_table(&agents, false, false, NOW);
        narrow.force_no_tty();
        insta::assert_snapshot!(narrow.trim_fmt());
        let mut wide = agents_table(&agents, true, true, NOW);
        wide.force_no_tty();
        insta::assert_snapshot!(wide.trim_fmt());
    }
}
