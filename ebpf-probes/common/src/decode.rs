//! From bytes to [`Event`]. Pure, total: any bytes give an event or an error.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::device;
use crate::event::{
    Comm, Credentials, DeniedDevice, DeniedHook, Event, Exec, Exit, FileOpen, Fork, Kind, LimitKind, Net,
    NetLimit, NetOp, Oom, Origin, PrivChange, PrivSource, Syscall, Verdict,
};
use crate::layout::{self, head_flag, kind, limit};

/// Why bytes are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// Shorter than its kind, or than the lengths it names.
    Short {
        /// Bytes that are needed.
        need: usize,
        /// Bytes that are there.
        have: usize,
    },
    /// Longer than a record of its kind.
    Trailing {
        /// Bytes too many.
        extra: usize,
    },
    /// No such kind.
    UnknownKind {
        /// The number.
        kind: u16,
    },
    /// A field holds a value that has no meaning.
    BadField {
        /// Which.
        field: &'static str,
        /// The value.
        value: u64,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short { need, have } => write!(f, "record of {have} bytes, {need} are needed"),
            Self::Trailing { extra } => write!(f, "{extra} bytes after the record"),
            Self::UnknownKind { kind } => write!(f, "unknown kind of record {kind}"),
            Self::BadField { field, value } => write!(f, "field {field} cannot be {value}"),
        }
    }
}

impl core::error::Error for DecodeError {}

/// A reader that cannot run past the end.
struct Cursor<'a> {
    rest: &'a [u8],
    read: usize,
}

macro_rules! int {
    ($name:ident, $type:ty) => {
        fn $name(&mut self) -> Result<$type, DecodeError> {
            self.array().map(<$type>::from_ne_bytes)
        }
    };
}

impl<'a> Cursor<'a> {
    fn bytes(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let have = self.read.saturating_add(self.rest.len());
        let need = self.read.saturating_add(len);
        let (head, rest) = self.rest.split_at_checked(len).ok_or(DecodeError::Short { need, have })?;
        self.rest = rest;
        self.read = need;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut out = [0; N];
        out.copy_from_slice(self.bytes(N)?);
        Ok(out)
    }

    int!(u8, u8);
    int!(u16, u16);
    int!(u32, u32);
    int!(u64, u64);
    int!(i64, i64);

    fn comm(&mut self) -> Result<Comm, DecodeError> {
        self.array().map(Comm)
    }

    fn cred(&mut self) -> Result<Credentials, DecodeError> {
        Ok(Credentials {
            uid: self.u32()?,
            euid: self.u32()?,
            gid: self.u32()?,
            egid: self.u32()?,
            cap_effective: self.u64()?,
        })
    }

    fn syscall(&mut self) -> Result<Syscall, DecodeError> {
        let nr = self.u32()?;
        self.u32()?;
        let ret = self.i64()?;
        let args = [self.u64()?, self.u64()?, self.u64()?, self.u64()?];
        Ok(Syscall { nr, ret, args })
    }
}

