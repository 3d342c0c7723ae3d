//! Rules that look at arguments, as BPF in front of libseccomp's program.
//!
//! libseccomp compares 64 bits, while the kernel takes many arguments as 32-bit `int`: `ioctl(fd, 1<<32 | TIOCSTI)` would slip past
//! a rule for `TIOCSTI`. It has no "otherwise", either, and leaves the order of overlapping rules open. So the few calls
//! that need it are decided here, in the order of the file; what no rule decides falls through to the tree. A call without such rules
//! still reads only its number, so that the kernel's table of always-allowed calls keeps working for it.

use crate::bpf::Program;
use crate::profile::{Action, Condition, Profile};

/// Offsets in `struct seccomp_data`.
const NR: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;

const RET_ALLOW: u32 = 0x7fff_0000;
const RET_NOTIFY: u32 = 0x7fc0_0000;
const RET_ERRNO: u32 = 0x0005_0000;

/// The program's first part; empty when no rule has conditions.
pub(crate) fn prologue(profile: &Profile, audit_arch: u32) -> Vec<u8> {
    let mut guarded: Vec<u32> = profile
        .groups
        .iter()
        .filter(|g| g.is_conditional())
        .flat_map(|g| g.syscalls.iter().map(|s| s.nr))
        .collect();
    guarded.sort_unstable();
    guarded.dedup();
    let mut p = Program::default();
    if guarded.is_empty() {
        return p.finish();
    }
    let fall_through = p.label();
    p.load(ARCH);
    p.jump_unless_equal(audit_arch, fall_through);
    p.load(NR);
    let blocks: Vec<_> = guarded.iter().map(|&nr| (nr, p.label())).collect();
    for &(nr, block) in &blocks {
        p.jump_if_equal(nr, block);
    }
    p.jump(fall_through);
    for (nr, block) in blocks {
        p.place(block);
        for group in profile.groups.iter().filter(|g| g.is_conditional()) {
            if group.syscalls.iter().any(|s| s.nr == nr) {
                let next = p.label();
                for condition in &group.when {
                    test(&mut p, condition, next);
                }
                p.ret(return_value(group.action));
                p.place(next);
            }
        }
        p.jump(fall_through);
    }
    p.finish()
}

/// Goes on when the condition holds, else to `otherwise`.
fn test(p: &mut Program, c: &Condition, otherwise: crate::bpf::Label) {
    let holds = p.label();
    let (hit, miss) = if c.negated { (otherwise, holds) } else { (holds, otherwise) };
    let low = |v: u64| (v & 0xffff_ffff) as u32;
    let high = |v: u64| (v >> 32) as u32;
    // The architectures here are little endian: the low word comes first.
    let offset = ARGS + 8 * u32::from(c.arg);
    if c.wide {
        for &value in &c.values {
            let next = p.label();
            p.load(offset + 4);
            p.and(high(c.mask));
            p.jump_unless_equal(high(value), next);
            p.load(offset);
            p.and(low(c.mask));
            p.jump_if_equal(low(value), hit);
            p.place(next);
        }
    } else {
        p.load(offset);
        if low(c.mask) != u32::MAX {
            p.and(low(c.mask));
        }
        for &value in &c.values {
            p.jump_if_equal(low(value), hit);
        }
    }
    p.jump(miss);
    p.place(holds);
}

/// The filter's return value.
fn return_value(action: Action) -> u32 {
    match action {
        Action::Allow => RET_ALLOW,
        Action::Notify(_) => RET_NOTIFY,
        Action::Errno(e) => RET_ERRNO | u32::try_from(e & 0xffff).unwrap_or(1),
    }
}
