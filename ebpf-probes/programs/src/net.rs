//! The network: verdicts on connect, bind and send, and bytes.
//!
//! Attached at the cgroup above all agents. There, a cgroup that is not in the map is no bystander but an agent that
//! is not entered (yet, or any more): its calls are refused.

use aion_probe_types::layout::{Flow, NetRecord, flag, head_flag, kind};
use aya_ebpf::{
    bindings::bpf_sock_addr,
    helpers::generated::bpf_skb_cgroup_id,
    macros::{cgroup_skb, cgroup_sock_addr},
    programs::{SkBuffContext, SockAddrContext},
};

use crate::agent::{self, Found, count};
use crate::egress::{self, When};
use crate::emit::{self, Hold, Urgency};
use crate::limits::{self, Refused};

const CONNECT: u8 = 1;
const BIND: u8 = 2;
const SEND: u8 = 3;
const ALLOW: i32 = 1;
const DENY: i32 = 0;
/// Nothing goes in or out, whatever the policy.
const REFUSED: u32 = flag::NET_DENY | flag::ISOLATED;
/// The loopback device's index in every network namespace.
const LOOPBACK: u32 = 1;

#[inline(always)]
fn word(field: *const u32) -> u32 {
    // SAFETY: a field of the context; volatile keeps it one load of the size that the verifier accepts.
    unsafe { core::ptr::read_volatile(field) }
}

#[inline(always)]
fn verdict(ctx: &SockAddrContext, op: u8, family: u8) -> i32 {
    let Some(who) = agent::current() else { return DENY };
    let from: *mut bpf_sock_addr = ctx.sock_addr;
    let mut addr = [0u32; 4];
    // SAFETY: projections into the context, read by `word`.
    let (port, protocol) = unsafe {
        if family == 4 {
            addr[0] = word(&raw const (*from).user_ip4);
        } else {
            addr[0] = word(&raw const (*from).user_ip6[0]);
            addr[1] = word(&raw const (*from).user_ip6[1]);
            addr[2] = word(&raw const (*from).user_ip6[2]);
            addr[3] = word(&raw const (*from).user_ip6[3]);
        }
        (word(&raw const (*from).user_port), word(&raw const (*from).protocol))
    };
    let beyond = who.has(flag::NET_EGRESS);
    let counted = if beyond {
        permitted_beyond(&who, op, family, &addr, port as u16, protocol)
    } else {
        permitted(&who, op, family, &addr).then_some(0)
    };
    let mut allowed = counted.is_some();
    if !who.records() {
        return if allowed { ALLOW } else { DENY };
    }
    let mut refused = Refused::NOT;
    // A loopback of its own is no way out.
    if let Some(counted) = counted
        && who.has(flag::LIMITED)
        && op != BIND
        && !(beyond && local(op, family, &addr))
    {
        refused = if op == SEND {
            let flow = Flow { cgroup: who.cgroup, addr: mapped(family, &addr), port: u64::from(port) };
            limits::connection(&who, counted, Some(&flow))
        } else {
            limits::connection(&who, counted, None)
        };
        allowed = refused.limit == Refused::NOT.limit;
    }
    let now = emit::now();
    let (flags, urgency) =
        if allowed { (0, Urgency::Timed) } else { (head_flag::DENIED, Urgency::Violation) };
    let comm = emit::comm(ctx);
    let told = emit::emit::<NetRecord>(&who, now, Hold::Refuse, urgency, |to| {
        // SAFETY: `to` is a reserved record.
        unsafe {
            (*to).head = emit::head(&who, now, kind::NET, flags, 0);
            (*to).op = op;
            (*to).family = family;
            (*to).port = u16::from_be(port as u16);
            (*to).protocol = protocol as u16;
            (*to).limit = refused.limit;
            (*to).destination = refused.destination;
            (*to).addr = core::mem::transmute::<[u32; 4], [u8; 16]>(addr);
            (*to).comm = comm;
        }
    });
    crate::trace_log!(ctx, "net op {} in cgroup {}: {}", op, who.cgroup, u32::from(allowed));
    // What cannot be recorded does not happen.
    allowed &= told || !who.strict();
    if allowed {
        ALLOW
    } else {
        count!(who, denied);
        DENY
    }
}

