//! `fs:read:/data/**`, `net:connect:host:port`, `exec:PATH`, `tool:NAME`, `model:NAME`, `memory:OP:KIND`, `secret:use:NAME`,
//! `agent:send:NAME`, `device:read:/dev/NAME`, `gpu`.

use std::fmt;
use std::str::FromStr;

use super::pattern::{HostPattern, NamePattern, PathPattern, PortPattern};
use crate::error::{did_you_mean, quote};

/// The folder that every agent has inside its sandbox.
pub(crate) const WORKSPACE: &str = "/workspace";
/// Where device nodes are.
const DEVICES: &str = "/dev";

/// How a file or a device is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// Read.
    Read,
    /// Write, which includes reading.
    Write,
}

/// What is done with the memory of the kernel API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemoryOp {
    /// Anything.
    Any,
    /// `memory.put`.
    Put,
    /// `memory.query`.
    Query,
}

/// Which memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemoryKind {
    /// Any.
    Any,
    /// Short-term.
    Short,
    /// Long-term.
    Long,
    /// Episodic.
    Episodic,
}

/// One thing, or one family of things, that an agent may do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Capability {
    /// Use files.
    Fs {
        /// How.
        access: Access,
        /// Which.
        path: PathPattern,
    },
    /// Connect to a host.
    Net {
        /// Which.
        host: HostPattern,
        /// To which port.
        port: PortPattern,
    },
    /// Execute a program.
    Exec(PathPattern),
    /// Invoke a tool.
    Tool(NamePattern),
    /// Use a model.
    Model(NamePattern),
    /// Use the memory of the kernel API.
    Memory {
        /// What for.
        op: MemoryOp,
        /// Which.
        kind: MemoryKind,
    },
    /// Have the kernel use a secret.
    Secret(NamePattern),
    /// Send messages to an agent of the same tenant.
    Agent(NamePattern),
    /// Open a character device of the host.
    Device {
        /// How.
        access: Access,
        /// Its node.
        path: PathPattern,
    },
    /// Use a GPU.
    Gpu,
}

/// The four coarse names, each of which stands for some capabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Coarse {
    /// Files in the workspace, through the kernel API.
    Filesystem,
    /// Any host and port.
    Network,
    /// A GPU.
    Gpu,
    /// Any program.
    Subprocess,
}

impl Coarse {
    /// All four.
    pub const ALL: [Self; 4] = [Self::Filesystem, Self::Network, Self::Gpu, Self::Subprocess];

    /// The name in manifests.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Filesystem => "filesystem",
            Self::Network => "network",
            Self::Gpu => "gpu",
            Self::Subprocess => "subprocess",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.as_str() == text)
    }

    /// What it stands for.
    #[must_use]
    pub fn expand(self) -> Vec<Capability> {
        match self {
            Self::Filesystem => [Access::Read, Access::Write]
                .map(|access| Capability::Fs { access, path: PathPattern::subtree_of(WORKSPACE) })
                .to_vec(),
            Self::Network => vec![Capability::Net { host: HostPattern::Any, port: PortPattern::Any }],
            Self::Gpu => vec![Capability::Gpu],
            Self::Subprocess => vec![Capability::Exec(PathPattern::everything())],
        }
    }
}

/// The families, for messages.
const FORMS: &[&str] = &[
    "fs:read:PATH",
    "fs:write:PATH",
    "net:connect:HOST:PORT",
    "exec:PATH",
    "tool:NAME",
    "model:NAME",
    "memory:OP:KIND",
    "secret:use:NAME",
    "agent:send:NAME",
    "device:read:/dev/NAME",
    "device:write:/dev/NAME",
    "gpu",
];

/// Reads a capability or a coarse name, which may stand for several.
pub(crate) fn parse_rule(text: &str) -> Result<(Option<Coarse>, Vec<Capability>), String> {
    match Coarse::parse(text) {
        Some(coarse) => Ok((Some(coarse), coarse.expand())),
        None => text.parse().map(|c| (None, vec![c])),
    }
}

