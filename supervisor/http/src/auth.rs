//! Who it is: a tenant's signature, or a bearer token that speaks for one agent.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aion_kernel::{Caller, Kernel};
use aion_syscall::{MAX_BODY, Reason, Refusal};
use aion_tenants::{AuthError, Signed, Tenant};
use aion_types::ErrorCode;
use axum::body::Body;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Body as _;
use tokio::sync::Semaphore;

/// A body takes no longer to come.
const BODY_TIME: Duration = Duration::from_secs(30);

/// A request that was let in.
pub(crate) struct Admitted {
    pub(crate) caller: Caller,
    pub(crate) body: Bytes,
    pub(crate) parts: Parts,
}

pub(crate) fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A header that is there once, as text.
fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut all = headers.get_all(name).iter();
    let first = all.next()?;
    // Two of them: which one was meant is not for us to say.
    if all.next().is_some() { None } else { first.to_str().ok() }
}

/// A body that says that it has no more needs no place.
const SMALL: u64 = 64 << 10;
/// Bodies that are larger, or do not say how large they are, and are under way at once: each can be of `MAX_BODY`.
const LARGE_AT_ONCE: usize = 16;
static LARGE: Semaphore = Semaphore::const_new(LARGE_AT_ONCE);
/// A place for a large body is waited for so long.
const PLACE_TIME: Duration = Duration::from_secs(5);

/// Reads the body: bounded in bytes and in time, alone and all together.
pub(crate) async fn read(body: Body) -> Result<Bytes, Refusal> {
    let is_small = body.size_hint().upper().is_some_and(|upper| upper <= SMALL);
    let _place = match is_small {
        true => None,
        false => match tokio::time::timeout(PLACE_TIME, LARGE.acquire()).await {
            Ok(Ok(place)) => Some(place),
            _ => {
                let message = "too many large bodies are under way";
                return Err(
                    Refusal::new(Reason::Exhausted, ErrorCode::ResourceExhausted, message).retry_after(1000)
                );
            }
        },
    };
    match tokio::time::timeout(BODY_TIME, Limited::new(body, MAX_BODY).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            let message = format!("the body has more than {MAX_BODY} bytes");
            Err(Refusal::new(Reason::TooLarge, ErrorCode::TooLarge, message).at("body"))
        }
        Ok(Err(_)) => Err(Refusal::field("body", "it did not come to its end")),
        Err(_) => {
            let message = format!("the body did not come within {} s", BODY_TIME.as_secs());
            Err(Refusal::new(Reason::Invalid, ErrorCode::DeadlineExceeded, message).at("body"))
        }
    }
}

/// Lets a signed request in.
pub(crate) async fn signed(kernel: &Kernel, request: Request<Body>) -> Result<Admitted, Refusal> {
    let (parts, body) = request.into_parts();
    let body = read(body).await?;
    let path = parts.uri.path_and_query().map_or_else(|| parts.uri.path(), |path| path.as_str());
    let headers = &parts.headers;
    let given = Signed {
        signature: header(headers, "x-sig-hmac"),
        timestamp: header(headers, "x-timestamp"),
        nonce: header(headers, "x-nonce"),
        method: parts.method.as_str(),
        path,
        body: &body,
    };
    let now = now_ns();
    let tenant = kernel.tenants().verify(header(headers, "x-tenant-id"), &given, now).map_err(|error| {
        unauthenticated(kernel, header(headers, "x-tenant-id").unwrap_or_default(), error)
    })?;
    within_rate(&tenant, now)?;
    Ok(Admitted { caller: Caller::Tenant(tenant), body, parts })
}

/// Lets a request with a bearer token in.
pub(crate) async fn bearer(kernel: &Kernel, request: Request<Body>) -> Result<Admitted, Refusal> {
    let (parts, body) = request.into_parts();
    let now = now_ns();
    let token = header(&parts.headers, "authorization")
        .and_then(|text| text.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map_or("", |(_, token)| token.trim());
    let verified = kernel.tenants().verify_bearer(token, now);
    let (tenant, name) = verified.map_err(|error| {
        unauthenticated(kernel, "", error)
            .hint("use a token of `aionctl tenant token TENANT AGENT` as the API key")
    })?;
    within_rate(&tenant, now)?;
    let body = read(body).await?;
    Ok(Admitted { caller: Caller::Agent { tenant: tenant.name.clone(), name }, body, parts })
}

fn within_rate(tenant: &Tenant, now_ns: u64) -> Result<(), Refusal> {
    tenant.take_rate(now_ns / 1_000_000).map_err(|ms| {
        let message = format!("tenant {} makes more calls than its rate allows", tenant.name);
        Refusal::new(Reason::Exhausted, ErrorCode::ResourceExhausted, message)
            .by(format!("tenant {}: rate_per_second", tenant.name))
            .retry_after(ms)
    })
}

fn unauthenticated(kernel: &Kernel, claimed: &str, error: AuthError) -> Refusal {
    let (word, reason) = match error {
        AuthError::NoTenant => ("no_tenant", Reason::Unauthenticated),
        AuthError::NoSignature => ("no_signature", Reason::Unauthenticated),
        AuthError::Mismatch => ("mismatch", Reason::Unauthenticated),
        AuthError::TimeRequired => ("time_required", Reason::Unauthenticated),
        AuthError::BadTime => ("bad_time", Reason::Unauthenticated),
        AuthError::Skew => ("skew", Reason::Unauthenticated),
        AuthError::Replayed => ("replayed", Reason::Unauthenticated),
        AuthError::TooMany => ("too_many", Reason::Exhausted),
    };
    kernel.turned_away(claimed, word);
    let refusal =
        Refusal::new(reason, ErrorCode::Unauthenticated, error.to_string()).by(format!("door: {word}"));
    if reason == Reason::Exhausted { refusal.retry_after(1000) } else { refusal }
}
