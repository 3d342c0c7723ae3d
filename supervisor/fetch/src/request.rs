//! A request as a caller gives it: everything bounded, and nothing in it that frames, routes or keeps a connection.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, header};
use serde_json::{Map, Value};

use crate::error::Failure;
use crate::target::Target;

/// Bytes of a request's body.
pub const MAX_BODY: usize = 2 << 20;
/// Bytes of an answer's body, when nothing is said; and at most.
pub const DEFAULT_BYTES: usize = 1 << 20;
/// See [`DEFAULT_BYTES`].
pub const MAX_BYTES: usize = 4 << 20;
/// How long a request takes at most, when nothing is said; and at most. Milliseconds.
const DEFAULT_MS: u64 = 30_000;
const MAX_MS: u64 = 300_000;
const DEFAULT_REDIRECTS: u64 = 5;
const MAX_REDIRECTS: u64 = 10;
const MAX_HEADERS: usize = 64;
const MAX_HEADER_BYTES: usize = 16 << 10;

const KNOWN: [&str; 8] =
    ["method", "url", "headers", "body", "encoding", "timeout_ms", "max_bytes", "redirects"];
const METHODS: [Method; 7] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];

/// A request that may be made, if the rules let it.
#[derive(Debug, Clone)]
pub struct Request {
    /// Where it goes.
    pub target: Target,
    /// What is asked.
    pub method: Method,
    /// The caller's own headers.
    pub headers: HeaderMap,
    /// What is sent.
    pub body: Bytes,
    /// How long all of it may take.
    pub timeout: Duration,
    /// Bytes of the answer's body that are read.
    pub max_bytes: usize,
    /// How many redirects are followed.
    pub redirects: usize,
}

impl Request {
    /// Reads `{method, url, headers, body, encoding, timeout_ms, max_bytes, redirects}`.
    ///
    /// # Errors
    /// [`Failure`] with the field.
    pub fn from_params(params: &Map<String, Value>) -> Result<Self, Failure> {
        if let Some(unknown) = params.keys().find(|key| !KNOWN.contains(&key.as_str())) {
            let shown: String = unknown.chars().take(80).collect();
            let message = format!("it is not a field of a request: {}", KNOWN.join(", "));
            return Err(Failure::field(shown, message));
        }
        let url = match text(params, "url")? {
            Some(url) => url,
            None => return Err(Failure::field("url", "it is missing: where does it go?")),
        };
        let target = Target::parse(url, "url")?;
        let method = match text(params, "method")? {
            None => Method::GET,
            Some(name) => METHODS
                .into_iter()
                .find(|method| method.as_str().eq_ignore_ascii_case(name))
                .ok_or_else(|| {
                    Failure::field(
                        "method",
                        format!("use one of {}", METHODS.map(|m| m.to_string()).join(", ")),
                    )
                })?,
        };
        let headers = headers(params.get("headers"))?;
        let body = body(params)?;
        if !body.is_empty() && (method == Method::GET || method == Method::HEAD) {
            return Err(Failure::field("body", format!("{method} has none")));
        }
        let max_bytes = number(params, "max_bytes", DEFAULT_BYTES as u64, 0, MAX_BYTES as u64)?;
        let redirects = number(params, "redirects", DEFAULT_REDIRECTS, 0, MAX_REDIRECTS)?;
        Ok(Self {
            target,
            method,
            headers,
            body,
            timeout: Duration::from_millis(number(params, "timeout_ms", DEFAULT_MS, 1, MAX_MS)?),
            max_bytes: usize::try_from(max_bytes).unwrap_or(DEFAULT_BYTES),
            redirects: usize::try_from(redirects).unwrap_or(0),
        })
    }
}

fn text<'a>(params: &'a Map<String, Value>, field: &str) -> Result<Option<&'a str>, Failure> {
    match params.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Failure::field(field, "it is not a text")),
    }
}

fn number(
    params: &Map<String, Value>,
    field: &str,
    default: u64,
    min: u64,
    max: u64,
) -> Result<u64, Failure> {
    match params.get(field) {
        None | Some(Value::Null) => Ok(default),
        Some(value) => value
            .as_u64()
            .filter(|n| (min..=max).contains(n))
            .ok_or_else(|| Failure::field(field, format!("it is no number of {min} to {max}"))),
    }
}

fn body(params: &Map<String, Value>) -> Result<Bytes, Failure> {
    let given = text(params, "body")?.unwrap_or_default();
    let bytes = match text(params, "encoding")? {
        None | Some("text") => given.as_bytes().to_vec(),
        Some("base64") => STANDARD
            .decode(given)
            .map_err(|error| Failure::field("body", format!("it is not base64: {error}")))?,
        Some(_) => return Err(Failure::field("encoding", "use text or base64")),
    };
    if bytes.len() > MAX_BODY {
        let message = format!("it has {} bytes, at most {MAX_BODY} are sent", bytes.len());
        return Err(Failure::TooLarge { field: "body".to_owned(), message });
    }
    Ok(Bytes::from(bytes))
}

