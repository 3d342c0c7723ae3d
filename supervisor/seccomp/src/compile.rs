//! From a checked profile to the bytes that the kernel loads.

use std::io::{Read, Seek};

use libseccomp::{ScmpAction, ScmpArch, ScmpFilterContext, ScmpSyscall};

use crate::error::Error;
use crate::profile::{Action, Profile};
use crate::{bpf, guard};

/// An architecture that filters can be made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Arch {
    /// 64-bit x86. Calls of the x32 and i386 ABIs fail with ENOSYS.
    X86_64,
}

impl Arch {
    /// The machine's own, when filters can be made for it.
    #[must_use]
    pub const fn native() -> Option<Self> {
        if cfg!(target_arch = "x86_64") { Some(Self::X86_64) } else { None }
    }

    const fn libseccomp(self) -> ScmpArch {
        match self {
            Self::X86_64 => ScmpArch::X8664,
        }
    }

    const fn audit(self) -> u32 {
        match self {
            Self::X86_64 => 0xC000_003E,
        }
    }
}

/// A filter, ready to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// An array of `struct sock_filter`.
    pub bpf: Vec<u8>,
    /// For each call that may be reported: its number, and the errno with which the listener answers. Sorted.
    pub notify: Vec<(u32, i32)>,
}

impl Compiled {
    /// How many instructions it has.
    #[must_use]
    pub const fn instructions(&self) -> usize {
        self.bpf.len() / bpf::INSTRUCTION
    }
}

/// Compiles.
///
/// # Errors
/// [`Error::Compile`] when libseccomp refuses, [`Error::TooComplex`] over the kernel's limit.
pub fn compile(profile: &Profile, arch: Arch) -> Result<Compiled, Error> {
    let mut bytes = guard::prologue(profile, arch.audit());
    bytes.extend(tree(profile, arch)?);
    let compiled = Compiled { bpf: bytes, notify: notified(profile) };
    let instructions = compiled.instructions();
    if instructions > bpf::MAX_INSTRUCTIONS {
        return Err(Error::TooComplex { profile: profile.name.clone(), instructions });
    }
    Ok(compiled)
}

/// The rules that look at the number alone, through libseccomp.
fn tree(profile: &Profile, arch: Arch) -> Result<Vec<u8>, Error> {
    let failed =
        |step: &'static str| move |source| Error::Compile { profile: profile.name.clone(), step, source };
    let mut filter =
        ScmpFilterContext::new(to_libseccomp(profile.default_action)).map_err(failed("make a filter"))?;
    filter.add_arch(arch.libseccomp()).map_err(failed("add the architecture"))?;
    // A foreign ABI gets what a kernel without it says; the default would be a silent kill.
    filter
        .set_act_badarch(ScmpAction::Errno(libc::ENOSYS))
        .map_err(failed("set the action for other ABIs"))?;
    filter.set_ctl_optimize(2).map_err(failed("choose the binary tree"))?;
    for group in profile.groups.iter().filter(|g| !g.is_conditional()) {
        // libseccomp refuses a rule that says what the default says.
        if group.action == profile.default_action {
            continue;
        }
        for call in &group.syscalls {
            let nr = i32::try_from(call.nr).unwrap_or(i32::MAX);
            filter
                .add_rule_exact(to_libseccomp(group.action), ScmpSyscall::from_raw_syscall(nr))
                .map_err(failed("add a rule"))?;
        }
    }
    // `seccomp_export_bpf_mem` is not in Debian 12's libseccomp; a memory file is.
    let exported = |source| Error::Export { profile: profile.name.clone(), source };
    let fd = nix::sys::memfd::memfd_create(c"aion-seccomp", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)
        .map_err(|e| exported(e.into()))?;
    filter.export_bpf(&fd).map_err(failed("export"))?;
    let mut file = std::fs::File::from(fd);
    let mut bytes = Vec::new();
    file.rewind().map_err(exported)?;
    file.read_to_end(&mut bytes).map_err(exported)?;
    Ok(bytes)
}

fn notified(profile: &Profile) -> Vec<(u32, i32)> {
    let mut all: Vec<(u32, i32)> = profile
        .groups
        .iter()
        .filter_map(|g| match g.action {
            Action::Notify(errno) => Some((g, errno)),
            _ => None,
        })
        .flat_map(|(g, errno)| g.syscalls.iter().map(move |s| (s.nr, errno)))
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

const fn to_libseccomp(action: Action) -> ScmpAction {
    match action {
        Action::Allow => ScmpAction::Allow,
        Action::Errno(e) => ScmpAction::Errno(e),
        Action::Notify(_) => ScmpAction::Notify,
    }
}
