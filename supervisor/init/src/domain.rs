//! The agent's Landlock domain: what is not named here cannot be opened, written, made or executed.
//!
//! The rules follow the root that init has just entered, so they are made after pivot_root.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use aion_sandbox::{Landlock, Plan, RootfsKind, SystemEntry};
use aion_sys::landlock::{self, Handled, access};
use aion_types::LayerName;
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;

use crate::elf::{Needs, needs};
use crate::exec_rule::{self, Refused};
use crate::failure::{Failure, Result, at};
use crate::program;

const READ: u64 = access::READ_FILE | access::READ_DIR;
/// Everything but executing and making devices.
const WRITE: u64 = READ
    | access::WRITE_FILE
    | access::REMOVE_DIR
    | access::REMOVE_FILE
    | access::MAKE_DIR
    | access::MAKE_REG
    | access::MAKE_SOCK
    | access::MAKE_FIFO
    | access::MAKE_SYM
    | access::REFER
    | access::TRUNCATE;
/// Of a program that may be executed where not all may.
const RUN: u64 = access::EXECUTE | access::READ_FILE;
/// What a rule on a file, not a folder, may hold.
const OF_FILES: u64 =
    access::EXECUTE | access::WRITE_FILE | access::READ_FILE | access::TRUNCATE | access::IOCTL_DEV;
/// Opening a device for writing, and what terminals need.
const DEVICES: u64 = READ | access::WRITE_FILE | access::TRUNCATE | access::IOCTL_DEV;

/// Where loaders of ELF files lie: a program that lies where the agent can write must not name any other as its loader.
const LOADERS: &[&str] = &["/lib", "/lib64", "/usr/lib", "/usr/lib64"];

/// Links that are named in the report.
const TOLD: usize = 4;

/// A ruleset, ready to be entered, and what to say about it.
#[derive(Debug)]
pub(crate) struct Domain {
    pub(crate) ruleset: Option<OwnedFd>,
    pub(crate) abi: u32,
    pub(crate) detail: String,
}

pub(crate) fn build(
    wanted: &Landlock,
    plan: &Plan,
    program: &CString,
    system: &[SystemEntry],
) -> Result<Domain> {
    let abi = landlock::abi();
    if abi == 0 {
        if !wanted.allow_degraded {
            return Err(Failure::because(
                LayerName::Landlock,
                "this kernel has no Landlock (CONFIG_SECURITY_LANDLOCK, and `landlock` in lsm=)",
            ));
        }
        return Ok(Domain { ruleset: None, abi, detail: "this kernel has no Landlock".to_owned() });
    }
    let handled = Handled {
        fs: landlock::all_access(abi),
        net: if abi >= 4 && wanted.deny_tcp { landlock::NET_ALL } else { 0 },
        scoped: if abi >= 6 { landlock::SCOPE_ALL } else { 0 },
    };
    let failed = |what: &'static str| at(LayerName::Landlock, what);
    let ruleset = landlock::create(&handled, abi).map_err(failed("cannot make a ruleset"))?;
    for (path, rights) in rules(wanted, plan, program, system) {
        add(&ruleset, &path, rights & handled.fs).map_err(|e| not_added(&path, e))?;
    }
    let astray = add_executables(&ruleset, wanted, plan)?;
    let mut detail = format!("ABI {abi}: files");
    if wanted.restrict_exec {
        detail.push_str(", execution of the entry only");
    }
    for link in astray.iter().take(TOLD) {
        detail.push_str(&format!(" (not of {}: a link that is not the system's)", link.display()));
    }
    detail.push_str(match (handled.net != 0, wanted.deny_tcp) {
        (true, _) => ", no TCP",
        (false, true) => " (TCP rules need ABI 4)",
        (false, false) => "",
    });
    detail.push_str(if handled.scoped != 0 {
        ", signals and abstract sockets scoped"
    } else {
        " (scopes need ABI 6)"
    });
    Ok(Domain { ruleset: Some(ruleset), abi, detail })
}

fn rules(wanted: &Landlock, plan: &Plan, program: &CString, system: &[SystemEntry]) -> Vec<(PathBuf, u64)> {
    let execute = if wanted.restrict_exec { 0 } else { access::EXECUTE };
    let mut rules: Vec<(PathBuf, u64)> = Vec::with_capacity(24);
    let mut rule = |path: &str, rights| rules.push((PathBuf::from(path), rights));
    match plan.rootfs {
        RootfsKind::HostSystem => {
            rule("/", access::READ_DIR);
            for entry in system.iter().filter(|e| e.link.is_empty() && e.name != "dev") {
                let rights = if entry.name == "etc" { READ } else { READ | execute };
                rule(&format!("/{}", entry.name), rights);
            }
        }
        RootfsKind::Directory => rule("/", READ | execute),
    }
    rule("/proc", READ);
    rule("/dev", DEVICES);
    rule("/dev/shm", WRITE);
    rule("/run", WRITE | execute);
    rule("/tmp", WRITE | execute);
    let workspace = if plan.workspace_read_only { READ } else { WRITE };
    rule("/workspace", workspace | execute);
    let path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
    for bind in &plan.binds {
        let rights = if bind.writable { WRITE } else { READ };
        rules.push((path(&bind.path), rights | execute));
    }
    if wanted.restrict_exec {
        rules.extend(program::chain(program, plan).into_iter().map(|p| (p, RUN)));
    }
    rules
}

