//! Devices that an agent was given: what their nodes are on the host, and what of them it may open now.
//!
//! A node is looked at once, at the launch, through no link; from then on its number counts, which is written down. Which devices no
//! agent gets is decided here whatever aiond asks for. Below, `aion-sandbox` makes nodes of the agent's own, and the probes hold
//! the agent to them.

use aion_probes::DeviceUse;
use aion_sandbox::{DeviceNode, mounts};
use aion_types::{LayerName, LayerReport, LayerState};
use rustix::fs::{FileType, fstat, major, minor};

use crate::Failure;
use crate::request::{Device, Launch};
use crate::state::GivenDevice;

const FIELD: &str = "devices";

/// Drivers whose devices no agent gets, and what they are.
const NEVER: &[(std::ops::RangeInclusive<u32>, &str)] = &[
    (1..=1, "memory or the kernel's log"),
    (2..=5, "a terminal of the host"),
    (7..=7, "what is on the host's screen"),
    (9..=9, "a tape"),
    (13..=13, "a keyboard, or another input of the host"),
    (21..=21, "a disk by another way"),
    (29..=29, "the host's screen"),
    (90..=90, "flash memory"),
    (128..=143, "a terminal of the host"),
    (162..=162, "a disk by another way"),
    (166..=166, "a serial line"),
    (188..=188, "a serial line"),
    (189..=189, "whatever is on the host's USB"),
    (202..=203, "the processor's registers"),
    (204..=204, "a serial line"),
    (229..=229, "the host's console"),
];
/// The same by the beginnings of drivers' names, whose numbers differ from host to host.
const NEVER_NAMED: &[(&str, &str)] = &[
    ("bsg", "a disk by another way"),
    ("nvme", "a disk by another way"),
    ("mtd", "flash memory"),
    ("ubi", "flash memory"),
    ("hidraw", "a keyboard, or another input of the host"),
    ("usbmon", "whatever is on the host's USB"),
    ("usb_device", "whatever is on the host's USB"),
    ("tty", "a serial line"),
    ("hvc", "the host's console"),
    ("hvsi", "the host's console"),
    ("fb", "the host's screen"),
    ("watchdog", "what restarts the host"),
    ("mei", "the host's firmware"),
    ("ipmi", "the host's firmware"),
];
/// The same of single devices of driver 10, which has many.
const MISC: u32 = 10;
const NEVER_MISC: &[(u32, &str)] = &[
    (1, "a mouse of the host"),
    (130, "what restarts the host"),
    (144, "memory that survives the power"),
    (223, "a keyboard of its own"),
    (231, "an image of the host's memory"),
    (236, "what makes disks"),
    (237, "what makes disks"),
    (239, "a keyboard of its own"),
    (240, "a keyboard of its own"),
];

/// The names of a driver, as `/proc/devices` lists those of character devices.
fn names_of(list: &str, major: u32) -> impl Iterator<Item = &str> {
    let of_chars = list.lines().skip_while(|line| !line.starts_with("Character")).skip(1);
    of_chars.take_while(|line| !line.is_empty()).filter_map(move |line| {
        let (number, name) = line.trim_start().split_once(' ')?;
        (number.parse() == Ok(major)).then_some(name)
    })
}

fn forbidden_by_name(list: &str, major: u32) -> Option<&'static str> {
    names_of(list, major).find_map(|name| {
        NEVER_NAMED.iter().find(|(begins, _)| name.starts_with(begins)).map(|(_, what)| *what)
    })
}

fn forbidden(major: u32, minor: u32) -> Option<&'static str> {
    let of_driver = NEVER.iter().find(|(range, _)| range.contains(&major)).map(|(_, what)| *what);
    of_driver.or_else(|| {
        let of_misc = NEVER_MISC.iter().find(|(number, _)| major == MISC && *number == minor);
        of_misc.map(|(_, what)| *what)
    })
}

/// What the nodes of a launch are on this host.
pub(crate) fn find(launch: &Launch) -> Result<Vec<GivenDevice>, Failure> {
    if launch.devices.is_empty() {
        return Ok(Vec::new());
    }
    let drivers = std::fs::read_to_string("/proc/devices").map_err(|error| {
        let errno = error.raw_os_error().unwrap_or(0);
        Failure::layer(LayerName::Devices, errno, format!("cannot read /proc/devices: {error}"))
    })?;
    let found = |device: &Device| -> Result<GivenDevice, Failure> {
        let node = mounts::open_path(&device.path, LayerName::Devices)?;
        let shown = device.path.display();
        let stat = fstat(&node).map_err(|errno| {
            Failure::layer(
                LayerName::Devices,
                errno.raw_os_error(),
                format!("cannot look at {shown}: {errno}"),
            )
        })?;
        let refuse = |why: String| Err(Failure::field(FIELD, format!("{shown} {why}")));
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::CharacterDevice => {}
            FileType::BlockDevice => {
                return refuse(
                    "is a block device, and disks are given to no agent: give it a folder on it, by an fs: rule"
                        .to_owned(),
                );
            }
            _ => return refuse("is no device: files and folders are given by fs: rules".to_owned()),
        }
        let (major, minor) = (major(stat.st_rdev), minor(stat.st_rdev));
        if let Some(what) = forbidden(major, minor).or_else(|| forbidden_by_name(&drivers, major)) {
            return refuse(format!(
                "({major}:{minor}) is {what}, and given to no agent: remove its device: rule"
            ));
        }
        let path = device.path.to_string_lossy().into_owned();
        Ok(GivenDevice { path, major, minor, writable: device.writable })
    };
    launch.devices.iter().map(found).collect()
}

