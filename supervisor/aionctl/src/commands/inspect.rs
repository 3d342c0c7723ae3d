//! `inspect`: one object for one agent, an array for several.

use aion_client::{Client, api};

use super::target::on_agent;
use crate::cli::Format;
use crate::failure::Outcome;
use crate::output::{Printer, report};
use crate::view::agent::AgentView;
use crate::view::inspect::inspect_text;
use crate::when::Moment;

pub(super) async fn inspect(client: &Client, names: &[String], printer: Printer) -> Outcome {
    let mut found = Vec::new();
    let mut worst = 0;
    for name in names {
        match on_agent(client, name, |agent| client.get(api::GetRequest { agent })).await {
            Ok(agent) => found.push(AgentView::from(agent)),
            Err(failure) if names.len() == 1 => return Err(failure),
            Err(failure) => {
                worst = worst.max(failure.exit);
                report(&failure.about(name));
            }
        }
    }
    let text = |agent: &AgentView| inspect_text(agent, Moment::now(), |table| printer.rendered(table));
    match (printer.format, found.as_slice()) {
        (Format::Table | Format::Wide, agents) => {
            let texts: Vec<String> = agents.iter().map(text).collect();
            printer.text(&texts.join("\n"))?;
        }
        (_, [agent]) if names.len() == 1 => printer.document(agent, &agent.name, String::new)?,
        (_, agents) => printer.items(agents, |agent| agent.name.clone(), || crate::output::table(&[]))?,
    }
    Ok(worst)
}
