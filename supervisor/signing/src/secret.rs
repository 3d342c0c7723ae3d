//! Private keys.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use p256::pkcs8::{DecodePrivateKey as _, EncodePublicKey as _, LineEnding};

use crate::{Error, PublicKey, block};

/// A key that signs. Wiped from memory when it is dropped; it has no text form.
pub struct SecretKey(SigningKey);

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

impl SecretKey {
    /// The key of 32 random bytes; none: they are a number that is no key, which happens once in 2^32 times.
    #[must_use]
    pub fn from_bytes(random: &[u8; 32]) -> Option<Self> {
        SigningKey::from_slice(random).ok().map(Self)
    }

    /// Reads a PEM file: PKCS #8, or the older form of `openssl ecparam -genkey`.
    ///
    /// # Errors
    /// It is no private key of the curve P-256, or is under a passphrase.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |message: &str| Err(Error(message.to_owned()));
        if text.contains("ENCRYPTED SIGSTORE") || text.contains("ENCRYPTED COSIGN") {
            return wrong(
                "the key is in cosign's own form: let `cosign sign-blob` sign what `aionctl sign --payload` writes",
            );
        }
        if text.contains("ENCRYPTED") {
            return wrong("the key is under a passphrase: `openssl pkey -in FILE` writes it without one");
        }
        let key = if let Some((_, pem, _)) = block(text, "PRIVATE KEY") {
            SigningKey::from_pkcs8_pem(pem).ok()
        } else if let Some((_, pem, _)) = block(text, "EC PRIVATE KEY") {
            p256::SecretKey::from_sec1_pem(pem).ok().map(SigningKey::from)
        } else {
            return wrong(
                "there is no private key in PEM form; `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256` makes one",
            );
        };
        key.map(Self).ok_or_else(|| Error("it is no private key of the curve P-256 (prime256v1)".to_owned()))
    }

    /// The signature over these bytes: DER in base64, on one line.
    #[must_use]
    pub fn sign(&self, payload: &[u8]) -> String {
        let signature: Signature = self.0.sign(payload);
        STANDARD.encode(signature.to_der())
    }

    /// Its public half.
    #[must_use]
    pub fn public(&self, name: &str) -> PublicKey {
        PublicKey::of(name, *self.0.verifying_key())
    }

    /// The same as a PEM file.
    #[must_use]
    pub fn public_pem(&self) -> String {
        self.0.verifying_key().to_public_key_pem(LineEnding::LF).unwrap_or_default()
    }
}
