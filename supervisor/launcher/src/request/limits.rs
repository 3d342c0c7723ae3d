//! Limits of an agent. 0 is no limit, on the wire and here `None`.

use aion_launcher_proto::v1;

use crate::Failure;
use crate::request::field::Checked;

const MIB: u64 = 1 << 20;
/// Far more than any host has; what is larger is a mistake.
const MAX_BYTES: u64 = 1 << 50;
/// A sandbox cannot even begin with less.
const MIN_MEMORY: u64 = 8 * MIB;
/// The smallest volume that holds a file system.
const MIN_DISK: u64 = 16 * MIB;
/// init beside the agent's first process.
const MIN_PIDS: u32 = 2;
/// Ten years.
const MAX_WALL_MS: u64 = 10 * 366 * 24 * 3_600_000;

/// What an agent may use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "named as in the protocol")]
pub struct Limits {
    pub cpu_millis: Option<u32>,
    pub mem_bytes: Option<u64>,
    pub pids: Option<u32>,
    pub disk_bytes: Option<u64>,
    pub file_size_bytes: Option<u64>,
    pub open_files: Option<u32>,
    pub wall_ms: Option<u64>,
    pub cpu_weight: Option<u32>,
    pub io_weight: Option<u32>,
    pub io_read_bps: Option<u64>,
    pub io_write_bps: Option<u64>,
}

impl Limits {
    pub(crate) fn check(limits: &v1::Limits) -> Checked<Self> {
        let l = limits;
        Ok(Self {
            cpu_millis: within("limits.cpu_millis", l.cpu_millis, 1, 1_024_000)?,
            mem_bytes: within("limits.mem_bytes", l.mem_bytes, MIN_MEMORY, MAX_BYTES)?,
            pids: within("limits.pids", l.pids, MIN_PIDS, 4_194_304)?,
            disk_bytes: within("limits.disk_bytes", l.disk_bytes, MIN_DISK, MAX_BYTES)?,
            file_size_bytes: within("limits.file_size_bytes", l.file_size_bytes, 1, MAX_BYTES)?,
            open_files: within("limits.open_files", l.open_files, 16, 1 << 20)?,
            wall_ms: within("limits.wall_ms", l.wall_ms, 1, MAX_WALL_MS)?,
            cpu_weight: within("limits.cpu_weight", l.cpu_weight, 1, 10_000)?,
            io_weight: within("limits.io_weight", l.io_weight, 1, 10_000)?,
            io_read_bps: within("limits.io_read_bps", l.io_read_bps, 4096, MAX_BYTES)?,
            io_write_bps: within("limits.io_write_bps", l.io_write_bps, 4096, MAX_BYTES)?,
        })
    }
}

fn within<T>(field: &str, value: T, min: T, max: T) -> Checked<Option<T>>
where
    T: Copy + PartialOrd + Default + std::fmt::Display,
{
    if value == T::default() {
        return Ok(None);
    }
    if value < min || value > max {
        return Err(Failure::field(field, format!("{value} is not within {min} and {max} (0 is no limit)")));
    }
    Ok(Some(value))
}
