//! PID 1 of a sandbox, and the helper that brings a further command into one.
//!
//! The launcher executes it once, from a sealed memory file, as the forker; each init is a fork of that into new
//! namespaces. It parks until its plan comes over the control socket, performs it, starts the agent, gives up every privilege but signalling,
//! and from then on only moves output into the journal, answers denied calls and reaps. It needs no daemon
//! and ends with its agent.

mod confine;
mod denials;
mod domain;
mod elf;
mod exec_rule;
mod failure;
mod filter;
mod forker;
mod helper;
mod identity;
mod journal;
mod launch;
mod masks;
mod mountpoint;
mod output;
mod program;
mod report;
mod root;
mod supervise;
mod task;
mod terminal;

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use aion_sandbox::{MAX_MESSAGE, Message, Outcome, Prepare};
use aion_sys::frame::{self, Frame};
use aion_types::LayerName;

use crate::failure::Failure;

/// The exit code of an init that never had an agent.
const NOT_LAUNCHED: u8 = 125;

fn main() -> ExitCode {
    name(c"aion-forker");
    // The launcher's is not the agent's.
    if rustix::process::getpriority_process(None).is_ok_and(|nice| nice < 0)
        && rustix::process::setpriority_process(None, 0).is_err()
    {
        return ExitCode::from(NOT_LAUNCHED);
    }
    aion_sys::signal::reset_actions();
    let ready = aion_sys::signal::take_all()
        .and_then(|signals| Ok((signals, aion_sys::park::take_control()?)))
        .and_then(|ready| aion_sys::park::hide_from_tracing().map(|()| ready));
    let Ok((signals, mut control)) = ready else { return ExitCode::from(NOT_LAUNCHED) };
    // Finds the kernel's clock functions now, once, and not in each init.
    report::monotonic_ns();
    loop {
        match receive(&control) {
            Some((Message::Fork(order), fds)) => {
                if let Some(ours) = forker::carry_out(order, fds, &control) {
                    control = ours;
                }
            }
            Some((Message::Prepare(prepare), _)) => {
                name(c"aion-init");
                return init(&prepare, &control, &signals);
            }
            Some((Message::Exec(plan), fds)) => {
                name(c"aion-exec");
                return match helper::perform(*plan, fds, &control) {
                    Ok(command) => helper::until_the_end(command, &signals, &control),
                    Err(failure) => refuse(&control, &failure),
                };
            }
            Some((Message::Launch(_), _)) | None => return ExitCode::from(NOT_LAUNCHED),
        }
    }
}

/// For process lists alone, so it may fail.
fn name(name: &std::ffi::CStr) {
    let _ = rustix::thread::set_name(name);
}

/// PID 1: from the parked state to the end of the agent.
fn init(prepare: &Prepare, control: &UnixStream, signals: &OwnedFd) -> ExitCode {
    let prepared = root::prepare(prepare).and_then(|root| {
        if prepare.empty_bounding_set {
            confine::empty_bounding_set()
                .map_err(failure::at(LayerName::Capabilities, "cannot empty the bounding set"))?;
        }
        Ok(root)
    });
    let Some((Message::Launch(plan), fds)) = receive(control) else {
        return ExitCode::from(NOT_LAUNCHED);
    };
    match prepared.and_then(|root| launch::perform(*plan, fds, root, prepare, control)) {
        Ok(agent) => {
            // From here on no daemon is needed, and none is heard.
            let _ = control.shutdown(std::net::Shutdown::Both);
            ExitCode::from(supervise::until_the_end(agent, signals))
        }
        Err(failure) => refuse(control, &failure),
    }
}

/// The next message; `None` when the launcher has closed the socket or speaks another language.
fn receive(control: &UnixStream) -> Option<(Message, Vec<OwnedFd>)> {
    let Frame { bytes, fds, .. } = frame::recv(control.as_fd(), MAX_MESSAGE, None, None).ok()?;
    match Message::decode(&bytes) {
        Ok(message) => Some((message, fds)),
        Err(malformed) => {
            let failure = Failure::because(LayerName::Namespaces, &malformed.to_string());
            refuse(control, &failure);
            None
        }
    }
}

/// Tells the launcher why there is no agent. It may be gone; then nobody needs to know.
fn refuse(control: &UnixStream, failure: &Failure) -> ExitCode {
    let outcome = match failure {
        Failure::Layer { layer, errno, message } => {
            Outcome::LayerFailed { layer: *layer, errno: *errno, message: message.clone() }
        }
        Failure::Exec { errno } => Outcome::ExecFailed { errno: *errno },
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    let _ = frame::send(control.as_fd(), &outcome.encode(), &[], None, Some(deadline));
    ExitCode::from(NOT_LAUNCHED)
}
