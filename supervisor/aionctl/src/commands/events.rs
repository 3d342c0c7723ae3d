//! `events`, and the parts that it shares with `audit`: records, past and coming.

use aion_client::{Client, api};

use super::target::on_agent;
use crate::cli::{EventsArgs, Format, RecordFilter};
use crate::failure::{Failure, Outcome, USAGE};
use crate::output::{Printer, json_line, lines};
use crate::view::record::{RecordView, records_table};
use crate::when::Moment;

pub(super) async fn events(client: &Client, args: &EventsArgs, printer: Printer) -> Outcome {
    let filter = filter(client, &args.filter).await?;
    // Following begins now unless a place is named; not following prints what there is.
    let from_start =
        args.cursor == Some(0) || (args.cursor.is_none() && (!args.follow || args.filter.since.is_some()));
    let request = api::SubscribeRequest {
        filter: Some(filter),
        cursor: args.cursor.unwrap_or(0),
        from_start,
        follow: args.follow,
    };
    stream(client, request, printer).await
}

/// Prints records as they come.
pub(super) async fn stream(client: &Client, request: api::SubscribeRequest, printer: Printer) -> Outcome {
    let follow = request.follow;
    let mut follower = client.subscribe(request);
    let mut all = Vec::new();
    while let Some(record) = follower.next().await? {
        let view = RecordView::from(record);
        match printer.format {
            Format::Jsonl => json_line(&view)?,
            Format::Name => lines([view.kind])?,
            Format::Json | Format::Yaml if follow => json_line(&view)?,
            Format::Json | Format::Yaml => all.push(view),
            Format::Table => lines([view.line(false)])?,
            Format::Wide => lines([view.line(true)])?,
        }
    }
    if matches!(printer.format, Format::Json | Format::Yaml) && !follow {
        printer.items(&all, |record| record.kind.clone(), || records_table(&[], false))?;
    }
    Ok(0)
}

/// The filter that the flags ask for, with agents by id so that pieces of ids and near misses are understood. An
/// agent that was removed is still in the log: an id that nobody has any more is passed on as it is.
pub(super) async fn filter(client: &Client, args: &RecordFilter) -> Outcome<api::Filter> {
    let mut agents = Vec::new();
    for text in &args.agents {
        match on_agent(client, text, |agent| client.get(api::GetRequest { agent })).await {
            Ok(agent) => agents.push(agent.id),
            Err(_) if aion_types::AgentId::parse(text).is_ok() => agents.push(text.clone()),
            Err(failure) => return Err(failure),
        }
    }
    for kind in &args.kinds {
        let body = kind.strip_suffix(".*").unwrap_or(kind);
        if body.is_empty() || body.contains('*') {
            let message = format!("--kind {kind:?}: write a kind as proc.exec, or a group as proc.*");
            return Err(Failure::new(USAGE, message));
        }
    }
    Ok(api::Filter {
        agents,
        kinds: args.kinds.clone(),
        verdicts: args.verdicts.clone(),
        since: args.since.map(Moment::to_api),
        until: args.until.map(Moment::to_api),
    })
}
