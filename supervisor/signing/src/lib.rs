//! Signatures of manifests, tools and policies, and the keys that are trusted to make them.
//!
//! A signature is ECDSA on P-256 over SHA-256, DER in base64: what `cosign sign-blob --key` and OpenSSL write and read. It lies beside
//! the file, under its name and `.sig`. What is signed is the file itself or, for a tool that brings files, the list that `sha256sum`
//! would write of all of them ([`payload`]). No I/O, no clock: callers bring bytes and the time.

mod guard;
mod payload;
mod public;
mod secret;
mod trust;

pub use guard::Guard;
pub use payload::{Part, payload};
pub use public::{Kind, PublicKey};
pub use secret::SecretKey;
pub use trust::{Reason, SignedBy, Trust, Untrusted};

/// Bytes of a signature's text that are read.
pub const MAX_SIGNATURE: usize = 1024;
/// What a signature's file is called, after the name of what it signs.
pub const EXTENSION: &str = "sig";

/// A key, a signature or a list of files that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub(crate) String);

/// The PEM block of a text that is called so, with what stands before all blocks, and what stands behind it.
fn block<'a>(text: &'a str, label: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let head = &text[..text.find("-----BEGIN ")?];
    let begin = text.find(&format!("-----BEGIN {label}-----"))?;
    let last = format!("-----END {label}-----");
    let end = begin + text[begin..].find(&last)? + last.len();
    Some((head, &text[begin..end], &text[end..]))
}
