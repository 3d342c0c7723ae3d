//! Answers: the contract's JSON, with a number for those who look at it.

use aion_kernel::Outcome;
use aion_syscall::{ErrorBody, Reason, Refusal, Status};
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};

/// The number for a refusal. What a tool or a model did wrong is none of 5xx: clients repeat those, and the call may have had
/// an effect.
pub(crate) const fn number(reason: Reason) -> StatusCode {
    match reason {
        Reason::Unauthenticated => StatusCode::UNAUTHORIZED,
        Reason::Denied => StatusCode::FORBIDDEN,
        Reason::Invalid => StatusCode::BAD_REQUEST,
        Reason::NotFound => StatusCode::NOT_FOUND,
        Reason::Conflict => StatusCode::CONFLICT,
        Reason::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Reason::Exhausted => StatusCode::TOO_MANY_REQUESTS,
        Reason::Timeout => StatusCode::GATEWAY_TIMEOUT,
        Reason::Failed => StatusCode::FAILED_DEPENDENCY,
        Reason::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Reason::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// JSON with a number.
pub(crate) fn json_reply<T: Serialize>(status: StatusCode, value: &T) -> Response {
    let (status, body) = match serde_json::to_vec(value) {
        Ok(body) => (status, body),
        Err(error) => {
            tracing::error!(%error, "an answer cannot be written as JSON");
            (StatusCode::INTERNAL_SERVER_ERROR, b"{}".to_vec())
        }
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Text with a type.
pub(crate) fn text(kind: &'static str, body: String) -> Response {
    ([(CONTENT_TYPE, kind)], body).into_response()
}

fn with_retry(mut response: Response, refusal: Option<&Refusal>) -> Response {
    if let Some(ms) = refusal.and_then(|refusal| refusal.retry_after_ms) {
        let seconds = ms.div_ceil(1000).max(1);
        if let Ok(value) = HeaderValue::from_str(&seconds.to_string()) {
            response.headers_mut().insert(RETRY_AFTER, value);
        }
    }
    response
}

/// The answer to a system call.
pub(crate) fn outcome(outcome: &Outcome) -> Response {
    let status = outcome.refusal.as_ref().map_or(StatusCode::OK, |refusal| number(refusal.reason));
    with_retry(json_reply(status, &outcome.answer), outcome.refusal.as_ref())
}

/// The answer of the other calls: `{status, result}`.
pub(crate) fn result(result: Result<Value, Refusal>) -> Response {
    match result {
        Ok(result) => json_reply(StatusCode::OK, &json!({"status": Status::Ok, "result": result})),
        Err(refusal) => refused(&refusal),
    }
}

/// A refusal by itself.
pub(crate) fn refused(refusal: &Refusal) -> Response {
    let body = json!({"status": refusal.status(), "result": Value::Null, "error": ErrorBody::from(refusal)});
    with_retry(json_reply(number(refusal.reason), &body), Some(refusal))
}
