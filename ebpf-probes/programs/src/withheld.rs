//! Files and programs that were taken from a running agent: the next open, execution, name or removal is refused in the call.
//!
//! What is withheld is known by device and inode (map `WITHHELD`); whoever has no flag `FILES` pays the look-up of its agent alone.
//! From the file at hand upwards each folder is compared, up to the root of the mount that it is reached by. Neither names, links
//! nor renames lead around that: nothing is renamed or linked out of what is withheld, or into it.

use aion_probe_types::layout::{flag, hook};
use aion_probe_types::withheld::{MAX_DEPTH, Withheld, WithheldKey};
use aya_ebpf::{macros::lsm, programs::LsmContext};

use crate::agent::{self, Found};
use crate::lsm::refuse;
use crate::maps::WITHHELD;
use crate::shim::{self, Binprm, Dentry, File, Path};

/// As Landlock answers.
const EACCES: i32 = 13;
const FMODE_READ: u32 = 1;
const FMODE_WRITE: u32 = 2;
const O_TRUNC: u32 = 0o1000;

/// What is to be done.
#[derive(Clone, Copy)]
struct Use {
    read: bool,
    write: bool,
    exec: bool,
}

const CHANGES: Use = Use { read: false, write: true, exec: false };
const EXECUTES: Use = Use { read: false, write: false, exec: true };

impl Use {
    /// The number of the rule that withholds it, 0 for none.
    #[inline(always)]
    fn of(self, withheld: &Withheld) -> u16 {
        if self.read && withheld.read != 0 {
            withheld.read
        } else if self.write && withheld.write != 0 {
            withheld.write
        } else if self.exec {
            withheld.exec
        } else {
            0
        }
    }
}

#[inline(always)]
fn look(key: WithheldKey, wanted: Use) -> u16 {
    // SAFETY: entries are only replaced whole by user space; a value is eight bytes, read at once each.
    unsafe { WITHHELD.get(key) }.map_or(0, |withheld| wanted.of(withheld))
}

/// The rule that withholds what `dentry` is, or a folder above it up to `root`. None: nothing does. 0: it lies too deep to be sure.
#[inline(always)]
fn rule(who: &Found, dentry: *const Dentry, root: *const Dentry, wanted: Use) -> Option<u16> {
    let mut at = dentry;
    for _ in 0..MAX_DEPTH {
        // SAFETY: the shim reads with a helper that answers 0 where there is nothing to read.
        let (inode, dev) = unsafe { (shim::shim_dentry_ino(at), shim::shim_dentry_dev(at)) };
        let found = look(WithheldKey { cgroup: who.cgroup, inode, dev, zero: 0 }, wanted);
        if found != 0 {
            return Some(found);
        }
        if at == root {
            return None;
        }
        // SAFETY: as above.
        let parent = unsafe { shim::shim_dentry_parent(at) };
        // The file system's own root, and what was never in it (pipes, memory).
        if parent == at || parent.is_null() {
            return None;
        }
        at = parent;
    }
    Some(0)
}

/// Refuses what a rule withholds.
#[inline(always)]
fn judge(
    ctx: &LsmContext,
    who: &Found,
    dentry: *const Dentry,
    mount: *const Path,
    wanted: Use,
    hook: u32,
) -> i32 {
    // SAFETY: a path of the hook, or in a file of it; read as above.
    let root = unsafe { shim::shim_path_root(mount) };
    match rule(who, dentry, root, wanted) {
        Some(number) => refuse(ctx, who, hook, EACCES, u64::from(number)),
        None => 0,
    }
}

/// An agent from which something is withheld.
#[inline(always)]
fn held() -> Option<Found> {
    agent::current().filter(|who| who.has(flag::FILES))
}

/// An open, for `lsm_file_open`, which has found the agent.
#[inline(always)]
pub fn opens(ctx: &LsmContext, who: &Found, file: *const File) -> i32 {
    if !who.has(flag::FILES) {
        return 0;
    }
    // SAFETY: a trusted pointer of the hook; the verifier checks each read.
    let (uses, flags, at) =
        unsafe { (shim::shim_file_uses(file), shim::shim_file_flags(file), shim::shim_file_at(file)) };
    // An open for reading can empty the file, and since Linux 6.2 `path_truncate` is not asked for it.
    let write = uses & FMODE_WRITE != 0 || flags & O_TRUNC != 0;
    let wanted = Use { read: uses & FMODE_READ != 0, write, exec: false };
    // SAFETY: as above.
    let dentry = unsafe { shim::shim_path_dentry(at) };
    judge(ctx, who, dentry, at, wanted, hook::FILE_OPEN)
}

