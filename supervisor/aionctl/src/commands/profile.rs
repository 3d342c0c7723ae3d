//! `profile`: the least that an agent's runs needed, as files to review; what they would deny; and putting them into effect.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aion_client::{Client, api};
use aion_types::ErrorCode;
use serde::Serialize;
use serde_json::Value;

use super::stats::Rounds;
use super::target::on_agent;
use crate::cli::{LearnArgs, ProfileCommand};
use crate::failure::{Failure, Outcome, USAGE};
use crate::learn::{self, Seen};
use crate::output::Printer;
use crate::source::{Source, check};
use crate::view::agent::is_live;

mod review;

const PAGE: u32 = 1000;
/// Where packages put the profiles.
const INSTALLED: &str = "/usr/share/aion/profiles";
/// What a run is read from.
const KINDS: [&str; 7] = [
    "proc.exec",
    "net.connect",
    "net.sendto",
    "file.open_write",
    "api.syscall",
    "agent.counted",
    "agent.exited",
];

/// What was learned, for programs.
#[derive(Debug, Serialize)]
struct Learned {
    agent: String,
    manifest: PathBuf,
    profile: PathBuf,
    calls: usize,
    calls_before: usize,
    programs: usize,
    hosts: usize,
    dropped_events: u64,
    notes: Vec<String>,
}

pub(super) async fn profile(client: &Client, command: ProfileCommand, printer: Printer) -> Outcome {
    let args = match command {
        ProfileCommand::Learn(args) => args,
        ProfileCommand::Diff(args) => return review::diff(client, &args, printer).await,
        ProfileCommand::Apply(args) => return review::apply(client, &args, printer).await,
    };
    let learned = learn(client, &args).await?;
    let human = || {
        let mut text = format!(
            "{}: {} of {} system calls, {} programs, {} hosts\n  {}\n  {}\n",
            learned.agent,
            learned.calls,
            learned.calls_before,
            learned.programs,
            learned.hosts,
            learned.profile.display(),
            learned.manifest.display()
        );
        for note in &learned.notes {
            text.push_str(&format!("note: {note}\n"));
        }
        crate::text::clean(&text)
    };
    printer.document(&learned, &learned.agent, human).map(|()| 0)
}

async fn learn(client: &Client, args: &LearnArgs) -> Outcome<Learned> {
    let agent = on_agent(client, &args.of.agent, |agent| client.get(api::GetRequest { agent })).await?;
    let name = profile_name(args.of.name.as_deref(), &agent)?;
    let seen = counted(client, &agent).await?;
    let manifest: Value = serde_yaml::from_str(&agent.manifest_yaml)
        .map_err(|error| Failure::new(1, "the agent's manifest cannot be read as YAML").cause(&error))?;
    let before = manifest.pointer("/spec/seccomp_profile").and_then(Value::as_str).unwrap_or_default();
    let folder = profiles().join("seccomp");
    let profile = learn::profile(before, &seen, &mut |name| read(&folder, name)).map_err(|message| {
        Failure::new(1, message).hint("--profiles of aiond names the folder; AION_PROFILES says so here")
    })?;
    let learned = learn::manifest(manifest, &name, &seen);
    let text = serde_yaml::to_string(&learned.value)
        .map_err(|error| Failure::new(1, "the manifest cannot be written as YAML").cause(&error))?;
    let text = format!(
        "# Learned from a run of {}. Review it: a run shows what was needed once.\n{text}",
        agent.name
    );
    // What is written can be used, or nothing is.
    let source = Source::of(text.clone().into_bytes(), "the learned manifest");
    check(&source, aion_manifest::Overrides::default())?;
    let mut json = serde_json::to_string_pretty(&profile.file)
        .map_err(|error| Failure::new(1, "the profile cannot be written as JSON").cause(&error))?;
    json.push('\n');
    let files = [args.of.dir.join(format!("{name}.json")), args.of.dir.join(format!("{}.yml", agent.name))];
    if let Some(path) = files.iter().find(|path| !args.force && path.exists()) {
        return Err(Failure::new(1, format!("{} is there already", path.display()))
            .hint("--force writes over it, --dir names another folder"));
    }
    let [profile_file, manifest_file] = files;
    write(&profile_file, &json)?;
    write(&manifest_file, &text)?;
    let mut notes = learned.notes;
    if agent.dropped_events > 0 {
        notes.insert(
            0,
            format!(
                "{} events of the run were not recorded: what is missing may be needed",
                agent.dropped_events
            ),
        );
    }
    Ok(Learned {
        agent: agent.name,
        manifest: manifest_file,
        profile: profile_file,
        calls: profile.kept,
        calls_before: profile.before,
        programs: seen.programs.len(),
        hosts: seen.reached.len(),
        dropped_events: agent.dropped_events,
        notes,
    })
}

