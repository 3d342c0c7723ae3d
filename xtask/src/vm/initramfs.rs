//! The initramfs: busybox, a script, and the modules that the disks and suites need.
//!
//! Written as a cpio archive by hand (the format is 110 bytes of header per file), uncompressed: the kernel
//! would spend longer on unpacking it, without KVM, than QEMU on reading it.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::kernel::Files;
use crate::process::{capture, write_whole};
use crate::project::Project;

/// Without these nothing boots.
const NEEDED: &[&str] = &["virtio_pci", "virtio_blk"];
/// What suites and sandboxes can use: disk volumes, quotas, attacks over vsock, agents' networks.
const USEFUL: &[&str] = &[
    "virtio_rng",
    "loop",
    "overlay",
    "quota_v2",
    "vsock_loopback",
    "veth",
    "fuse",
    "nf_tables",
    "nft_chain_nat",
    "nft_masq",
    "nft_ct",
    "nft_reject_inet",
];

/// The archive for this kernel.
pub(crate) fn build(project: &Project, folder: &Path, kernel: &Files, busybox: &Path) -> Result<PathBuf> {
    let modules = Modules::find(kernel)?;
    let mut order = Vec::new();
    for name in NEEDED {
        modules.add(name, &mut order).with_context(|| format!("Linux {} has no {name}", kernel.version))?;
    }
    for name in USEFUL {
        let mut more = order.clone();
        if modules.add(name, &mut more).is_ok() {
            order = more;
        }
    }
    let mut archive = Archive::default();
    for name in ["bin", "dev", "proc", "sys", "root", "modules"] {
        archive.entry(name, 0o040_755, &[], (0, 0));
    }
    archive.entry("dev/console", 0o020_600, &[], (5, 1));
    archive.entry("bin/busybox", 0o100_755, &fs::read(busybox)?, (0, 0));
    archive.entry("init", 0o100_755, &fs::read(project.root.join("tests/vm/initramfs-init"))?, (0, 0));
    let mut list = String::new();
    for name in &order {
        let bytes = modules.bytes(name)?;
        archive.entry(&format!("modules/{name}.ko"), 0o100_644, &bytes, (0, 0));
        list.push_str(&format!("{name}.ko\n"));
    }
    archive.entry("modules/order", 0o100_644, list.as_bytes(), (0, 0));
    let path = folder.join(format!("initramfs-{}.cpio", kernel.version));
    write_whole(&path, &archive.finish())?;
    Ok(path)
}

/// The modules of one kernel, by name with underscores.
struct Modules {
    files: HashMap<String, PathBuf>,
    builtin: Vec<String>,
}

impl Modules {
    fn find(kernel: &Files) -> Result<Self> {
        let mut files = HashMap::new();
        walk(&kernel.modules.join("kernel"), &mut files)?;
        let builtin = fs::read_to_string(kernel.modules.join("modules.builtin"))?;
        Ok(Self { files, builtin: builtin.lines().map(|line| name_of(Path::new(line))).collect() })
    }

    /// Appends the module after what it depends on; nothing for one that is part of the kernel.
    fn add(&self, name: &str, order: &mut Vec<String>) -> Result<()> {
        let name = name.replace('-', "_");
        if order.contains(&name) || self.builtin.contains(&name) {
            return Ok(());
        }
        if !self.files.contains_key(&name) {
            bail!("no module {name}");
        }
        for dependency in dependencies(&self.bytes(&name)?) {
            self.add(&dependency, order)?;
        }
        order.push(name);
        Ok(())
    }

    /// The module's object, unpacked.
    fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.files.get(name).with_context(|| format!("no module {name}"))?;
        if path.extension().is_some_and(|ext| ext == "xz") {
            let output = capture(Command::new("xz").arg("-dc").arg(path))?;
            if !output.status.success() {
                bail!("xz cannot unpack {}", path.display());
            }
            return Ok(output.stdout);
        }
        fs::read(path).with_context(|| format!("cannot read {}", path.display()))
    }
}

fn walk(folder: &Path, files: &mut HashMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), files)?;
        } else {
            files.insert(name_of(&entry.path()), entry.path());
        }
    }
    Ok(())
}

/// `kernel/drivers/virtio/virtio-rng.ko.xz` is `virtio_rng`.
fn name_of(path: &Path) -> String {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    file.split('.').next().unwrap_or_default().replace('-', "_")
}

/// What the module says of itself in its `.modinfo` section.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let rest = &module[at + KEY.len()..];
    let end = rest.iter().position(|&byte| byte == 0).unwrap_or(0);
    let names = String::from_utf8_lossy(&rest[..end]).into_owned();
    names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

/// A cpio archive in the `newc` format.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    count: u32,
}

impl Archive {
    fn entry(&mut self, name: &str, mode: u32, data: &[u8], device: (u32, u32)) {
        self.count += 1;
        let fields = [
            self.count,
            mode,
            0,
            0,
            1,
            0,
            u32::try_from(data.len()).unwrap_or(u32::MAX),
            0,
            0,
            device.0,
            device.1,
            u32::try_from(name.len() + 1).unwrap_or(u32::MAX),
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[], (0, 0));
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_a_module_depends_on() {
        assert_eq!(
            dependencies(b"x\0license=GPL\0depends=virtio,virtio-ring\0retpoline=Y\0"),
            ["virtio", "virtio_ring"]
        );
        assert!(dependencies(b"\0depends=\0").is_empty());
        assert!(dependencies(b"").is_empty());
    }

    #[test]
    fn archives_are_aligned_and_terminated() {
        let mut archive = Archive::default();
        archive.entry("a", 0o100_644, b"12345", (0, 0));
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(&bytes[..6], b"070701");
        assert!(bytes.windows(10).any(|window| window == b"TRAILER!!!"));
    }
}
