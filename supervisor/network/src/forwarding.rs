//! The host forwards agents' packets, and no others that it did not forward before.
//!
//! A link's own switch is enough for IPv4. For IPv6 the link's switch is `force_forwarding` (Linux 6.17): `forwarding` would
//! make the host a router, that takes no default route from its neighbours any more.

use std::fs;
use std::io;
use std::path::Path;

use crate::Error;
use crate::link::{Family, Route};
use crate::record::Record;

const SYS: &str = "/proc/sys";

/// Which links lead out, by name, and which of them forward for agents alone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Ways {
    pub(crate) guarded_v4: Vec<String>,
    pub(crate) guarded_v6: Vec<String>,
    /// Links that must be made to forward, or were.
    pub(crate) raise_v4: Vec<String>,
    pub(crate) raise_v6: Vec<String>,
    /// Why agents have no IPv6, if they have none.
    pub(crate) no_v6: Option<String>,
}

fn switch(family: Family, link: &str) -> String {
    match family {
        Family::V4 => format!("net/ipv4/conf/{link}/forwarding"),
        Family::V6 => format!("net/ipv6/conf/{link}/force_forwarding"),
    }
}

fn get(file: &str) -> io::Result<String> {
    Ok(fs::read_to_string(Path::new(SYS).join(file))?.trim().to_owned())
}

pub(crate) fn set(file: &str, value: &str) -> Result<(), Error> {
    let path = Path::new(SYS).join(file);
    fs::write(&path, value).map_err(Error::io(format!("write {value} to {}", path.display())))
}

/// Sets what an agent's own link needs.
pub(crate) fn for_link(link: &str, v6: bool) -> Result<(), Error> {
    set(&switch(Family::V4, link), "1")?;
    // No packets under another agent's address.
    set(&format!("net/ipv4/conf/{link}/rp_filter"), "1")?;
    if v6 {
        set(&format!("net/ipv6/conf/{link}/accept_ra"), "0")?;
        if get("net/ipv6/conf/all/forwarding").ok().as_deref() != Some("1") {
            set(&switch(Family::V6, link), "1")?;
        }
    }
    Ok(())
}

/// The links that default routes go out of.
pub(crate) fn uplinks(routes: &[Route], links: &[(u32, String)]) -> Vec<String> {
    let default = routes.iter().filter(|route| route.bits == 0);
    let mut names: Vec<String> = default
        .filter_map(|route| links.iter().find(|(index, _)| *index == route.link))
        .map(|(_, name)| name.clone())
        .collect();
    names.sort();
    names.dedup();
    names
}

/// What the links forward, and what they must be made to; nothing is changed yet.
pub(crate) fn plan(v4: &[String], v6: &[String], record: &Record) -> Ways {
    let is_on = |file: &str| get(file).ok().as_deref() == Some("1");
    // Those that are off, or are on because we switched them.
    let ours = |family: Family, links: &[String]| -> Vec<String> {
        let file = |link: &String| switch(family, link);
        links.iter().filter(|l| record.raised.contains(&file(l)) || !is_on(&file(l))).cloned().collect()
    };
    let mut ways = Ways { raise_v4: ours(Family::V4, v4), ..Ways::default() };
    if !is_on("net/ipv4/ip_forward") {
        ways.guarded_v4.clone_from(&ways.raise_v4);
    }
    let exists = |link: &String| Path::new(SYS).join(switch(Family::V6, link)).exists();
    if v6.is_empty() {
        ways.no_v6 = Some("the host has no default route of IPv6".to_owned());
    } else if is_on("net/ipv6/conf/all/forwarding") {
        // The host is a router already.
    } else if v6.iter().all(exists) {
        ways.raise_v6 = ours(Family::V6, v6);
        ways.guarded_v6.clone_from(&ways.raise_v6);
    } else {
        ways.no_v6 = Some(
            "the host does not forward IPv6, and its kernel cannot for one link (force_forwarding, Linux 6.17); set net.ipv6.conf.all.forwarding"
                .to_owned(),
        );
    }
    ways
}

/// Has the links forward, with a note beforehand of each that did not.
pub(crate) fn open(ways: &Ways, record: &mut Record, path: &Path) -> Result<(), Error> {
    let v4 = ways.raise_v4.iter().map(|link| switch(Family::V4, link));
    let v6 = ways.raise_v6.iter().map(|link| switch(Family::V6, link));
    for file in v4.chain(v6) {
        let now = get(&file).map_err(Error::io(format!("read {SYS}/{file}")))?;
        if now != "0" {
            continue;
        }
        if record.raised.insert(file.clone()) {
            record.write(path)?;
        }
        set(&file, "1")?;
        tracing::info!(file, "the host forwards for agents");
    }
    Ok(())
}

/// Puts back what was switched.
pub(crate) fn close(record: &mut Record, path: &Path) -> Result<(), Error> {
    for file in std::mem::take(&mut record.raised) {
        // Links come and go.
        if Path::new(SYS).join(&file).exists() {
            set(&file, "0")?;
        }
    }
    record.write(path)
}
