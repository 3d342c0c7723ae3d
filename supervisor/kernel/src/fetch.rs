//! `net.fetch` and `secret.use`: requests of agents to other hosts, each hop decided as the call was.
//!
//! A host must be granted by a capability, to the agent. An address that is not of the public Internet must be named, as an address,
//! by a rule of the operator's: a name in a rule opens none, for whoever holds the name's zone decides what it stands for.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aion_fetch::{
    Error, Failure, Fetcher, Gate, HeaderMap, Request as FetchRequest, Special, SpecialKind, Target,
};
use aion_manifest::{
    ApprovalRule, Capability, CapabilityPolicy, HostPattern, PortPattern, Rule, parse_capabilities,
};
use aion_syscall::{Decision, Layer, Need, Reason, Refusal, Request, Step};
use aion_types::{ErrorCode, TenantId};
use serde_json::{Map, Value};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::approvals::touches;
use crate::kernel::{Call, Kernel};
use crate::redact::Redactor;
use crate::secrets::{OpenSecret, Secrets, not_found};

/// Requests of one tenant at once: each may hold megabytes.
const AT_ONCE: usize = 32;
/// Letters of a URL in the records.
const SHOWN: usize = 200;
/// The request's own time is over before the call's, so that the answer says which it was.
const MARGIN: Duration = Duration::from_secs(1);

/// A call that is understood.
pub(crate) struct Fetch {
    request: FetchRequest,
    /// The name of a secret that goes along.
    secret: Option<String>,
}

impl Fetch {
    /// Of `net.fetch`: the request's fields.
    pub(crate) fn plain(request: &Request) -> Result<Self, Refusal> {
        Ok(Self { request: read(&request.params, "params")?, secret: None })
    }

    /// Of `secret.use`: `{secret, request}`.
    pub(crate) fn with_secret(request: &Request) -> Result<Self, Refusal> {
        let params = &request.params;
        if let Some(unknown) = params.keys().find(|key| !["secret", "request"].contains(&key.as_str())) {
            let shown: String = unknown.chars().take(80).collect();
            return Err(Refusal::field(format!("params.{shown}"), "it is not a field: secret, request"));
        }
        let secret = match params.get("secret") {
            Some(Value::String(name)) => name.clone(),
            Some(_) => return Err(Refusal::field("params.secret", "it is not a text")),
            None => return Err(Refusal::field("params.secret", "it is missing: which secret is it?")),
        };
        let request = match params.get("request") {
            Some(Value::Object(request)) => whole(read(request, "params.request")?)?,
            Some(_) => return Err(Refusal::field("params.request", "it is not an object")),
            None => return Err(Refusal::field("params.request", "it is missing: what is asked?")),
        };
        Ok(Self { request, secret: Some(secret) })
    }

    /// What must be granted for the first hop.
    pub(crate) fn needs(&self) -> Result<Vec<Need>, Refusal> {
        let mut needs = Vec::new();
        if let Some(name) = &self.secret {
            let capabilities = parse_capabilities(&format!("secret:use:{name}"))
                .map_err(|message| Refusal::field("params.secret", message))?;
            needs.extend(capabilities.into_iter().map(|capability| Need { capability, word: String::new() }));
        }
        needs.push(need(&self.request.target));
        Ok(needs)
    }

    /// What it is about, for the records; without the query, which is more often secret than not.
    pub(crate) fn target(&self) -> String {
        let mut url = self.request.target.url().clone();
        url.set_query(None);
        let secret = self.secret.as_ref().map_or(String::new(), |name| format!("{name}: "));
        format!("{secret}{} {url}", self.request.method).chars().take(SHOWN).collect()
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.request.timeout + MARGIN
    }
}

/// What the kernel looks for secrets in must come whole and plain: who asks for a part, or has it packed, has a secret by the letter.
fn whole(request: FetchRequest) -> Result<FetchRequest, Refusal> {
    const PARTS: [&str; 3] = ["range", "if-range", "accept-encoding"];
    match PARTS.into_iter().find(|name| request.headers.contains_key(*name)) {
        Some(name) => {
            let message = format!("{name} is not the caller's to set beside a secret: leave it out");
            Err(Refusal::field(format!("params.request.headers.{name}"), message))
        }
        None => Ok(request),
    }
}

fn read(params: &Map<String, Value>, at: &str) -> Result<FetchRequest, Refusal> {
    FetchRequest::from_params(params).map_err(|failure| refusal(failure, at))
}

fn refusal(failure: Failure, at: &str) -> Refusal {
    let message = failure.to_string();
    match failure {
        Failure::Invalid { field, .. } => Refusal::field(format!("{at}.{field}"), message),
        Failure::TooLarge { field, .. } => {
            Refusal::new(Reason::TooLarge, ErrorCode::TooLarge, message).at(format!("{at}.{field}"))
        }
        Failure::Timeout { .. } => {
            Refusal::new(Reason::Timeout, ErrorCode::DeadlineExceeded, message).at(format!("{at}.timeout_ms"))
        }
        Failure::Resolve { .. }
        | Failure::Connect { .. }
        | Failure::Tls { .. }
        | Failure::Http { .. }
        | Failure::Redirect { .. } => Refusal::new(Reason::Failed, ErrorCode::FetchFailed, message),
    }
}

