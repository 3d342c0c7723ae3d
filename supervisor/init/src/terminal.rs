//! The agent's terminal, from the sandbox's own devpts.
//!
//! Init is the only reader of the master: what it reads goes to the journal, where attached clients follow
//! it. The launcher gets a copy of the master for input and for the window size; a client that goes away
//! changes nothing. Init keeps the slave open until the agent has ended, so that the terminal is not hung up when
//! an agent closes and opens it again.

use std::os::fd::OwnedFd;

use aion_sandbox::{Plan, WindowSize};
use aion_types::LayerName;
use rustix::fs::{CWD, Mode, OFlags, fchown, openat};
use rustix::process::{Gid, Uid};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::failure::{Result, at};

/// Group `tty`, as devpts is mounted.
const TTY: u32 = 5;

#[derive(Debug)]
pub(crate) struct Terminal {
    pub(crate) master: OwnedFd,
    pub(crate) slave: OwnedFd,
}

/// Opens a terminal of this size that belongs to the agent.
pub(crate) fn open(size: WindowSize, plan: &Plan) -> Result<Terminal> {
    let failed = || at(LayerName::Session, "cannot make a terminal");
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = openat(CWD, "/dev/pts/ptmx", flags, Mode::empty()).map_err(failed())?;
    unlockpt(&master).map_err(failed())?;
    let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
        .map_err(failed())?;
    fchown(&slave, Some(Uid::from_raw(plan.uid)), Some(Gid::from_raw(TTY))).map_err(failed())?;
    set_size(&master, size).map_err(failed())?;
    Ok(Terminal { master, slave })
}

pub(crate) fn set_size(terminal: &OwnedFd, size: WindowSize) -> std::result::Result<(), rustix::io::Errno> {
    if size == WindowSize::default() {
        return Ok(());
    }
    let WindowSize { rows, cols } = size;
    tcsetwinsize(terminal, Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 })
}
