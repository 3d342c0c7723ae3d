//! Which keys are trusted, for what and when.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use p256::ecdsa::Signature;

use crate::{Error, Kind, MAX_SIGNATURE, PublicKey};

/// The keys that are trusted.
#[derive(Debug, Clone, Default)]
pub struct Trust(Vec<PublicKey>);

/// Who has signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedBy {
    /// What the key is called.
    pub name: String,
    /// Its fingerprint, in hex.
    pub fingerprint: String,
}

impl fmt::Display for SignedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (sha256:{})", self.name, self.fingerprint.get(..16).unwrap_or(&self.fingerprint))
    }
}

/// Why a signature does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// There is none.
    Missing,
    /// It is no signature.
    Malformed,
    /// None of the keys made it over these bytes.
    Unknown,
    /// The key's time is over.
    Expired,
    /// The key's time has not begun.
    NotYet,
    /// The key signs other things.
    Kind,
    /// The key that once made it is not trusted any more.
    Withdrawn,
}

impl Reason {
    /// A word for scripts.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::NotYet => "not_yet",
            Self::Kind => "kind",
            Self::Withdrawn => "withdrawn",
        }
    }
}

/// That something is not trusted, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Untrusted {
    /// Why, for scripts.
    pub reason: Reason,
    message: String,
}

impl Untrusted {
    fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    /// That there is no signature.
    #[must_use]
    pub fn missing() -> Self {
        Self::new(Reason::Missing, "it is not signed")
    }

    /// That the key which made the signature is not trusted any more.
    #[must_use]
    pub fn withdrawn(fingerprint: &str) -> Self {
        let short: String = fingerprint.chars().take(16).collect();
        Self::new(Reason::Withdrawn, format!("the key sha256:{short} that signed it is not trusted any more"))
    }
}

impl Trust {
    /// The keys of these files, each with its name.
    ///
    /// # Errors
    /// With all that is wrong with them.
    pub fn parse<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, Vec<Error>> {
        let (mut keys, mut wrong) = (Vec::<PublicKey>::new(), Vec::new());
        for (name, text) in files {
            match PublicKey::parse(name, text) {
                Ok(key) => match keys.iter().find(|other| other.fingerprint() == key.fingerprint()) {
                    // Two files that say different things of one key would leave open which counts.
                    Some(other) => wrong.push(Error(format!("{name}: {} is the same key", other.name()))),
                    None => keys.push(key),
                },
                Err(error) => wrong.push(error),
            }
        }
        if wrong.is_empty() { Ok(Self(keys)) } else { Err(wrong) }
    }

    /// The keys.
    #[must_use]
    pub fn keys(&self) -> &[PublicKey] {
        &self.0
    }

    /// Whether no key is trusted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a key is trusted with something, whatever the time is. What it signed while its time ran stays signed.
    #[must_use]
    pub fn has(&self, fingerprint: &str, kind: Kind) -> bool {
        self.0.iter().any(|key| key.fingerprint() == fingerprint && signs(key, kind))
    }

