//! Id maps: of a slot, and of the mounts that show somebody's files as the agent's.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use aion_sys::idmap::Holder;

use crate::Error;

/// Namespaces that are kept for the next mount with the same map. Slots reuse their ranges, so do these.
const CACHED: usize = 256;

/// Who the agent is: its ids inside, and where its range begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) base: u32,
}

/// Maps `count` ids from `inside` on to `outside` for users and groups of a new user namespace.
pub(crate) fn write_maps(pid: u32, inside: u32, outside: u32, count: u32) -> Result<(), Error> {
    let line = format!("{inside} {outside} {count}\n");
    write_map(pid, "uid_map", &line)?;
    write_map(pid, "gid_map", &line)
}

fn write_map(pid: u32, file: &str, line: &str) -> Result<(), Error> {
    let path = format!("/proc/{pid}/{file}");
    File::options().write(true).open(&path).and_then(|mut f| f.write_all(line.as_bytes())).map_err(|e| {
        Error::Layer {
            layer: aion_types::LayerName::Namespaces,
            errno: e.raw_os_error().unwrap_or(0),
            message: format!("cannot write {path}"),
        }
    })
}

type Key = (u32, u32, u32, u32);

/// A user namespace that maps the ids `uid` and `gid` of a file system to the agent's.
pub(crate) fn namespace(uid: u32, gid: u32, owner: Owner) -> Result<Arc<OwnedFd>, Error> {
    static CACHE: OnceLock<Mutex<HashMap<Key, Arc<OwnedFd>>>> = OnceLock::new();
    let to = |inside: u32| {
        owner.base.checked_add(inside).ok_or_else(|| Error::InvalidPlan {
            field: "uid_base",
            reason: "the range of ids is past the last id".to_owned(),
        })
    };
    let key = (uid, gid, to(owner.uid)?, to(owner.gid)?);
    let cache = CACHE.get_or_init(Mutex::default);
    if let Some(found) = cache.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
        return Ok(Arc::clone(found));
    }
    let holder = Holder::new().map_err(Error::host("make a user namespace for a mount"))?;
    write_map(holder.pid(), "uid_map", &format!("{uid} {} 1\n", key.2))?;
    write_map(holder.pid(), "gid_map", &format!("{gid} {} 1\n", key.3))?;
    let namespace: OwnedFd = File::open(format!("/proc/{}/ns/user", holder.pid()))
        .map_err(|e| Error::Host {
            doing: "open a user namespace".to_owned(),
            errno: e.raw_os_error().unwrap_or(0),
        })?
        .into();
    let namespace = Arc::new(namespace);
    let mut cache = cache.lock().unwrap_or_else(PoisonError::into_inner);
    if cache.len() >= CACHED {
        cache.clear();
    }
    cache.insert(key, Arc::clone(&namespace));
    Ok(namespace)
}
