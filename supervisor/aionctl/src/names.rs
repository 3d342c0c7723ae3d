//! Names for agents that were given none: two words that are easy to say and to type.

const FIRST: [&str; 64] = [
    "able", "amber", "apt", "autumn", "bold", "brave", "brisk", "calm", "candid", "clear", "clever", "cool",
    "crisp", "deft", "eager", "early", "earnest", "even", "fair", "fleet", "fond", "frank", "fresh",
    "gentle", "glad", "golden", "grand", "happy", "hardy", "honest", "humble", "jolly", "keen", "kind",
    "lively", "loyal", "lucid", "mellow", "merry", "mild", "modest", "neat", "nimble", "noble", "patient",
    "plain", "polite", "proud", "quick", "quiet", "ready", "silver", "smart", "solid", "spry", "steady",
    "sunny", "swift", "tidy", "trusty", "vivid", "warm", "wise", "witty",
];
const SECOND: [&str; 64] = [
    "acorn", "alder", "anchor", "apple", "badger", "beacon", "birch", "bridge", "brook", "canyon", "cedar",
    "cliff", "clover", "comet", "compass", "copper", "coral", "crane", "delta", "falcon", "fern", "finch",
    "fjord", "garnet", "glacier", "granite", "harbor", "hawk", "hazel", "heron", "island", "ivy", "jasper",
    "juniper", "kestrel", "lantern", "larch", "lark", "linden", "lynx", "maple", "marble", "meadow", "mesa",
    "nova", "oak", "orchid", "osprey", "otter", "pebble", "pine", "planet", "prairie", "quartz", "raven",
    "reef", "ridge", "river", "robin", "sparrow", "spruce", "summit", "willow", "wren",
];

/// A name from 24 random bits; later attempts are numbered, so that a crowded tenant still finds a free one.
pub(crate) fn propose(random: [u8; 3], attempt: u32) -> String {
    let first = FIRST[usize::from(random[0]) % FIRST.len()];
    let second = SECOND[usize::from(random[1]) % SECOND.len()];
    if attempt < 2 { format!("{first}-{second}") } else { format!("{first}-{second}-{}", random[2]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_proposal_is_a_valid_name() {
        for a in 0..64 {
            for attempt in [0, 5] {
                let name = propose([a, 63 - a, 255], attempt);
                assert!(aion_types::AgentName::parse(&name).is_ok(), "{name}");
            }
        }
    }

    #[test]
    fn no_word_is_there_twice() {
        for words in [FIRST, SECOND] {
            let unique: std::collections::BTreeSet<_> = words.iter().collect();
            assert_eq!(unique.len(), words.len());
        }
    }
}