/// What a rule is about, apart from what it covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// `fs:…`
    Fs,
    /// `net:…`
    Net,
    /// `exec:…`
    Exec,
    /// `tool:…`
    Tool,
    /// `model:…`
    Model,
    /// `memory:…`
    Memory,
    /// `secret:…`
    Secret,
    /// `agent:…`
    Agent,
    /// `device:…`
    Device,
    /// `gpu`
    Gpu,
}

impl Family {
    /// Whether the list of calls gives it, until the manifest has a rule of the family.
    #[must_use]
    pub const fn is_given_by_name(self) -> bool {
        matches!(self, Self::Tool | Self::Model | Self::Memory | Self::Secret | Self::Agent)
    }
}

/// Reads a capability or a coarse name (`network`), which stands for several.
///
/// # Errors
/// Says what is wrong and what would be right.
pub fn parse_capabilities(text: &str) -> Result<Vec<Capability>, String> {
    parse_rule(text).map(|(_, capabilities)| capabilities)
}

impl Capability {
    /// Its family.
    #[must_use]
    pub const fn family(&self) -> Family {
        match self {
            Self::Fs { .. } => Family::Fs,
            Self::Net { .. } => Family::Net,
            Self::Exec(_) => Family::Exec,
            Self::Tool(_) => Family::Tool,
            Self::Model(_) => Family::Model,
            Self::Memory { .. } => Family::Memory,
            Self::Secret(_) => Family::Secret,
            Self::Agent(_) => Family::Agent,
            Self::Device { .. } => Family::Device,
            Self::Gpu => Family::Gpu,
        }
    }
}

impl FromStr for Capability {
    type Err = String;

    /// Reads one; the error says what is wrong and what would be right.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() > 4200 {
            return Err(format!("the capability has {} bytes, at most 4200 are allowed", text.len()));
        }
        let (family, rest) = text.split_once(':').unwrap_or((text, ""));
        let fs = |access| {
            Ok(Self::Fs { access, path: PathPattern::parse(rest.split_once(':').map_or("", |r| r.1))? })
        };
        match (family, rest.split(':').next().unwrap_or_default()) {
            ("fs", "read") => fs(Access::Read),
            ("fs", "write") => fs(Access::Write),
            ("fs", _) => Err(format!("{} is neither fs:read:PATH nor fs:write:PATH", quote(text))),
            ("net", "connect") => {
                let target = rest.strip_prefix("connect:").unwrap_or_default();
                let (host, port) = target
                    .rsplit_once(':')
                    .ok_or_else(|| format!("{} lacks a port; write net:connect:HOST:PORT", quote(text)))?;
                Ok(Self::Net { host: HostPattern::parse(host)?, port: PortPattern::parse(port)? })
            }
            ("net", _) => Err(format!("{} is not net:connect:HOST:PORT", quote(text))),
            ("exec", _) => Ok(Self::Exec(PathPattern::parse(rest)?)),
            ("tool", _) => Ok(Self::Tool(NamePattern::parse(rest, "tool")?)),
            ("model", _) => Ok(Self::Model(NamePattern::parse(rest, "model")?)),
            ("memory", _) => memory(text, rest),
            ("secret", "use") => {
                Ok(Self::Secret(NamePattern::parse(rest.split_once(':').map_or("", |r| r.1), "secret")?))
            }
            ("agent", "send") => {
                Ok(Self::Agent(NamePattern::parse(rest.split_once(':').map_or("", |r| r.1), "receiver")?))
            }
            ("agent", _) => Err(format!("{} is not agent:send:NAME", quote(text))),
            ("secret", _) => Err(format!("{} is not secret:use:NAME", quote(text))),
            ("device", "read") => device(text, Access::Read, rest),
            ("device", "write") => device(text, Access::Write, rest),
            ("device", _) => {
                Err(format!("{} is neither device:read:/dev/NAME nor device:write:/dev/NAME", quote(text)))
            }
            ("gpu", _) if text == "gpu" => Ok(Self::Gpu),
            _ => Err(unknown(text, family)),
        }
    }
}

