//! The agent's root: built and entered before the plan is known, finished with it.
//!
//! One tmpfs holds the root's own folders and, beside them, `/tmp`, `/run` and `/dev/shm`; each is shown through a mount of its
//! own, so that the root can be read-only and one size limits them all. The system comes from the template under
//! `/system`, which is also where the tmpfs is mounted meanwhile. Dropping the template waits for all processors, so it is done
//! here and not in a launch.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aion_sandbox::{BindTarget, Plan, Prepare, RootfsKind, Secret, SystemEntry};
use aion_sys::mount::{attr, restrict};
use aion_types::LayerName::{Devices, Rootfs, Workspace};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, chmodat, chownat, fchown, mkdirat, openat, symlinkat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_reconfigure, fsconfig_set_string, fsmount, fsopen, fspick, move_mount, unmount,
};
use rustix::process::{Gid, Uid, chdir, fchdir, pivot_root};

use crate::failure::{Failure, Result, at};
use crate::identity;
use crate::masks;
use crate::mountpoint::{Make, attach, copy_tree, open, open_or_make};

/// What the tmpfs is given before a plan says its size.
const DEFAULT_BYTES: u64 = 64 << 20;
const DEFAULT_INODES: u32 = 65_536;
/// Folders of the tmpfs: name, mode.
const OWN: &[(&str, u32)] =
    &[("root", 0o755), ("tmp", 0o1777), ("run", 0o1777), ("shm", 0o1777), ("empty", 0o555)];
/// Empty folders of the root on which something is mounted, or which are expected to be there.
const PLACES: &[&str] = &["proc", "sys", "tmp", "run", "workspace"];
/// Where a root folder from outside is put for a moment.
const ASIDE: &[u8] = b"sys";
/// What secrets may take beyond their bytes: a page for the end of each, and some for the folder.
const PAGE: u64 = 4096;
/// Where each shared folder of the tmpfs is shown.
const SHOWN: &[(&str, &str)] = &[("tmp", "tmp"), ("run", "run"), ("shm", "dev/shm")];

/// A root under construction.
#[derive(Debug)]
pub(crate) struct Root {
    /// The root of the host system, which we are in.
    root: OwnedFd,
}

/// Becomes root inside and builds everything that does not depend on the plan.
pub(crate) fn prepare(prepare: &Prepare) -> Result<Root> {
    identity::become_root()?;
    rustix::process::umask(Mode::empty());
    build(prepare).map_err(|(what, e)| Failure::Layer {
        layer: Rootfs,
        errno: e.raw_os_error(),
        message: format!("cannot {what}"),
    })
}

