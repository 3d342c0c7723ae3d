//! The host's files, what is inherited from whoever started the agent, and what is left behind in the workspace.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};

use crate::attempt::{Attempt, Control};
use crate::sys::{self, Stop, Tried, at, reached, sc};
use crate::target::{CANARY, Targets};

fn read(path: &str, needle: &str) -> Tried {
    let text = fs::read_to_string(path).map_err(at(format!("read {path}")))?;
    if text.contains(needle) { reached(path) } else { Err(Stop::because(format!("{path} is another file"))) }
}

/// A file in a place where hosts keep theirs, in a mount namespace of the control's own.
fn plant(
    folder: &'static str,
    name: &'static str,
    text: &'static str,
) -> impl Fn(&mut Targets) -> Result<(), Stop> {
    move |_| {
        sys::mount("none", folder, "tmpfs", 0, "")?;
        let path = format!("{folder}/{name}");
        if let Some(parent) = std::path::Path::new(&path).parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(at("mkdir"))?;
        }
        fs::write(&path, text).map_err(at("plant"))
    }
}

pub(super) fn host() -> Vec<Attempt> {
    const ROOTFS: &str = "rootfs";
    const FRESH: Control = Control::Fresh(libc::CLONE_NEWNS);
    vec![
        Attempt::new("etc-shadow", "the host's password hashes", ROOTFS, |_| read("/etc/shadow", "root:")),
        Attempt::new("ssh-key", "root's SSH key", ROOTFS, |_| read("/root/.ssh/id_ed25519", "PRIVATE KEY"))
            .control(FRESH)
            .prepare(plant("/root", ".ssh/id_ed25519", "-----BEGIN OPENSSH PRIVATE KEY-----")),
        Attempt::new("kube-token", "a cluster's token", ROOTFS, |_| {
            read("/var/run/secrets/kubernetes.io/serviceaccount/token", "token")
        })
        .control(FRESH)
        .prepare(plant("/run", "secrets/kubernetes.io/serviceaccount/token", "token")),
        Attempt::new("cloud-credentials", "a cloud's credentials in the home folder", ROOTFS, |_| {
            read("/root/.aws/credentials", "aws_secret")
        })
        .control(FRESH)
        .prepare(plant("/root", ".aws/credentials", "aws_secret_access_key = x")),
        Attempt::new("host-file", "a readable file of the host by its path", ROOTFS, |t: &Targets| {
            read(&t.file(), &t.token)
        }),
        Attempt::new("host-file-dots", "the same through ../../..", ROOTFS, |t| {
            read(&format!("{}{}", "../".repeat(40), t.file()), &t.token)
        }),
        Attempt::new("host-file-symlink", "the same through a symbolic link in the workspace", ROOTFS, |t| {
            let link = t.in_workspace("link");
            let _ = fs::remove_file(&link);
            std::os::unix::fs::symlink(t.file(), &link).map_err(at("symlink"))?;
            read(&link, &t.token)
        }),
        Attempt::new(
            "host-file-magic-link",
            "the same through /proc/self/root and /proc/thread-self/cwd",
            ROOTFS,
            |t| {
                read(&format!("/proc/self/root{}", t.file()), &t.token).or_else(|_| {
                    read(&format!("/proc/thread-self/cwd/{}{}", "../".repeat(40), t.file()), &t.token)
                })
            },
        ),
        Attempt::new(
            "symlink-race",
            "a folder that is exchanged for a link to the outside while it is walked",
            ROOTFS,
            symlink_race,
        ),
        Attempt::new("aion-state", "AION's own files: its database, key and log", ROOTFS, |t| {
            let mut last = Stop::because("no path of AION is known");
            for path in &t.aion {
                match fs::symlink_metadata(path) {
                    Ok(_) => return reached(format!("{path} is there")),
                    Err(e) => last = at(format!("stat {path}"))(e),
                }
            }
            Err(last)
        }),
        Attempt::new("usr-write", "a file of its own among the system's", "rootfs (read-only)", |_| {
            let path = "/usr/lib/aion-escape-probe";
            fs::write(path, "x").map_err(at(format!("write {path}")))?;
            let _ = fs::remove_file(path);
            reached(path)
        }),
        Attempt::new("etc-write", "another line in /etc/passwd", "rootfs (read-only)", |_| {
            sys::open("/etc/passwd", libc::O_WRONLY | libc::O_APPEND)?;
            reached("/etc/passwd is open for writing")
        }),
        Attempt::new(
            "ld-preload",
            "code in everybody's programs by /etc/ld.so.preload",
            "rootfs (read-only)",
            |_| {
                let path = "/etc/ld.so.preload";
                let existed = fs::exists(path).unwrap_or(false);
                sys::open(path, libc::O_WRONLY | libc::O_CREAT)?;
                if !existed {
                    let _ = fs::remove_file(path);
                }
                reached(path)
            },
        ),
        Attempt::new("root-write", "a folder of its own in the root", "rootfs (read-only)", |_| {
            fs::create_dir("/aion-escape-probe").map_err(at("mkdir /aion-escape-probe"))?;
            let _ = fs::remove_dir("/aion-escape-probe");
            reached("a folder in the root")
        }),
        Attempt::new(
            "open-by-handle",
            "open_by_handle_at(2), which walks past mounts and permissions",
            "seccomp",
            |t| {
                let path = sys::text(if t.workspace.is_empty() { "/" } else { &t.workspace });
                let mut handle = [0_u32; 40];
                handle[0] = 128;
                let mut mount = 0_i32;
                let root = sys::open(&t.workspace, libc::O_RDONLY)?;
                sc!(
                    "name_to_handle_at(2)",
                    libc::SYS_name_to_handle_at,
                    libc::AT_FDCWD,
                    path.as_ptr(),
                    handle.as_mut_ptr(),
                    &raw mut mount,
                    0
                )?;
                drop(sys::fd(sc!(
                    "open_by_handle_at(2)",
                    libc::SYS_open_by_handle_at,
                    root.as_raw_fd(),
                    handle.as_ptr(),
                    libc::O_RDONLY
                )?));
                reached("a file by its handle")
            },
        ),
        Attempt::new(
            "open-by-handle-guess",
            "open_by_handle_at(2) of the file system's root, without asking for a handle",
            "seccomp",
            |t| {
                let root = sys::open(&t.workspace, libc::O_RDONLY)?;
                // FILEID_INO32_GEN: inode 2, generation 0
                let handle = [8_u32, 1, 2, 0];
                match sc!(
                    "open_by_handle_at(2)",
                    libc::SYS_open_by_handle_at,
                    root.as_raw_fd(),
                    handle.as_ptr(),
                    0
                ) {
                    Ok(got) => {
                        drop(sys::fd(got));
                        reached("the root of the file system")
                    }
                    // The call was let in and looked the inode up.
                    Err(stop) if stop.errno == libc::ESTALE => reached("inodes can be looked up"),
                    Err(stop) => Err(stop),
                }
            },
        ),
    ]
}

