//! `wait`: prints how agents ended.

use aion_client::{Client, api, duration};
use serde::Serialize;

use super::target::{each, on_agent};
use crate::cli::WaitArgs;
use crate::failure::{Failure, Outcome};
use crate::output::{Printer, lines};
use crate::view::agent::{AgentView, ExitView};

#[derive(Serialize)]
struct Ended {
    id: String,
    name: String,
    state: String,
    exit: Option<ExitView>,
}

pub(super) async fn wait(client: &Client, args: WaitArgs, printer: Printer) -> Outcome {
    let timeout = args.timeout.map(duration);
    let call = |agent| client.wait(api::WaitRequest { agent, timeout });
    each(&args.names.agents, async |text| {
        let agent = AgentView::from(on_agent(client, &text, call).await?);
        let message = agent.message.clone().unwrap_or_else(|| "it has no exit code".to_owned());
        let ended = Ended { id: agent.id, name: agent.name, state: agent.state, exit: agent.exit };
        if !printer.is_human() {
            return printer.document(&ended, &ended.name, String::new);
        }
        match ended.exit {
            Some(exit) => lines([exit.code.to_string()]),
            None => Err(Failure::new(1, format!("{text} did not run: {message}"))),
        }
    })
    .await
}
