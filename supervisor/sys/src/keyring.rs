//! Keyrings.

use rustix::io::Errno;

use crate::raw::call;

const JOIN_SESSION_KEYRING: libc::c_ulong = 1;

/// Leaves the session keyring for a new, empty one without a name. A kernel without keys has nothing to
/// leave: that counts as done.
///
/// # Errors
/// As keyctl says, such as a quota.
pub fn join_anonymous_session() -> Result<(), Errno> {
    match call!(libc::SYS_keyctl, JOIN_SESSION_KEYRING, 0, 0, 0, 0) {
        Ok(_) | Err(Errno::NOSYS) => Ok(()),
        Err(errno) => Err(errno),
    }
}
