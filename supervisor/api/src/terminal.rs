//! Pseudo-terminals and pipes between a client's stream and a program in a sandbox.
//!
//! All descriptors are non-blocking on this side and close-on-exec; the far ends are handed to the launcher and closed
//! here at once, so that the end of the program is the end of the stream.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::unix::AsyncFd;

use crate::launch::Size;

/// One end that is ours, for tokio.
pub(crate) struct End(AsyncFd<OwnedFd>);

impl End {
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        let flags = fcntl_getfl(&fd)?;
        fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
        #[expect(
            deprecated,
            reason = "its replacement is unsafe for types that lie about their descriptor; OwnedFd does not"
        )]
        let end = AsyncFd::new(fd)?;
        Ok(Self(end))
    }

    /// Reads some bytes; none at the end. The end of a terminal, whose other side was closed, is an end too.
    pub(crate) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut *buffer)?)) {
                Ok(Err(error)) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
                    return Ok(0);
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(result) => return result,
                Err(_would_block) => {}
            }
        }
    }

    /// Writes everything.
    pub(crate) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut ready = self.0.writable().await?;
            match ready.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), bytes)?)) {
                Ok(Ok(n)) => bytes = bytes.get(n..).unwrap_or_default(),
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
        Ok(())
    }

    /// Tells the terminal its size.
    pub(crate) fn resize(&self, size: Size) -> io::Result<()> {
        resize(self.0.get_ref(), size)
    }
}

fn resize(fd: &OwnedFd, size: Size) -> io::Result<()> {
    let narrow = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
    let size = Winsize { ws_row: narrow(size.rows), ws_col: narrow(size.cols), ws_xpixel: 0, ws_ypixel: 0 };
    Ok(tcsetwinsize(fd, size)?)
}

/// A program's three streams.
pub(crate) struct Pipes {
    pub(crate) stdin: End,
    pub(crate) stdout: End,
    pub(crate) stderr: End,
    /// stdin, stdout, stderr of the program.
    pub(crate) theirs: Vec<OwnedFd>,
}

impl Pipes {
    pub(crate) fn new() -> io::Result<Self> {
        let (stdin_theirs, stdin) = pipe_with(PipeFlags::CLOEXEC)?;
        let (stdout, stdout_theirs) = pipe_with(PipeFlags::CLOEXEC)?;
        let (stderr, stderr_theirs) = pipe_with(PipeFlags::CLOEXEC)?;
        Ok(Self {
            stdin: End::new(stdin)?,
            stdout: End::new(stdout)?,
            stderr: End::new(stderr)?,
            theirs: vec![stdin_theirs, stdout_theirs, stderr_theirs],
        })
    }
}

/// A terminal: our end, and the program's.
pub(crate) fn terminal(size: Size) -> io::Result<(End, OwnedFd)> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let name = ptsname(&master, Vec::new())?;
    let path = PathBuf::from(String::from_utf8_lossy(name.as_bytes()).into_owned());
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let slave = rustix::fs::open(path, flags, Mode::empty())?;
    resize(&master, size)?;
    Ok((End::new(master)?, slave))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pipes_carry_both_ways_and_end() {
        let mut pipes = Pipes::new().unwrap();
        let stdout = pipes.theirs.remove(1);
        rustix::io::write(&stdout, b"out").unwrap();
        let mut buffer = [0; 16];
        assert_eq!(pipes.stdout.read(&mut buffer).await.unwrap(), 3);
        drop(stdout);
        assert_eq!(pipes.stdout.read(&mut buffer).await.unwrap(), 0);
        // More than a pipe holds: the writer waits for the reader.
        let stdin = pipes.theirs.remove(0);
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            io::Read::read_to_end(&mut std::fs::File::from(stdin), &mut all).unwrap();
            all.len()
        });
        pipes.stdin.write_all(&vec![7; 1 << 20]).await.unwrap();
        drop(pipes.stdin);
        assert_eq!(reader.join().unwrap(), 1 << 20);
    }

    #[tokio::test]
    async fn a_terminal_echoes_has_a_size_and_ends() {
        let (master, slave) = terminal(Size::new(30, 100)).unwrap();
        let size = rustix::termios::tcgetwinsize(&slave).unwrap();
        assert_eq!((size.ws_row, size.ws_col), (30, 100));
        master.resize(Size::new(5, 6)).unwrap();
        assert_eq!(rustix::termios::tcgetwinsize(&slave).unwrap().ws_row, 5);
        master.write_all(b"hi\n").await.unwrap();
        let mut buffer = [0; 16];
        let n = master.read(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..n], b"hi\r\n");
        drop(slave);
        assert_eq!(master.read(&mut buffer).await.unwrap(), 0);
    }
}
