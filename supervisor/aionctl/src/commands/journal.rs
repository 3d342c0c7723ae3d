//! `journal`: the journal of the tasks as a whole, through aiond, which alone has it open.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use aion_client::{Client, api};
use aion_types::ErrorCode;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::cli::JournalCommand;
use crate::failure::{Failure, Outcome};
use crate::output::{Printer, note};
use crate::text::{bytes, clean};

/// Bytes of one message.
const PART: usize = 256 << 10;

#[derive(Serialize)]
struct Report {
    ok: bool,
    tasks: u64,
    events: u64,
    checkpoints: u64,
    bytes: u64,
    removed: u64,
    faults: Vec<String>,
}

pub(super) async fn journal(client: &Client, command: JournalCommand, printer: Printer) -> Outcome {
    match command {
        JournalCommand::Check => report(client.check_journal(api::JournalCheckRequest {}).await?, printer),
        JournalCommand::Compact => {
            report(client.compact_journal(api::JournalCompactRequest {}).await?, printer)
        }
        JournalCommand::Export(args) => export(client, &args.file).await,
        JournalCommand::Import(args) => report(import(client, &args.file).await?, printer),
    }
}

fn report(answer: api::JournalReport, printer: Printer) -> Outcome {
    let report = Report {
        ok: answer.faults.is_empty(),
        tasks: answer.tasks,
        events: answer.events,
        checkpoints: answer.checkpoints,
        bytes: answer.bytes,
        removed: answer.removed,
        faults: answer.faults,
    };
    printer.document(&report, if report.ok { "ok" } else { "broken" }, || {
        let removed =
            if report.removed > 0 { format!(", {} tasks removed", report.removed) } else { String::new() };
        format!(
            "{}: {} tasks, {} events, {} checkpoints, {}{removed}\n",
            if report.ok { "ok" } else { "broken" },
            report.tasks,
            report.events,
            report.checkpoints,
            bytes(report.bytes),
        )
    })?;
    if report.ok {
        return Ok(0);
    }
    for fault in &report.faults {
        note(&clean(fault));
    }
    Err(Failure::coded(ErrorCode::JournalBroken, "the journal of the tasks is damaged"))
}

async fn export(client: &Client, path: &Path) -> Outcome {
    let mut out: Box<dyn Write> = if path.as_os_str() == "-" {
        Box::new(io::stdout())
    } else {
        // What tasks say is for their owner's eyes.
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        Box::new(
            opened
                .map_err(|error| Failure::new(1, format!("cannot make {}", path.display())).cause(&error))?,
        )
    };
    let mut parts = client.export_journal().await?;
    while let Some(part) = client.next(&mut parts).await? {
        out.write_all(&part.data)?;
    }
    out.flush()?;
    Ok(0)
}

async fn import(client: &Client, path: &Path) -> Outcome<api::JournalReport> {
    let unreadable =
        |error: io::Error| Failure::new(1, format!("cannot read {}", path.display())).cause(&error);
    let mut from: Box<dyn Read + Send> = if path.as_os_str() == "-" {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(path).map_err(unreadable)?)
    };
    let (send, receive) = mpsc::channel(4);
    let reader = tokio::task::spawn_blocking(move || -> io::Result<()> {
        loop {
            let mut data = vec![0; PART];
            let n = from.read(&mut data)?;
            data.truncate(n);
            // The call has ended when nobody receives; its answer says why.
            if n == 0 || send.blocking_send(api::JournalPart { data }).is_err() {
                return Ok(());
            }
        }
    });
    let report = client.import_journal(ReceiverStream::new(receive)).await?;
    match reader.await {
        Ok(read) => read.map_err(unreadable)?,
        Err(error) => return Err(Failure::new(1, "reading did not run to its end").cause(&error)),
    }
    Ok(report)
}
