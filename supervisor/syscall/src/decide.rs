//! Whether a call may be made: manifest ∩ tenant ∩ global rules ∩ what the request names. Deny wins, and each step names its rule.
//!
//! A call needs two things. Its name must be on the agent's `syscalls:` list. And what it touches must be allowed: what a tool
//! requires (`network`, `gpu`, a path) is held by a capability; which tool, model, memory, secret or agent is given by the list of calls, and
//! is narrowed by `tool:`, `model:`, `memory:`, `secret:` and `agent:` rules as soon as the manifest has one of that family.

use aion_manifest::{Capability, CapabilityPolicy, Effective, Rule};
use serde::{Deserialize, Serialize};

use crate::name::SyscallName;
use crate::refusal::Refusal;

/// What the rules say about one agent.
#[derive(Debug, Clone, Copy)]
pub struct Authority<'a> {
    /// The agent's address, for the words of a denial.
    pub agent: &'a str,
    /// What its manifest asks for and the global rules allow.
    pub effective: &'a Effective,
    /// What its manifest asks for.
    pub allow: &'a [Rule],
    /// What its manifest takes back.
    pub deny: &'a [Rule],
    /// The calls that its manifest lists.
    pub syscalls: &'a [String],
    /// The global rules; none: all is allowed.
    pub global: Option<&'a CapabilityPolicy>,
    /// The tenant's rules; none: all is allowed.
    pub tenant: Option<&'a CapabilityPolicy>,
}

/// Something that a call touches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// What.
    pub capability: Capability,
    /// In the words of whoever needs it: `network`, required by tool web_search.
    pub word: String,
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The call.
    pub syscall: &'a SyscallName,
    /// What the request says that it needs.
    pub caps_required: &'a [(String, Vec<Capability>)],
    /// What it does need.
    pub needs: &'a [Need],
}

/// Where a rule stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// The door: who it is.
    Door,
    /// The manifest's list of calls.
    Syscalls,
    /// The manifest's capabilities, with the global rules.
    Manifest,
    /// The global rules alone.
    Global,
    /// The tenant's rules.
    Tenant,
    /// The request's own `caps_required`.
    Request,
    /// Whether what the caller has may leave this host.
    Privacy,
    /// A person.
    Approval,
    /// What it may cost.
    Budget,
}

/// One step of a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Where.
    pub layer: Layer,
    /// About what.
    pub about: String,
    /// What it said.
    pub allowed: bool,
    /// The rule, with its file.
    pub rule: String,
}

/// A decision, with all its steps up to the one that denied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// The end of it.
    pub allowed: bool,
    /// How it came to that.
    pub steps: Vec<Step>,
}

impl Decision {
    /// The denial as it is told; none when it is allowed.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        let last = self.steps.last().filter(|_| !self.allowed)?;
        let message = format!("{} is not allowed: {}", last.about, last.rule);
        Some(Refusal::denied(message, last.rule.clone()).hint(match last.layer {
            Layer::Syscalls => "list the call under spec.syscalls of the agent's manifest",
            Layer::Manifest => "grant it under spec.capabilities of the agent's manifest",
            Layer::Global => "have an operator change policies/agent.capabilities.yaml",
            Layer::Tenant => "have an operator change the tenant's rules: aionctl tenant set",
            Layer::Request => "name it in caps_required, or leave caps_required out",
            Layer::Privacy => "use one that runs on this host",
            Layer::Door | Layer::Approval | Layer::Budget => "",
        }))
    }
}

/// Decides.
#[must_use]
pub fn decide(authority: &Authority<'_>, ask: &Ask<'_>) -> Decision {
    let mut steps = Vec::new();
    let allowed = walk(authority, ask, &mut steps).is_some();
    Decision { allowed, steps }
}

/// Walks the layers; ends with none at the first denial.
fn walk(authority: &Authority<'_>, ask: &Ask<'_>, steps: &mut Vec<Step>) -> Option<()> {
    syscalls(authority, ask.syscall, steps)?;
    for (word, capabilities) in ask.caps_required {
        for capability in capabilities {
            let about = format!("{} (caps_required: {word})", capability);
            held(authority, capability, &about, steps)?;
        }
    }
    for need in ask.needs {
        let about = match need.word.as_str() {
            "" => need.capability.to_string(),
            word => format!("{} ({word})", need.capability),
        };
        held(authority, &need.capability, &about, steps)?;
        named(ask, need, &about, steps)?;
    }
    Some(())
}

fn step(steps: &mut Vec<Step>, layer: Layer, about: &str, allowed: bool, rule: String) -> Option<()> {
    steps.push(Step { layer, about: about.to_owned(), allowed, rule });
    allowed.then_some(())
}

