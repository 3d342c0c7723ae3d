//! The system part of every root, built once: a private mount namespace with the host's `/usr`, an `/etc` of
//! our own and a minimal `/dev`, all read-only.
//!
//! Slots are cloned out of this namespace, so an init never sees the host's file tree, and a launch copies a
//! few mounts instead of making them. `/proc` is there because the kernel lets a user namespace mount a proc
//! of its own only where a whole one is visible already; it goes away with pivot_root.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::Path;
use std::time::SystemTime;

use aion_sys::mount::{attr, restrict};
use aion_types::LayerName;
use rustix::fs::{CWD, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount, open_tree,
    unmount,
};

use crate::Error;
use crate::host::template_etc::EtcFiles;
use crate::message::SystemEntry;

/// Folders that are the system's: read-only from the host, or links into `/usr` as on the host.
const SYSTEM: &[&str] = &["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"];
/// Device nodes that are shown.
const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom", "tty"];
pub(crate) const DEVICE_LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];
/// Folders of `/etc` that are the host's own: links in `/usr` go through the first, certificates are updated.
const ETC_FOLDERS: &[&str] = &["alternatives", "ssl/certs", "pki"];
/// What a template was made from, and must be made again for when it changed.
const WATCHED: &[&str] =
    &["/usr", "/etc/ld.so.cache", "/etc/localtime", "/etc/alternatives", "/etc/ssl/certs"];

/// State of the host that a template copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fingerprint(Vec<Option<(u64, u64, Option<SystemTime>)>>);

impl Fingerprint {
    /// Looks at the host. Only of files the time counts: a bound folder shows its changes itself.
    pub(crate) fn now() -> Self {
        let look = |path: &&str| {
            let meta = std::fs::metadata(path).ok()?;
            let time = if meta.is_file() { meta.modified().ok() } else { None };
            Some((meta.dev(), meta.ino(), time))
        };
        Self(WATCHED.iter().map(look).collect())
    }
}

/// The mount namespace of this thread is the template once this is made.
#[derive(Debug)]
pub(crate) struct Template {
    pub(crate) entries: Vec<SystemEntry>,
}

/// A mount and where it goes, below `/system`.
struct Placed {
    path: String,
    mount: OwnedFd,
    directory: bool,
}

impl Template {
    /// Moves this thread into a new mount namespace and makes it the template. The thread has a root and
    /// working directory of its own already.
    pub(crate) fn build() -> Result<Self, Error> {
        let failed = |what: &str| Error::layer(LayerName::Rootfs, format!("template: cannot {what}"));
        aion_sys::ns::unshare(aion_sys::clone::flags::NEWNS).map_err(failed("make a mount namespace"))?;
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).map_err(failed("make mounts private"))?;

        let etc = EtcFiles::collect();
        let (entries, mut placed) = system_mounts()?;
        placed.extend(etc_mounts()?);
        placed.extend(device_mounts()?);
        let proc = bind("/proc", false).map_err(failed("bind /proc"))?;

        let base = tmpfs("size=8m").map_err(failed("mount a tmpfs"))?;
        attach(&base, "/proc").map_err(failed("attach the tmpfs"))?;
        rustix::process::fchdir(&base).map_err(failed("enter the tmpfs"))?;
        rustix::process::pivot_root(".", ".").map_err(failed("leave the host's root"))?;
        unmount(".", UnmountFlags::DETACH).map_err(failed("drop the host's root"))?;
        rustix::process::chdir("/").map_err(failed("enter the template"))?;