/// Adds the rules for what may be executed beside the entry. Answers the links that were not followed.
fn add_executables(ruleset: &OwnedFd, wanted: &Landlock, plan: &Plan) -> Result<Vec<PathBuf>> {
    let mut astray = Vec::new();
    if !wanted.restrict_exec {
        return Ok(astray);
    }
    for bytes in &wanted.exec_allow {
        let path = Path::new(OsStr::from_bytes(bytes));
        match exec_rule::open(path, plan) {
            Ok(file) => {
                allow(ruleset, RUN, &file).map_err(|e| not_added(path, e))?;
                add_loader(ruleset, &file, plan)?;
            }
            Err(Refused::Absent) => {}
            Err(Refused::Astray(link)) => astray.push(link),
            Err(Refused::Failed(e)) => return Err(not_added(path, e)),
        }
    }
    Ok(astray)
}

/// Adds the rule for the loader that the kernel executes with a program. One that lies elsewhere wants a rule of its own.
fn add_loader(ruleset: &OwnedFd, program: &OwnedFd, plan: &Plan) -> Result<()> {
    let Some(loader) = loader_of(program) else { return Ok(()) };
    match exec_rule::open(&loader, plan) {
        // Landlock takes a folder as well, with all that is in it.
        Ok(file) if is_file(&file) => allow(ruleset, RUN, &file).map_err(|e| not_added(&loader, e)),
        Ok(_) | Err(Refused::Absent | Refused::Astray(_)) => Ok(()),
        Err(Refused::Failed(e)) => Err(not_added(&loader, e)),
    }
}

/// The loader of a program, not of a folder of them, where loaders lie.
fn loader_of(program: &OwnedFd) -> Option<PathBuf> {
    if !is_file(program) {
        return None;
    }
    // By the descriptor: it is this file that was allowed, whatever its path leads to by now.
    let by_descriptor = PathBuf::from(format!("/proc/self/fd/{}", program.as_raw_fd()));
    match needs(&by_descriptor)? {
        Needs::Loader(loader) if is_loaders(&loader) => Some(loader),
        _ => None,
    }
}

/// Whether a path is one where loaders lie, by a name as they have, and leads nowhere else by dots.
fn is_loaders(path: &Path) -> bool {
    let plain = !path.components().any(|part| part == Component::ParentDir);
    let name = path.file_name().map(OsStr::as_bytes).unwrap_or_default();
    let is_named = name.starts_with(b"ld") && name.windows(3).any(|part| part == b".so");
    plain && is_named && LOADERS.iter().any(|folder| path.starts_with(folder))
}

fn is_file(file: &OwnedFd) -> bool {
    fstat(file).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
}

fn not_added(path: &Path, errno: Errno) -> Failure {
    Failure::Layer {
        layer: LayerName::Landlock,
        errno: errno.raw_os_error(),
        message: format!("cannot add the rule for {}", path.display()),
    }
}

/// Adds a rule. What does not exist needs none: nothing is allowed there.
fn add(ruleset: &OwnedFd, path: &Path, rights: u64) -> std::result::Result<(), Errno> {
    let file = match openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS | Errno::LOOP) => return Ok(()),
        other => other?,
    };
    allow(ruleset, rights, &file)
}

fn allow(ruleset: &OwnedFd, rights: u64, file: &OwnedFd) -> std::result::Result<(), Errno> {
    match landlock::allow(ruleset.as_fd(), rights, file.as_fd()) {
        // Rights of folders on a file.
        Err(Errno::INVAL) if rights & !OF_FILES != 0 => {
            landlock::allow(ruleset.as_fd(), rights & OF_FILES, file.as_fd())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(path: &str) -> OwnedFd {
        openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap()
    }

    #[test]
    fn a_program_brings_its_loader_and_nothing_else() {
        let loader = loader_of(&opened("/bin/sh")).unwrap();
        assert!(is_file(&opened(loader.to_str().unwrap())), "{loader:?}");
        assert_eq!(loader_of(&opened("/usr/bin")), None, "a folder of programs");
        // It may name any program, also one of the system's.
        let mut other = std::fs::read("/bin/sh").unwrap();
        let name = loader.to_str().unwrap().as_bytes();
        let at = other.windows(name.len()).position(|window| window == name).unwrap();
        other[at..at + 7].copy_from_slice(b"/bin/./");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), other).unwrap();
        assert_eq!(loader_of(&opened(file.path().to_str().unwrap())), None);
    }

    #[test]
    fn loaders_lie_where_the_system_has_them() {
        for path in ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-musl-x86_64.so.1", "/usr/lib/x/ld.so"] {
            assert!(is_loaders(Path::new(path)), "{path}");
        }
        let others =
            ["/usr/bin/git", "/usr/lib/git-core/git", "/lib/../bin/ld.so", "lib/ld.so", "/tmp/ld.so"];
        for path in others {
            assert!(!is_loaders(Path::new(path)), "{path}");
        }
    }
}
