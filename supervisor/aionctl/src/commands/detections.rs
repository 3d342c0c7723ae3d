//! `detections`: the rules, what they found, and what was taken from agents given back.

use std::path::{Path, PathBuf};

use aion_client::{Client, api};
use aion_manifest::parse_detections;
use aion_types::ErrorCode;

use super::events::filter;
use super::target::{each, on_agent};
use crate::cli::{ClearArgs, DetectionsCommand, Format, HistoryArgs, RecordFilter, TestArgs};
use crate::failure::{Failure, Outcome};
use crate::output::{Printer, lines, note};
use crate::source::Source;
use crate::view::detection::{FindingView, RuleView, RulesView, checked_table, findings_table, rules_text};

/// What the daemon records.
const FINDING: &str = "detection.finding";

pub(super) async fn detections(client: &Client, command: DetectionsCommand, printer: Printer) -> Outcome {
    match command {
        DetectionsCommand::Ls => ls(client, printer).await,
        DetectionsCommand::Test(args) => test(&args, printer),
        DetectionsCommand::History(args) => history(client, args, printer).await,
        DetectionsCommand::Reload => {
            let answer = client.reload_detections(api::ReloadDetectionsRequest {}).await?;
            note(&format!("{} detections are loaded", answer.detections));
            Ok(0)
        }
        DetectionsCommand::Clear(args) => clear(client, args).await,
    }
}

async fn ls(client: &Client, printer: Printer) -> Outcome {
    let view = RulesView::from(client.detections(api::ListDetectionsRequest {}).await?);
    match printer.format {
        Format::Name | Format::Jsonl => {
            printer.items(&view.detections, |rule| rule.name.clone(), || crate::output::table(&[]))?;
        }
        _ => {
            let wide = printer.format == Format::Wide;
            printer.document(&view, "", || rules_text(&view, wide, |table| printer.rendered(table)))?;
        }
    }
    Ok(0)
}

/// Checks rules as the daemon does: all of them together, for their names must differ.
pub(super) fn test(args: &TestArgs, printer: Printer) -> Outcome {
    let mut sources = Vec::new();
    for path in &args.files {
        for file in files_of(path)? {
            sources.push(Source::read(&file)?);
        }
    }
    let rules =
        parse_detections(sources.iter().map(|source| (source.name.as_str(), source.bytes.as_slice())))
            .map_err(|error| Failure::coded(error.code(), error.to_string()).exiting(2))?;
    let views: Vec<RuleView> = rules.iter().map(RuleView::from).collect();
    match printer.format {
        Format::Table => lines(
            sources
                .iter()
                .zip(&views)
                .map(|(source, rule)| format!("{}: valid, detection {}", source.name, rule.name)),
        )?,
        _ => printer.items(&views, |rule| rule.name.clone(), || checked_table(&views))?,
    }
    Ok(0)
}

fn files_of(path: &Path) -> Outcome<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path)
        .map_err(|error| Failure::new(1, format!("cannot read {}", path.display())).cause(&error))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|file| file.extension().is_some_and(|kind| kind == "yaml" || kind == "yml"))
        .collect();
    files.sort();
    if files.is_empty() {
        let message = format!("{} has no *.yaml", path.display());
        return Err(Failure::coded(ErrorCode::ProfileInvalid, message).exiting(2));
    }
    Ok(files)
}

async fn history(client: &Client, args: HistoryArgs, printer: Printer) -> Outcome {
    let filter = RecordFilter {
        agents: args.agents,
        kinds: vec![FINDING.to_owned()],
        verdicts: Vec::new(),
        since: args.since,
        until: None,
    };
    let filter = Some(self::filter(client, &filter).await?);
    let request = api::QueryRequest { filter, page_size: args.lines, newest: true, ..Default::default() };
    let answer = client.query(request).await?;
    let views: Vec<FindingView> = answer.records.into_iter().map(FindingView::from).collect();
    printer.items(
        &views,
        |finding| finding.rule.clone(),
        || findings_table(&views, printer.format == Format::Wide),
    )?;
    Ok(0)
}

async fn clear(client: &Client, args: ClearArgs) -> Outcome {
    let (network, throttle) = (args.network, args.throttle);
    each(&args.agents, |name| async move {
        on_agent(client, &name, |agent| {
            client.clear_restraints(api::ClearRestraintsRequest { agent, network, throttle })
        })
        .await
        .map(|agent| note(&format!("{}: cleared", agent.name)))
    })
    .await
}
