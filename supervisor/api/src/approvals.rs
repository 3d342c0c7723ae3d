//! Calls that wait for a person, and the answers of operators.

use aion_api_proto::v1 as api;
use aion_kernel::{Answered, Approval};
use aion_types::TenantId;
use serde_json::json;
use tonic::{Request, Response, Status};

use crate::clock::timestamp;
use crate::problem::Problem;
use crate::service::Services;
use crate::stage::Action;

/// Bytes of a note.
const MAX_NOTE: usize = 1000;

fn shown(approval: Approval) -> api::Approval {
    api::Approval {
        id: approval.id,
        tenant: approval.tenant.to_string(),
        agent: approval.agent,
        syscall: approval.syscall,
        target: approval.target,
        reason: approval.reason,
        subject_json: approval.subject.to_string(),
        since: timestamp(approval.since_ns),
        until: timestamp(approval.until_ns),
    }
}

pub(crate) async fn list(
    services: &Services,
    request: Request<api::ListApprovalsRequest>,
) -> Result<Response<api::ListApprovalsResponse>, Status> {
    let (_, request) = services.admit(request, Action::ReadKernel).await?.into_parts();
    let tenant = match request.tenant.as_str() {
        "" => None,
        name => Some(TenantId::parse(name).map_err(|error| Problem::field("tenant", error.to_string()))?),
    };
    let approvals = services.0.kernel()?.approvals(tenant.as_ref()).into_iter().map(shown).collect();
    Ok(Response::new(api::ListApprovalsResponse { approvals }))
}

pub(crate) async fn answer(
    services: &Services,
    request: Request<api::AnswerApprovalRequest>,
) -> Result<Response<api::Approval>, Status> {
    let (principal, request) = services.admit(request, Action::AnswerApprovals).await?.into_parts();
    let api::AnswerApprovalRequest { id, approve, note } = request;
    let detail = json!({"audit_id": id.chars().take(80).collect::<String>(), "approve": approve});
    let outcome = async {
        if note.len() > MAX_NOTE {
            return Err(Problem::field("note", format!("it has more than {MAX_NOTE} bytes")));
        }
        if note.chars().any(char::is_control) {
            return Err(Problem::field(
                "note",
                "it has a control character; write it on one line".to_owned(),
            ));
        }
        let answer = Answered { approved: approve, by: principal.subject().to_owned(), note };
        Ok(shown(services.0.kernel()?.answer(&id, answer)?))
    };
    let outcome = outcome.await;
    services.done(&principal, "api.approval.answer", detail, outcome).await
}
