//! Loop devices: a file as a block device that goes away with its last user.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;

use rustix::io::Errno;

use crate::raw;

const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
const AUTOCLEAR: u32 = 4;
/// Others look for free devices too.
const TRIES: usize = 64;

#[repr(C)]
struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

/// A loop device. The kernel detaches the file when the last user is gone: this descriptor, or a mount.
#[derive(Debug)]
pub struct LoopDevice {
    /// Keeps the device attached until something is mounted from it.
    _file: File,
    path: PathBuf,
}

impl LoopDevice {
    /// Makes a loop device of a file.
    ///
    /// # Errors
    /// As open(2) and the `LOOP_CONFIGURE` ioctl say; `EBUSY` when no device stays free long enough.
    pub fn attach(backing: BorrowedFd<'_>) -> Result<Self, Errno> {
        let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control").map_err(errno)?;
        for _ in 0..TRIES {
            // SAFETY: takes no argument.
            let number = raw::result(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) }.into())?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let file = OpenOptions::new().read(true).write(true).open(&path).map_err(errno)?;
            // SAFETY: plain numbers and bytes, for which zero is valid.
            let mut config: LoopConfig = unsafe { std::mem::zeroed() };
            config.fd = backing.as_raw_fd().unsigned_abs();
            config.info.flags = AUTOCLEAR;
            let argument = std::ptr::from_ref(&config);
            // SAFETY: the kernel reads a live `struct loop_config`.
            match raw::result(unsafe { libc::ioctl(file.as_raw_fd(), LOOP_CONFIGURE, argument) }.into()) {
                Ok(_) => return Ok(Self { _file: file, path }),
                Err(Errno::BUSY) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Errno::BUSY)
    }

    /// The device's path.
    #[must_use]
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}