fn need(target: &Target) -> Need {
    let (host, port) = (HostPattern::One(target.host().to_owned()), PortPattern::One(target.port()));
    Need { capability: Capability::Net { host, port }, word: String::new() }
}

/// Makes the requests, and counts them.
pub(crate) struct Fetches {
    fetcher: Fetcher,
    under_way: Mutex<HashMap<TenantId, Arc<Semaphore>>>,
}

impl Fetches {
    pub(crate) fn open() -> Result<Self, Refusal> {
        let fetcher = Fetcher::new()
            .map_err(|error| Refusal::new(Reason::Internal, ErrorCode::Internal, error.to_string()))?;
        Ok(Self { fetcher, under_way: Mutex::default() })
    }

    fn enter(&self, tenant: &TenantId) -> Result<OwnedSemaphorePermit, Refusal> {
        let mut all = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let places = all.entry(tenant.clone()).or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE)));
        Arc::clone(places).try_acquire_owned().map_err(|_| {
            let message = format!("{AT_ONCE} requests of tenant {tenant} are under way, that is the limit");
            Refusal::new(Reason::Exhausted, ErrorCode::ResourceExhausted, message)
                .by("net.fetch: requests at once")
                .retry_after(1000)
        })
    }

    /// Does it: the answer as JSON, without secrets in its body.
    pub(crate) async fn run(
        &self,
        fetch: Fetch,
        tenant: &TenantId,
        secrets: &Secrets,
        rules: Rules<'_>,
    ) -> Result<Value, Refusal> {
        let secret = match &fetch.secret {
            Some(name) => Some(secrets.find(tenant, name).ok_or_else(|| not_found(name))?),
            None => None,
        };
        let at = if secret.is_some() { "params.request" } else { "params" };
        let _place = self.enter(tenant)?;
        let door = Door { secret, rules };
        let fetched = self.fetcher.fetch(fetch.request, &door).await;
        // As it was when the request was made: the secret may be another by now.
        let redactor = &door.rules.redactor;
        let mut answer = match fetched {
            Ok(answer) => answer,
            Err(error) => {
                let mut refusal = match error {
                    Error::Denied(denied) if denied.field.is_empty() => denied.at(format!("{at}.url")),
                    Error::Denied(denied) => denied,
                    Error::Failed(failure) => refusal(failure, at),
                };
                redactor.refusal(&mut refusal);
                return Err(refusal);
            }
        };
        let packed = answer.headers.get("content-encoding").filter(|how| how.as_bytes() != b"identity");
        if door.secret.is_some() && packed.is_some() {
            let message = "the host answers packed (Content-Encoding), although it was asked not to: no secret can be kept out of that";
            return Err(Refusal::new(Reason::Failed, ErrorCode::FetchFailed, message));
        }
        // Before it may become base64 as a whole.
        if answer.truncated {
            redactor.cut(&mut answer.body);
        } else if let Cow::Owned(clean) = redactor.bytes(&answer.body) {
            answer.body = clean;
        }
        let mut value = answer.into_json();
        redactor.value(&mut value);
        Ok(value)
    }
}

impl Kernel {
    /// Does a planned request.
    pub(crate) async fn fetch(&self, call: &Call, fetch: Fetch) -> Result<Value, Refusal> {
        let grants = match &call.agent {
            Some(uri) => Some(self.0.grants.of(self.0.host.as_ref(), uri)?),
            None => None,
        };
        let tenant = self.0.tenants.get(call.caller.tenant());
        let policy = self.0.grants.policy();
        let rules = Rules {
            decide: &|needs| self.decide(call, grants.as_deref(), needs),
            operator: [policy.as_deref(), tenant.as_ref().and_then(|tenant| tenant.policy.as_ref())],
            deny: grants.as_deref().map_or(&[], |grants| &grants.spec.deny),
            approval: policy
                .as_deref()
                .filter(|_| call.agent.is_some())
                .map_or(&[], CapabilityPolicy::approval),
            offline: self.0.offline,
            redactor: self.redactor(call.caller.tenant()),
            steps: &call.later,
        };
        self.0.fetches.run(fetch, call.caller.tenant(), &self.0.secrets, rules).await
    }
}

/// What hops are decided by.
pub(crate) struct Rules<'a> {
    /// The call's own decision, with other needs.
    pub(crate) decide: &'a (dyn Fn(&[Need]) -> Decision + Send + Sync),
    /// The operator's: the global ones, and the tenant's.
    pub(crate) operator: [Option<&'a CapabilityPolicy>; 2],
    /// What the agent's manifest takes back.
    pub(crate) deny: &'a [Rule],
    /// What a person must agree to; they have seen the first hop.
    pub(crate) approval: &'a [ApprovalRule],
    /// No public host is asked.
    pub(crate) offline: bool,
    pub(crate) redactor: Arc<Redactor>,
    /// How hops were decided, for whoever wants it explained.
    pub(crate) steps: &'a Mutex<Vec<Step>>,
}

