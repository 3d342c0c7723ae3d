//! Who asks. A [`Principal`] is made here, from what the kernel says about the other end of a socket, and nowhere else.
//!
//! The door judges once, at accept; a refused peer still gets an answer (PERMISSION_DENIED on each call), because
//! a closed connection would tell a user nothing.

use std::os::fd::AsFd;
use std::sync::Arc;

use aion_types::TenantId;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

/// What a principal may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Everything, in its tenant and on the host.
    Operator,
}

/// An authenticated caller. Only [`Door::admit`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    tenant: TenantId,
    subject: String,
    uid: u32,
    pid: u32,
    roles: Vec<Role>,
}

impl Principal {
    /// Whose objects it sees.
    #[must_use]
    pub const fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// An operator at work in another tenant.
    pub(crate) fn in_tenant(mut self, tenant: TenantId) -> Self {
        self.tenant = tenant;
        self
    }

    /// Who it is, for the audit log: `unix:UID`.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The user's number.
    #[must_use]
    pub const fn uid(&self) -> u32 {
        self.uid
    }

    /// The process at the other end when it connected; 0 when it cannot be seen from here, as from within a container's process
    /// namespace.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it has a role.
    #[must_use]
    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }
}

/// A peer that is not let in, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stranger {
    /// Its user; none when the kernel would not say.
    pub uid: Option<u32>,
    /// Its process.
    pub pid: Option<u32>,
}

/// What the door decided about a connection. Travels with each of its requests.
#[derive(Debug, Clone)]
pub struct Admission(pub(crate) Arc<Result<Principal, Stranger>>);

/// Who may come in: root, members of one group, and the daemon's own user.
#[derive(Debug, Clone)]
pub struct Door {
    tenant: TenantId,
    own_uid: u32,
    group: Option<u32>,
}

impl Door {
    /// A door for the operators of `tenant`.
    #[must_use]
    pub const fn new(tenant: TenantId, own_uid: u32, group: Option<u32>) -> Self {
        Self { tenant, own_uid, group }
    }

    /// Judges the peer of a connected Unix socket.
    #[must_use]
    pub fn admit(&self, socket: &impl AsFd) -> Admission {
        // Not rustix's: its process number cannot be 0, and the kernel's is for a peer outside of our process namespace.
        let Ok(peer) = getsockopt(socket, PeerCredentials) else {
            return Admission(Arc::new(Err(Stranger { uid: None, pid: None })));
        };
        let (uid, gid) = (peer.uid(), peer.gid());
        let pid = u32::try_from(peer.pid()).unwrap_or(0);
        // Groups that cannot be read count as none.
        let groups = aion_sys::peer::groups(socket.as_fd()).unwrap_or_default();
        let judged = if self.is_operator(uid, gid, &groups) {
            Ok(Principal {
                tenant: self.tenant.clone(),
                subject: format!("unix:{uid}"),
                uid,
                pid,
                roles: vec![Role::Operator],
            })
        } else {
            Err(Stranger { uid: Some(uid), pid: Some(pid) })
        };
        Admission(Arc::new(judged))
    }

    fn is_operator(&self, uid: u32, gid: u32, groups: &[u32]) -> bool {
        uid == 0
            || uid == self.own_uid
            || self.group.is_some_and(|group| gid == group || groups.contains(&group))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_are_root_the_group_and_the_daemon() {
        let door = Door::new(TenantId::parse("default").unwrap(), 900, Some(901));
        assert!(door.is_operator(0, 0, &[]));
        assert!(door.is_operator(900, 5, &[]));
        assert!(door.is_operator(1000, 901, &[]));
        assert!(door.is_operator(1000, 1000, &[4, 901]));
        assert!(!door.is_operator(1000, 1000, &[4]));
        let no_group = Door::new(TenantId::parse("default").unwrap(), 900, None);
        assert!(!no_group.is_operator(1000, 901, &[901]));
    }

    #[test]
    fn the_peer_of_a_pair_is_us() {
        let (a, _b) = std::os::unix::net::UnixStream::pair().unwrap();
        let own = rustix::process::getuid().as_raw();
        let door = Door::new(TenantId::parse("default").unwrap(), own, None);
        let admission = door.admit(&a);
        let principal = admission.0.as_ref().as_ref().unwrap();
        assert_eq!(principal.uid(), own);
        assert_eq!(principal.pid(), std::process::id());
        assert!(principal.has(Role::Operator));
    }
}
