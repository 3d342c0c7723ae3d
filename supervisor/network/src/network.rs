//! All agents' networks of one launcher.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use crate::Error;
use crate::forwarding::{self, Ways};
use crate::inside::{self, LINK};
use crate::link::{self, Family, Route};
use crate::netlink::Netlink;
use crate::nft;
use crate::pool::{Pool, V6};
use crate::record::Record;
use crate::rules::{Layout, chains};

/// How a network is made.
#[derive(Debug, Clone)]
pub struct Options {
    /// The launcher's state folder, as 16 hexadecimal digits: two launchers on one host do not collide.
    pub instance: String,
    /// Where agents' IPv4 addresses come from; else a block that no route of the host leads to.
    pub pool: Option<String>,
    /// The links that lead out; else those of the default routes.
    pub uplinks: Vec<String>,
    /// The file that remembers what was changed on the host.
    pub record: PathBuf,
}

/// An agent's network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// The link on the host.
    pub link: String,
    /// Its number among this launcher's.
    pub number: u32,
    /// The agent's address.
    pub v4: Ipv4Addr,
    /// The agent's address in IPv6, if the host can forward it.
    pub v6: Option<Ipv6Addr>,
    /// Why it has no IPv6, if it has none.
    pub no_v6: Option<String>,
}

/// The networks of a launcher's agents.
#[derive(Debug)]
pub struct Network {
    options: Options,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    taken: BTreeSet<u32>,
    next: u32,
    /// What the host's table was made from.
    table: Option<Layout>,
}

fn table_name(instance: &str) -> String {
    format!("aion-{instance}")
}

/// A link's name has 15 characters: `aion-`, four digits of the instance, `-`, and the number.
fn link_prefix(instance: &str) -> String {
    format!("aion-{}-", instance.get(..4).unwrap_or("0000"))
}

fn failed(what: &'static str) -> impl FnOnce(Errno) -> Error {
    Error::kernel(what)
}

