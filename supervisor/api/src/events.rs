//! Subscribe, Query and Verify over the event index and the audit log.
//!
//! A subscriber reads the index at its own pace: what it has not taken yet waits on disk, not in memory. One that
//! falls behind what is kept is told so and dropped.

use std::collections::HashMap;
use std::sync::Arc;

use aion_api_proto::v1 as api;
use aion_store::{EventQuery, EventRow, KindPattern};
use aion_types::{AgentId, AgentName};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::clock::from_timestamp;
use crate::convert;
use crate::core::Core;
use crate::logs::Answers;
use crate::principal::{Principal, Role};
use crate::problem::{Outcome, Problem};

/// Rows of a page.
/// Records that one verification is held against.
const MAX_ANCHORS: usize = 64;
const DEFAULT_PAGE: usize = 100;
const MAX_PAGE: usize = 1000;
/// Rows that one step reads and looks at.
const STEP: usize = 256;
const BUDGET: usize = 20_000;
/// The newest rows are looked for among so many.
const NEWEST_BUDGET: usize = 1_000_000;
/// Rows that wait for a slow client.
const AHEAD: usize = 64;
/// Terms of a filter.
const MAX_TERMS: usize = 64;

impl Core {
    pub(crate) fn subscribe(
        self: Arc<Self>,
        principal: &Principal,
        request: api::SubscribeRequest,
    ) -> Outcome<Answers<api::Record>> {
        let query = self.event_query(principal, request.filter.unwrap_or_default())?;
        let mut after = match (request.cursor, request.from_start) {
            (0, false) => *self.indexed.borrow(),
            (0, true) => self.store.oldest_event()?.saturating_sub(1),
            (cursor, _) => cursor,
        };
        let permit = self.stream_permit()?;
        let (send, receive) = mpsc::channel(AHEAD);
        let mut newest = self.indexed.subscribe();
        tokio::spawn(async move {
            let _permit = permit;
            let mut names = Names::default();
            let told = async {
                loop {
                    newest.mark_unchanged();
                    let page = self.page(&query, after, STEP).await?;
                    after = page.next_after;
                    for row in page.rows {
                        let name = names.of(&self, &query, &row);
                        if send.send(Ok(convert::record(row, name))).await.is_err() {
                            return Ok(());
                        }
                    }
                    if page.more {
                        continue;
                    }
                    if !request.follow {
                        return Ok(());
                    }
                    // The sender lives in the core.
                    let _ = newest.changed().await;
                }
            };
            let end: Result<(), Status> = tokio::select! {
                told = told => told.map_err(|problem: Problem| Status::from(problem)),
                () = send.closed() => return,
                () = self.shutdown.cancelled() => Err(Self::going_down()),
            };
            if let Err(status) = end {
                let _ = send.send(Err(status)).await;
            }
        });
        Ok(Box::pin(ReceiverStream::new(receive)))
    }

    pub(crate) async fn query_events(
        &self,
        principal: &Principal,
        request: api::QueryRequest,
    ) -> Outcome<api::QueryResponse> {
        let query = self.event_query(principal, request.filter.unwrap_or_default())?;
        let limit = match usize::try_from(request.page_size).unwrap_or(usize::MAX) {
            0 => DEFAULT_PAGE,
            n if n <= MAX_PAGE => n,
            n => return Err(Problem::field("page_size", format!("{n} is over the limit of {MAX_PAGE}"))),
        };
        let mut names = Names::default();
        if request.newest {
            let store = Arc::clone(&self.store);
            let wanted = query.clone();
            let rows = spawn(move || store.newest_events(&wanted, limit, NEWEST_BUDGET)).await?;
            let next_after_seq = rows.last().map_or(*self.indexed.borrow(), |row| row.seq);
            let records = rows.into_iter().map(|row| {
                let name = names.of(self, &query, &row);
                convert::record(row, name)
            });
            return Ok(api::QueryResponse { records: records.collect(), next_after_seq, more: false });
        }
        let oldest = self.store.oldest_event()?;
        // The beginning is the oldest that is kept; any other cursor must still be there.
        let mut after = if request.after_seq == 0 { oldest.saturating_sub(1) } else { request.after_seq };
        let mut records = Vec::new();
        loop {
            let page = self.page(&query, after, limit - records.len()).await?;
            after = page.next_after;
            records.extend(page.rows.into_iter().map(|row| {
                let name = names.of(self, &query, &row);
                convert::record(row, name)
            }));
            if !page.more || records.len() >= limit {
                return Ok(api::QueryResponse { records, next_after_seq: after, more: page.more });
            }
        }
    }

    async fn page(&self, query: &EventQuery, after: u64, limit: usize) -> Outcome<aion_store::EventPage> {
        self.page_for(query, after, limit, BUDGET).await
    }

