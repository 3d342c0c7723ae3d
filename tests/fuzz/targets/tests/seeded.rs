//! Every reader on its seeds and on thousands of seeded mutations of them. `AION_FUZZ_ROUNDS` multiplies the number,
//! `AION_FUZZ_SEED` changes the inputs.

use aion_fuzz_targets::mutate::{Random, mutate};
use aion_fuzz_targets::{door, frame, journal, manifest, probe_event, request, seccomp_profile};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

fn run(name: &str, seeds: &[Vec<u8>], words: &[&[u8]], rounds: u64, check: fn(&[u8])) {
    let seed = number("AION_FUZZ_SEED", 1);
    for input in seeds {
        check(input);
    }
    let mut random = Random::new(seed);
    for round in 0..rounds * number("AION_FUZZ_ROUNDS", 1) {
        let input = mutate(seeds, words, &mut random);
        let result = std::panic::catch_unwind(|| check(&input));
        if result.is_err() {
            let path = std::env::temp_dir().join(format!("aion-fuzz-{name}"));
            let kept =
                std::fs::write(&path, &input).map_or_else(|e| e.to_string(), |()| path.display().to_string());
            panic!("{name}: round {round} of seed {seed}; the input is in {kept}");
        }
    }
}

#[test]
fn manifests() {
    run("manifest", &manifest::seeds(), manifest::WORDS, 20_000, manifest::check);
}

#[test]
fn requests() {
    run("request", &request::seeds(), request::WORDS, 20_000, request::check);
}

#[test]
fn doors() {
    run("door", &door::seeds(), door::WORDS, 20_000, door::check);
}

#[test]
fn frames() {
    run("frame", &frame::seeds(), frame::WORDS, 20_000, frame::check);
}

#[test]
fn probe_events() {
    run("probe_event", &probe_event::seeds(), probe_event::WORDS, 200_000, probe_event::check);
}

#[test]
fn seccomp_profiles() {
    run("seccomp_profile", &seccomp_profile::seeds(), seccomp_profile::WORDS, 4_000, seccomp_profile::check);
}

#[test]
fn journals() {
    run("journal", &journal::seeds(), journal::WORDS, 5_000, journal::check);
}