#[inline(always)]
fn permitted(who: &Found, op: u8, family: u8, addr: &[u32; 4]) -> bool {
    if who.has(REFUSED) {
        return false;
    }
    if !who.has(flag::NET_LOOPBACK) {
        return true;
    }
    local(op, family, addr)
}

/// With a list of hosts: its own loopback, and what the list has; and for which of its destinations that counts. `port` is in network
/// order.
#[inline(always)]
fn permitted_beyond(
    who: &Found,
    op: u8,
    family: u8,
    addr: &[u32; 4],
    port: u16,
    protocol: u32,
) -> Option<u32> {
    const TCP: u32 = 6;
    const UDP: u32 = 17;
    if who.has(REFUSED) || (protocol != TCP && protocol != UDP) {
        return None;
    }
    if local(op, family, addr) {
        return Some(0);
    }
    if op == BIND {
        return None;
    }
    egress::reaches(who, mapped(family, addr), port.to_ne_bytes(), When::Begins)
}

/// The bytes of an address; IPv4 in its mapped form.
#[inline(always)]
fn mapped(family: u8, addr: &[u32; 4]) -> [u8; 16] {
    let words = if family == 4 { [0, 0, 0xffff_u32.to_be(), addr[0]] } else { *addr };
    // SAFETY: plain bytes of the same size.
    unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>(words) }
}

/// The loopback, and to bind all addresses.
#[inline(always)]
fn local(op: u8, family: u8, addr: &[u32; 4]) -> bool {
    let first = u32::from_be(addr[0]);
    if family == 4 {
        return first >> 24 == 127 || (op == BIND && first == 0);
    }
    let zero = first | u32::from_be(addr[1]);
    let (third, last) = (u32::from_be(addr[2]), u32::from_be(addr[3]));
    // ::1, :: (to bind), and 127.0.0.0/8 and 0.0.0.0 mapped into v6.
    zero == 0
        && ((third == 0 && (last == 1 || (op == BIND && last == 0)))
            || (third == 0xffff && (last >> 24 == 127 || (op == BIND && last == 0))))
}

macro_rules! sock_addr {
    ($($attach:ident, $op:expr, $family:literal;)*) => {
        $(
            #[cgroup_sock_addr($attach)]
            pub fn $attach(ctx: SockAddrContext) -> i32 {
                verdict(&ctx, $op, $family)
            }
        )*
    };
}
sock_addr! {
    connect4, CONNECT, 4;
    connect6, CONNECT, 6;
    bind4, BIND, 4;
    bind6, BIND, 6;
    sendmsg4, SEND, 4;
    sendmsg6, SEND, 6;
}

/// Counts a packet; drops what the policy excludes whichever way the socket came to be connected.
#[inline(always)]
fn packet(ctx: &SkBuffContext, received: bool) -> i32 {
    let skb = ctx.skb.skb;
    // SAFETY: the context's own pointer. The socket's cgroup counts: packets come in interrupts.
    let Some(who) = agent::by_cgroup(unsafe { bpf_skb_cgroup_id(skb) }) else { return ALLOW };
    // SAFETY: fields of the context.
    let (len, device) = unsafe { (word(&raw const (*skb).len), word(&raw const (*skb).ifindex)) };
    if who.has(REFUSED) || (who.has(flag::NET_LOOPBACK) && device != LOOPBACK) {
        return DENY;
    }
    let beyond = who.has(flag::NET_EGRESS);
    let mut counted = 0;
    if beyond && device != LOOPBACK {
        let Some(destinations) = egress::passes(&who, ctx, received) else {
            if who.records() {
                count!(who, denied);
            }
            return DENY;
        };
        counted = destinations;
    }
    if who.records() {
        let is_limited = who.has(flag::LIMITED) && !(beyond && device == LOOPBACK);
        if is_limited && !limits::packet(&who, counted, u64::from(len), received) {
            count!(who, denied);
            return DENY;
        }
        if received {
            count!(who, rx_bytes, u64::from(len));
            count!(who, rx_packets);
        } else {
            count!(who, tx_bytes, u64::from(len));
            count!(who, tx_packets);
        }
    }
    ALLOW
}

/// Packets to an agent's sockets.
#[cgroup_skb(ingress)]
pub fn ingress(ctx: SkBuffContext) -> i32 {
    packet(&ctx, true)
}

/// Packets from an agent's sockets.
#[cgroup_skb(egress)]
pub fn egress(ctx: SkBuffContext) -> i32 {
    packet(&ctx, false)
}
