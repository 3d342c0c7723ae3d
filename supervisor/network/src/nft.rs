//! nf_tables: chains and rules as the kernel wants them.

use rustix::io::Errno;

use crate::netlink::{APPEND, Body, CREATE, Message, Netlink};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEWTABLE: u16 = 0;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const NEWRULE: u16 = 6;
const INET: u8 = 1;
const REGISTER: u32 = 1;
const IFNAME: usize = 16;

/// Where a chain begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hook {
    Input = 1,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

/// Which name of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    From = 6,
    To = 7,
}

/// A step of a rule.
#[derive(Debug, Clone)]
pub(crate) struct Expr {
    name: &'static str,
    data: Body,
}

fn expr(name: &'static str, data: Body) -> Expr {
    Expr { name, data }
}

fn value(bytes: &[u8]) -> Body {
    Body::default().attr(1, bytes)
}

fn compare(bytes: &[u8], equal: bool) -> Expr {
    expr("cmp", Body::default().network(1, REGISTER).network(2, u32::from(!equal)).nest(3, &value(bytes)))
}

fn meta(key: u32) -> Expr {
    expr("meta", Body::default().network(1, REGISTER).network(2, key))
}

fn mask(bytes: &[u8]) -> Expr {
    let len = u32::try_from(bytes.len()).unwrap_or(0);
    let zero = vec![0; bytes.len()];
    expr(
        "bitwise",
        Body::default()
            .network(1, REGISTER)
            .network(2, REGISTER)
            .network(3, len)
            .nest(4, &value(bytes))
            .nest(5, &value(&zero)),
    )
}

/// The link's name begins so (`is`), or does not.
pub(crate) fn link_begins(side: Side, prefix: &str, is: bool) -> Vec<Expr> {
    vec![meta(side as u32), compare(prefix.as_bytes(), is)]
}

/// The link has this name.
pub(crate) fn link_is(side: Side, name: &str) -> Vec<Expr> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(IFNAME, 0);
    vec![meta(side as u32), compare(&bytes, true)]
}

/// The packet is of IPv4 (2) or IPv6 (10).
pub(crate) fn family(number: u8) -> Vec<Expr> {
    const NFPROTO: u32 = 15;
    vec![meta(NFPROTO), compare(&[number], true)]
}

/// The source address does not lie in a block.
pub(crate) fn source_outside(first: &[u8], bits: u8) -> Vec<Expr> {
    const NETWORK_HEADER: u32 = 1;
    let (number, offset) = if first.len() == 4 { (2, 12) } else { (10, 8) };
    let len = u32::try_from(first.len()).unwrap_or(0);
    let load =
        Body::default().network(1, REGISTER).network(2, NETWORK_HEADER).network(3, offset).network(4, len);
    let mut rest = usize::from(bits);
    let ones: Vec<u8> = first
        .iter()
        .map(|_| {
            let here = rest.min(8);
            rest -= here;
            !u8::try_from(0xff_u32 >> here).unwrap_or(0)
        })
        .collect();
    let mut steps = family(number);
    steps.extend([expr("payload", load), mask(&ones), compare(first, false)]);
    steps
}

/// The packet belongs to no connection that is known.
pub(crate) fn not_established() -> Vec<Expr> {
    const STATE: u32 = 0;
    // Established and related.
    const KNOWN: u32 = 2 | 4;
    let load = expr("ct", Body::default().network(1, REGISTER).network(2, STATE));
    vec![load, mask(&KNOWN.to_ne_bytes()), compare(&0u32.to_ne_bytes(), true)]
}

/// It goes no further.
pub(crate) fn drop_it() -> Expr {
    const DROP: u32 = 0;
    let verdict = Body::default().network(1, DROP);
    expr("immediate", Body::default().network(1, 0).nest(2, &Body::default().nest(2, &verdict)))
}

/// It goes no further, and its sender hears so.
pub(crate) fn reject() -> Expr {
    const ICMPX: u32 = 2;
    const ADMIN_PROHIBITED: u8 = 3;
    expr("reject", Body::default().network(1, ICMPX).attr(2, &[ADMIN_PROHIBITED]))
}

/// It leaves under an address of the host.
pub(crate) fn masquerade() -> Expr {
    expr("masq", Body::default())
}

/// A chain with its rules.
#[derive(Debug, Clone)]
pub(crate) struct Chain {
    pub(crate) name: &'static str,
    pub(crate) hook: Hook,
    /// `filter` or `nat`.
    pub(crate) kind: &'static str,
    pub(crate) priority: i32,
    pub(crate) rules: Vec<Vec<Expr>>,
}

fn header(family: u8, resource: u16) -> Body {
    let [high, low] = resource.to_be_bytes();
    Body::new(&[family, 0, high, low])
}

fn message(kind: u16, flags: u16, body: Body) -> Message {
    Message::new(SUBSYSTEM << 8 | kind, flags, body)
}

fn batch(messages: Vec<Message>) -> Vec<Message> {
    let end = |kind| Message { acknowledged: false, ..Message::new(kind, 0, header(0, SUBSYSTEM)) };
    let mut all = vec![end(BATCH_BEGIN)];
    all.extend(messages);
    all.push(end(BATCH_END));
    all
}

fn table(name: &str) -> Body {
    header(INET, 0).text(1, name)
}

/// Puts a table in place of the one of this name, all at once.
pub(crate) fn replace_table(netlink: &mut Netlink, name: &str, chains: &[Chain]) -> Result<(), Errno> {
    // What is not there cannot be deleted, so it is made first.
    let mut messages = vec![
        message(NEWTABLE, CREATE, table(name)),
        message(DELTABLE, 0, table(name)),
        message(NEWTABLE, CREATE, table(name)),
    ];
    for chain in chains {
        let priority = chain.priority.cast_unsigned();
        let hook = Body::default().network(1, chain.hook as u32).network(2, priority);
        let body = table(name).text(3, chain.name).nest(4, &hook).text(7, chain.kind);
        messages.push(message(NEWCHAIN, CREATE, body));
        for rule in &chain.rules {
            let list = rule.iter().fold(Body::default(), |list, step| {
                list.nest(1, &Body::default().text(1, step.name).nest(2, &step.data))
            });
            let body = table(name).text(2, chain.name).nest(4, &list);
            messages.push(message(NEWRULE, CREATE | APPEND, body));
        }
    }
    netlink.batch(&batch(messages))
}

/// Removes a table. One that is not there is no error.
pub(crate) fn remove_table(netlink: &mut Netlink, name: &str) -> Result<(), Errno> {
    match netlink.batch(&batch(vec![message(DELTABLE, 0, table(name))])) {
        Err(Errno::NOENT) => Ok(()),
        done => done,
    }
}
