//! Launches that tests begin from.

use std::sync::atomic::{AtomicU64, Ordering};

use aion_launcher_proto::v1;

pub(crate) fn id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    ulid::Ulid::from_parts(1_700_000_000_000 + number, u128::from(std::process::id())).to_string()
}

/// What `aionctl run -- ARGV` asks for.
pub(crate) fn launch(argv: &[&str]) -> v1::Launch {
    v1::Launch {
        id: id(),
        tenant: "default".into(),
        name: "tester".into(),
        argv: argv.iter().map(|a| a.as_bytes().to_vec()).collect(),
        env: vec![b"PATH=/usr/local/bin:/usr/bin:/bin".to_vec(), b"HOME=/workspace".to_vec()],
        rootfs: Some(v1::Rootfs { kind: Some(v1::rootfs::Kind::HostSystem(v1::Empty {})) }),
        workspace: Some(v1::Workspace {
            kind: Some(v1::workspace::Kind::Managed(v1::Empty {})),
            read_only: false,
        }),
        limits: Some(limits()),
        seccomp_profile: "default-restrictive".into(),
        ..Default::default()
    }
}

pub(crate) fn sh(script: &str) -> v1::Launch {
    launch(&["/bin/sh", "-c", script])
}

pub(crate) fn python(script: &str) -> v1::Launch {
    launch(&["python3", "-c", script])
}

pub(crate) fn limits() -> v1::Limits {
    v1::Limits {
        cpu_millis: 1000,
        mem_bytes: 512 << 20,
        pids: 256,
        disk_bytes: 1 << 30,
        ..Default::default()
    }
}

pub(crate) fn directory(path: &std::path::Path) -> Option<v1::Workspace> {
    let bytes = path.as_os_str().as_encoded_bytes().to_vec();
    Some(v1::Workspace { kind: Some(v1::workspace::Kind::Directory(bytes)), read_only: false })
}