type Step<T> = std::result::Result<T, (&'static str, Errno)>;

fn doing(what: &'static str) -> impl FnOnce(Errno) -> (&'static str, Errno) {
    move |e| (what, e)
}

fn build(prepare: &Prepare) -> Step<Root> {
    let system: &[SystemEntry] = &prepare.system;
    // The template's mounts are copied before the tmpfs covers them.
    let mut mounts = Vec::with_capacity(system.len());
    for entry in system.iter().filter(|e| e.link.is_empty()) {
        let path = format!("/system/{}", entry.name);
        mounts.push((&entry.name, copy_tree(CWD, &path, true).map_err(doing("copy the template"))?));
    }
    let scratch = tmpfs(DEFAULT_BYTES, DEFAULT_INODES.into()).map_err(doing("mount a tmpfs"))?;
    put(scratch.as_fd(), CWD, "/system").map_err(doing("attach a tmpfs"))?;
    for (name, mode) in OWN {
        mkdirat(&scratch, *name, Mode::from_raw_mode(*mode)).map_err(doing("make a folder"))?;
    }
    let root = copy_tree(scratch.as_fd(), "root", false).map_err(doing("make the root"))?;
    put(root.as_fd(), scratch.as_fd(), "root").map_err(doing("attach the root"))?;
    for name in PLACES.iter().copied().chain(mounts.iter().map(|(n, _)| n.as_str())) {
        mkdirat(&root, name, Mode::from_raw_mode(0o755)).map_err(doing("make a folder"))?;
    }
    for entry in system.iter().filter(|e| !e.link.is_empty()) {
        symlinkat(&entry.link, &root, &entry.name).map_err(doing("make a link"))?;
    }
    for (name, mount) in &mounts {
        put(mount.as_fd(), root.as_fd(), name).map_err(doing("attach a part of the system"))?;
    }
    let proc =
        filesystem("proc", &[]).map_err(doing("mount /proc (does the host hide parts of its own?)"))?;
    put(proc.as_fd(), root.as_fd(), "proc").map_err(doing("attach /proc"))?;
    let pts = filesystem("devpts", &[("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")])
        .map_err(doing("mount /dev/pts"))?;
    // Terminals are devices: this one mount cannot be nodev.
    put(pts.as_fd(), root.as_fd(), "dev/pts").map_err(doing("attach /dev/pts"))?;
    for (name, shown) in SHOWN {
        let mount = copy_tree(scratch.as_fd(), name, false).map_err(doing("copy a folder"))?;
        put(mount.as_fd(), root.as_fd(), shown).map_err(doing("attach a folder"))?;
    }
    if prepare.mask_proc {
        mask(&scratch, &root).map_err(doing("mask /proc"))?;
    }
    swap_root(&root).map_err(doing("leave the template"))?;
    Ok(Root { root })
}

/// Enters a root that is mounted somewhere. Nothing of the tree before is reachable after it.
fn swap_root(root: &OwnedFd) -> std::result::Result<(), Errno> {
    fchdir(root)?;
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    chdir("/")
}

fn mask(scratch: &OwnedFd, root: &OwnedFd) -> std::result::Result<(), Errno> {
    let proc = open(root.as_fd(), b"proc")?;
    let null = open(root.as_fd(), b"dev/null")?;
    let empty = copy_tree(scratch.as_fd(), "empty", false)?;
    restrict(empty.as_fd(), attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC, false)?;
    put(empty.as_fd(), scratch.as_fd(), "empty")?;
    masks::apply(proc.as_fd(), null.as_fd(), empty.as_fd())
}

/// Attaches in a root of our own making, where a path is what it says.
fn put(mount: BorrowedFd<'_>, root: BorrowedFd<'_>, path: &str) -> std::result::Result<(), Errno> {
    move_mount(mount, "", root, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

fn tmpfs(bytes: u64, inodes: u64) -> std::result::Result<OwnedFd, Errno> {
    let size = bytes.to_string();
    let inodes = inodes.to_string();
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in [("size", size.as_str()), ("nr_inodes", inodes.as_str()), ("mode", "0755")] {
        fsconfig_set_string(context.as_fd(), key, value)?;
    }
    fsconfig_create(context.as_fd())?;
    let attrs = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attrs)
}

fn filesystem(kind: &str, options: &[(&str, &str)]) -> std::result::Result<OwnedFd, Errno> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        fsconfig_set_string(context.as_fd(), *key, *value)?;
    }
    fsconfig_create(context.as_fd())?;
    let mut attrs = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    if kind == "proc" {
        attrs |= MountAttrFlags::MOUNT_ATTR_NODEV;
    }
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attrs)
}

/// What is mounted in `/dev`.
const IN_DEV: [&str; 2] = ["pts", "shm"];

impl Root {
    /// Puts a `/dev` of the agent's own over the one that all sandboxes share, with the terminals and the memory that are there. Before
    /// a root folder from outside is given what is in ours.
    pub(crate) fn show_devices(&self, dev: &OwnedFd) -> Result<()> {
        let failed = |what: &'static str| at(Devices, what);
        let root = self.root.as_fd();
        let mut kept = Vec::with_capacity(IN_DEV.len());
        for name in IN_DEV {
            let path = format!("dev/{name}");
            let mount = copy_tree(root, &path, false).map_err(failed("cannot copy a mount of /dev"))?;
            kept.push((path, mount));
        }
        let place = open(root, b"dev").map_err(failed("the root has no /dev"))?;
        attach(dev.as_fd(), place.as_fd()).map_err(failed("cannot attach /dev"))?;
        for (path, mount) in kept {
            let place = open(root, path.as_bytes()).map_err(failed("/dev lacks a folder"))?;
            attach(mount.as_fd(), place.as_fd()).map_err(failed("cannot attach a mount in /dev"))?;
        }
        Ok(())
    }

    /// Adds what the plan says. With a root folder that is what is entered.
    pub(crate) fn enter(
        self,
        plan: &Plan,
        rootfs: Option<OwnedFd>,
        workspace: &OwnedFd,
        binds: &[OwnedFd],
    ) -> Result<()> {
        if (plan.scratch_bytes, plan.scratch_inodes) != (DEFAULT_BYTES, DEFAULT_INODES) {
            self.resize(plan).map_err(at(Rootfs, "cannot size /tmp"))?;
        }
        if let Some(folder) = &rootfs {
            self.furnish(folder)?;
        }
        let root = rootfs.as_ref().unwrap_or(&self.root);
        let place = place(root, b"/workspace", Make::Nothing, Workspace)?;
        attach(workspace.as_fd(), place.as_fd()).map_err(at(Workspace, "cannot attach the workspace"))?;
        self.attach_binds(plan, root, binds)?;
        if !plan.secrets.is_empty() {
            show_secrets(plan, root).map_err(at(Rootfs, "cannot write the secrets"))?;
        }
        restrict(root.as_fd(), attr::RDONLY | attr::NOSUID | attr::NODEV, false)
            .map_err(at(Rootfs, "cannot make the root read-only"))?;
        if let Some(folder) = &rootfs {
            swap_root(folder).map_err(at(Rootfs, "cannot enter the root folder"))?;
        }
        Ok(())
    }

