//! Names of the errors that a denial gives.

/// The name, or the number for the rare ones.
pub(crate) fn name(errno: u32) -> String {
    let name = match errno {
        1 => "EPERM",
        2 => "ENOENT",
        9 => "EBADF",
        11 => "EAGAIN",
        12 => "ENOMEM",
        13 => "EACCES",
        17 => "EEXIST",
        22 => "EINVAL",
        28 => "ENOSPC",
        38 => "ENOSYS",
        95 => "EOPNOTSUPP",
        97 => "EAFNOSUPPORT",
        113 => "EHOSTUNREACH",
        other => return other.to_string(),
    };
    name.to_owned()
}
