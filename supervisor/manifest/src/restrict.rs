//! The global capability rules over one agent: what is left, or which rule forbids it.

use aion_egress::{Rule as EgressRule, Target, block_of};
use aion_types::ErrorCode;

use crate::capability::{
    Access, Capability, CapabilityPolicy, Effective, PathPattern, Rule, effective, parse_capabilities,
};
use crate::error::{Error, Place, Problem};
use crate::spec::{AgentSpec, Network, Rootfs};

mod files;

pub use files::withheld_of_launch;

/// The field of the host folder that stands for `/workspace`.
const WORKSPACE: &str = "spec.workspace";

impl AgentSpec {
    /// Meets what the agent asks for with what agents may have.
    ///
    /// Files, programs, devices, the GPU and the network of modes `host` and `egress` are given by the sandbox as a whole or not at all: when a global rule takes
    /// away any part of them, the agent is refused. What the kernel API decides call by call may be narrowed. Host folders at
    /// `/workspace` and `/` are given as a whole, too, and need the same rules as if they were asked for by `fs:`.
    ///
    /// # Errors
    /// `POLICY_DENIED`, with the place of each request in the manifest and of the rule that denies it.
    pub fn restrict(&self, global: &CapabilityPolicy) -> Result<Effective, Error> {
        let result = effective(global, &self.allow, &self.deny);
        let mut problems = self.wish().refused(&result, |_| true);
        problems.extend(self.wish().taken_in_part(&result, global));
        problems.extend(self.folder_denials(global));
        problems.extend(global.network().objections(&self.resources.network.whole));
        if problems.is_empty() { Ok(result) } else { Err(Error::new(ErrorCode::PolicyDenied, problems)) }
    }

    /// Meets what the sandbox gives the agent with further bounds. What the kernel API decides call by call is left to it.
    ///
    /// # Errors
    /// As [`AgentSpec::restrict`].
    pub fn restrict_sandbox(&self, bounds: &CapabilityPolicy) -> Result<(), Error> {
        let problems = self.beyond(bounds, |_| true);
        if problems.is_empty() { Ok(()) } else { Err(Error::new(ErrorCode::PolicyDenied, problems)) }
    }

    /// What the sandbox of a running agent gives it beyond bounds, and cannot take back while it runs: everything but the hosts of network
    /// mode `egress`, its devices and, where the kernel can withhold them (`holds_files`), its files and programs.
    #[must_use]
    pub fn beyond_while_running(&self, bounds: &CapabilityPolicy, holds_files: bool) -> Vec<Problem> {
        let is_taken_back = |c: &Capability| match c {
            Capability::Net { .. } => self.network == Network::Egress,
            Capability::Fs { .. } | Capability::Exec(_) => holds_files,
            Capability::Device { .. } => true,
            _ => false,
        };
        let mut problems = self.beyond_rules(bounds, |capability| !is_taken_back(capability));
        let folders = self.folders().filter(|(field, _)| !(holds_files && *field == WORKSPACE));
        problems.extend(folders.filter_map(|(field, wanted)| folder_denial(field, &wanted, bounds)));
        problems.extend(bounds.network().objections(&self.resources.network.whole));
        problems
    }

    fn beyond(&self, bounds: &CapabilityPolicy, counts: impl Fn(&Capability) -> bool) -> Vec<Problem> {
        let mut problems = self.beyond_rules(bounds, counts);
        problems.extend(self.folder_denials(bounds));
        problems
    }

    fn beyond_rules(&self, bounds: &CapabilityPolicy, counts: impl Fn(&Capability) -> bool) -> Vec<Problem> {
        let result = effective(bounds, &self.allow, &self.deny);
        let wish = self.wish();
        let counted: Vec<Rule> = self.allow.iter().filter(|r| counts(&r.capability)).cloned().collect();
        let mut problems = wish.refused(&result, |c| wish.is_given_whole(c) && counts(c));
        let partly = Wish { allow: &counted, ..wish };
        problems.extend(partly.taken_in_part(&result, bounds));
        problems
    }

    fn wish(&self) -> Wish<'_> {
        Wish { allow: &self.allow, deny: &self.deny, network: self.network }
    }

    fn folder_denials(&self, global: &CapabilityPolicy) -> impl Iterator<Item = Problem> {
        self.folders().filter_map(|(field, wanted)| folder_denial(field, &wanted, global))
    }

    /// The host folders that stand for `/workspace` and `/`, with the field that names each and what it takes.
    fn folders(&self) -> impl Iterator<Item = (&'static str, Capability)> {
        let whole = |path: &std::path::Path, access| Capability::Fs {
            access,
            path: PathPattern::subtree_of(&path.to_string_lossy()),
        };
        let access = if self.workspace.read_only { Access::Read } else { Access::Write };
        let workspace = self.workspace.directory.as_deref().map(|path| (WORKSPACE, whole(path, access)));
        let rootfs = match &self.rootfs {
            Rootfs::Host => None,
            Rootfs::Directory(path) => Some(("spec.rootfs", whole(path, Access::Read))),
        };
        workspace.into_iter().chain(rootfs)
    }
}

