//! The Debian package, by dpkg-deb; what it depends on, by dpkg-shlibdeps.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{Order, tree};
use crate::process::{read, run};
use crate::project::Project;

const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// Makes `aion_VERSION_amd64.deb` of the tree, to which it adds its DEBIAN folder.
pub(crate) fn make(
    project: &Project,
    work: &Path,
    root: &Path,
    order: &Order<'_>,
    version: &str,
) -> Result<PathBuf> {
    let from = project.root.join("packaging/deb");
    let size = read(Command::new("du").args(["-sk", "--apparent-size"]).arg(root))?;
    let size = size.split_whitespace().next().context("du says nothing")?;
    let text = fs::read_to_string(from.join("control.in")).context("cannot read packaging/deb/control.in")?;
    let control = text
        .replace("@VERSION@", version)
        .replace("@SIZE@", size)
        .replace("@SHLIBS@", &libraries(work, root)?);
    let folder = root.join("DEBIAN");
    fs::create_dir_all(&folder)?;
    fs::set_permissions(&folder, Permissions::from_mode(0o755))?;
    fs::write(folder.join("control"), control)?;
    let conffiles: String = tree::configuration().map(|path| format!("/{path}\n")).collect();
    fs::write(folder.join("conffiles"), conffiles)?;
    for name in ["control", "conffiles"] {
        fs::set_permissions(folder.join(name), Permissions::from_mode(0o644))?;
    }
    for script in SCRIPTS {
        fs::copy(from.join(script), folder.join(script)).with_context(|| format!("cannot copy {script}"))?;
        fs::set_permissions(folder.join(script), Permissions::from_mode(0o755))?;
    }
    let path = order.out.join(format!("aion_{version}_amd64.deb"));
    // Several threads would cut the stream by their number. zstd, because a small machine unpacks it in a tenth of the time.
    let mut command = Command::new("dpkg-deb");
    command.args(["--root-owner-group", "-Zzstd", "-z9", "--threads-max=1", "--build"]).arg(root).arg(&path);
    run(command.env("SOURCE_DATE_EPOCH", order.epoch.to_string()))?;
    Ok(path)
}

/// The packages that the programs' libraries are in, with the versions that they need.
fn libraries(work: &Path, root: &Path) -> Result<String> {
    let folder = work.join("shlibs");
    fs::create_dir_all(folder.join("debian"))?;
    fs::write(folder.join("debian/control"), "Source: aion\n\nPackage: aion\nArchitecture: amd64\n")?;
    let mut command = Command::new("dpkg-shlibdeps");
    command.arg("-O").current_dir(&folder);
    for program in
        ["usr/bin/aionctl", "usr/sbin/aiond", "usr/sbin/aion-launcher", "usr/libexec/aion/aion-wasm"]
    {
        command.arg(format!("-e{}", root.join(program).display()));
    }
    let said = read(&mut command)?;
    match said.lines().find_map(|line| line.strip_prefix("shlibs:Depends=")) {
        Some(list) if list.contains("libc6") => Ok(list.to_owned()),
        _ => bail!("dpkg-shlibdeps names no libc6: {said}"),
    }
}
