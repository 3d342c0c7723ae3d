//! The sample agents of examples/, and a report of each: what it said, which layers held it, what it was
//! allowed and denied, what the probes saw.
//!
//! Everything in the report comes from aionctl's JSON, as any script could ask for it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::daemons::Daemons;
use crate::process::{capture, head, read, succeeds, warn};
use crate::project::Project;

/// Lines of an agent's output that are shown.
const OUTPUT_LINES: usize = 40;
/// Events of a kind that are shown one by one.
const SEEN: usize = 4;
/// Denials that are shown one by one.
const DENIALS: usize = 25;

/// Runs every sample and reports on it. A sample that ends badly is told of and stops nothing.
pub(crate) fn show(project: &Project, daemons: &Daemons<'_>) -> Result<()> {
    // Not below the state folder: no agent is shown that, whatever it asks for.
    let folder = std::env::temp_dir().join(format!("aion-demo-{}", std::process::id()));
    fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for sample in samples(&project.root.join("examples"))? {
        let sdk = project.root.join("sdk/python/aion_sdk");
        if let Err(error) = one(daemons, &sample, &folder.join(&sample.name), &sdk) {
            warn(&format!("{}: {error:#}", sample.name));
        }
    }
    fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))
}

struct Sample {
    name: String,
    folder: PathBuf,
}

/// Label of the samples that do nothing by themselves: they wait for tasks, or run elsewhere.
const NOT_ALONE: [&str; 2] = ["example: task", "example: external"];

/// Label of the samples that need `aion_sdk`.
const SPEAKS: &str = "example: sdk";

/// The folders that hold an agent.yml; the hostile one last.
fn samples(examples: &Path) -> Result<Vec<Sample>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(examples).with_context(|| format!("cannot read {}", examples.display()))? {
        let folder = entry?.path();
        let manifest = fs::read_to_string(folder.join("agent.yml"));
        if manifest.is_ok_and(|text| !NOT_ALONE.iter().any(|label| text.contains(label))) {
            let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            found.push(Sample { name, folder });
        }
    }
    found.sort_by_key(|sample| (sample.name.contains("hostile"), sample.name.clone()));
    Ok(found)
}

fn one(daemons: &Daemons<'_>, sample: &Sample, workspace: &Path, sdk: &Path) -> Result<()> {
    let agent = format!("demo-{}", sample.name);
    println!();
    head(&format!("{}: {}", sample.name, summary(&sample.folder)?));
    succeeds(daemons.aionctl().args(["rm", "--force", &agent]));
    if !succeeds(Command::new("cp").arg("-r").arg(&sample.folder).arg(workspace)) {
        bail!("cannot copy {} to {}", sample.folder.display(), workspace.display());
    }
    // A sample that speaks to AION finds the package beside it, as its manifest says.
    let speaks = fs::read_to_string(sample.folder.join("agent.yml")).is_ok_and(|text| text.contains(SPEAKS));
    if speaks && !succeeds(Command::new("cp").arg("-r").arg(sdk).arg(workspace)) {
        bail!("cannot copy {} to {}", sdk.display(), workspace.display());
    }
    let mut command = daemons.aionctl();
    command.arg("run").arg("-f").arg(sample.folder.join("agent.yml"));
    command.args(["--name", &agent, "--workspace"]).arg(workspace);
    let output = capture(&mut command)?;
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let lines: Vec<&str> = said.lines().collect();
    for line in lines.iter().take(OUTPUT_LINES) {
        println!("  │ {line}");
    }
    if lines.len() > OUTPUT_LINES {
        println!("  │ … {} more lines: aionctl logs {agent}", lines.len() - OUTPUT_LINES);
    }
    let inspected = read(daemons.aionctl().args(["inspect", "-o", "json", &agent]))?;
    let inspected: Value = serde_json::from_str(&inspected).context("inspect gave no JSON")?;
    let inspected = inspected.as_array().and_then(|all| all.first()).unwrap_or(&inspected).clone();
    layers(&inspected);
    let records = records(daemons, &agent)?;
    seen(&records);
    denied(&records);
    let dropped = inspected["dropped_events"].as_u64().unwrap_or(0);
    println!("  exit {}, {} audit records, {dropped} events dropped", exit(&inspected), records.len());
    Ok(())
}

