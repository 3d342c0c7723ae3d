//! Seccomp filters from bytes, and their user notifications.

use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use crate::raw::call;

/// Bytes of one `struct sock_filter`.
const INSTRUCTION: usize = 8;
/// The longest program that the kernel takes.
const MAX_INSTRUCTIONS: usize = 4096;
const SET_MODE_FILTER: libc::c_uint = 1;
const NEW_LISTENER: libc::c_ulong = 1 << 3;
const NOTIF_RECV: libc::c_ulong = 0xc050_2100;
const NOTIF_SEND: libc::c_ulong = 0xc018_2101;

/// A filter, ready to be loaded.
#[derive(Debug)]
#[repr(C)]
pub struct Program<'a> {
    len: u16,
    filter: *const u8,
    _bytes: PhantomData<&'a [u8]>,
}

impl<'a> Program<'a> {
    /// Takes `struct sock_filter` after `struct sock_filter`.
    ///
    /// # Errors
    /// `EINVAL` for a length that no program has. The kernel checks the rest when it is loaded.
    pub fn new(bytes: &'a [u8]) -> Result<Self, Errno> {
        let count = bytes.len() / INSTRUCTION;
        if !bytes.len().is_multiple_of(INSTRUCTION) || count > MAX_INSTRUCTIONS {
            return Err(Errno::INVAL);
        }
        let len = u16::try_from(count).map_err(|_| Errno::INVAL)?;
        Ok(Self { len, filter: bytes.as_ptr(), _bytes: PhantomData })
    }

    /// Puts the filter on this thread. With `listener`, returns the listener's descriptor, else -1.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn load(&self, listener: bool) -> Result<i32, Errno> {
        let flags = if listener { NEW_LISTENER } else { 0 };
        let program = std::ptr::from_ref(self);
        let fd = call!(libc::SYS_seccomp, SET_MODE_FILTER, flags, program)?;
        if listener { i32::try_from(fd).map_err(|_| Errno::BADF) } else { Ok(-1) }
    }
}

/// A call that waits for an answer.
#[derive(Debug, Clone, Copy)]
pub struct Notification {
    /// Which call it is.
    pub id: u64,
    /// Who calls, in our pid namespace.
    pub pid: u32,
    /// The system call's number.
    pub nr: u32,
}

/// Takes the next waiting call; `None` when its caller is gone or none waits after all.
///
/// # Errors
/// As the kernel says.
pub fn receive(listener: BorrowedFd<'_>) -> Result<Option<Notification>, Errno> {
    // struct seccomp_notif: id, pid, flags, nr, arch, instruction pointer, six arguments
    let mut notif = [0u64; 10];
    match call!(libc::SYS_ioctl, listener.as_raw_fd(), NOTIF_RECV, notif.as_mut_ptr()) {
        Ok(_) => {
            let low = |word: u64| u32::try_from(word & 0xffff_ffff).unwrap_or(0);
            Ok(Some(Notification { id: notif[0], pid: low(notif[1]), nr: low(notif[2]) }))
        }
        Err(Errno::NOENT | Errno::INTR | Errno::AGAIN) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Answers a call with an errno. A caller that is gone needs none.
///
/// # Errors
/// As the kernel says.
pub fn refuse(listener: BorrowedFd<'_>, id: u64, errno: i32) -> Result<(), Errno> {
    // struct seccomp_notif_resp: id, value, error, flags
    let mut answer = [0u8; 24];
    answer[..8].copy_from_slice(&id.to_ne_bytes());
    answer[16..20].copy_from_slice(&(-errno.clamp(1, 4095)).to_ne_bytes());
    // Eight-byte alignment is the kernel's to deal with: it copies.
    match call!(libc::SYS_ioctl, listener.as_raw_fd(), NOTIF_SEND, answer.as_ptr()) {
        Ok(_) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}