fn memory(text: &str, rest: &str) -> Result<Capability, String> {
    let (op, kind) = rest.split_once(':').unwrap_or((rest, "*"));
    let op = match op {
        "*" => Some(MemoryOp::Any),
        "put" => Some(MemoryOp::Put),
        "query" => Some(MemoryOp::Query),
        _ => None,
    };
    let kind = match kind {
        "*" => Some(MemoryKind::Any),
        "short" => Some(MemoryKind::Short),
        "long" => Some(MemoryKind::Long),
        "episodic" => Some(MemoryKind::Episodic),
        _ => None,
    };
    op.zip(kind).map(|(op, kind)| Capability::Memory { op, kind }).ok_or_else(|| {
        format!(
            "{} is not a memory capability; write memory:OP:KIND with put, query or * and short, long, episodic or *",
            quote(text)
        )
    })
}

/// A node, or for rules that bound others a folder of them.
fn device(text: &str, access: Access, rest: &str) -> Result<Capability, String> {
    let path = PathPattern::parse(rest.split_once(':').map_or("", |r| r.1))?;
    let is_below = super::pattern::is_within(path.path(), DEVICES);
    if is_below && (path.is_subtree() || path.path() != DEVICES) {
        return Ok(Capability::Device { access, path });
    }
    Err(format!("{} names nothing in /dev; write the node as /dev/NAME", quote(text)))
}

fn unknown(text: &str, family: &str) -> String {
    let words = Coarse::ALL
        .iter()
        .map(|c| c.as_str())
        .chain(["fs", "net", "exec", "tool", "model", "memory", "secret", "agent", "device"]);
    match did_you_mean(family, words) {
        Some(near) => format!("{} is not a capability; did you mean {near:?}?", quote(text)),
        None => format!(
            "{} is not a capability; write {}, or filesystem, network, subprocess",
            quote(text),
            FORMS.join(", ")
        ),
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fs { access: Access::Read, path } => write!(f, "fs:read:{path}"),
            Self::Fs { access: Access::Write, path } => write!(f, "fs:write:{path}"),
            Self::Net { host, port } => write!(f, "net:connect:{host}:{port}"),
            Self::Exec(path) => write!(f, "exec:{path}"),
            Self::Tool(name) => write!(f, "tool:{name}"),
            Self::Model(name) => write!(f, "model:{name}"),
            Self::Memory { op, kind } => {
                let op = match op {
                    MemoryOp::Any => "*",
                    MemoryOp::Put => "put",
                    MemoryOp::Query => "query",
                };
                let kind = match kind {
                    MemoryKind::Any => "*",
                    MemoryKind::Short => "short",
                    MemoryKind::Long => "long",
                    MemoryKind::Episodic => "episodic",
                };
                write!(f, "memory:{op}:{kind}")
            }
            Self::Secret(name) => write!(f, "secret:use:{name}"),
            Self::Agent(name) => write!(f, "agent:send:{name}"),
            Self::Device { access: Access::Read, path } => write!(f, "device:read:{path}"),
            Self::Device { access: Access::Write, path } => write!(f, "device:write:{path}"),
            Self::Gpu => f.write_str("gpu"),
        }
    }
}

