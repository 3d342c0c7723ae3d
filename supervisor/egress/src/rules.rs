//! All rules of an agent: what is in the kernel's table from the start, what a name adds.

use std::net::IpAddr;

use crate::special::{Kind, block_of};
use crate::{Cidr, Name, Rule, Target};

/// Rules of one agent, at most: with what names resolve to they must fit into 64 KiB of kernel memory.
pub const MAX_RULES: usize = 64;

/// An entry of the kernel's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry {
    /// Which addresses.
    pub cidr: Cidr,
    /// Which port; 0 is all of them.
    pub port: u16,
    /// How narrow a special block is that the rule names, in bits; 0 when it names none, and reaches public addresses alone.
    pub named: u8,
    /// For which destinations it counts, see [`Rules::counting`]: a bit each.
    pub counted: u32,
}

/// What an agent may reach.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules {
    rules: Vec<Rule>,
    /// Destinations with limits or counters of their own, in the order of the manifest.
    destinations: Vec<Rule>,
}

impl Rules {
    /// From rules that were read.
    ///
    /// # Errors
    /// There are too many, or one names what no rule may reach.
    pub fn new(mut rules: Vec<Rule>) -> Result<Self, String> {
        rules.sort();
        rules.dedup();
        if rules.len() > MAX_RULES {
            return Err(format!(
                "there are {} rules for the network, at most {MAX_RULES} are allowed",
                rules.len()
            ));
        }
        for rule in &rules {
            let Target::Block(cidr) = rule.target else { continue };
            if cidr.fixed_bits() < Cidr::all_v4().fixed_bits() && cidr.covers(Cidr::all_v4()) {
                return Err(format!("{rule} holds all of IPv4, too; write 0.0.0.0/0 and [2000::/3]"));
            }
            match block_of(cidr).map(|block| block.kind) {
                Some(Kind::NoPlace) => {
                    return Err(format!("{rule} names {}; name hosts", Kind::NoPlace.as_str()));
                }
                Some(Kind::Loopback) => {
                    return Err(format!(
                        "{rule} names a loopback address: an agent has its own, and never reaches the host's; remove the rule"
                    ));
                }
                _ => {}
            }
        }
        Ok(Self { rules, destinations: Vec::new() })
    }

    /// The same, with destinations that entries count for. The first is the lowest bit; there are at most 32.
    #[must_use]
    pub fn counting(self, destinations: Vec<Rule>) -> Self {
        Self { destinations, ..self }
    }

    /// Reads rules, each as `HOST:PORT`.
    ///
    /// # Errors
    /// The first that is wrong.
    pub fn parse<T: AsRef<str>>(texts: &[T]) -> Result<Self, String> {
        Self::new(texts.iter().map(|t| t.as_ref().parse()).collect::<Result<_, _>>()?)
    }

    /// The rules, in order.
    #[must_use]
    pub fn all(&self) -> &[Rule] {
        &self.rules
    }

    /// The same without some of them.
    #[must_use]
    pub fn without(&self, withheld: &[Rule]) -> Self {
        Self {
            rules: self.rules.iter().filter(|rule| !withheld.contains(rule)).cloned().collect(),
            destinations: self.destinations.clone(),
        }
    }

    /// The destinations that an entry counts for: those of addresses that hold all of it, and those that have the name that it came from.
    fn counted(&self, cidr: Cidr, port: u16, name: Option<&Name>) -> u32 {
        let counts = |rule: &Rule| {
            let on_port = rule.port.is_none_or(|own| own == port);
            on_port && (rule.holds(cidr) || name.is_some_and(|name| rule.names(name)))
        };
        let bits = (0u32..32).zip(&self.destinations);
        bits.filter(|(_, rule)| counts(rule)).fold(0, |bits, (bit, _)| bits | (1 << bit))
    }

