//! Who it is: a tenant's signature, or a bearer token that speaks for one agent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use aion_kernel::{Caller, Kernel};
use aion_syscall::{Reason, Refusal};
use aion_tenants::{AuthError, Signed, Standing, Tenant};
use aion_types::ErrorCode;
use axum::body::Body;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Request};

use crate::body::{Sender, read};

/// A request that was let in.
pub(crate) struct Admitted {
    pub(crate) caller: Caller,
    pub(crate) body: Bytes,
    pub(crate) parts: Parts,
}

/// Who is at the other end of a connection that needs no signature. No request brings that along: only [`crate::own_routes`] makes it.
#[derive(Debug, Clone)]
pub(crate) struct Known(pub(crate) Caller);

impl Admitted {
    /// The trace that the caller is in.
    pub(crate) fn trace(&self) -> Option<&str> {
        header(&self.parts.headers, "traceparent")
    }
}

/// The agent that `X-Agent-Id` names.
///
/// # Errors
/// It names none, or two; or it is the word of nobody: no signature is over it, and the tenant's requests carry a signature that is
/// over all that counts.
pub(crate) fn agent_header(admitted: &Admitted) -> Result<Option<&str>, Refusal> {
    const NAME: &str = "X-Agent-Id";
    if !admitted.parts.headers.contains_key(NAME) {
        return Ok(None);
    }
    if let Caller::Tenant(tenant) = &admitted.caller
        && tenant.settings.require_timestamp
    {
        let message = "no signature is over this header, and the tenant requires signatures that count once";
        return Err(Refusal::field(NAME, message).hint("name the agent in the body, as agent_id"));
    }
    match header(&admitted.parts.headers, NAME) {
        None | Some("") => Err(Refusal::field(NAME, "it names no agent").hint("name one, or leave it out")),
        named => Ok(named),
    }
}

pub(crate) fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A header that is there once, as text.
pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut all = headers.get_all(name).iter();
    let first = all.next()?;
    // Two of them: which one was meant is not for us to say.
    if all.next().is_some() { None } else { first.to_str().ok() }
}

/// Set once somebody was let in on a connection. The door gives one to each.
#[derive(Debug, Clone, Default)]
pub(crate) struct Acquainted(Arc<AtomicBool>);

impl Acquainted {
    fn sender(&self) -> Sender {
        Sender::of(self.0.load(Ordering::Relaxed))
    }

