//! Init's life with its agent: output, denied calls, signals, reaping, the end.
//!
//! It waits in one place, on descriptors, and looks at its children after every wait: no signal that was
//! merged with another can be missed. When the first process has ended, all others are killed, what is in the
//! pipes is written, then the exit, and init ends with the agent's code.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use aion_agent_journal::Exit;
use aion_sys::signal;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{WaitOptions, WaitStatus, wait};
use rustix::thread::CapabilitySet;

use crate::confine;
use crate::journal::Read;
use crate::launch::Agent;
use crate::task::Task;

/// How long a full disk is left alone.
const DISK_RETRY: Duration = Duration::from_millis(100);
/// A second look at processes that are being killed; their end is signalled as well.
const KILL_RETRY: Duration = Duration::from_millis(50);
const FORWARDED: &[i32] =
    &[libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2, libc::SIGWINCH];

/// What the children did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Children {
    Some,
    None,
}

pub(crate) fn until_the_end(mut agent: Agent, signals: &OwnedFd) -> u8 {
    // A task's files are the agent's, with whatever rights it gave them.
    let keep = if agent.task.is_some() {
        CapabilitySet::KILL | CapabilitySet::DAC_OVERRIDE
    } else {
        CapabilitySet::KILL
    };
    if confine::ourselves(keep, agent.task.as_ref().map(Task::folder)).is_err() {
        // An init with more rights than it should have is not left with an agent.
        let _ = signal::kill_all(libc::SIGKILL);
        return 125;
    }
    let mut exit = None;
    // Set when somebody asks us to end while the disk is full.
    let mut give_up = false;
    loop {
        let children = reap(agent.pid, &mut exit);
        if let Some(exit) = exit {
            agent.slave = None;
            if children == Children::None
                && drain(&mut agent, give_up)
                && last_words(&mut agent, exit, give_up)
            {
                break;
            }
            let _ = signal::kill_all(libc::SIGKILL);
        }
        if agent.journal.is_blocked() {
            agent.journal.retry();
        }
        tell(&mut agent, false);
        if exit.is_none() {
            let Agent { task, journal, .. } = &mut agent;
            task.iter_mut().for_each(|t| t.work(journal));
        }
        wait_for_something(&mut agent, signals, exit.is_some());
        while let Ok(Some(number)) = signal::next(signals.as_fd()) {
            if FORWARDED.contains(&number) {
                if exit.is_none() {
                    let _ = signal::send(agent.pidfd.as_fd(), number);
                } else if number == libc::SIGTERM {
                    give_up = true;
                }
            }
        }
    }
    tell(&mut agent, true);
    let exit = exit.unwrap_or(Exit { code: 125, signal: 0 });
    agent.journal.finish(exit);
    if exit.signal == 0 { exit.code } else { 128u8.saturating_add(exit.signal) }
}

/// Reaps all that have ended; notes the exit of the first process.
fn reap(first: u32, exit: &mut Option<Exit>) -> Children {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => {
                if u32::try_from(pid.as_raw_nonzero().get()).ok() == Some(first) {
                    *exit = Some(exit_of(status));
                }
            }
            Ok(None) => return Children::Some,
            Err(Errno::INTR) => {}
            Err(_) => {
                // The first process cannot be gone without having been reaped; if it is, it must not hang us.
                exit.get_or_insert(Exit { code: 125, signal: 0 });
                return Children::None;
            }
        }
    }
}

pub(crate) fn exit_of(status: WaitStatus) -> Exit {
    let byte = |v: Option<i32>| v.and_then(|v| u8::try_from(v & 0xff).ok()).unwrap_or(0);
    Exit { code: byte(status.exit_status()), signal: byte(status.terminating_signal()) }
}

/// Moves what the dead have left behind; true when there is nothing more, or it is given up.
fn drain(agent: &mut Agent, give_up: bool) -> bool {
    loop {
        if agent.journal.is_blocked() {
            agent.journal.retry();
            if agent.journal.is_blocked() {
                return give_up;
            }
        }
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut fds: Vec<_> = agent.sources.iter().map(|s| PollFd::new(&s.fd, PollFlags::IN)).collect();
        match poll(&mut fds, Some(&now)) {
            Ok(0) => return true,
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return true,
        }
        let ready: Vec<bool> = fds.iter().map(|f| !f.revents().is_empty()).collect();
        move_output(agent, &ready);
        if agent.sources.is_empty() {
            return true;
        }
    }
}

/// What a job leaves behind at its end; true when it is written, or given up.
fn last_words(agent: &mut Agent, exit: Exit, give_up: bool) -> bool {
    let Agent { task, journal, .. } = agent;
    task.as_mut().is_none_or(|t| t.finish(journal, exit)) || give_up
}

/// Moves output of the sources that are ready, until the disk is full; forgets those that have ended.
fn move_output(agent: &mut Agent, ready: &[bool]) {
    let Agent { sources, journal, .. } = agent;
    let mut ready = ready.iter();
    sources.retain(|source| {
        let is_ready = ready.next().copied().unwrap_or(false);
        !is_ready || journal.is_blocked() || journal.take(source.fd.as_fd(), source.kind) == Read::Some
    });
}

fn tell(agent: &mut Agent, end: bool) {
    let Agent { denials, journal, .. } = agent;
    denials.tell(end, |call| journal.denied(call));
}

/// Waits for output, a signal or a denied call, and deals with output and call.
fn wait_for_something(agent: &mut Agent, signals: &OwnedFd, ending: bool) {
    let blocked = agent.journal.is_blocked();
    let timeout = [
        blocked.then_some(DISK_RETRY),
        ending.then_some(KILL_RETRY),
        if blocked { None } else { agent.denials.next_due() },
        if ending { None } else { agent.task.as_ref().and_then(Task::next_due) },
    ]
    .into_iter()
    .flatten()
    .min()
    .and_then(|t| Timespec::try_from(t).ok());
    let mut fds = vec![PollFd::new(signals, PollFlags::IN)];
    let listener = agent.denials.listener();
    fds.extend(listener.map(|l| PollFd::new(l, PollFlags::IN)));
    let first_source = fds.len();
    if !blocked {
        fds.extend(agent.sources.iter().map(|s| PollFd::new(&s.fd, PollFlags::IN)));
    }
    let last_source = fds.len();
    let watch = if ending { None } else { agent.task.as_ref().and_then(Task::watch) };
    fds.extend(watch.map(|w| PollFd::from_borrowed_fd(w, PollFlags::IN)));
    if poll(&mut fds, timeout.as_ref()).is_err() {
        return;
    }
    let events: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
    if first_source == 2 && !events[1].is_empty() {
        if events[1].contains(PollFlags::IN) {
            agent.denials.answer();
        } else {
            agent.denials.close();
        }
    }
    let ready: Vec<bool> = events[first_source..last_source].iter().map(|e| !e.is_empty()).collect();
    move_output(agent, &ready);
    if events.get(last_source).is_some_and(|e| !e.is_empty()) {
        agent.task.iter_mut().for_each(Task::look);
    }
}
