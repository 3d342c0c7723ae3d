//! The `/etc` that every agent sees: what programs need to run, and nothing about this host.
//!
//! Files are copied, not bound: package managers replace files, and a bound one would stay the old one.

use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::Path;
use std::{fs, io};

/// Copied as they are, when the host has them.
const COPIED: &[&str] =
    &["ld.so.cache", "ld.so.conf", "localtime", "protocols", "services", "mime.types", "ssl/openssl.cnf"];
/// The largest file that is copied.
const MAX_BYTES: u64 = 2 << 20;

const PASSWD: &str = "root:x:0:0:root:/:/usr/sbin/nologin\n\
agent:x:1000:1000:agent:/workspace:/bin/sh\n\
nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n";
const GROUP: &str = "root:x:0:\ntty:x:5:\nagent:x:1000:\nnogroup:x:65534:\n";
const HOSTS: &str = "127.0.0.1 localhost\n::1 localhost\n";
const NSSWITCH: &str = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\n\
protocols: files\nservices: files\n";
const WRITTEN: &[(&str, &str)] = &[
    ("passwd", PASSWD),
    ("group", GROUP),
    ("hosts", HOSTS),
    ("resolv.conf", ""),
    ("nsswitch.conf", NSSWITCH),
    ("shells", "/bin/sh\n/bin/bash\n"),
];
/// The host name is the sandbox's: the kernel tells it.
const LINKED: &[(&str, &str)] = &[
    ("hostname", "../proc/sys/kernel/hostname"),
    ("mtab", "../proc/self/mounts"),
    ("os-release", "../usr/lib/os-release"),
];

/// The files, read while the host's tree was still there.
pub(crate) struct EtcFiles {
    files: Vec<(String, Vec<u8>)>,
}

impl EtcFiles {
    /// Reads what the host has. A file that is missing or odd is left out: nothing depends on one.
    pub(crate) fn collect() -> Self {
        let mut names: Vec<String> = COPIED.iter().map(|&n| n.to_owned()).collect();
        for entry in fs::read_dir("/etc/ld.so.conf.d").into_iter().flatten().flatten() {
            names.extend(entry.file_name().to_str().map(|n| format!("ld.so.conf.d/{n}")));
        }
        let read = |name: String| {
            let path = Path::new("/etc").join(&name);
            let meta = fs::metadata(&path).ok()?;
            if !meta.is_file() || meta.len() > MAX_BYTES {
                return None;
            }
            Some((name, fs::read(path).ok()?))
        };
        Self { files: names.into_iter().filter_map(read).collect() }
    }

    /// Writes them, and the ones that are ours.
    pub(crate) fn write(&self, etc: &Path) -> io::Result<()> {
        let make = |path: &Path| fs::DirBuilder::new().recursive(true).mode(0o755).create(path);
        let put = |name: &str, bytes: &[u8]| {
            let path = etc.join(name);
            if let Some(parent) = path.parent() {
                make(parent)?;
            }
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?;
            io::Write::write_all(&mut file, bytes)
        };
        make(etc)?;
        for (name, bytes) in &self.files {
            put(name, bytes)?;
        }
        for (name, text) in WRITTEN {
            put(name, text.as_bytes())?;
        }
        for (name, target) in LINKED {
            symlink(target, etc.join(name))?;
        }
        Ok(())
    }
}
