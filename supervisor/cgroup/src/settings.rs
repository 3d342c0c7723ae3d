//! Writes limits through cgroups-rs, which knows the two versions' file names and formats; what it does not
//! know (oom.group, weights without BFQ) is written directly.

use std::path::PathBuf;

use cgroups_rs::fs::blkio::BlkIoController;
use cgroups_rs::fs::cpu::CpuController;
use cgroups_rs::fs::memory::MemController;
use cgroups_rs::fs::pid::PidController;
use cgroups_rs::fs::{Cgroup, Hierarchy as CgroupsRs, MaxValue, Subsystem};

use crate::{AgentGroup, BlockDevice, Controller, Error, Result, files};

/// The period of the CPU quota, the kernel's default.
const PERIOD_US: u64 = 100_000;
/// The shortest quota that the kernel takes.
const MIN_QUOTA_US: u64 = 1_000;

/// Done, or why the host cannot.
type Done = Result<Option<String>>;

/// Where one group's controllers are.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Folder of the group, and whether it is v2's.
    dirs: Vec<(Controller, PathBuf, bool)>,
}

impl Settings {
    pub(crate) fn of(group: &AgentGroup) -> Self {
        let dirs = Controller::ALL
            .into_iter()
            .filter_map(|c| group.controller_dir(c).map(|(dir, v2)| (c, dir, v2)))
            .collect();
        Self { dirs }
    }

    fn dir(&self, controller: Controller) -> Option<(&PathBuf, bool)> {
        self.dirs.iter().find(|(c, ..)| *c == controller).map(|(_, dir, v2)| (dir, *v2))
    }

    fn load(&self) -> Cgroup {
        Cgroup::load(Box::new(self.clone()), "")
    }

    pub(crate) fn memory(&self, bytes: Option<u64>) -> Done {
        let Some((dir, v2)) = self.dir(Controller::Memory) else { return absent(Controller::Memory) };
        let cgroup = self.load();
        let Some(memory) = cgroup.controller_of::<MemController>() else { return absent(Controller::Memory) };
        let limit = bytes.map_or(-1, |b| i64::try_from(b).unwrap_or(i64::MAX));
        let failed = |e| failed(Controller::Memory, "memory", e);
        if v2 {
            memory.set_limit(limit).map_err(failed)?;
            // Without swap in the kernel there is no file, and nothing to forbid.
            if dir.join("memory.swap.max").exists() {
                memory.set_memswap_limit(if bytes.is_some() { 0 } else { -1 }).map_err(failed)?;
            }
            files::write(&dir.join("memory.oom.group"), "1")?;
            return Ok(None);
        }
        // In v1 the sum of memory and swap must never be below memory: lowering goes one way, raising the other.
        let has_swap = dir.join("memory.memsw.limit_in_bytes").exists();
        if memory.set_limit(limit).is_err() {
            if has_swap {
                memory.set_memswap_limit(limit).map_err(failed)?;
            }
            memory.set_limit(limit).map_err(failed)?;
        }
        if has_swap {
            memory.set_memswap_limit(limit).map_err(failed)?;
        } else {
            memory.set_swappiness(0).map_err(failed)?;
        }
        Ok(None)
    }

    pub(crate) fn pids(&self, max: Option<u32>) -> Done {
        let cgroup = self.load();
        let Some(pids) = cgroup.controller_of::<PidController>() else { return absent(Controller::Pids) };
        let value = max.map_or(MaxValue::Max, |m| MaxValue::Value(i64::from(m)));
        pids.set_pid_max(value).map_err(|e| failed(Controller::Pids, "pids", e))?;
        Ok(None)
    }

    pub(crate) fn cpu_quota(&self, millis: Option<u32>) -> Done {
        let Some((dir, v2)) = self.dir(Controller::Cpu) else { return absent(Controller::Cpu) };
        let file = if v2 { "cpu.max" } else { "cpu.cfs_quota_us" };
        if !dir.join(file).exists() {
            return Ok(Some(format!("no {file}: the kernel was built without CFS_BANDWIDTH")));
        }
        let cgroup = self.load();
        let Some(cpu) = cgroup.controller_of::<CpuController>() else { return absent(Controller::Cpu) };
        let quota = millis.map_or(-1, |m| {
            let us = (u64::from(m) * PERIOD_US / 1000).max(MIN_QUOTA_US);
            i64::try_from(us).unwrap_or(-1)
        });
        cpu.set_cfs_quota(quota).map_err(|e| failed(Controller::Cpu, "cpu", e))?;
        Ok(None)
    }

