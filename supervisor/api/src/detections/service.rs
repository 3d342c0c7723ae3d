//! DetectionService: what is loaded, read again, and what was taken from agents given back.

use std::sync::Arc;

use aion_api_proto::v1 as api;
use aion_api_proto::v1::detection_service_server::DetectionService;
use aion_detect::{Status as RuleStatus, When};
use aion_types::ErrorCode;
use serde_json::json;
use tonic::{Request, Response, Status};

use crate::clock::timestamp;
use crate::convert;
use crate::core::Core;
use crate::principal::Principal;
use crate::problem::{Outcome, Problem};
use crate::service::Services;
use crate::stage::Action;
use crate::trail::Entry;

const fn kind(when: &When) -> &'static str {
    match when {
        When::Count { .. } => "count",
        When::Distinct { .. } => "distinct",
        When::Sum { .. } => "sum",
        When::Sequence(_) => "sequence",
        When::Beacon(_) => "beacon",
        When::Deviation(_) => "deviation",
    }
}

fn message(status: &RuleStatus) -> api::Detection {
    let rule = &status.rule;
    api::Detection {
        name: rule.name.clone(),
        description: rule.description.clone(),
        severity: rule.severity.as_str().to_owned(),
        tags: rule.tags.clone(),
        kind: kind(&rule.when).to_owned(),
        window_ms: rule.window_ns / 1_000_000,
        action: rule.action.as_str().to_owned(),
        enabled: rule.enabled,
        fired: status.fired,
        suppressed: status.suppressed,
        last: timestamp(status.last_ns),
    }
}

impl Core {
    fn detections(&self) -> Outcome<api::ListDetectionsResponse> {
        let state = self
            .detections
            .lock()
            .ok_or_else(|| Problem::new(ErrorCode::Internal, "this daemon was started without detections"))?;
        Ok(api::ListDetectionsResponse {
            detections: state.engine.status().iter().map(message).collect(),
            loaded: timestamp(state.loaded_ns),
            cursor: state.cursor,
            lost_records: state.figures.lost,
            agents: u64::try_from(state.engine.agents()).unwrap_or(u64::MAX),
            evicted_agents: state.engine.evicted(),
        })
    }

    async fn reload_detections(self: Arc<Self>, principal: &Principal) -> Outcome<u32> {
        let core = Arc::clone(&self);
        let read = tokio::task::spawn_blocking(move || core.detections.reload());
        let read = read.await.map_err(|error| Problem::internal("reading did not run to its end", &error))?;
        let count = read.as_ref().map(Vec::len);
        let outcome = read
            .as_ref()
            .map(|rules| u32::try_from(rules.len()).unwrap_or(u32::MAX))
            .map_err(|why| Problem::new(ErrorCode::ProfileInvalid, why.clone()));
        let detail = json!({"detections": count.unwrap_or(0)});
        let entry = Entry { principal, kind: Action::ManageDetections.kind(), agent: "", detail };
        self.trail.record(entry, outcome.as_ref().map(|_| ())).await;
        outcome
    }

    async fn clear(
        &self,
        principal: &Principal,
        request: api::ClearRestraintsRequest,
    ) -> Outcome<api::Agent> {
        let found = self.agents.find(principal.tenant(), &request.agent);
        let id = found.as_ref().map_or(String::new(), |record| record.id.to_string());
        let both = !request.network && !request.throttle;
        let (network, throttle) = (both || request.network, both || request.throttle);
        let outcome = match found {
            Err(problem) => Err(problem),
            Ok(record) => {
                let _op = self.agents.lock(&record.id).await;
                self.give_back(&record, network, throttle).await
            }
        };
        let detail = json!({"name": request.agent, "network": network, "throttle": throttle});
        let entry = Entry { principal, kind: Action::ClearRestraints.kind(), agent: &id, detail };
        self.trail.record(entry, outcome.as_ref().map(|_| ())).await;
        outcome.map(|record| convert::agent(&record))
    }

    async fn give_back(
        &self,
        record: &aion_store::AgentRecord,
        network: bool,
        throttle: bool,
    ) -> Outcome<aion_store::AgentRecord> {
        let (tenant, id) = (&record.tenant, &record.id);
        let held = |kind: &str| record.restraints.iter().any(|restraint| restraint.kind == kind);
        let mut now = record.clone();
        if network && held("isolated") {
            let state = self.launcher.isolate(id.as_str(), false, "").await?;
            now = self.take_in(tenant, id, &state)?;
        }
        if throttle && held("throttled") {
            let state = self.launcher.throttle(id.as_str(), 0, "").await?;
            now = self.take_in(tenant, id, &state)?;
        }
        Ok(now)
    }
}

#[tonic::async_trait]
impl DetectionService for Services {
    async fn list(
        &self,
        request: Request<api::ListDetectionsRequest>,
    ) -> Result<Response<api::ListDetectionsResponse>, Status> {
        self.admit(request, Action::ReadDetections).await?;
        Ok(Response::new(self.0.detections()?))
    }

    async fn reload(
        &self,
        request: Request<api::ReloadDetectionsRequest>,
    ) -> Result<Response<api::ReloadDetectionsResponse>, Status> {
        let (principal, _) = self.admit(request, Action::ManageDetections).await?.into_parts();
        let detections = Arc::clone(&self.0).reload_detections(&principal).await?;
        Ok(Response::new(api::ReloadDetectionsResponse { detections }))
    }

    async fn clear(
        &self,
        request: Request<api::ClearRestraintsRequest>,
    ) -> Result<Response<api::Agent>, Status> {
        let (principal, request) = self.admit(request, Action::ClearRestraints).await?.into_parts();
        Ok(Response::new(self.0.clear(&principal, request).await?))
    }
}