fn syscalls(authority: &Authority<'_>, name: &SyscallName, steps: &mut Vec<Step>) -> Option<()> {
    let listed = authority.syscalls.iter().find(|pattern| name.is_covered_by(pattern));
    let (allowed, rule) = match listed {
        Some(pattern) => (true, format!("{}: spec.syscalls: {pattern}", authority.agent)),
        None => (false, format!("{}: spec.syscalls lists no {name}", authority.agent)),
    };
    step(steps, Layer::Syscalls, name.as_str(), allowed, rule)
}

/// Whether agent, global rules and tenant give a capability.
fn held(
    authority: &Authority<'_>,
    capability: &Capability,
    about: &str,
    steps: &mut Vec<Step>,
) -> Option<()> {
    let family = capability.family();
    let by_name = family.is_given_by_name();
    let narrowed = authority.allow.iter().any(|rule| rule.capability.family() == family);
    if by_name && !narrowed {
        if let Some(rule) = authority.deny.iter().find(|rule| rule.capability.denies(capability).is_some()) {
            return step(steps, Layer::Manifest, about, false, rule.to_string());
        }
        if let Some(global) = authority.global {
            let verdict = global.check(capability);
            step(steps, Layer::Global, about, verdict.allowed, verdict.rule)?;
        }
    } else {
        let verdict = authority.effective.check(capability);
        let rule = if verdict.allowed || authority.allow.iter().any(|r| r.capability.covers(capability)) {
            verdict.rule
        } else {
            format!("{}: spec.capabilities grants no {capability}", authority.agent)
        };
        step(steps, Layer::Manifest, about, verdict.allowed, rule)?;
    }
    if let Some(tenant) = authority.tenant {
        let verdict = tenant.check(capability);
        step(steps, Layer::Tenant, about, verdict.allowed, verdict.rule)?;
    }
    Some(())
}

/// A request that names capabilities is held to them.
fn named(ask: &Ask<'_>, need: &Need, about: &str, steps: &mut Vec<Step>) -> Option<()> {
    let family = need.capability.family();
    let by_name = family.is_given_by_name();
    let mut given = ask.caps_required.iter().flat_map(|(_, capabilities)| capabilities).peekable();
    if given.peek().is_none() {
        return Some(());
    }
    let mut same = ask
        .caps_required
        .iter()
        .flat_map(|(_, capabilities)| capabilities)
        .filter(|capability| !by_name || capability.family() == family)
        .peekable();
    if by_name && same.peek().is_none() {
        return Some(());
    }
    let allowed = same.any(|capability| capability.covers(&need.capability));
    let rule = if allowed { "request: caps_required" } else { "request: caps_required does not name it" };
    step(steps, Layer::Request, about, allowed, rule.to_owned())
}

#[cfg(test)]
mod tests {
    use aion_manifest::{effective, parse_capabilities};

    use super::*;

    struct World {
        global: CapabilityPolicy,
        tenant: Option<CapabilityPolicy>,
        agent: CapabilityPolicy,
        syscalls: Vec<String>,
    }

    impl World {
        fn new(allow: &[&str], deny: &[&str]) -> Self {
            Self {
                global: list(
                    &["network", "gpu", "tool:*", "model:*", "memory:*", "fs:read:/**"],
                    &["tool:rm"],
                    "policies/x.yaml",
                ),
                tenant: None,
                agent: list(allow, deny, "agent.yml"),
                syscalls: vec!["tool.invoke".to_owned(), "memory.*".to_owned()],
            }
        }

        fn decide(&self, call: &str, caps: &[&str], needs: &[&str]) -> Decision {
            let effective = effective(&self.global, self.agent.allow(), self.agent.deny());
            let authority = Authority {
                agent: "agent://t/a",
                effective: &effective,
                allow: self.agent.allow(),
                deny: self.agent.deny(),
                syscalls: &self.syscalls,
                global: Some(&self.global),
                tenant: self.tenant.as_ref(),
            };
            let caps: Vec<_> =
                caps.iter().map(|c| ((*c).to_owned(), parse_capabilities(c).unwrap())).collect();
            let needs: Vec<_> = needs
                .iter()
                .flat_map(|n| parse_capabilities(n).unwrap())
                .map(|capability| Need { capability, word: String::new() })
                .collect();
            let syscall = SyscallName::parse(call).unwrap();
            decide(&authority, &Ask { syscall: &syscall, caps_required: &caps, needs: &needs })
        }

        fn denial(&self, call: &str, caps: &[&str], needs: &[&str]) -> (Layer, String) {
            let decision = self.decide(call, caps, needs);
            assert!(!decision.allowed, "{decision:?}");
            assert!(decision.refusal().is_some());
            let last = decision.steps.last().unwrap();
            (last.layer, last.rule.clone())
        }
    }

