//! Who it is: a tenant's signature, or a bearer token that speaks for one agent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aion_kernel::{Caller, Kernel};
use aion_syscall::{MAX_BODY, Reason, Refusal};
use aion_tenants::{AuthError, Signed, Standing, Tenant};
use aion_types::ErrorCode;
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Body as _;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// A body takes no longer to come.
const BODY_TIME: Duration = Duration::from_secs(30);

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

/// Up to here a body needs no place.
const SMALL: usize = 64 << 10;
/// Bodies that have come to be larger and are under way at once: each can be of [`MAX_BODY`].
const LARGE_AT_ONCE: usize = 8;

/// Who sends a body, as far as that is known before it is read. A signature is over the body, so that anybody can begin one: those
/// who have shown who they are have places of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sender {
    Known,
    Stranger,
}

impl Sender {
    pub(crate) fn of(connection_is_known: bool) -> Self {
        if connection_is_known { Self::Known } else { Self::Stranger }
    }

    /// Who has a place sends at this rate, in bytes a millisecond, or loses it. Strangers keep their places for seconds alone; one that
    /// is slow begins with a small call.
    const fn rate(self) -> usize {
        match self {
            // The largest body needs five times as much to come in time.
            Self::Known => 32,
            Self::Stranger => 1024,
        }
    }

    /// It may be behind by so much, and silent no longer.
    const fn behind(self) -> Duration {
        match self {
            Self::Known => Duration::from_secs(3),
            Self::Stranger => Duration::from_secs(1),
        }
    }

    fn places(self) -> &'static Semaphore {
        static KNOWN: Semaphore = Semaphore::const_new(LARGE_AT_ONCE);
        static STRANGERS: Semaphore = Semaphore::const_new(LARGE_AT_ONCE);
        match self {
            Self::Known => &KNOWN,
            Self::Stranger => &STRANGERS,
        }
    }
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

/// A place for a large body is waited for so long.
const PLACE_TIME: Duration = Duration::from_secs(10);

/// Reads the body: bounded in bytes and in time, alone and all together.
async fn read(body: Body, sender: Sender) -> Result<Bytes, Refusal> {
    read_up_to(body, MAX_BODY, sender).await
}

/// As [`read`], up to so many bytes.
pub(crate) async fn read_up_to(body: Body, most: usize, sender: Sender) -> Result<Bytes, Refusal> {
    tokio::time::timeout(BODY_TIME, collect(body, most, sender)).await.unwrap_or_else(|_| {
        let message = format!("the body did not come within {} s", BODY_TIME.as_secs());
        Err(Refusal::new(Reason::Invalid, ErrorCode::DeadlineExceeded, message).at("body"))
    })
}

async fn collect(body: Body, most: usize, sender: Sender) -> Result<Bytes, Refusal> {
    let too_large = || {
        let message = format!("the body has more than {most} bytes");
        Refusal::new(Reason::TooLarge, ErrorCode::TooLarge, message).at("body")
    };
    // What says that it is too large need not come.
    if body.size_hint().lower() > most as u64 {
        return Err(too_large());
    }
    let mut body = Limited::new(body, most);
    let (mut bytes, mut place) = (BytesMut::new(), None::<(SemaphorePermit<'_>, Instant)>);
    loop {
        let next = match &place {
            None => body.frame().await,
            Some((_, since)) => {
                let on_time = *since + Duration::from_millis((bytes.len() / sender.rate()) as u64);
                let due = on_time.min(Instant::now()) + sender.behind();
                tokio::time::timeout_at(due, body.frame()).await.map_err(|_| {
                    let message = "the body comes too slowly for others that wait for its place";
                    Refusal::new(Reason::Invalid, ErrorCode::DeadlineExceeded, message).at("body")
                })?
            }
        };
        let Some(frame) = next else { return Ok(bytes.freeze()) };
        let frame = frame.map_err(|error| match error.is::<http_body_util::LengthLimitError>() {
            true => too_large(),
            false => Refusal::field("body", "it did not come to its end"),
        })?;
        let Ok(data) = frame.into_data() else { continue };
        // Not before: who says much and sends nothing holds no place.
        if place.is_none() && bytes.len() + data.len() > SMALL {
            let waited = tokio::time::timeout(PLACE_TIME, sender.places().acquire()).await;
            let taken = waited.ok().and_then(Result::ok).ok_or_else(|| {
                let message = "too many large bodies are under way";
                Refusal::new(Reason::Exhausted, ErrorCode::ResourceExhausted, message).retry_after(1000)
            })?;
            place = Some((taken, Instant::now()));
        }
        bytes.extend_from_slice(&data);
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

#[cfg(test)]
mod tests {
    use futures::{StreamExt as _, stream};

    use super::*;

    #[tokio::test]
    async fn strangers_with_large_bodies_hold_no_place_of_those_who_are_known() {
        let large = Bytes::from(vec![b'x'; 2 * SMALL]);
        let endless = || {
            let begun = stream::iter([Ok::<_, std::io::Error>(large.clone())]);
            Body::from_stream(begun.chain(stream::pending()))
        };
        let strangers: Vec<_> =
            (0..LARGE_AT_ONCE).map(|_| tokio::spawn(read(endless(), Sender::Stranger))).collect();
        while Sender::Stranger.places().available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let known = read(Body::from(large.clone()), Sender::Known).await.unwrap();
        assert_eq!(known.len(), large.len());
        assert_eq!(Sender::Stranger.places().available_permits(), 0, "they are still at it");
        strangers.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
