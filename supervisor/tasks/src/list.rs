//! List: living and ended tasks of a tenant, in order of submission. A page looks at a bounded number of tasks, so that a filter
//! that matches nothing holds nobody up.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use aion_api_proto::v1 as api;
use aion_scheduler::{Class, State, TaskNumber, TaskView, keys};
use aion_types::TenantId;
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::convert;
use crate::error::Error;
use crate::read::blocking;
use crate::tasks::Tasks;

const DEFAULT_PAGE: usize = 100;
const MAX_PAGE: usize = 1000;
/// Tasks that one look at the core goes through.
const STEP: usize = 4096;
/// Tasks that one request goes through.
const BUDGET: usize = 65_536;

#[derive(Debug, Clone)]
struct Filter {
    states: Vec<State>,
    queues: Vec<Class>,
    agent: String,
    labels: HashMap<String, String>,
    ended: bool,
    living: bool,
}

impl Tasks {
    /// A page of a tenant's tasks.
    ///
    /// # Errors
    /// A field that is not valid.
    pub async fn list(
        &self,
        tenant: &TenantId,
        request: api::ListTasksRequest,
    ) -> Result<api::ListTasksResponse, Error> {
        let filter = Filter::parse(&request)?;
        let limit = match usize::try_from(request.page_size).unwrap_or(usize::MAX) {
            0 => DEFAULT_PAGE,
            n if n <= MAX_PAGE => n,
            n => return Err(Error::field("page_size", format!("{n} is over the limit of {MAX_PAGE}"))),
        };
        let hash = filter.hash();
        let mut from = match request.page_token.as_str() {
            "" => 0,
            token => read_token(token, hash)?,
        };
        let mut answer = api::ListTasksResponse::default();
        let mut looked = 0;
        loop {
            let step = self.step(tenant, &filter, from).await?;
            looked += step.looked;
            let (journal, wanted, room) =
                (Arc::clone(&self.inner.journal), filter.clone(), limit - answer.tasks.len());
            let (tasks, stopped) = blocking(move || {
                let mut tasks = Vec::new();
                for view in step.views {
                    let body = journal.body(view.number.0)?;
                    if !wanted.labels_match(body.as_deref()) {
                        continue;
                    }
                    if tasks.len() >= room {
                        return Ok((tasks, Some(view.number.0)));
                    }
                    let result =
                        if view.state == State::Succeeded { journal.result(view.number.0)? } else { None };
                    tasks.push(convert::task(&view, body.as_deref(), result));
                }
                Ok((tasks, None))
            })
            .await?;
            answer.tasks.extend(tasks);
            let Some(next) = stopped.or(step.next) else { return Ok(answer) };
            from = next;
            if stopped.is_some() || looked >= BUDGET || answer.tasks.len() >= limit {
                answer.next_page_token = write_token(from, hash);
                return Ok(answer);
            }
        }
    }

