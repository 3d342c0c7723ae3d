//! Get, List, Wait and Heartbeat.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aion_api_proto::v1 as api;
use aion_store::{AgentState, Batch, ListQuery};
use aion_types::{AgentId, ErrorCode};
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, sleep_until};
use tonic::Status;

use crate::clock::{from_duration, now_ns, timestamp};
use crate::convert;
use crate::core::Core;
use crate::principal::Principal;
use crate::problem::{Outcome, Problem};

/// Pages.
const DEFAULT_PAGE: usize = 100;
const MAX_PAGE: usize = 1000;
/// What a heartbeat may say.
const MAX_STATUS: usize = 4096;

impl Core {
    pub(crate) fn get(&self, principal: &Principal, request: &api::GetRequest) -> Outcome<api::Agent> {
        let record = self.agents.find(principal.tenant(), &request.agent)?;
        let mut agent = convert::agent(&record);
        agent.manifest_yaml = self.store.manifest_of(&record.tenant, &record.id)?.unwrap_or_default();
        Ok(agent)
    }

    pub(crate) fn list(
        &self,
        principal: &Principal,
        request: api::ListRequest,
    ) -> Outcome<api::ListResponse> {
        let filter = filter_hash(&request);
        let states = request
            .states
            .iter()
            .map(|word| {
                AgentState::parse(word).ok_or_else(|| {
                    let known: Vec<_> = AgentState::ALL.iter().map(|state| state.as_str()).collect();
                    Problem::field("states", format!("{word:?} is no state: {}", known.join(", ")))
                })
            })
            .collect::<Outcome<Vec<_>>>()?;
        let limit = match usize::try_from(request.page_size).unwrap_or(usize::MAX) {
            0 => DEFAULT_PAGE,
            n if n <= MAX_PAGE => n,
            n => return Err(Problem::field("page_size", format!("{n} is over the limit of {MAX_PAGE}"))),
        };
        let after = if request.page_token.is_empty() {
            None
        } else {
            Some(read_token(&request.page_token, &filter)?)
        };
        let labels: BTreeMap<_, _> = request.labels.into_iter().collect();
        let name_prefix = request.name_prefix;
        let tenant = principal.tenant().clone();
        let page = self.store.list(&ListQuery { tenant, states, name_prefix, labels, after, limit })?;
        let next_page_token = match page.agents.last() {
            Some(last) if page.more => write_token(&last.id, &filter),
            _ => String::new(),
        };
        Ok(api::ListResponse { agents: page.agents.iter().map(convert::agent).collect(), next_page_token })
    }

    pub(crate) async fn wait(
        self: Arc<Self>,
        principal: Principal,
        request: api::WaitRequest,
    ) -> Result<api::Agent, Status> {
        let record = self.agents.find(principal.tenant(), &request.agent)?;
        let limit = match &request.timeout {
            None => None,
            Some(given) => {
                Some(from_duration(given).ok_or_else(|| Problem::field("timeout", "it is negative"))?)
            }
        };
        if record.state == AgentState::Created {
            let message = format!("{} was never started, so it cannot end", record.name);
            return Err(Problem::new(ErrorCode::AgentNotRunning, message)
                .with("agent", record.id.as_str())
                .into());
        }
        // Far enough to be for ever.
        let far = Duration::from_secs(365 * 24 * 3600);
        let deadline = Instant::now() + limit.unwrap_or(far).min(far);
        let mut follower = self.agents.follow(&record.id);
        loop {
            let Some(now) = self.agents.get(&record.tenant, &record.id)? else {
                let problem = Problem::not_found(record.name.as_str());
                return Err(problem.hint("it was removed while it was waited for").into());
            };
            if !now.state.is_live() {
                return Ok(convert::agent(&now));
            }
            tokio::select! {
                () = follower.changed() => {}
                () = sleep_until(deadline) => {
                    let message = format!("{} did not end in time", now.name);
                    return Err(Problem::new(ErrorCode::WaitTimeout, message).with("agent", now.id.as_str()).into());
                }
                () = self.shutdown.cancelled() => return Err(Self::going_down()),
            }
        }
    }

    pub(crate) fn heartbeat(
        &self,
        principal: &Principal,
        request: api::HeartbeatRequest,
    ) -> Outcome<api::HeartbeatResponse> {
        let size: usize = request.status.iter().map(|(k, v)| k.len() + v.len()).sum();
        if size > MAX_STATUS {
            let message = format!("the status has {size} bytes, at most {MAX_STATUS} are kept");
            return Err(Problem::new(ErrorCode::TooLarge, message).with("field", "status"));
        }
        let now = now_ns();
        let found = self.agents.find(principal.tenant(), &request.agent)?;
        self.agents.update(&found.tenant, &found.id, Batch::new(), |record, _| {
            record.heartbeat_ns = now;
            record.status = request.status.into_iter().collect();
            Ok(())
        })?;
        Ok(api::HeartbeatResponse { time: timestamp(now) })
    }
}

/// A page token belongs to one filter: another one's would skip agents silently.
fn filter_hash(request: &api::ListRequest) -> [u8; 8] {
    let mut hash = Sha256::new();
    let labels: BTreeMap<_, _> = request.labels.iter().collect();
    hash.update(format!("{:?}{:?}{:?}", request.states, request.name_prefix, labels));
    let [a, b, c, d, e, f, g, h, ..] = <[u8; 32]>::from(hash.finalize());
    [a, b, c, d, e, f, g, h]
}

fn write_token(last: &AgentId, filter: &[u8; 8]) -> String {
    format!("{}{}", hex::encode(filter), hex::encode(last.as_str()))
}

fn read_token(token: &str, filter: &[u8; 8]) -> Outcome<AgentId> {
    let wrong =
        || Problem::field("page_token", "it is not one of this list: give back what the page before said");
    let bytes = hex::decode(token).map_err(|_| wrong())?;
    let (head, id) = bytes.split_at_checked(filter.len()).ok_or_else(wrong)?;
    if head != filter {
        return Err(wrong());
    }
    let id = std::str::from_utf8(id).map_err(|_| wrong())?;
    AgentId::parse(id).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_belong_to_their_filter() {
        let id = AgentId::from_parts(3, 4);
        let filter = filter_hash(&api::ListRequest { name_prefix: "a".into(), ..Default::default() });
        let other = filter_hash(&api::ListRequest { name_prefix: "b".into(), ..Default::default() });
        let token = write_token(&id, &filter);
        assert_eq!(read_token(&token, &filter).unwrap(), id);
        for (token, filter) in [(token.as_str(), &other), ("", &filter), ("zz", &filter), ("00", &filter)] {
            assert_eq!(read_token(token, filter).unwrap_err().code(), ErrorCode::InvalidField);
        }
    }
}
