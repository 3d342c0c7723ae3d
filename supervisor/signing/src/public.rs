//! Public keys, and what their files say of them.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use p256::ecdsa::signature::Verifier as _;
use p256::ecdsa::{Signature, VerifyingKey};
use p256::pkcs8::{DecodePublicKey as _, EncodePublicKey as _};
use sha2::{Digest as _, Sha256};

use crate::{Error, block};

/// What a signature can be asked of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Manifests of agents.
    Agents,
    /// Tools with their files.
    Tools,
    /// Capability rules and detections.
    Policies,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Agents, Self::Tools, Self::Policies];

    /// As configurations and keys write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agents => "agents",
            Self::Tools => "tools",
            Self::Policies => "policies",
        }
    }

    /// Reads it back.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A public key, with what stands before it in its file:
///
/// ```text
/// not-before: 2026-01-01
/// not-after: 2027-12-31T23:59:59Z
/// signs: tools, policies
/// -----BEGIN PUBLIC KEY-----
/// ```
///
/// OpenSSL and cosign pass over such lines. What they leave out is not bounded.
#[derive(Debug, Clone)]
pub struct PublicKey {
    name: String,
    fingerprint: String,
    key: VerifyingKey,
    pub(crate) not_before: Option<u64>,
    pub(crate) not_after: Option<u64>,
    pub(crate) signs: Option<BTreeSet<Kind>>,
}

impl PublicKey {
    /// Reads a PEM file; `name` is what it is called in messages.
    ///
    /// # Errors
    /// It is no public key of the curve P-256, or a line before it says nothing that is known.
    pub fn parse(name: &str, text: &str) -> Result<Self, Error> {
        let wrong = |message: &str| Error(format!("{name}: {message}"));
        if text.contains("PRIVATE KEY-----") {
            return Err(wrong("this is a private key; `openssl pkey -pubout` gives the public one"));
        }
        let (head, pem, behind) = block(text, "PUBLIC KEY").ok_or_else(|| {
            wrong(
                "there is no PEM block PUBLIC KEY; `openssl pkey -pubout` and `cosign public-key` write one",
            )
        })?;
        if !behind.trim().is_empty() || text.matches("-----BEGIN ").count() != 1 {
            return Err(wrong(
                "there is more than one key: what is said of it stands before it, and nothing behind",
            ));
        }
        let key = VerifyingKey::from_public_key_pem(pem)
            .map_err(|_| wrong("it is no key of the curve P-256 (prime256v1)"))?;
        let mut read = Self::of(name, key);
        for line in head.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (word, value) = line.split_once(':').unwrap_or((line, ""));
            read.say(word.trim(), value.trim()).map_err(|message| wrong(&message))?;
        }
        if let (Some(from), Some(to)) = (read.not_before, read.not_after)
            && from > to
        {
            return Err(wrong("not-after is before not-before"));
        }
        Ok(read)
    }

    pub(crate) fn of(name: &str, key: VerifyingKey) -> Self {
        let der = key.to_public_key_der().map(|der| der.as_bytes().to_vec()).unwrap_or_default();
        Self {
            name: name.to_owned(),
            fingerprint: hex::encode(Sha256::digest(der)),
            key,
            not_before: None,
            not_after: None,
            signs: None,
        }
    }

    fn say(&mut self, word: &str, value: &str) -> Result<(), String> {
        let twice = match word {
            "not-before" => self.not_before.is_some(),
            "not-after" => self.not_after.is_some(),
            "signs" => self.signs.is_some(),
            _ => false,
        };
        if twice {
            return Err(format!("{word} is there twice"));
        }
        match word {
            "not-before" => self.not_before = Some(time(value, "T00:00:00Z")?),
            // A day counts to its end.
            "not-after" => self.not_after = Some(time(value, "T23:59:59Z")?),
            "signs" => {
                let kinds = value.split(',').map(str::trim).map(|kind| {
                    Kind::parse(kind)
                        .ok_or_else(|| format!("signs: {kind:?}: write agents, tools or policies"))
                });
                self.signs = Some(kinds.collect::<Result<_, _>>()?);
            }
            _ => {
                return Err(format!(
                    "{word:?} is not known: write not-before, not-after or signs, or # before it"
                ));
            }
        }
        Ok(())
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// SHA-256 of its DER form (SubjectPublicKeyInfo), in hex.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Whether it made this signature over these bytes.
    pub(crate) fn made(&self, signature: &Signature, payload: &[u8]) -> bool {
        self.key.verify(payload, signature).is_ok()
    }
}

/// Seconds since 1970 of a time, or of a day with that end.
fn time(text: &str, end: &str) -> Result<u64, String> {
    let whole = if text.len() == 10 { format!("{text}{end}") } else { text.to_owned() };
    humantime::parse_rfc3339_weak(&whole)
        .ok()
        .and_then(|time: SystemTime| time.duration_since(UNIX_EPOCH).ok())
        .map(|since| since.as_secs())
        .ok_or_else(|| format!("{text:?} is no time: write 2027-12-31 or 2027-12-31T12:00:00Z"))
}
