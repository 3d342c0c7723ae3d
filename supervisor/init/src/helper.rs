//! A further command in a sandbox that runs already.
//!
//! The helper enters the namespaces of the agent, makes the command with the agent's layers, and waits for
//! it. It is the launcher's child and outside of the agent's pid namespace, so no process of the agent can see or
//! signal it; it ends as the command ends.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Instant;

use aion_sandbox::{ExecPlan, SystemEntry};
use aion_sys::clone::flags;
use aion_sys::signal;
use aion_types::LayerName;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{WaitOptions, wait};
use rustix::thread::CapabilitySet;

use crate::denials::Denials;
use crate::failure::{Failure, Result, at};
use crate::launch::{Ready, tell};
use crate::supervise::exit_of;
use crate::{confine, identity, report, terminal};

const ALL_NAMESPACES: u64 = flags::NEWUSER
    | flags::NEWNS
    | flags::NEWPID
    | flags::NEWNET
    | flags::NEWIPC
    | flags::NEWUTS
    | flags::NEWCGROUP
    | flags::NEWTIME;

/// A command that executes.
pub(crate) struct Command {
    pidfd: OwnedFd,
    denials: Denials,
}

pub(crate) fn perform(exec: ExecPlan, fds: Vec<OwnedFd>, control: &UnixStream) -> Result<Command> {
    let received = report::monotonic_ns();
    let ExecPlan { plan, tty } = exec;
    plan.check().map_err(|e| Failure::because(LayerName::Namespaces, &e.to_string()))?;
    let Ok([target, stdin, stdout, stderr]) = <[OwnedFd; 4]>::try_from(fds) else {
        return Err(Failure::because(
            LayerName::Session,
            "the command came with other than four descriptors",
        ));
    };
    aion_sys::ns::enter(target.as_fd(), ALL_NAMESPACES)
        .map_err(at(LayerName::Namespaces, "cannot enter the agent's namespaces"))?;
    drop(target);
    identity::become_root()?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    if plan.session {
        aion_sys::keyring::join_anonymous_session()
            .map_err(at(LayerName::Session, "cannot join a new session keyring"))?;
    }
    if let Some(size) = tty {
        terminal::set_size(&stdin, size).map_err(at(LayerName::Session, "cannot size the terminal"))?;
    }
    let mut plan = plan;
    plan.tty = tty;
    let ready = Ready::new(&plan, &system_of_this_root())?;
    let prepared = report::monotonic_ns();
    let started = ready.start(&plan, [&stdin, &stdout, &stderr])?;
    let layers = report::of_process(&plan, ready.domain.as_ref());
    // Our pid namespace is still the launcher's, so the number needs no translation.
    let told = tell(control, &started, layers, [received, prepared, report::monotonic_ns()], None, None);
    if let Err(failure) = told {
        let _ = signal::send(started.child.pidfd.as_fd(), libc::SIGKILL);
        return Err(failure);
    }
    let denials = Denials::new(started.listener, plan.seccomp.and_then(|s| s.notify));
    Ok(Command { pidfd: started.child.pidfd, denials })
}

/// What the root of the agent has of the system, as the template made it.
fn system_of_this_root() -> Vec<SystemEntry> {
    let names = ["usr", "etc", "dev", "bin", "sbin", "lib", "lib32", "lib64", "libx32"];
    let is_folder = |name: &&str| std::fs::symlink_metadata(format!("/{name}")).is_ok_and(|m| m.is_dir());
    let entry = |name: &str| SystemEntry { name: name.to_owned(), link: String::new() };
    names.iter().filter(|n| is_folder(n)).map(|n| entry(n)).collect()
}

/// Waits for the command, answers its denied calls, and ends as it ends.
pub(crate) fn until_the_end(mut command: Command, signals: &OwnedFd, control: &UnixStream) -> ExitCode {
    if confine::ourselves(CapabilitySet::empty(), None).is_err() {
        // Nobody would wait for it.
        let _ = signal::send(command.pidfd.as_fd(), libc::SIGKILL);
        return ExitCode::from(125);
    }
    loop {
        // There is one child, and it is the command.
        let exit = match wait(WaitOptions::NOHANG) {
            Ok(Some((_, status))) => Some(exit_of(status)),
            Ok(None) => None,
            Err(_) => return ExitCode::from(125),
        };
        command.denials.tell(exit.is_some(), |call| {
            // A launcher that does not listen misses the count, not the denial.
            let _ = aion_sys::frame::send(control.as_fd(), &call.encode(), &[], None, Some(Instant::now()));
            true
        });
        if let Some(exit) = exit {
            if exit.signal != 0 {
                signal::die_of(i32::from(exit.signal));
                return ExitCode::from(128u8.saturating_add(exit.signal));
            }
            return ExitCode::from(exit.code);
        }
        let due = command.denials.next_due().and_then(|t| Timespec::try_from(t).ok());
        let mut fds = vec![PollFd::new(signals, PollFlags::IN)];
        fds.extend(command.denials.listener().map(|l| PollFd::new(l, PollFlags::IN)));
        if poll(&mut fds, due.as_ref()).is_err() {
            continue;
        }
        let of_listener = fds.get(1).map(PollFd::revents);
        if let Some(events) = of_listener.filter(|e| !e.is_empty()) {
            if events.contains(PollFlags::IN) {
                command.denials.answer();
            } else {
                command.denials.close();
            }
        }
        while let Ok(Some(_)) = signal::next(signals.as_fd()) {}
    }
}