/// One process exchanges a folder for a link to `/` as fast as it can, the other walks through it.
fn symlink_race(t: &Targets) -> Tried {
    let (folder, link) = (t.in_workspace("race"), t.in_workspace("race-link"));
    fs::create_dir_all(&folder).map_err(at("mkdir"))?;
    let _ = fs::remove_file(&link);
    std::os::unix::fs::symlink("/", &link).map_err(at("symlink"))?;
    let (a, b) = (sys::text(&folder), sys::text(&link));
    let racer = sys::fork(|| {
        loop {
            // RENAME_EXCHANGE
            let _ = sc!(
                "renameat2(2)",
                libc::SYS_renameat2,
                libc::AT_FDCWD,
                a.as_ptr(),
                libc::AT_FDCWD,
                b.as_ptr(),
                2
            );
        }
    })?;
    let path = format!("{folder}{}", t.file());
    let found = (0..20_000).find_map(|_| read(&path, &t.token).ok());
    sys::end(racer);
    found.map_or_else(|| Err(Stop::at(format!("read {path}"), libc::ENOENT)), reached)
}

pub(super) fn inherited() -> Vec<Attempt> {
    vec![
        Attempt::new("leaked-descriptors", "descriptors that were left open for it", "session", |t| {
            if t.inherited.is_empty() {
                return Err(Stop::because("none beyond the standard three"));
            }
            let named = t.inherited.iter().map(|n| {
                let to = fs::read_link(format!("/proc/self/fd/{n}")).unwrap_or_default();
                format!("{n} -> {}", to.display())
            });
            reached(named.collect::<Vec<_>>().join(", "))
        })
        .prepare(|t| {
            let root = sys::open("/", libc::O_RDONLY)?;
            t.inherited = vec![root.as_raw_fd()];
            std::mem::forget(root);
            Ok(())
        }),
        Attempt::new(
            "standard-descriptors",
            "a folder or a host's terminal as standard input, output or error",
            "session",
            |_| {
                for n in 0..3 {
                    let path = format!("/proc/self/fd/{n}/..");
                    if fs::metadata(format!("/proc/self/fd/{n}")).is_ok_and(|m| m.is_dir())
                        && fs::read_dir(&path).is_ok()
                    {
                        return reached(format!("descriptor {n} is a folder"));
                    }
                }
                Err(Stop::because("all three are pipes, files or /dev/null"))
            },
        )
        .prepare(|_| {
            let root = sys::open("/", libc::O_RDONLY)?;
            sc!("dup2(2)", libc::SYS_dup2, root.as_raw_fd(), 0).map(drop)
        }),
        Attempt::new("working-folder", "a working folder outside of the root", "session", |_| {
            let mut buffer = [0_u8; 4096];
            let length = sc!("getcwd(2)", libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len())?;
            let path = String::from_utf8_lossy(buffer.get(..length.saturating_sub(1)).unwrap_or_default())
                .into_owned();
            if path.starts_with("(unreachable)") {
                reached(path)
            } else {
                Err(Stop::because(format!("it is {path}")))
            }
        })
        .prepare(|t| {
            std::env::set_current_dir("/").map_err(at("chdir"))?;
            let jail = sys::text(&t.workspace);
            sc!("chroot(2)", libc::SYS_chroot, jail.as_ptr()).map(drop)
        }),
        Attempt::new("environment", "variables of whoever started it", "session", |_| {
            let environment = fs::read("/proc/self/environ").map_err(at("/proc/self/environ"))?;
            let names = String::from_utf8_lossy(&environment);
            match names.split('\0').find(|v| v.starts_with(CANARY)) {
                Some(found) => reached(found.to_owned()),
                None if std::env::var_os(CANARY).is_some() => reached(CANARY),
                None => Err(Stop::because("the caller's variables are not there")),
            }
        })
        .prepare(|_| {
            let name = sys::text(CANARY);
            // SAFETY: one thread, and both texts outlive the call.
            unsafe { libc::setenv(name.as_ptr(), c"1".as_ptr(), 1) };
            Ok(())
        }),
        Attempt::new(
            "ignored-signals",
            "signals that were left ignored or blocked for it",
            "session",
            |_| {
                let status = fs::read_to_string("/proc/self/status").map_err(at("/proc/self/status"))?;
                let mask = |name: &str| {
                    let text = status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default().trim();
                    u64::from_str_radix(text, 16).unwrap_or(0)
                };
                // SIGTERM, SIGINT, SIGHUP: an agent that never hears them cannot be asked to stop.
                let wanted = 1 << (libc::SIGTERM - 1) | 1 << (libc::SIGINT - 1) | 1 << (libc::SIGHUP - 1);
                match (mask("SigBlk:") | mask("SigIgn:")) & wanted {
                    0 => Err(Stop::because("none")),
                    left => reached(format!("{left:#x}")),
                }
            },
        )
        .prepare(|_| {
            // SAFETY: a constant disposition.
            unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
            Ok(())
        }),
    ]
}