/// An execution, for `lsm_bprm_check_security`. It is asked for a script and for its interpreter.
#[inline(always)]
pub fn executes(ctx: &LsmContext, who: &Found, bprm: *const Binprm) -> i32 {
    if !who.has(flag::FILES) {
        return 0;
    }
    let all = look(WithheldKey { cgroup: who.cgroup, inode: 0, dev: 0, zero: 0 }, EXECUTES);
    if all != 0 {
        return refuse(ctx, who, hook::BPRM_CHECK_SECURITY, EACCES, u64::from(all));
    }
    // SAFETY: a trusted pointer of the hook; what it leads to is read with a helper.
    let (at, dentry) = unsafe {
        let at = shim::shim_file_at(shim::shim_bprm_file(bprm));
        (at, shim::shim_path_dentry(at))
    };
    judge(ctx, who, dentry, at, EXECUTES, hook::BPRM_CHECK_SECURITY)
}

macro_rules! in_folder {
    ($($name:ident, $at:literal, $hook:ident;)*) => {
        $(
            #[lsm(hook = $at)]
            pub fn $name(ctx: LsmContext) -> i32 {
                let Some(who) = held() else { return 0 };
                judge(&ctx, &who, ctx.arg(1), ctx.arg(0), CHANGES, hook::$hook)
            }
        )*
    };
}

in_folder! {
    lsm_path_unlink, "path_unlink", PATH_UNLINK;
    lsm_path_rmdir, "path_rmdir", PATH_RMDIR;
    lsm_path_mkdir, "path_mkdir", PATH_MKDIR;
    lsm_path_mknod, "path_mknod", PATH_MKNOD;
    lsm_path_symlink, "path_symlink", PATH_SYMLINK;
}

macro_rules! of_path {
    ($($name:ident, $at:literal, $hook:ident;)*) => {
        $(
            #[lsm(hook = $at)]
            pub fn $name(ctx: LsmContext) -> i32 {
                let Some(who) = held() else { return 0 };
                let path: *const Path = ctx.arg(0);
                // SAFETY: a trusted pointer of the hook, read with a helper.
                let dentry = unsafe { shim::shim_path_dentry(path) };
                judge(&ctx, &who, dentry, path, CHANGES, hook::$hook)
            }
        )*
    };
}

of_path! {
    lsm_path_truncate, "path_truncate", PATH_TRUNCATE;
    lsm_path_chmod, "path_chmod", PATH_CHMOD;
    lsm_path_chown, "path_chown", PATH_CHOWN;
}

/// A second name: both are on one mount, or the kernel refuses it.
#[lsm(hook = "path_link")]
pub fn lsm_path_link(ctx: LsmContext) -> i32 {
    let Some(who) = held() else { return 0 };
    let (old, folder, new): (*const Dentry, *const Path, *const Dentry) =
        (ctx.arg(0), ctx.arg(1), ctx.arg(2));
    match judge(&ctx, &who, old, folder, CHANGES, hook::PATH_LINK) {
        0 => judge(&ctx, &who, new, folder, CHANGES, hook::PATH_LINK),
        refused => refused,
    }
}

/// Another name: the same.
#[lsm(hook = "path_rename")]
pub fn lsm_path_rename(ctx: LsmContext) -> i32 {
    let Some(who) = held() else { return 0 };
    let (from, old): (*const Path, *const Dentry) = (ctx.arg(0), ctx.arg(1));
    let (to, new): (*const Path, *const Dentry) = (ctx.arg(2), ctx.arg(3));
    match judge(&ctx, &who, old, from, CHANGES, hook::PATH_RENAME) {
        0 => judge(&ctx, &who, new, to, CHANGES, hook::PATH_RENAME),
        refused => refused,
    }
}