        let io = |what: &'static str| {
            move |e: std::io::Error| Error::Layer {
                layer: LayerName::Rootfs,
                errno: e.raw_os_error().unwrap_or(0),
                message: format!("template: cannot {what}"),
            }
        };
        folder("/proc").and_then(|()| folder("/system")).map_err(io("make its folders"))?;
        attach(&proc, "/proc").map_err(failed("attach /proc"))?;
        etc.write(Path::new("/system/etc")).map_err(io("write its /etc"))?;
        for (name, target) in DEVICE_LINKS {
            folder("/system/dev").map_err(io("make its /dev"))?;
            symlink(target, format!("/system/dev/{name}")).map_err(io("make its /dev"))?;
        }
        folder("/system/dev/pts").and_then(|()| folder("/system/dev/shm")).map_err(io("make its /dev"))?;
        for Placed { path, mount, directory } in &placed {
            let path = format!("/system/{path}");
            mount_point(&path, *directory).map_err(io("make a mount point"))?;
            attach(mount, &path).map_err(failed("attach a mount"))?;
        }
        restrict(base.as_fd(), attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC, false)
            .map_err(failed("make itself read-only"))?;
        Ok(Self { entries })
    }
}

/// `/usr` and its companions: a mount each, or the link that the host has.
fn system_mounts() -> Result<(Vec<SystemEntry>, Vec<Placed>), Error> {
    let (mut entries, mut placed) = (Vec::new(), Vec::new());
    for &name in SYSTEM {
        let path = format!("/{name}");
        let Ok(meta) = std::fs::symlink_metadata(&path) else { continue };
        if meta.is_symlink() {
            let target = std::fs::read_link(&path).ok().and_then(|t| t.to_str().map(str::to_owned));
            if let Some(link) = target {
                entries.push(SystemEntry { name: name.to_owned(), link });
            }
            continue;
        }
        let mount = restricted(&path, true, attr::RDONLY | attr::NOSUID | attr::NODEV)?;
        placed.push(Placed { path: name.to_owned(), mount, directory: true });
        entries.push(SystemEntry { name: name.to_owned(), link: String::new() });
    }
    for name in ["etc", "dev"] {
        entries.push(SystemEntry { name: name.to_owned(), link: String::new() });
    }
    Ok((entries, placed))
}

fn etc_mounts() -> Result<Vec<Placed>, Error> {
    let mut placed = Vec::new();
    for name in ETC_FOLDERS {
        let path = format!("/etc/{name}");
        if std::fs::metadata(&path).is_ok_and(|m| m.is_dir()) {
            let mount = restricted(&path, false, attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC)?;
            placed.push(Placed { path: format!("etc/{name}"), mount, directory: true });
        }
    }
    Ok(placed)
}

/// Read-only holds for the nodes themselves (their owner and mode); what is behind them is not affected.
fn device_mounts() -> Result<Vec<Placed>, Error> {
    let one = |name: &&str| {
        let mount = restricted(&format!("/dev/{name}"), false, attr::RDONLY | attr::NOSUID | attr::NOEXEC)?;
        Ok(Placed { path: format!("dev/{name}"), mount, directory: false })
    };
    DEVICES.iter().map(one).collect()
}

fn restricted(path: &str, recursive: bool, set: u64) -> Result<OwnedFd, Error> {
    let failed = |what: &str| Error::layer(LayerName::Rootfs, format!("template: cannot {what} {path}"));
    let mount = bind(path, recursive).map_err(failed("bind"))?;
    restrict(mount.as_fd(), set, recursive).map_err(failed("restrict"))?;
    Ok(mount)
}

fn bind(path: &str, recursive: bool) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(CWD, path, flags)
}

fn tmpfs(size: &str) -> Result<OwnedFd, Errno> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    if let Some((key, value)) = size.split_once('=') {
        fsconfig_set_string(context.as_fd(), key, value)?;
    }
    fsconfig_set_string(context.as_fd(), "mode", "0755")?;
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

fn attach(mount: &OwnedFd, path: &str) -> Result<(), Errno> {
    move_mount(mount.as_fd(), "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

fn folder(path: &str) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(path)
}

fn mount_point(path: &str, directory: bool) -> std::io::Result<()> {
    if directory {
        return folder(path);
    }
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::open(path, flags, rustix::fs::Mode::from_raw_mode(0o444))?;
    Ok(())
}