/// The hosts of an agent with network mode `egress` that bounds do not leave it, and why: of `HOST:PORT`, as it was launched with them.
#[must_use]
pub fn withheld_hosts(hosts: &[String], bounds: &CapabilityPolicy) -> Vec<(String, String)> {
    let why = |host: &String| {
        let parsed = match parse_capabilities(&format!("net:connect:{host}")) {
            Ok(parsed) => parsed,
            Err(message) => return Some(message),
        };
        let allow: Vec<Rule> = parsed
            .into_iter()
            .map(|capability| Rule { capability, allow: true, file: String::new(), line: 0 })
            .collect();
        let wish = Wish { allow: &allow, deny: &[], network: Network::Egress };
        let result = effective(bounds, &allow, &[]);
        let mut problems = wish.refused(&result, |_| true);
        problems.extend(wish.taken_in_part(&result, bounds));
        Some(problems.into_iter().next()?.message)
    };
    hosts.iter().filter_map(|host| Some((host.clone(), why(host)?))).collect()
}

/// What is asked for.
#[derive(Clone, Copy)]
struct Wish<'a> {
    allow: &'a [Rule],
    deny: &'a [Rule],
    network: Network,
}

impl Wish<'_> {
    fn is_given_whole(&self, capability: &Capability) -> bool {
        capability.is_enforced_by_sandbox()
            || (self.network != Network::None && matches!(capability, Capability::Net { .. }))
    }

    /// What is not given at all, of what counts.
    fn refused(&self, result: &Effective, counts: impl Fn(&Capability) -> bool) -> Vec<Problem> {
        let mut problems = Vec::new();
        for refusal in result.refused.iter().filter(|refusal| counts(&refusal.capability)) {
            // What the manifest itself takes back is not asked for.
            let own = self.deny.iter().any(|d| Some(d) == refusal.rule.as_ref());
            if own {
                continue;
            }
            let by = refusal.rule.as_ref().map_or_else(
                || "is allowed by no rule of the operator".to_owned(),
                |r| format!("is denied by {r}"),
            );
            problems.push(self.denial(&refusal.capability, by));
        }
        problems
    }

    /// What is given in part, and cannot be.
    fn taken_in_part(&self, result: &Effective, global: &CapabilityPolicy) -> Vec<Problem> {
        let mut problems = Vec::new();
        for rule in self.allow.iter().filter(|r| self.is_given_whole(&r.capability)) {
            let parts: Vec<_> =
                result.granted.iter().filter(|g| rule.capability.covers(&g.capability)).collect();
            let complete = parts.iter().any(|g| g.capability == rule.capability);
            let global_exception =
                parts.iter().flat_map(|g| &g.except).find(|e| global.deny().contains(&e.rule));
            if let Some(exception) = global_exception {
                problems
                    .push(self.denial(&rule.capability, format!("is denied in part by {}", exception.rule)));
            } else if let (false, Some(part)) = (complete, parts.first()) {
                let by = format!("is more than is allowed: {}, by {}", part.capability, part.rule);
                problems.push(self.denial(&rule.capability, by));
            }
        }
        problems.extend(self.names_into_denied(global));
        problems
    }

    /// With network mode `egress` a name is reached wherever it leads. An operator's denial of public addresses cannot be kept beside
    /// that; special ones no name leads to.
    fn names_into_denied(&self, global: &CapabilityPolicy) -> Vec<Problem> {
        let of = |rule: &Rule| match &rule.capability {
            Capability::Net { host, port } => format!("{host}:{port}").parse::<EgressRule>().ok(),
            _ => None,
        };
        let denied: Vec<_> = global
            .deny()
            .iter()
            .filter_map(|rule| Some((rule, of(rule)?)))
            .filter(|(_, to)| matches!(to.target, Target::Block(block) if block_of(block).is_none()))
            .collect();
        let asked = self.allow.iter().filter(|_| self.network == Network::Egress);
        let problem = |rule: &Rule| {
            let wanted = of(rule).filter(|to| matches!(to.target, Target::Name(_) | Target::Below(_)))?;
            let meets =
                |to: &EgressRule| to.port.is_none() || wanted.port.is_none() || to.port == wanted.port;
            let (by, _) = denied.iter().find(|(_, to)| meets(to))?;
            let by = format!("may lead to addresses that are denied by {by}; name addresses instead");
            Some(self.denial(&rule.capability, by))
        };
        asked.filter_map(problem).collect()
    }

    fn denial(&self, capability: &Capability, by: String) -> Problem {
        let rule = self.allow.iter().find(|r| r.capability == *capability);
        Problem {
            file: rule.map_or_else(String::new, |r| r.file.clone()),
            place: rule.filter(|r| r.line != 0).map(|r| Place { line: r.line, column: 1 }),
            field: "spec.capabilities".to_owned(),
            message: format!("{capability} {by}"),
            fix: "remove it from the manifest, or have the operator change the rule".to_owned(),
        }
    }
}

/// Why a host folder may not be had as a whole, if it may not.
fn folder_denial(field: &str, wanted: &Capability, global: &CapabilityPolicy) -> Option<Problem> {
    let denied = global.deny().iter().find_map(|rule| {
        let part = rule.capability.denies(wanted)?;
        Some(format!("is denied{} by {rule}", if part == *wanted { "" } else { " in part" }))
    });
    let by = denied.or_else(|| {
        let allowed = global.allow().iter().any(|rule| rule.capability.covers(wanted));
        (!allowed).then(|| "is allowed as a whole by no global rule".to_owned())
    })?;
    Some(Problem {
        file: String::new(),
        place: None,
        field: field.to_owned(),
        message: format!("it takes {wanted}, which {by}"),
        fix: "choose another folder, or have the operator change the rule".to_owned(),
    })
}
