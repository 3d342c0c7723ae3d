//! The door for tasks: a request becomes what the core takes, or an error that names the field.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aion_api_proto::v1 as api;
use aion_scheduler::{Class, Dependency, RetryPolicy, Submit, Target, TaskId};
use aion_types::{AgentName, TenantId};
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::clock::{from_duration, from_timestamp, now_ms};
use crate::error::Error;
use crate::work::NewTask;

/// The longest intent.
const MAX_TRACE: usize = 128;
const MAX_INTENT: usize = 4 << 10;
/// The longest params and results.
pub(crate) const MAX_JSON: usize = 1 << 20;
/// Labels of a task, and their bytes.
const MAX_LABELS: usize = 64;
const MAX_LABEL: usize = 256;
/// The longest request id.
const MAX_REQUEST_ID: usize = 64;
/// How deep JSON may be nested.
const MAX_USD: f64 = 1e9;

/// Where a task's id comes from.
pub(crate) enum Id {
    /// The client chose it: the same task again is the same task.
    Chosen(TaskId),
    /// It follows from the request id.
    OfRequest(TaskId),
    /// AION made it: nobody has it yet.
    Fresh(TaskId),
}

impl Id {
    pub(crate) const fn task(&self) -> &TaskId {
        match self {
            Self::Chosen(id) | Self::OfRequest(id) | Self::Fresh(id) => id,
        }
    }
}

/// The id that a request gives its task.
pub(crate) fn id(tenant: &TenantId, task_id: &str, request_id: &str) -> Result<Id, Error> {
    self::request_id(request_id)?;
    if !task_id.is_empty() {
        return TaskId::parse(task_id).map(Id::Chosen).map_err(|error| Error::field("task_id", error));
    }
    let parse = |text: &str| TaskId::parse(text).map_err(|error| Error::field("task_id", error));
    if request_id.is_empty() {
        return Ok(Id::Fresh(parse(&fresh()?)?));
    }
    let mut hash = Sha256::new();
    hash.update(tenant.as_str());
    hash.update([0]);
    hash.update(request_id);
    let digest: [u8; 32] = hash.finalize().into();
    let (head, _) = digest.split_first_chunk::<16>().unwrap_or((&[0; 16], &[]));
    Ok(Id::OfRequest(parse(&ulid::Ulid::from_bytes(*head).to_string())?))
}

/// Whether it can be one.
pub(crate) fn request_id(text: &str) -> Result<(), Error> {
    if text.len() > MAX_REQUEST_ID || text.chars().any(char::is_control) {
        return Err(Error::field("request_id", "at most 64 bytes without control characters"));
    }
    Ok(())
}

/// A ULID: the time, then a number that grows from a random one.
fn fresh() -> Result<String, Error> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    if NEXT.load(Ordering::Relaxed) == 0 {
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).map_err(|error| {
            Error::new(aion_types::ErrorCode::Internal, format!("no randomness for an id: {error}"))
        })?;
        let _ = NEXT.compare_exchange(0, u64::from_le_bytes(seed) | 1, Ordering::Relaxed, Ordering::Relaxed);
    }
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    Ok(ulid::Ulid::from_parts(now_ms(), u128::from(n)).to_string())
}

