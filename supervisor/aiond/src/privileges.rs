//! From root to aiond's user, for good.

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::{Gid, Group, Uid, User, getegid, geteuid, setgroups, setresgid, setresuid};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};

/// The user and group aiond runs as.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Account {
    uid: Uid,
    gid: Gid,
    drops: bool,
}

impl Account {
    /// Looks the names up when started as root; otherwise it is whoever started us.
    pub(crate) fn resolve(user: &str, group: &str) -> Result<Self> {
        if !geteuid().is_root() {
            return Ok(Self { uid: geteuid(), gid: getegid(), drops: false });
        }
        let hint =
            "make it with `useradd --system --user-group aion`, or name another with --user and --group";
        let user = User::from_name(user)?.with_context(|| format!("there is no user {user:?}: {hint}"))?;
        let group =
            Group::from_name(group)?.with_context(|| format!("there is no group {group:?}: {hint}"))?;
        if user.uid.is_root() {
            bail!("aiond does not run as root: name another user with --user");
        }
        Ok(Self { uid: user.uid, gid: group.gid, drops: true })
    }

    /// Whether there are privileges to drop.
    pub(crate) const fn drops(&self) -> bool {
        self.drops
    }

    /// The user's number.
    pub(crate) const fn uid(&self) -> u32 {
        self.uid.as_raw()
    }

    /// The group's number.
    pub(crate) const fn gid(&self) -> u32 {
        self.gid.as_raw()
    }

    /// Becomes that user, with no capability, no supplementary group and no way back. Does nothing when not root.
    pub(crate) fn drop_to(&self) -> Result<()> {
        nix::sys::prctl::set_no_new_privs().context("no_new_privs")?;
        if !self.drops {
            return Ok(());
        }
        empty_bounding_set()?;
        setgroups(&[]).context("setgroups")?;
        setresgid(self.gid, self.gid, self.gid).context("setresgid")?;
        // With all three user ids away from 0 the kernel empties the permitted and effective sets.
        setresuid(self.uid, self.uid, self.uid).context("setresuid")?;
        ensure!(
            setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).is_err(),
            "the way back to root is open"
        );
        let status = std::fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
        for set in ["CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            let value = status.lines().find_map(|line| line.strip_prefix(set)).map(str::trim);
            ensure!(
                value == Some("0000000000000000"),
                "capabilities are left: {set} {}",
                value.unwrap_or("?")
            );
        }
        Ok(())
    }
}

/// No program that this process might execute could gain a capability either.
fn empty_bounding_set() -> Result<()> {
    for bit in 0..u64::BITS {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit)) {
            // The kernel knows no further ones.
            Err(Errno::INVAL) => break,
            result => {
                result.with_context(|| format!("cannot drop capability {bit} from the bounding set"))?
            }
        }
    }
    Ok(())
}
