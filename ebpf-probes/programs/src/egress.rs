//! Whom an agent with flag `NET_EGRESS` reaches: entries by port and address, and the blocks that an entry must name.
//!
//! What is not in the table is not reached. An entry that came from a name runs out by the clock, so that it does with dead
//! daemons, too; a connection that was begun in time goes on while packets go by.

use aion_probe_types::layout::{Egress, EgressKey, IDLE_TCP_NS, IDLE_UDP_NS, flag};
use aya_ebpf::{btf_maps::lpm_trie::Key, helpers::generated::bpf_skb_load_bytes, programs::SkBuffContext};

use crate::agent::Found;
use crate::emit;
use crate::maps::EGRESS;

const TCP: u8 = 6;
const UDP: u8 = 17;
/// Written at most this often.
const USED_EVERY_NS: u64 = 1_000_000_000;
const ALL_BITS: u32 = EgressKey::HEAD_BITS + 128;

/// Whether a connection is begun, or goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum When {
    Begins,
    GoesOn { idle_ns: u64 },
}

#[inline(always)]
fn find(key: &Key<EgressKey>) -> Option<*mut Egress> {
    EGRESS.get(key).map(|entry| core::ptr::from_ref(entry).cast_mut())
}

/// Whether an entry holds now; says so in it.
#[inline(always)]
fn holds(entry: *mut Egress, when: When) -> bool {
    // SAFETY: a value of EGRESS, valid for the program's run; each field is one aligned word.
    let (expires, used) = unsafe { ((*entry).expires_ns, (*entry).used_ns) };
    // Entries that were written once and for all are never written again.
    if expires == u64::MAX {
        return true;
    }
    let now = emit::now();
    let alive = match when {
        When::Begins => now < expires,
        When::GoesOn { idle_ns } => now < expires || now < used.wrapping_add(idle_ns),
    };
    if alive && now.wrapping_sub(used) > USED_EVERY_NS {
        // SAFETY: as above. Two at once write the same.
        unsafe { (*entry).used_ns = now };
    }
    alive
}

/// Whether an entry may be used for an address: what lies in a special block must name it. An entry of one address was judged when it
/// was written, which is most of them, and saves a walk through the trie.
#[inline(always)]
fn names(entry: *mut Egress, addr: [u8; 16]) -> bool {
    // SAFETY: a value of EGRESS; one aligned word.
    let named = unsafe { (*entry).named };
    if named == Egress::JUDGED {
        return true;
    }
    let key = Key::new(ALL_BITS, EgressKey { cgroup: 0, port: [0; 2], zero: [0; 6], addr });
    // Without the table of blocks nothing is known to be public.
    let Some(block) = find(&key) else { return false };
    // SAFETY: as above.
    named >= unsafe { (*block).named }
}

/// For which of the agent's destinations an entry counts, if it holds.
#[inline(always)]
fn counted(key: &Key<EgressKey>, when: When) -> Option<u32> {
    let entry = find(key)?;
    if !names(entry, key.data.addr) || !holds(entry, when) {
        return None;
    }
    // SAFETY: a value of EGRESS; one aligned word.
    Some(unsafe { (*entry).counted })
}

/// Whether the agent reaches an address (IPv4 mapped) on a port (network order), and for which of its destinations that counts.
#[inline(always)]
pub fn reaches(who: &Found, addr: [u8; 16], port: [u8; 2], when: When) -> Option<u32> {
    let mut key = Key::new(ALL_BITS, EgressKey { cgroup: who.cgroup, port, zero: [0; 6], addr });
    // Most entries are of a port.
    let here = if port == [0; 2] { None } else { counted(&key, when) };
    // Where nothing is counted by destination, one entry is enough to know.
    if here.is_some() && !who.has(flag::DESTINATIONS) {
        return here;
    }
    key.data.port = [0; 2];
    match (counted(&key, when), here) {
        (None, None) => None,
        (any, here) => Some(any.unwrap_or(0) | here.unwrap_or(0)),
    }
}

#[inline(always)]
fn load<const N: usize>(ctx: &SkBuffContext, offset: u32) -> Option<[u8; N]> {
    let mut bytes = [0u8; N];
    // SAFETY: `bytes` has N bytes.
    let done = unsafe { bpf_skb_load_bytes(ctx.skb.skb.cast(), offset, bytes.as_mut_ptr().cast(), N as u32) };
    (done == 0).then_some(bytes)
}

/// Whether a packet of the agent's may leave, or come, and for which of its destinations it counts: TCP and UDP to and from where it may
/// reach, without options that lead elsewhere. What it reaches no more it hears no more.
#[inline(always)]
pub fn passes(who: &Found, ctx: &SkBuffContext, received: bool) -> Option<u32> {
    let [first] = load::<1>(ctx, 0)?;
    let (protocol, addr, ports) = match first >> 4 {
        4 => {
            // No options: source routes name another host than the header.
            if first != 0x45 {
                return None;
            }
            let (Some(fragment), Some([protocol])) = (load::<2>(ctx, 6), load::<1>(ctx, 9)) else {
                return None;
            };
            // Not the first fragment: only a raw socket sends it here, for the kernel cuts packets later.
            if u16::from_be_bytes(fragment) & 0x1fff != 0 {
                return None;
            }
            let to = load::<4>(ctx, if received { 12 } else { 16 })?;
            let mut addr = [0u8; 16];
            addr[10] = 0xff;
            addr[11] = 0xff;
            addr[12] = to[0];
            addr[13] = to[1];
            addr[14] = to[2];
            addr[15] = to[3];
            (protocol, addr, 20)
        }
        6 => {
            // No extension header: a routing header names another host than the address.
            let [protocol] = load::<1>(ctx, 6)?;
            let addr = load::<16>(ctx, if received { 8 } else { 24 })?;
            (protocol, addr, 40)
        }
        _ => return None,
    };
    let idle_ns = match protocol {
        TCP => IDLE_TCP_NS,
        UDP => IDLE_UDP_NS,
        _ => return None,
    };
    let port = load::<2>(ctx, if received { ports } else { ports + 2 })?;
    reaches(who, addr, port, When::GoesOn { idle_ns })
}
