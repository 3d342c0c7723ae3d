//! Devices that an agent may open, and all the others; taken while it runs, and given back.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use aion_probes::{AgentConfig, DeviceUse, NetPolicy, Opened};
use nix::sys::stat::{major, minor};

use crate::world::{Agent, EVENTS, What, World, drain};

/// Nodes that hardly any host is without, and that nothing is changed by opening.
const CANDIDATES: [&str; 3] = ["/dev/fuse", "/dev/net/tun", "/dev/kvm"];

struct Given {
    world: World,
    opened: Opened,
    agent: Agent,
    path: &'static str,
    number: (u32, u32),
}

/// An agent that has no device, and a node that it could open as root of the host.
fn given() -> Option<Given> {
    let world = World::new(1 << 20)?;
    let opens = |path: &&str| std::fs::File::options().read(true).write(true).open(path).is_ok();
    let Some(path) = CANDIDATES.into_iter().find(opens) else {
        println!("skipped: this host lets nobody open any of {CANDIDATES:?}");
        return None;
    };
    let found = std::fs::metadata(path).unwrap();
    assert!(found.file_type().is_char_device());
    let part = |part: u64| u32::try_from(part).unwrap();
    let number = (part(major(found.rdev())), part(minor(found.rdev())));
    let opened = world.open();
    let agent = world.agent(&opened.probes, EVENTS);
    Some(Given { world, opened, agent, path, number })
}

impl Given {
    fn give(&self, read: bool, write: bool) {
        let (major, minor) = self.number;
        self.opened.probes.set_devices(self.agent.id, &[DeviceUse { major, minor, read, write }]).unwrap();
    }

    /// What comes of opening it to read, to write, and for both.
    fn uses(&self) -> [String; 3] {
        ["r", "w", "rw"].map(|how| self.agent.help(&["open-device", self.path, how]))
    }

    /// What was refused since the last time: reading, writing, making; only of the node at hand.
    fn refused(&mut self) -> Vec<(bool, bool, bool)> {
        let number = self.number;
        let seen = drain(&mut self.opened);
        let refused = seen.iter().filter_map(|s| match s.what {
            What::Device(denied) => {
                assert!(!denied.block);
                assert_eq!(((denied.major, denied.minor), s.cgroup), (number, self.agent.id));
                Some((denied.read, denied.write, denied.mknod))
            }
            _ => None,
        });
        refused.collect()
    }
}

#[test]
fn only_what_was_given_is_opened() {
    let Some(mut given) = given() else { return };
    assert_eq!(given.uses(), ["EPERM"; 3]);
    assert_eq!(given.refused(), [(true, false, false), (false, true, false), (true, true, false)]);
    // Bystanders are not touched.
    std::fs::File::open(given.path).unwrap();
    given.give(true, false);
    assert_eq!(given.uses(), ["ok", "EPERM", "EPERM"], "to read");
    given.give(true, true);
    assert_eq!(given.uses(), ["ok"; 3]);
    given.refused();
    given.give(false, false);
    assert_eq!(given.uses(), ["EPERM"; 3], "taken");
    assert_eq!(given.opened.probes.counters(given.agent.id).unwrap().denied, 8);
}

#[test]
fn what_everybody_has_needs_no_entry() {
    let Some(mut given) = given() else { return };
    for path in ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"] {
        assert_eq!(given.agent.help(&["open-device", path, "rw"]), "ok", "{path}");
    }
    assert_eq!(given.agent.help(&["open-device", "/dev/ptmx", "rw"]), "ok");
    // One that is not entered has these, and no others; nothing is told of it.
    let parked = given.world.cgroup("parked");
    assert_eq!(parked.help(&["open-device", "/dev/null", "rw"]), "ok");
    assert_eq!(parked.help(&["open-device", given.path, "r"]), "EPERM");
    assert_eq!(given.refused(), []);
}

#[test]
fn nodes_are_made_of_nothing() {
    let Some(mut given) = given() else { return };
    given.give(true, true);
    let dir = tempfile::tempdir().unwrap();
    let node = dir.path().join("node");
    let (major, minor) = given.number;
    let words = ["mknod", node.to_str().unwrap(), &major.to_string(), &minor.to_string()];
    assert_eq!(given.agent.help(&words), "EPERM");
    assert_eq!(given.refused(), [(false, false, true)]);
    let null = ["mknod", node.to_str().unwrap(), "1", "3"];
    assert_eq!(given.agent.help(&null), "EPERM", "not of what everybody has, either");
}

#[test]
fn it_outlives_whoever_gave_it() {
    let Some(mut given) = given() else { return };
    given.give(true, false);
    drop(given.opened);
    let open = |agent: &Agent, how| agent.help(&["open-device", given.path, how]);
    assert_eq!((open(&given.agent, "r").as_str(), open(&given.agent, "w").as_str()), ("ok", "EPERM"));
    given.opened = given.world.open();
    assert_eq!((open(&given.agent, "r").as_str(), open(&given.agent, "w").as_str()), ("ok", "EPERM"));
    // Another configuration of the agent changes nothing of it.
    let config = AgentConfig { net: NetPolicy::DenyAll, ..EVENTS };
    given.opened.probes.update_agent(given.agent.id, config).unwrap();
    assert_eq!(open(&given.agent, "r"), "ok");
    given.opened.probes.set_devices(given.agent.id, &[]).unwrap();
    assert_eq!(open(&given.agent, "r"), "EPERM");
    given.opened.probes.remove_agent(given.agent.id).unwrap();
    assert!(given.opened.probes.set_devices(given.agent.id, &[]).is_err());
}
