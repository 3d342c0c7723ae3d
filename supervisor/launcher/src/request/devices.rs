//! Devices of a launch, checked: by name. What the nodes are says the host, when they are looked at.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use aion_launcher_proto::v1;

use crate::Failure;
use crate::request::field::{self, Checked};

const MAX_DEVICES: usize = 16;
const FOLDER: &str = "/dev";
/// In each sandbox's `/dev`.
const OWN: &[&str] = &[
    "null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "fd", "stdin", "stdout",
    "stderr",
];

/// A character device of the host, shown at the same path inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its node.
    pub path: PathBuf,
    /// Whether the agent may open it for writing, too.
    pub writable: bool,
}

impl Device {
    /// Its rule for reading.
    pub(crate) fn read_rule(path: &str) -> String {
        format!("device:read:{path}")
    }

    /// Its rule for writing.
    pub(crate) fn write_rule(path: &str) -> String {
        format!("device:write:{path}")
    }
}

/// Whether a rule of a launch is about a device.
pub(crate) fn is_of_device(rule: &str) -> bool {
    rule.starts_with("device:")
}

pub(crate) fn devices(devices: &[v1::Device]) -> Checked<Vec<Device>> {
    const FIELD: &str = "devices";
    if devices.len() > MAX_DEVICES {
        let why = format!("{} devices, at most {MAX_DEVICES} are allowed", devices.len());
        return Err(Failure::field(FIELD, why));
    }
    let mut seen = BTreeSet::new();
    let mut checked = Vec::with_capacity(devices.len());
    for device in devices {
        let path = field::path(FIELD, &device.path)?;
        let refuse = |why: &str| Err(Failure::field(FIELD, format!("{}: {why}", path.display())));
        // Rules are texts.
        if path.to_str().is_none() {
            return refuse("it is no text");
        }
        let Ok(name) = path.strip_prefix(FOLDER) else { return refuse("it is not in /dev") };
        let Some(first) = name.components().next() else { return refuse("it is a folder") };
        if OWN.iter().any(|own| first.as_os_str() == Path::new(own).as_os_str()) {
            return refuse("every sandbox has its own");
        }
        if !seen.insert(path.clone()) {
            return refuse("it is there twice");
        }
        checked.push(Device { path, writable: device.writable });
    }
    Ok(checked)
}