    fn list(allow: &[&str], deny: &[&str], origin: &str) -> CapabilityPolicy {
        let own = |list: &[&str]| list.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        CapabilityPolicy::from_list(&own(allow), &own(deny), origin).unwrap()
    }

    #[test]
    fn a_tool_that_requires_the_network_needs_the_network() {
        let with = World::new(&["network"], &[]);
        assert!(with.decide("tool.invoke", &[], &["tool:web_search", "network"]).allowed);
        let without = World::new(&["gpu"], &[]);
        let (layer, rule) = without.denial("tool.invoke", &[], &["tool:web_search", "network"]);
        assert_eq!(layer, Layer::Manifest);
        assert_eq!(rule, "agent://t/a: spec.capabilities grants no net:connect:*:*");
        // One host is less than the network.
        let one = World::new(&["net:connect:a.com:443"], &[]);
        assert_eq!(one.denial("tool.invoke", &[], &["network"]).0, Layer::Manifest);
    }

    #[test]
    fn the_list_of_calls_is_a_list_of_what_is_allowed() {
        let world = World::new(&["network"], &[]);
        assert_eq!(world.denial("model.generate", &[], &[]).0, Layer::Syscalls);
        assert!(world.decide("memory.put", &[], &["memory:put:short"]).allowed);
        let mut none = World::new(&["network"], &[]);
        none.syscalls.clear();
        assert_eq!(none.denial("memory.put", &[], &[]).0, Layer::Syscalls);
    }

    #[test]
    fn rules_of_a_family_narrow_it() {
        let world = World::new(&["tool:web_*"], &[]);
        assert!(world.decide("tool.invoke", &[], &["tool:web_search"]).allowed);
        assert_eq!(world.denial("tool.invoke", &[], &["tool:shell"]).0, Layer::Manifest);
        let denied = World::new(&[], &["tool:web_search"]);
        assert_eq!(
            denied.denial("tool.invoke", &[], &["tool:web_search"]),
            (Layer::Manifest, "agent.yml: deny tool:web_search".to_owned())
        );
        assert!(denied.decide("tool.invoke", &[], &["tool:other"]).allowed);
    }

    #[test]
    fn a_secret_is_given_by_name_and_its_host_by_a_capability() {
        let mut world = World::new(&["network"], &[]);
        world.global = list(&["network", "secret:use:*"], &["secret:use:root"], "policies/x.yaml");
        world.syscalls.push("secret.use".to_owned());
        let needs = ["secret:use:github", "net:connect:api.github.com:443"];
        assert!(world.decide("secret.use", &[], &needs).allowed);
        assert_eq!(world.denial("secret.use", &[], &["secret:use:root"]).0, Layer::Global);
        world.agent = list(&["secret:use:other"], &[], "agent.yml");
        assert_eq!(world.denial("secret.use", &[], &needs).0, Layer::Manifest);
        world.agent = list(&["secret:use:github"], &[], "agent.yml");
        assert_eq!(world.denial("secret.use", &[], &needs).0, Layer::Manifest, "without the network");
    }

    #[test]
    fn the_global_rules_win() {
        for world in [World::new(&["tool:*"], &[]), World::new(&[], &[])] {
            let (_, rule) = world.denial("tool.invoke", &[], &["tool:rm"]);
            assert_eq!(rule, "policies/x.yaml: deny tool:rm");
        }
    }

    #[test]
    fn the_tenant_narrows_too() {
        let mut world = World::new(&["network"], &[]);
        world.tenant = Some(list(&["tool:web_search", "memory:*"], &[], "tenant t"));
        assert_eq!(world.denial("tool.invoke", &[], &["tool:web_search", "network"]).0, Layer::Tenant);
        assert!(world.decide("tool.invoke", &[], &["tool:web_search"]).allowed);
        assert_eq!(world.denial("tool.invoke", &[], &["tool:other"]).0, Layer::Tenant);
    }

    #[test]
    fn a_request_must_hold_what_it_names_and_is_held_to_it() {
        let world = World::new(&["network"], &[]);
        assert_eq!(world.denial("tool.invoke", &["gpu"], &[]).0, Layer::Manifest);
        assert!(world.decide("tool.invoke", &["network"], &["tool:x", "network"]).allowed);
        let both = World::new(&["network", "gpu"], &[]);
        assert_eq!(both.denial("tool.invoke", &["gpu"], &["tool:x", "network"]).0, Layer::Request);
        assert!(both.decide("tool.invoke", &["gpu"], &["tool:x"]).allowed);
        assert_eq!(both.denial("tool.invoke", &["tool:y"], &["tool:x"]).0, Layer::Request);
    }
}
