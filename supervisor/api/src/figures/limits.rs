//! Limits of an agent's network: how much of them is used, and what they refused. Both are the kernel's own count, which outlives the
//! agent's runs and both daemons.

use std::collections::BTreeMap;

use aion_launcher_proto::v1 as launcher;

/// The figures of one agent's limits, those of its destinations with them: what one refused another did not count.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Limits {
    /// Connections and packets, by the limit that had no room for them.
    pub(super) refused: BTreeMap<&'static str, u64>,
    /// How much is used, 0 to 1, by limit: of several the one with the least left.
    pub(super) ratio: BTreeMap<&'static str, f64>,
}

impl Limits {
    /// None: there are no limits.
    pub(super) fn of(uses: &[launcher::NetworkUse]) -> Option<Self> {
        if uses.is_empty() {
            return None;
        }
        let mut limits = Self::default();
        for used in uses {
            let most = used.limit.as_ref().map(|limit| (limit.bytes_out_per_hour, limit.bytes_in_per_hour));
            let (most_out, most_in) = most.unwrap_or_default();
            let refused = [
                ("connections", used.refused.saturating_sub(used.refused_bytes)),
                // Which way is not counted apart.
                ("bytes", used.refused_bytes),
                ("bytes_out_per_hour", used.dropped_packets.saturating_sub(used.dropped_in)),
                ("bytes_in_per_hour", used.dropped_in),
            ];
            for (name, count) in refused {
                let sum = limits.refused.entry(name).or_default();
                *sum = sum.saturating_add(count);
            }
            for (name, used, limit) in [
                ("bytes_out_per_hour", used.bytes_out, most_out),
                ("bytes_in_per_hour", used.bytes_in, most_in),
            ] {
                if limit > 0 {
                    let ratio = limits.ratio.entry(name).or_default();
                    *ratio = ratio.max(share(used, limit));
                }
            }
        }
        Some(limits)
    }
}

/// In thousandths, which f64 holds exactly enough.
fn share(used: u64, limit: u64) -> f64 {
    let thousandths = used.saturating_mul(1000) / limit.max(1);
    f64::from(u32::try_from(thousandths).unwrap_or(u32::MAX)) / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fullest_counts_and_refusals_add_up() {
        let limit = |out, into| {
            Some(launcher::NetworkLimit {
                bytes_out_per_hour: out,
                bytes_in_per_hour: into,
                ..Default::default()
            })
        };
        let whole = launcher::NetworkUse {
            limit: limit(1000, 0),
            bytes_out: 500,
            bytes_in: 77,
            refused: 5,
            refused_bytes: 2,
            dropped_packets: 10,
            dropped_in: 4,
            ..Default::default()
        };
        let destination = launcher::NetworkUse {
            destination: "example.com:443".into(),
            limit: limit(400, 0),
            bytes_out: 390,
            refused: 1,
            ..Default::default()
        };
        let limits = Limits::of(&[whole, destination]).unwrap();
        let refused: Vec<_> = limits.refused.into_iter().collect();
        let expected =
            [("bytes", 2), ("bytes_in_per_hour", 4), ("bytes_out_per_hour", 6), ("connections", 4)];
        assert_eq!(refused, expected);
        assert_eq!(limits.ratio, BTreeMap::from([("bytes_out_per_hour", 0.975)]));
        assert_eq!(Limits::of(&[]), None);
    }
}
