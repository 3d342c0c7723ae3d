//! The init binary, copied to sealed memory: nobody can change what later sandboxes execute, and a sandbox
//! that finds its init's image through /proc finds a copy that is read-only for ever.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;

use crate::Error;

/// Far more than init has.
const MAX_BYTES: u64 = 64 << 20;

/// A sealed copy of `aion-init`.
#[derive(Debug)]
pub struct InitImage {
    fd: OwnedFd,
}

impl InitImage {
    /// Copies the static binary at `path`.
    ///
    /// # Errors
    /// It cannot be read, is no ELF file, or the copy cannot be sealed.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let failed = |what: &str, e: &std::io::Error| Error::Host {
            doing: format!("{what} the init image {}", path.display()),
            errno: e.raw_os_error().unwrap_or(0),
        };
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(|e| failed("open", &e))?;
        file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(|e| failed("read", &e))?;
        if !bytes.starts_with(b"\x7fELF") {
            return Err(Error::Host {
                doing: format!("use {}: it is not an ELF file", path.display()),
                errno: 0,
            });
        }
        // From 6.3 on a memfd says whether it may be executed; before, the flag is unknown.
        let create =
            |flags| memfd_create("aion-init", flags | MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING);
        let fd = match create(MemfdFlags::EXEC) {
            Err(Errno::INVAL) => create(MemfdFlags::empty()),
            other => other,
        }
        .map_err(Error::host("make memory for the init image"))?;
        let mut copy = File::from(fd);
        copy.write_all(&bytes).and_then(|()| copy.rewind()).map_err(|e| failed("copy", &e))?;
        let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
        fcntl_add_seals(&copy, seals).map_err(Error::host("seal the init image"))?;
        Ok(Self { fd: copy.into() })
    }
}

impl AsFd for InitImage {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
