//! PolicyService: the operator's rules.

use aion_api_proto::v1 as api;
use aion_api_proto::v1::policy_service_server::PolicyService;
use serde_json::json;
use tonic::{Request, Response, Status};

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
        let outcome = self.0.reload_policy(request.dry_run).await;
        if !request.dry_run {
            let agents = outcome.as_ref().map_or(0, Vec::len);
            let detail = json!({"agents": agents});
            let entry = Entry { principal: &principal, kind: "api.policy.reload", agent: "", detail };
            self.0.trail.record(entry, outcome.as_ref().map(|_| ())).await;
        }
        Ok(Response::new(api::ReloadPolicyResponse { agents: outcome? }))
    }
}
