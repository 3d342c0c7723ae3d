//! Limits: what is given, else what the class says.

use aion_types::ByteSize;

use super::Checker;
use crate::capability::{Capability, Rule};
use crate::classes::DEFAULT_CLASS;
use crate::error::{did_you_mean, quote};
use crate::raw::{self, Gpu};
use crate::spec::{NetworkLimits, Resources};

const KI: u64 = 1 << 10;
const MI: u64 = 1 << 20;
const TI: u64 = 1 << 40;

impl Checker<'_> {
    pub(super) fn resources(&mut self, given: raw::Resources) -> Resources {
        let wanted = given.class.as_deref().unwrap_or(DEFAULT_CLASS);
        let classes = &self.context.classes;
        let class = match classes.get(wanted) {
            Some(class) => class,
            None => {
                let fix = match did_you_mean(wanted, classes.names()) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => format!("there are: {}", classes.names().collect::<Vec<_>>().join(", ")),
                };
                self.problem(
                    "spec.resources.class",
                    &format!("{} is not a cgroup class; {fix}", quote(wanted)),
                );
                classes.default_class()
            }
        };
        let cpu = given.cpu.unwrap_or(class.cpu);
        if cpu.0 < 10 {
            self.problem(
                "spec.resources.cpu",
                &format!("{cpu} is less than the kernel can keep to; use at least 10m"),
            );
        }
        // A volume that is smaller holds no file system, and one process is init.
        let disk = self.size("disk", given.disk, class.disk, 16 * MI, 64 * TI);
        let file_size = class.file_size.unwrap_or(disk).min(disk);
        let io = given.io.unwrap_or_default();
        Resources {
            class: class.name.clone(),
            cpu,
            cpu_weight: class.cpu_weight,
            mem: self.size("mem", given.mem, class.mem, 8 * MI, 64 * TI),
            pids: self.number32("spec.resources.pids", given.pids, class.pids, 2, 100_000),
            disk,
            file_size: self.size("file_size", given.file_size, file_size, 4 * KI, 64 * TI),
            open_files: self.number32(
                "spec.resources.open_files",
                given.open_files,
                class.open_files,
                16,
                1_048_576,
            ),
            gpu: given.gpu.unwrap_or(class.gpu),
            io_read_bps: self.rate("read_bps", io.read_bps.or(class.io_read_bps)),
            io_write_bps: self.rate("write_bps", io.write_bps.or(class.io_write_bps)),
            io_weight: self.number32("spec.resources.io.weight", io.weight, class.io_weight, 1, 10_000),
            // Checked with the network itself.
            network: NetworkLimits::default(),
        }
    }

    fn size(
        &mut self,
        name: &str,
        given: Option<ByteSize>,
        default: ByteSize,
        min: u64,
        max: u64,
    ) -> ByteSize {
        let size = given.unwrap_or(default);
        if given.is_some() && !(min..=max).contains(&size.0) {
            let field = format!("spec.resources.{name}");
            self.problem(
                &field,
                &format!("{size} is out of range; use {} to {}", ByteSize(min), ByteSize(max)),
            );
        }
        size
    }

    fn rate(&mut self, name: &str, given: Option<ByteSize>) -> Option<ByteSize> {
        let rate = given?;
        Some(self.size(&format!("io.{name}"), Some(rate), rate, 64 * KI, TI))
    }

    /// A GPU that is needed must be allowed.
    pub(super) fn gpu(&mut self, resources: &Resources, allow: &[Rule]) {
        let needed = matches!(resources.gpu, Gpu::Count(_));
        if needed && !allow.iter().any(|r| r.capability == Capability::Gpu) {
            let text = "a GPU is required, but the agent lacks the capability gpu; add gpu: true to spec.capabilities";
            self.problem("spec.resources.gpu", text);
        }
    }
}
