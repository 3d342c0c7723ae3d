//! What a signed request claims of itself: tenant, signature, time, nonce, bearer token, as they come in headers.

use std::sync::{Arc, LazyLock};

use aion_store::{Options, Store};
use aion_tenants::{AuthError, Sealer, Secret, Settings, Signed, Tenants, bearer, sign, sign_timed};
use aion_types::{AgentUri, TenantId};

const SECRET: &[u8] = b"a secret of sixteen bytes or more";
/// The kernel's clock: it stands still, so that a run can be repeated.
const NOW_MS: u64 = 1_800_000_000_000;

static TENANTS: LazyLock<Tenants> = LazyLock::new(|| match tenants() {
    Ok(tenants) => tenants,
    Err(error) => panic!("no tenants: {error}"),
});

fn tenants() -> Result<Tenants, Box<dyn std::error::Error>> {
    let folder = std::env::temp_dir().join(format!("aion-fuzz-door-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let store = Arc::new(Store::open(&folder.join("db"), Options::default())?);
    let tenants = Tenants::open(store, Sealer::open(&folder.join("key"))?, 0)?;
    tenants.add(&TenantId::parse("t")?, Secret::new(SECRET.to_vec()), Settings::default(), 0)?;
    // It is open, and nobody else wants it.
    std::fs::remove_dir_all(&folder)?;
    Ok(tenants)
}

/// Whoever is let in has signed with the secret what they sent, and not the same twice.
pub fn check(data: &[u8]) {
    let mut lines = data.splitn(8, |byte| *byte == b'\n');
    let mut text =
        || lines.next().and_then(|line| std::str::from_utf8(line).ok()).filter(|text| !text.is_empty());
    let (tenant, signature, timestamp, nonce) = (text(), text(), text(), text());
    let (method, path, token) = (text().unwrap_or("POST"), text().unwrap_or("/"), text().unwrap_or_default());
    let body = lines.next().unwrap_or_default();
    let signed = Signed { signature, timestamp, nonce, method, path, body };
    let now = NOW_MS * 1_000_000;
    let secret = Secret::new(SECRET.to_vec());
    if let Ok(found) = TENANTS.verify(tenant, &signed, now) {
        assert_eq!((found.name.as_str(), tenant), ("t", Some("t")));
        let expected = match (timestamp.map(str::parse), nonce) {
            (Some(Ok(at)), Some(nonce)) => {
                assert!(NOW_MS.abs_diff(at) <= 300_000, "from another time: {at}");
                let again = TENANTS.verify(tenant, &signed, now);
                assert!(
                    matches!(again, Err(AuthError::Replayed | AuthError::TooMany)),
                    "the same was taken twice"
                );
                // As the number was written, which is what is signed.
                if timestamp != Some(at.to_string().as_str()) {
                    return;
                }
                sign_timed(&secret, at, nonce, method, path, body)
            }
            (None, None) => sign(&secret, body),
            other => panic!("half a time was taken: {other:?}"),
        };
        assert!(
            signature.is_some_and(|given| given.eq_ignore_ascii_case(&expected)),
            "not signed: {signature:?}"
        );
    }
    if let Ok((found, name)) = TENANTS.verify_bearer(token, now) {
        let agent = AgentUri { tenant: found.name.clone(), name };
        assert!(token.eq_ignore_ascii_case(&bearer(&secret, &agent)), "not ours: {token:?}");
    }
}

/// Requests that are let in, and some that are nearly right.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let secret = Secret::new(SECRET.to_vec());
    let body = b"{\"agent_id\": \"agent://t/a\"}";
    let short = sign(&secret, body);
    let mut seeds = Vec::new();
    for n in 0..8u64 {
        let (at, nonce) = (NOW_MS + n, format!("nonce-{n:04}"));
        let long = sign_timed(&secret, at, &nonce, "POST", "/v1/memory/put", body);
        let mut seed = format!("t\n{long}\n{at}\n{nonce}\nPOST\n/v1/memory/put\n\n").into_bytes();
        seed.extend_from_slice(body);
        seeds.push(seed);
    }
    let mut plain = format!("t\n{short}\n\n\nPOST\n/\n\n").into_bytes();
    plain.extend_from_slice(body);
    seeds.push(plain);
    if let Ok(agent) = AgentUri::parse("agent://t/a") {
        seeds.push(format!("\n\n\n\n\n\n{}\n", bearer(&secret, &agent)).into_bytes());
    }
    seeds
}

/// Pieces of what stands in headers.
pub const WORDS: &[&[u8]] = &[
    b"\n",
    b"t\n",
    b"nonce-0001",
    b"1800000000000",
    b"+1800000000000",
    b"18446744073709551615",
    b"-1",
    b"0",
    b"aion/t/a/",
    b"aion/",
    b"/",
    b"..",
    b"\xc3\xa4",
    b"\xff",
    b"F",
    b"f",
];