/// The nodes to make.
pub(crate) fn nodes(given: &[GivenDevice]) -> Vec<DeviceNode> {
    let node = |device: &GivenDevice| {
        let path = device.path.strip_prefix("/dev/").unwrap_or(&device.path);
        DeviceNode { path: path.into(), major: device.major, minor: device.minor }
    };
    given.iter().map(node).collect()
}

/// What the agent may open while these rules are withheld. Who may not read may not write.
pub(crate) fn uses(given: &[GivenDevice], withheld: &[String]) -> Vec<DeviceUse> {
    let holds = |rule: String| !withheld.contains(&rule);
    let of = |device: &GivenDevice| {
        let read = holds(Device::read_rule(&device.path));
        let write = read && device.writable && holds(Device::write_rule(&device.path));
        DeviceUse { major: device.major, minor: device.minor, read, write }
    };
    given.iter().map(of).collect()
}

/// The layer's report.
pub(crate) fn layer(given: &[GivenDevice]) -> LayerReport {
    let mut detail = "a cgroup device program: null, zero, full, random, urandom, tty, terminals".to_owned();
    for device in given {
        let rule =
            if device.writable { Device::write_rule(&device.path) } else { Device::read_rule(&device.path) };
        detail.push_str(&format!(", {rule} ({}:{})", device.major, device.minor));
    }
    LayerReport { name: LayerName::Devices, state: LayerState::Active, detail }
}

/// The same where there are no probes: the sandbox shows no other node, and mounts and capabilities let none be made.
pub(crate) fn without_probes(why: &str) -> LayerReport {
    let detail = format!("a /dev of six nodes, and no program that holds it to them: {why}");
    LayerReport { name: LayerName::Devices, state: LayerState::Unavailable, detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(path: &str, minor: u32, writable: bool) -> GivenDevice {
        GivenDevice { path: path.to_owned(), major: 10, minor, writable }
    }

    fn found(path: &str) -> Result<Vec<GivenDevice>, Failure> {
        let mut raw = crate::request::tests_usual();
        raw.devices = vec![aion_launcher_proto::v1::Device { path: path.into(), writable: true }];
        find(&Launch::check(&raw).unwrap())
    }

    #[test]
    fn memory_terminals_and_disks_are_nobodys() {
        for (major, minor) in [
            (1, 1),
            (1, 11),
            (4, 64),
            (5, 1),
            (13, 64),
            (21, 0),
            (136, 0),
            (202, 0),
            (10, 237),
            (10, 239),
            (229, 0),
        ] {
            assert!(forbidden(major, minor).is_some(), "{major}:{minor}");
        }
        for (major, minor) in [(10, 229), (10, 200), (10, 232), (226, 128), (195, 0)] {
            assert_eq!(forbidden(major, minor), None, "{major}:{minor}");
        }
    }

    #[test]
    fn drivers_are_known_by_name_where_their_numbers_differ() {
        let list = "Character devices:\n  1 mem\n 10 misc\n226 drm\n248 bsg\n249 nvme-generic\n\nBlock devices:\n248 virtblk\n250 bsg\n";
        assert_eq!(names_of(list, 226).collect::<Vec<_>>(), ["drm"]);
        assert_eq!(forbidden_by_name(list, 248), Some("a disk by another way"));
        assert_eq!(forbidden_by_name(list, 249), Some("a disk by another way"));
        for major in [10, 226, 250, 251] {
            assert_eq!(forbidden_by_name(list, major), None, "{major}");
        }
    }

    #[test]
    fn what_is_withheld_may_not_be_opened() {
        let all = [given("/dev/fuse", 229, true), given("/dev/kvm", 232, false)];
        let of = |withheld: &[&str]| {
            let withheld: Vec<String> = withheld.iter().map(|rule| (*rule).to_owned()).collect();
            let uses = uses(&all, &withheld).into_iter();
            uses.map(|one| (one.read, one.write)).collect::<Vec<_>>()
        };
        assert_eq!(of(&[]), [(true, true), (true, false)]);
        assert_eq!(of(&["device:write:/dev/fuse"]), [(true, false), (true, false)]);
        assert_eq!(of(&["device:read:/dev/fuse"]), [(false, false), (true, false)]);
        assert_eq!(of(&["device:read:/dev/kvm", "fs:read:/x"]), [(true, true), (false, false)]);
    }

    #[test]
    fn nodes_lie_where_they_did() {
        let paths: Vec<_> = nodes(&[given("/dev/net/tun", 200, true)]).into_iter().map(|n| n.path).collect();
        assert_eq!(paths, [std::path::PathBuf::from("net/tun")]);
    }

    #[test]
    fn only_character_devices_of_the_host_are_found() {
        // In containers it is a link.
        if std::path::Path::new("/dev/console").symlink_metadata().is_ok_and(|found| !found.is_symlink()) {
            let refused = found("/dev/console").unwrap_err();
            assert_eq!((refused.field.as_str(), refused.layer), ("devices", None), "{refused}");
        }
        let absent = found("/dev/aion-no-such-device").unwrap_err();
        assert_eq!(absent.layer, Some(LayerName::Devices), "{absent}");
        let disk =
            ["/dev/loop0", "/dev/vda", "/dev/sda"].into_iter().find(|p| std::path::Path::new(p).exists());
        if let Some(disk) = disk {
            let refused = found(disk).unwrap_err();
            assert!(refused.message.contains("is a block device"), "{refused}");
        }
    }
}
