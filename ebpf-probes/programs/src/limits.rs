//! What agents with flag `LIMITED` may use of the network: bytes in an hour, connections in a time.
//!
//! An agent has a pot for all it does, and one for each destination that has limits of its own. Where there are several, each is looked at
//! before any is taken from, so that what one refuses is not missing in another. All of it goes by words that are changed atomically and
//! by the kernel's clock: no daemon has to be alive. Nothing is overdrawn: bytes are added first and given back when they were too many, so
//! that of two that come at once for the last room both may be refused, and never both be let through.

use aion_probe_types::hour;
use aion_probe_types::layout::{
    Flow, IDLE_UDP_NS, Limit, LimitKey, MAX_DESTINATIONS, Spent, SpentKey, limit,
};

use crate::agent::{Found, add};
use crate::emit;
use crate::maps::{FLOWS, LIMITS, SPENT};
use crate::shim;

/// With less than a packet of the usual size left no connection is worth beginning.
const USEFUL_BYTES: u64 = 1500;
/// Processors that may be at the same word at once. Who loses every time is refused.
const TRIES: u32 = 8;
const POTS: u32 = MAX_DESTINATIONS + 1;

/// What refused, as `NetRecord` has it.
#[derive(Clone, Copy)]
pub struct Refused {
    pub limit: u8,
    pub destination: u8,
}

impl Refused {
    pub const NOT: Self = Self { limit: limit::NONE, destination: 0 };
}

#[inline(always)]
fn read(word: *const u64) -> u64 {
    // SAFETY: an aligned word of a map's value, which others change at once; volatile keeps it one load.
    unsafe { core::ptr::read_volatile(word) }
}

/// The pots that count: the agent's own, and one for each bit.
#[inline(always)]
const fn pots(counted: u32) -> u32 {
    1 | counted << 1
}

#[inline(always)]
fn limit_of(who: &Found, pot: u32) -> Option<*const Limit> {
    LIMITS.get_ptr(LimitKey { cgroup: who.cgroup, destination: pot as u64 })
}

#[inline(always)]
fn spent_of(limit: *const Limit, pot: u32) -> Option<*mut Spent> {
    // SAFETY: a value of LIMITS, valid for the program's run.
    let account = unsafe { (*limit).account };
    SPENT.get_ptr_mut(SpentKey { account, destination: pot as u64 })
}

/// What the words of an hour count.
#[inline(always)]
fn used(words: *const u64, part: u64) -> u64 {
    let mut sum = 0;
    let mut at = 0;
    while at < hour::WORDS {
        // SAFETY: within the words.
        let word = read(unsafe { words.add(at) });
        // SAFETY: gives back what it is given.
        let beyond = unsafe { shim::shim_hide(hour::beyond(word, part)) };
        sum += hour::counted(word, beyond);
        at += 1;
    }
    sum
}

/// Takes bytes, if there are so many; 0 is no limit.
#[inline(always)]
fn spend(words: *mut u64, part: u64, bytes: u64, max: u64) -> bool {
    // SAFETY: within the words, of which there are a power of two.
    let word = unsafe { words.add(part as usize & (hour::WORDS - 1)) };
    let before = read(word);
    if hour::part_of(before) != part {
        // Who comes first begins the part; who comes second finds it begun.
        // SAFETY: an aligned word of a map's value.
        unsafe { shim::shim_swap(word, before, hour::begin(part)) };
    }
    add(word, bytes);
    if max != 0 && used(words.cast_const(), part) > max {
        add(word, bytes.wrapping_neg());
        return false;
    }
    true
}

/// Takes a connection, if it may come now.
#[inline(always)]
fn take(due: *mut u64, now: u64, limit: *const Limit) -> bool {
    // SAFETY: a value of LIMITS; aligned words.
    let (interval, burst) = unsafe { ((*limit).interval_ns, (*limit).burst_ns) };
    let mut tries = 0;
    while tries < TRIES {
        let before = read(due);
        let Some(next) = hour::admit(before, now, interval, burst) else { return false };
        // SAFETY: an aligned word of a map's value.
        if unsafe { shim::shim_swap(due, before, next) } == before {
            return true;
        }
        tries += 1;
    }
    false
}

/// What a pot says to one more connection; nothing is taken. Without a rate it says nothing to a datagram, whose packet has its turn.
#[inline(always)]
fn objection(limit: *const Limit, spent: *mut Spent, now: u64, datagram: bool) -> u8 {
    let part = hour::part(now);
    // SAFETY: values of the maps; aligned words.
    let (out, into, interval, burst) =
        unsafe { ((*limit).bytes_out, (*limit).bytes_in, (*limit).interval_ns, (*limit).burst_ns) };
    if datagram && interval == 0 {
        return limit::NONE;
    }
    // SAFETY: projections into the value.
    let (sent, received, due) =
        unsafe { (&raw const (*spent).sent, &raw const (*spent).received, &raw const (*spent).due_ns) };
    if out != 0 && used(sent.cast(), part) + USEFUL_BYTES > out {
        return limit::BYTES_OUT;
    }
    if into != 0 && used(received.cast(), part) + USEFUL_BYTES > into {
        return limit::BYTES_IN;
    }
    if interval != 0 && hour::admit(read(due), now, interval, burst).is_none() {
        return rate(limit);
    }
    limit::NONE
}

