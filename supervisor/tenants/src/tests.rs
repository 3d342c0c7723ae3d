use aion_store::Options;

use super::*;
use crate::signature::{sign, sign_timed};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;

struct World {
    dir: tempfile::TempDir,
    tenants: Tenants,
}

fn name(text: &str) -> TenantId {
    TenantId::parse(text).unwrap()
}

fn secret(text: &str) -> Secret {
    Secret::new(format!("{text}-{}", "x".repeat(16)).into_bytes())
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tenants = open(dir.path());
        Self { dir, tenants }
    }
}

fn open(dir: &std::path::Path) -> Tenants {
    open_at(dir, 0)
}

fn open_at(dir: &std::path::Path, now_ms: u64) -> Tenants {
    let store = Store::open(&dir.join("db"), Options::default()).unwrap();
    let sealer = Sealer::open(&dir.join("keys/seal.key")).unwrap();
    Tenants::open(Arc::new(store), sealer, now_ms).unwrap()
}

fn short<'a>(signature: &'a str, body: &'a [u8]) -> Signed<'a> {
    Signed { signature: Some(signature), timestamp: None, nonce: None, method: "POST", path: "/v1/x", body }
}

#[test]
fn the_right_secret_opens_and_nothing_else_does() {
    let world = World::new();
    let t = &world.tenants;
    t.add(&name("tenantA"), secret("a"), Settings::default(), 0).unwrap();
    t.add(&name("b"), secret("b"), Settings::default(), 0).unwrap();
    let body = br#"{"x":1}"#;
    let good = sign(&secret("a"), body);
    assert_eq!(t.verify(Some("tenantA"), &short(&good, body), 0).unwrap().name.as_str(), "tenantA");
    let cases: [(Option<&str>, &str, &[u8], AuthError); 7] = [
        (Some("tenantA"), &good, b"{}", AuthError::Mismatch),
        (Some("b"), &good, body, AuthError::Mismatch),
        (Some("nobody"), &good, body, AuthError::Mismatch),
        (Some("tenantA"), "00", body, AuthError::NoSignature),
        (Some("tenantA"), "", body, AuthError::NoSignature),
        (None, &good, body, AuthError::NoTenant),
        (Some("../x"), &good, body, AuthError::NoTenant),
    ];
    for (who, signature, body, expected) in cases {
        assert_eq!(t.verify(who, &short(signature, body), 0).unwrap_err(), expected, "{who:?}");
    }
    assert!(matches!(t.add(&name("b"), secret("c"), Settings::default(), 0), Err(Error::Exists { .. })));
    let weak = t.add(&name("c"), Secret::new(b"short".to_vec()), Settings::default(), 0);
    assert!(matches!(weak, Err(Error::Invalid { field: "secret", .. })));
}

#[test]
fn a_rotation_overlaps_and_ends() {
    let world = World::new();
    let t = &world.tenants;
    let a = name("a");
    t.add(&a, secret("1"), Settings::default(), 0).unwrap();
    t.rotate(&a, secret("2"), 10 * SECOND, SECOND).unwrap();
    let good =
        |which: &str, now: u64| t.verify(Some("a"), &short(&sign(&secret(which), b"x"), b"x"), now).is_ok();
    assert!(good("1", 10 * SECOND) && good("2", 10 * SECOND));
    assert!(!good("1", 12 * SECOND) && good("2", 12 * SECOND));
    t.rotate(&a, secret("3"), 0, 13 * SECOND).unwrap();
    assert!(!good("2", 13 * SECOND) && good("3", 13 * SECOND));
    let same = t.rotate(&a, secret("3"), 0, 14 * SECOND);
    assert!(matches!(same, Err(Error::Invalid { field: "secret", .. })) && good("3", 14 * SECOND));
    t.revoke(&a).unwrap();
    assert!(!good("3", 13 * SECOND));
    assert!(matches!(t.revoke(&a), Err(Error::NotFound { .. })));
}

