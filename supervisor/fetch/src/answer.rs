//! What came back.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{HeaderMap, SET_COOKIE};
use serde_json::{Map, Value, json};

/// A redirect that was followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// The status that led on.
    pub status: u16,
    /// To where.
    pub url: String,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// Where it came from in the end.
    pub url: String,
    /// How it came to that.
    pub redirects: Vec<Hop>,
    /// The body, as far as it was read; as it came: nothing is decompressed.
    pub body: Vec<u8>,
    /// There was more of it.
    pub truncated: bool,
}

impl Answer {
    /// As callers get it: `body` is text where it is UTF-8, else base64.
    #[must_use]
    pub fn into_json(self) -> Value {
        let bytes = self.body.len();
        let (body, encoding) = match text(self.body, self.truncated) {
            Ok(text) => (text, "text"),
            Err(body) => (STANDARD.encode(body), "base64"),
        };
        let redirects: Vec<_> =
            self.redirects.iter().map(|hop| json!({"status": hop.status, "url": hop.url})).collect();
        json!({
            "status": self.status, "headers": headers(&self.headers), "url": self.url, "redirects": redirects,
            "body": body, "encoding": encoding, "bytes": bytes, "truncated": self.truncated,
        })
    }
}

/// Text, unless it is none. A character that was cut off at the end does not make it less.
fn text(body: Vec<u8>, truncated: bool) -> Result<String, Vec<u8>> {
    String::from_utf8(body).or_else(|error| {
        let whole = error.utf8_error().valid_up_to();
        let cut = truncated && error.utf8_error().error_len().is_none();
        let mut body = error.into_bytes();
        if !cut {
            return Err(body);
        }
        body.truncate(whole);
        String::from_utf8(body).map_err(|error| error.into_bytes())
    })
}

/// Lower-case names; several of one name are joined as RFC 9110 says, but cookies, which hold commas, are a list.
fn headers(map: &HeaderMap) -> Map<String, Value> {
    let mut out = Map::new();
    for name in map.keys() {
        let mut values =
            map.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let value = if name == SET_COOKIE {
            json!(values.collect::<Vec<_>>())
        } else {
            let first = values.next().unwrap_or_default();
            json!(values.fold(first, |all, next| format!("{all}, {next}")))
        };
        out.insert(name.as_str().to_owned(), value);
    }
    out
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn answer(body: &[u8], truncated: bool) -> Value {
        let mut headers = HeaderMap::new();
        for (name, value) in [("x", "1"), ("x", "2"), ("set-cookie", "a=1, x"), ("set-cookie", "b")] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let url = "https://example.com/".to_owned();
        Answer { status: 200, headers, url, redirects: Vec::new(), body: body.to_vec(), truncated }
            .into_json()
    }

    #[test]
    fn text_stays_text() {
        let value = answer("é".as_bytes(), false);
        assert_eq!(
            (&value["body"], &value["encoding"], &value["bytes"]),
            (&json!("é"), &json!("text"), &json!(2))
        );
        assert_eq!(value["headers"], json!({"x": "1, 2", "set-cookie": ["a=1, x", "b"]}));
        assert_eq!(answer(b"a\xc3", true)["body"], json!("a"), "a character was cut");
        assert_eq!(answer(b"a\xc3", false)["encoding"], json!("base64"));
        assert_eq!(answer(b"\xff\x00", true)["body"], json!("/wA="));
    }
}
