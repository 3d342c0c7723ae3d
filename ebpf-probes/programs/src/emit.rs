//! Records into the ring buffer: admission, back-pressure, wake-ups, and the count of what was lost.
//!
//! A record is submitted without waking the reader, which drains by a timer. The reader is woken for
//! violations and when the buffer fills, at most once a millisecond: a wake-up costs six times the record.
//! The last quarter of the buffer is kept for strict agents, whose processes are stopped before it is full.

use aion_probe_types::layout::{Head, Throttled};
use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::{
        bpf_get_current_pid_tgid,
        generated::{bpf_ktime_get_ns, bpf_ringbuf_output, bpf_ringbuf_query, bpf_send_signal},
    },
};

use crate::agent::{Found, count};
use crate::maps::{EVENTS, THROTTLED};
use crate::shim;

const SIGSTOP: u32 = 19;
const WAKE_EVERY_NS: u64 = 1_000_000;

/// How a program may hold a strict agent back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Not at all (exits).
    No,
    /// Stop the current process.
    Stop,
    /// The caller refuses the action when its record cannot be written, so nothing is lost.
    Refuse,
}

/// How urgent a record is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// The timer is early enough.
    Timed,
    /// A violation: wake the reader.
    Violation,
}

#[inline(always)]
fn fill() -> u64 {
    // SAFETY: EVENTS is a ring buffer; flag 0 asks for the bytes that wait.
    unsafe { bpf_ringbuf_query(core::ptr::from_ref(&EVENTS).cast_mut().cast(), 0) }
}

/// Whether the last thirty-second of the buffer is reached.
#[inline(always)]
pub fn full(who: &Found) -> bool {
    // SAFETY: `state` points at the element of STATE.
    let size = unsafe { (*who.state).ring_bytes };
    fill() >= size - size / 32
}

/// Whether a record of this agent may go in, and with which flags; `None` counts a drop.
#[inline(always)]
fn admit(who: &Found, now: u64, hold: Hold, urgency: Urgency) -> Option<u64> {
    let used = fill();
    let state = who.state;
    // SAFETY: `state` points at the element of STATE; each field is one aligned word.
    let (wake_at, admit_below, stop_at, woken) =
        unsafe { ((*state).wake_at, (*state).admit_below, (*state).stop_at, (*state).woken_ns) };
    if used >= admit_below {
        if !who.strict() {
            count!(who, dropped);
            return None;
        }
        if used >= stop_at && hold == Hold::Stop {
            stop_current(who);
        }
    }
    let wants = urgency == Urgency::Violation || used >= wake_at;
    if wants && now.wrapping_sub(woken) >= WAKE_EVERY_NS {
        // SAFETY: as above. A race wakes twice, which is harmless.
        unsafe { (*state).woken_ns = now };
        return Some(u64::from(BPF_RB_FORCE_WAKEUP));
    }
    Some(u64::from(BPF_RB_NO_WAKEUP))
}

/// Stops the current process until the reader has made room. It returns to user mode no more, so it writes
/// at most the records of the system call that it is in.
#[inline(always)]
fn stop_current(who: &Found) {
    // SAFETY: a tracing program runs in a task; the shim reads through BTF pointers.
    let start_ns = unsafe { shim::shim_task_start(shim::shim_current()) };
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let value = Throttled { cgroup: who.cgroup, start_ns };
    // Stop only what the reader is sure to let go on again.
    if THROTTLED.insert(tgid, value, 0).is_ok() {
        // SAFETY: the helper has no precondition.
        unsafe { bpf_send_signal(SIGSTOP) };
        count!(who, throttled);
    }
}

/// Writes one record of fixed size. False when it was lost (and counted).
#[inline(always)]
pub fn emit<T: Copy + 'static>(
    who: &Found,
    now: u64,
    hold: Hold,
    urgency: Urgency,
    fill: impl FnOnce(*mut T),
) -> bool {
    let Some(flags) = admit(who, now, hold, urgency) else { return false };
    let Some(mut entry) = EVENTS.reserve_untyped::<T>(0) else {
        if hold != Hold::Refuse || !who.strict() {
            count!(who, dropped);
        }
        return false;
    };
    fill(entry.as_mut_ptr());
    entry.submit(flags);
    count!(who, events);
    true
}

/// Writes a record of variable length from a buffer. False when it was lost (and counted).
#[inline(always)]
pub fn emit_bytes(who: &Found, now: u64, hold: Hold, urgency: Urgency, data: *const u8, len: u64) -> bool {
    let Some(flags) = admit(who, now, hold, urgency) else { return false };
    let ring = core::ptr::from_ref(&EVENTS).cast_mut().cast();
    // SAFETY: the caller's buffer holds `len` bytes, which the verifier checks.
    if unsafe { bpf_ringbuf_output(ring, data.cast_mut().cast(), len, flags) } != 0 {
        count!(who, dropped);
        return false;
    }
    count!(who, events);
    true
}

/// Monotonic time.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper has no precondition.
    unsafe { bpf_ktime_get_ns() }
}

/// The head of a record about the current task.
#[inline(always)]
pub fn head(who: &Found, now: u64, kind: u16, flags: u16, ppid: u32) -> Head {
    let ids = bpf_get_current_pid_tgid();
    Head { kind, flags, tgid: (ids >> 32) as u32, tid: ids as u32, ppid, cgroup: who.cgroup, time_ns: now }
}

/// The current task's parent; only for tracing and LSM programs.
#[inline(always)]
pub fn ppid() -> u32 {
    // SAFETY: the shim reads through BTF pointers that the verifier checks.
    unsafe { shim::shim_task_ppid(shim::shim_current()) }
}

/// The current task's name.
#[inline(always)]
pub fn comm(ctx: &impl EbpfContext) -> [u8; 16] {
    ctx.command().unwrap_or_default()
}
