//! Seccomp profiles. They come from the operator, and a mistake in one must not become a hole.

use aion_seccomp::{Action, Arch, Error, Profile, compile};

const DEFAULT: &[u8] = include_bytes!("../../../../profiles/seccomp/default-restrictive.json");
const NETWORK: &[u8] = include_bytes!("../../../../profiles/seccomp/network-client.json");
const TOOL: &[u8] = include_bytes!("../../../../profiles/seccomp/tool-strict.json");

/// The kernel's limit.
const MAX_INSTRUCTIONS: usize = 4096;

/// What is accepted compiles, denies by default, and answers each reported call with one errno.
pub fn check(data: &[u8]) {
    let profile = match Profile::parse("fuzz", data, |_| Ok(DEFAULT.to_vec())) {
        Ok(profile) => profile,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    assert!(matches!(profile.default_action(), Action::Errno(e) if e > 0), "not denied by default");
    let Some(arch) = Arch::native() else { return };
    match compile(&profile, arch) {
        Ok(filter) => {
            assert!(filter.bpf.len().is_multiple_of(8), "half an instruction");
            assert!((1..=MAX_INSTRUCTIONS).contains(&filter.instructions()));
            assert!(filter.notify.windows(2).all(|w| w[0].0 < w[1].0), "two answers for one call");
            assert!(filter.notify.iter().all(|&(_, errno)| errno > 0));
        }
        Err(Error::TooComplex { .. }) => {}
        Err(error) => panic!("a valid profile does not compile: {error}"),
    }
}

/// The profiles that AION ships, and a small one.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let small = r#"{"version":1,"description":"d","extends":"default-restrictive","groups":[{"name":"g","reason":"r","action":{"notify":"EPERM"},"syscalls":["bpf","mount"],"when":[{"arg":0,"mask":"0xff","in":[1,"AF_UNIX"]},{"arg":5,"bits":64,"not_in":["0xffffffffffffffff"]}]}]}"#;
    vec![
        small.as_bytes().to_vec(),
        NETWORK.to_vec(),
        small.as_bytes().to_vec(),
        TOOL.to_vec(),
        DEFAULT.to_vec(),
    ]
}

/// Pieces of JSON and of our words.
pub const WORDS: &[&[u8]] = &[
    b"\"allow\"",
    b"{\"errno\":\"ENOSYS\"}",
    b"{\"notify\":\"EACCES\"}",
    b"\"read\",",
    b"\"clone\",",
    b"\"socket\"",
    b"\"mseal\",",
    b"\"when\":",
    b"\"in\":[0]",
    b"\"not_in\":[",
    b"64",
    b"\"extends\":null,",
    b"[",
    b"]",
    b"{",
    b"}",
    b",",
    b"-1",
    b"1e400",
    b"\"\\u0000\"",
    b"18446744073709551615",
    b"\"bits\":32,",
    b"\"arg\":7",
];
