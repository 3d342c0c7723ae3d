//! The task of the HTTP contract, `{task_id, intent, priority, quota, params}`, with the agent and the queue beside them.

use aion_api_proto::v1 as api;
use aion_syscall::{Refusal, shown_field};
use aion_types::{AgentUri, TenantId};
use serde_json::{Map, Value};

/// Reads it.
///
/// # Errors
/// What is wrong with it, with the field.
pub(crate) fn spec(tenant: &TenantId, body: &Value) -> Result<api::TaskSpec, Refusal> {
    const KNOWN: [&str; 10] = [
        "task_id", "agent_id", "agent", "intent", "priority", "queue", "quota", "params", "labels",
        "trace_id",
    ];
    let Some(map) = body.as_object() else { return Err(Refusal::field("body", "it is not a JSON object")) };
    if let Some(unknown) = map.keys().find(|key| !KNOWN.contains(&key.as_str())) {
        let shown = shown_field(unknown);
        return Err(Refusal::field(shown, "it is not a field of a task")
            .hint(format!("the fields are {}", KNOWN.join(", "))));
    }
    let text = |field: &str| match map.get(field) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(Refusal::field(field, "it is not a text")),
    };
    let mut spec = api::TaskSpec {
        task_id: text("task_id")?,
        intent: text("intent")?,
        queue: text("queue")?,
        trace_id: text("trace_id")?,
        ..Default::default()
    };
    spec.agent = match text("agent_id")?.as_str() {
        "" => text("agent")?,
        uri => {
            let uri = AgentUri::parse(uri).map_err(|error| Refusal::field("agent_id", error.to_string()))?;
            if uri.tenant != *tenant {
                return Err(Refusal::denied(format!("tenant {tenant} has no agent {uri}"), "door: agent_id")
                    .at("agent_id"));
            }
            uri.name.to_string()
        }
    };
    // The contract's body names none: then it is for whichever of the tenant's agents is free.
    spec.any_agent = spec.agent.is_empty();
    match map.get("priority") {
        None | Some(Value::Null) => {}
        // In the contract's words a priority is a queue.
        Some(Value::String(word)) if spec.queue.is_empty() => spec.queue.clone_from(word),
        Some(value) => {
            let number = value.as_u64().and_then(|n| u32::try_from(n).ok());
            spec.priority =
                Some(number.ok_or_else(|| Refusal::field("priority", "use 0 to 9, or high, normal, low"))?);
        }
    }
    match map.get("quota") {
        None | Some(Value::Null) => {}
        Some(Value::Object(quota)) => {
            spec.budget = Some(budget(quota)?);
        }
        Some(_) => return Err(Refusal::field("quota", "it is not an object")),
    }
    match map.get("labels") {
        None | Some(Value::Null) => {}
        Some(Value::Object(labels)) => {
            for (key, value) in labels {
                let Some(value) = value.as_str() else {
                    return Err(Refusal::field("labels", "a label is a text"));
                };
                spec.labels.insert(key.clone(), value.to_owned());
            }
        }
        Some(_) => return Err(Refusal::field("labels", "it is not an object")),
    }
    if let Some(params) = map.get("params").filter(|params| !params.is_null()) {
        spec.params_json = params.to_string();
    }
    Ok(spec)
}

/// A quota: what the task may use for good, and the contract's `max_concurrency`, `token_rate` and `usd_per_hour`.
fn budget(quota: &Map<String, Value>) -> Result<api::TaskBudget, Refusal> {
    const OWN: [&str; 2] = ["usd_max", "tokens_max"];
    const RATES: [&str; 3] = ["max_concurrency", "token_rate", "usd_per_hour"];
    if let Some(unknown) =
        quota.keys().find(|key| !OWN.contains(&key.as_str()) && !RATES.contains(&key.as_str()))
    {
        let shown = shown_field(unknown);
        return Err(Refusal::field(format!("quota.{shown}"), "it is not a field of a quota").hint(format!(
            "the fields are {}, {}",
            OWN.join(", "),
            RATES.join(", ")
        )));
    }
    // A task runs once at a time: that it may run once or more holds by itself.
    let rates = aion_kernel::quota(quota, "quota")?;
    let given = |field: &str| quota.get(field).filter(|value| !value.is_null());
    let no_number = |field: &str| Refusal::field(format!("quota.{field}"), "it is no number");
    Ok(api::TaskBudget {
        usd_max: given("usd_max").map_or(Some(0.0), Value::as_f64).ok_or_else(|| no_number("usd_max"))?,
        tokens_max: given("tokens_max")
            .map_or(Some(0), Value::as_u64)
            .ok_or_else(|| no_number("tokens_max"))?,
        usd_per_hour: given("usd_per_hour").and_then(Value::as_f64).unwrap_or_default(),
        token_rate: rates.token_rate.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(body: &Value) -> Result<api::TaskSpec, Refusal> {
        spec(&TenantId::parse("t").unwrap(), body)
    }

    #[test]
    fn the_contract_s_body_is_for_any_agent() {
        let body = json!({"task_id": "t-123", "intent": "summarise", "priority": "high", "params": {"n": 1},
            "quota": {"max_concurrency": 2, "token_rate": 1000, "usd_per_hour": 0.5}});
        let task = read(&body).unwrap();
        let named =
            (task.task_id.as_str(), task.intent.as_str(), task.queue.as_str(), task.params_json.as_str());
        assert_eq!(named, ("t-123", "summarise", "high", r#"{"n":1}"#));
        assert!(task.any_agent && task.agent.is_empty());
        let budget = api::TaskBudget { token_rate: 1000, usd_per_hour: 0.5, ..Default::default() };
        assert_eq!(task.budget, Some(budget));
        assert!(!read(&json!({"agent_id": "agent://t/a"})).unwrap().any_agent);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, field) in [
            (json!({"quota": {"max_concurrency": 0}}), "quota.max_concurrency"),
            (json!({"quota": {"token_rate": "many"}}), "quota.token_rate"),
            (json!({"quota": {"usd_per_hour": -1}}), "quota.usd_per_hour"),
            (json!({"quota": {"usd_max": "1"}}), "quota.usd_max"),
            (json!({"quota": {"usd": 1}}), "quota.usd"),
            (json!({"priority": -1}), "priority"),
            (json!({"intnet": "x"}), "intnet"),
        ] {
            assert_eq!(read(&body).expect_err(&body.to_string()).field, field);
        }
    }
}
