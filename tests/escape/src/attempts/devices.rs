//! Devices: those that are there, and those that could be made.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::attempt::Attempt;
use crate::sys::{self, Stop, Tried, at, reached, sc};
use crate::target::Targets;

pub(super) fn all() -> Vec<Attempt> {
    let mut attempts: Vec<Attempt> = [
        ("mem", "/dev/mem", "physical memory", libc::O_RDONLY),
        ("port", "/dev/port", "I/O ports", libc::O_RDONLY),
        ("kmsg", "/dev/kmsg", "the kernel's log", libc::O_RDONLY | libc::O_NONBLOCK),
        ("kvm", "/dev/kvm", "virtual machines", libc::O_RDWR),
        ("fuse", "/dev/fuse", "file systems of its own", libc::O_RDWR),
        ("tun", "/dev/net/tun", "network interfaces of its own", libc::O_RDWR),
        ("loop", "/dev/loop-control", "files as disks", libc::O_RDWR),
        (
            "console",
            "/dev/console",
            "the machine's console",
            libc::O_WRONLY | libc::O_NOCTTY | libc::O_NONBLOCK,
        ),
        ("tty0", "/dev/tty0", "the screen", libc::O_WRONLY | libc::O_NOCTTY | libc::O_NONBLOCK),
        ("vcs", "/dev/vcs", "what is on the screen", libc::O_RDONLY),
        ("vsock", "/dev/vsock", "the hypervisor", libc::O_RDONLY),
        ("userfaultfd", "/dev/userfaultfd", "faults of the kernel", libc::O_RDWR),
        ("hwrng", "/dev/hwrng", "the hardware's random numbers", libc::O_RDONLY | libc::O_NONBLOCK),
        ("rtc", "/dev/rtc0", "the hardware clock", libc::O_RDONLY),
        ("hpet", "/dev/hpet", "a timer of the hardware", libc::O_RDONLY),
        ("vhost", "/dev/vhost-net", "the kernel's side of virtual machines", libc::O_RDWR),
        ("autofs", "/dev/autofs", "automatic mounts", libc::O_RDONLY),
        ("uinput", "/dev/uinput", "a keyboard of its own", libc::O_WRONLY),
        ("msr", "/dev/cpu/0/msr", "the processor's registers", libc::O_RDONLY),
        ("dri", "/dev/dri/card0", "the graphics card", libc::O_RDWR),
    ]
    .into_iter()
    .map(|(id, path, what, flags)| {
        Attempt::new(
            format!("device-{id}"),
            format!("{path}: {what}"),
            "rootfs (a /dev of its own)",
            move |_| {
                sys::open(path, flags)?;
                reached(format!("{path} is open"))
            },
        )
        .absent(&[libc::ENOENT, libc::ENODEV, libc::ENXIO, libc::EBUSY, libc::EIO])
    })
    .collect();
    attempts.push(Attempt::new(
        "device-disk",
        "the disk below the file system",
        "rootfs (a /dev of its own)",
        |_| {
            let names = ["vda", "vdb", "sda", "nvme0n1", "xvda", "mmcblk0", "loop0", "ram0"];
            let mut last = Stop::at("no disk is known", libc::ENOENT);
            for name in names {
                match sys::open(&format!("/dev/{name}"), libc::O_RDONLY) {
                    Ok(_) => return reached(format!("/dev/{name} is open")),
                    Err(stop) => last = stop,
                }
            }
            Err(last)
        },
    ));
    attempts.push(Attempt::new(
        "mknod-null",
        "mknod(2) of a character device",
        "namespaces, capabilities",
        |t| mknod(t, libc::S_IFCHR, libc::makedev(1, 3)),
    ));
    attempts.push(Attempt::new(
        "mknod-mem",
        "mknod(2) of the device of physical memory",
        "namespaces, capabilities",
        |t| mknod(t, libc::S_IFCHR, libc::makedev(1, 1)),
    ));
    attempts.push(Attempt::new(
        "mknod-disk",
        "mknod(2) of the disk that holds the workspace",
        "namespaces, capabilities",
        |t| {
            let device = fs::metadata(&t.workspace).map_err(at("stat"))?.dev();
            mknod(t, libc::S_IFBLK, device)
        },
    ));
    attempts.push(Attempt::new(
        "mknod-whiteout",
        "mknod(2) of the one device that anybody may make, and opening it",
        "namespaces, capabilities",
        |t| {
            mknod(t, libc::S_IFCHR, libc::makedev(1, 5))?;
            sys::open(&t.in_workspace("node"), libc::O_RDONLY)?;
            reached("a device of its own is open")
        },
    ));
    attempts
}

fn mknod(t: &Targets, kind: u32, device: u64) -> Tried {
    let path = t.in_workspace("node");
    let _ = fs::remove_file(&path);
    let name = sys::text(&path);
    sc!("mknod(2)", libc::SYS_mknodat, libc::AT_FDCWD, name.as_ptr(), kind | 0o666, device)?;
    reached("a device node")
}