    fn is_good(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What of a request is signed.
fn signed_parts<'a>(parts: &'a Parts, body: &'a [u8]) -> Signed<'a> {
    let headers = &parts.headers;
    Signed {
        signature: header(headers, "x-sig-hmac"),
        timestamp: header(headers, "x-timestamp"),
        nonce: header(headers, "x-nonce"),
        method: parts.method.as_str(),
        path: parts.uri.path_and_query().map_or_else(|| parts.uri.path(), |path| path.as_str()),
        body,
    }
}

/// Looks whether a signature is good. What must be written to the disk for that is written elsewhere: others are served meanwhile.
pub(crate) async fn verified(
    kernel: &Kernel,
    claimed: Option<&str>,
    given: Signed<'_>,
    now_ns: u64,
) -> Result<Arc<Tenant>, AuthError> {
    let tenants = kernel.tenants();
    if !given.is_far_ahead(now_ns) {
        return tenants.verify(claimed, &given, now_ns);
    }
    let text = |text: Option<&str>| text.map(str::to_owned);
    let (tenants, claimed, body) = (tenants.clone(), text(claimed), given.body.to_vec());
    let (signature, timestamp, nonce) = (text(given.signature), text(given.timestamp), text(given.nonce));
    let (method, path) = (given.method.to_owned(), given.path.to_owned());
    let verified = tokio::task::spawn_blocking(move || {
        let given = Signed {
            signature: signature.as_deref(),
            timestamp: timestamp.as_deref(),
            nonce: nonce.as_deref(),
            method: &method,
            path: &path,
            body: &body,
        };
        tenants.verify(claimed.as_deref(), &given, now_ns)
    });
    verified.await.unwrap_or(Err(AuthError::NoRoom))
}

/// Lets a signed request in.
pub(crate) async fn signed(kernel: &Kernel, request: Request<Body>) -> Result<Admitted, Refusal> {
    let (mut parts, body) = request.into_parts();
    if let Some(Known(caller)) = parts.extensions.remove() {
        return known(kernel, caller, parts, body).await;
    }
    let claimed = header(&parts.headers, "x-tenant-id");
    let refused = |error| unauthenticated(kernel, claimed.unwrap_or_default(), error);
    // Who does not even try is not read, and a client that waits to be asked for its body is not asked.
    match (claimed, header(&parts.headers, "x-sig-hmac")) {
        (None, _) => return Err(refused(AuthError::NoTenant)),
        (_, None) => return Err(refused(AuthError::NoSignature)),
        _ => {}
    }
    let connection = parts.extensions.get::<Acquainted>().cloned().unwrap_or_default();
    let body = read(body, connection.sender()).await?;
    let now = now_ns();
    let tenant = verified(kernel, claimed, signed_parts(&parts, &body), now).await.map_err(refused)?;
    connection.is_good();
    within_rate(&tenant, now)?;
    Ok(Admitted { caller: Caller::Tenant(tenant), body, parts })
}

/// The tenant of local operators has no row, and cannot be revoked.
const LOCAL_TENANT: &str = "default";

/// Whether who was let in still would be: asked again and again by what goes on after its request.
#[derive(Debug, Clone)]
pub(crate) enum Stands {
    Always,
    With(Standing),
}

impl Stands {
    /// # Errors
    /// It does not any more.
    pub(crate) fn of(kernel: &Kernel, admitted: &Admitted) -> Result<Self, Refusal> {
        let tenants = kernel.tenants();
        let standing = match &admitted.caller {
            Caller::Tenant(tenant) => {
                tenants.standing(tenant, &signed_parts(&admitted.parts, &admitted.body), now_ns())
            }
            caller if caller.tenant().as_str() == LOCAL_TENANT => return Ok(Self::Always),
            caller => tenants.standing_of(caller.tenant()),
        };
        standing.map(Self::With).ok_or_else(Self::over)
    }

    pub(crate) fn hold(&self, kernel: &Kernel) -> bool {
        match self {
            Self::Always => true,
            Self::With(standing) => kernel.tenants().holds(standing, now_ns()),
        }
    }

    /// How it is told.
    pub(crate) fn over() -> Refusal {
        let message = "the tenant was revoked, or its secret that this was signed with has ended";
        Refusal::new(Reason::Unauthenticated, ErrorCode::Unauthenticated, message).by("door: ended")
    }
}

/// Lets a request with a bearer token in.
pub(crate) async fn bearer(kernel: &Kernel, request: Request<Body>) -> Result<Admitted, Refusal> {
    let (mut parts, body) = request.into_parts();
    if let Some(Known(caller)) = parts.extensions.remove() {
        return known(kernel, caller, parts, body).await;
    }
    let now = now_ns();
    let token = header(&parts.headers, "authorization")
        .and_then(|text| text.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map_or("", |(_, token)| token.trim());
    let verified = kernel.tenants().verify_bearer(token, now);
    let (tenant, name) = verified.map_err(|error| {
        let mut refusal = unauthenticated(kernel, "", error);
        if error != AuthError::TooMany {
            // These clients sign nothing.
            "the API key is no token of this kernel, or its secret has ended"
                .clone_into(&mut refusal.message);
        }
        refusal.hint("use a token of `aionctl tenant token TENANT AGENT` as the API key")
    })?;
    within_rate(&tenant, now)?;
    let body = read(body, Sender::Known).await?;
    let caller = Caller::Agent { tenant: tenant.name.clone(), name, task: None };
    Ok(Admitted { caller, body, parts })
}

async fn known(kernel: &Kernel, caller: Caller, parts: Parts, body: Body) -> Result<Admitted, Refusal> {
    // The tenant of local operators has no row, and no rate.
    if let Some(tenant) = kernel.tenants().get(caller.tenant()) {
        within_rate(&tenant, now_ns())?;
    }
    Ok(Admitted { caller, body: read(body, Sender::Known).await?, parts })
}

pub(crate) fn within_rate(tenant: &Tenant, now_ns: u64) -> Result<(), Refusal> {
    tenant.take_rate(now_ns / 1_000_000).map_err(|ms| {
        let message = format!("tenant {} makes more calls than its rate allows", tenant.name);
        Refusal::new(Reason::Exhausted, ErrorCode::ResourceExhausted, message)
            .by(format!("tenant {}: rate_per_second", tenant.name))
            .retry_after(ms)
    })
}

pub(crate) fn unauthenticated(kernel: &Kernel, claimed: &str, error: AuthError) -> Refusal {
    let (word, reason) = match error {
        AuthError::NoTenant => ("no_tenant", Reason::Unauthenticated),
        AuthError::NoSignature => ("no_signature", Reason::Unauthenticated),
        AuthError::Mismatch => ("mismatch", Reason::Unauthenticated),
        AuthError::TimeRequired => ("time_required", Reason::Unauthenticated),
        AuthError::BadTime => ("bad_time", Reason::Unauthenticated),
        AuthError::Skew => ("skew", Reason::Unauthenticated),
        AuthError::BeforeStart => ("before_start", Reason::Unauthenticated),
        AuthError::Replayed => ("replayed", Reason::Unauthenticated),
        AuthError::NoRoom => ("no_room", Reason::Exhausted),
        AuthError::Certificate => ("certificate", Reason::Unauthenticated),
        AuthError::TooMany => ("too_many", Reason::Exhausted),
    };
    kernel.turned_away(claimed, word);
    let refusal =
        Refusal::new(reason, ErrorCode::Unauthenticated, error.to_string()).by(format!("door: {word}"));
    if reason == Reason::Exhausted { refusal.retry_after(1000) } else { refusal }
}
