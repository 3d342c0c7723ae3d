//! `queue`: how the queues are, and their settings read again.

use aion_client::{Client, api};

use crate::cli::{Format, QueueArgs, QueueCommand};
use crate::failure::Outcome;
use crate::output::{Printer, note, table};
use crate::view::queue::{QueuesView, queues_text};

pub(super) async fn queue(client: &Client, args: &QueueArgs, printer: Printer) -> Outcome {
    if let Some(QueueCommand::Reload) = args.command {
        let answer = client.reload_queues(api::ReloadRequest {}).await?;
        for warning in answer.warnings {
            note(&format!("warning: {warning}"));
        }
        return Ok(0);
    }
    if args.metrics {
        printer.text(&client.metrics(api::MetricsRequest {}).await?.text)?;
        return Ok(0);
    }
    let view = QueuesView::from(client.queues(api::QueuesRequest {}).await?);
    match printer.format {
        Format::Name | Format::Jsonl => {
            printer.items(&view.queues, |queue| queue.name.clone(), || table(&[]))?;
        }
        _ => printer.document(&view, "", || queues_text(&view, |table| printer.rendered(table)))?,
    }
    Ok(0)
}