/// Checks a task. What the journal knows of its id and of those that it waits for is looked up by the caller.
pub(crate) fn check(tenant: &TenantId, id: TaskId, mut spec: api::TaskSpec) -> Result<NewTask, Error> {
    spec.task_id.clear();
    id.as_str().clone_into(&mut spec.task_id);
    let target = target(&spec)?;
    if spec.intent.len() > MAX_INTENT {
        return Err(Error::too_large("intent", format!("intent: at most {MAX_INTENT} bytes are taken")));
    }
    let class = match spec.queue.as_str() {
        "" => Class::Normal,
        word => Class::parse(word).ok_or_else(|| {
            let shown: String = word.chars().take(40).collect();
            Error::field("queue", format!("{shown:?} is no queue: high, normal, low"))
        })?,
    };
    class.as_str().clone_into(&mut spec.queue);
    let priority = spec.priority.unwrap_or(5);
    let priority = u8::try_from(priority)
        .ok()
        .filter(|&n| n <= 9)
        .ok_or_else(|| Error::field("priority", format!("{priority} is out of range: 0 to 9, 9 is first")))?;
    spec.priority = Some(priority.into());
    json("params_json", &spec.params_json)?;
    if spec.trace_id.len() > MAX_TRACE || spec.trace_id.chars().any(char::is_control) {
        let message = format!("trace_id: at most {MAX_TRACE} bytes without control characters are taken");
        return Err(Error::field("trace_id", message));
    }
    labels("labels", &spec.labels)?;
    let submit = Submit {
        fingerprint: fingerprint(&spec),
        class,
        priority,
        deadline: deadline(&spec)?,
        timeout_ms: length("timeout", spec.timeout.as_ref())?,
        estimate_ms: length("estimate", spec.estimate.as_ref())?,
        retry: retry(spec.retry.as_ref())?,
        tokens_max: spec.budget.as_ref().map_or(0, |budget| budget.tokens_max),
        usd_micros_max: usd(spec.budget.as_ref())?,
        after: after(&spec.after)?,
        slots: spec.needs.as_ref().map_or(1, |needs| needs.slots.max(1)),
        gpu: spec.needs.as_ref().map_or(0, |needs| needs.gpu),
        idempotent: spec.idempotent,
        ..Submit::new(tenant.clone(), id, target)
    };
    Ok(NewTask { submit: Box::new(submit), body: Arc::from(spec.encode_to_vec()) })
}

/// Whether a text is JSON of a size that is taken.
pub(crate) fn json(field: &'static str, text: &str) -> Result<(), Error> {
    if text.len() > MAX_JSON {
        return Err(Error::too_large(
            field,
            format!("{field}: it has {} bytes, at most {MAX_JSON} are taken", text.len()),
        ));
    }
    if text.is_empty() {
        return Ok(());
    }
    serde_json::from_str::<serde::de::IgnoredAny>(text)
        .map(drop)
        .map_err(|error| Error::field(field, format!("it is not JSON: {error}")))
}

fn target(spec: &api::TaskSpec) -> Result<Target, Error> {
    match (spec.agent.is_empty(), spec.selector.is_empty()) {
        (true, true) if spec.any_agent => Ok(Target::Selector(BTreeMap::new())),
        _ if spec.any_agent => {
            Err(Error::field("any_agent", "there is an agent or a selector already: one of the three"))
        }
        (false, true) => {
            AgentName::parse(&spec.agent).map(Target::Agent).map_err(|error| Error::field("agent", error))
        }
        (true, false) => {
            labels("selector", &spec.selector)?;
            Ok(Target::Selector(spec.selector.clone().into_iter().collect()))
        }
        (true, true) => {
            Err(Error::field("agent", "name the agent, or the labels that it must have with `selector`"))
        }
        (false, false) => Err(Error::field("selector", "there is an agent already: one of the two")),
    }
}

fn labels(field: &'static str, all: &HashMap<String, String>) -> Result<(), Error> {
    if all.len() > MAX_LABELS {
        return Err(Error::too_large(
            field,
            format!("{field}: {} labels, at most {MAX_LABELS} are taken", all.len()),
        ));
    }
    for (key, value) in all {
        if key.is_empty() || key.len() > MAX_LABEL || value.len() > MAX_LABEL {
            return Err(Error::field(
                field,
                format!("keys have 1 to {MAX_LABEL} bytes, values at most {MAX_LABEL}"),
            ));
        }
        if key.chars().chain(value.chars()).any(char::is_control) {
            return Err(Error::field(field, "it holds a control character"));
        }
    }
    Ok(())
}

