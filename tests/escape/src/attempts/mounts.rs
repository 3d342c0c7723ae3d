//! Changing the view of files, by the old and the new mount calls, and cgroup file systems.

use std::fs;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use crate::attempt::{Attempt, Control};
use crate::sys::{self, Stop, at, mount, reached, sc};
use crate::target::Targets;

const FRESH: Control = Control::Fresh(libc::CLONE_NEWNS);

fn folder(t: &Targets, name: &str) -> Result<String, Stop> {
    let path = t.in_workspace(name);
    fs::create_dir_all(&path).map_err(at("making a folder"))?;
    Ok(path)
}

pub(super) fn old() -> Vec<Attempt> {
    let mut attempts: Vec<Attempt> = ["proc", "sysfs", "tmpfs", "devpts", "mqueue"]
        .into_iter()
        .map(|kind| {
            Attempt::new(format!("mount-{kind}"), format!("mount(2) of a new {kind}"), "seccomp", move |t| {
                mount("none", &folder(t, "m")?, kind, 0, "")?;
                reached("a mount of its own")
            })
        })
        .collect();
    attempts.push(Attempt::new(
        "mount-bind",
        "mount(2) that binds / elsewhere, without what covers it",
        "seccomp",
        |t| {
            mount("/", &folder(t, "m")?, "", libc::MS_BIND, "")?;
            reached("what lies below the mounts")
        },
    ));
    attempts.push(Attempt::new(
        "mount-remount",
        "mount(2) that makes the root writable again",
        "seccomp",
        |_| {
            mount("none", "/", "", libc::MS_REMOUNT | libc::MS_BIND, "")?;
            reached("a writable root")
        },
    ));
    attempts.push(Attempt::new("mount-overlay", "mount(2) of an overlay over /usr", "seccomp", |t| {
        mount("none", &folder(t, "over")?, "tmpfs", 0, "")?;
        let (upper, work) = (folder(t, "over/u")?, folder(t, "over/w")?);
        mount("o", "/usr", "overlay", 0, &format!("lowerdir=/usr,upperdir={upper},workdir={work}"))?;
        reached("a /usr of its own")
    }));
    attempts.push(Attempt::new(
        "mount-shared",
        "mount(2) that makes mounts propagate to the outside",
        "seccomp",
        |_| {
            mount("none", "/", "", libc::MS_SHARED | libc::MS_REC, "")?;
            reached("shared mounts")
        },
    ));
    attempts.push(Attempt::new(
        "umount-proc",
        "umount2(2) of /proc, to see what it covers",
        "seccomp",
        |_| {
            let path = sys::text("/proc");
            sc!("umount2(2)", libc::SYS_umount2, path.as_ptr(), libc::MNT_DETACH)?;
            reached("/proc is gone")
        },
    ));
    attempts.push(Attempt::new("pivot-root", "pivot_root(2) to a root of its own", "seccomp", |t| {
        let root = folder(t, "root")?;
        // Bound where that is possible; where it is not, the call itself is what is looked at.
        let _ = mount(&root, &root, "", libc::MS_BIND, "");
        let (root, old) = (sys::text(&root), sys::text(&folder(t, "root/old")?));
        sc!("pivot_root(2)", libc::SYS_pivot_root, root.as_ptr(), old.as_ptr())?;
        reached("another root")
    }));
    attempts.push(Attempt::new(
        "chroot-break",
        "chroot(2) into a folder with the working folder left outside, then up: the classic way out of a root",
        "seccomp",
        |t| {
            let jail = sys::text(&folder(t, "jail")?);
            sc!("chroot(2)", libc::SYS_chroot, jail.as_ptr())?;
            for _ in 0..64 {
                std::env::set_current_dir("..").map_err(at("chdir"))?;
            }
            reached("above the root")
        },
    ));
    attempts.into_iter().map(|a| a.control(FRESH)).collect()
}

