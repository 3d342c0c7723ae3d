//! Executing programs where the agent has `subprocess: false`: only its entry may be.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, ExitCode};

use crate::attempt::{Attempt, Place};
use crate::sys::{self, Stop, Tried, at, reached, sc};
use crate::target::Targets;

const MARK: &str = "aion-escape-executed";
const CODE: u8 = 77;
const MFD_EXEC: u32 = 0x10;
/// What stops programs in memory.
const MEMORY: &str = "namespaces (vm.memfd_noexec of the pid namespace), or seccomp";

/// What a copy of this program does when an attempt executes it.
pub(super) fn helper(args: &[String]) -> Option<ExitCode> {
    args.iter().any(|a| a == MARK).then(|| ExitCode::from(CODE))
}

pub(super) fn all() -> Vec<Attempt> {
    let make = |id: &'static str, what: &'static str, layer, run: fn(&Targets) -> Tried| {
        Attempt::new(format!("exec-{id}"), what, layer, run).place(Place::NoSubprocess)
    };
    vec![
        make("system", "a program of the system", "landlock", |_| {
            let status = Command::new("/usr/bin/true").status().map_err(at("execute /usr/bin/true"))?;
            if status.success() { reached("/usr/bin/true") } else { Err(Stop::because(status.to_string())) }
        }),
        make("shell", "a shell", "landlock", |_| {
            let status =
                Command::new("/bin/sh").args(["-c", "exit 77"]).status().map_err(at("execute /bin/sh"))?;
            if status.code() == Some(77) {
                reached("/bin/sh")
            } else {
                Err(Stop::because(status.to_string()))
            }
        }),
        make("workspace", "a program that it wrote to its workspace", "landlock", |t| {
            let path = t.in_workspace("copy");
            copy_self(&path)?;
            ran(Command::new(&path).arg(MARK), "a program in the workspace")
        }),
        make("tmp", "a program that it wrote to /tmp", "rootfs (noexec), landlock", |_| {
            let path = format!("/tmp/aion-escape-copy-{}", sys::getpid());
            copy_self(&path)?;
            let got = ran(Command::new(&path).arg(MARK), "a program in /tmp");
            let _ = fs::remove_file(&path);
            got
        }),
        make("script", "a script whose interpreter is allowed nowhere else", "landlock", |t| {
            let path = t.in_workspace("script");
            fs::write(&path, "#!/bin/sh\nexit 77\n").map_err(at("write"))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(at("chmod"))?;
            ran(&mut Command::new(&path), "a script")
        }),
        make("memfd", "a program in memory, that no path rule sees", MEMORY, |_| from_memory(0)),
        make("memfd-executable", "the same, asked to be executable", MEMORY, |_| from_memory(MFD_EXEC))
            // Before Linux 6.3 every one is.
            .absent(&[libc::EINVAL]),
        make("descriptor", "execveat(2) of an open file", "landlock", |_| {
            let file = sys::open("/usr/bin/true", libc::O_RDONLY)?;
            execveat(file.as_raw_fd())
        }),
    ]
}

fn from_memory(flags: u32) -> Tried {
    let file = sys::fd(sc!("memfd_create(2)", libc::SYS_memfd_create, c"x".as_ptr(), flags)?);
    let program = fs::read("/proc/self/exe").map_err(at("read /proc/self/exe"))?;
    std::io::Write::write_all(&mut fs::File::from(file.try_clone().map_err(at("dup"))?), &program)
        .map_err(at("write"))?;
    execveat(file.as_raw_fd())
}

fn copy_self(path: &str) -> Result<(), Stop> {
    let _ = fs::remove_file(path);
    fs::copy("/proc/self/exe", path).map_err(at(format!("copy to {path}")))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(at("chmod"))
}

fn ran(command: &mut Command, what: &str) -> Tried {
    let status = command.status().map_err(at(format!("execute {what}")))?;
    if status.code() == Some(i32::from(CODE)) {
        reached(what)
    } else {
        Err(Stop::because(status.to_string()))
    }
}

/// Executes an open file in a child, and tells by its exit whether it was executed.
fn execveat(file: i32) -> Tried {
    let (empty, mark) = (c"", sys::text(MARK));
    let argv = [mark.as_ptr(), mark.as_ptr(), std::ptr::null()];
    let pid = sys::fork(|| {
        let stop = sc!(
            "execveat(2)",
            libc::SYS_execveat,
            file,
            empty.as_ptr(),
            argv.as_ptr(),
            0,
            libc::AT_EMPTY_PATH
        );
        sys::exit(stop.err().map_or(0, |s| 100 + s.errno));
    })?;
    match sys::wait(pid, std::time::Duration::from_secs(5)).map(|s| libc::WEXITSTATUS(s)) {
        Some(code) if code > 100 => Err(Stop::at("execveat(2)", code - 100)),
        Some(code) if code == i32::from(CODE) || code == 0 => reached("an open file was executed"),
        other => Err(Stop::because(format!("it ended with {other:?}"))),
    }
}