    /// What is in the kernel's table while the agent runs.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        let mut entries: Vec<Entry> = self
            .rules
            .iter()
            .flat_map(|rule| {
                let port = rule.port.unwrap_or(0);
                let blocks: Vec<Cidr> = match rule.target {
                    Target::Any => vec![Cidr::all_v4(), Cidr::global_v6()],
                    Target::Block(cidr) => vec![cidr],
                    Target::Name(_) | Target::Below(_) => Vec::new(),
                };
                let named = |cidr| block_of(cidr).map_or(0, |block| block.cidr.fixed_bits());
                blocks.into_iter().map(move |cidr| {
                    let counted = self.counted(cidr, port, None);
                    Entry { cidr, port, named: named(cidr), counted }
                })
            })
            .collect();
        entries.sort();
        entries.dedup();
        // The kernel finds the narrowest block alone: what a wider one of the same port names, it must name, too.
        let all = entries.clone();
        for entry in &mut entries {
            let wider = all.iter().filter(|e| e.port == entry.port && e.cidr.covers(entry.cidr));
            entry.named = wider.map(|e| e.named).max().unwrap_or(0).max(entry.named);
        }
        entries
    }

    /// Whether the name may be looked up.
    #[must_use]
    pub fn allows_name(&self, name: &Name) -> bool {
        self.rules.iter().any(|rule| rule.names(name))
    }

    /// Whether any name may be.
    #[must_use]
    pub fn has_names(&self) -> bool {
        self.rules.iter().any(|rule| !matches!(rule.target, Target::Block(_)))
    }

    /// What an address adds that an allowed name resolved to. `None`: the agent must not hear of the address. An empty list:
    /// rules of addresses say already on which ports it is reached.
    #[must_use]
    pub fn admit(&self, name: &Name, address: IpAddr) -> Option<Vec<Entry>> {
        if !self.allows_name(name) {
            return None;
        }
        let cidr = Cidr::one(address);
        if block_of(cidr).is_some() {
            // Only a rule of addresses reaches it, whatever the name says; `named` is judged as the kernel does.
            let special = block_of(cidr).map_or(0, |block| block.cidr.fixed_bits());
            let reached = self.entries().iter().any(|e| e.cidr.covers(cidr) && e.named >= special);
            return reached.then(Vec::new);
        }
        let fixed = self.entries();
        let known = |port| fixed.iter().any(|e| (e.port == port || e.port == 0) && e.cidr.covers(cidr));
        let mut entries: Vec<Entry> = self
            .rules
            .iter()
            .filter(|rule| rule.target != Target::Any && rule.names(name))
            .map(|rule| rule.port.unwrap_or(0))
            .filter(|port| !known(*port))
            .map(|port| Entry { cidr, port, named: 0, counted: self.counted(cidr, port, Some(name)) })
            .collect();
        entries.sort();
        entries.dedup();
        Some(entries)
    }
}

impl Rule {
    fn names(&self, name: &Name) -> bool {
        match &self.target {
            Target::Any => true,
            Target::Name(own) => own == name,
            Target::Below(domain) => name.is_below(domain),
            Target::Block(_) => false,
        }
    }