struct Door<'a> {
    secret: Option<Arc<OpenSecret>>,
    rules: Rules<'a>,
}

impl Door<'_> {
    fn note(&self, steps: impl IntoIterator<Item = Step>) {
        self.rules.steps.lock().unwrap_or_else(PoisonError::into_inner).extend(steps);
    }

    fn denied(&self, about: String, message: String, rule: String) -> Refusal {
        self.note([Step { layer: Layer::Global, about, allowed: false, rule: rule.clone() }]);
        Refusal::denied(message, rule)
    }

    /// A secret goes over https; without it to this host alone.
    fn in_the_clear(&self, target: &Target, special: Option<Special>) -> Result<(), Refusal> {
        let goes = self.secret.as_ref().filter(|secret| secret.is_for(target));
        match goes {
            Some(secret) if !target.is_https() && special != Some(Special::Of(SpecialKind::Loopback)) => {
                let place = target.place();
                let message = format!("secret {} goes to {place} over https only", secret.config.name);
                Err(self.denied(place, message, "kernel: secrets go over https".to_owned()))
            }
            _ => Ok(()),
        }
    }

    fn operator_rules(&self) -> impl Iterator<Item = &CapabilityPolicy> {
        self.rules.operator.iter().copied().flatten()
    }
}

/// A rule about one address, or one host.
const fn names_one(capability: &Capability) -> bool {
    matches!(capability, Capability::Net { host: HostPattern::One(_), .. })
}

impl Gate for Door<'_> {
    type Denial = Refusal;

    fn host(&self, target: &Target, hop: usize) -> Result<HeaderMap, Refusal> {
        // The call itself was decided so before it came here.
        if hop > 0 {
            let decision = (self.rules.decide)(&[need(target)]);
            let refusal = decision.refusal();
            self.note(decision.steps);
            if let Some(refusal) = refusal {
                return Err(refusal);
            }
            let need = need(target);
            if let Some(rule) = self.rules.approval.iter().find(|rule| touches(rule, &need)) {
                let place = target.place();
                let message = format!("a redirect to {place}, which a person must agree to, is not followed");
                return Err(self
                    .denied(place, message, rule.to_string())
                    .hint("ask for that URL itself: then a person is asked"));
            }
        }
        let Some(secret) = &self.secret else { return Ok(HeaderMap::new()) };
        let name = &secret.config.name;
        if secret.is_for(target) {
            return secret.headers();
        }
        let rule = format!("secret {name}: its hosts are {}", secret.config.hosts.join(", "));
        let about = target.place();
        if hop == 0 {
            let message = format!("secret {name} is not for {about}");
            return Err(self
                .denied(about, message, rule)
                .hint("an operator names its hosts: aionctl secret add --host"));
        }
        // It stays behind; unless the host before has put it into the URL.
        if self.rules.redactor.finds(target.url().as_str()) {
            let message = format!("a redirect would take secret {name} to {about}");
            return Err(self.denied(about, message, rule));
        }
        Ok(HeaderMap::new())
    }

    fn address(&self, target: &Target, address: IpAddr, special: Option<Special>) -> Result<(), Refusal> {
        self.in_the_clear(target, special)?;
        let host = match address {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => format!("[{v6}]"),
        };
        let capability =
            Capability::Net { host: HostPattern::One(host), port: PortPattern::One(target.port()) };
        let about = || format!("{capability}, of {}", target.place());
        // Names were decided before; a block is denied whatever name leads into it.
        let of_addresses = |rule: &Rule| {
            names_one(&rule.capability)
                || matches!(rule.capability, Capability::Net { host: HostPattern::Block(_), .. })
        };
        let denies = |rule: &&Rule| of_addresses(rule) && rule.capability.denies(&capability).is_some();
        let mut denials = self.operator_rules().flat_map(CapabilityPolicy::deny).chain(self.rules.deny);
        if let Some(rule) = denials.find(denies) {
            let message = format!("{} has an address that is denied", target.place());
            return Err(self.denied(about(), message, rule.to_string()));
        }
        let Some(special) = special else {
            if self.rules.offline {
                let message = format!("{} is not of this host or its networks", target.place());
                return Err(self.denied(about(), message, "OFFLINE_MODE=true".to_owned()));
            }
            return Ok(());
        };
        let opens = |rule: &&Rule| names_one(&rule.capability) && rule.capability.covers(&capability);
        let opened = self.operator_rules().flat_map(CapabilityPolicy::allow).find(opens);
        match opened.filter(|_| special.is_a_place()) {
            None => {
                let message = format!("{} has {}", target.place(), special.as_str());
                let rule = "kernel: only rules that name an address open one that is not public".to_owned();
                Err(self.denied(about(), message, rule).hint(
                    "an operator may allow net:connect:ADDRESS:PORT in policies/agent.capabilities.yaml, or to the tenant",
                ))
            }
            Some(rule) => {
                self.note([Step {
                    layer: Layer::Global,
                    about: about(),
                    allowed: true,
                    rule: rule.to_string(),
                }]);
                Ok(())
            }
        }
    }
}
