//! Devices: which an agent's processes may open. None is ever made.
//!
//! Attached at the cgroup above all agents, and asked at an open, at access(2) and at mknod(2) of a device alone. Who opens one of the
//! six that everybody has, or a terminal, pays no look-up. A cgroup that is not in the map is an agent that is not entered (yet, or any
//! more): it has those and no others.

use aion_probe_types::device::{DeviceKey, access, is_everybodys, kind as device_kind};
use aion_probe_types::layout::{DeviceRecord, head_flag, kind};
use aya_ebpf::{macros::cgroup_device, programs::DeviceContext};

use crate::agent::{self, count};
use crate::emit::{self, Hold, Urgency};
use crate::maps::DEVICES;

const ALLOW: i32 = 1;
const DENY: i32 = 0;

#[inline(always)]
fn word(field: *const u32) -> u32 {
    // SAFETY: a field of the context; volatile keeps it one load of the size that the verifier accepts.
    unsafe { core::ptr::read_volatile(field) }
}

/// Asked for each use of a device node.
#[cgroup_device]
pub fn device(ctx: DeviceContext) -> i32 {
    let from = ctx.device;
    // SAFETY: projections into the context, read by `word`.
    let (asked, major, minor) = unsafe {
        (word(&raw const (*from).access_type), word(&raw const (*from).major), word(&raw const (*from).minor))
    };
    // What is done in the upper half, to what in the lower.
    let (what, done) = (asked & 0xffff, asked >> 16);
    let uses = done & (access::READ | access::WRITE);
    let is_char = what == device_kind::CHAR;
    // Whether it is there may be asked of any node that is seen.
    if done == 0 || (uses == done && is_char && is_everybodys(major, minor)) {
        return ALLOW;
    }
    let Some(who) = agent::current() else { return DENY };
    if uses == done && is_char {
        // SAFETY: an entry is one word, read at once.
        let given = unsafe { DEVICES.get(DeviceKey { cgroup: who.cgroup, major, minor }) };
        let given = given.map_or(0, |bits| *bits as u32);
        if uses & !given == 0 {
            return ALLOW;
        }
    }
    if who.records() {
        count!(who, denied);
        let now = emit::now();
        let comm = emit::comm(&ctx);
        emit::emit::<DeviceRecord>(&who, now, Hold::Refuse, Urgency::Violation, |to| {
            // SAFETY: `to` is a reserved record.
            unsafe {
                (*to).head = emit::head(&who, now, kind::DEVICE_DENIED, head_flag::DENIED, 0);
                (*to).major = major;
                (*to).minor = minor;
                (*to).kind = what;
                (*to).access = done;
                (*to).comm = comm;
            }
        });
    }
    crate::trace_log!(&ctx, "device {}:{} in cgroup {}: refused", major, minor, who.cgroup);
    DENY
}
