//! Where spans go, in the words of OpenTelemetry's standard variables. Checked once, at the start.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};
use percent_encoding::percent_decode_str;

/// How spans travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// `http/protobuf`: POST to `ENDPOINT/v1/traces`.
    Http,
    /// `grpc`.
    Grpc,
}

/// What is wrong with the settings.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting that is not valid.
    #[error("{name}: {message}")]
    Invalid {
        /// Its name.
        name: &'static str,
        /// What is wrong, and what would be right.
        message: String,
    },
}

impl Error {
    pub(crate) fn new(name: &'static str, message: impl Into<String>) -> Self {
        Self::Invalid { name, message: message.into() }
    }
}

/// Where spans go, and as what.
#[derive(Clone)]
pub struct Settings {
    pub(crate) endpoint: Uri,
    pub(crate) protocol: Protocol,
    /// Keys of collectors are among them: they are not shown.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// The authority that the collector's certificate must be of, in PEM; none: Mozilla's list.
    pub(crate) authority: Option<Vec<u8>>,
    pub(crate) resource: Vec<(String, String)>,
    /// Spans that wait to be sent; more are dropped.
    pub queue: usize,
    /// Spans of one request.
    pub batch: usize,
    /// A span waits no longer for others.
    pub delay: Duration,
    /// One request takes no longer.
    pub timeout: Duration,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("endpoint", &self.endpoint)
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}

impl Settings {
    /// For an endpoint, as `http://127.0.0.1:4318`, and a protocol in the standard's words.
    ///
    /// # Errors
    /// When one of them is not valid.
    pub fn new(endpoint: &str, protocol: &str) -> Result<Self, Error> {
        let wrong = || Error::new("OTEL_EXPORTER_OTLP_ENDPOINT", "use a URL, as http://127.0.0.1:4318");
        let endpoint: Uri = endpoint.trim_end_matches('/').parse().map_err(|_| wrong())?;
        if !matches!(endpoint.scheme_str(), Some("http" | "https")) || endpoint.host().is_none() {
            return Err(wrong());
        }
        let protocol = match protocol {
            "http/protobuf" => Protocol::Http,
            "grpc" => Protocol::Grpc,
            _ => return Err(Error::new("OTEL_EXPORTER_OTLP_PROTOCOL", "use http/protobuf or grpc")),
        };
        Ok(Self {
            endpoint,
            protocol,
            headers: Vec::new(),
            authority: None,
            resource: vec![
                ("service.name".to_owned(), "aiond".to_owned()),
                ("service.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            ],
            queue: 8192,
            batch: 512,
            delay: Duration::from_secs(1),
            timeout: Duration::from_secs(10),
        })
    }

    /// Headers of each request: `key=value,key=value`, percent-encoded.
    ///
    /// # Errors
    /// A pair that can be no header. Its value is not told.
    pub fn headers(mut self, text: &str) -> Result<Self, Error> {
        const NAME: &str = "OTEL_EXPORTER_OTLP_HEADERS";
        for (key, value) in pairs(text) {
            let wrong = || Error::new(NAME, format!("{key:?} and what follows it are no header"));
            let name = HeaderName::from_bytes(key.as_bytes()).map_err(|_| wrong())?;
            let mut value = HeaderValue::from_str(&value).map_err(|_| wrong())?;
            value.set_sensitive(true);
            self.headers.push((name, value));
        }
        Ok(self)
    }

    /// Attributes of the resource: `key=value,key=value`, percent-encoded; in the place of those of the same name.
    #[must_use]
    pub fn resource(mut self, text: &str) -> Self {
        for (key, value) in pairs(text) {
            self.resource.retain(|(known, _)| *known != key);
            self.resource.push((key, value));
        }
        self
    }

    /// The service's name, in the place of `aiond`.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.resource.retain(|(key, _)| key != "service.name");
        self.resource.push(("service.name".to_owned(), name.to_owned()));
        self
    }

    /// The authority that the collector's certificate must be of, in PEM.
    #[must_use]
    pub fn authority(mut self, pem: Vec<u8>) -> Self {
        self.authority = Some(pem);
        self
    }

    /// Where to: for HTTP with the path of traces.
    pub(crate) fn url(&self) -> String {
        let text = self.endpoint.to_string();
        let text = text.trim_end_matches('/');
        match self.protocol {
            Protocol::Http if !text.ends_with("/v1/traces") => format!("{text}/v1/traces"),
            _ => text.to_owned(),
        }
    }
}

fn pairs(text: &str) -> Vec<(String, String)> {
    let decoded = |text: &str| percent_decode_str(text.trim()).decode_utf8_lossy().into_owned();
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (decoded(key), decoded(value))).filter(|(key, _)| !key.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_traces_is_added_once() {
        for (endpoint, protocol, url) in [
            ("http://127.0.0.1:4318", "http/protobuf", "http://127.0.0.1:4318/v1/traces"),
            ("https://c.example/otlp/", "http/protobuf", "https://c.example/otlp/v1/traces"),
            ("http://c.example/v1/traces", "http/protobuf", "http://c.example/v1/traces"),
            ("http://c.example:4317", "grpc", "http://c.example:4317"),
        ] {
            assert_eq!(Settings::new(endpoint, protocol).unwrap().url(), url);
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (endpoint, protocol, name) in [
            ("127.0.0.1:4318", "grpc", "ENDPOINT"),
            ("ftp://c.example", "grpc", "ENDPOINT"),
            ("", "grpc", "ENDPOINT"),
            ("http://c.example", "http/json", "PROTOCOL"),
        ] {
            let error = Settings::new(endpoint, protocol).unwrap_err().to_string();
            assert!(error.contains(name), "{endpoint}: {error}");
        }
        let settings = Settings::new("http://c.example", "grpc").unwrap();
        let error = settings.clone().headers("good=1,b d=secret").unwrap_err().to_string();
        assert!(error.contains("HEADERS") && !error.contains("secret"), "{error}");
        let good = settings.headers("authorization=Bearer%20x, x-key = y").unwrap();
        assert_eq!(good.headers.len(), 2);
        assert!(!format!("{good:?}").contains("Bearer"));
    }

    #[test]
    fn a_resource_is_named_anew() {
        let settings = Settings::new("http://c.example", "grpc").unwrap().resource("service.name=x,a=b%2Cc");
        assert!(settings.resource.contains(&("service.name".to_owned(), "x".to_owned())));
        assert!(settings.resource.contains(&("a".to_owned(), "b,c".to_owned())));
        assert_eq!(settings.resource.iter().filter(|(key, _)| key == "service.name").count(), 1);
    }
}