pub(super) fn new() -> Vec<Attempt> {
    const FSOPEN: &str = "fsopen(2)";
    let mut attempts = vec![
        Attempt::new("fsopen", "fsopen(2) of a tmpfs", "seccomp", |_| {
            let name = sys::text("tmpfs");
            drop(sys::fd(sc!(FSOPEN, libc::SYS_fsopen, name.as_ptr(), 0)?));
            reached("a file system context")
        }),
        Attempt::new(
            "fsmount",
            "fsopen, fsconfig, fsmount and move_mount: a file system without mount(2)",
            "seccomp",
            |t| {
                let (name, target) = (sys::text("proc"), sys::text(&folder(t, "m")?));
                let context = sys::fd(sc!(FSOPEN, libc::SYS_fsopen, name.as_ptr(), 0)?);
                sc!("fsconfig(2)", libc::SYS_fsconfig, context.as_raw_fd(), 6, 0, 0, 0)?;
                let made = sys::fd(sc!("fsmount(2)", libc::SYS_fsmount, context.as_raw_fd(), 0, 0)?);
                let empty = sys::text("");
                sc!(
                    "move_mount(2)",
                    libc::SYS_move_mount,
                    made.as_raw_fd(),
                    empty.as_ptr(),
                    libc::AT_FDCWD,
                    target.as_ptr(),
                    4
                )?;
                reached("a /proc of its own")
            },
        ),
        Attempt::new("open-tree", "open_tree(2) that copies the root's mounts", "seccomp", |_| {
            let root = sys::text("/");
            drop(sys::fd(sc!(
                "open_tree(2)",
                libc::SYS_open_tree,
                libc::AT_FDCWD,
                root.as_ptr(),
                1 | libc::AT_RECURSIVE
            )?));
            reached("a copy of all mounts")
        }),
        Attempt::new("move-mount", "move_mount(2) of a mount that is there", "seccomp", |t| {
            let (from, to) = (folder(t, "from")?, folder(t, "to")?);
            let _ = mount("none", &from, "tmpfs", 0, "");
            let (from, to) = (sys::text(&from), sys::text(&to));
            sc!(
                "move_mount(2)",
                libc::SYS_move_mount,
                libc::AT_FDCWD,
                from.as_ptr(),
                libc::AT_FDCWD,
                to.as_ptr(),
                0
            )?;
            reached("a mount in another place")
        }),
        Attempt::new(
            "mount-setattr",
            "mount_setattr(2) that takes read-only and nosuid away from all mounts",
            "seccomp",
            |_| {
                let (root, attributes) = (sys::text("/"), [0_u64, 1 | 2 | 4, 0, 0]);
                sc!(
                    "mount_setattr(2)",
                    libc::SYS_mount_setattr,
                    libc::AT_FDCWD,
                    root.as_ptr(),
                    0,
                    attributes.as_ptr(),
                    32
                )?;
                reached("mounts without their restrictions")
            },
        ),
        Attempt::new("fspick", "fspick(2) of the root, to reconfigure it", "seccomp", |_| {
            let root = sys::text("/");
            drop(sys::fd(sc!("fspick(2)", libc::SYS_fspick, libc::AT_FDCWD, root.as_ptr(), 0)?));
            reached("a handle on the root's superblock")
        }),
        Attempt::new(
            "open-tree-attr",
            "open_tree_attr(2): a copy of the root without its restrictions",
            "seccomp",
            |_| {
                let (root, attributes) = (sys::text("/"), [0_u64, 1 | 2 | 4, 0, 0]);
                // Number 467, since Linux 6.15.
                drop(sys::fd(sc!(
                    "open_tree_attr(2)",
                    467,
                    libc::AT_FDCWD,
                    root.as_ptr(),
                    1,
                    attributes.as_ptr(),
                    32
                )?));
                reached("an unrestricted copy of the root")
            },
        ),
    ];
    attempts = attempts.into_iter().map(|a| a.control(FRESH)).collect();
    attempts.push(Attempt::new(
        "listmount",
        "listmount(2) of all mounts, to learn where the host keeps things",
        "seccomp",
        |_| {
            // struct mnt_id_req: size, spare, mnt_id (LSMT_ROOT), param
            let request = [24_u64, u64::MAX, 0];
            let mut ids = [0_u64; 64];
            let count = sc!("listmount(2)", 458, request.as_ptr(), ids.as_mut_ptr(), ids.len(), 0)?;
            if count == 0 {
                Err(Stop::because("no mount is listed"))
            } else {
                reached(format!("{count} mounts listed"))
            }
        },
    ));
    attempts
}