    /// Who has signed these bytes; `now` in seconds since 1970.
    ///
    /// # Errors
    /// Nobody whose word counts for that, now.
    pub fn verify(
        &self,
        kind: Kind,
        payload: &[u8],
        signature: &str,
        now: u64,
    ) -> Result<SignedBy, Untrusted> {
        let signature = signature.trim();
        if signature.is_empty() {
            return Err(Untrusted::missing());
        }
        let malformed = || {
            Untrusted::new(
                Reason::Malformed,
                "its signature is none: DER of ECDSA in base64, as `aionctl sign` and `cosign sign-blob` write it",
            )
        };
        if signature.len() > MAX_SIGNATURE {
            return Err(malformed());
        }
        let der = STANDARD.decode(signature).map_err(|_| malformed())?;
        let signature = Signature::from_der(&der).map_err(|_| malformed())?;
        let key = self.0.iter().find(|key| key.made(&signature, payload)).ok_or_else(|| {
            let count = self.0.len();
            Untrusted::new(
                Reason::Unknown,
                format!("none of the {count} trusted keys made its signature over these bytes: it was changed, or is signed by somebody else"),
            )
        })?;
        let name = key.name();
        if !signs(key, kind) {
            return Err(Untrusted::new(
                Reason::Kind,
                format!("the key {name} that signed it is not trusted with {kind}"),
            ));
        }
        let told = |seconds| {
            humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds))
        };
        if let Some(end) = key.not_after.filter(|end| now > *end) {
            return Err(Untrusted::new(
                Reason::Expired,
                format!("the key {name} that signed it expired at {}", told(end)),
            ));
        }
        if let Some(begin) = key.not_before.filter(|begin| now < *begin) {
            return Err(Untrusted::new(
                Reason::NotYet,
                format!("the key {name} that signed it is not valid before {}", told(begin)),
            ));
        }
        Ok(SignedBy { name: name.to_owned(), fingerprint: key.fingerprint().to_owned() })
    }
}

