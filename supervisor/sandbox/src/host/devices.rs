//! A `/dev` of an agent's own: the nodes that every sandbox has, and those that it was given, made anew.
//!
//! The host's own nodes would be of no use: their owners are not mapped, so nobody inside could open one of mode 0660. The file system is
//! mounted nowhere on the host, so that no path shows these nodes; it belongs to the host's root and is read-only, so that nobody inside
//! changes them.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use aion_sys::mount::{attr, restrict};
use aion_types::LayerName;
use rustix::fs::{AtFlags, FileType, Mode, chmodat, chownat, makedev, mkdirat, mknodat, symlinkat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
};
use rustix::process::Gid;

use crate::Error;
use crate::host::template::DEVICE_LINKS;

/// The nodes of every sandbox; terminals are on a devpts of its own.
const EVERYBODYS: &[(&str, u32, u32)] =
    &[("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
/// Where init puts mounts.
const FOLDERS: &[&str] = &["pts", "shm"];
const SIZE: &str = "64k";
const INODES: &str = "256";

/// A character device that one agent sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceNode {
    /// Where, below `/dev`; relative, without dots.
    pub path: PathBuf,
    /// Its driver.
    pub major: u32,
    /// Which of the driver's.
    pub minor: u32,
}

/// The mount. Its nodes belong to the host's root, and those that were given to the group `gid` of the host as well, which is the
/// agent's alone. Whoever may only read is held to that by the probes: they tell what they refuse, and a mode would not.
pub(crate) fn mount(nodes: &[DeviceNode], gid: u32) -> Result<OwnedFd, Error> {
    let failed = |what: &'static str| Error::layer(LayerName::Devices, what);
    let dev = tmpfs().map_err(failed("cannot mount a tmpfs for /dev"))?;
    for name in FOLDERS {
        mkdirat(&dev, *name, Mode::from_raw_mode(0o755)).map_err(failed("cannot make a folder in /dev"))?;
    }
    for (name, target) in DEVICE_LINKS {
        symlinkat(*target, &dev, *name).map_err(failed("cannot make a link in /dev"))?;
    }
    let all = Mode::from_raw_mode(0o666);
    for &(name, major, minor) in EVERYBODYS {
        node(&dev, Path::new(name), (major, minor), all, None).map_err(|e| not_made(Path::new(name), e))?;
    }
    let group = Gid::from_raw(gid);
    for given in nodes {
        folders(&dev, &given.path).map_err(|e| not_made(&given.path, e))?;
        let (number, mode) = ((given.major, given.minor), Mode::from_raw_mode(0o660));
        node(&dev, &given.path, number, mode, Some(group)).map_err(|e| not_made(&given.path, e))?;
    }
    restrict(dev.as_fd(), attr::RDONLY | attr::NOSUID | attr::NOEXEC, false)
        .map_err(failed("cannot make /dev read-only"))?;
    Ok(dev)
}

fn not_made(path: &Path, errno: Errno) -> Error {
    let why = match errno {
        Errno::PERM => {
            ": aion-launcher may make no device nodes here (CAP_MKNOD; DeviceAllow=char-* m in its unit)"
        }
        Errno::EXIST | Errno::NOTDIR => ": something else of the sandbox's /dev is there",
        _ => "",
    };
    Error::Layer {
        layer: LayerName::Devices,
        errno: errno.raw_os_error(),
        message: format!("cannot make /dev/{}{why}", path.display()),
    }
}

/// The folders in which a node lies.
fn folders(dev: &OwnedFd, path: &Path) -> Result<(), Errno> {
    let parents: Vec<&Path> = path.ancestors().skip(1).filter(|p| !p.as_os_str().is_empty()).collect();
    for folder in parents.into_iter().rev() {
        match mkdirat(dev, folder, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn node(
    dev: &OwnedFd,
    path: &Path,
    (major, minor): (u32, u32),
    mode: Mode,
    group: Option<Gid>,
) -> Result<(), Errno> {
    mknodat(dev, path, FileType::CharacterDevice, mode, makedev(major, minor))?;
    if group.is_some() {
        chownat(dev, path, None, group, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    // Whatever the umask left of it.
    chmodat(dev, path, mode, AtFlags::empty())
}

fn tmpfs() -> Result<OwnedFd, Errno> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in [("size", SIZE), ("nr_inodes", INODES), ("mode", "0755")] {
        fsconfig_set_string(context.as_fd(), key, value)?;
    }
    fsconfig_create(context.as_fd())?;
    // The one mount besides devpts on which nodes work.
    let attrs = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attrs)
}
