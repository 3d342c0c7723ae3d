//! Terminals: typing into one, and taking one over.

use std::os::fd::AsRawFd;

use crate::attempt::Attempt;
use crate::sys::{self, Stop, reached, sc};

pub(super) fn all() -> Vec<Attempt> {
    vec![
        Attempt::new(
            "tiocsti",
            "TIOCSTI: typing into the terminal that it shares with a person",
            "seccomp",
            |_| {
                let (_master, slave) = own_terminal()?;
                let letter = b'x';
                sys::ioctl("TIOCSTI", &slave, libc::TIOCSTI, &raw const letter as usize)?;
                reached("a letter was typed")
            },
        ),
        Attempt::new(
            "tiocsti-high-bits",
            "TIOCSTI with bits set that the kernel ignores and a filter may not",
            "seccomp",
            |_| {
                let (_master, slave) = own_terminal()?;
                let letter = b'x';
                sys::ioctl(
                    "TIOCSTI",
                    &slave,
                    libc::TIOCSTI | 0xffff_ffff_0000_0000,
                    &raw const letter as usize,
                )?;
                reached("a letter was typed")
            },
        ),
        Attempt::new("tioclinux", "TIOCLINUX: pasting on the console", "seccomp", |_| {
            let (_master, slave) = own_terminal()?;
            let code = 6_u8;
            sys::ioctl("TIOCLINUX", &slave, libc::TIOCLINUX, &raw const code as usize)?;
            reached("the console")
        })
        // Only a virtual console knows it.
        .absent(&[libc::ENOTTY]),
        Attempt::new(
            "tiocsetd",
            "TIOCSETD: another line discipline, which loads a module",
            "seccomp",
            |_| {
                let (_master, slave) = own_terminal()?;
                let discipline = 0_i32;
                sys::ioctl("TIOCSETD", &slave, libc::TIOCSETD, &raw const discipline as usize)?;
                reached("a line discipline")
            },
        ),
        Attempt::new(
            "tioccons",
            "TIOCCONS: the console's output to a terminal of its own",
            "seccomp",
            |_| {
                let (_master, slave) = own_terminal()?;
                sys::ioctl("TIOCCONS", &slave, libc::TIOCCONS, 0)?;
                reached("the console's output")
            },
        )
        .absent(&[libc::EBUSY]),
        Attempt::new("host-terminals", "terminals of the host in /dev/pts", "rootfs", |_| {
            let found = std::fs::read_dir("/dev/pts").map_err(sys::at("/dev/pts"))?.flatten().find(|entry| {
                entry.file_name().to_str().is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()))
                    && sys::open(&entry.path().to_string_lossy(), libc::O_WRONLY | libc::O_NOCTTY).is_ok()
            });
            found.map_or_else(
                || Err(Stop::because("no terminal of another is seen")),
                |entry| reached(entry.path().display().to_string()),
            )
        })
        .prepare(|_| {
            // The control's host may have none: here is one, held open by this process.
            std::mem::forget(sys::pty()?);
            Ok(())
        }),
    ]
}

/// A terminal that is this process's controlling one, as if it had been given it.
fn own_terminal() -> Result<(std::os::fd::OwnedFd, std::os::fd::OwnedFd), Stop> {
    let pair = sys::pty()?;
    // A process that leads its group cannot: a child does it all.
    let _ = sc!("setsid(2)", libc::SYS_setsid);
    let _ = sc!("TIOCSCTTY", libc::SYS_ioctl, pair.1.as_raw_fd(), libc::TIOCSCTTY, 0);
    Ok(pair)
}
