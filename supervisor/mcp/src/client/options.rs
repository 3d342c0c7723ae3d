//! What a client is made with.

use std::fmt;
use std::time::Duration;

use http::HeaderValue;
use reqwest::Url;

use crate::{Error, Result};

/// How a client behaves, whatever carries it.
#[derive(Debug, Clone)]
pub struct Options {
    /// The longest message in either direction, in bytes; 4 MiB.
    pub max_message_bytes: usize,
    /// How long every call but a tool's may take; 30 s.
    pub request_timeout: Duration,
    /// The client's name, as the server is told; `aion`.
    pub name: String,
    /// The client's version, as the server is told; this crate's.
    pub version: String,
    /// How many calls may be under way at once; further ones wait within their deadline; 64.
    pub max_in_flight: usize,
    /// How many tools a server may list; 1024.
    pub max_tools: usize,
    /// In how many pages it may list them; 64.
    pub max_pages: usize,
    /// How many messages that nobody asked for (notifications, requests, late answers) may come at once; a tenth of
    /// it more each second; 10 000.
    pub max_unsolicited: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_message_bytes: 4 << 20,
            request_timeout: Duration::from_secs(30),
            name: "aion".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            max_in_flight: 64,
            max_tools: 1024,
            max_pages: 64,
            max_unsolicited: 10_000,
        }
    }
}

/// A token that is sent in the `Authorization` header. Its `Debug` hides it.
#[derive(Clone)]
pub struct Bearer(HeaderValue);

impl Bearer {
    /// Takes the token, without the word `Bearer`.
    ///
    /// # Errors
    /// [`Error::Bearer`] when a header cannot carry it.
    pub fn new(token: &str) -> Result<Self> {
        let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| Error::Bearer)?;
        value.set_sensitive(true);
        Ok(Self(value))
    }

    pub(crate) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bearer(hidden)")
    }
}

/// Where a server of the streamable HTTP transport is. Its `Debug` hides the token and the address's query.
#[derive(Clone)]
pub struct HttpOptions {
    pub(crate) endpoint: Url,
    pub(crate) bearer: Option<Bearer>,
}

impl fmt::Debug for HttpOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut endpoint = self.endpoint.clone();
        endpoint.set_query(None);
        f.debug_struct("HttpOptions")
            .field("endpoint", &endpoint.as_str())
            .field("bearer", &self.bearer)
            .finish()
    }
}

impl HttpOptions {
    /// Takes the address of the server's one endpoint.
    ///
    /// # Errors
    /// [`Error::Endpoint`] when it is no address, not of `http` or `https`, or has a user or a password in it (those
    /// would show in logs).
    pub fn new(endpoint: &str) -> Result<Self> {
        let endpoint = Url::parse(endpoint).map_err(|_| Error::Endpoint { what: "it is no URL" })?;
        if !matches!(endpoint.scheme(), "http" | "https") {
            return Err(Error::Endpoint { what: "the scheme is neither http nor https" });
        }
        if !endpoint.username().is_empty() || endpoint.password().is_some() {
            return Err(Error::Endpoint { what: "it has a user or a password" });
        }
        Ok(Self { endpoint, bearer: None })
    }

    /// Sends a token with every request.
    #[must_use]
    pub fn bearer(mut self, bearer: Bearer) -> Self {
        self.bearer = Some(bearer);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_does_not_show() {
        let options = HttpOptions::new("http://localhost/mcp?key=s3cret")
            .unwrap()
            .bearer(Bearer::new("s3cret").unwrap());
        assert!(!format!("{options:?}").contains("s3cret"));
        assert!(!format!("{:?}", Bearer::new("s3cret").unwrap().header()).contains("s3cret"));
        assert!(matches!(Bearer::new("a\nb"), Err(Error::Bearer)));
    }

    #[test]
    fn endpoints() {
        for endpoint in ["", "localhost", "file:///etc/passwd", "http://u@h/", "https://u:p@h/"] {
            assert!(matches!(HttpOptions::new(endpoint), Err(Error::Endpoint { .. })), "{endpoint}");
        }
        assert!(HttpOptions::new("https://example.org/mcp").is_ok());
    }
}
