//! Where the agent's output comes from: two pipes, or a terminal.

use std::os::fd::OwnedFd;

use aion_agent_journal::Kind;
use aion_types::LayerName;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::failure::{Result, at};
use crate::terminal::Terminal;

/// An end that init reads.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) fd: OwnedFd,
    pub(crate) kind: Kind,
}

/// Both sides of the agent's standard descriptors.
#[derive(Debug)]
pub(crate) struct Stdio {
    /// What the agent gets as 0, 1 and 2.
    pub(crate) agent: [OwnedFd; 3],
    pub(crate) sources: Vec<Source>,
    /// Kept open for as long as the agent lives.
    pub(crate) slave: Option<OwnedFd>,
}

/// For input what was given or nothing; for output what was given, else a pipe. Errors go through a pipe.
pub(crate) fn pipes(stdin: Option<OwnedFd>, stdout: Option<OwnedFd>) -> Result<Stdio> {
    let failed = || at(LayerName::Session, "cannot make a pipe");
    let stdin = match stdin {
        Some(fd) => fd,
        None => openat(CWD, "/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(at(LayerName::Rootfs, "cannot open /dev/null"))?,
    };
    let mut sources = Vec::with_capacity(2);
    let agent_out = match stdout {
        Some(fd) => fd,
        None => {
            let (out, agent_out) = pipe_with(PipeFlags::CLOEXEC).map_err(failed())?;
            sources.push(Source { fd: out, kind: Kind::Stdout });
            agent_out
        }
    };
    let (err, agent_err) = pipe_with(PipeFlags::CLOEXEC).map_err(failed())?;
    sources.push(Source { fd: err, kind: Kind::Stderr });
    Ok(Stdio { agent: [stdin, agent_out, agent_err], sources, slave: None })
}

/// All three from a terminal.
pub(crate) fn terminal(Terminal { master, slave }: Terminal) -> Result<Stdio> {
    let copy = || {
        slave.try_clone().map_err(|e| {
            let errno = rustix::io::Errno::from_io_error(&e).unwrap_or(rustix::io::Errno::IO);
            at(LayerName::Session, "cannot copy the terminal")(errno)
        })
    };
    let agent = [copy()?, copy()?, copy()?];
    Ok(Stdio { agent, sources: vec![Source { fd: master, kind: Kind::Stdout }], slave: Some(slave) })
}
