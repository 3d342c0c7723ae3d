//! Becoming somebody else: users, groups, capabilities, setuid programs, file capabilities.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command, Stdio};

use crate::attempt::{Attempt, Control};
use crate::sys::{self, Stop, Tried, at, reached, sc};
use crate::target::Targets;

const LAYER: &str = "capabilities, namespaces";

pub(super) fn all() -> Vec<Attempt> {
    vec![
        Attempt::new("setuid-0", "setuid(2) to root", LAYER, |_| {
            sc!("setresuid(2)", libc::SYS_setresuid, 0, 0, 0)?;
            reached("root")
        }),
        Attempt::new("setuid-other", "setuid(2) to another user", LAYER, |_| {
            sc!("setresuid(2)", libc::SYS_setresuid, 65_534, 65_534, 65_534)?;
            reached("another user")
        }),
        Attempt::new("setgid-0", "setgid(2) to root's group", LAYER, |_| {
            sc!("setresgid(2)", libc::SYS_setresgid, 0, 0, 0)?;
            reached("root's group")
        }),
        Attempt::new("setgroups", "setgroups(2): supplementary groups", LAYER, |_| {
            let groups = [0_u32];
            sc!("setgroups(2)", libc::SYS_setgroups, 1, groups.as_ptr())?;
            reached("root's group")
        }),
        Attempt::new("leftover-groups", "supplementary groups of whoever started it", "session", |_| {
            let mut groups = [0_u32; 64];
            match sc!("getgroups(2)", libc::SYS_getgroups, 64, groups.as_mut_ptr())? {
                0 => Err(Stop::because("no supplementary group")),
                n => reached(format!("groups {:?}", groups.get(..n).unwrap_or_default())),
            }
        })
        .prepare(|_| {
            let groups = [4_u32, 27];
            sc!("setgroups(2)", libc::SYS_setgroups, 2, groups.as_ptr()).map(drop)
        }),
        Attempt::new("capset", "capset(2): capabilities", "capabilities", |_| {
            let header = [0x2008_0522_u32, 0];
            let chown = [1_u32, 1, 0, 0, 0, 0];
            sc!("capset(2)", libc::SYS_capset, header.as_ptr(), chown.as_ptr())?;
            reached("CAP_CHOWN")
        }),
        Attempt::new("ambient", "prctl(2): a capability that survives execve", "capabilities", |_| {
            let header = [0x2008_0522_u32, 0];
            let chown = [1_u32, 1, 1, 0, 0, 0];
            sc!("capset(2)", libc::SYS_capset, header.as_ptr(), chown.as_ptr())?;
            // PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_CHOWN
            sc!("prctl(PR_CAP_AMBIENT)", libc::SYS_prctl, 47, 2, 0, 0, 0)?;
            reached("an ambient CAP_CHOWN")
        }),
        Attempt::new(
            "setuid-program",
            "executing a setuid program of the system",
            "no-new-privs, rootfs (nosuid)",
            setuid_program,
        )
        .control(Control::User),
        Attempt::new("chown", "giving a file to another user", LAYER, |t| {
            let path = t.in_workspace("given");
            fs::write(&path, "x").map_err(at("write"))?;
            std::os::unix::fs::chown(&path, Some(1), Some(1)).map_err(at("chown(2)"))?;
            reached("a file of another user")
        }),
        Attempt::new("file-capability", "a file with capabilities", LAYER, |t| {
            // VFS_CAP_REVISION_2 with the effective bit, all permitted
            let value = [0x0200_0001_u32, u32::MAX, 0, u32::MAX, 0];
            attribute(t, "security.capability", &value)
        }),
        Attempt::new(
            "trusted-attribute",
            "an attribute that only root may set, as overlayfs believes",
            LAYER,
            |t| attribute(t, "trusted.overlay.opaque", &[0x79_u32, 0, 0, 0, 0]),
        ),
        Attempt::new("immutable", "a file that nobody can remove", LAYER, |t| {
            let path = t.in_workspace("forever");
            fs::write(&path, "x").map_err(at("write"))?;
            let file = sys::open(&path, libc::O_RDONLY)?;
            let (set, clear) = (0x10_u64, 0_u64);
            // FS_IOC_SETFLAGS
            sys::ioctl("FS_IOC_SETFLAGS", &file, 0x4008_6602, &raw const set as usize)?;
            let _ = sys::ioctl("FS_IOC_SETFLAGS", &file, 0x4008_6602, &raw const clear as usize);
            reached("an immutable file")
        })
        .absent(&[libc::ENOTTY, libc::EOPNOTSUPP]),
    ]
}

fn attribute(t: &Targets, name: &str, value: &[u32; 5]) -> Tried {
    let path = t.in_workspace("attributed");
    fs::write(&path, "x").map_err(at("write"))?;
    let (path, key) = (sys::text(&path), sys::text(name));
    sc!(
        &format!("setxattr(2) of {name}"),
        libc::SYS_setxattr,
        path.as_ptr(),
        key.as_ptr(),
        value.as_ptr(),
        20,
        0
    )?;
    reached(name)
}

/// Starts a program of the system that is setuid root and waits for its input, and looks who it runs as.
fn setuid_program(_: &Targets) -> Tried {
    let candidates = ["/usr/bin/su", "/usr/bin/passwd", "/bin/su", "/usr/bin/newgrp", "/usr/bin/chsh"];
    let program = candidates
        .into_iter()
        .find(|p| fs::metadata(p).is_ok_and(|m| m.permissions().mode() & 0o4000 != 0 && m.uid() != own_uid()))
        .ok_or_else(|| Stop::at("this system has no setuid program", libc::ENODEV))?;
    // SAFETY: no arguments.
    let own = unsafe { libc::geteuid() };
    let (mut reader, writer) = std::io::pipe().map_err(at("pipe"))?;
    let mut child = Command::new(program)
        .stdin(Stdio::piped())
        .stdout(writer.try_clone().map_err(at("dup"))?)
        .stderr(writer)
        .spawn()
        .map_err(at(format!("execute {program}")))?;
    let mut seen = None;
    for _ in 0..400 {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let uid =
            status.lines().find_map(|l| l.strip_prefix("Uid:")).and_then(|l| l.split_whitespace().nth(1));
        seen = uid.and_then(|u| u.parse::<u32>().ok()).or(seen);
        if seen.is_some_and(|uid| uid != own) || child.try_wait().is_ok_and(|s| s.is_some()) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let _ = child.kill();
    let _ = child.wait();
    let mut said = [0; 64];
    let _ = reader.read(&mut said);
    match seen {
        Some(uid) if uid != own => reached(format!("{program} runs as {uid}")),
        _ => Err(Stop::because(format!("{program} runs as {own}, without rights"))),
    }
}

fn own_uid() -> u32 {
    // SAFETY: no arguments.
    unsafe { libc::getuid() }
}