impl Capability {
    /// Whether everything that `other` allows is allowed by this, too.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Fs { access: a, path: p }, Self::Fs { access: b, path: q })
            | (Self::Device { access: a, path: p }, Self::Device { access: b, path: q }) => {
                a >= b && p.covers(q)
            }
            (Self::Net { host: h, port: p }, Self::Net { host: i, port: q }) => h.covers(i) && p.covers(q),
            (Self::Exec(p), Self::Exec(q)) => p.covers(q),
            (Self::Tool(p), Self::Tool(q))
            | (Self::Model(p), Self::Model(q))
            | (Self::Secret(p), Self::Secret(q))
            | (Self::Agent(p), Self::Agent(q)) => p.covers(q),
            (Self::Memory { op: o, kind: k }, Self::Memory { op: p, kind: l }) => {
                (*o == MemoryOp::Any || o == p) && (*k == MemoryKind::Any || k == l)
            }
            (Self::Gpu, Self::Gpu) => true,
            _ => false,
        }
    }

    /// What both allow.
    #[must_use]
    pub fn meet(&self, other: &Self) -> Option<Self> {
        if self.covers(other) {
            return Some(other.clone());
        }
        if other.covers(self) {
            return Some(self.clone());
        }
        // Two-part patterns can cross: each part has a narrower side.
        match (self, other) {
            (Self::Fs { access: a, path: p }, Self::Fs { access: b, path: q }) => {
                Some(Self::Fs { access: *a.min(b), path: narrower(p, q, PathPattern::covers)? })
            }
            (Self::Device { access: a, path: p }, Self::Device { access: b, path: q }) => {
                Some(Self::Device { access: *a.min(b), path: narrower(p, q, PathPattern::covers)? })
            }
            (Self::Net { host: h, port: p }, Self::Net { host: i, port: q }) => {
                let host = narrower(h, i, HostPattern::covers)?;
                let port = narrower(p, q, PortPattern::covers)?;
                Some(Self::Net { host, port })
            }
            (Self::Memory { op: o, kind: k }, Self::Memory { op: p, kind: l }) => {
                let op = narrower(o, p, |a, b| *a == MemoryOp::Any || a == b)?;
                let kind = narrower(k, l, |a, b| *a == MemoryKind::Any || a == b)?;
                Some(Self::Memory { op, kind })
            }
            _ => None,
        }
    }

    /// The part of `other` that a rule denying this takes away. Who may not read may not write either, as writing includes
    /// reading; who may not write may still read.
    #[must_use]
    pub fn denies(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Fs { access: a, path: p }, Self::Fs { access: b, path: q }) => {
                let path = narrower(p, q, PathPattern::covers)?;
                (a <= b).then_some(Self::Fs { access: *b, path })
            }
            (Self::Device { access: a, path: p }, Self::Device { access: b, path: q }) => {
                let path = narrower(p, q, PathPattern::covers)?;
                (a <= b).then_some(Self::Device { access: *b, path })
            }
            _ => self.meet(other),
        }
    }

    /// Whether the sandbox, not the kernel API, enforces it: then it cannot have exceptions.
    #[must_use]
    pub fn is_enforced_by_sandbox(&self) -> bool {
        match self {
            Self::Fs { path, .. } => !super::pattern::is_within(path.path(), WORKSPACE),
            Self::Exec(_) | Self::Device { .. } | Self::Gpu => true,
            _ => false,
        }
    }
}

