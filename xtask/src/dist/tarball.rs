//! The tarball: the same tree, for hosts without dpkg.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::Order;
use crate::process::run;

/// Makes `aion-VERSION-x86_64.tar.gz`.
pub(crate) fn make(root: &Path, order: &Order<'_>) -> Result<PathBuf> {
    let version = order.version();
    let path = order.out.join(format!("aion-{version}-x86_64.tar.gz"));
    let mut tar = Command::new("tar");
    tar.args([
        "--create",
        "--sort=name",
        "--format=gnu",
        "--owner=root:0",
        "--group=root:0",
        "--mode=go=rX,u+rw,a-s",
    ]);
    tar.arg(format!("--mtime=@{}", order.epoch));
    // gzip alone would write the time and the name.
    tar.args(["--use-compress-program", "gzip -n -6"]).arg("--file").arg(&path);
    tar.arg(format!("--transform=s,^\\.,aion-{version},SH")).arg("--directory").arg(root).arg(".");
    run(&mut tar)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_same_tree_gives_the_same_bytes_whatever_its_times_and_order() {
        let folder = std::env::temp_dir().join(format!("aion-dist-{}", std::process::id()));
        let mut made = Vec::new();
        for (name, files) in [("one", ["a", "b"]), ("two", ["b", "a"])] {
            let root = folder.join(name).join("root");
            fs::create_dir_all(&root).unwrap();
            for file in files {
                fs::write(root.join(file), file).unwrap();
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            let out = folder.join(name);
            let order =
                Order { out: &out, kinds: super::super::Kinds::All, revision: 1, epoch: 1_000_000_000 };
            made.push(fs::read(make(&root, &order).unwrap()).unwrap());
        }
        assert_eq!(made[0], made[1]);
        let version = format!("{}-1", super::super::VERSION);
        let file = folder.join(format!("one/aion-{version}-x86_64.tar.gz"));
        let listed = crate::process::read(Command::new("tar").arg("-tzf").arg(file)).unwrap();
        assert_eq!(listed, format!("aion-{version}/\naion-{version}/a\naion-{version}/b\n"));
        fs::remove_dir_all(&folder).unwrap();
    }
}