    /// Whether it reaches all of a block, as a rule of addresses.
    fn holds(&self, cidr: Cidr) -> bool {
        match self.target {
            Target::Any => Cidr::all_v4().covers(cidr) || Cidr::global_v6().covers(cidr),
            Target::Block(own) => own.covers(cidr),
            Target::Name(_) | Target::Below(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rules(texts: &[&str]) -> Rules {
        Rules::parse(texts).unwrap_or_else(|e| panic!("{e}"))
    }

    fn admitted(rules: &Rules, name: &str, address: &str) -> Option<Vec<String>> {
        let entries = rules.admit(&Name::parse(name).unwrap(), address.parse().unwrap())?;
        Some(entries.iter().map(|e| format!("{}:{}", e.cidr, e.port)).collect())
    }

    #[test]
    fn a_name_adds_its_addresses_on_its_ports() {
        let r = rules(&["api.example.com:443", "*.example.com:80", "other.org:*"]);
        assert_eq!(admitted(&r, "api.example.com", "8.8.8.8").unwrap(), ["8.8.8.8:80", "8.8.8.8:443"]);
        assert_eq!(admitted(&r, "x.example.com", "2606::1").unwrap(), ["[2606::1]:80"]);
        assert_eq!(admitted(&r, "other.org", "8.8.8.8").unwrap(), ["8.8.8.8:0"]);
        assert_eq!(admitted(&r, "example.com", "8.8.8.8"), None);
        assert_eq!(admitted(&r, "api.example.com.evil.org", "8.8.8.8"), None);
    }

    #[test]
    fn a_name_reaches_no_special_address_but_where_a_block_names_it() {
        let r = rules(&["in.example.com:443", "10.1.0.0/16:8080", "169.254.0.0/16:80"]);
        for address in
            ["127.0.0.1", "10.2.0.1", "169.254.169.254", "::1", "fe80::1", "::ffff:10.2.0.1", "224.0.0.1"]
        {
            assert_eq!(admitted(&r, "in.example.com", address), None, "{address}");
        }
        assert_eq!(admitted(&r, "in.example.com", "10.1.2.3").unwrap(), [""; 0]);
        assert_eq!(admitted(&r, "in.example.com", "::ffff:10.1.2.3").unwrap(), [""; 0]);
    }

    #[test]
    fn everything_is_public_addresses_and_every_name() {
        let r = rules(&["*:443", "api.example.com:80"]);
        assert!(r.entries().iter().all(|e| e.named == 0 && e.port == 443));
        assert_eq!(admitted(&r, "whatever.org", "8.8.8.8").unwrap(), [""; 0]);
        assert_eq!(admitted(&r, "api.example.com", "8.8.8.8").unwrap(), ["8.8.8.8:80"]);
        assert_eq!(admitted(&r, "whatever.org", "10.0.0.1"), None);
    }

    #[test]
    fn blocks_name_what_they_lie_in() {
        let named = |text: &str| rules(&[text]).entries()[0].named;
        assert_eq!(named("10.1.0.0/16:80"), 96 + 8);
        assert_eq!(named("169.254.0.0/16:80"), 96 + 16);
        assert_eq!(named("169.254.169.254:80"), 128);
        assert_eq!(named("0.0.0.0/0:80"), 0);
        assert_eq!(named("8.8.8.8:53"), 0);
        assert_eq!(named("[fd00::/8]:80"), 7);
    }

    #[test]
    fn what_no_rule_may_reach_is_refused() {
        for text in [
            "0.0.0.0:80",
            "224.0.0.1:80",
            "[ff02::1]:80",
            "127.0.0.1:80",
            "[::1]:80",
            "[::ffff:127.0.0.1]:1",
            "[::/0]:80",
            "[::/2]:80",
        ] {
            assert!(Rules::parse(&[text]).is_err(), "{text}");
        }
        let many: Vec<String> = (0..=MAX_RULES).map(|i| format!("h{i}:1")).collect();
        assert!(Rules::parse(&many).is_err());
    }

    #[test]
    fn entries_count_for_the_destinations_that_hold_them() {
        let texts = [
            "10.0.0.0/8:80",
            "10.1.0.0/16:80",
            "10.2.0.0/16:*",
            "api.example.com:443",
            "*.example.com:443",
            "o.org:*",
        ];
        let destinations = ["10.0.0.0/8:80", "api.example.com:443", "10.2.0.0/16:*", "o.org:*"];
        let r = rules(&texts).counting(destinations.iter().map(|d| d.parse().unwrap()).collect());
        let fixed = |block: &str, port: u16| {
            let cidr = Cidr::parse(block).unwrap();
            r.entries().into_iter().find(|e| e.cidr == cidr && e.port == port).unwrap().counted
        };
        assert_eq!(fixed("10.0.0.0/8", 80), 0b1);
        assert_eq!(fixed("10.1.0.0/16", 80), 0b1, "the kernel finds the narrowest block alone");
        assert_eq!(fixed("10.2.0.0/16", 0), 0b100);
        let of = |name: &str| {
            let added = r.admit(&Name::parse(name).unwrap(), "8.8.8.8".parse().unwrap()).unwrap();
            added.iter().map(|e| e.counted).collect::<Vec<_>>()
        };
        assert_eq!(of("api.example.com"), [0b10]);
        assert_eq!(of("x.example.com"), [0]);
        assert_eq!(of("o.org"), [0b1000]);
        let kept = r.without(&["10.1.0.0/16:80".parse().unwrap()]);
        assert_eq!(kept.entries().iter().map(|e| e.counted).fold(0, |all, bits| all | bits), 0b101);
    }

    proptest! {
        #[test]
        fn what_a_name_adds_is_public(bits: u128) {
            let address = IpAddr::from(std::net::Ipv6Addr::from_bits(bits));
            let r = rules(&["a.b:443", "10.0.0.0/8:1"]);
            let name = Name::parse("a.b").unwrap();
            for entry in r.admit(&name, address).unwrap_or_default() {
                prop_assert!(block_of(entry.cidr).is_none());
            }
        }
    }
}