/// The agent's audit records, its end among them: the probes' events are drained a little later than they happen.
fn records(daemons: &Daemons<'_>, agent: &str) -> Result<Vec<Value>> {
    let mut records = Vec::new();
    for _ in 0..50 {
        let text = read(daemons.aionctl().args(["audit", "query", "-o", "jsonl", "--agent", agent]))?;
        records = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        if records.iter().any(|record: &Value| record["kind"] == "agent.exited") {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(records)
}

/// What the manifest says of itself: the first paragraph of its comment.
fn summary(folder: &Path) -> Result<String> {
    let text = fs::read_to_string(folder.join("agent.yml"))?;
    let comment = text.lines().map_while(|line| line.strip_prefix('#')).map(str::trim);
    let lines: Vec<&str> = comment
        .skip_while(|line| line.is_empty() || line.starts_with("yaml-language-server"))
        .take_while(|line| !line.is_empty())
        .collect();
    Ok(lines.join(" ").trim_end_matches('.').to_owned())
}

fn layers(agent: &Value) {
    let word = |layer: &Value, key: &str| layer[key].as_str().unwrap_or_default().to_owned();
    let all = agent["layers"].as_array().cloned().unwrap_or_default();
    let active: Vec<String> =
        all.iter().filter(|layer| layer["state"] == "active").map(|layer| word(layer, "name")).collect();
    println!("  layers: {}", active.join(" "));
    for layer in all.iter().filter(|layer| layer["state"] != "active") {
        println!("          {} is {}: {}", word(layer, "name"), word(layer, "state"), word(layer, "detail"));
    }
}

/// What happened, by kind, without the denials.
fn seen(records: &[Value]) {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for record in records.iter().filter(|record| record["verdict"] != "denied") {
        *counts.entry(record["kind"].as_str().unwrap_or("?")).or_default() += 1;
    }
    let counts: Vec<String> = counts.iter().map(|(kind, count)| format!("{count}× {kind}")).collect();
    println!("  seen:   {}", if counts.is_empty() { "nothing".to_owned() } else { counts.join(", ") });
    for kind in ["proc.exec", "file.open_write", "net.connect"] {
        let lines: Vec<String> = records
            .iter()
            .filter(|record| record["kind"] == kind && record["verdict"] != "denied")
            .map(|record| brief(&record["detail"]))
            .collect();
        for line in lines.iter().take(SEEN) {
            println!("    {kind:<15} {line}");
        }
        if lines.len() > SEEN {
            println!("    {:<15} … {} more", "", lines.len() - SEEN);
        }
    }
}

/// What was denied, by whom; the same thing denied often is one line.
fn denied(records: &[Value]) {
    let mut lines: Vec<(String, usize)> = Vec::new();
    for record in records.iter().filter(|record| record["verdict"] == "denied") {
        let rule = record["rule"].as_str().filter(|rule| !rule.is_empty());
        let line = format!(
            "{:<15} {}{}",
            record["kind"].as_str().unwrap_or("?"),
            brief(&record["detail"]),
            rule.map(|rule| format!("  by {rule}")).unwrap_or_default()
        );
        match lines.iter_mut().find(|(known, _)| *known == line) {
            Some((_, count)) => *count += 1,
            None => lines.push((line, 1)),
        }
    }
    if lines.is_empty() {
        println!("  denied: nothing");
        return;
    }
    println!("  denied:");
    for (line, count) in lines.iter().take(DENIALS) {
        println!("    {line}{}", if *count > 1 { format!("  ({count}×)") } else { String::new() });
    }
    if lines.len() > DENIALS {
        println!("    … {} more", lines.len() - DENIALS);
    }
}

/// A record's detail in a line: what names the thing, not the numbers around it.
fn brief(detail: &Value) -> String {
    let Some(fields) = detail.as_object() else { return String::new() };
    let telling = [
        "syscall", "name", "path", "file", "address", "addr", "port", "hook", "limit", "argv", "comm",
        "errno",
    ];
    let words: Vec<String> = telling
        .iter()
        .filter_map(|key| fields.get(*key).map(|value| (key, value)))
        .filter(|(_, value)| !value.is_null() && value.as_str() != Some(""))
        .map(|(key, value)| match value {
            Value::String(text) => format!("{key}={text}"),
            other => format!("{key}={other}"),
        })
        .collect();
    let mut line = words.join(" ");
    if line.is_empty() {
        line = detail.to_string();
    }
    line.chars().take(100).collect()
}

fn exit(agent: &Value) -> String {
    let exit = &agent["exit"];
    match (exit["code"].as_i64(), exit["reason"].as_str()) {
        (Some(code), Some("exited") | None) => code.to_string(),
        (Some(code), Some(reason)) => format!("{code} ({reason})"),
        _ => exit.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_are_told_in_a_line() {
        let detail = serde_json::json!({ "syscall": "ptrace", "pid": 7, "errno": 1 });
        assert_eq!(brief(&detail), "syscall=ptrace errno=1");
        assert_eq!(brief(&serde_json::json!({ "odd": 1 })), "{\"odd\":1}");
    }
}
