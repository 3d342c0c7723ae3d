//! The terminal: its size, raw mode that is always undone, the full-screen page, and the detach keys.

use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::termios::{self, SetArg, Termios};

/// Rows and columns of the terminal that `fd` is.
pub(crate) fn size(fd: &impl AsFd) -> Option<(u16, u16)> {
    let size = rustix::termios::tcgetwinsize(fd.as_fd()).ok()?;
    (size.ws_row != 0 && size.ws_col != 0).then_some((size.ws_row, size.ws_col))
}

/// stdin in raw mode, until this is dropped.
#[derive(Debug)]
pub(crate) struct Raw {
    before: Termios,
}

impl Raw {
    /// `None` when stdin is no terminal.
    pub(crate) fn enter() -> Option<Self> {
        let stdin = io::stdin();
        let before = termios::tcgetattr(&stdin).ok()?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(&stdin, SetArg::TCSANOW, &raw).ok()?;
        Some(Self { before })
    }

    /// Keys come one by one and unechoed, but ctrl-c still interrupts.
    pub(crate) fn enter_keys() -> Option<Self> {
        let stdin = io::stdin();
        let before = termios::tcgetattr(&stdin).ok()?;
        let mut keys = before.clone();
        keys.local_flags.remove(termios::LocalFlags::ICANON | termios::LocalFlags::ECHO);
        termios::tcsetattr(&stdin, SetArg::TCSANOW, &keys).ok()?;
        Some(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = termios::tcsetattr(io::stdin(), SetArg::TCSANOW, &self.before);
    }
}

/// The alternate screen with a hidden cursor, until this is dropped.
#[derive(Debug)]
pub(crate) struct Page;

impl Page {
    pub(crate) fn open() -> io::Result<Self> {
        io::stdout().write_all(b"\x1b[?1049h\x1b[?25l")?;
        Ok(Self)
    }

    /// Replaces what is shown, without flicker: each line is overwritten, then the rest is cleared.
    pub(crate) fn show(&self, text: &str, rows: u16) -> io::Result<()> {
        let mut frame = String::from("\x1b[H");
        for line in text.lines().take(usize::from(rows.max(2)) - 1) {
            frame.push_str(line);
            frame.push_str("\x1b[K\r\n");
        }
        frame.push_str("\x1b[J");
        let mut out = io::stdout().lock();
        out.write_all(frame.as_bytes())?;
        out.flush()
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let mut out = io::stdout().lock();
        let _ = out.write_all(b"\x1b[?25h\x1b[?1049l");
        let _ = out.flush();
    }
}

/// Looks for ctrl-p ctrl-q in what is typed.
#[derive(Debug, Default)]
pub(crate) struct DetachKeys {
    held: bool,
}

impl DetachKeys {
    const FIRST: u8 = 0x10;
    const SECOND: u8 = 0x11;

    /// What may be passed on, and whether the keys were pressed. A ctrl-p is held back until the next key.
    pub(crate) fn filter(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut pass = Vec::with_capacity(typed.len() + 1);
        for &byte in typed {
            if self.held {
                if byte == Self::SECOND {
                    return (pass, true);
                }
                pass.push(Self::FIRST);
                self.held = false;
            }
            if byte == Self::FIRST {
                self.held = true;
            } else {
                pass.push(byte);
            }
        }
        (pass, false)
    }
}

/// Reads stdin on a thread of its own; the thread ends with the process. An empty chunk is the end.
pub(crate) fn read_stdin() -> tokio::sync::mpsc::Receiver<Vec<u8>> {
    let (send, receive) = tokio::sync::mpsc::channel(16);
    std::thread::spawn(move || {
        let stdin = io::stdin();
        let mut buffer = vec![0u8; 16 << 10];
        loop {
            let read = match rustix::io::read(fd(&stdin), &mut buffer) {
                Ok(read) => read,
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => 0,
            };
            let chunk = buffer.get(..read).unwrap_or_default().to_vec();
            if send.blocking_send(chunk).is_err() || read == 0 {
                return;
            }
        }
    });
    receive
}

fn fd(stdin: &io::Stdin) -> BorrowedFd<'_> {
    stdin.as_fd()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_keys_are_found_across_reads_and_nothing_is_swallowed() {
        let mut keys = DetachKeys::default();
        assert_eq!(keys.filter(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(keys.filter(b"c\x10\x10"), (b"\x10c\x10".to_vec(), false));
        assert_eq!(keys.filter(b"\x11"), (Vec::new(), true));
        let mut keys = DetachKeys::default();
        assert_eq!(keys.filter(b"x\x11y\x10\x11z"), (b"x\x11y".to_vec(), true));
    }
}