#[inline(always)]
fn rate(limit: *const Limit) -> u8 {
    // SAFETY: a value of LIMITS; an aligned word.
    unsafe { (*limit).rate as u8 }
}

#[inline(always)]
fn refuse(spent: *mut Spent, limit: u8, pot: u32) -> Refused {
    // SAFETY: projections into a value of SPENT.
    let (by_bytes, by_rate) = unsafe { (&raw mut (*spent).refused_bytes, &raw mut (*spent).refused_rate) };
    add(if limit == limit::BYTES_OUT || limit == limit::BYTES_IN { by_bytes } else { by_rate }, 1);
    Refused { limit, destination: pot as u8 }
}

/// Whether a connection may begin, or a datagram go to somewhere, and to whose cost. A destination that datagrams went to a moment ago
/// is no new one; datagrams that no rate counts for are no connections, and none is remembered of them.
#[inline(always)]
pub fn connection(who: &Found, counted: u32, flow: Option<&Flow>) -> Refused {
    let now = emit::now();
    if let Some(flow) = flow
        && let Some(seen) = FLOWS.get_ptr_mut(flow)
        && now.wrapping_sub(read(seen)) < IDLE_UDP_NS
    {
        // SAFETY: a value of FLOWS, valid for the program's run. Two at once write the same.
        unsafe { core::ptr::write_volatile(seen, now) };
        return Refused::NOT;
    }
    let pots = pots(counted);
    // The intervals of all pots that count. 0, which the verifier does not know: a number it knows it would follow on ways of its own.
    let mut rated = now >> 63;
    let mut pot = 0;
    while pot < POTS {
        if pots >> pot & 1 != 0
            && let Some(limit) = limit_of(who, pot)
        {
            // What cannot be counted does not happen.
            let Some(spent) = spent_of(limit, pot) else {
                return Refused { limit: limit::BYTES_OUT, destination: pot as u8 };
            };
            let why = objection(limit, spent, now, flow.is_some());
            if why != limit::NONE {
                return refuse(spent, why, pot);
            }
            // SAFETY: a value of LIMITS; an aligned word.
            rated |= unsafe { (*limit).interval_ns };
        }
        pot += 1;
    }
    // Without a rate nothing would bound how many others' places an agent pushes out.
    if flow.is_some() && rated == 0 {
        return Refused::NOT;
    }
    let mut pot = 0;
    while pot < POTS {
        if pots >> pot & 1 != 0
            && let Some(limit) = limit_of(who, pot)
            && let Some(spent) = spent_of(limit, pot)
        {
            // SAFETY: projections into the values.
            let (due, connections, interval) =
                unsafe { (&raw mut (*spent).due_ns, &raw mut (*spent).connections, (*limit).interval_ns) };
            if interval != 0 && !take(due, now, limit) {
                return refuse(spent, rate(limit), pot);
            }
            add(connections, 1);
        }
        pot += 1;
    }
    if let Some(flow) = flow {
        // One that finds no room is new again the next time.
        let _ = FLOWS.insert(flow, now, 0);
    }
    Refused::NOT
}

/// What counts for a packet in a pot: the limit, the words of the hour, the total and the packets that found no room.
#[inline(always)]
fn side(limit: *const Limit, spent: *mut Spent, received: bool) -> (u64, *mut u64, *mut u64, *mut u64) {
    // SAFETY: values of the maps; an aligned word, and projections.
    unsafe {
        if received {
            let words = (&raw mut (*spent).received).cast();
            ((*limit).bytes_in, words, &raw mut (*spent).received_total, &raw mut (*spent).dropped_in)
        } else {
            let words = (&raw mut (*spent).sent).cast();
            ((*limit).bytes_out, words, &raw mut (*spent).sent_total, &raw mut (*spent).dropped_out)
        }
    }
}

/// Whether a packet has room, and to whose cost it goes.
#[inline(always)]
pub fn packet(who: &Found, counted: u32, bytes: u64, received: bool) -> bool {
    let part = hour::part(emit::now());
    let pots = pots(counted);
    // With one pot, to look first is to look twice.
    let mut pot = if counted == 0 { POTS } else { 0 };
    while pot < POTS {
        if pots >> pot & 1 != 0
            && let Some(limit) = limit_of(who, pot)
            && let Some(spent) = spent_of(limit, pot)
        {
            let (max, words, _, dropped) = side(limit, spent, received);
            if max != 0 && used(words.cast_const(), part) + bytes > max {
                add(dropped, 1);
                return false;
            }
        }
        pot += 1;
    }
    let mut pot = 0;
    while pot < POTS {
        if pots >> pot & 1 != 0
            && let Some(limit) = limit_of(who, pot)
        {
            // What cannot be counted does not happen.
            let Some(spent) = spent_of(limit, pot) else { return false };
            let (max, words, total, dropped) = side(limit, spent, received);
            if !spend(words, part, bytes, max) {
                add(dropped, 1);
                return false;
            }
            add(total, bytes);
        }
        pot += 1;
    }
    true
}