#[test]
fn times_and_nonces_stop_replays() {
    let world = World::new();
    let t = &world.tenants;
    let settings = Settings { require_timestamp: true, ..Settings::default() };
    t.add(&name("a"), secret("a"), settings, 0).unwrap();
    let now = 1_000_000 * SECOND;
    let ms = now / MS;
    let try_it = |at: u64, nonce: &str, path: &str, signed_path: &str| {
        let signature = sign_timed(&secret("a"), at, nonce, "POST", signed_path, b"x");
        let at = at.to_string();
        let signed = Signed {
            signature: Some(&signature),
            timestamp: Some(&at),
            nonce: Some(nonce),
            method: "POST",
            path,
            body: b"x",
        };
        t.verify(Some("a"), &signed, now).map(|_| ())
    };
    assert_eq!(
        t.verify(Some("a"), &short(&sign(&secret("a"), b"x"), b"x"), now).unwrap_err(),
        AuthError::TimeRequired
    );
    assert_eq!(try_it(ms, "nonce-one", "/v1/x", "/v1/x"), Ok(()));
    assert_eq!(try_it(ms, "nonce-one", "/v1/x", "/v1/x"), Err(AuthError::Replayed));
    assert_eq!(try_it(ms, "nonce-two", "/v1/y", "/v1/x"), Err(AuthError::Mismatch));
    assert_eq!(try_it(ms - MAX_SKEW_MS - 1, "nonce-3333", "/v1/x", "/v1/x"), Err(AuthError::Skew));
    assert_eq!(try_it(ms, "short", "/v1/x", "/v1/x"), Err(AuthError::BadTime));
    // What was signed with a time is no signature of a body, where bodies alone may be signed.
    t.set(&name("a"), Settings::default(), now).unwrap();
    let seen = sign_timed(&secret("a"), ms, "nonce-seen", "POST", "/v1/x", b"x");
    let body = format!("{ms}\nnonce-seen\nPOST\n/v1/x\nx");
    assert_eq!(t.verify(Some("a"), &short(&seen, body.as_bytes()), now).unwrap_err(), AuthError::Mismatch);
}

#[test]
fn a_restart_opens_no_way_for_a_replay() {
    let World { dir, tenants } = World::new();
    tenants.add(&name("a"), secret("a"), Settings::default(), 0).unwrap();
    let ms = 1_000_000_000;
    let try_it = |tenants: &Tenants, at: u64, nonce: &str, now_ms: u64| {
        let signature = sign_timed(&secret("a"), at, nonce, "POST", "/v1/x", b"x");
        let at = at.to_string();
        let signed = Signed {
            signature: Some(&signature),
            timestamp: Some(&at),
            nonce: Some(nonce),
            method: "POST",
            path: "/v1/x",
            body: b"x",
        };
        tenants.verify(Some("a"), &signed, now_ms * MS).map(|_| ())
    };
    let sent = [(ms, "past-nonce"), (ms + 900, "soon-nonce"), (ms + MAX_SKEW_MS, "late-nonce")];
    for (at, nonce) in sent {
        assert_eq!(try_it(&tenants, at, nonce, ms), Ok(()));
    }
    drop(tenants);
    let again = open_at(dir.path(), ms + 5);
    assert_eq!(try_it(&again, sent[0].0, sent[0].1, ms + 10), Err(AuthError::BeforeStart));
    for (at, nonce) in &sent[1..] {
        assert_eq!(try_it(&again, *at, nonce, ms + 10), Err(AuthError::Replayed), "{nonce}");
    }
    assert_eq!(
        try_it(&again, ms + 10, "other-nonce", ms + 10),
        Ok(()),
        "a clock that is right waits for nothing"
    );
}

