//! The Unix socket: handed over by the service manager, or bound while the process can still set its owner.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::net::{AddressFamily, SocketType, sockopt};

use crate::privileges::Account;

/// The socket that the service manager listens on for us: it stays open over restarts, so that clients wait instead of being refused.
/// None: nothing was handed over.
pub(crate) fn handed_over() -> Result<Option<UnixListener>> {
    let mut given = aion_sys::activation::take().context("LISTEN_PID or LISTEN_FDS is wrong")?;
    let Some(socket) = given.pop() else { return Ok(None) };
    if !given.is_empty() {
        bail!(
            "{} sockets were handed over, and aiond takes one: list one ListenStream= in aiond.socket",
            given.len() + 1
        );
    }
    listener_of(socket).map(Some)
}

/// What is no listening Unix socket would fail at the first accept, and again and again.
fn listener_of(socket: OwnedFd) -> Result<UnixListener> {
    let is_right = sockopt::socket_domain(&socket).is_ok_and(|domain| domain == AddressFamily::UNIX)
        && sockopt::socket_type(&socket).is_ok_and(|kind| kind == SocketType::STREAM)
        && sockopt::socket_acceptconn(&socket).unwrap_or(false);
    if !is_right {
        bail!(
            "descriptor 3 is not a listening Unix stream socket: aiond.socket wants ListenStream= with a path and Accept=no"
        );
    }
    let listener = UnixListener::from(socket);
    listener.set_nonblocking(true)?;
    Ok(listener)
}

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
    use std::fs::File;

    use super::*;

    #[test]
    fn only_a_listening_unix_socket_is_taken() {
        let folder = std::env::temp_dir().join(format!("aiond-handed-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let bound = UnixListener::bind(folder.join("a.sock")).unwrap();
        assert!(listener_of(bound.into()).is_ok());
        let (one, _other) = UnixStream::pair().unwrap();
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        for wrong in [OwnedFd::from(one), OwnedFd::from(tcp), File::open("/dev/null").unwrap().into()] {
            assert!(listener_of(wrong).unwrap_err().to_string().contains("descriptor 3"));
        }
        fs::remove_dir_all(&folder).unwrap();
    }

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
