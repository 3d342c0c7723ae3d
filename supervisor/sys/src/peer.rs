//! Who is at the other end of a Unix socket, as the kernel noted it at connect.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use rustix::io::Errno;

/// SO_PEERGROUPS, the same number on every architecture that AION runs on; libc does not name it.
const SO_PEERGROUPS: libc::c_int = 59;

/// The peer's supplementary groups.
///
/// # Errors
/// As getsockopt says; `NOPROTOOPT` on kernels before 4.13.
pub fn groups(socket: BorrowedFd<'_>) -> Result<Vec<u32>, Errno> {
    let mut groups: Vec<libc::gid_t> = vec![0; 64];
    loop {
        let mut bytes =
            libc::socklen_t::try_from(groups.len() * size_of::<libc::gid_t>()).map_err(|_| Errno::NOMEM)?;
        // SAFETY: the kernel writes at most `bytes` bytes to `groups`, which is that long and holds plain integers;
        // both outlive the call.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        };
        let count = usize::try_from(bytes).unwrap_or(usize::MAX) / size_of::<libc::gid_t>();
        if result == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        match Errno::from_io_error(&std::io::Error::last_os_error()) {
            // The kernel has written how much room it needs; groups can be many, not endless (NGROUPS_MAX).
            Some(Errno::RANGE) if count > groups.len() && count <= 65_536 => groups.resize(count, 0),
            Some(errno) => return Err(errno),
            None => return Err(Errno::INVAL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_pair_has_our_own_groups() {
        let (a, _b) = UnixStream::pair().unwrap();
        let mut found = groups(a.as_fd()).unwrap();
        let mut own: Vec<u32> = rustix::process::getgroups().unwrap().iter().map(|g| g.as_raw()).collect();
        found.sort_unstable();
        own.sort_unstable();
        assert_eq!(found, own);
    }
}
