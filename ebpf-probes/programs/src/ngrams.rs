//! Sequences of system calls: whether an agent's thread has just made one that none of the agent's threads made before.
//!
//! For agents with flag `GRAMS`, at the end of `sys_exit`, which has found the agent and the call already. A sequence that is known costs
//! two look-ups in arrays; one that is new is put in its place by atomic exchange, so that it is counted once whoever else makes it. What
//! finds no room is told, and not taken for new: it may have been met before.

use aion_probe_types::ngram;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;

use crate::agent::{Found, add};
use crate::maps::{GRAM_CALLS, GRAMS, WINDOWS};
use crate::shim;

/// A call has returned; `index` is its counter. `begins`: the thread's first.
#[inline(always)]
pub fn called(who: &Found, index: u32, begins: bool) -> Option<()> {
    let tid = bpf_get_current_pid_tgid() as u32;
    let owner = ngram::owner(who.cgroup, tid);
    let window = WINDOWS.get_ptr_mut(tid & (ngram::WINDOWS - 1))?;
    // SAFETY: an element of WINDOWS. Two threads that share it overwrite each other; the owner tells.
    let gram = unsafe {
        let before = if (*window).owner == owner && !begins { (*window).calls } else { 0 };
        let calls = ngram::push(before, index);
        (*window).owner = owner;
        (*window).calls = calls;
        calls
    };
    if !ngram::is_whole(gram) {
        return None;
    }
    let looked = GRAM_CALLS.get_ptr_mut(who.agent.slot)?;
    // SAFETY: a per-CPU element that only this program writes, with preemption off.
    unsafe { *looked += 1 };
    let (one, two) = ngram::buckets(gram);
    let first = bucket(who, one as u32)?;
    if has(first, gram) {
        return Some(());
    }
    // In the second bucket is only what found the first one full.
    let mut home = first;
    if is_full(first) {
        home = bucket(who, two as u32)?;
        if has(home, gram) {
            return Some(());
        }
    }
    let told = match keep(home, gram) {
        Kept::Known => return Some(()),
        Kept::New => 0,
        Kept::NoRoom => 1,
    };
    let tally = bucket(who, ngram::TALLY)?;
    // SAFETY: one of the first two words of the entry.
    add(unsafe { tally.add(told) }, 1);
    Some(())
}

/// An entry of the agent's table.
#[inline(always)]
fn bucket(who: &Found, at: u32) -> Option<*mut u64> {
    Some(GRAMS.get_value_ptr_mut(who.agent.slot, &at)?.cast())
}

#[inline(always)]
fn read(word: *const u64) -> u64 {
    // SAFETY: an aligned word of a map's value, which others change at once; volatile keeps it one load.
    unsafe { core::ptr::read_volatile(word) }
}

/// Whether a gram stands in a bucket. One branch for all of its words: a branch for each is more ways than a verifier should go.
#[inline(always)]
fn has(words: *const u64, gram: u64) -> bool {
    let mut missing = 1;
    let mut way = 0;
    while way < ngram::WAYS {
        // SAFETY: within the bucket.
        let word = read(unsafe { words.add(way) });
        // SAFETY: gives back what it is given.
        missing &= ngram::bit(unsafe { shim::shim_hide(ngram::differs(word, gram)) });
        way += 1;
    }
    missing == 0
}

/// Words fill in order.
#[inline(always)]
fn is_full(words: *const u64) -> bool {
    // SAFETY: within the bucket.
    read(unsafe { words.add(ngram::WAYS - 1) }) != 0
}

enum Kept {
    /// Another processor was faster.
    Known,
    New,
    NoRoom,
}

/// Takes the first word that is free. When others take the last ones just now there is no room, and the gram's next time finds some.
#[inline(always)]
fn keep(words: *mut u64, gram: u64) -> Kept {
    let mut way = 0;
    while way < ngram::WAYS {
        // SAFETY: an aligned word within the bucket.
        let before = unsafe { shim::shim_swap(words.add(way), 0, gram) };
        if before == 0 {
            return Kept::New;
        }
        if before == gram {
            return Kept::Known;
        }
        way += 1;
    }
    Kept::NoRoom
}
