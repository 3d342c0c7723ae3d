//! What tells a receiver that an alert is ours, and of now.

use std::fmt;

use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::settings::Error;

/// What a webhook's alerts are signed with. It is shown nowhere, and wiped from memory.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    /// A file's content. The line break that editors and `echo` leave at its end is none of it.
    ///
    /// # Errors
    /// When there is nothing else in it.
    pub fn new(content: Vec<u8>) -> Result<Self, Error> {
        let mut content = Zeroizing::new(content);
        while matches!(content.last(), Some(b'\n' | b'\r')) {
            content.pop();
        }
        if content.is_empty() { Err(Error::EmptySecret) } else { Ok(Self(content)) }
    }

    /// The header of a body at a time, in seconds since 1970: who keeps an old message cannot send it again as a new one.
    pub(crate) fn sign(&self, timestamp: u64, body: &[u8]) -> Option<String> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).ok()?;
        mac.update(format!("{timestamp}.").as_bytes());
        mac.update(body);
        Some(format!("sha256={}", hex::encode(mac.finalize().into_bytes())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_others_compute() {
        // printf '%s' '1700000000.{"id":"1"}' | openssl dgst -sha256 -hmac 'key of the webhook'
        let expected = "sha256=5e41ffa2e27180f61af6b06bd5b308df1211d05432bf322a4565d63a73a6393d";
        let secret = Secret::new(b"key of the webhook\n".to_vec()).unwrap();
        assert_eq!(secret.sign(1_700_000_000, br#"{"id":"1"}"#).unwrap(), expected);
        assert_ne!(secret.sign(1_700_000_001, br#"{"id":"1"}"#).unwrap(), expected);
        assert_ne!(secret.sign(1_700_000_000, br#"{"id":"2"}"#).unwrap(), expected);
    }

    #[test]
    fn a_secret_has_something_in_it_and_is_not_shown() {
        assert!(Secret::new(b"\r\n\n".to_vec()).is_err() && Secret::new(Vec::new()).is_err());
        assert_eq!(format!("{:?}", Secret::new(b"key".to_vec()).unwrap()), "Secret(…)");
    }
}
