//! Loads the object, attaches and pins. Nothing of the loader is kept: BTF and object are megabytes, and what
//! is pinned can be opened.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use aion_probe_types::layout::{ABI, State};
use aya::programs::links::FdLink;
use aya::programs::{
    BtfTracePoint, CgroupAttachMode, CgroupDevice, CgroupSkb, CgroupSockAddr, Lsm, ProgramError,
    RawTracePoint,
};
use aya::sys::SyscallError;
use aya::{Btf, Ebpf, EbpfLoader};

use crate::bpffs::{Pins, io_error};
use crate::error::Error;
use crate::maps::{self, Maps};
use crate::options::{Object, Options};
use crate::programs::{ALL, Attach, Need, Spec};
use crate::report::{ProgramReport, ProgramState};

/// The object's bytes, read once.
pub(crate) fn read(object: &Object) -> Result<Vec<u8>, Error> {
    match object {
        Object::Bytes(bytes) => Ok(bytes.clone()),
        Object::Path(path) => fs::read(path).map_err(|source| Error::Object { path: path.clone(), source }),
    }
}

/// What the maps are to say about these programs.
pub(crate) fn state(object: [u8; 32], generation: u32, ring_bytes: u32) -> State {
    let size = u64::from(ring_bytes);
    State {
        abi: ABI,
        generation,
        object,
        ring_bytes: size,
        woken_ns: 0,
        wake_at: size / 2,
        admit_below: size / 4 * 3,
        stop_at: size / 8 * 7,
    }
}

/// Loads every program as `generation`, attaches it, pins its link. The maps are those pinned, or made and
/// pinned.
pub(crate) fn load(
    options: &Options,
    object: &[u8],
    pins: &Pins,
    generation: u32,
) -> Result<Vec<ProgramReport>, Error> {
    let cgroup =
        File::open(&options.cgroup).map_err(|source| io_error("open the cgroup", &options.cgroup, source))?;
    let refused = |source| Error::Load { source: Box::new(source) };
    let btf = Btf::from_sys_fs().map_err(|error| refused(error.into()))?;
    let dir = pins.maps();
    let paths: Vec<_> = maps::NAMES.iter().map(|&name| (name, dir.join(name))).collect();
    let mut loader = EbpfLoader::new();
    loader
        .btf(Some(&btf))
        .override_global("GENERATION", &generation, true)
        .map_max_entries("EVENTS", options.ring_bytes);
    for (name, path) in &paths {
        loader.map_pin_path(name, path.as_path());
    }
    let mut ebpf = loader.load(object).map_err(refused)?;
    let context = Context { btf: &btf, cgroup: &cgroup, pins, generation, lsm: lsm_missing() };
    ALL.iter().map(|spec| context.attach(&mut ebpf, spec)).collect()
}

/// Why BPF LSM programs would not run, if so. Where `bpf` is not in the list they may load and attach, and are
/// never called.
fn lsm_missing() -> Option<String> {
    const LIST: &str = "/sys/kernel/security/lsm";
    match fs::read_to_string(LIST) {
        Ok(list) if list.trim().split(',').any(|name| name == "bpf") => None,
        Ok(list) => {
            Some(format!("bpf is not in the kernel's LSM list ({}); boot with lsm=…,bpf", list.trim()))
        }
        Err(error) => {
            Some(format!("{LIST} cannot be read ({error}); mount securityfs and boot with lsm=…,bpf"))
        }
    }
}

/// The verifier gives up with EAGAIN when a signal comes.
const RETRIES: usize = 10;

/// What keeps a program attached.
enum Linked {
    Aya(FdLink),
    /// Of a program about devices: aya 0.14 gives its link to nobody, so it could not be pinned.
    Own(OwnedFd),
}

impl Linked {
    fn pin(self, name: &str, path: &Path) -> Result<(), Error> {
        let own = match self {
            Self::Aya(link) => return pin(link, name, path),
            Self::Own(own) => own,
        };
        let failed = |source: io::Error| Error::Link {
            program: name.to_owned(),
            action: "pin",
            source: Box::new(source),
        };
        let path = CString::new(path.as_os_str().as_bytes()).map_err(|e| failed(e.into()))?;
        aion_sys::bpf::pin(own.as_fd(), &path).map_err(|errno| failed(errno.into()))
    }
}

struct Context<'a> {
    btf: &'a Btf,
    cgroup: &'a File,
    pins: &'a Pins,
    generation: u32,
    lsm: Option<String>,
}

