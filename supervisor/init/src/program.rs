//! Finds the program to execute, as a shell would, in the root that init has entered.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use aion_sandbox::Plan;
use rustix::io::Errno;

use crate::elf::{Needs, needs};
use crate::failure::Failure;

const DEFAULT_PATH: &[u8] = b"/usr/local/bin:/usr/bin:/bin";
/// Scripts that are interpreters of scripts; the kernel allows four.
const MAX_CHAIN: usize = 5;

/// The path to execute: `name` itself when it has a slash, else the first in `PATH`.
pub(crate) fn find(plan: &Plan) -> Result<CString, Failure> {
    let name = plan.argv.first().map(Vec::as_slice).unwrap_or_default();
    let text =
        |bytes: &[u8]| CString::new(bytes).map_err(|_| Failure::Exec { errno: Errno::INVAL.raw_os_error() });
    if name.contains(&b'/') {
        return text(name);
    }
    in_path(name, &plan.env)
        .map_err(|e| Failure::Exec { errno: e.raw_os_error() })
        .and_then(|p| text(p.as_os_str().as_bytes()))
}

fn in_path(name: &[u8], env: &[Vec<u8>]) -> Result<PathBuf, Errno> {
    let path = env.iter().find_map(|e| e.strip_prefix(b"PATH=")).unwrap_or(DEFAULT_PATH);
    let mut refused = Errno::NOENT;
    // A folder that is not absolute would depend on where the agent stands: it does not count.
    for folder in path.split(|&b| b == b':').filter(|f| f.first() == Some(&b'/')) {
        let candidate = Path::new(OsStr::from_bytes(folder)).join(OsStr::from_bytes(name));
        match std::fs::metadata(&candidate) {
            Ok(meta) if meta.is_file() && meta.permissions().mode() & 0o111 != 0 => return Ok(candidate),
            Ok(_) => refused = Errno::ACCESS,
            Err(_) => {}
        }
    }
    Err(refused)
}

/// The program and all that the kernel executes with it: interpreters of scripts, loaders of ELF files.
pub(crate) fn chain(program: &CString, plan: &Plan) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    let start = Path::new(OsStr::from_bytes(program.as_bytes()));
    let cwd = Path::new(OsStr::from_bytes(&plan.cwd));
    let mut todo = vec![cwd.join(start)];
    while let Some(path) = todo.pop() {
        if found.len() >= 2 * MAX_CHAIN || found.contains(&path) {
            continue;
        }
        match needs(&path) {
            Some(Needs::Loader(loader)) => todo.push(loader),
            Some(Needs::Script(interpreter, argument)) => {
                // `#!/usr/bin/env NAME` executes NAME as well: that is what such a line is for.
                if interpreter.file_name() == Some(OsStr::new("env")) {
                    let name = argument.as_deref().unwrap_or_default().split(|&b| b == b' ').next();
                    todo.extend(name.and_then(|n| in_path(n, &plan.env).ok()));
                }
                todo.push(cwd.join(interpreter));
            }
            Some(Needs::Nothing) | None => {}
        }
        found.push(path);
    }
    found
}