/// What the agent makes in its workspace is seen by users of the host, and may belong to root there.
pub(super) fn workspace() -> Vec<Attempt> {
    const LAYER: &str = "seccomp (no setuid bits)";
    let modes = [("setuid", 0o4755), ("setgid", 0o2755)];
    let mut attempts = Vec::new();
    for (name, mode) in modes {
        attempts.push(Attempt::new(
            format!("{name}-file-chmod"),
            format!(
                "a {name} program in the workspace, for somebody on the host to run as its owner: chmod(2)"
            ),
            LAYER,
            move |t: &Targets| {
                let path = t.in_workspace("bits");
                let _ = fs::remove_file(&path);
                fs::write(&path, "#!/bin/sh\n").map_err(at("write"))?;
                let file = sys::text(&path);
                sc!("chmod(2)", libc::SYS_chmod, file.as_ptr(), mode)?;
                has_bits(&path)
            },
        ));
    }
    for (id, how) in [("open", 0), ("openat2", 1), ("fchmod", 2), ("fchmodat2", 3), ("mknod", 4)] {
        attempts.push(Attempt::new(
            format!("setuid-file-{id}"),
            format!("the same by {id}(2)"),
            LAYER,
            move |t: &Targets| {
                let path = t.in_workspace("bits");
                let _ = fs::remove_file(&path);
                let file = sys::text(&path);
                if matches!(how, 2 | 3) {
                    fs::write(&path, "x").map_err(at("write"))?;
                }
                let flags = libc::O_CREAT | libc::O_WRONLY;
                match how {
                    0 => sc!("open(2)", libc::SYS_open, file.as_ptr(), flags, 0o4755).map(drop),
                    1 => {
                        let how = [flags as u64, 0o4755, 0];
                        sc!("openat2(2)", libc::SYS_openat2, libc::AT_FDCWD, file.as_ptr(), how.as_ptr(), 24)
                            .map(drop)
                    }
                    2 => {
                        let open = sys::open(&path, libc::O_WRONLY)?;
                        sc!("fchmod(2)", libc::SYS_fchmod, open.as_raw_fd(), 0o4755).map(drop)
                    }
                    3 => sc!("fchmodat2(2)", 452, libc::AT_FDCWD, file.as_ptr(), 0o4755, 0).map(drop),
                    _ => sc!("mknod(2)", libc::SYS_mknod, file.as_ptr(), libc::S_IFREG | 0o4755, 0).map(drop),
                }?;
                has_bits(&path)
            },
        ));
    }
    attempts
}

fn has_bits(path: &str) -> Tried {
    let meta = fs::metadata(path).map_err(at("stat"))?;
    let mode = meta.permissions().mode() & 0o7777;
    if mode & 0o6000 == 0 {
        return Err(Stop::because(format!("the bits were taken off: mode {mode:o}")));
    }
    reached(format!("mode {mode:o}, owner {}", meta.uid()))
}
