//! `spec.resources.network`: what is accepted, and what is said of the rest.

use aion_manifest::ConnectionRate;
use aion_types::ByteSize;

use crate::{bad, good, parse};

const MI: u64 = 1 << 20;

const ALL: &str = "network: egress
capabilities: ['net:connect:api.example.com:443', 'net:connect:10.0.0.0/8:*']
resources:
  network:
    bytes_out_per_hour: 500Mi
    bytes_in_per_hour: 1Gi
    connections_per_second: 5
    destinations:
      - {to: 'api.example.com:443', bytes_out_per_hour: 100Mi, connections_per_minute: 30, connections_burst: 3}
      - {to: '10.0.0.0/8:*'}";

#[test]
fn limits_are_of_the_agent_and_of_hosts_that_it_has() {
    let spec = good(ALL);
    let limits = &spec.resources.network;
    assert_eq!(limits.whole.bytes_out_per_hour, Some(ByteSize(500 * MI)));
    assert_eq!(limits.whole.bytes_in_per_hour, Some(ByteSize(1024 * MI)));
    // As many at once as in the second, unless it is said otherwise.
    let rate = ConnectionRate { count: 5, per_minute: false, burst: 5 };
    assert_eq!(limits.whole.connections, Some(rate));
    let [(api, first), (block, second)] = &limits.destinations[..] else { panic!("{limits:?}") };
    assert_eq!((api.as_str(), block.as_str()), ("api.example.com:443", "10.0.0.0/8:*"));
    let rate = ConnectionRate { count: 30, per_minute: true, burst: 3 };
    assert_eq!((first.bytes_out_per_hour, first.connections), (Some(ByteSize(100 * MI)), Some(rate)));
    assert_eq!(*second, Default::default(), "it is counted by itself");
    let again = parse(&spec.to_yaml()).unwrap();
    assert_eq!(again.resources, spec.resources);
    assert!(good("").resources.network.is_none());
    assert!(good("resources: {network: {}}").resources.network.is_none());
    let host =
        "network: host\ncapabilities: {network: true}\nresources: {network: {bytes_out_per_hour: 64Ki}}";
    assert!(!good(host).resources.network.is_none());
}

#[test]
fn each_mistake_is_named_with_its_field_and_what_to_do() {
    let egress = |limits: &str| {
        format!(
            "network: egress\ncapabilities: ['net:connect:a.example:443']\nresources: {{network: {{{limits}}}}}"
        )
    };
    for (spec, parts) in [
        ("resources: {network: {bytes_out_per_hour: 1Mi}}".to_owned(), ["spec.resources.network", "nothing to limit"]),
        (egress("bytes_out_per_hour: 1Ki"), ["bytes_out_per_hour", "use 64Ki to 1Ti"]),
        (egress("bytes_in_per_hour: 2Ti"), ["bytes_in_per_hour", "use 64Ki to 1Ti"]),
        (egress("bytes_per_hour: 1Mi"), ["bytes_per_hour", "bytes_"]),
        (egress("connections_per_second: 0"), ["connections_per_second", "use 1 to 10000"]),
        (egress("connections_per_minute: 10001"), ["connections_per_minute", "use 1 to 10000"]),
        (
            egress("connections_per_second: 5, connections_per_minute: 5"),
            ["connections_per_minute", "remove one of them"],
        ),
        (
            egress("connections_per_minute: 2, connections_burst: 121"),
            ["connections_burst", "more than an hour of connections_per_minute: 2 gives; use 1 to 120"],
        ),
        (egress("connections_burst: 5"), ["connections_burst", "a burst is of a rate"]),
        (egress("destinations: [{to: 'b.example:443'}]"), ["destinations[0].to", "write one of: a.example:443"]),
        (egress("destinations: [{to: 'a.example'}]"), ["destinations[0].to", "a.example"]),
        (
            egress("destinations: [{to: 'a.example:443'}, {to: 'a.example:443'}]"),
            ["destinations[1].to", "is there twice"],
        ),
        (egress("destinations: [{bytes_out_per_hour: 1Mi}]"), ["destinations", "to"]),
        (
            egress("destinations: [{to: 'a.example:443', connections_per_second: 5, connections_burst: 0}]"),
            ["destinations[0].connections_burst", "use 1 to 10000"],
        ),
        (
            "network: host\ncapabilities: {network: true}\nresources: {network: {destinations: [{to: '*:*'}]}}"
                .to_owned(),
            ["spec.resources.network.destinations", "network egress alone"],
        ),
        (
            "network: egress\ncapabilities: ['net:connect:a.example:443', 'net:connect:*:443']\nresources: {network: {destinations: [{to: 'a.example:443'}]}}".to_owned(),
            ["destinations[0].to", "limit *:443 instead"],
        ),
    ] {
        let said = bad(&spec);
        for part in parts {
            assert!(said.contains(part), "{part:?} is not in\n{said}\nof\n{spec}");
        }
    }
    let many: Vec<String> = (0..9).map(|i| format!("net:connect:h{i}.example:443")).collect();
    let hosts: Vec<String> = (0..9).map(|i| format!("{{to: 'h{i}.example:443'}}")).collect();
    let spec = format!(
        "network: egress\ncapabilities: [{}]\nresources: {{network: {{destinations: [{}]}}}}",
        many.iter().map(|rule| format!("'{rule}'")).collect::<Vec<_>>().join(", "),
        hosts.join(", ")
    );
    assert!(bad(&spec).contains("at most 8 are allowed"));
    good(&egress("connections_per_minute: 2, connections_burst: 120"));
    // Everything may be limited as the one destination that it is.
    good(
        "network: egress\ncapabilities: {network: true}\nresources: {network: {destinations: [{to: '*:*', bytes_out_per_hour: 1Mi}]}}",
    );
}
