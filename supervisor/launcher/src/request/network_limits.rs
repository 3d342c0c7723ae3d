//! What an agent may use of its network: as a whole, and with single destinations.

use aion_egress::{Rule, Rules};
use aion_launcher_proto::v1;
use aion_probes::{ConnectionRate, NetLimits};
use aion_types::AgentId;

use crate::Failure;
use crate::request::field::{self, Checked};

/// As the probes have room for.
const MAX_DESTINATIONS: usize = 8;
/// The least that lets a connection begin and do something.
const MIN_BYTES: u64 = 64 << 10;
/// Far below what the kernel can count.
const MAX_BYTES: u64 = 1 << 40;
const MAX_RATE: u32 = 10_000;

/// What an agent may use of its network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkLimits {
    /// Whose use it is.
    pub account: AgentId,
    /// In all.
    pub whole: NetLimits,
    /// With single destinations.
    pub destinations: Vec<DestinationLimits>,
}

/// What an agent may use with a destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DestinationLimits {
    /// One of its rules.
    pub to: Rule,
    /// How much; nothing is limited where it is only counted.
    pub limits: NetLimits,
}

impl NetworkLimits {
    pub(crate) fn check(launch: &v1::Launch, id: &AgentId, egress: &Rules) -> Checked<Option<Self>> {
        const FIELD: &str = "network_limits";
        let Some(given) = &launch.network_limits else { return Ok(None) };
        if launch.network() == v1::Network::None {
            return Err(Failure::field(FIELD, "network mode none has nothing to limit"));
        }
        if given.destinations.len() > MAX_DESTINATIONS {
            return Err(Failure::field(FIELD, format!("more than {MAX_DESTINATIONS} destinations")));
        }
        let mut destinations: Vec<DestinationLimits> = Vec::with_capacity(given.destinations.len());
        for one in &given.destinations {
            let refuse = |why: &str| Err(Failure::field(FIELD, format!("destination {:?} {why}", one.to)));
            let Some(to) = one.to.parse::<Rule>().ok().filter(|rule| egress.all().contains(rule)) else {
                return refuse("is none of the agent's rules");
            };
            if destinations.iter().any(|known| known.to == to) {
                return refuse("is there twice");
            }
            destinations.push(DestinationLimits { to, limits: limits(one.limit.as_ref())? });
        }
        let account = match given.account.as_str() {
            "" => id.clone(),
            account => field::agent_id(account)?,
        };
        Ok(Some(Self { account, whole: limits(given.all.as_ref())?, destinations }))
    }

    /// In the order of the probes: in all, then each destination.
    #[must_use]
    pub fn all(&self) -> Vec<NetLimits> {
        let destinations = self.destinations.iter().map(|one| one.limits);
        std::iter::once(self.whole).chain(destinations).collect()
    }
}

fn limits(given: Option<&v1::NetworkLimit>) -> Checked<NetLimits> {
    let given = given.cloned().unwrap_or_default();
    Ok(NetLimits {
        bytes_out: bytes("network_limits.bytes_out_per_hour", given.bytes_out_per_hour)?,
        bytes_in: bytes("network_limits.bytes_in_per_hour", given.bytes_in_per_hour)?,
        connections: connections(given)?,
    })
}

fn bytes(field: &str, value: u64) -> Checked<Option<u64>> {
    match value {
        0 => Ok(None),
        MIN_BYTES..=MAX_BYTES => Ok(Some(value)),
        _ => {
            let why = format!("{value} is not within {MIN_BYTES} and {MAX_BYTES} (0 is no limit)");
            Err(Failure::field(field, why))
        }
    }
}

