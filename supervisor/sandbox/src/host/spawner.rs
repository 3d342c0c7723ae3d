//! Makes slots. Its threads live in the template's mount namespace and do nothing but clone: the caller's
//! threads keep their view of the host, and wait only for their own slot.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aion_sys::clone::{Child, flags};
use aion_sys::park::{self, Image};
use aion_types::LayerName;

use crate::Error;
use crate::host::exec::ExecSlot;
use crate::host::image::InitImage;
use crate::host::init_process::InitProcess;
use crate::host::slot::{NetworkMode, Slot, SlotSpec};
use crate::host::template::{Fingerprint, Template};
use crate::message::{Prepare, SystemEntry};

/// How a spawner works.
#[derive(Debug, Clone)]
pub struct Options {
    /// Threads that clone; more than processors gain nothing.
    pub workers: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { workers: 2 }
    }
}

/// Makes slots. Cheap to clone; its threads end with the last clone.
#[derive(Debug, Clone)]
pub struct Spawner {
    requests: SyncSender<Request>,
}

struct Request {
    flags: u64,
    cgroup: Option<OwnedFd>,
    v1_doors: Vec<(OwnedFd, OwnedFd)>,
    control: UnixStream,
    host: Fingerprint,
    reply: SyncSender<Result<Reply, Error>>,
}

struct Reply {
    child: Child,
    entries: Vec<SystemEntry>,
}

/// What the threads share.
struct Shared {
    image: InitImage,
    null: OwnedFd,
    /// The namespace that templates are made from.
    host: OwnedFd,
    requests: Mutex<Receiver<Request>>,
}

impl Spawner {
    /// Starts the threads; each builds its template before its first slot.
    ///
    /// # Errors
    /// A template cannot be made: layer `rootfs`.
    pub fn start(image: InitImage, options: Options) -> Result<Self, Error> {
        let open = |path: &str| {
            std::fs::File::options()
                .read(true)
                .write(path == "/dev/null")
                .open(path)
                .map(OwnedFd::from)
                .map_err(|e| Error::Host {
                    doing: format!("open {path}"),
                    errno: e.raw_os_error().unwrap_or(0),
                })
        };
        let (null, host) = (open("/dev/null")?, open("/proc/thread-self/ns/mnt")?);
        let (requests, receiver) = mpsc::sync_channel(64);
        let shared = Arc::new(Shared { image, null, host, requests: Mutex::new(receiver) });
        let (ready, outcomes) = mpsc::channel();
        let workers = options.workers.max(1);
        for number in 0..workers {
            let (shared, ready) = (Arc::clone(&shared), ready.clone());
            let thread = std::thread::Builder::new().name(format!("spawner-{number}"));
            thread.spawn(move || work(&shared, &ready)).map_err(|e| Error::Host {
                doing: "start a thread".to_owned(),
                errno: e.raw_os_error().unwrap_or(0),
            })?;
        }
        for _ in 0..workers {
            outcomes.recv().map_err(|_| Error::Host { doing: "start a thread".to_owned(), errno: 0 })??;
        }
        Ok(Self { requests })
    }

    /// Makes a slot: an init in its cgroup and namespaces, building its root.
    ///
    /// # Errors
    /// Layer `namespaces` (or `cgroup`, when there is one), or `rootfs` when the template had to be made
    /// again and could not.
    pub fn spawn(&self, mut spec: SlotSpec) -> Result<Slot, Error> {
        let spec_error = |reason: &str| Error::InvalidPlan { field: "uid_base", reason: reason.to_owned() };
        if spec.uid_base < 65_536 || spec.uid_base.checked_add(65_536).is_none() {
            return Err(spec_error(
                "the range must lie above the host's own ids and end before the last one",
            ));
        }
        let mut wanted = spec.namespaces.0;
        // The cgroup namespace begins at the group that its maker is in. clone3 makes it before the child is in its
        // group, so init makes it itself, when it has the plan.
        wanted &= !flags::NEWCGROUP;
        if spec.network == NetworkMode::Host {
            wanted &= !flags::NEWNET;
        }
        let cgroup = clone_fd(spec.cgroup.as_ref())?;
        let (child, control, entries) = self.request(wanted, cgroup, std::mem::take(&mut spec.v1_doors))?;
        let init = InitProcess::new(child.pid, child.pidfd);
        let cgroup_namespace = spec.namespaces.has(flags::NEWCGROUP);
        let mask_proc = spec.mask_proc;
        Slot::new(init, control, spec, Prepare { system: entries, cgroup_namespace, mask_proc })
    }

