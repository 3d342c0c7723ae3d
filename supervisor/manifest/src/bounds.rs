//! `resources` of the operator's rules: what an agent may ask for in `spec.resources` at most. Pure; neighbours: `capability`, whose file
//! it is in, and `restrict`, which meets manifests with it.

use std::fmt::Display;

use aion_types::ByteSize;

use crate::error::Problem;
use crate::raw;
use crate::spec::{ConnectionRate, NetworkLimit};

const FIELD: &str = "spec.resources.network";
/// As in manifests.
const MIN_BYTES: u64 = 64 << 10;
const MAX_BYTES: u64 = 1 << 40;
const MAX_RATE: u32 = 10_000;

/// What an agent may use of its network at most, unless its manifest says less.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkBound {
    /// How much.
    pub limit: NetworkLimit,
    /// Where that stands: file and line.
    pub(crate) place: String,
}

impl NetworkBound {
    /// Nothing is bounded.
    pub(crate) const NONE: Self = Self {
        limit: NetworkLimit { bytes_out_per_hour: None, bytes_in_per_hour: None, connections: None },
        place: String::new(),
    };

    /// Why an agent may not have these limits.
    pub(crate) fn objections(&self, asked: &NetworkLimit) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut more = |line: &str, asked: &dyn Display, most: &dyn Display| {
            problems.push(Problem {
                file: String::new(),
                place: None,
                field: format!("{FIELD}.{line}"),
                message: format!("{asked} is more than {} gives, which is {most}", self.place),
                fix: format!("use {most} or less, or have the operator change it"),
            });
        };
        let most = &self.limit;
        for (line, asked, most) in [
            ("bytes_out_per_hour", asked.bytes_out_per_hour, most.bytes_out_per_hour),
            ("bytes_in_per_hour", asked.bytes_in_per_hour, most.bytes_in_per_hour),
        ] {
            if let (Some(asked), Some(most)) = (asked, most)
                && asked.0 > most.0
            {
                more(line, &asked, &most);
            }
        }
        if let (Some(asked), Some(most)) = (asked.connections, most.connections) {
            if in_an_hour(asked) > in_an_hour(most) {
                // The units may be different.
                let text = |rate: ConnectionRate| format!("{}: {}", unit(rate.per_minute), rate.count);
                more(unit(asked.per_minute), &text(asked), &text(most));
            }
            if asked.burst > most.burst {
                more("connections_burst", &asked.burst, &most.burst);
            }
        }
        problems
    }
}

fn in_an_hour(rate: ConnectionRate) -> u32 {
    rate.count.saturating_mul(if rate.per_minute { 60 } else { 3600 })
}

const fn unit(per_minute: bool) -> &'static str {
    if per_minute { "connections_per_minute" } else { "connections_per_second" }
}

/// Checks what is written; `wrong` takes the line's name, what is wrong and what to do.
pub(crate) fn network(
    given: &raw::NetworkCeiling,
    mut wrong: impl FnMut(&str, String, String),
) -> NetworkLimit {
    for (name, size) in
        [("bytes_out_per_hour", given.bytes_out_per_hour), ("bytes_in_per_hour", given.bytes_in_per_hour)]
    {
        if let Some(size) = size
            && !(MIN_BYTES..=MAX_BYTES).contains(&size.0)
        {
            let fix = format!("use {} to {}", ByteSize(MIN_BYTES), ByteSize(MAX_BYTES));
            wrong(name, format!("{size} is out of range"), fix);
        }
    }
    let rate = match (given.connections_per_second, given.connections_per_minute) {
        (Some(_), Some(_)) => {
            let why = "connections_per_second is there, too".to_owned();
            wrong(unit(true), why, "remove one of them".to_owned());
            None
        }
        (Some(count), None) => Some((count, false)),
        (None, Some(count)) => Some((count, true)),
        (None, None) => {
            if given.connections_burst.is_some() {
                let fix = format!("write {} or {}, too", unit(false), unit(true));
                wrong("connections_burst", "a burst is of a rate".to_owned(), fix);
            }
            None
        }
    };
    let connections = rate.map(|(count, per_minute)| {
        let mut number = |name: &str, given: u64, most: u32| match u32::try_from(given) {
            Ok(n) if (1..=most).contains(&n) => n,
            _ => {
                wrong(name, format!("{given} is out of range"), format!("use 1 to {most}"));
                1
            }
        };
        let count = number(unit(per_minute), count, MAX_RATE);
        // What was used is kept for an hour.
        let hourly = in_an_hour(ConnectionRate { count, per_minute, burst: 1 }).min(MAX_RATE);
        let burst = given.connections_burst.map_or(count, |burst| number("connections_burst", burst, hourly));
        ConnectionRate { count, per_minute, burst }
    });
    NetworkLimit {
        bytes_out_per_hour: given.bytes_out_per_hour,
        bytes_in_per_hour: given.bytes_in_per_hour,
        connections,
    }
}
