//! Provider keys: kept in memory that is wiped, shown to nobody but the backend that they belong to.

use std::sync::Arc;

use reqwest::header::HeaderValue;
use zeroize::Zeroizing;

use crate::{Error, Result};

/// How many characters of a key in a row are a leak. Fewer could not be told from words; the answers in which providers
/// echo the last four of a refused key (401, 403) are told in words of our own instead.
const FRAGMENT: usize = 6;

/// A provider's key. Clones share one copy, which is wiped with the last of them; Debug shows nothing of it.
#[derive(Clone)]
pub struct ApiKey(Arc<Zeroizing<String>>);

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiKey(..)")
    }
}

impl ApiKey {
    /// Takes a key.
    ///
    /// # Errors
    /// [`Error::Invalid`] unless it is 8 to 4096 printable ASCII characters without spaces. The text is not repeated.
    pub fn new(text: impl Into<String>) -> Result<Self> {
        let text = Zeroizing::new(text.into());
        if !(8..=4096).contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::invalid("key", "must be 8 to 4096 printable ASCII characters without spaces"));
        }
        Ok(Self(Arc::new(text)))
    }

    /// The header that carries it. Made for each request, so that no copy that nobody wipes lives for long.
    pub(crate) fn header(&self) -> Result<HeaderValue> {
        let text = Zeroizing::new(format!("Bearer {}", self.0.as_str()));
        let mut value =
            HeaderValue::from_str(&text).map_err(|_| Error::invalid("key", "cannot be sent in a header"))?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// Whether the whole key is in there.
    pub(crate) fn is_in(&self, bytes: &[u8]) -> bool {
        bytes.windows(self.0.len()).any(|window| window == self.0.as_bytes())
    }

    /// The text with every run that it shares with the key replaced by stars.
    pub(crate) fn redact(&self, text: &str) -> String {
        let key = self.0.as_bytes();
        let mut hidden = vec![false; text.len()];
        for (at, window) in text.as_bytes().windows(FRAGMENT).enumerate() {
            if key.windows(FRAGMENT).any(|fragment| fragment == window) {
                hidden[at..at + FRAGMENT].fill(true);
            }
        }
        let mut out = String::with_capacity(text.len());
        let mut within = false;
        for (at, letter) in text.char_indices() {
            // A key is ASCII, so a letter is hidden whole or not at all.
            if hidden[at] {
                if !within {
                    out.push_str("***");
                }
            } else {
                out.push(letter);
            }
            within = hidden[at];
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_nothing() {
        let key = ApiKey::new("sk-proj-Abc123Def456").unwrap();
        assert_eq!(format!("{key:?}"), "ApiKey(..)");
        assert_eq!(format!("{:?}", key.header().unwrap()), "Sensitive");
        let error = ApiKey::new("sk proj secret words").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("secret"));
        assert!(ApiKey::new("").is_err() && ApiKey::new("line\r\nbreak: x").is_err());
    }

    #[test]
    fn redacts_the_whole_and_parts() {
        let key = ApiKey::new("sk-proj-Abc123Def456").unwrap();
        assert_eq!(key.redact("é sk-proj-Abc123Def456!"), "é ***!");
        assert_eq!(key.redact("wrong key sk-proj-****Def456."), "wrong key **********.");
        assert_eq!(key.redact("nothing here"), "nothing here");
        assert!(key.is_in(b"x sk-proj-Abc123Def456 y") && !key.is_in(b"sk-proj-Abc123Def45"));
    }
}
