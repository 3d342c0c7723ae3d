//! Debian's kernels, unpacked into the cache: nothing is installed on the host.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::KernelChoice;
use crate::apt;
use crate::process::{head, run};

/// A kernel by the name people use and by Debian's meta-package.
pub(crate) struct Kernel {
    pub(crate) label: &'static str,
    package: &'static str,
}

const KERNELS: &[Kernel] = &[
    Kernel { label: "6.1", package: "linux-image-cloud-amd64" },
    Kernel { label: "6.12", package: "linux-image-6.12-cloud-amd64" },
];

pub(crate) fn chosen(choice: KernelChoice) -> impl Iterator<Item = &'static Kernel> {
    KERNELS.iter().filter(move |kernel| match choice {
        KernelChoice::V6_1 => kernel.label == "6.1",
        KernelChoice::V6_12 => kernel.label == "6.12",
        KernelChoice::All => true,
    })
}

/// An unpacked kernel.
pub(crate) struct Files {
    /// The compressed kernel that QEMU boots.
    pub(crate) image: PathBuf,
    /// `lib/modules/VERSION`.
    pub(crate) modules: PathBuf,
    /// `uname -r`.
    pub(crate) version: String,
}

/// The kernel's files, from the cache when it has them.
pub(crate) fn fetch(kernel: &Kernel, folder: &Path) -> Result<Files> {
    let home = folder.join(format!("kernel-{}", kernel.label));
    if !home.join("complete").exists() {
        head(&format!("fetching Debian's Linux {}", kernel.label));
        let part = folder.join(format!("kernel-{}.part", kernel.label));
        if part.exists() {
            fs::remove_dir_all(&part)?;
        }
        fs::create_dir_all(&part)?;
        let package = apt::first_dependency(kernel.package)?;
        let file = apt::download(&package, &part)?;
        run(Command::new("dpkg-deb").arg("-x").arg(&file).arg(&part))?;
        fs::remove_file(&file)?;
        fs::write(part.join("complete"), format!("{package}\n"))?;
        if home.exists() {
            fs::remove_dir_all(&home)?;
        }
        fs::rename(&part, &home)?;
    }
    let modules = only_entry(&home.join("lib/modules"))?;
    let version = modules.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Files { image: home.join("boot").join(format!("vmlinuz-{version}")), modules, version })
}

fn only_entry(folder: &Path) -> Result<PathBuf> {
    fs::read_dir(folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .next()
        .with_context(|| format!("{} is empty", folder.display()))?
        .map(|entry| entry.path())
        .context("cannot read a folder's entry")
}