/// Reads one record of the ring buffer.
///
/// # Errors
/// [`DecodeError`] for bytes that no program writes; the reader counts and skips them.
pub fn decode(bytes: &[u8]) -> Result<Event<'_>, DecodeError> {
    let c = &mut Cursor { rest: bytes, read: 0 };
    let number = c.u16()?;
    let flags = c.u16()?;
    let (pid, tid, ppid) = (c.u32()?, c.u32()?, c.u32()?);
    let (cgroup_id, time_ns) = (c.u64()?, c.u64()?);
    let has = |bit: u16| flags & bit != 0;
    let verdict = if has(head_flag::DENIED) { Verdict::Denied } else { Verdict::Allowed };
    let kind = match number {
        kind::FORK => Kind::Fork(Fork {
            child: c.u32()?,
            child_ns_pid: c.u32()?,
            child_start_ns: c.u64()?,
            comm: c.comm()?,
        }),
        kind::EXEC => exec(c, flags)?,
        kind::EXIT => {
            let (status, uid, start_ns, comm) = (c.u32()?, c.u32()?, c.u64()?, c.comm()?);
            let [low, high, ..] = status.to_le_bytes();
            Kind::Exit(Exit {
                code: high,
                signal: low & 0x7f,
                core: low & 0x80 != 0,
                oom: has(head_flag::OOM_VICTIM),
                uid,
                start_ns,
                comm,
            })
        }
        kind::NET => net(c, verdict)?,
        kind::OOM => {
            let victim = c.u32()?;
            c.u32()?;
            Kind::Oom(Oom { victim })
        }
        kind::PRIV => {
            let (source, nr) = (c.u32()?, c.u32()?);
            let source = match source {
                1 => PrivSource::Exec,
                2 => PrivSource::Syscall(nr),
                3 => PrivSource::SetUid,
                4 => PrivSource::CapSet,
                other => return Err(DecodeError::BadField { field: "source", value: other.into() }),
            };
            Kind::PrivChange(PrivChange { source, old: c.cred()?, new: c.cred()?, comm: c.comm()? })
        }
        kind::FILE => {
            let (inode, dev, open_flags, len, raw) = (c.u64()?, c.u32()?, c.u32()?, c.u32()?, c.u32()?);
            let path = text(c, u64::from(len), layout::PATH_MAX, "path_len")?;
            // The LSM program reserves room for the longest path.
            let unused = c.rest.len().min(layout::PATH_MAX - path.len());
            c.bytes(unused)?;
            Kind::OpenWrite(FileOpen {
                path: path.split(|&b| b == 0).next().unwrap_or(&[]),
                raw: raw != 0,
                truncated: has(head_flag::TRUNCATED),
                inode,
                dev,
                flags: open_flags,
            })
        }
        kind::SYSCALL => Kind::Syscall(c.syscall()?),
        kind::SYS_DENIED => Kind::SyscallDenied(c.syscall()?),
        kind::LSM_DENIED => {
            let (hook, errno, detail, comm) = (c.u32()?, c.u32()?, c.u64()?, c.comm()?);
            let hook =
                layout::hook_name(hook).ok_or(DecodeError::BadField { field: "hook", value: hook.into() })?;
            Kind::LsmDenied(DeniedHook { hook, errno, detail, comm })
        }
        kind::DEVICE_DENIED => {
            let (major, minor, what, access, comm) = (c.u32()?, c.u32()?, c.u32()?, c.u32()?, c.comm()?);
            let block = match what {
                device::kind::BLOCK => true,
                device::kind::CHAR => false,
                other => return Err(DecodeError::BadField { field: "kind", value: other.into() }),
            };
            let does = |bit: u32| access & bit != 0;
            let (read, write) = (does(device::access::READ), does(device::access::WRITE));
            let mknod = does(device::access::MKNOD);
            Kind::DeviceDenied(DeniedDevice { major, minor, block, read, write, mknod, comm })
        }
        kind => return Err(DecodeError::UnknownKind { kind }),
    };
    // A record may be padded to 8 bytes, no more.
    if c.rest.len() >= 8 {
        return Err(DecodeError::Trailing { extra: c.rest.len() });
    }
    Ok(Event { cgroup_id, time_ns, pid, tid, ppid, kind })
}

fn text<'a>(c: &mut Cursor<'a>, len: u64, max: usize, field: &'static str) -> Result<&'a [u8], DecodeError> {
    match usize::try_from(len) {
        Ok(len) if len <= max => c.bytes(len),
        _ => Err(DecodeError::BadField { field, value: len }),
    }
}

fn exec<'a>(c: &mut Cursor<'a>, flags: u16) -> Result<Kind<'a>, DecodeError> {
    let (cred, start_ns, ns_pid) = (c.cred()?, c.u64()?, c.u32()?);
    let (filename_len, argv_len, comm) = (c.u16()?, c.u16()?, c.comm()?);
    let filename = text(c, filename_len.into(), layout::PATH_MAX, "filename_len")?;
    let argv = text(c, argv_len.into(), layout::ARGV_MAX, "argv_len")?;
    Ok(Kind::Exec(Exec {
        filename: filename.split(|&b| b == 0).next().unwrap_or(&[]),
        argv,
        truncated: flags & head_flag::TRUNCATED != 0,
        unreadable: flags & head_flag::UNREADABLE != 0,
        secure: flags & head_flag::SECURE_EXEC != 0,
        origin: Origin::from_flags(flags),
        cred,
        start_ns,
        ns_pid,
        comm,
    }))
}

fn net<'a>(c: &mut Cursor<'a>, verdict: Verdict) -> Result<Kind<'a>, DecodeError> {
    let (op, family, port, protocol) = (c.u8()?, c.u8()?, c.u16()?, c.u16()?);
    let (limit, destination) = (c.u8()?, c.u8()?);
    let (addr, comm) = (c.array::<16>()?, c.comm()?);
    let met = match limit {
        limit::NONE => None,
        limit::PER_SECOND => Some(LimitKind::PerSecond),
        limit::PER_MINUTE => Some(LimitKind::PerMinute),
        limit::BYTES_OUT => Some(LimitKind::BytesOut),
        limit::BYTES_IN => Some(LimitKind::BytesIn),
        other => return Err(DecodeError::BadField { field: "limit", value: other.into() }),
    };
    let limit = met.map(|kind| NetLimit { kind, destination: destination.checked_sub(1) });
    let op = match op {
        1 => NetOp::Connect,
        2 => NetOp::Bind,
        3 => NetOp::Send,
        other => return Err(DecodeError::BadField { field: "op", value: other.into() }),
    };
    let ip = match family {
        4 => {
            let [a, b, c, d, ..] = addr;
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
        6 => IpAddr::V6(Ipv6Addr::from(addr)),
        other => return Err(DecodeError::BadField { field: "family", value: other.into() }),
    };
    let addr = SocketAddr::new(ip, port);
    Ok(Kind::Net(Net { op, addr, protocol: protocol.into(), verdict, limit, comm }))
}
