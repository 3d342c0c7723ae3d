//! Volumes on the real kernel: needs root and loop devices, and says so when it skips.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests may, their helpers too")]

use std::path::Path;

use aion_volumes::{Error, OWNER, Options, Volumes};
use rustix::fs::{AtFlags, Mode, OFlags, openat, statat};
use rustix::io::Errno;

const SIZE: u64 = 64 << 20;

fn volumes(folder: &Path) -> Option<Volumes> {
    if !rustix::process::geteuid().is_root() || !Path::new("/dev/loop-control").exists() {
        eprintln!("skipped: needs root and loop devices");
        return None;
    }
    Some(Volumes::open(Options { folder: folder.join("volumes"), ready: 1, ready_bytes: SIZE }).unwrap())
}

#[test]
fn a_volume_ends_where_its_size_ends_and_keeps_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let Some(volumes) = volumes(folder.path()) else { return };
    assert!(volumes.refill().unwrap());
    assert!(!volumes.refill().unwrap(), "one is enough");
    let volume = volumes.take("a", SIZE).unwrap();
    let mount = volume.into_mount();
    let owner = statat(&mount, "", AtFlags::EMPTY_PATH).unwrap();
    assert_eq!((owner.st_uid, owner.st_gid), (OWNER, OWNER));
    let file = openat(&mount, "f", OFlags::CREATE | OFlags::WRONLY, Mode::from(0o600)).unwrap();
    let chunk = vec![7u8; 1 << 20];
    let mut written = 0u64;
    let full = loop {
        match rustix::io::write(&file, &chunk) {
            Ok(count) => written += count as u64,
            Err(error) => break error,
        }
        assert!(written <= SIZE, "wrote {written} bytes into {SIZE}");
    };
    assert_eq!(full, Errno::NOSPC);
    assert!(written > SIZE / 2);
    drop(file);
    drop(mount);

    assert_eq!(volumes.names().unwrap(), ["a"]);
    let again = volumes.take("a", SIZE).unwrap().into_mount();
    assert_eq!(u64::try_from(statat(&again, "f", AtFlags::empty()).unwrap().st_size).unwrap(), written);
    volumes.remove("a").unwrap();
    volumes.remove("a").unwrap();
    assert!(volumes.names().unwrap().is_empty());
}

#[test]
fn what_a_dead_launcher_kept_ready_is_removed_and_what_is_in_use_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let Some(first) = volumes(folder.path()) else { return };
    first.refill().unwrap();
    drop(first.take("kept", SIZE).unwrap());
    first.refill().unwrap();
    std::mem::forget(first);
    let second = volumes(folder.path()).unwrap();
    let left: Vec<String> = std::fs::read_dir(folder.path().join("volumes"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with("template-"))
        .collect();
    assert_eq!(left, ["volume-kept"]);
    assert_eq!(second.names().unwrap(), ["kept"]);
}

#[test]
fn a_used_volume_is_wiped_and_used_again() {
    use rustix::fs::{AtFlags, XattrFlags, chmodat, fsetxattr, mkdirat};
    let folder = tempfile::tempdir().unwrap();
    let Some(volumes) = volumes(folder.path()) else { return };
    let mount = volumes.take("a", SIZE).unwrap().into_mount();
    mkdirat(&mount, "d", Mode::from(0o700)).unwrap();
    mkdirat(&mount, "d/e", Mode::empty()).unwrap();
    for name in ["f", "d/g", "d/e/h"] {
        let file = openat(&mount, name, OFlags::CREATE | OFlags::WRONLY, Mode::empty()).unwrap();
        rustix::io::write(&file, b"of the first").unwrap();
    }
    chmodat(&mount, ".", Mode::from(0o000), AtFlags::empty()).unwrap();
    let root = openat(&mount, ".", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    fsetxattr(&root, "user.mark", b"first", XattrFlags::empty()).unwrap();
    let first = statat(&mount, "", AtFlags::EMPTY_PATH).unwrap().st_dev;
    drop((mount, root));
    volumes.rest("a");
    volumes.remove("a").unwrap();
    assert!(volumes.names().unwrap().is_empty());

    let again = volumes.take("b", SIZE).unwrap().into_mount();
    let root = openat(&again, ".", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let found = statat(&again, "", AtFlags::EMPTY_PATH).unwrap();
    assert_eq!(found.st_dev, first, "it is the same volume");
    assert_eq!((found.st_uid, found.st_mode & 0o7777), (OWNER, 0o755));
    assert_eq!(rustix::fs::flistxattr(&root, &mut [0u8; 256]).unwrap(), 0);
    let names = rustix::fs::Dir::read_from(&root).unwrap().count();
    assert_eq!(names, 2, "only . and ..");
}

#[test]
fn a_volume_with_much_in_it_is_thrown_away() {
    let folder = tempfile::tempdir().unwrap();
    let Some(volumes) = volumes(folder.path()) else { return };
    let mount = volumes.take("a", SIZE).unwrap().into_mount();
    for number in 0..1000 {
        openat(&mount, format!("f{number}"), OFlags::CREATE, Mode::empty()).unwrap();
    }
    drop(mount);
    volumes.remove("a").unwrap();
    while volumes.refill().unwrap() {}
    let left: Vec<_> = std::fs::read_dir(folder.path().join("volumes"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with("template-"))
        .collect();
    assert!(matches!(left.as_slice(), [one] if one.starts_with("ready-")), "{left:?}");
}

#[test]
fn sizes_and_names_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let Some(volumes) = volumes(folder.path()) else { return };
    assert!(matches!(volumes.take("a", 1), Err(Error::Size { .. })));
    assert!(matches!(volumes.take("a", u64::MAX), Err(Error::Size { .. })));
    for name in ["", "../a", "a/b", &"x".repeat(65)] {
        assert!(matches!(volumes.take(name, SIZE), Err(Error::Name { .. })), "{name}");
    }
    let _ = volumes.used("none").unwrap_err();
}
