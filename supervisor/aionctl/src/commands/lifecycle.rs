//! Commands that change agents' lives: stop, kill, pause, resume, start, rm. Each takes several agents and prints
//! the name of every agent that it was done to.

use std::time::Duration;

use aion_client::{Client, api, duration};

use super::target::{done, each, each_listed, named_or_all, on_agent};
use crate::cli::{Kill, Names, Rm, Stop};
use crate::failure::Outcome;
use crate::output::{Printer, lines};

const RUNNING: [&str; 3] = ["starting", "running", "paused"];

pub(super) async fn stop(client: &Client, args: Stop, printer: Printer) -> Outcome {
    let all = args.which.all;
    let agents = named_or_all(client, args.which.agents, all, &RUNNING).await?;
    let grace = Some(duration(Duration::from_secs(u64::from(args.seconds))));
    let call = |agent| client.stop(api::StopRequest { agent, grace, ..Default::default() });
    each_listed(&agents, all, async |text| done(printer, &text, on_agent(client, &text, call).await?)).await
}

pub(super) async fn kill(client: &Client, args: Kill, printer: Printer) -> Outcome {
    let all = args.which.all;
    let agents = named_or_all(client, args.which.agents, all, &RUNNING).await?;
    let signal = args.signal;
    let call = |agent| client.kill(api::KillRequest { agent, signal, ..Default::default() });
    each_listed(&agents, all, async |text| done(printer, &text, on_agent(client, &text, call).await?)).await
}

pub(super) async fn pause(client: &Client, args: Names, printer: Printer) -> Outcome {
    let call = |agent| client.pause(api::PauseRequest { agent, ..Default::default() });
    each(&args.agents, async |text| done(printer, &text, on_agent(client, &text, call).await?)).await
}

pub(super) async fn resume(client: &Client, args: Names, printer: Printer) -> Outcome {
    let call = |agent| client.resume(api::ResumeRequest { agent, ..Default::default() });
    each(&args.agents, async |text| done(printer, &text, on_agent(client, &text, call).await?)).await
}

pub(super) async fn start(client: &Client, args: Names, printer: Printer) -> Outcome {
    let call = |agent| client.start(api::StartRequest { agent, ..Default::default() });
    each(&args.agents, async |text| done(printer, &text, on_agent(client, &text, call).await?)).await
}

pub(super) async fn rm(client: &Client, args: Rm, printer: Printer) -> Outcome {
    // Not those that never ran: a job that is given tasks is registered and has no process of its own.
    let states: &[&str] = if args.force { &[] } else { &["exited", "failed"] };
    let all = args.which.all;
    let agents = named_or_all(client, args.which.agents, all, states).await?;
    let force = args.force;
    let call = |agent| client.remove(api::RemoveRequest { agent, force, ..Default::default() });
    each_listed(&agents, all, async |text| {
        on_agent(client, &text, call).await?;
        if printer.is_human() || printer.format == crate::cli::Format::Name {
            lines([text])
        } else {
            printer.document(&serde_json::json!({ "removed": text }), &text, String::new)
        }
    })
    .await
}
