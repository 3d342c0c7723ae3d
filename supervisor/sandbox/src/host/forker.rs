//! The forker: an init image that was executed once, stands in the template's mount namespace, and makes every
//! init by forking itself. An init then costs no execution and no start of a C library (which asks the
//! processor about itself, and under a hypervisor each question is expensive).
//!
//! The inits are its siblings, so they are our children and are waited for here.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use aion_sys::clone::Child;
use aion_sys::frame;
use aion_sys::park::{self, Image};
use aion_types::LayerName;
use rustix::io::Errno;

use crate::Error;
use crate::host::image::InitImage;
use crate::host::init_process::InitProcess;
use crate::host::template::{Fingerprint, Template};
use crate::message::{ForkOrder, Message, Outcome, SystemEntry};
use crate::plan_codec::decode_outcome;

/// A fork takes a millisecond.
const PATIENCE: Duration = Duration::from_secs(10);
const MAX_ANSWER: usize = 4096;
/// `CLONE_FS`: the root and working directory of a thread become its own.
const FS: u64 = 0x200;

/// A forker and the template that it stands in. Ends with this.
#[derive(Debug)]
pub(crate) struct Forker {
    process: InitProcess,
    control: UnixStream,
    pub(crate) entries: Vec<SystemEntry>,
    /// The host as it was when the template was made.
    pub(crate) made_from: Fingerprint,
}

/// What a new process is given.
pub(crate) struct Order<'a> {
    pub(crate) namespaces: u64,
    /// Who owns a new user namespace.
    pub(crate) owner: u32,
    pub(crate) control: BorrowedFd<'a>,
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
    pub(crate) v1_doors: &'a [(OwnedFd, OwnedFd)],
}

impl Forker {
    /// Builds a template, in a thread that has a mount namespace of its own for it, and starts a forker there.
    pub(crate) fn start(image: &InitImage, null: BorrowedFd<'_>) -> Result<Self, Error> {
        let made_from = Fingerprint::now();
        let (ours, theirs) = UnixStream::pair().map_err(|e| Error::Host {
            doing: "make a control socket".to_owned(),
            errno: e.raw_os_error().unwrap_or(0),
        })?;
        let begin = || -> Result<(Child, Vec<SystemEntry>), Error> {
            aion_sys::ns::unshare(FS).map_err(Error::host("give a thread a root of its own"))?;
            let template = Template::build()?;
            let image =
                Image { program: image.as_fd(), argv: &[c"aion-init"], control: theirs.as_fd(), null };
            let child = park::spawn(0, None, &image).map_err(Error::host("execute the init image"))?;
            Ok((child, template.entries))
        };
        let (child, entries) = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("template".to_owned());
            let thread = thread.spawn_scoped(scope, begin).map_err(|e| Error::Host {
                doing: "start a thread".to_owned(),
                errno: e.raw_os_error().unwrap_or(0),
            })?;
            let failed = |_| Error::Host { doing: "build a template".to_owned(), errno: 0 };
            thread.join().map_err(failed)?
        })?;
        let process = InitProcess::new(child.pid, child.pidfd);
        Ok(Self { process, control: ours, entries, made_from })
    }

    /// Has a process made.
    ///
    /// # Errors
    /// The outer one: the forker is of no use any more. The inner one: this process could not be made.
    pub(crate) fn fork(&mut self, order: &Order<'_>) -> Result<Result<Child, Error>, Errno> {
        let deadline = Some(Instant::now() + PATIENCE);
        let mut fds = vec![order.control];
        fds.extend(order.cgroup);
        for (enter, leave) in order.v1_doors {
            fds.extend([enter.as_fd(), leave.as_fd()]);
        }
        let message =
            ForkOrder { namespaces: order.namespaces, owner: order.owner, cgroup: order.cgroup.is_some() };
        let bytes = Message::Fork(message).encode();
        frame::send(self.control.as_fd(), &bytes, &fds, None, deadline)?;
        let answer = frame::recv(self.control.as_fd(), MAX_ANSWER, Some(self.process.pidfd()), deadline)?;
        Ok(match decode_outcome(&answer.bytes) {
            Ok(Outcome::Forked { pid }) => match answer.fds.into_iter().next() {
                Some(pidfd) => Ok(Child { pid, pidfd }),
                None => Err(Error::Protocol { reason: "no pidfd" }),
            },
            Ok(Outcome::LayerFailed { layer, errno, message }) => Err(Error::Layer { layer, errno, message }),
            Ok(_) => Err(Error::Protocol { reason: "not an answer to a fork" }),
            Err(e) => Err(e),
        })
    }
}

impl Drop for Forker {
    fn drop(&mut self) {
        self.process.destroy();
    }
}

/// The error of a forker that failed twice.
pub(crate) fn gone(errno: Errno) -> Error {
    Error::Layer {
        layer: LayerName::Namespaces,
        errno: errno.raw_os_error(),
        message: "the forker does not answer".to_owned(),
    }
}