fn signs(key: &PublicKey, kind: Kind) -> bool {
    key.signs.as_ref().is_none_or(|kinds| kinds.contains(&kind))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::SecretKey;

    /// 2027-01-01.
    const NOW: u64 = 1_798_761_600;

    fn openssl(folder: &std::path::Path, script: &str) {
        let done = Command::new("sh").args(["-ec", script]).current_dir(folder).output().unwrap();
        assert!(done.status.success(), "{script}: {}", String::from_utf8_lossy(&done.stderr));
    }

    fn made(folder: &std::path::Path, how: &str) -> SecretKey {
        openssl(folder, &format!("openssl {how} -out key.pem"));
        SecretKey::parse(&std::fs::read_to_string(folder.join("key.pem")).unwrap()).unwrap()
    }

    const PKCS8: &str = "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256";
    const SEC1: &str = "ecparam -name prime256v1 -genkey";

    fn trust(text: &str) -> Result<Trust, String> {
        Trust::parse([("release", text)]).map_err(|wrong| wrong[0].to_string())
    }

    fn reason(outcome: Result<SignedBy, Untrusted>) -> Reason {
        outcome.unwrap_err().reason
    }

    #[test]
    fn openssl_verifies_what_is_signed_here_and_the_other_way_round() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "content").unwrap();
        for how in [PKCS8, SEC1] {
            let key = made(folder.path(), how);
            std::fs::write(folder.path().join("sig"), key.sign(b"content")).unwrap();
            std::fs::write(folder.path().join("pub"), key.public_pem()).unwrap();
            openssl(
                folder.path(),
                "openssl base64 -d -A -in sig -out der && openssl dgst -sha256 -verify pub -signature der file &&
                 openssl dgst -sha256 -sign key.pem file | openssl base64 -A >theirs &&
                 openssl pkey -in key.pem -pubout -out theirs.pub",
            );
            let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
            assert_eq!(read("theirs.pub"), key.public_pem());
            let trust = trust(&read("theirs.pub")).unwrap();
            let by = trust.verify(Kind::Tools, b"content", &format!("{}\n", read("theirs")), NOW).unwrap();
            assert_eq!(by.fingerprint, key.public("x").fingerprint());
        }
    }

    #[test]
    fn a_signature_counts_for_its_bytes_its_key_its_time_and_its_kind() {
        let folder = tempfile::tempdir().unwrap();
        let (key, other) = (made(folder.path(), PKCS8), made(folder.path(), PKCS8));
        let bounded = format!(
            "# of the release team\nnot-before: 2026-06-01\nnot-after: 2027-06-30\nsigns: tools, agents\n{}",
            key.public_pem()
        );
        let trust = trust(&bounded).unwrap();
        let signature = key.sign(b"x");
        let verify = |kind, bytes: &[u8], signature: &str, now| trust.verify(kind, bytes, signature, now);
        assert_eq!(verify(Kind::Tools, b"x", &signature, NOW).unwrap().name, "release");
        assert_eq!(reason(verify(Kind::Tools, b"y", &signature, NOW)), Reason::Unknown);
        assert_eq!(reason(verify(Kind::Tools, b"x", &other.sign(b"x"), NOW)), Reason::Unknown);
        assert_eq!(reason(verify(Kind::Policies, b"x", &signature, NOW)), Reason::Kind);
        // The last second of the last day, and the next one; the first, and the one before it.
        let (end, begin) = (1_814_399_999, 1_780_272_000);
        assert!(verify(Kind::Tools, b"x", &signature, end).is_ok());
        assert_eq!(reason(verify(Kind::Tools, b"x", &signature, end + 1)), Reason::Expired);
        assert!(verify(Kind::Tools, b"x", &signature, begin).is_ok());
        assert_eq!(reason(verify(Kind::Tools, b"x", &signature, begin - 1)), Reason::NotYet);
        assert_eq!(reason(verify(Kind::Tools, b"x", " \n", NOW)), Reason::Missing);
        let long = "A".repeat(MAX_SIGNATURE + 4);
        for text in ["!", "AAAA", long.as_str(), &signature[..20]] {
            assert_eq!(reason(verify(Kind::Tools, b"x", text, NOW)), Reason::Malformed, "{text}");
        }
        // What it signed stays signed when its time is over, not when it is gone.
        let fingerprint = key.public("x").fingerprint().to_owned();
        assert!(trust.has(&fingerprint, Kind::Tools) && !trust.has(&fingerprint, Kind::Policies));
        assert!(!Trust::default().has(&fingerprint, Kind::Tools));
    }

    #[test]
    fn every_flipped_bit_of_a_signature_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let key = made(folder.path(), PKCS8);
        let trust = trust(&key.public_pem()).unwrap();
        let der = STANDARD.decode(key.sign(b"x")).unwrap();
        for at in 0..der.len() * 8 {
            let mut changed = der.clone();
            changed[at / 8] ^= 1 << (at % 8);
            assert!(trust.verify(Kind::Tools, b"x", &STANDARD.encode(changed), NOW).is_err(), "bit {at}");
        }
    }

    #[test]
    fn a_key_that_cannot_be_used_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let pem = made(folder.path(), PKCS8).public_pem();
        openssl(
            folder.path(),
            "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 | openssl pkey -pubout >p384 &&
             openssl genpkey -algorithm ed25519 >ed && openssl pkey -in key.pem -aes128 -passout pass:x -out locked",
        );
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        for (text, expected) in [
            (String::new(), "no PEM block"),
            (read("p384"), "P-256"),
            (read("key.pem"), "private key"),
            (format!("not-after: tomorrow\n{pem}"), "is no time"),
            (format!("expires: 2027-01-01\n{pem}"), "not known"),
            (format!("signs: everything\n{pem}"), "agents, tools or policies"),
            (format!("{pem}not-after: 2027-01-01\n"), "nothing behind"),
            (format!("{pem}{pem}"), "more than one key"),
            (format!("signs: tools\nsigns: agents\n{pem}"), "twice"),
            (format!("not-before: 2028-01-01\nnot-after: 2027-01-01\n{pem}"), "before not-before"),
        ] {
            let error = trust(&text).unwrap_err();
            assert!(error.starts_with("release: ") && error.contains(expected), "{error}");
        }
        let twice = Trust::parse([("a", pem.as_str()), ("b", pem.as_str())]).unwrap_err();
        assert!(twice[0].to_string().contains("the same key"), "{twice:?}");
        for (text, expected) in [
            (read("ed"), "P-256"),
            (read("locked"), "passphrase"),
            (pem, "no private key"),
            ("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----".to_owned(), "cosign"),
        ] {
            let error = SecretKey::parse(&text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
