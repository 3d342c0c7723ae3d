//! Limits of the network: bounds, and that they are of a network and of hosts that the agent has.

use aion_egress::{Rule as EgressRule, Target};
use aion_types::ByteSize;

use super::Checker;
use crate::capability::{Capability, HostPattern, Rule, parse_rule};
use crate::error::quote;
use crate::raw;
use crate::spec::{ConnectionRate, Network, NetworkLimit, NetworkLimits};

const FIELD: &str = "spec.resources.network";
/// As the kernel has room for.
const MAX_DESTINATIONS: usize = 8;
const MAX_RATE: u32 = 10_000;
const KI: u64 = 1 << 10;
const TI: u64 = 1 << 40;

/// The limits of one place, as written.
struct Given {
    bytes_out: Option<ByteSize>,
    bytes_in: Option<ByteSize>,
    per_second: Option<u64>,
    per_minute: Option<u64>,
    burst: Option<u64>,
}

impl Checker<'_> {
    pub(super) fn network_limits(
        &mut self,
        given: Option<raw::NetworkLimits>,
        network: Network,
        allow: &[Rule],
    ) -> NetworkLimits {
        let Some(given) = given else { return NetworkLimits::default() };
        if given != raw::NetworkLimits::default() && network == Network::None {
            let text =
                "network none has nothing to limit; write network: egress or host, or leave the limits out";
            self.problem(FIELD, text);
            return NetworkLimits::default();
        }
        let whole = Given {
            bytes_out: given.bytes_out_per_hour,
            bytes_in: given.bytes_in_per_hour,
            per_second: given.connections_per_second,
            per_minute: given.connections_per_minute,
            burst: given.connections_burst,
        };
        NetworkLimits {
            whole: self.network_limit(FIELD, &whole),
            destinations: self.destinations(&given.destinations, network, allow),
        }
    }

    fn destinations(
        &mut self,
        given: &[raw::DestinationLimits],
        network: Network,
        allow: &[Rule],
    ) -> Vec<(String, NetworkLimit)> {
        let field = format!("{FIELD}.destinations");
        if !given.is_empty() && network != Network::Egress {
            let text = "single hosts are limited with network egress alone; write network: egress, or limit the agent as a whole";
            self.problem(&field, text);
            return Vec::new();
        }
        if given.len() > MAX_DESTINATIONS {
            let text = format!("there are {} hosts, at most {MAX_DESTINATIONS} are allowed", given.len());
            self.problem(&field, &text);
        }
        let mut checked: Vec<(String, NetworkLimit)> = Vec::new();
        for (i, one) in given.iter().enumerate().take(MAX_DESTINATIONS) {
            let place = format!("{field}[{i}]");
            let limits = Given {
                bytes_out: one.bytes_out_per_hour,
                bytes_in: one.bytes_in_per_hour,
                per_second: one.connections_per_second,
                per_minute: one.connections_per_minute,
                burst: one.connections_burst,
            };
            let limit = self.network_limit(&place, &limits);
            match host(&one.to, allow) {
                Ok(to) if checked.iter().any(|(known, _)| *known == to) => {
                    self.problem(&format!("{place}.to"), &format!("{to} is there twice; remove one of them"));
                }
                Ok(to) => checked.push((to, limit)),
                Err(text) => self.problem(&format!("{place}.to"), &text),
            }
        }
        checked
    }

    fn network_limit(&mut self, field: &str, given: &Given) -> NetworkLimit {
        let connections = match (given.per_second, given.per_minute) {
            (Some(_), Some(_)) => {
                let text = "connections_per_second is there, too; remove one of them";
                self.problem(&format!("{field}.connections_per_minute"), text);
                None
            }
            (Some(count), None) => Some(("connections_per_second", count, false)),
            (None, Some(count)) => Some(("connections_per_minute", count, true)),
            (None, None) => {
                if given.burst.is_some() {
                    let text =
                        "a burst is of a rate; write connections_per_second or connections_per_minute, too";
                    self.problem(&format!("{field}.connections_burst"), text);
                }
                None
            }
        };
        let connections = connections.map(|(name, count, per_minute)| {
            let count = self.number32(&format!("{field}.{name}"), Some(count), 1, 1, MAX_RATE);
            let at_once = format!("{field}.connections_burst");
            let burst = self.number32(&at_once, given.burst, count, 1, MAX_RATE);
            // What was used is kept for an hour.
            let hourly = count.saturating_mul(if per_minute { 60 } else { 3600 });
            if count > 0 && burst > hourly && burst <= MAX_RATE {
                let text =
                    format!("{burst} is more than an hour of {name}: {count} gives; use 1 to {hourly}");
                self.problem(&at_once, &text);
            }
            ConnectionRate { count, per_minute, burst }
        });
        NetworkLimit {
            bytes_out_per_hour: self.hourly(&format!("{field}.bytes_out_per_hour"), given.bytes_out),
            bytes_in_per_hour: self.hourly(&format!("{field}.bytes_in_per_hour"), given.bytes_in),
            connections,
        }
    }

    /// With less no connection would be worth beginning; more is no limit.
    fn hourly(&mut self, field: &str, given: Option<ByteSize>) -> Option<ByteSize> {
        let size = given?;
        if !(64 * KI..=TI).contains(&size.0) {
            let text = format!("{size} is out of range; use {} to {}", ByteSize(64 * KI), ByteSize(TI));
            self.problem(field, &text);
        }
        Some(size)
    }
}

/// The host of a limit as the capabilities have it, if they have it.
fn host(to: &str, allow: &[Rule]) -> Result<String, String> {
    let hosts = || {
        allow.iter().filter_map(|rule| match &rule.capability {
            Capability::Net { host, port } => Some((host, port)),
            _ => None,
        })
    };
    let (_, wanted) = parse_rule(&format!("net:connect:{to}"))?;
    let wanted = wanted.into_iter().find(|wanted| allow.iter().any(|rule| rule.capability == *wanted));
    let Some(Capability::Net { host, port }) = wanted else {
        let known: Vec<String> =
            hosts().take(MAX_DESTINATIONS).map(|(host, port)| format!("{host}:{port}")).collect();
        let fix = match known.is_empty() {
            true => "the agent has none".to_owned(),
            false => format!("write one of: {}", known.join(", ")),
        };
        return Err(format!("{} is no host of a net:connect: capability; {fix}", quote(to)));
    };
    let read = format!("{host}:{port}").parse::<EgressRule>();
    let is_name = read.is_ok_and(|rule| matches!(rule.target, Target::Name(_) | Target::Below(_)));
    // Wherever a name leads is reached by such a rule already, without the name, and would count for nobody.
    let everywhere = hosts()
        .find(|(other, on)| **other == HostPattern::Any && (on.covers(&port) || port.covers(on)))
        .filter(|_| is_name);
    if let Some((other, on)) = everywhere {
        return Err(format!(
            "net:connect:{other}:{on} reaches the addresses of {host} without its name, so that they cannot be told apart; limit {other}:{on} instead, or remove that capability"
        ));
    }
    Ok(format!("{host}:{port}"))
}
