//! bpf(2), as far as aya does not give it: the link of a program about devices, which can be pinned.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use crate::raw::{self, call};

const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_LINK_CREATE: libc::c_int = 28;
/// `BPF_CGROUP_DEVICE` of `enum bpf_attach_type`.
const CGROUP_DEVICE: u32 = 6;

/// The part of `union bpf_attr` that is for links. What is not given is 0 to the kernel.
#[repr(C)]
struct LinkCreate {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
}

/// The part that is for pins.
#[repr(C)]
struct Pin {
    path: u64,
    object: u32,
    flags: u32,
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

/// Attaches a program of type `BPF_PROG_TYPE_CGROUP_DEVICE` to a cgroup, beside those that are there. It is attached as long as its
/// link is.
///
/// # Errors
/// As the kernel says.
pub fn attach_devices(program: BorrowedFd<'_>, cgroup: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let attr =
        LinkCreate { program: number(program), target: number(cgroup), attach_type: CGROUP_DEVICE, flags: 0 };
    let attr_at = std::ptr::from_ref(&attr);
    raw::owned(call!(libc::SYS_bpf, BPF_LINK_CREATE, attr_at, size_of::<LinkCreate>())?)
}

/// Pins a link, a program or a map.
///
/// # Errors
/// As the kernel says.
pub fn pin(object: BorrowedFd<'_>, path: &CStr) -> Result<(), Errno> {
    let path = u64::try_from(path.as_ptr().addr()).map_err(|_| Errno::INVAL)?;
    let attr = Pin { path, object: number(object), flags: 0 };
    let attr_at = std::ptr::from_ref(&attr);
    call!(libc::SYS_bpf, BPF_OBJ_PIN, attr_at, size_of::<Pin>()).map(drop)
}
