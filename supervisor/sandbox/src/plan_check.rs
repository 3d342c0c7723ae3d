//! Which plans are possible at all. The launcher has validated what it was asked; this is what would make
//! init do something other than what the plan says, and it is checked on both sides of the socket.

use crate::Error;
use crate::plan::{MAX_CHECKPOINT, Plan, RootfsKind};

const MAX_ARGS: usize = 4096;
/// Arguments and environment together; the kernel's limit is 2 MiB with the default stack.
const MAX_ARG_BYTES: usize = 1 << 20;
const MAX_PATH: usize = 4096;
/// The kernel takes 4096 instructions of 8 bytes.
const MAX_FILTER: usize = 4096 * 8;
const MAX_BINDS: usize = 64;
const MAX_SECRETS: usize = 256;
const MAX_SECRET_BYTES: usize = 1 << 20;
/// What is set up by init itself: nothing from outside may go over it.
const RESERVED: &[&[u8]] = &[b"/proc", b"/dev", b"/sys", b"/run", b"/tmp"];
/// The system, where only files and folders that exist can be covered.
const OWN_ROOT: &[&[u8]] = &[b"/", b"/usr", b"/etc", b"/bin", b"/sbin", b"/lib", b"/lib64", b"/workspace"];

/// Checks a plan.
///
/// # Errors
/// [`Error::InvalidPlan`] with the field and what is wrong.
pub(crate) fn check(plan: &Plan) -> Result<(), Error> {
    let wrong =
        |field: &'static str, reason: &str| Err(Error::InvalidPlan { field, reason: reason.to_owned() });
    if plan.argv.is_empty() || plan.argv[0].is_empty() {
        return wrong("argv", "there is no command");
    }
    let strings = || plan.argv.iter().chain(&plan.env);
    if strings().count() > MAX_ARGS || strings().map(Vec::len).sum::<usize>() > MAX_ARG_BYTES {
        return wrong("argv", "arguments and environment are too long");
    }
    if strings().any(|s| s.contains(&0)) {
        return wrong("argv", "a zero byte in an argument or variable");
    }
    if plan.env.iter().any(|e| e.first() == Some(&b'=') || !e.contains(&b'=')) {
        return wrong("env", "a variable is written NAME=value");
    }
    if !is_plain(&plan.cwd) {
        return wrong("cwd", "it must be an absolute path without . and ..");
    }
    let host = plan.hostname.as_bytes();
    let letter = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.');
    if host.is_empty() || host.len() > 64 || !host.iter().all(letter) {
        return wrong("hostname", "1 to 64 letters, digits, '-' and '.'");
    }
    if plan.uid >= 65_536 || plan.gid >= 65_536 {
        return wrong("uid", "it is outside of the sandbox's range");
    }
    check_binds(plan)?;
    check_secrets(plan)?;
    let allowed = plan.landlock.as_ref().map_or(&[][..], |l| &l.exec_allow);
    if allowed.len() > MAX_ARGS || !allowed.iter().all(|p| is_plain(p)) {
        return wrong("exec_allow", "absolute paths without . and ..");
    }
    let program = plan.seccomp.as_ref().map(|s| s.program.len());
    if program.is_some_and(|len| len == 0 || len % 8 != 0 || len > MAX_FILTER) {
        return wrong("seccomp", "the program has a length that no program has");
    }
    if (plan.landlock.is_some() || plan.seccomp.is_some()) && !plan.no_new_privs && plan.drop_capabilities {
        return wrong("no_new_privs", "the kernel takes no filter without it");
    }
    if plan.oom_score_adj < 0 || plan.oom_score_adj > 1000 {
        return wrong("oom_score_adj", "0 to 1000");
    }
    if plan.job.is_some_and(|j| j.checkpoint_max == 0 || j.checkpoint_max > MAX_CHECKPOINT) {
        return wrong("job", "the limit of a checkpoint is 1 byte to 1 GiB");
    }
    if plan.scratch_bytes == 0 {
        return wrong("scratch_bytes", "0 would mean no limit at all");
    }
    Ok(())
}

fn check_binds(plan: &Plan) -> Result<(), Error> {
    let wrong = |reason: &str| Err(Error::InvalidPlan { field: "binds", reason: reason.to_owned() });
    if plan.binds.len() > MAX_BINDS {
        return wrong("too many");
    }
    for (i, bind) in plan.binds.iter().enumerate() {
        let path = bind.path.as_slice();
        if !is_plain(path) {
            return wrong("a path must be absolute, without . and ..");
        }
        if RESERVED.iter().any(|r| is_at_or_below(path, r)) {
            return wrong("a path lies where the sandbox's own folders are");
        }
        if plan.rootfs == RootfsKind::HostSystem && OWN_ROOT.contains(&path) || path == b"/" {
            return wrong("a path would cover the system");
        }
        if plan.binds[..i].iter().any(|other| other.path == path) {
            return wrong("a path is named twice");
        }
    }
    Ok(())
}

fn check_secrets(plan: &Plan) -> Result<(), Error> {
    let wrong = |reason: &str| Err(Error::InvalidPlan { field: "secrets", reason: reason.to_owned() });
    if plan.secrets.len() > MAX_SECRETS
        || plan.secrets.iter().map(|s| s.value.len()).sum::<usize>() > MAX_SECRET_BYTES
    {
        return wrong("too many or too long");
    }
    for (i, secret) in plan.secrets.iter().enumerate() {
        let name = secret.name.as_bytes();
        let good = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > 128 || name[0] == b'.' || !name.iter().all(good) {
            return wrong(
                "a name has 1 to 128 letters, digits, '-', '_' and '.', and does not begin with '.'",
            );
        }
        if plan.secrets[..i].iter().any(|other| other.name == secret.name) {
            return wrong("a name is given twice");
        }
    }
    Ok(())
}

/// Absolute, and the same however it is resolved.
fn is_plain(path: &[u8]) -> bool {
    if path.first() != Some(&b'/') || path.len() > MAX_PATH || path.contains(&0) {
        return false;
    }
    path == b"/" || path[1..].split(|&b| b == b'/').all(|part| !matches!(part, b"" | b"." | b".."))
}

fn is_at_or_below(path: &[u8], folder: &[u8]) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

impl Plan {
    /// Checks that the plan is possible; init does it again.
    ///
    /// # Errors
    /// [`Error::InvalidPlan`] with the field and what is wrong.
    pub fn check(&self) -> Result<(), Error> {
        check(self)
    }
}