pub(super) fn cgroups() -> Vec<Attempt> {
    vec![
        Attempt::new(
            "cgroup-release-agent",
            "a version 1 hierarchy of its own, whose release_agent the kernel would run as root outside",
            "seccomp",
            |t| {
                let path = folder(t, "m")?;
                mount("none", &path, "cgroup", 0, "none,name=aion-escape")?;
                let agent = format!("{path}/release_agent");
                let written = fs::write(&agent, "/bin/false").map_err(at(&agent));
                let _ = fs::write(&agent, "");
                written?;
                reached("release_agent can be set")
            },
        )
        .control(FRESH)
        .absent(&[libc::ENODEV, libc::EINVAL]),
        Attempt::new(
            "cgroup-release-agent-existing",
            "the release_agent of a hierarchy that is mounted already",
            "rootfs (no cgroup file system)",
            |_| {
                let mut last = Stop::at("open /sys/fs/cgroup/*/release_agent", libc::ENOENT);
                for name in ["freezer", "memory", "devices", "pids", "systemd", "cpu", "rdma"] {
                    match sys::open(&format!("/sys/fs/cgroup/{name}/release_agent"), libc::O_WRONLY) {
                        Ok(_) => return reached(format!("release_agent of {name} is open for writing")),
                        Err(stop) => last = stop,
                    }
                }
                Err(last)
            },
        )
        .absent(&[libc::ENOENT]),
        Attempt::new(
            "cgroup-mount",
            "mounting cgroup2, to reach the limits of the whole machine",
            "seccomp",
            |t| {
                let path = folder(t, "m")?;
                mount("none", &path, "cgroup2", 0, "")?;
                fs::metadata(format!("{path}/cgroup.procs")).map_err(at("cgroup.procs"))?;
                reached("the whole cgroup tree")
            },
        )
        .control(FRESH),
        Attempt::new(
            "cgroup-leave",
            "moving itself to another cgroup by cgroup.procs",
            "rootfs (no cgroup file system)",
            |_| {
                let mut last = Stop::at("open cgroup.procs", libc::ENOENT);
                for root in ["/sys/fs/cgroup/unified", "/sys/fs/cgroup", "/sys/fs/cgroup/pids"] {
                    match fs::write(format!("{root}/cgroup.procs"), "0") {
                        Ok(()) => return reached(format!("the root cgroup of {root}")),
                        Err(e) => last = at(format!("write {root}/cgroup.procs"))(e),
                    }
                }
                Err(last)
            },
        ),
        Attempt::new(
            "cgroup-namespace-leak",
            "/proc/self/cgroup that tells the cgroup's place on the host",
            "namespaces",
            |_| {
                let text = fs::read_to_string("/proc/self/cgroup").map_err(at("/proc/self/cgroup"))?;
                let outside = text.lines().any(|l| l.rsplit(':').next().is_some_and(|p| p != "/"));
                if outside { reached(text.replace('\n', " ")) } else { Err(Stop::because("all paths are /")) }
            },
        )
        .prepare(|t| {
            // A control may run in the root cgroup: it goes into one first.
            let own = cgroup_of_control(t).ok_or_else(|| Stop::at("cgroup.procs", libc::ENODEV))?;
            fs::create_dir(&own).map_err(at("making a cgroup"))?;
            fs::write(own.join("cgroup.procs"), "0").map_err(at("entering a cgroup"))
        }),
    ]
}

/// The cgroup that a control makes for itself. Whoever ran the control removes it.
pub(crate) fn cgroup_of_control(t: &Targets) -> Option<PathBuf> {
    let root = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
        .into_iter()
        .map(Path::new)
        .find(|path| path.join("cgroup.procs").exists())?;
    Some(root.join(Path::new(&t.folder).file_name()?))
}
