//! Signatures: HMAC-SHA256 with the tenant's secret, in lower-case hexadecimal.
//!
//! In the short form it is over the raw body. With a time and a nonce it is over them, the method and the path, too, so that none
//! of them can be changed or used again: `TIMESTAMP \n NONCE \n METHOD \n PATH \n BODY`.

use aion_types::AgentUri;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::seal::Secret;

/// How far a request's time may be from the kernel's, in milliseconds: five minutes.
pub const MAX_SKEW_MS: u64 = 300_000;

/// A request as it came, as far as it is signed.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    /// `X-Sig-HMAC`.
    pub signature: Option<&'a str>,
    /// `X-Timestamp`: milliseconds since 1970.
    pub timestamp: Option<&'a str>,
    /// `X-Nonce`.
    pub nonce: Option<&'a str>,
    /// The method, in capitals.
    pub method: &'a str,
    /// Path and query as they stand in the request.
    pub path: &'a str,
    /// The raw body.
    pub body: &'a [u8],
}

fn mac(secret: &[u8], parts: &[&[u8]]) -> Option<[u8; 32]> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).ok()?;
    for part in parts {
        mac.update(part);
    }
    Some(mac.finalize().into_bytes().into())
}

/// The signature of a body, in the short form.
#[must_use]
pub fn sign(secret: &Secret, body: &[u8]) -> String {
    mac(secret.expose(), &[body]).map(hex::encode).unwrap_or_default()
}

/// The signature with a time and a nonce.
#[must_use]
pub fn sign_timed(
    secret: &Secret,
    timestamp_ms: u64,
    nonce: &str,
    method: &str,
    path: &str,
    body: &[u8],
) -> String {
    let head = format!("{timestamp_ms}\n{nonce}\n{method}\n{path}\n");
    mac(secret.expose(), &[head.as_bytes(), body]).map(hex::encode).unwrap_or_default()
}

/// So far ahead of the kernel's clock a request's time may lie before its nonce must outlast a crash of the host itself.
pub(crate) const SOON_MS: u64 = 2_000;

impl Signed<'_> {
    /// Whether its time lies so far ahead that its nonce is synced to the disk: [`crate::Tenants::verify`] takes its time then.
    #[must_use]
    pub fn is_far_ahead(&self, now_ns: u64) -> bool {
        let at = self.timestamp.and_then(|text| text.parse::<u64>().ok());
        at.is_some_and(|at| at > (now_ns / 1_000_000).saturating_add(SOON_MS))
    }
}

/// A bearer token for clients that cannot sign: `aion/TENANT/AGENT/HMAC`. It speaks for one agent, and ends with the secret.
#[must_use]
pub fn bearer(secret: &Secret, agent: &AgentUri) -> String {
    let mac = bearer_mac(secret, agent).map(hex::encode).unwrap_or_default();
    format!("aion/{}/{}/{mac}", agent.tenant, agent.name)
}

pub(crate) fn bearer_mac(secret: &Secret, agent: &AgentUri) -> Option<[u8; 32]> {
    let text = format!("aion bearer v1\n{}\n{}", agent.tenant, agent.name);
    mac(secret.expose(), &[text.as_bytes()])
}

/// The parts of a bearer token.
pub(crate) fn bearer_parts(token: &str) -> Option<(AgentUri, [u8; 32])> {
    let (address, mac) = token.strip_prefix("aion/")?.rsplit_once('/')?;
    Some((AgentUri::parse(&format!("agent://{address}")).ok()?, decode(mac)?))
}

/// A signature as it should look.
pub(crate) fn decode(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

/// Whether a signature fits, in constant time.
pub(crate) fn fits(secret: &Secret, signed: &Signed<'_>, given: &[u8; 32]) -> bool {
    let expected = match (signed.timestamp, signed.nonce) {
        (Some(timestamp), Some(nonce)) => {
            let head = format!("{timestamp}\n{nonce}\n{}\n{}\n", signed.method, signed.path);
            mac(secret.expose(), &[head.as_bytes(), signed.body])
        }
        // The same key signs both; a body that reads as the other kind's message is of that kind.
        _ if reads_as_timed(signed.body) => None,
        _ => mac(secret.expose(), &[signed.body]),
    };
    expected.is_some_and(|expected| expected.ct_eq(given).into())
}

/// A number on a line of its own begins what is signed together with a time. No body that the kernel takes begins so.
fn reads_as_timed(body: &[u8]) -> bool {
    let digits = body.iter().take_while(|byte| byte.is_ascii_digit()).count();
    digits > 0 && body.get(digits) == Some(&b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_hmac_that_everybody_computes() {
        // RFC 4231, test case 2.
        let secret = Secret::new(b"Jefe".to_vec());
        assert_eq!(
            sign(&secret, b"what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }
}
