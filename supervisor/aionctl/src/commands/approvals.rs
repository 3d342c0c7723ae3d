//! `approvals`, `approve`, `deny`: system calls that wait for a person.

use aion_client::{Client, api};

use crate::cli::AnswerArgs;
use crate::failure::Outcome;
use crate::output::Printer;
use crate::view::approval::{ApprovalView, approvals_table};

pub(super) async fn list(client: &Client, tenant: Option<&str>, printer: Printer) -> Outcome {
    let request = api::ListApprovalsRequest { tenant: tenant.unwrap_or_default().to_owned() };
    let approvals = client.approvals(request).await?.approvals;
    let views: Vec<_> = approvals.into_iter().map(ApprovalView::from).collect();
    printer.items(&views, |approval| approval.id.clone(), || approvals_table(&views))?;
    Ok(0)
}

pub(super) async fn answer(client: &Client, args: AnswerArgs, approve: bool, printer: Printer) -> Outcome {
    for id in args.ids {
        let request = api::AnswerApprovalRequest { id, approve, note: args.note.clone() };
        let view = ApprovalView::from(client.answer_approval(request).await?);
        let word = if approve { "approved" } else { "denied" };
        printer.document(&view, &view.id, || {
            format!("{} {word}: {} of {}\n", view.id, view.syscall, view.agent)
        })?;
    }
    Ok(0)
}