fn narrower<T: Clone>(a: &T, b: &T, covers: impl Fn(&T, &T) -> bool) -> Option<T> {
    if covers(a, b) {
        Some(b.clone())
    } else if covers(b, a) {
        Some(a.clone())
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cap(text: &str) -> Capability {
        text.parse().unwrap_or_else(|e| panic!("{e}"))
    }

    #[test]
    fn every_form_round_trips() {
        for text in [
            "fs:read:/data/**",
            "fs:write:/srv/x.db",
            "fs:read:/**",
            "net:connect:example.com:443",
            "net:connect:*.example.com:*",
            "net:connect:[::1]:80",
            "net:connect:*:53",
            "net:connect:10.0.0.0/8:443",
            "net:connect:[fd00::/8]:*",
            "exec:/usr/bin/git",
            "exec:/usr/bin/**",
            "tool:web_search",
            "tool:*",
            "model:gpt-*",
            "model:org/name:7b",
            "memory:put:short",
            "memory:*:*",
            "secret:use:github",
            "secret:use:*",
            "agent:send:worker-*",
            "device:read:/dev/fuse",
            "device:write:/dev/dri/**",
            "device:write:/dev/**",
            "gpu",
        ] {
            assert_eq!(cap(text).to_string(), text);
        }
        assert_eq!(cap("memory:query"), cap("memory:query:*"));
    }

    #[test]
    fn wrong_ones_are_explained() {
        for (text, expected) in [
            ("fs:read:data", "not an absolute path"),
            ("fs:read:/data/../etc", "contains \"..\""),
            ("fs:read:/data/*.txt", "a wildcard that cannot be enforced"),
            ("fs:read:/da**/x", "a wildcard"),
            ("fs:read:/data/", "an empty part"),
            ("fs:delete:/x", "neither fs:read:PATH nor fs:write:PATH"),
            ("fs", "neither"),
            ("net:connect:host", "lacks a port"),
            ("net:connect:host:0", "is not a port"),
            ("net:connect:host:+80", "is not a port"),
            ("net:connect:-x:80", "is not a host"),
            ("net:connect:10.0.0.1/8:80", "no block"),
            ("net:connect:10.0.0.0/33:80", "no block"),
            ("net:bind:x:1", "is not net:connect:HOST:PORT"),
            ("tool:", "not the name of a tool"),
            ("tool:a*b", "not the name of a tool"),
            ("memory:drop", "not a memory capability"),
            ("secret:read:x", "is not secret:use:NAME"),
            ("secret:use", "not the name of a secret"),
            ("agent:list:x", "is not agent:send:NAME"),
            ("agent:send", "not the name of a receiver"),
            ("device:mknod:/dev/fuse", "neither device:read:/dev/NAME"),
            ("device:read:/etc/x", "names nothing in /dev"),
            ("device:read:/dev", "names nothing in /dev"),
            ("device:read:/dev/../etc", "contains"),
            ("device:read:/dev/dri/*", "a wildcard"),
            ("gpu:1", "is not a capability"),
            ("netwrok", "did you mean \"network\"?"),
            ("quantum", "is not a capability; write fs:read:PATH"),
        ] {
            let error = text.parse::<Capability>().expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn covering_and_meeting() {
        assert!(cap("fs:read:/data/**").covers(&cap("fs:read:/data/a/**")));
        assert!(cap("fs:read:/data/**").covers(&cap("fs:read:/data")));
        assert!(!cap("fs:read:/data/**").covers(&cap("fs:read:/database")));
        assert!(!cap("fs:read:/data/**").covers(&cap("fs:write:/data/a")));
        assert!(cap("fs:write:/data/**").covers(&cap("fs:read:/data/a")), "writing includes reading");
        assert_eq!(cap("fs:write:/a/**").meet(&cap("fs:read:/**")), Some(cap("fs:read:/a/**")));
        assert_eq!(cap("fs:read:/a/**").denies(&cap("fs:write:/a/b")), Some(cap("fs:write:/a/b")));
        assert_eq!(cap("fs:write:/a/**").denies(&cap("fs:read:/a/b")), None);
        assert!(cap("net:connect:*.a.com:*").covers(&cap("net:connect:x.a.com:1")));
        assert!(!cap("net:connect:*.a.com:*").covers(&cap("net:connect:a.com:1")));
        assert!(cap("net:connect:10.0.0.0/8:*").covers(&cap("net:connect:10.1.2.3:1")));
        assert!(cap("net:connect:10.0.0.0/8:*").covers(&cap("net:connect:10.1.0.0/16:1")));
        assert!(!cap("net:connect:10.0.0.0/8:*").covers(&cap("net:connect:a.com:1")));
        assert!(cap("net:connect:[fd00::/8]:*").covers(&cap("net:connect:[fd00::1]:1")));
        assert!(!cap("net:connect:*.a.com:*").covers(&cap("net:connect:xa.com:1")));
        assert_eq!(
            cap("net:connect:*:443").meet(&cap("net:connect:*.a.com:*")),
            Some(cap("net:connect:*.a.com:443"))
        );
        assert!(cap("device:write:/dev/dri/**").covers(&cap("device:read:/dev/dri/card0")));
        assert!(!cap("device:read:/dev/**").covers(&cap("device:write:/dev/fuse")));
        assert_eq!(
            cap("device:read:/dev/**").meet(&cap("device:write:/dev/fuse")),
            Some(cap("device:read:/dev/fuse"))
        );
        assert_eq!(cap("fs:read:/dev/fuse").meet(&cap("device:read:/dev/fuse")), None);
        assert_eq!(cap("tool:web_*").meet(&cap("tool:w*")), Some(cap("tool:web_*")));
        assert_eq!(cap("tool:a").meet(&cap("tool:b")), None);
        assert_eq!(cap("secret:use:*").meet(&cap("secret:use:a")), Some(cap("secret:use:a")));
        assert_eq!(cap("secret:use:a").meet(&cap("tool:a")), None);
        assert_eq!(cap("memory:put:*").meet(&cap("memory:*:long")), Some(cap("memory:put:long")));
        assert_eq!(cap("memory:put:*").meet(&cap("memory:query:*")), None);
    }
}