fn deadline(spec: &api::TaskSpec) -> Result<Option<u64>, Error> {
    let Some(at) = &spec.deadline else { return Ok(None) };
    let at = from_timestamp(at).ok_or_else(|| Error::field("deadline", "it is no time after 1970"))?;
    if at <= now_ms() {
        return Err(Error::field("deadline", "it is in the past"));
    }
    Ok(Some(at))
}

fn length(field: &'static str, given: Option<&prost_types::Duration>) -> Result<Option<u64>, Error> {
    let Some(given) = given else { return Ok(None) };
    match from_duration(given) {
        Some(0) | None => Err(Error::field(field, "it is not a length of time over 0")),
        some => Ok(some),
    }
}

fn retry(given: Option<&api::Retry>) -> Result<RetryPolicy, Error> {
    let default = RetryPolicy::default();
    let Some(given) = given else { return Ok(default) };
    let span = |field, given: Option<&prost_types::Duration>, default| match given {
        None => Ok(default),
        Some(given) => from_duration(given).ok_or_else(|| Error::field(field, "it is not a length of time")),
    };
    let backoff_ms = span("retry.backoff", given.backoff.as_ref(), default.backoff_ms)?;
    let factor = if given.factor == 0.0 { 2.0 } else { given.factor };
    if !(1.0..=10.0).contains(&factor) {
        return Err(Error::field("retry.factor", "it is out of range: 1 to 10"));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "100 to 1000")]
    let factor_percent = (factor * 100.0).round() as u32;
    Ok(RetryPolicy {
        max_attempts: given.max_attempts.max(1),
        backoff_ms,
        max_backoff_ms: span(
            "retry.max_backoff",
            given.max_backoff.as_ref(),
            default.max_backoff_ms.max(backoff_ms),
        )?,
        factor_percent,
    })
}