#[test]
fn the_register_survives_a_restart_and_holds_no_secret_in_the_clear() {
    let world = World::new();
    let settings =
        Settings { allow: vec!["tool:web_*".to_owned()], rate_per_second: Some(2), ..Settings::default() };
    world.tenants.add(&name("a"), secret("verysecretword"), settings.clone(), 7).unwrap();
    let World { dir, tenants } = world;
    drop(tenants);
    let again = open(dir.path());
    let tenant = again.verify(Some("a"), &short(&sign(&secret("verysecretword"), b"x"), b"x"), 0).unwrap();
    assert_eq!((&tenant.settings, tenant.policy.is_some()), (&settings, true));
    assert!(tenant.take_rate(0).is_ok() && tenant.take_rate(0).is_ok() && tenant.take_rate(0).is_err());
    drop((tenant, again));
    for entry in std::fs::read_dir(dir.path().join("db")).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(14).any(|w| w == b"verysecretword"));
    }
}

#[test]
fn wrong_signatures_are_bounded_and_hold_nobody_else_up() {
    let world = World::new();
    let t = &world.tenants;
    t.add(&name("a"), secret("a"), Settings::default(), 0).unwrap();
    let wrong = sign(&secret("b"), b"x");
    let errors: Vec<_> = (0..30).map(|_| t.verify(Some("a"), &short(&wrong, b"x"), 0).unwrap_err()).collect();
    assert_eq!(errors[0], AuthError::Mismatch);
    assert_eq!(errors[29], AuthError::TooMany);
    let good = sign(&secret("a"), b"x");
    assert!(t.verify(Some("a"), &short(&good, b"x"), 0).is_ok(), "the tenant itself is not locked out");
}

#[test]
fn a_bearer_token_speaks_for_one_agent_and_ends_with_its_secret() {
    let world = World::new();
    let t = &world.tenants;
    t.add(&name("a.b"), secret("1"), Settings::default(), 0).unwrap();
    let uri = AgentUri::parse("agent://a.b/worker").unwrap();
    let token = t.bearer(&uri).unwrap();
    assert_eq!(t.verify_bearer(&token, 0).unwrap().1.as_str(), "worker");
    for wrong in [
        token.replace("worker", "other"),
        token.replace("a.b", "b"),
        "aion/a.b/worker/00".to_owned(),
        String::new(),
    ] {
        assert!(t.verify_bearer(&wrong, 0).is_err(), "{wrong}");
    }
    t.rotate(&name("a.b"), secret("2"), 0, SECOND).unwrap();
    assert!(t.verify_bearer(&token, SECOND).is_err());
}

#[test]
fn what_was_let_in_stands_as_long_as_its_tenant_and_its_secret() {
    let world = World::new();
    let (t, who) = (&world.tenants, name("tenantA"));
    t.add(&who, secret("a"), Settings::default(), SECOND).unwrap();
    let (old, new) = (sign(&secret("a"), b""), sign(&secret("b"), b""));
    let standing = |signature: &str, now| t.standing(&t.get(&who).unwrap(), &short(signature, b""), now);
    let (first, of_tenant) = (standing(&old, SECOND).unwrap(), t.standing_of(&who).unwrap());
    assert!(standing(&new, SECOND).is_none());
    // Other settings change nothing; a rotation ends it with the secret's time, and not the newer secret's.
    t.set(&who, Settings { require_timestamp: true, ..Settings::default() }, SECOND).unwrap();
    t.rotate(&who, secret("b"), 5 * SECOND, 2 * SECOND).unwrap();
    let second = standing(&new, 2 * SECOND).unwrap();
    assert!(t.holds(&first, 6 * SECOND) && t.holds(&second, 6 * SECOND));
    assert!(!t.holds(&first, 7 * SECOND) && t.holds(&second, 7 * SECOND) && t.holds(&of_tenant, 7 * SECOND));
    // Another tenant of the same name and with the same secret is another tenant.
    t.revoke(&who).unwrap();
    assert!(!t.holds(&second, 8 * SECOND) && !t.holds(&of_tenant, 8 * SECOND));
    assert!(t.standing_of(&who).is_none());
    t.add(&who, secret("b"), Settings::default(), 9 * SECOND).unwrap();
    assert!(!t.holds(&second, 9 * SECOND) && !t.holds(&of_tenant, 9 * SECOND));
}