fn profile_name(given: Option<&str>, agent: &api::Agent) -> Outcome<String> {
    let name = given.map_or_else(|| format!("{}-learned", agent.name), str::to_owned);
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        return Err(Failure::new(USAGE, format!("--name: {name:?} is no profile's name"))
            .hint("use letters, digits and hyphens"));
    }
    Ok(name)
}

/// What is on record of runs whose system calls were counted.
async fn counted(client: &Client, agent: &api::Agent) -> Outcome<Seen> {
    let seen = seen(client, agent).await?;
    if seen.calls.is_empty() {
        let message = format!("the system calls of {} were not counted", agent.name);
        return Err(Failure::coded(ErrorCode::InvalidField, message).hint(
            "run it with `--audit count`, `audit: count` in its manifest, or `aionctl profile apply --audit`",
        ));
    }
    Ok(seen)
}

/// All of the agent's runs that are on record, and what one that is under way has counted so far.
async fn seen(client: &Client, agent: &api::Agent) -> Outcome<Seen> {
    let mut seen = on_record(client, agent).await?;
    // An end is answered before its records are in the log; its own is the last of them.
    let patience = Instant::now() + Duration::from_secs(3);
    while !is_live(&agent.state) && seen.ends == 0 && Instant::now() < patience {
        tokio::time::sleep(Duration::from_millis(100)).await;
        seen = on_record(client, agent).await?;
    }
    if !is_live(&agent.state) {
        return Ok(seen);
    }
    let mut rounds = Rounds::new(client, vec![agent.id.clone()], 1, true);
    match rounds.next().await {
        Ok(samples) => {
            for sample in samples.into_iter().flatten() {
                seen.calls.extend(sample.syscalls.into_iter().map(|call| call.name));
            }
            Ok(seen)
        }
        // It has ended since, and left its counts in the log.
        Err(failure) if failure.is(ErrorCode::AgentNotRunning) => Ok(seen),
        Err(failure) => Err(failure),
    }
}

async fn on_record(client: &Client, agent: &api::Agent) -> Outcome<Seen> {
    let mut seen = Seen::default();
    let filter = api::Filter {
        agents: vec![agent.id.clone()],
        kinds: KINDS.map(str::to_owned).to_vec(),
        ..api::Filter::default()
    };
    let mut after_seq = 0;
    loop {
        let request =
            api::QueryRequest { filter: Some(filter.clone()), after_seq, page_size: PAGE, newest: false };
        let answer = client.query(request).await?;
        answer.records.iter().for_each(|record| seen.take(record));
        if !answer.more || answer.next_after_seq <= after_seq {
            return Ok(seen);
        }
        after_seq = answer.next_after_seq;
    }
}

fn profiles() -> PathBuf {
    let named = std::env::var_os("AION_PROFILES").filter(|dir| !dir.is_empty());
    named.map_or_else(|| PathBuf::from(INSTALLED), PathBuf::from)
}

fn read(folder: &Path, name: &str) -> Result<Value, String> {
    let path = folder.join(format!("{name}.json"));
    let text = std::fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    serde_json::from_slice(&text).map_err(|error| format!("{} is no profile: {error}", path.display()))
}

fn write(path: &Path, text: &str) -> Outcome<()> {
    let failed =
        |error: std::io::Error| Failure::new(1, format!("cannot write {}", path.display())).cause(&error);
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)
}
