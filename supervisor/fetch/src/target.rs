//! Where a request goes: a URL that says so in one way only.
//!
//! Parsers of URLs mend a lot: they decode, lower and rewrite hosts (`0x7f.1` is `127.0.0.1` to them). Rules are about hosts as they
//! are written, so here a host must be written as it is used.

use std::net::IpAddr;

use url::{Host, Url};

use crate::error::Failure;

/// The longest URL.
pub const MAX_URL: usize = 8192;

/// A place that can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    url: Url,
    host: String,
    address: Option<IpAddr>,
    port: u16,
}

impl Target {
    /// Reads a URL; `field` names it in failures.
    ///
    /// # Errors
    /// [`Failure::Invalid`] with what is wrong.
    pub fn parse(text: &str, field: &str) -> Result<Self, Failure> {
        let wrong = |message: String| Failure::field(field, message);
        if text.len() > MAX_URL {
            let message = format!("it has {} bytes, at most {MAX_URL} are taken", text.len());
            return Err(Failure::TooLarge { field: field.to_owned(), message });
        }
        if let Some(c) = text.chars().find(|c| c.is_control() || c.is_whitespace() || *c == '\\') {
            return Err(wrong(format!("it contains {c:?}; write it percent-encoded")));
        }
        let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
        if !scheme.eq_ignore_ascii_case("https") && !scheme.eq_ignore_ascii_case("http") {
            return Err(wrong("it does not begin with https:// or http://".to_owned()));
        }
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.contains('@') {
            return Err(wrong("it holds a user or a password; use a header, or a secret".to_owned()));
        }
        let url = Url::parse(text).map_err(|error| wrong(format!("it is not a URL: {error}")))?;
        Self::checked(url, authority, field)
    }

    fn checked(mut url: Url, written: &str, field: &str) -> Result<Self, Failure> {
        let wrong = |message: String| Failure::field(field, message);
        let (host, address) = match url.host() {
            Some(Host::Domain(name)) => (name.to_owned(), None),
            Some(Host::Ipv4(address)) => (address.to_string(), Some(IpAddr::V4(address))),
            Some(Host::Ipv6(address)) => (format!("[{address}]"), Some(IpAddr::V6(address))),
            None => return Err(wrong("it names no host".to_owned())),
        };
        let given = match written.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => host,
            _ => written,
        };
        if !given.is_ascii() {
            return Err(wrong(format!("write its host as {host}, in letters of ASCII")));
        }
        // Of IPv6 there are many spellings and no tricks: what it stands for is compared.
        let same = match address {
            Some(IpAddr::V6(_)) => true,
            _ => given.eq_ignore_ascii_case(&host),
        };
        if !same {
            let given: String = given.chars().take(80).collect();
            return Err(wrong(format!("its host {given:?} stands for {host}; write that")));
        }
        if address.is_none() && !is_name(&host) {
            let host: String = host.chars().take(80).collect();
            return Err(wrong(format!(
                "{host:?} is not a host's name: letters, digits, '-' and '_' with '.' between, at most 253 bytes"
            )));
        }
        let port = match url.port_or_known_default() {
            Some(port) if port != 0 => port,
            _ => return Err(wrong("port 0 is none".to_owned())),
        };
        url.set_fragment(None);
        Ok(Self { url, host, address, port })
    }

    /// Where a `Location` leads from here.
    pub(crate) fn join(&self, location: &str) -> Result<Self, Failure> {
        let failed = |why: String| Failure::Redirect { host: self.place(), why };
        let joined =
            self.url.join(location).map_err(|error| failed(format!("its Location is no URL: {error}")))?;
        Self::parse(joined.as_str(), "redirect").map_err(|error| failed(error.to_string()))
    }

    /// The whole of it, without a fragment.
    #[must_use]
    pub const fn url(&self) -> &Url {
        &self.url
    }

    /// The host as rules have it: a name, an IPv4 address, or an IPv6 address in brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The address, where the host is one.
    #[must_use]
    pub const fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Whether it is asked over TLS.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// Host and port.
    #[must_use]
    pub fn place(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    pub(crate) fn is_same_origin(&self, other: &Self) -> bool {
        self.url.scheme() == other.url.scheme() && self.host == other.host && self.port == other.port
    }

    /// The `Host` header.
    pub(crate) fn authority(&self) -> String {
        self.url.port().map_or_else(|| self.host.clone(), |port| format!("{}:{port}", self.host))
    }

    /// The request line's path.
    pub(crate) fn path(&self) -> String {
        match self.url.query() {
            Some(query) => format!("{}?{query}", self.url.path()),
            None => self.url.path().to_owned(),
        }
    }
}