fn headers(given: Option<&Value>) -> Result<HeaderMap, Failure> {
    let map = match given {
        None | Some(Value::Null) => return Ok(HeaderMap::new()),
        Some(Value::Object(map)) => map,
        Some(_) => return Err(Failure::field("headers", "it is not an object")),
    };
    let mut headers = HeaderMap::new();
    let mut bytes = 0;
    for (name, value) in map {
        let shown: String = name.chars().take(80).collect();
        let field = format!("headers.{shown}");
        let parsed = header_name(name).map_err(|message| Failure::field(&field, message))?;
        let values = match value {
            Value::Array(values) => values.iter().collect(),
            one => vec![one],
        };
        for value in values {
            let Some(text) = value.as_str() else {
                return Err(Failure::field(&field, "it is neither a text nor a list of texts"));
            };
            let value = HeaderValue::from_str(text)
                .map_err(|_| Failure::field(&field, "it holds what a header cannot: use printable ASCII"))?;
            bytes += name.len() + text.len();
            headers.append(&parsed, value);
        }
    }
    if headers.len() > MAX_HEADERS || bytes > MAX_HEADER_BYTES {
        let message = format!(
            "there are {} headers with {bytes} bytes, at most {MAX_HEADERS} with {MAX_HEADER_BYTES} are sent",
            headers.len()
        );
        return Err(Failure::TooLarge { field: "headers".to_owned(), message });
    }
    Ok(headers)
}

/// A header that a request may carry.
///
/// # Errors
/// Says why it is none.
pub fn header_name(name: &str) -> Result<HeaderName, String> {
    let parsed =
        HeaderName::from_bytes(name.as_bytes()).map_err(|_| "it is not a header's name".to_owned())?;
    let word = parsed.as_str();
    // What frames a message or belongs to one connection is the kernel's; what tells of proxies would be a lie.
    let own = [
        "host",
        "content-length",
        "transfer-encoding",
        "trailer",
        "te",
        "connection",
        "keep-alive",
        "upgrade",
        "expect",
        "http2-settings",
        "via",
        "forwarded",
        "x-real-ip",
        "x-forwarded",
        "alt-used",
    ];
    if own.contains(&word) || word.starts_with("proxy-") || word.starts_with("x-forwarded-") {
        return Err(format!("{word} is not the caller's to set"));
    }
    Ok(parsed)
}

/// Whether a header goes along to another origin: none that could tell who asks.
pub(crate) fn goes_along(name: &HeaderName) -> bool {
    const PLAIN: [HeaderName; 9] = [
        header::ACCEPT,
        header::ACCEPT_LANGUAGE,
        header::CONTENT_LANGUAGE,
        header::CONTENT_TYPE,
        header::IF_MODIFIED_SINCE,
        header::IF_NONE_MATCH,
        header::RANGE,
        header::USER_AGENT,
        header::CACHE_CONTROL,
    ];
    PLAIN.contains(name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(params: Value) -> Result<Request, Failure> {
        Request::from_params(params.as_object().unwrap())
    }

    #[test]
    fn what_is_left_out_has_a_value() {
        let request = read(json!({"url": "https://example.com/"})).unwrap();
        assert_eq!((request.method, request.redirects, request.max_bytes), (Method::GET, 5, 1 << 20));
        assert_eq!(request.timeout, Duration::from_secs(30));
        let full = read(json!({
            "method": "post", "url": "https://example.com/", "headers": {"X-A": ["1", "2"], "accept": "text/plain"},
            "body": "aGk=", "encoding": "base64", "timeout_ms": 5, "max_bytes": 0, "redirects": 0
        }))
        .unwrap();
        assert_eq!((full.method, full.body.as_ref(), full.headers.len()), (Method::POST, &b"hi"[..], 3));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let url = "https://example.com/";
        for (params, field) in [
            (json!({}), "url"),
            (json!({"url": 5}), "url"),
            (json!({"url": "x"}), "url"),
            (json!({"url": url, "metod": "GET"}), "metod"),
            (json!({"url": url, "method": "CONNECT"}), "method"),
            (json!({"url": url, "method": "TRACE"}), "method"),
            (json!({"url": url, "method": "GET\r\nX: y"}), "method"),
            (json!({"url": url, "headers": []}), "headers"),
            (json!({"url": url, "headers": {"Host": "x"}}), "headers.Host"),
            (json!({"url": url, "headers": {"content-length": "5"}}), "headers.content-length"),
            (json!({"url": url, "headers": {"Transfer-Encoding": "chunked"}}), "headers.Transfer-Encoding"),
            (json!({"url": url, "headers": {"proxy-authorization": "x"}}), "headers.proxy-authorization"),
            (json!({"url": url, "headers": {"x-forwarded-for": "x"}}), "headers.x-forwarded-for"),
            (json!({"url": url, "headers": {"connection": "x"}}), "headers.connection"),
            (json!({"url": url, "headers": {"a b": "x"}}), "headers.a b"),
            (json!({"url": url, "headers": {"a": "x\r\nb: c"}}), "headers.a"),
            (json!({"url": url, "headers": {"a": 5}}), "headers.a"),
            (json!({"url": url, "body": "x"}), "body"),
            (json!({"url": url, "method": "POST", "body": "*", "encoding": "base64"}), "body"),
            (json!({"url": url, "encoding": "gzip"}), "encoding"),
            (json!({"url": url, "timeout_ms": 0}), "timeout_ms"),
            (json!({"url": url, "timeout_ms": 1.5}), "timeout_ms"),
            (json!({"url": url, "max_bytes": 5_000_000}), "max_bytes"),
            (json!({"url": url, "redirects": 11}), "redirects"),
        ] {
            match read(params.clone()).unwrap_err() {
                Failure::Invalid { field: named, .. } => assert_eq!(named, field, "{params}"),
                other => panic!("{params}: {other}"),
            }
        }
        let many: Map<_, _> = (0..65).map(|i| (format!("x-{i}"), json!("v"))).collect();
        for params in [
            json!({"url": url, "headers": many}),
            json!({"url": url, "headers": {"x": "v".repeat(20_000)}}),
            json!({"url": url, "method": "POST", "body": "x".repeat(MAX_BODY + 1)}),
        ] {
            assert!(matches!(read(params), Err(Failure::TooLarge { .. })));
        }
    }
}
