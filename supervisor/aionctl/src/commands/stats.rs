//! `stats`: samples of what agents use.

use aion_client::{Client, Error, api, duration};
use tonic::Streaming;

use super::target::on_agent;
use crate::cli::{Format, StatsArgs};
use crate::failure::Outcome;
use crate::output::{Printer, json_line, lines};
use crate::terminal::Page;
use crate::view::stats::{StatsView, network_table, stats_table, syscalls_table};

pub(super) async fn stats(client: &Client, args: StatsArgs, printer: Printer) -> Outcome {
    let agents = ids(client, &args.agents).await?;
    let mut rounds = Rounds::new(client, agents, 1, args.no_stream);
    // On a terminal the table is refreshed in place; elsewhere one follows the other.
    let page =
        (printer.is_human() && !args.no_stream && printer.width.is_some()).then(Page::open).transpose()?;
    loop {
        let samples = tokio::select! {
            samples = rounds.next() => samples?,
            _ = tokio::signal::ctrl_c() => return Ok(0),
        };
        let Some(mut samples) = samples else { return Ok(0) };
        if !args.syscalls {
            samples.iter_mut().for_each(|sample| sample.syscalls.clear());
        }
        match (printer.format, &page) {
            (Format::Table | Format::Wide, Some(page)) => {
                let rows = crate::terminal::size(&std::io::stdout()).map_or(24, |(rows, _)| rows);
                page.show(&human(&samples, args.syscalls, printer), rows)?;
            }
            (Format::Table | Format::Wide, None) => printer.text(&human(&samples, args.syscalls, printer))?,
            (Format::Json | Format::Yaml, _) if args.no_stream => {
                printer.items(&samples, |sample| sample.name.clone(), || stats_table(&[]))?;
            }
            (Format::Json | Format::Jsonl | Format::Yaml, _) => samples.iter().try_for_each(json_line)?,
            (Format::Name, _) => lines(samples.iter().map(|sample| sample.name.clone()))?,
        }
        if args.no_stream {
            return Ok(0);
        }
    }
}

fn human(samples: &[StatsView], syscalls: bool, printer: Printer) -> String {
    let mut out = printer.rendered(stats_table(samples));
    out.push('\n');
    if let Some(network) = network_table(samples) {
        out.push_str(&format!("\n{}\n", printer.rendered(network)));
    }
    for sample in samples.iter().filter(|sample| syscalls && !sample.syscalls.is_empty()) {
        out.push_str(&format!("\n{}\n{}\n", sample.name, printer.rendered(syscalls_table(sample))));
    }
    out
}

/// The ids of the agents that were named.
pub(super) async fn ids(client: &Client, names: &[String]) -> Outcome<Vec<String>> {
    let mut ids = Vec::new();
    for name in names {
        ids.push(on_agent(client, name, |agent| client.get(api::GetRequest { agent })).await?.id);
    }
    Ok(ids)
}

/// The stream of samples cut into rounds with one sample of each agent; opened again when the daemon was away.
pub(super) struct Rounds<'a> {
    client: &'a Client,
    request: api::StatsRequest,
    stream: Option<Streaming<api::StatsSample>>,
    /// The first sample of the next round, which showed that the round before was complete.
    ahead: Option<api::StatsSample>,
    round: Vec<api::StatsSample>,
}

impl<'a> Rounds<'a> {
    pub(super) fn new(client: &'a Client, agents: Vec<String>, seconds: u32, once: bool) -> Self {
        let interval = Some(duration(std::time::Duration::from_secs(u64::from(seconds))));
        let request = api::StatsRequest { agents, interval, once };
        Self { client, request, stream: None, ahead: None, round: Vec::new() }
    }

    /// The next round; `None` when there will be none. Safe to drop and call again.
    pub(super) async fn next(&mut self) -> Outcome<Option<Vec<StatsView>>> {
        loop {
            match self.sample().await {
                Ok(Some(sample)) => {
                    // Samples of one round come together, of the next one much later.
                    if self.round.iter().any(|other| other.agent == sample.agent) {
                        self.ahead = Some(sample);
                        return Ok(Some(self.take()));
                    }
                    self.round.push(sample);
                }
                Ok(None) if self.round.is_empty() && !self.request.once => return Ok(None),
                Ok(None) => return Ok(Some(self.take())),
                Err(error) if error.is_disconnect() => {
                    self.stream = None;
                    self.client.reconnected(error).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn take(&mut self) -> Vec<StatsView> {
        let mut round: Vec<StatsView> =
            std::mem::take(&mut self.round).into_iter().map(StatsView::from).collect();
        round.sort_by(|a, b| a.name.cmp(&b.name));
        round
    }

    async fn sample(&mut self) -> Result<Option<api::StatsSample>, Error> {
        if let Some(sample) = self.ahead.take() {
            return Ok(Some(sample));
        }
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => none.insert(self.client.stats(self.request.clone()).await?),
        };
        // The round is complete when nothing more comes for a moment, so that it is shown without waiting a second.
        let pause = std::time::Duration::from_millis(150);
        if self.round.is_empty() {
            return self.client.next(stream).await;
        }
        match tokio::time::timeout(pause, self.client.next(stream)).await {
            Ok(sample) => sample,
            Err(_) => Ok(None),
        }
    }
}
