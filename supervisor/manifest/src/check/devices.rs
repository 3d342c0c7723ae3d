//! Device nodes of the host that an agent may open, from `device:` rules. What a node is only the launcher sees; here are those whose
//! name says that no agent gets them.

use std::path::PathBuf;

use super::Checker;
use crate::capability::{Access, Capability, Rule};
use crate::spec::Device;

/// In each sandbox's `/dev` anyway.
const OWN: &[&str] = &["null", "zero", "full", "random", "urandom", "tty", "ptmx"];
/// Folders and links that the sandbox has of its own, or that hold no devices.
const NO_NODES: &[&str] =
    &["fd", "stdin", "stdout", "stderr", "shm", "mqueue", "hugepages", "disk", "mapper"];
/// The host's memory, log, processors' registers and keyboards, and what makes disks.
const NEVER: &[&str] = &[
    "mem",
    "kmem",
    "port",
    "kmsg",
    "console",
    "cpu",
    "input",
    "uinput",
    "uhid",
    "userio",
    "psaux",
    "snapshot",
    "loop-control",
    "pts",
    "bsg",
    "bus",
    "watchdog",
];
/// Terminals and disks, which have numbers.
const NEVER_BEGIN: &[&str] =
    &["tty", "vcs", "loop", "hvc", "fb", "hidraw", "mtd", "nvme", "ng", "sg", "usbmon"];
const MAX_DEVICES: usize = 16;

/// Why a node is not given, as `what; fix`.
fn forbidden(path: &str, subtree: bool) -> Option<String> {
    if subtree {
        return Some("a folder of devices cannot be shown as a whole; name each node".to_owned());
    }
    let name = path.strip_prefix("/dev/").unwrap_or_default();
    let first = name.split('/').next().unwrap_or_default();
    if OWN.contains(&name) {
        return Some("every sandbox has it; remove the rule".to_owned());
    }
    if NO_NODES.contains(&first) {
        return Some("it is no device; remove the rule".to_owned());
    }
    let is_never = NEVER.contains(&first) || NEVER_BEGIN.iter().any(|begin| first.starts_with(begin));
    is_never.then(|| {
        "memory, log, disks, terminals and keyboards of the host are given to no agent; choose another device"
            .to_owned()
    })
}

impl Checker<'_> {
    /// The nodes that it sees at their own path.
    pub(super) fn devices(&mut self, allow: &[Rule], deny: &[Rule]) -> Vec<Device> {
        let mut devices: Vec<Device> = Vec::new();
        for rule in allow {
            let Capability::Device { access, path } = &rule.capability else { continue };
            // A rule names one node: what denies a part of it denies it.
            if deny.iter().any(|d| d.capability.denies(&rule.capability).is_some()) {
                continue;
            }
            if let Some(text) = forbidden(path.path(), path.is_subtree()) {
                let field = self.rule_field(rule);
                self.problem(&field, &format!("{} cannot be allowed: {text}", rule.capability));
                continue;
            }
            let writable = *access == Access::Write;
            let path = PathBuf::from(path.path());
            match devices.iter_mut().find(|d| d.path == path) {
                Some(device) => device.writable |= writable,
                None => devices.push(Device { path, writable }),
            }
        }
        let within = |path: &PathBuf| {
            devices.iter().find(|d| d.path != *path && d.path.starts_with(path)).map(|d| d.path.clone())
        };
        if let Some((folder, node)) = devices.iter().find_map(|d| Some((d.path.clone(), within(&d.path)?))) {
            self.problem(
                "spec.capabilities",
                &format!(
                    "{} lies in {}, which is to be a device; name the node",
                    node.display(),
                    folder.display()
                ),
            );
        }
        if devices.len() > MAX_DEVICES {
            self.problem(
                "spec.capabilities",
                &format!("there are {} devices, at most {MAX_DEVICES} are allowed", devices.len()),
            );
        }
        devices.sort_by(|a, b| a.path.cmp(&b.path));
        devices
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AgentSpec, Context, Overrides};

    fn parsed(rules: &str) -> Result<AgentSpec, crate::Error> {
        let text = format!(
            "apiVersion: aion.os/v1\nkind: Agent\nmetadata: {{name: a}}\nspec:\n  entry: x\n  capabilities: {rules}\n"
        );
        AgentSpec::parse(text.as_bytes(), "agent.yml", Overrides::default(), &Context::builtin())
    }

    #[test]
    fn nodes_are_named_one_by_one() {
        let spec =
            parsed("[\"device:read:/dev/net/tun\", \"device:write:/dev/fuse\", \"device:read:/dev/fuse\"]");
        let devices = spec.unwrap().devices.clone();
        let device = |path: &str, writable| Device { path: PathBuf::from(path), writable };
        assert_eq!(devices, [device("/dev/fuse", true), device("/dev/net/tun", false)]);
        let denied = "{allow: [\"device:write:/dev/fuse\"], deny: [\"device:read:/dev/**\"]}";
        assert!(parsed(denied).unwrap().devices.is_empty());
    }

    #[test]
    fn what_no_agent_gets_is_refused_by_name() {
        for (rule, expected) in [
            ("device:write:/dev/**", "cannot be shown as a whole"),
            ("device:read:/dev/mem", "given to no agent"),
            ("device:write:/dev/kmsg", "given to no agent"),
            ("device:write:/dev/loop0", "given to no agent"),
            ("device:read:/dev/input/event0", "given to no agent"),
            ("device:read:/dev/input", "given to no agent"),
            ("device:write:/dev/ttyS0", "given to no agent"),
            ("device:write:/dev/null", "every sandbox has it"),
            ("device:read:/dev/shm/x", "it is no device"),
        ] {
            let error = parsed(&format!("[\"{rule}\"]")).unwrap_err().to_string();
            assert!(error.contains(expected), "{rule}: {error}");
        }
        let error =
            parsed("[\"device:read:/dev/net\", \"device:read:/dev/net/tun\"]").unwrap_err().to_string();
        assert!(error.contains("/dev/net/tun lies in /dev/net"), "{error}");
    }
}