    /// Puts our `/proc`, `/dev` and shared folders into a root folder that came from outside.
    fn furnish(&self, folder: &OwnedFd) -> Result<()> {
        let failed = |what: &'static str| at(Rootfs, what);
        let aside = open(self.root.as_fd(), ASIDE).map_err(failed("no place for the root folder"))?;
        attach(folder.as_fd(), aside.as_fd()).map_err(failed("cannot attach the root folder"))?;
        for name in ["proc", "dev", "tmp", "run"] {
            let place = place(folder, format!("/{name}").as_bytes(), Make::Nothing, Rootfs)?;
            let mount = copy_tree(self.root.as_fd(), name, true)
                .map_err(failed("cannot copy a mount into the root folder"))?;
            attach(mount.as_fd(), place.as_fd())
                .map_err(failed("cannot attach a mount in the root folder"))?;
        }
        Ok(())
    }

    fn attach_binds(&self, plan: &Plan, root: &OwnedFd, binds: &[OwnedFd]) -> Result<()> {
        let mut order: Vec<(&BindTarget, &OwnedFd)> = plan.binds.iter().zip(binds).collect();
        // A folder before what is below it.
        order.sort_by(|(a, _), (b, _)| a.path.cmp(&b.path));
        for (target, mount) in order {
            let make = match (plan.rootfs, target.directory) {
                (RootfsKind::Directory, _) => Make::Nothing,
                (RootfsKind::HostSystem, true) => Make::Folder,
                (RootfsKind::HostSystem, false) => Make::File,
            };
            let place = place(root, &target.path, make, Rootfs)?;
            attach(mount.as_fd(), place.as_fd()).map_err(|e| Failure::Layer {
                layer: Rootfs,
                errno: e.raw_os_error(),
                message: format!("cannot attach {}", String::from_utf8_lossy(&target.path)),
            })?;
        }
        Ok(())
    }

    fn resize(&self, plan: &Plan) -> std::result::Result<(), Errno> {
        // The root is a part of the tmpfs: what is configured through it is the whole.
        let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH;
        let context = fspick(&self.root, "", flags)?;
        fsconfig_set_string(context.as_fd(), "size", plan.scratch_bytes.to_string())?;
        fsconfig_set_string(context.as_fd(), "nr_inodes", plan.scratch_inodes.to_string())?;
        fsconfig_reconfigure(context.as_fd())
    }
}

/// Writes the secrets into a tmpfs of their own, which is read-only before anybody sees it.
fn show_secrets(plan: &Plan, root: &OwnedFd) -> std::result::Result<(), Errno> {
    let count = u64::try_from(plan.secrets.len()).unwrap_or(u64::MAX);
    let bytes: usize = plan.secrets.iter().map(|s| s.value.len()).sum();
    let size = u64::try_from(bytes)
        .unwrap_or(u64::MAX)
        .saturating_add(count.saturating_add(16).saturating_mul(PAGE));
    let folder = tmpfs(size, count.saturating_add(16))?;
    let owner = (Some(Uid::from_raw(plan.uid)), Some(Gid::from_raw(plan.gid)));
    for Secret { name, value } in &plan.secrets {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = openat(&folder, name, flags, Mode::from_raw_mode(0o400))?;
        let mut rest = value.as_slice();
        while !rest.is_empty() {
            rest = &rest[rustix::io::write(&file, rest)?..];
        }
        fchown(&file, owner.0, owner.1)?;
    }
    chownat(&folder, "", owner.0, owner.1, AtFlags::EMPTY_PATH)?;
    chmodat(&folder, ".", Mode::from_raw_mode(0o500), AtFlags::empty())?;
    restrict(folder.as_fd(), attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC, false)?;
    let place = open_or_make(root.as_fd(), b"run/secrets", Make::Folder)?;
    attach(folder.as_fd(), place.as_fd())
}

/// The place for a mount, with an error that says what the root lacks.
fn place(root: &OwnedFd, path: &[u8], make: Make, layer: aion_types::LayerName) -> Result<OwnedFd> {
    let relative = path.strip_prefix(b"/").unwrap_or(path);
    open_or_make(root.as_fd(), relative, make).map_err(|e| {
        let path = String::from_utf8_lossy(path).into_owned();
        let message = match e {
            Errno::NOENT => format!("the root has no {path} to mount on: make an empty one"),
            Errno::LOOP => format!("{path} goes through a symbolic link in the root"),
            _ => format!("cannot mount on {path}"),
        };
        Failure::Layer { layer, errno: e.raw_os_error(), message }
    })
}