/// As rules can name it.
fn is_name(host: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.len() <= 253 && host.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_ones_are_taken() {
        for (text, host, port, path) in [
            ("https://example.com", "example.com", 443, "/"),
            ("HTTP://Example.COM/a?b=c#d", "example.com", 80, "/a?b=c"),
            ("https://a-b.example_x.com:8443/%20", "a-b.example_x.com", 8443, "/%20"),
            ("http://127.0.0.1:8080/", "127.0.0.1", 8080, "/"),
            ("http://[::1]:80/x", "[::1]", 80, "/x"),
            ("https://[2001:DB8:0:0::1]/", "[2001:db8::1]", 443, "/"),
            ("https://xn--bcher-kva.example/", "xn--bcher-kva.example", 443, "/"),
            ("https://example.com/a@b:c", "example.com", 443, "/a@b:c"),
        ] {
            let target = Target::parse(text, "url").unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((target.host(), target.port(), target.path().as_str()), (host, port, path), "{text}");
        }
    }

    #[test]
    fn odd_ones_are_refused_by_field() {
        for (text, why) in [
            ("ftp://example.com/", "https://"),
            ("file:///etc/passwd", "https://"),
            ("javascript:alert(1)", "https://"),
            ("https:example.com", "https://"),
            ("//example.com", "https://"),
            ("https://", "not a URL"),
            ("https:///example.com", "stands for"),
            ("https://user@example.com/", "user"),
            ("https://user:pass@example.com/", "user"),
            ("https://example.com\\@evil.example/", "contains"),
            ("https://exa mple.com/", "contains"),
            ("https://exam\tple.com/", "contains"),
            ("https://example.com/\r\nX: y", "contains"),
            ("http://2130706433/", "stands for 127.0.0.1"),
            ("http://0x7f000001/", "stands for 127.0.0.1"),
            ("http://0177.0.0.1/", "stands for 127.0.0.1"),
            ("http://127.1/", "stands for 127.0.0.1"),
            ("http://127.0.0.1./", "stands for 127.0.0.1"),
            ("http://0x7f.0.0.1:80/", "stands for 127.0.0.1"),
            ("http://%31%32%37.0.0.1/", "stands for 127.0.0.1"),
            ("https://example.com./", "is not a host's name"),
            ("https://ex%61mple.com/", "stands for example.com"),
            ("https://bücher.example/", "letters of ASCII"),
            ("https://１２７.0.0.1/", "letters of ASCII"),
            ("https://exa\u{ad}mple.com/", "letters of ASCII"),
            ("https://-x.example/", "is not a host's name"),
            ("https://a..example/", "is not a host's name"),
            ("https://example.com:0/", "port 0"),
            ("https://example.com:99999/", "not a URL"),
            ("https://[::1%25eth0]/", "not a URL"),
            ("https://[::1", "not a URL"),
            ("https://1.2.3.4.5/", "not a URL"),
        ] {
            match Target::parse(text, "url") {
                Err(Failure::Invalid { field, message }) => {
                    assert_eq!(field, "url", "{text}");
                    assert!(message.contains(why), "{text}: {message}");
                }
                other => panic!("{text}: {other:?}"),
            }
        }
        let long = format!("https://example.com/{}", "x".repeat(MAX_URL));
        assert!(matches!(Target::parse(&long, "url"), Err(Failure::TooLarge { .. })));
    }

    #[test]
    fn redirects_lead_on_from_where_they_are() {
        let from = Target::parse("https://a.example/x/y?q", "url").unwrap();
        for (location, to) in [
            ("z", "https://a.example/x/z"),
            ("/z#f", "https://a.example/z"),
            ("//b.example/", "https://b.example/"),
            ("http://0x7f.1/", "http://127.0.0.1/"),
        ] {
            assert_eq!(from.join(location).unwrap().url().as_str(), to);
        }
        for bad in ["ftp://x/", "https://u@x/", "https://x./", "data:,x"] {
            assert!(matches!(from.join(bad), Err(Failure::Redirect { .. })), "{bad}");
        }
    }
}