fn connections(given: v1::NetworkLimit) -> Checked<Option<ConnectionRate>> {
    let (second, minute) = (given.connections_per_second, given.connections_per_minute);
    let burst = given.connections_burst;
    let (count, per_minute) = match (second, minute) {
        (0, 0) if burst == 0 => return Ok(None),
        (0, 0) => {
            let why = "a burst is of a rate, and there is none";
            return Err(Failure::field("network_limits.connections_burst", why));
        }
        (count, 0) => (count, false),
        (0, count) => (count, true),
        _ => {
            let why = "connections are limited by the second or by the minute";
            return Err(Failure::field("network_limits.connections_per_minute", why));
        }
    };
    if count > MAX_RATE || !(1..=MAX_RATE).contains(&burst) {
        let why = format!("a rate and its burst are within 1 and {MAX_RATE}");
        return Err(Failure::field("network_limits.connections_burst", why));
    }
    // What was used is kept for an hour.
    let hourly = count.saturating_mul(if per_minute { 60 } else { 3600 });
    if burst > hourly {
        let why = format!("{burst} is more than the rate gives in an hour, which is {hourly}");
        return Err(Failure::field("network_limits.connections_burst", why));
    }
    Ok(Some(ConnectionRate { count, per_minute, burst }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Launch;

    fn launch(limits: v1::NetworkLimits) -> v1::Launch {
        v1::Launch {
            network: v1::Network::Egress.into(),
            egress: vec!["api.example.com:443".into(), "10.0.0.0/8:80".into()],
            network_limits: Some(limits),
            ..crate::request::tests_usual()
        }
    }

    fn limit() -> v1::NetworkLimit {
        v1::NetworkLimit {
            bytes_out_per_hour: 1 << 20,
            connections_per_minute: 30,
            connections_burst: 5,
            ..Default::default()
        }
    }

    fn to(to: &str) -> v1::DestinationLimit {
        v1::DestinationLimit { to: to.into(), limit: Some(limit()) }
    }

    #[test]
    fn limits_are_those_of_the_agent_and_of_its_own_rules() {
        let given = v1::NetworkLimits { destinations: vec![to("10.0.0.0/8:80")], ..Default::default() };
        let checked = Launch::check(&launch(given)).unwrap();
        let limits = checked.network_limits.unwrap();
        assert_eq!(limits.account, checked.id);
        let [whole, one] = limits.all()[..] else { panic!() };
        assert_eq!(whole, NetLimits::default());
        let rate = ConnectionRate { count: 30, per_minute: true, burst: 5 };
        assert_eq!((one.bytes_out, one.bytes_in, one.connections), (Some(1 << 20), None, Some(rate)));
        assert_eq!(checked.egress.entries()[0].counted, 1);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let all = |change: fn(&mut v1::NetworkLimit)| {
            let mut all = limit();
            change(&mut all);
            v1::NetworkLimits { all: Some(all), ..Default::default() }
        };
        let many = (0..9).map(|_| to("10.0.0.0/8:80")).collect();
        let wrong = [
            all(|l| l.bytes_out_per_hour = 1),
            all(|l| l.bytes_in_per_hour = 1 << 50),
            all(|l| l.connections_per_second = 1),
            all(|l| l.connections_burst = 0),
            all(|l| l.connections_burst = 30 * 60 + 1),
            all(|l| l.connections_per_minute = 0),
            all(|l| l.connections_per_minute = 20_000),
            v1::NetworkLimits { destinations: vec![to("10.0.0.0/9:80")], ..Default::default() },
            v1::NetworkLimits {
                destinations: vec![to("10.0.0.0/8:80"), to("10.0.0.0/8:80")],
                ..Default::default()
            },
            v1::NetworkLimits { destinations: many, ..Default::default() },
            v1::NetworkLimits { account: "../x".into(), ..Default::default() },
        ];
        for limits in wrong {
            assert!(Launch::check(&launch(limits.clone())).is_err(), "{limits:?}");
        }
        let none = v1::Launch {
            network: v1::Network::None.into(),
            egress: Vec::new(),
            ..launch(v1::NetworkLimits::default())
        };
        assert!(Launch::check(&none).is_err());
    }
}