impl Network {
    /// Of one launcher. Nothing is made yet.
    ///
    /// # Errors
    /// An option that cannot be.
    pub fn new(options: Options) -> Result<Self, Error> {
        if let Some(pool) = &options.pool {
            Pool::parse(pool).map_err(|reason| Error::new("use the pool of addresses", reason))?;
        }
        Ok(Self { options, state: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes an agent's network that an earlier launcher made.
    pub fn adopt(&self, number: u32) {
        self.lock().taken.insert(number);
    }

    /// Makes the network of a process in an empty network namespace.
    ///
    /// # Errors
    /// A step that failed; what it had made is gone.
    pub fn attach(&self, pid: u32, pidfd: BorrowedFd<'_>) -> Result<Attached, Error> {
        let mut netlink = Netlink::route().map_err(failed("open a netlink socket"))?;
        let state = &mut *self.lock();
        let (pool, ways) = self.prepare(&mut netlink, state)?;
        for _ in 0..pool.size() {
            let number = state.next % pool.size();
            state.next = (number + 1) % pool.size();
            if state.taken.contains(&number) {
                continue;
            }
            let attached = Attached {
                link: format!("{}{number:x}", link_prefix(&self.options.instance)),
                number,
                v4: pool.v4(number),
                v6: ways.no_v6.is_none().then(|| Pool::v6(number)),
                no_v6: ways.no_v6.clone(),
            };
            match make(&mut netlink, &attached, pid, pidfd) {
                Ok(true) => {
                    state.taken.insert(number);
                    return Ok(attached);
                }
                // Another launcher's agent has these addresses.
                Ok(false) => {}
                Err(error) => {
                    let _ = link::remove(&mut netlink, &attached.link);
                    return Err(error);
                }
            }
        }
        Err(Error::new("find an address for the agent", format!("all of {pool} are taken")))
    }

    /// Forwarding and the host's table, as they must be now.
    fn prepare(&self, netlink: &mut Netlink, state: &mut State) -> Result<(Pool, Ways), Error> {
        let routes = |netlink: &mut Netlink, family| -> Result<Vec<Route>, Error> {
            match link::routes(netlink, family) {
                Err(Errno::OPNOTSUPP | Errno::AFNOSUPPORT) => Ok(Vec::new()),
                routes => routes.map_err(failed("list the host's routes")),
            }
        };
        let links = link::links(netlink).map_err(failed("list the host's links"))?;
        let (v4, v6) = (routes(netlink, Family::V4)?, routes(netlink, Family::V6)?);
        let path = &self.options.record;
        let mut record = Record::read(path)?;
        let pool = match (&self.options.pool, record.pool) {
            (Some(pool), _) => {
                Pool::parse(pool).map_err(|reason| Error::new("use the pool of addresses", reason))?
            }
            // Agents that run have addresses of it.
            (None, Some(pool)) if !state.taken.is_empty() => pool,
            (None, _) => {
                let agents: Vec<u32> =
                    links.iter().filter(|(_, name)| name.starts_with("aion-")).map(|(i, _)| *i).collect();
                let others: Vec<Route> =
                    v4.iter().filter(|route| !agents.contains(&route.link)).copied().collect();
                Pool::choose(&others).ok_or_else(|| {
                    Error::new(
                        "choose addresses for agents",
                        "the host has routes to all usual blocks; give one with --egress-pool",
                    )
                })?
            }
        };
        if record.pool != Some(pool) {
            record.pool = Some(pool);
            record.write(path)?;
        }
        let named = |found: Vec<String>| {
            if self.options.uplinks.is_empty() { found } else { self.options.uplinks.clone() }
        };
        let out_v4 = named(forwarding::uplinks(&v4, &links));
        let mut out_v6 = forwarding::uplinks(&v6, &links);
        if !out_v6.is_empty() {
            out_v6 = named(out_v6);
        }
        let ways = forwarding::plan(&out_v4, &out_v6, &record);
        let layout = Layout {
            links: link_prefix(&self.options.instance),
            v4: pool.block(),
            v6: V6,
            guarded_v4: ways.guarded_v4.clone(),
            guarded_v6: ways.guarded_v6.clone(),
        };
        // The table is there before anything is forwarded.
        if state.table.as_ref() != Some(&layout) {
            self.replace_table(&layout)?;
            state.table = Some(layout);
        }
        forwarding::open(&ways, &mut record, path)?;
        Ok((pool, ways))
    }

    fn replace_table(&self, layout: &Layout) -> Result<(), Error> {
        let mut netlink = Netlink::netfilter().map_err(failed("open a netfilter socket"))?;
        nft::replace_table(&mut netlink, &table_name(&self.options.instance), &chains(layout)).map_err(
            Error::kernel(
                "make the table of nf_tables (the kernel needs nf_tables with nat, masq, ct and reject)",
            ),
        )
    }

    /// Takes an agent's network away.
    ///
    /// # Errors
    /// The kernel keeps the link.
    pub fn detach(&self, number: u32) -> Result<(), Error> {
        let mut netlink = Netlink::route().map_err(failed("open a netlink socket"))?;
        let name = format!("{}{number:x}", link_prefix(&self.options.instance));
        link::remove(&mut netlink, &name).map_err(Error::kernel(format!("remove {name}")))?;
        self.lock().taken.remove(&number);
        Ok(())
    }

    /// Takes away what belongs to no agent that was adopted. Gives the names.
    ///
    /// # Errors
    /// The kernel keeps a link.
    pub fn remove_orphans(&self) -> Result<Vec<String>, Error> {
        let taken = self.lock().taken.clone();
        let prefix = link_prefix(&self.options.instance);
        let kept = |name: &str| {
            let number = name.strip_prefix(&prefix).and_then(|n| u32::from_str_radix(n, 16).ok());
            number.is_some_and(|number| taken.contains(&number))
        };
        remove_links(&self.options.instance, |name| !kept(name))
    }

    /// Removes everything of an instance while no launcher runs: links, table, and puts the host's switches back.
    ///
    /// # Errors
    /// Something is left.
    pub fn purge(instance: &str, record: &Path) -> Result<(), Error> {
        // What was never made needs no kernel that could.
        if !record.exists() {
            return Ok(());
        }
        remove_links(instance, |_| true)?;
        // Switched off first: the table guards what is switched on.
        forwarding::close(&mut Record::read(record)?, record)?;
        let mut netlink = Netlink::netfilter().map_err(failed("open a netfilter socket"))?;
        nft::remove_table(&mut netlink, &table_name(instance)).map_err(failed("remove the table"))?;
        std::fs::remove_file(record).map_err(Error::io(format!("remove {}", record.display())))
    }
}

fn remove_links(instance: &str, which: impl Fn(&str) -> bool) -> Result<Vec<String>, Error> {
    let mut netlink = Netlink::route().map_err(failed("open a netlink socket"))?;
    let links = link::links(&mut netlink).map_err(failed("list the host's links"))?;
    let prefix = link_prefix(instance);
    let names: Vec<String> = links
        .into_iter()
        .map(|(_, name)| name)
        .filter(|name| name.starts_with(&prefix) && which(name))
        .collect();
    for name in &names {
        link::remove(&mut netlink, name).map_err(Error::kernel(format!("remove {name}")))?;
    }
    Ok(names)
}

/// Makes one agent's network. False: its addresses are another's, and nothing is left.
fn make(netlink: &mut Netlink, attached: &Attached, pid: u32, pidfd: BorrowedFd<'_>) -> Result<bool, Error> {
    let [_, _, a, b] = attached.number.to_be_bytes();
    // Locally administered; only the two ends ever see it.
    let hardware = [0x02, 0x61, 0x69, 0x6f, a, b];
    let name = &attached.link;
    match link::add_veth(netlink, name, LINK, pid, hardware) {
        // A number that an agent of an instance with the same first digits has.
        Err(Errno::EXIST) => return Ok(false),
        made => made.map_err(failed("make a veth pair"))?,
    }
    forwarding::for_link(name, attached.v6.is_some())?;
    link::up(netlink, name).map_err(failed("bring the host's link up"))?;
    let links = link::links(netlink).map_err(failed("list the host's links"))?;
    let index = links.iter().find(|(_, n)| n == name).map(|(index, _)| *index).ok_or(Errno::NODEV);
    let index = index.map_err(failed("find the host's link"))?;
    let addresses: Vec<IpAddr> =
        [Some(attached.v4.into()), attached.v6.map(IpAddr::from)].into_iter().flatten().collect();
    for address in &addresses {
        match link::add_route(netlink, Family::of(*address), Some(*address), index) {
            Err(Errno::EXIST) => {
                link::remove(netlink, name).map_err(failed("remove the host's link"))?;
                return Ok(false);
            }
            made => made.map_err(Error::kernel(format!("make the route to {address}")))?,
        }
    }
    inside::set_up(pidfd, &addresses)?;
    Ok(true)
}