fn usd(budget: Option<&api::TaskBudget>) -> Result<u64, Error> {
    let usd = budget.map_or(0.0, |budget| budget.usd_max);
    if !(0.0..=MAX_USD).contains(&budget.map_or(0.0, |budget| budget.usd_per_hour)) {
        return Err(Error::field("budget.usd_per_hour", "it is not an amount of money"));
    }
    if !(0.0..=MAX_USD).contains(&usd) {
        return Err(Error::field("budget.usd_max", "it is not an amount of money"));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most 1e15")]
    let micros = (usd * 1e6).ceil() as u64;
    Ok(micros)
}

fn after(ids: &[String]) -> Result<Vec<Dependency>, Error> {
    let mut all = Vec::with_capacity(ids.len());
    for id in ids {
        let id = TaskId::parse(id).map_err(|error| Error::field("after", error))?;
        if !all.iter().any(|known: &Dependency| known.id == id) {
            all.push(Dependency { id, known: None });
        }
    }
    Ok(all)
}

/// What makes two submissions the same: everything in them, whatever order their maps came in.
fn fingerprint(spec: &api::TaskSpec) -> u64 {
    let sorted = |map: &HashMap<String, String>| {
        let mut bytes = Vec::new();
        for (key, value) in map.iter().collect::<BTreeMap<_, _>>() {
            for text in [key, value] {
                bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
                bytes.extend_from_slice(text.as_bytes());
            }
        }
        bytes
    };
    let mut hash = Sha256::new();
    let part = |hash: &mut Sha256, bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    part(&mut hash, &sorted(&spec.selector));
    part(&mut hash, &sorted(&spec.labels));
    for text in [&spec.task_id, &spec.agent, &spec.intent, &spec.queue, &spec.params_json] {
        part(&mut hash, text.as_bytes());
    }
    let rest = api::TaskSpec {
        priority: spec.priority,
        deadline: spec.deadline,
        timeout: spec.timeout,
        retry: spec.retry,
        budget: spec.budget,
        after: spec.after.clone(),
        needs: spec.needs,
        idempotent: spec.idempotent,
        estimate: spec.estimate,
        any_agent: spec.any_agent,
        ..api::TaskSpec::default()
    };
    part(&mut hash, &rest.encode_to_vec());
    let digest: [u8; 32] = hash.finalize().into();
    digest.first_chunk().map_or(0, |head| u64::from_le_bytes(*head))
}

#[cfg(test)]
mod tests {
    use aion_types::ErrorCode;

    use super::*;

    fn spec() -> api::TaskSpec {
        api::TaskSpec { agent: "w".into(), ..api::TaskSpec::default() }
    }

    fn refused(spec: api::TaskSpec) -> (ErrorCode, &'static str) {
        let tenant = TenantId::parse("t").unwrap();
        let Err(error) = check(&tenant, TaskId::parse("a").unwrap(), spec) else { panic!("it was taken") };
        (error.code, error.field)
    }

    #[test]
    fn what_is_wrong_is_named() {
        use ErrorCode::{InvalidField, TooLarge};
        let past = prost_types::Timestamp { seconds: 1, nanos: 0 };
        for (spec, expected) in [
            (api::TaskSpec { queue: "urgent".into(), ..spec() }, (InvalidField, "queue")),
            (api::TaskSpec { priority: Some(10), ..spec() }, (InvalidField, "priority")),
            (api::TaskSpec { deadline: Some(past), ..spec() }, (InvalidField, "deadline")),
            (api::TaskSpec { params_json: "{".into(), ..spec() }, (InvalidField, "params_json")),
            (api::TaskSpec { params_json: "1".repeat(MAX_JSON + 1), ..spec() }, (TooLarge, "params_json")),
            (api::TaskSpec { agent: "../x".into(), ..spec() }, (InvalidField, "agent")),
            (api::TaskSpec { agent: String::new(), ..spec() }, (InvalidField, "agent")),
            (api::TaskSpec { after: vec!["a b".into()], ..spec() }, (InvalidField, "after")),
            (api::TaskSpec { intent: "x".repeat(MAX_INTENT + 1), ..spec() }, (TooLarge, "intent")),
            (
                api::TaskSpec {
                    budget: Some(api::TaskBudget { usd_max: f64::NAN, ..Default::default() }),
                    ..spec()
                },
                (InvalidField, "budget.usd_max"),
            ),
        ] {
            assert_eq!(refused(spec), expected);
        }
    }

    #[test]
    fn a_task_for_any_agent_names_none() {
        let tenant = TenantId::parse("t").unwrap();
        let any = api::TaskSpec { any_agent: true, ..api::TaskSpec::default() };
        let made = check(&tenant, TaskId::parse("a").unwrap(), any).unwrap();
        assert_eq!(made.submit.target, Target::Selector(BTreeMap::new()));
        let both = api::TaskSpec { any_agent: true, ..spec() };
        assert_eq!(refused(both), (ErrorCode::InvalidField, "any_agent"));
        let unpaid = api::TaskBudget { usd_per_hour: -1.0, ..Default::default() };
        let unpaid = api::TaskSpec { budget: Some(unpaid), ..spec() };
        assert_eq!(refused(unpaid), (ErrorCode::InvalidField, "budget.usd_per_hour"));
    }

    #[test]
    fn the_same_request_is_the_same_task_whatever_the_order_of_its_labels() {
        let tenant = TenantId::parse("t").unwrap();
        let made = |pairs: &[(&str, &str)], intent: &str| {
            let labels = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            let spec = api::TaskSpec { labels, intent: intent.into(), ..spec() };
            check(&tenant, TaskId::parse("a").unwrap(), spec).unwrap().submit.fingerprint
        };
        assert_eq!(made(&[("a", "1"), ("b", "2")], ""), made(&[("b", "2"), ("a", "1")], ""));
        assert_ne!(made(&[("a", "1")], ""), made(&[("a", "1")], "x"));
        let of = |request: &str| id(&tenant, "", request).unwrap().task().clone();
        assert_eq!(of("r1"), of("r1"));
        assert_ne!(of("r1"), of("r2"));
        assert_ne!(of(""), of(""));
        assert!(id(&tenant, "x/y", "").is_err());
    }
}