    pub(crate) fn cpu_weight(&self, weight: Option<u32>) -> Done {
        let Some((_, v2)) = self.dir(Controller::Cpu) else { return absent(Controller::Cpu) };
        let cgroup = self.load();
        let Some(cpu) = cgroup.controller_of::<CpuController>() else { return absent(Controller::Cpu) };
        let weight = weight.unwrap_or(100);
        let value = if v2 { u64::from(weight) } else { shares(weight) };
        cpu.set_shares(value).map_err(|e| failed(Controller::Cpu, "cpu_weight", e))?;
        Ok(None)
    }

    pub(crate) fn io_weight(&self, weight: Option<u32>) -> Done {
        let Some((dir, v2)) = self.dir(Controller::Io) else { return absent(Controller::Io) };
        let weight = weight.unwrap_or(100);
        // BFQ's scale ends at 1000, CFQ's at 1000 too, with 10 as the least.
        let names: &[(&str, String)] = if v2 {
            &[("io.weight", format!("default {weight}")), ("io.bfq.weight", weight.min(1000).to_string())]
        } else {
            &[
                ("blkio.bfq.weight", weight.min(1000).to_string()),
                ("blkio.weight", weight.clamp(10, 1000).to_string()),
            ]
        };
        for (name, value) in names {
            match files::write(&dir.join(name), value) {
                Err(e) if e.is_not_found() => {}
                done => return done.map(|()| None),
            }
        }
        Ok(Some("no I/O scheduler with weights (BFQ or io.cost)".to_owned()))
    }

    pub(crate) fn io_bps(&self, devices: &[BlockDevice], bps: Option<u64>, write: bool) -> Done {
        let Some((dir, v2)) = self.dir(Controller::Io) else { return absent(Controller::Io) };
        let limit = if write { "io_write_bps" } else { "io_read_bps" };
        if devices.is_empty() && bps.is_some() {
            return Ok(Some("the agent's files are not on a block device".to_owned()));
        }
        let cgroup = self.load();
        let Some(io) = cgroup.controller_of::<BlkIoController>() else { return absent(Controller::Io) };
        let file = match (v2, write) {
            (true, _) => "io.max",
            (false, true) => "blkio.throttle.write_bps_device",
            (false, false) => "blkio.throttle.read_bps_device",
        };
        if !dir.join(file).exists() {
            return Ok(Some(format!("no {file}: the kernel was built without BLK_DEV_THROTTLING")));
        }
        for device in devices {
            let done = match (bps, v2, write) {
                (Some(bps), _, true) => io.throttle_write_bps_for_device(device.major, device.minor, bps),
                (Some(bps), _, false) => io.throttle_read_bps_for_device(device.major, device.minor, bps),
                (None, false, true) => io.throttle_write_bps_for_device(device.major, device.minor, 0),
                (None, false, false) => io.throttle_read_bps_for_device(device.major, device.minor, 0),
                (None, true, _) => {
                    let key = if write { "wbps" } else { "rbps" };
                    files::write(&dir.join(file), &format!("{}:{} {key}=max", device.major, device.minor))?;
                    Ok(())
                }
            };
            done.map_err(|e| failed(Controller::Io, limit, e))?;
        }
        Ok(None)
    }
}

impl CgroupsRs for Settings {
    fn subsystems(&self) -> Vec<Subsystem> {
        let none = PathBuf::new;
        self.dirs
            .iter()
            .map(|(controller, dir, v2)| match controller {
                Controller::Cpu => Subsystem::Cpu(CpuController::new(dir.clone(), none(), *v2)),
                Controller::Memory => Subsystem::Mem(MemController::new(dir.clone(), none(), *v2)),
                Controller::Pids => Subsystem::Pid(PidController::new(dir.clone(), none(), *v2)),
                Controller::Io => Subsystem::BlkIo(BlkIoController::new(dir.clone(), none(), *v2)),
            })
            .collect()
    }

    fn root(&self) -> PathBuf {
        PathBuf::new()
    }

    fn root_control_group(&self) -> Cgroup {
        self.load()
    }

    fn parent_control_group(&self, _path: &str) -> Cgroup {
        self.load()
    }

    fn v2(&self) -> bool {
        false
    }
}

fn absent(controller: Controller) -> Done {
    Ok(Some(format!("neither v2's {} nor v1's {}", controller.v2_name(), controller.v1_name())))
}

fn failed(controller: Controller, limit: &'static str, source: cgroups_rs::fs::error::Error) -> Error {
    Error::Limit { controller, limit, source: Box::new(source) }
}

/// v2's weights (100 is usual) as v1's shares (1024 is usual).
fn shares(weight: u32) -> u64 {
    (u64::from(weight) * 1024 / 100).clamp(2, 262_144)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_weights_are_usual_shares() {
        assert_eq!(shares(100), 1024);
        assert_eq!(shares(1), 10);
        assert_eq!(shares(10_000), 102_400);
    }
}
