//! `policy`: the rules over what agents have.

use aion_client::{Client, api};

use crate::cli::PolicyCommand;
use crate::failure::{Failure, Outcome};
use crate::output::{Printer, note};
use crate::view::policy::{HeldView, held_table};

pub(super) async fn policy(client: &Client, command: &PolicyCommand, printer: Printer) -> Outcome {
    let PolicyCommand::Reload { dry_run } = *command;
    let held = client.reload_policy(api::ReloadPolicyRequest { dry_run }).await?.agents;
    let views: Vec<_> = held.into_iter().map(HeldView::from).collect();
    if views.is_empty() {
        note("no running agent has more than the rules leave it");
    }
    printer.items(&views, |view| view.name.clone(), || held_table(&views))?;
    match views.iter().filter(|view| !view.error.is_empty()).count() {
        0 => Ok(0),
        failed => Err(Failure::new(1, format!("{failed} agents could not be held to the rules"))
            .hint("the column WHY says what went wrong; reload again when it is mended")),
    }
}