    /// Tasks that match, from a number on: as far as both the core and the journal were looked through.
    async fn step(&self, tenant: &TenantId, filter: &Filter, from: u64) -> Result<Step, Error> {
        let mut living = (Vec::new(), None, 0);
        // The core first: what ends between the two looks is then seen twice, not missed.
        if filter.living {
            let (owner, filter) = (tenant.clone(), filter.clone());
            living = self
                .look(tenant, move |core| {
                    let mut views = Vec::new();
                    for (looked, view) in core.tasks_from(TaskNumber(from)).enumerate() {
                        if looked >= STEP {
                            return (views, Some(view.number.0), looked);
                        }
                        if *view.tenant == *owner.as_str() && filter.matches(&view) {
                            views.push(view);
                        }
                    }
                    (views, None, STEP / 64)
                })
                .await?;
        }
        let (mut views, stop, mut looked) = living;
        let mut next = stop;
        if filter.ended {
            let (journal, owner, filter) = (Arc::clone(&self.inner.journal), tenant.clone(), filter.clone());
            let (ended, ended_stop, ended_looked) = blocking(move || {
                let (mut views, mut looked, mut stopped) = (Vec::new(), 0, None);
                let first = keys::ended(owner.as_str(), TaskNumber(from));
                journal.ended_rows(&keys::ended_of(owner.as_str()), &first, |_, value| {
                    let view = TaskView::decode(value)
                        .map_err(|error| Error::internal("an ended task's row cannot be read", &error))?;
                    if looked >= STEP || stop.is_some_and(|stop| view.number.0 >= stop) {
                        stopped = Some(view.number.0);
                        return Ok::<_, Error>(false);
                    }
                    looked += 1;
                    if filter.matches(&view) {
                        views.push(view);
                    }
                    Ok(true)
                })?;
                Ok((views, stopped, looked))
            })
            .await?;
            looked += ended_looked;
            next = match (stop, ended_stop) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            if let Some(next) = next {
                views.retain(|view| view.number.0 < next);
            }
            views.extend(ended);
            // The later look comes first of two at the same task.
            views.sort_by_key(|view| (view.number, !view.state.ended()));
            views.dedup_by_key(|view| view.number);
        }
        Ok(Step { views, next, looked })
    }
}

fn write_token(from: u64, filter: u64) -> String {
    format!("{filter:016x}{from:016x}")
}

fn read_token(token: &str, filter: u64) -> Result<u64, Error> {
    let wrong =
        || Error::field("page_token", "it is not one of this list: give back what the page before said");
    // In the one form that is given out: no sign, no capitals.
    let number = |text: &str| u64::from_str_radix(text, 16).ok().filter(|n| format!("{n:016x}") == text);
    match token.split_at_checked(16).and_then(|(head, from)| number(head).zip(number(from))) {
        Some((of, from)) if of == filter => Ok(from),
        _ => Err(wrong()),
    }
}

struct Step {
    views: Vec<TaskView>,
    next: Option<u64>,
    looked: usize,
}

impl Filter {
    fn parse(request: &api::ListTasksRequest) -> Result<Self, Error> {
        let states = request
            .states
            .iter()
            .map(|word| {
                State::parse(word).ok_or_else(|| {
                    let known: Vec<_> = State::ALL.iter().map(|state| state.as_str()).collect();
                    Error::field("states", format!("{word:?} is no state: {}", known.join(", ")))
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let queues = request
            .queues
            .iter()
            .map(|word| {
                Class::parse(word)
                    .ok_or_else(|| Error::field("queues", format!("{word:?} is no queue: high, normal, low")))
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            ended: states.is_empty() || states.iter().any(|state| state.ended()),
            // One that was cancelled lives on until its process is gone.
            living: true,
            states,
            queues,
            agent: request.agent.clone(),
            labels: request.labels.clone(),
        })
    }

    /// A page token belongs to one filter: another one's would skip tasks silently.
    fn hash(&self) -> u64 {
        let labels: BTreeMap<_, _> = self.labels.iter().collect();
        let text = format!("{:?}{:?}{:?}{labels:?}", self.states, self.queues, self.agent);
        let [a, b, c, d, e, f, g, h, ..] = <[u8; 32]>::from(Sha256::digest(text));
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }

    fn matches(&self, view: &TaskView) -> bool {
        let target = match &view.target {
            aion_scheduler::Target::Agent(name) => name.as_str(),
            aion_scheduler::Target::Selector(_) => "",
        };
        (self.states.is_empty() || self.states.contains(&view.state))
            && (self.queues.is_empty() || self.queues.contains(&view.class))
            && (self.agent.is_empty()
                || self.agent == target
                || view.agent.as_deref() == Some(self.agent.as_str()))
    }

    fn labels_match(&self, body: Option<&[u8]>) -> bool {
        if self.labels.is_empty() {
            return true;
        }
        let Some(spec) = body.and_then(|body| api::TaskSpec::decode(body).ok()) else { return false };
        self.labels.iter().all(|(key, value)| spec.labels.get(key) == Some(value))
    }
}
