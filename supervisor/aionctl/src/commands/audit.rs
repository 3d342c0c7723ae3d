//! `audit`: the log's records, and whether they are all there and unchanged.

use aion_audit::{Anchor, Fault, Hash, PublicKey, verify_against};
use aion_client::{Client, api};
use aion_types::ErrorCode;
use serde::Serialize;

use super::events::{filter, stream};
use crate::cli::{AuditCommand, Format, QueryArgs, TailArgs, VerifyArgs};
use crate::failure::{Failure, Outcome, USAGE};
use crate::output::{Printer, cell, json_line, table};
use crate::text::clean;
use crate::view::record::{RecordView, records_table};

const PAGE: u32 = 1000;

pub(super) async fn audit(client: &Client, command: AuditCommand, printer: Printer) -> Outcome {
    match command {
        AuditCommand::Tail(args) => tail(client, &args, printer).await,
        AuditCommand::Query(args) => query(client, &args, printer).await,
        AuditCommand::Verify(args) => verify(client, args, printer).await,
    }
}

async fn tail(client: &Client, args: &TailArgs, printer: Printer) -> Outcome {
    let filter = filter(client, &args.filter).await?;
    let newest = api::QueryRequest {
        filter: Some(filter.clone()),
        page_size: args.lines,
        newest: true,
        ..Default::default()
    };
    let answer = if args.lines == 0 { api::QueryResponse::default() } else { client.query(newest).await? };
    let last = answer.records.last().map(|record| record.seq);
    let records: Vec<RecordView> = answer.records.into_iter().map(RecordView::from).collect();
    if !args.follow {
        print(printer, &records)?;
        return Ok(0);
    }
    for record in &records {
        match printer.format {
            Format::Table | Format::Wide => {
                crate::output::lines([record.line(printer.format == Format::Wide)])?
            }
            Format::Name => crate::output::lines([record.kind.clone()])?,
            Format::Json | Format::Jsonl | Format::Yaml => json_line(record)?,
        }
    }
    let request = api::SubscribeRequest {
        filter: Some(filter),
        cursor: last.unwrap_or(0),
        // No record matched so far: the first that does is the first of all.
        from_start: last.is_none() && args.lines > 0,
        follow: true,
    };
    stream(client, request, printer).await
}

async fn query(client: &Client, args: &QueryArgs, printer: Printer) -> Outcome {
    let filter = filter(client, &args.filter).await?;
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut after_seq = args.after;
    let mut all = Vec::new();
    while left > 0 {
        let page_size = u32::try_from(left).unwrap_or(PAGE).min(PAGE);
        let request = api::QueryRequest { filter: Some(filter.clone()), after_seq, page_size, newest: false };
        let answer = client.query(request).await?;
        left = left.saturating_sub(u64::try_from(answer.records.len()).unwrap_or(u64::MAX));
        let records = answer.records.into_iter().map(RecordView::from);
        // A line each needs no waiting for the rest, which may be long.
        if printer.format == Format::Jsonl {
            records.into_iter().try_for_each(|record| json_line(&record))?;
        } else {
            all.extend(records);
        }
        if !answer.more || answer.next_after_seq <= after_seq {
            break;
        }
        after_seq = answer.next_after_seq;
    }
    if printer.format != Format::Jsonl {
        print(printer, &all)?;
    }
    Ok(0)
}

fn print(printer: Printer, records: &[RecordView]) -> Outcome<()> {
    let wide = printer.format == Format::Wide;
    printer.items(records, |record| record.seq.to_string(), || records_table(records, wide))
}

#[derive(Serialize)]
struct VerifyView {
    ok: bool,
    records: u64,
    segments: u64,
    public_key: String,
    /// Over 1: older ones were pruned.
    first_seq: u64,
    /// With the hash: what to note down elsewhere.
    last_seq: u64,
    last_hash: String,
    notes: Vec<String>,
    faults: Vec<FaultView>,
}

#[derive(Serialize)]
struct FaultView {
    segment: String,
    seq: u64,
    what: String,
}