    /// Makes a helper for a command in a running sandbox, in that sandbox's cgroup (v2).
    ///
    /// # Errors
    /// Layer `cgroup`, or the clone failed.
    pub fn spawn_exec(&self, cgroup: Option<OwnedFd>, timeout: Duration) -> Result<ExecSlot, Error> {
        let (child, control, _) = self.request(0, cgroup, Vec::new())?;
        Ok(ExecSlot::new(InitProcess::new(child.pid, child.pidfd), control, timeout))
    }

    fn request(
        &self,
        flags: u64,
        cgroup: Option<OwnedFd>,
        v1_doors: Vec<(OwnedFd, OwnedFd)>,
    ) -> Result<(Child, UnixStream, Vec<SystemEntry>), Error> {
        let gone = || Error::Host { doing: "reach the spawner's threads".to_owned(), errno: 0 };
        let (ours, theirs) = UnixStream::pair().map_err(|e| Error::Host {
            doing: "make a control socket".to_owned(),
            errno: e.raw_os_error().unwrap_or(0),
        })?;
        rustix::net::sockopt::set_socket_passcred(&ours, true)
            .map_err(Error::host("ask for credentials on the control socket"))?;
        let (reply, answer) = mpsc::sync_channel(1);
        let request = Request { flags, cgroup, v1_doors, control: theirs, host: Fingerprint::now(), reply };
        self.requests.send(request).map_err(|_| gone())?;
        let Reply { child, entries } = answer.recv().map_err(|_| gone())??;
        Ok((child, ours, entries))
    }
}

fn clone_fd(fd: Option<&OwnedFd>) -> Result<Option<OwnedFd>, Error> {
    fd.map(OwnedFd::try_clone).transpose().map_err(|e| Error::Host {
        doing: "copy a descriptor".to_owned(),
        errno: e.raw_os_error().unwrap_or(0),
    })
}

/// A worker's life.
fn work(shared: &Shared, ready: &mpsc::Sender<Result<(), Error>>) {
    /// `CLONE_FS`: this thread's root and working directory become its own.
    const FS: u64 = 0x200;
    let first = Fingerprint::now();
    let built = aion_sys::ns::unshare(FS)
        .map_err(Error::host("give a thread a root of its own"))
        .and_then(|()| Template::build());
    let mut template = match built {
        Ok(template) => template,
        Err(e) => return drop(ready.send(Err(e))),
    };
    let mut made_from = first;
    if ready.send(Ok(())).is_err() {
        return;
    }
    loop {
        let next = shared.requests.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(request) = next else { return };
        let outcome = renew(shared, &mut template, &mut made_from, &request.host)
            .and_then(|()| clone(shared, &request, &template));
        // The caller may have gone; a child without anybody at its socket ends by itself.
        drop(request.reply.send(outcome));
    }
}

/// Builds the template anew when the host's files have changed.
fn renew(
    shared: &Shared,
    template: &mut Template,
    made_from: &mut Fingerprint,
    host: &Fingerprint,
) -> Result<(), Error> {
    if made_from == host {
        return Ok(());
    }
    aion_sys::ns::enter(shared.host.as_fd(), flags::NEWNS)
        .map_err(Error::layer(LayerName::Rootfs, "cannot go back to the host's mounts"))?;
    *template = Template::build()?;
    *made_from = host.clone();
    Ok(())
}

fn clone(shared: &Shared, request: &Request, template: &Template) -> Result<Reply, Error> {
    let image = Image {
        program: shared.image.as_fd(),
        argv: &[c"aion-init"],
        control: request.control.as_fd(),
        null: shared.null.as_fd(),
    };
    let layer = if request.cgroup.is_some() { LayerName::Cgroup } else { LayerName::Namespaces };
    let _inside = V1Visit::enter(&request.v1_doors)?;
    let child = park::spawn(request.flags, request.cgroup.as_ref().map(AsFd::as_fd), &image)
        .map_err(Error::layer(layer, "cannot clone init"))?;
    Ok(Reply { child, entries: template.entries.clone() })
}

/// This thread's stay in the v1 groups of an agent. It ends with the value: a thread that stayed would keep the
/// group from being removed.
struct V1Visit<'a>(&'a [(OwnedFd, OwnedFd)]);

impl<'a> V1Visit<'a> {
    fn enter(doors: &'a [(OwnedFd, OwnedFd)]) -> Result<Self, Error> {
        let visit = Self(doors);
        for (enter, _) in doors {
            rustix::io::write(enter, b"0")
                .map_err(Error::layer(LayerName::Cgroup, "cannot enter a cgroup v1 controller"))?;
        }
        Ok(visit)
    }
}

impl Drop for V1Visit<'_> {
    fn drop(&mut self) {
        for (_, leave) in self.0 {
            // The group that it belongs to is never full and never removed.
            let _ = rustix::io::write(leave, b"0");
        }
    }
}
