//! `inspect` for people: what the agent is, each layer as it was set up, and its manifest.

use std::fmt::Write as _;

use comfy_table::Table;

use super::agent::AgentView;
use crate::output::{cell, state_cell, table};
use crate::text::{clean, clean_line, command_line};
use crate::when::Moment;

/// The text; `render` turns tables into text with or without colours.
pub(crate) fn inspect_text(agent: &AgentView, now: Moment, render: impl Fn(Table) -> String) -> String {
    let mut out = String::new();
    let mut line = |title: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(out, "{title:<12}{}", clean_line(value));
        }
    };
    line("Name", &agent.name);
    line("Id", &agent.id);
    line("Tenant", &agent.tenant);
    line("Version", &agent.version);
    line("State", &agent.state);
    line("Status", &agent.status_words(now));
    line("Command", &command_line(&agent.command));
    if let Some(pid) = agent.pid {
        line("Pid", &pid.to_string());
    }
    line("Cgroup", agent.cgroup.as_deref().unwrap_or_default());
    if let Some(exit) = &agent.exit {
        let by =
            if exit.signal == 0 { String::new() } else { format!(", {}", crate::signal::name(exit.signal)) };
        line("Exit", &format!("{} ({}{by})", exit.code, exit.reason));
    }
    for restraint in &agent.restraints {
        line("Restrained", &restraint.words());
    }
    line("Message", agent.message.as_deref().unwrap_or_default());
    line("Restarts", &format!("{} (policy {})", agent.restarts, agent.restart_policy));
    line("Workspace", &agent.workspace);
    line("Audit", &format!("{}, {} events dropped", agent.audit, agent.dropped_events));
    line("Created", agent.created.as_deref().unwrap_or_default());
    line("Started", agent.started.as_deref().unwrap_or_default());
    line("Finished", agent.finished.as_deref().unwrap_or_default());
    line("Heartbeat", agent.last_heartbeat.as_deref().unwrap_or_default());
    for (key, value) in &agent.status {
        line("Says", &format!("{key} = {value}"));
    }
    for (key, value) in &agent.labels {
        line("Label", &format!("{key}={value}"));
    }
    if !agent.layers.is_empty() {
        let mut layers = table(&["LAYER", "STATE", "AS SET UP"]);
        for layer in &agent.layers {
            layers.add_row([cell(&layer.name), state_cell(&layer.state), cell(&layer.detail)]);
        }
        let _ = writeln!(out, "\n{}", render(layers));
    }
    if let Some(manifest) = &agent.manifest {
        let yaml = serde_yaml::to_string(manifest).unwrap_or_default();
        let _ = writeln!(out, "\nManifest and limits");
        for text in clean(&yaml).lines() {
            let _ = writeln!(out, "  {text}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::agent::tests::sample;
    use super::*;

    #[test]
    fn everything_is_there_and_nothing_escapes() {
        let text =
            inspect_text(&AgentView::from(sample()), Moment(1_700_000_240_000_000_000), |mut table| {
                table.force_no_tty();
                table.trim_fmt()
            });
        assert!(!text.contains('\x1b'));
        insta::assert_snapshot!(text);
    }
}