async fn verify(client: &Client, args: VerifyArgs, printer: Printer) -> Outcome {
    let anchors = args.anchors.into_iter().map(|(seq, hash)| api::Anchor { seq, hash }).collect();
    let request = api::VerifyRequest { public_key: args.key.unwrap_or_default(), anchors };
    let answer = client.verify(request).await?;
    shown(answer, printer)
}

/// A log in a folder, without a daemon.
pub(super) fn verify_folder(args: VerifyArgs, printer: Printer) -> Outcome {
    let dir = args.dir.unwrap_or_default();
    let wrong = |flag: &str, why: &str| Failure::new(USAGE, format!("{flag}: {why}"));
    let key = args.key.map(|key| key.parse::<PublicKey>()).transpose().map_err(|why| wrong("--key", why))?;
    let anchors = args.anchors.iter().map(|(seq, hash)| {
        let hash = Hash::parse(hash).ok_or_else(|| wrong("--anchor", "the hash is not 64 hex digits"))?;
        Ok(Anchor { seq: *seq, hash })
    });
    let anchors = anchors.collect::<Outcome<Vec<_>>>()?;
    let report = verify_against(&dir, key, &anchors).map_err(|error| {
        Failure::new(1, format!("cannot read the audit log in {}", dir.display())).cause(&error)
    })?;
    let (last_seq, last_hash) =
        report.last.map_or((0, String::new()), |last| (last.seq, last.hash.to_string()));
    let fault = |fault: Fault| api::Fault { segment: fault.segment, seq: fault.seq, what: fault.what };
    let answer = api::VerifyResponse {
        ok: report.ok,
        records: report.records,
        segments: report.segments,
        public_key: report.public_key.map(|key| key.to_string()).unwrap_or_default(),
        first_seq: report.first_seq,
        last_seq,
        last_hash,
        notes: report.notes,
        faults: report.faults.into_iter().map(fault).collect(),
    };
    shown(answer, printer)
}

fn shown(answer: api::VerifyResponse, printer: Printer) -> Outcome {
    let fault = |fault: api::Fault| FaultView { segment: fault.segment, seq: fault.seq, what: fault.what };
    let view = VerifyView {
        ok: answer.ok,
        records: answer.records,
        segments: answer.segments,
        public_key: answer.public_key,
        first_seq: answer.first_seq,
        last_seq: answer.last_seq,
        last_hash: answer.last_hash,
        notes: answer.notes,
        faults: answer.faults.into_iter().map(fault).collect(),
    };
    printer.document(&view, if view.ok { "ok" } else { "broken" }, || human(&view, printer))?;
    if view.ok {
        return Ok(0);
    }
    let places = view.faults.len();
    let first = view.faults.first().map_or_else(String::new, |fault| {
        format!("; the first: segment {}, record {}: {}", fault.segment, fault.seq, fault.what)
    });
    Err(Failure::coded(
        ErrorCode::AuditBroken,
        format!("the audit log does not verify in {places} places{first}"),
    )
    .hint("keep a copy of the audit folder as it is; records before the first place are still proven"))
}

fn human(view: &VerifyView, printer: Printer) -> String {
    let mut out = format!(
        "{} records in {} segments, key {}: {}\n",
        view.records,
        view.segments,
        view.public_key,
        if view.ok { "all there and unchanged" } else { "BROKEN" }
    );
    if view.first_seq > 1 {
        out.push_str(&format!(
            "kept from record {} on; those before were pruned, or are in the log of before a restore\n",
            view.first_seq
        ));
    }
    if view.ok && !view.last_hash.is_empty() {
        out.push_str(&format!(
            "to note down elsewhere: --key {} --anchor {}:{}\n",
            view.public_key, view.last_seq, view.last_hash
        ));
    }
    for note in &view.notes {
        out.push_str(&format!("note: {}\n", clean(note)));
    }
    if !view.faults.is_empty() {
        let mut faults = table(&["SEGMENT", "SEQ", "WHAT"]);
        for fault in &view.faults {
            faults.add_row([cell(&fault.segment), cell(fault.seq.to_string()), cell(&fault.what)]);
        }
        out.push_str(&printer.rendered(faults));
        out.push('\n');
    }
    out
}
