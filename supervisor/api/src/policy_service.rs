//! PolicyService: the operator's rules.

use std::sync::Arc;

use aion_api_proto::v1 as api;
use aion_api_proto::v1::policy_service_server::PolicyService;
use serde_json::json;
use tonic::{Request, Response, Status};

use crate::problem::Problem;
use crate::service::Services;
use crate::stage::Action;
use crate::trail::Entry;

#[tonic::async_trait]
impl PolicyService for Services {
    async fn reload(
        &self,
        request: Request<api::ReloadPolicyRequest>,
    ) -> Result<Response<api::ReloadPolicyResponse>, Status> {
        let (principal, request) = self.admit(request, Action::ManagePolicy).await?.into_parts();
        let core = Arc::clone(&self.0);
        // To its end, also when the client goes away: half of it would be no rules of anybody.
        let done = tokio::spawn(async move {
            let outcome = core.reload_policy(request.dry_run).await;
            if !request.dry_run {
                let detail = json!({"agents": outcome.as_ref().map_or(0, Vec::len)});
                let entry = Entry { principal: &principal, kind: "api.policy.reload", agent: "", detail };
                core.trail.record(entry, outcome.as_ref().map(|_| ())).await;
            }
            outcome
        });
        let outcome =
            done.await.map_err(|error| Problem::internal("the reload did not run to its end", &error));
        Ok(Response::new(api::ReloadPolicyResponse { agents: outcome.and_then(|outcome| outcome)? }))
    }
}
