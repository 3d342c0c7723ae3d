//! Registering an agent over the HTTP contract: `{agent_id, name, version, capabilities, limits, quota, manifest}`.

use aion_manifest::{Quota, Usd};
use aion_syscall::{Refusal, shown_field};
use aion_types::AgentUri;
use serde_json::{Map, Value, json};

use crate::caller::Caller;
use crate::host::Registration;
use crate::kernel::Kernel;
use crate::operator::own_agent;

const KNOWN: [&str; 7] = ["agent_id", "name", "version", "capabilities", "limits", "quota", "manifest"];
const QUOTA: [&str; 3] = ["max_concurrency", "token_rate", "usd_per_hour"];

/// What a body asks for.
struct Asked {
    /// None: it does not say how the agent is.
    manifest: Option<String>,
    quota: Quota,
    /// The manifest is the body's own, not made of its other fields.
    whole: bool,
}

impl Kernel {
    /// Registers an agent. One that is there with the same manifest is left as it is.
    ///
    /// # Errors
    /// What is wrong with it, with the field; `NAME_TAKEN` when it is there with another manifest.
    pub async fn register(&self, caller: &Caller, body: &Value) -> Result<Value, Refusal> {
        let done = self.registered(caller, body).await;
        self.without_secrets(caller, done)
    }

    async fn registered(&self, caller: &Caller, body: &Value) -> Result<Value, Refusal> {
        let uri = own_agent(caller, body)?;
        let asked = asked(&uri, body)?;
        let found = self.0.host.agent(&uri.tenant, &uri.name)?;
        let answer =
            |id: &str, created: bool| json!({"agent_id": uri.to_string(), "id": id, "created": created});
        // Who gives no manifest does not say that an operator's is another.
        let says_nothing = asked.manifest.is_none() || (!asked.whole && !self.is_external(&uri));
        if let Some(found) = found.filter(|_| says_nothing) {
            return Ok(answer(&found.id, false));
        }
        let manifest = asked.manifest.unwrap_or_else(|| external(&uri, body, None));
        let registration =
            Registration { tenant: uri.tenant.clone(), name: uri.name.clone(), manifest, quota: asked.quota };
        let done = self.0.host.register(registration).await?;
        Ok(answer(&done.id, done.created))
    }

    /// Whether it was registered without a manifest of its own.
    fn is_external(&self, uri: &AgentUri) -> bool {
        let grants = self.0.grants.of(self.0.host.as_ref(), uri);
        grants.is_ok_and(|grants| grants.spec.labels.contains_key(EXTERNAL))
    }
}

/// The label of agents that run elsewhere.
const EXTERNAL: &str = "aion.external";

fn asked(uri: &AgentUri, body: &Value) -> Result<Asked, Refusal> {
    let map = body.as_object().ok_or_else(|| Refusal::field("body", "it is not a JSON object"))?;
    if let Some(unknown) = map.keys().find(|key| !KNOWN.contains(&key.as_str())) {
        let shown = shown_field(unknown);
        return Err(Refusal::field(shown, "it is not a field of a registration")
            .hint(format!("the fields are {}", KNOWN.join(", "))));
    }
    for field in ["name", "version"] {
        if map.get(field).is_some_and(|value| !value.is_null() && !value.is_string()) {
            return Err(Refusal::field(field, "it is not a text"));
        }
    }
    let mut limits = object(map, "limits")?;
    // The contract's quotas stand in either place.
    let given = object(map, "quota")?;
    if let Some(unknown) = given.keys().find(|key| !QUOTA.contains(&key.as_str())) {
        let shown = shown_field(unknown);
        return Err(Refusal::field(format!("quota.{shown}"), "it is not a field of a quota")
            .hint(format!("the fields are {}", QUOTA.join(", "))));
    }
    let mut among_limits = Map::new();
    for field in QUOTA {
        among_limits.extend(limits.remove(field).map(|value| (field.to_owned(), value)));
    }
    let quota = quota(&given, "quota")?.tighter(quota(&among_limits, "limits")?);
    match map.get("capabilities") {
        None | Some(Value::Null | Value::Object(_) | Value::Array(_)) => {}
        Some(_) => return Err(Refusal::field("capabilities", "it is neither a map nor a list")),
    }
    let whole = match map.get("manifest") {
        Some(Value::String(text)) => Some(text.clone()),
        // JSON is YAML.
        Some(manifest @ Value::Object(map)) if !map.is_empty() => Some(manifest.to_string()),
        None | Some(Value::Null | Value::Object(_)) => None,
        Some(_) => return Err(Refusal::field("manifest", "it is neither a text nor an object")),
    };
    let says = |field: &str| map.get(field).is_some_and(|value| !value.is_null());
    let says = says("version") || says("capabilities") || !limits.is_empty() || quota != Quota::default();
    let is_whole = whole.is_some();
    let manifest = whole.or_else(|| says.then(|| external(uri, body, Some(limits))));
    Ok(Asked { manifest, quota, whole: is_whole })
}

