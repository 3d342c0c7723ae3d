//! Why the kernel refused an agent something: the layer, its rule, and the line that would allow it.
//!
//! A record of the audit log says what was refused; what the agent asked for and what bounds it say why. [`rules`] is pure; here is
//! what it is given.

use std::sync::Arc;
use std::time::Duration;

use aion_api_proto::v1 as api;
use aion_manifest::{AgentSpec, Overrides};
use aion_store::EventRow;
use aion_types::{AgentId, ErrorCode, TenantId};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::core::Core;
use crate::principal::Principal;
use crate::problem::{Outcome, Problem};

mod rules;

use rules::{Explanation, Facts, explain};

/// A record is in the index so long after what it tells.
const ON_ITS_WAY: Duration = Duration::from_secs(1);

impl Core {
    /// A record of the audit log, explained. `which` is its number; empty: the newest denial of `agent`.
    ///
    /// # Errors
    /// `DECISION_NOT_FOUND`, also for a record that the caller may not see.
    pub(crate) async fn explain_record(
        self: &Arc<Self>,
        principal: &Principal,
        which: &str,
        agent: &str,
    ) -> Outcome<Value> {
        let record = match which {
            "" => self.newest_denial(principal, agent).await?,
            number => self.numbered_record(principal, number).await?,
        };
        let row = EventRow {
            seq: record.seq,
            time_ns: record.time.as_ref().map_or(0, crate::clock::from_timestamp),
            tenant: record.tenant.clone(),
            agent: record.agent.clone(),
            task: record.task.clone(),
            trace: record.trace.clone(),
            kind: record.kind.clone(),
            verdict: record.verdict.clone(),
            rule: record.rule.clone(),
            detail_json: record.detail_json.clone(),
        };
        let detail: Value = serde_json::from_str(&row.detail_json).unwrap_or(Value::Null);
        let core = Arc::clone(self);
        let explained = tokio::task::spawn_blocking({
            let (row, detail) = (row.clone(), detail.clone());
            move || core.explanation(&row, &detail)
        });
        let explained = explained
            .await
            .map_err(|error| Problem::internal("the explanation did not run to its end", &error))?;
        Ok(json!({
            "record": {
                "seq": row.seq, "time_ns": row.time_ns, "kind": row.kind, "verdict": row.verdict, "rule": row.rule,
                "tenant": row.tenant, "agent": row.agent, "agent_name": record.agent_name, "detail": detail,
            },
            "layer": explained.layer, "rule": explained.rule, "why": explained.why,
            "allow": explained.allow, "notes": explained.notes,
        }))
    }

    async fn numbered_record(&self, principal: &Principal, number: &str) -> Outcome<api::Record> {
        let none = || {
            let shown: String = number.chars().take(80).collect();
            Problem::new(ErrorCode::DecisionNotFound, format!("there is no decision and no record {shown:?}"))
                .hint("name a system call's audit id, as sc-…, or the number of a record, as `aionctl audit query` shows it")
        };
        let seq: u64 = number.parse().ok().filter(|seq| *seq > 0).ok_or_else(none)?;
        let request = api::QueryRequest { after_seq: seq - 1, page_size: 1, ..api::QueryRequest::default() };
        // The first record is after none, which is how all of them are asked for.
        let answer = self.query_events(principal, request).await?;
        answer.records.into_iter().find(|record| record.seq == seq).ok_or_else(none)
    }

    async fn newest_denial(&self, principal: &Principal, agent: &str) -> Outcome<api::Record> {
        let filter = api::Filter {
            agents: vec![agent.to_owned()],
            verdicts: vec!["denied".to_owned()],
            ..api::Filter::default()
        };
        let request = api::QueryRequest {
            filter: Some(filter),
            page_size: 1,
            newest: true,
            ..api::QueryRequest::default()
        };
        // What was denied a moment ago is on its way into the index.
        let patience = Instant::now() + ON_ITS_WAY;
        loop {
            if let Some(record) = self.query_events(principal, request.clone()).await?.records.pop() {
                return Ok(record);
            }
            if Instant::now() >= patience {
                let message = format!("{agent} was denied nothing that is on record");
                return Err(Problem::new(ErrorCode::DecisionNotFound, message)
                    .hint("`--audit full` records also what the kernel refuses by itself"));
            }
            tokio::time::sleep(ON_ITS_WAY / 10).await;
        }
    }

    fn explanation(&self, row: &EventRow, detail: &Value) -> Explanation {
        let tenant = TenantId::parse(&row.tenant).ok();
        let id = AgentId::parse(&row.agent).ok();
        let known = tenant.as_ref().zip(id.as_ref());
        let yaml = known.and_then(|(tenant, id)| self.store.manifest_of(tenant, id).ok().flatten());
        let spec = yaml.and_then(|yaml| {
            let read =
                AgentSpec::parse(yaml.as_bytes(), "agent.yml", Overrides::default(), &self.options.manifests);
            read.ok()
        });
        let bounds = tenant.as_ref().and_then(|tenant| self.bounds(tenant).ok());
        let agent = known.and_then(|(tenant, id)| self.agents.find(tenant, id.as_str()).ok());
        let isolated = agent.and_then(|record| {
            record
                .restraints
                .iter()
                .find(|one| one.kind == "isolated" && one.since_ns <= row.time_ns)
                .cloned()
        });
        let bounds: Vec<_> = bounds.iter().flat_map(|bounds| bounds.policies()).collect();
        explain(&Facts { row, detail, spec: spec.as_ref(), bounds: &bounds, isolated: isolated.as_ref() })
    }
}
