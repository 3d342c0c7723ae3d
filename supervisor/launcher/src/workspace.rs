//! The workspace's mount, and the limit on what the agent may store in it (layers `workspace` and `disk`).
//!
//! A managed workspace is a volume: a file system of its own, whose end is the limit. A folder of the host has
//! no limit of its own. Where the host cannot make volumes, memory can stand in, if the manifest allows it.

use std::os::fd::{AsFd, OwnedFd};

use aion_sandbox::{Slot, mounts};
use aion_types::{LayerName, LayerReport, LayerState};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
};

use crate::Failure;
use crate::failure::chain;
use crate::launcher::Launcher;
use crate::request::{Launch, WorkspaceKind};

/// What the launch needs of it.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) mount: OwnedFd,
    pub(crate) layers: Vec<LayerReport>,
    /// Name of the volume, empty for none.
    pub(crate) volume: String,
    pub(crate) volume_bytes: u64,
}

pub(crate) fn prepare(launcher: &Launcher, launch: &Launch, slot: &Slot) -> Result<Prepared, Failure> {
    match &launch.workspace.kind {
        WorkspaceKind::Managed => managed(launcher, launch, slot),
        WorkspaceKind::Memory => {
            in_memory(launch, slot, LayerState::Active, "in memory, gone with the process".to_owned())
        }
        WorkspaceKind::Directory(path) => {
            let disk = directory_limit(launch)?;
            let dir = mounts::open_path(path, LayerName::Workspace)?;
            let stat = rustix::fs::fstat(&dir).map_err(|e| failed(e, "cannot look at the workspace"))?;
            if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::Directory {
                return Err(Failure::new(
                    aion_types::ErrorCode::WorkspaceInvalid,
                    format!("{} is not a folder", path.display()),
                ));
            }
            let mount = slot.workspace_mount(&dir, launch.workspace.read_only)?;
            Ok(Prepared { mount, layers: vec![disk], volume: String::new(), volume_bytes: 0 })
        }
    }
}

fn directory_limit(launch: &Launch) -> Result<LayerReport, Failure> {
    let why = "a folder of the host has no disk limit of its own: use a managed workspace, or a project quota on \
               the host";
    match launch.limits.disk_bytes {
        None => Ok(report(LayerState::Unavailable, why)),
        Some(_) if launch.may_degrade(LayerName::Disk) => Ok(report(LayerState::Degraded, why)),
        Some(_) => Err(Failure::layer(LayerName::Disk, 0, why)),
    }
}

fn managed(launcher: &Launcher, launch: &Launch, slot: &Slot) -> Result<Prepared, Failure> {
    let name = launch.id.as_str();
    let bytes = launch.limits.disk_bytes.unwrap_or(launcher.ceilings.disk_bytes);
    let made = match &launcher.volumes {
        None => Err("the folder for volumes cannot be used".to_owned()),
        Some(volumes) => volumes.take(name, bytes).map_err(|e| chain(&e)).and_then(|volume| {
            let bytes = volume.bytes();
            let mounted = volume.mount_for(slot.init_pid());
            if mounted.is_err() && launch.incarnation == 0 {
                let _ = volumes.remove(name);
            }
            Ok((bytes, mounted.map_err(|e| chain(&e))?))
        }),
    };
    match made {
        Ok((bytes, mount)) => {
            if launch.workspace.read_only {
                aion_sys::mount::restrict(mount.as_fd(), aion_sys::mount::attr::RDONLY, false)
                    .map_err(|e| failed(e, "cannot make the volume read-only"))?;
            }
            let detail = match launch.limits.disk_bytes {
                Some(_) => format!("a volume of {bytes} bytes"),
                None => format!("a volume of its own, no limit asked; {bytes} bytes"),
            };
            let state = if launch.limits.disk_bytes.is_some() { LayerState::Active } else { LayerState::Off };
            let layers = vec![report(state, &detail)];
            Ok(Prepared { mount, layers, volume: name.to_owned(), volume_bytes: bytes })
        }
        Err(why) if launch.may_degrade(LayerName::Disk) => {
            let detail = format!("memory instead of a volume, gone with the process ({why})");
            in_memory(launch, slot, LayerState::Degraded, detail)
        }
        Err(why) => Err(Failure::layer(LayerName::Disk, 0, format!("no volume for the workspace: {why}"))),
    }
}

/// Memory: limited, charged to the agent's, and gone with each incarnation.
fn in_memory(launch: &Launch, slot: &Slot, state: LayerState, detail: String) -> Result<Prepared, Failure> {
    let step = |what: &'static str| move |e: Errno| failed(e, what);
    let owner = slot.uid_base().saturating_add(1000).to_string();
    let bytes = launch.limits.disk_bytes.or(launch.limits.mem_bytes).unwrap_or(64 << 20);
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(step("cannot open tmpfs"))?;
    let options =
        [("size", bytes.to_string()), ("mode", "0755".to_owned()), ("uid", owner.clone()), ("gid", owner)];
    for (key, value) in options {
        fsconfig_set_string(context.as_fd(), key, value).map_err(step("cannot configure tmpfs"))?;
    }
    fsconfig_create(context.as_fd()).map_err(step("cannot make a tmpfs"))?;
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOATIME;
    if launch.workspace.read_only {
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    let mount = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .map_err(step("cannot mount a tmpfs"))?;
    let layers = vec![report(state, &format!("{detail}; {bytes} bytes"))];
    Ok(Prepared { mount, layers, volume: String::new(), volume_bytes: 0 })
}

fn report(state: LayerState, detail: &str) -> LayerReport {
    LayerReport { name: LayerName::Disk, state, detail: detail.to_owned() }
}

fn failed(errno: Errno, what: &str) -> Failure {
    Failure::layer(LayerName::Workspace, errno.raw_os_error(), format!("{what}: {errno}"))
}
