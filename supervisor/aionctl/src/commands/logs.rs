//! `logs`: an agent's output, past and coming.

use std::collections::VecDeque;

use aion_client::{Client, LogFollower, api};
use serde::Serialize;

use super::sync_output::To;
use super::target::on_agent;
use crate::cli::{Format, LogsArgs, OutputStream};
use crate::failure::Outcome;
use crate::output::{Printer, json_line, note};
use crate::when::Moment;

pub(super) async fn logs(client: &Client, args: LogsArgs, printer: Printer) -> Outcome {
    // The name is made sure of first, so that a wrong one gets its hint and a piece of an id is completed.
    let agent = on_agent(client, &args.agent, |agent| client.get(api::GetRequest { agent })).await?.id;
    let since = args.since.map(Moment::to_api);
    let mut sink = Sink::new(&args, printer.format);
    let mut request = api::LogsRequest { agent, follow: args.follow, since, ..Default::default() };
    match args.tail {
        None => {}
        Some(0) if !args.follow => return Ok(0),
        // The daemon counts the lines of both streams together. Those of one are counted here, and so are none.
        Some(wanted) if args.stream.is_some() || wanted == 0 => {
            let past = client.logs(api::LogsRequest { follow: false, ..request.clone() });
            request.cursor = tail(past, wanted, &mut sink).await?;
            request.since = None;
            if !args.follow {
                return Ok(0);
            }
        }
        Some(wanted) => request.tail_lines = i64::from(wanted),
    }
    let mut follower = client.logs(request);
    while let Some(chunk) = follower.next().await? {
        sink.chunk(&chunk)?;
    }
    Ok(0)
}

/// Prints the last `wanted` lines of what there is; gives the cursor behind them.
async fn tail(mut past: LogFollower, wanted: u32, sink: &mut Sink) -> Outcome<u64> {
    let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
    let mut kept: VecDeque<api::LogChunk> = VecDeque::new();
    let mut lines = 0usize;
    while let Some(chunk) = past.next().await? {
        if !sink.wants(&chunk) {
            continue;
        }
        lines += newlines(&chunk);
        kept.push_back(chunk);
        // A chunk is let go when what follows has enough lines, and one for an unfinished last line.
        while let Some(first) = kept.front().map(newlines) {
            if lines.saturating_sub(first) <= wanted {
                break;
            }
            lines -= first;
            kept.pop_front();
        }
    }
    let unfinished = kept.back().is_some_and(|chunk| !chunk.data.ends_with(b"\n"));
    let mut skip = (lines + usize::from(unfinished)).saturating_sub(wanted);
    if wanted == 0 {
        kept.clear();
    }
    for mut chunk in kept {
        while skip > 0 {
            let Some(at) = chunk.data.iter().position(|&byte| byte == b'\n') else {
                chunk.data.clear();
                break;
            };
            chunk.data.drain(..=at);
            skip -= 1;
        }
        sink.chunk(&chunk)?;
    }
    Ok(past.cursor())
}

fn newlines(chunk: &api::LogChunk) -> usize {
    chunk.data.iter().filter(|&&byte| byte == b'\n').count()
}

#[derive(Serialize)]
struct ChunkView<'a> {
    time: String,
    stream: &'static str,
    /// Bytes that are no UTF-8 are shown as replacement characters.
    data: std::borrow::Cow<'a, str>,
    cursor: u64,
}

/// Where the output goes, and how.
struct Sink {
    only: Option<To>,
    objects: bool,
    timestamps: bool,
    /// Of stdout and stderr: whether the next byte begins a line.
    at_line_start: [bool; 2],
}

impl Sink {
    fn new(args: &LogsArgs, format: Format) -> Self {
        let only = args.stream.map(|stream| match stream {
            OutputStream::Stdout => To::Stdout,
            OutputStream::Stderr => To::Stderr,
        });
        let objects = matches!(format, Format::Json | Format::Jsonl | Format::Yaml);
        Self { only, objects, timestamps: args.timestamps, at_line_start: [true; 2] }
    }

    fn wants(&self, chunk: &api::LogChunk) -> bool {
        self.only.is_none_or(|only| only == To::of(chunk.stream))
    }

    fn chunk(&mut self, chunk: &api::LogChunk) -> Outcome<()> {
        if chunk.lost_bytes > 0 {
            note(&format!("note: {} bytes of older output are gone: the size limit", chunk.lost_bytes));
        }
        if !self.wants(chunk) || chunk.data.is_empty() {
            return Ok(());
        }
        let to = To::of(chunk.stream);
        let time = || Moment::from_api(chunk.time.as_ref()).unwrap_or(Moment(0)).rfc3339();
        if self.objects {
            let data = String::from_utf8_lossy(&chunk.data);
            return json_line(&ChunkView {
                time: time(),
                stream: to.name(),
                data,
                cursor: chunk.next_cursor,
            });
        }
        if self.timestamps {
            to.write(&self.stamped(to, &time(), &chunk.data))?;
        } else {
            to.write(&chunk.data)?;
        }
        Ok(())
    }

    fn stamped(&mut self, to: To, time: &str, data: &[u8]) -> Vec<u8> {
        let start = &mut self.at_line_start[usize::from(to == To::Stderr)];
        let mut out = Vec::with_capacity(data.len() + time.len() + 1);
        for line in data.split_inclusive(|&byte| byte == b'\n') {
            if *start {
                out.extend_from_slice(time.as_bytes());
                out.push(b' ');
            }
            out.extend_from_slice(line);
            *start = line.ends_with(b"\n");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_gets_one_time_however_it_is_cut() {
        let mut sink = Sink { only: None, objects: false, timestamps: true, at_line_start: [true; 2] };
        let mut out = Vec::new();
        for (to, data) in [(To::Stdout, "ab"), (To::Stderr, "x\n"), (To::Stdout, "c\nd\n"), (To::Stdout, "")]
        {
            out.extend(sink.stamped(to, "T", data.as_bytes()));
        }
        assert_eq!(String::from_utf8(out).expect("text"), "T abT x\nc\nT d\n");
    }
}
