//! The Unix socket: bound while the process can still set its owner.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::privileges::Account;

/// Binds the socket, mode 0660, owned by root and the operators' group. A dead daemon's socket is replaced; a
/// living one's is not.
pub(crate) fn bind(path: &Path, account: &Account) -> Result<UnixListener> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            bail!("{} is there and is not a socket", path.display())
        }
        Ok(_) if UnixStream::connect(path).is_ok() => bail!("somebody listens on {} already", path.display()),
        Ok(_) => {
            fs::remove_file(path).with_context(|| format!("cannot remove the stale {}", path.display()))?
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("{}", path.display())),
    }
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).with_context(|| format!("{}", folder.display()))?;
    }
    // Nobody may connect between bind and chmod.
    let before = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
    let bound = UnixListener::bind(path);
    nix::sys::stat::umask(before);
    let listener = bound.with_context(|| format!("cannot bind {}", path.display()))?;
    if account.drops() {
        chown(path, Some(0), Some(account.gid()))?;
    }
    fs::set_permissions(path, Permissions::from_mode(0o660))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let folder = std::env::temp_dir().join(format!("aiond-listen-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("a.sock");
        let account = Account::resolve("nobody", "nogroup").unwrap();
        let first = bind(&path, &account).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert!(bind(&path, &account).unwrap_err().to_string().contains("listens"));
        drop(first);
        drop(bind(&path, &account).unwrap());
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        assert!(bind(&path, &account).unwrap_err().to_string().contains("not a socket"));
        fs::remove_dir_all(&folder).unwrap();
    }
}