impl Context<'_> {
    fn attach(&self, ebpf: &mut Ebpf, spec: &Spec) -> Result<ProgramReport, Error> {
        let report = |state| Ok(ProgramReport { name: spec.name, state });
        if let (Attach::Lsm(_), Some(reason)) = (spec.attach, &self.lsm) {
            return report(ProgramState::Unavailable { reason: reason.clone() });
        }
        let mut linked = self.link(ebpf, spec);
        for _ in 0..RETRIES {
            match &linked {
                Err(ProgramError::LoadError { io_error, .. })
                    if io_error.kind() == io::ErrorKind::WouldBlock =>
                {
                    linked = self.link(ebpf, spec);
                }
                _ => break,
            }
        }
        match linked {
            Ok(Some(link)) => {
                let path = self.pins.link(spec.name, self.generation);
                link.pin(spec.name, &path)?;
                report(ProgramState::Attached)
            }
            Ok(None) => report(ProgramState::OnDemand),
            Err(source) if spec.need == Need::Required => {
                Err(Error::Attach { program: spec.name, source: Box::new(source) })
            }
            Err(source) => report(ProgramState::Unavailable { reason: chain(&source) }),
        }
    }

    fn link(&self, ebpf: &mut Ebpf, spec: &Spec) -> Result<Option<Linked>, ProgramError> {
        let program = ebpf.program_mut(spec.name).ok_or_else(|| ProgramError::InvalidName {
            name: format!("{} is not in the object", spec.name),
        })?;
        // A cgroup link always lets programs of others run too; `Single` only means no flags.
        let mode = CgroupAttachMode::Single;
        let link: FdLink = match spec.attach {
            Attach::BtfTracepoint(at) => {
                let program: &mut BtfTracePoint = program.try_into()?;
                program.load(at, self.btf)?;
                if spec.need == Need::OnDemand {
                    program.pin(self.pins.program(spec.name, self.generation)).map_err(pin_failed)?;
                    return Ok(None);
                }
                let id = program.attach()?;
                program.take_link(id)?.into()
            }
            Attach::RawTracepoint(at) => {
                let program: &mut RawTracePoint = program.try_into()?;
                program.load()?;
                let id = program.attach(at)?;
                program.take_link(id)?.into()
            }
            Attach::SockAddr => {
                let program: &mut CgroupSockAddr = program.try_into()?;
                program.load()?;
                let id = program.attach(self.cgroup, mode)?;
                program.take_link(id)?.try_into().map_err(|_| ProgramError::NotAttached)?
            }
            Attach::Devices => {
                let program: &mut CgroupDevice = program.try_into()?;
                program.load()?;
                let link = aion_sys::bpf::attach_devices(program.fd()?.as_fd(), self.cgroup.as_fd());
                let link =
                    link.map_err(|errno| SyscallError { call: "bpf_link_create", io_error: errno.into() })?;
                return Ok(Some(Linked::Own(link)));
            }
            Attach::Skb(direction) => {
                let program: &mut CgroupSkb = program.try_into()?;
                program.load()?;
                let id = program.attach(self.cgroup, direction.into(), mode)?;
                program.take_link(id)?.try_into().map_err(|_| ProgramError::NotAttached)?
            }
            Attach::Lsm(hook) => {
                let program: &mut Lsm = program.try_into()?;
                program.load(hook, self.btf)?;
                let id = program.attach()?;
                program.take_link(id)?.into()
            }
        };
        Ok(Some(Linked::Aya(link)))
    }
}

fn pin_failed(error: aya::pin::PinError) -> ProgramError {
    match error {
        aya::pin::PinError::SyscallError(error) => ProgramError::SyscallError(error),
        other => ProgramError::InvalidName { name: other.to_string() },
    }
}

pub(crate) fn pin(link: FdLink, name: &str, path: &Path) -> Result<(), Error> {
    link.pin(path).map(drop).map_err(|source| Error::Link {
        program: name.to_owned(),
        action: "pin",
        source: Box::new(source),
    })
}

/// An error with its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text.lines().next().unwrap_or_default().to_owned()
}

/// Reads the report of what is pinned: nothing is attached or loaded.
pub(crate) fn pinned(pins: &Pins, generation: u32) -> Vec<ProgramReport> {
    let lsm = lsm_missing();
    ALL.iter()
        .map(|spec| {
            let state = if spec.need == Need::OnDemand && pins.program(spec.name, generation).exists() {
                ProgramState::OnDemand
            } else if pins.link(spec.name, generation).exists() {
                ProgramState::Attached
            } else {
                let reason = match (spec.attach, &lsm) {
                    (Attach::Lsm(_), Some(reason)) => reason.clone(),
                    _ => "it could not be attached when the probes were loaded".to_owned(),
                };
                ProgramState::Unavailable { reason }
            };
            ProgramReport { name: spec.name, state }
        })
        .collect()
}

/// Whether everything that every agent needs is pinned.
pub(crate) fn complete(pins: &Pins, generation: u32) -> bool {
    ALL.iter().all(|spec| match spec.need {
        Need::Required => pins.link(spec.name, generation).exists(),
        Need::OnDemand => pins.program(spec.name, generation).exists(),
        Need::Optional => true,
    })
}

/// Makes `state` the current one: from now on the programs of its generation record.
pub(crate) fn commit(pins: &Pins, state: State) -> Result<(), Error> {
    Maps::open(&pins.maps())?.set_state(state)
}