    /// A page, for which at most `budget` rows are looked at.
    pub(crate) async fn page_for(
        &self,
        query: &EventQuery,
        after: u64,
        limit: usize,
        budget: usize,
    ) -> Outcome<aion_store::EventPage> {
        let (store, query) = (Arc::clone(&self.store), query.clone());
        spawn(move || store.events_after(&query, after, limit, budget)).await
    }

    fn event_query(&self, principal: &Principal, filter: api::Filter) -> Outcome<EventQuery> {
        let mut query = EventQuery::of_tenant(principal.tenant().clone(), principal.has(Role::Operator));
        for (field, terms) in
            [("agents", &filter.agents), ("kinds", &filter.kinds), ("verdicts", &filter.verdicts)]
        {
            if terms.len() > MAX_TERMS {
                return Err(Problem::field(
                    field,
                    format!("{} terms, at most {MAX_TERMS} are taken", terms.len()),
                ));
            }
        }
        for agent in &filter.agents {
            query.agents.push(self.agent_of_events(principal, agent)?);
        }
        for kind in &filter.kinds {
            let pattern = KindPattern::parse(kind).ok_or_else(|| {
                Problem::field(
                    "kinds",
                    format!("{kind:?} is neither a kind, as net.connect, nor a prefix, as net.*"),
                )
            })?;
            query.kinds.push(pattern);
        }
        for verdict in &filter.verdicts {
            if !matches!(verdict.as_str(), "allowed" | "denied" | "error") {
                return Err(Problem::field(
                    "verdicts",
                    format!("{verdict:?} is none: allowed, denied, error"),
                ));
            }
        }
        query.verdicts = filter.verdicts;
        query.since_ns = filter.since.as_ref().map(from_timestamp);
        query.until_ns = filter.until.as_ref().map(from_timestamp);
        Ok(query)
    }

    /// Events outlive their agent, so that the id of one that is gone is as good.
    fn agent_of_events(&self, principal: &Principal, agent: &str) -> Outcome<AgentId> {
        if let Ok(id) = AgentId::parse(agent) {
            return match self.store.name_of(principal.tenant(), agent)? {
                Some(_) => Ok(id),
                None => Err(Problem::not_found(agent)),
            };
        }
        let name = AgentName::parse(agent).map_err(|_| Problem::not_found(agent))?;
        self.store.agent_by_name(principal.tenant(), &name)?.ok_or_else(|| Problem::not_found(agent))
    }

    pub(crate) async fn verify_audit(&self, request: &api::VerifyRequest) -> Outcome<api::VerifyResponse> {
        let dir = self.audit_dir();
        let key = Some(&request.public_key).filter(|text| !text.is_empty()).map(|text| text.parse());
        let key =
            key.transpose().map_err(|why: &str| Problem::field("public_key", format!("it is {why}")))?;
        if request.anchors.len() > MAX_ANCHORS {
            return Err(Problem::field("anchors", format!("at most {MAX_ANCHORS} are taken")));
        }
        let anchor = |anchor: &api::Anchor| {
            aion_audit::Hash::parse(&anchor.hash)
                .map(|hash| aion_audit::Anchor { seq: anchor.seq, hash })
                .ok_or_else(|| Problem::field("anchors", "a hash is not 64 small hex digits"))
        };
        let anchors = request.anchors.iter().map(anchor).collect::<Outcome<Vec<_>>>()?;
        let report = tokio::task::spawn_blocking(move || aion_audit::verify_against(&dir, key, &anchors))
            .await
            .map_err(|error| Problem::internal("the verification did not run to its end", &error))?
            .map_err(|error| Problem::internal("the audit log cannot be read", &error))?;
        Ok(api::VerifyResponse {
            ok: report.ok,
            records: report.records,
            segments: report.segments,
            public_key: report.public_key.map_or_else(String::new, |key| key.to_string()),
            faults: report
                .faults
                .into_iter()
                .map(|fault| api::Fault { segment: fault.segment, seq: fault.seq, what: fault.what })
                .collect(),
            first_seq: report.first_seq,
            last_seq: report.last.map_or(0, |last| last.seq),
            last_hash: report.last.map_or_else(String::new, |last| last.hash.to_string()),
            notes: report.notes,
        })
    }
}

/// Names of agents by id, remembered for one stream.
#[derive(Default)]
struct Names(HashMap<String, String>);

impl Names {
    fn of(&mut self, core: &Core, query: &EventQuery, row: &EventRow) -> String {
        if row.agent.is_empty() {
            return String::new();
        }
        if let Some(name) = self.0.get(&row.agent) {
            return name.clone();
        }
        let name = core.store.name_of(&query.tenant, &row.agent).ok().flatten().unwrap_or_default();
        if self.0.len() >= 1024 {
            self.0.clear();
        }
        if !name.is_empty() {
            self.0.insert(row.agent.clone(), name.clone());
        }
        name
    }
}

async fn spawn<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, aion_store::Error> + Send + 'static,
) -> Outcome<T> {
    let result = tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Problem::internal("reading the index did not run to its end", &error))?;
    Ok(result?)
}