fn object(map: &Map<String, Value>, field: &str) -> Result<Map<String, Value>, Refusal> {
    match map.get(field) {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(inner)) => Ok(inner.clone()),
        Some(_) => Err(Refusal::field(field, "it is not an object")),
    }
}

/// Reads the contract's quota.
///
/// # Errors
/// The field, and what it takes.
pub fn quota(map: &Map<String, Value>, place: &str) -> Result<Quota, Refusal> {
    let number = |field: &str, most: u64| match map.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64() {
            Some(n) if (1..=most).contains(&n) => Ok(Some(n)),
            _ => Err(Refusal::field(format!("{place}.{field}"), format!("it is no number of 1 to {most}"))),
        },
    };
    let usd_per_hour = match map.get("usd_per_hour") {
        None | Some(Value::Null) => None,
        Some(value) => match aion_syscall::usd_micros(value) {
            Some(micros @ 1..) => Some(Usd { micros }),
            _ => {
                let message = "it is no amount of 0.000001 to 1000000 US dollars";
                return Err(Refusal::field(format!("{place}.usd_per_hour"), message));
            }
        },
    };
    Ok(Quota {
        max_concurrency: number("max_concurrency", 1024)?,
        token_rate: number("token_rate", 1 << 53)?,
        usd_per_hour,
    })
}

/// The manifest of an agent that runs elsewhere, made of what else is given.
fn external(uri: &AgentUri, body: &Value, limits: Option<Map<String, Value>>) -> String {
    let mut metadata = Map::new();
    metadata.insert("name".to_owned(), json!(uri.name.as_str()));
    if let Some(version) = body.get("version").filter(|version| !version.is_null()) {
        metadata.insert("version".to_owned(), version.clone());
    }
    metadata.insert("labels".to_owned(), json!({EXTERNAL: "true"}));
    let mut spec = Map::new();
    // Here is nothing to start.
    spec.insert("entry".to_owned(), json!(["/bin/false"]));
    spec.insert("tasks".to_owned(), json!(false));
    spec.insert("syscalls".to_owned(), json!(["*"]));
    if let Some(capabilities) = body.get("capabilities").filter(|given| !given.is_null()) {
        spec.insert("capabilities".to_owned(), capabilities.clone());
    }
    if let Some(limits) = limits.filter(|limits| !limits.is_empty()) {
        spec.insert("resources".to_owned(), Value::Object(limits));
    }
    json!({"apiVersion": "aion.os/v1", "kind": "Agent", "metadata": metadata, "spec": spec}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri() -> AgentUri {
        AgentUri::parse("agent://t/a").unwrap()
    }

    #[test]
    fn quotas_stand_in_either_place_and_the_smaller_counts() {
        let body = json!({"limits": {"mem": "1Gi", "max_concurrency": 4, "usd_per_hour": 0.5},
            "quota": {"max_concurrency": 2, "token_rate": 1000}});
        let asked = asked(&uri(), &body).unwrap();
        let usd_per_hour = Some(Usd { micros: 500_000 });
        assert_eq!(asked.quota, Quota { max_concurrency: Some(2), token_rate: Some(1000), usd_per_hour });
        assert!(asked.manifest.unwrap().contains(r#""resources":{"mem":"1Gi"}"#));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, field) in [
            (json!({"quota": {"max_concurrency": 0}}), "quota.max_concurrency"),
            (json!({"quota": {"usd": 1}}), "quota.usd"),
            (json!({"quota": 5}), "quota"),
            (json!({"limits": {"token_rate": -1}}), "limits.token_rate"),
            (json!({"limits": {"usd_per_hour": 0}}), "limits.usd_per_hour"),
            (json!({"limits": []}), "limits"),
            (json!({"version": 1}), "version"),
            (json!({"capabilities": "network"}), "capabilities"),
            (json!({"manifest": [1]}), "manifest"),
            (json!({"manifets": "x"}), "manifets"),
        ] {
            let Err(refusal) = asked(&uri(), &body) else { panic!("{body} was taken") };
            assert_eq!((refusal.field.as_str(), refusal.code.as_str()), (field, "INVALID_FIELD"), "{body}");
        }
    }

    #[test]
    fn who_says_nothing_of_itself_asks_for_nothing() {
        let bare =
            json!({"agent_id": "agent://t/a", "name": "a", "manifest": null, "limits": {}, "quota": null});
        assert!(asked(&uri(), &bare).unwrap().manifest.is_none());
    }
}
