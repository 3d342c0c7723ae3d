//! What the door for HTTP needs besides the kernel: events, figures, health.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aion_http::{Backend, BoxFuture, EventQuery as Asked, EventStream, Part};
use aion_store::{EventQuery, EventRow, KindPattern};
use aion_syscall::Refusal;
use aion_types::{ErrorCode, TenantId};
use futures::stream;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::core::Core;
use crate::problem::{Outcome, Problem};

/// Rows that one step reads and looks at.
const STEP: usize = 64;
const BUDGET: usize = 20_000;

/// An engine of tasks that has not taken its turn by then hangs, or cannot open its journal.
const PATIENCE: Duration = Duration::from_secs(2);

/// Streams of one tenant at once: nobody takes all that there are.
const STREAMS: usize = 64;

pub(crate) struct ForHttp {
    core: Arc<Core>,
    streams: Mutex<HashMap<TenantId, Arc<Semaphore>>>,
    /// How the parts were, and when. Who asks while others look waits for what they see: strangers may ask, and asking costs.
    seen: tokio::sync::Mutex<Option<(Instant, Vec<Part>)>>,
}

/// So long the parts are as they were seen.
const SEEN: Duration = Duration::from_secs(1);

impl ForHttp {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core, streams: Mutex::default(), seen: tokio::sync::Mutex::default() }
    }

    /// Whether the engine of tasks takes its turns.
    async fn engine(&self) -> Result<(), String> {
        let tasks = self.core.tasks().map_err(|problem| problem.to_string())?;
        let beat = tokio::time::timeout(PATIENCE, tasks.heartbeat()).await;
        beat.map_err(|_| "the engine of tasks does not answer".to_owned())
    }

    fn place_of(&self, tenant: &TenantId) -> Outcome<OwnedSemaphorePermit> {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let places = streams.entry(tenant.clone()).or_insert_with(|| Arc::new(Semaphore::new(STREAMS)));
        Arc::clone(places).try_acquire_owned().map_err(|_| {
            Problem::new(
                ErrorCode::ResourceExhausted,
                format!("tenant {tenant} follows {STREAMS} streams already"),
            )
        })
    }
}

/// The contract's topics, as kinds of records.
fn kinds(topic: &str) -> Option<&'static [&'static str]> {
    match topic {
        "kernel.syscalls" => Some(&["api.syscall"]),
        "kernel.scheduler" => Some(&["task.*"]),
        "kernel.agents" => Some(&["agent.*"]),
        "kernel.detections" => Some(&["detection.*"]),
        // Collections of old memories are told by figures only.
        "kernel.gc" => Some(&["memory.*"]),
        _ => None,
    }
}

fn topic_of(kind: &str) -> &'static str {
    if kind == "api.syscall" {
        "kernel.syscalls"
    } else if kind.starts_with("task.") {
        "kernel.scheduler"
    } else if kind.starts_with("agent.") {
        "kernel.agents"
    } else if kind.starts_with("detection.") {
        "kernel.detections"
    } else {
        "kernel.events"
    }
}

fn query(asked: &Asked) -> Outcome<EventQuery> {
    // Records of the host are no tenant's.
    let mut query = EventQuery::of_tenant(asked.tenant.clone(), false);
    for topic in &asked.topics {
        let patterns = kinds(topic).map_or_else(|| vec![topic.as_str()], <[&str]>::to_vec);
        for pattern in patterns {
            let shown: String = topic.chars().take(80).collect();
            let unknown =
                || Problem::field("topics", format!("{shown:?} is neither a topic nor a kind of records"));
            query.kinds.push(KindPattern::parse(pattern).ok_or_else(unknown)?);
        }
    }
    Ok(query)
}

fn value(row: &EventRow) -> Value {
    let detail = serde_json::from_str(&row.detail_json).unwrap_or(Value::Null);
    json!({
        "topic": topic_of(&row.kind), "kind": row.kind, "seq": row.seq, "time_ns": row.time_ns, "agent": row.agent,
        "task": row.task, "trace": row.trace, "verdict": row.verdict, "rule": row.rule, "detail": detail,
    })
}

impl Backend for ForHttp {
    fn events(&self, asked: Asked) -> Result<EventStream, Refusal> {
        let core = Arc::clone(&self.core);
        let mut query = query(&asked).map_err(Refusal::from)?;
        if let Some(name) = &asked.agent {
            let own = core.agents.find(&asked.tenant, name.as_str()).map_err(Refusal::from)?;
            query.agents.push(own.id);
        }
        let place = self.place_of(&asked.tenant).map_err(Refusal::from)?;
        let permit = (place, core.stream_permit().map_err(Refusal::from)?);
        let after = asked.after.unwrap_or_else(|| *core.indexed.borrow());
        let newest = core.indexed.subscribe();
        let state = (core, query, after, newest, std::collections::VecDeque::<EventRow>::new(), permit);
        let events = stream::unfold(Some(state), |state| async move {
            let (core, query, mut after, mut newest, mut rows, permit) = state?;
            loop {
                if let Some(row) = rows.pop_front() {
                    let item = Ok((row.seq, value(&row)));
                    return Some((item, Some((core, query, after, newest, rows, permit))));
                }
                newest.mark_unchanged();
                match core.page_for(&query, after, STEP, BUDGET).await {
                    Ok(page) => {
                        after = page.next_after;
                        rows.extend(page.rows);
                        if rows.is_empty() && !page.more {
                            tokio::select! {
                                changed = newest.changed() => changed.ok()?,
                                () = core.shutdown.cancelled() => return None,
                            }
                        }
                    }
                    Err(problem) => return Some((Err(Refusal::from(problem)), None)),
                }
            }
        });
        Ok(Box::pin(events))
    }

    fn metrics(&self) -> BoxFuture<'_, String> {
        Box::pin(async move {
            let mut text = match self.core.tasks() {
                Ok(tasks) => tasks.metrics().await,
                Err(_) => String::new(),
            };
            text.push_str(&self.core.detections.metrics());
            text.push_str(&self.core.options.webhooks.metrics());
            text.push_str(&self.core.figures_text().await);
            text
        })
    }

    fn parts(&self) -> BoxFuture<'_, Vec<Part>> {
        Box::pin(async move {
            let mut seen = self.seen.lock().await;
            if let Some((at, parts)) = &*seen
                && at.elapsed() < SEEN
            {
                return parts.clone();
            }
            let hello = tokio::time::timeout(PATIENCE, self.core.launcher.hello());
            let (launcher, tasks) = tokio::join!(hello, self.engine());
            let launcher = launcher.map_or_else(
                |_| Err(format!("it does not answer within {} s", PATIENCE.as_secs())),
                |answer| answer.map(|_| ()).map_err(|error| error.to_string()),
            );
            let room = self.core.store.check_room(false);
            let part = |name, result: Result<(), String>| Part {
                name,
                ok: result.is_ok(),
                detail: result.err().unwrap_or_default(),
            };
            let parts = vec![
                part("launcher", launcher),
                part("store", room.map_err(|error| error.to_string())),
                part("tasks", tasks),
            ];
            *seen = Some((Instant::now(), parts.clone()));
            parts
        })
    }
}
