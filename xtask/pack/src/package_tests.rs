use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::process::Command;
use std::time::{Duration, SystemTime};

use super::*;

const FILES: [(&str, u32); 6] = [
    ("etc/aion/aiond.env", 0o644),
    ("lib/systemd/system/aiond.service", 0o644),
    ("usr/bin/aionctl", 0o755),
    ("usr/share/aion/profiles/a.json", 0o644),
    ("usr/share/doc/aion/copyright", 0o644),
    ("usr/share/man/man1/aionctl.1.gz", 0o644),
];

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/rpm")
}

/// A tree with these files, made in this order, changed at that time.
fn fill<'a>(root: &Path, files: impl Iterator<Item = &'a (&'a str, u32)>, at: SystemTime, umask: u32) {
    for (name, mode) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("{name}\n").repeat(1000)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode & !umask)).unwrap();
        fs::File::open(&path).unwrap().set_modified(at).unwrap();
    }
    symlink("/etc/aion/aiond.env", root.join("usr/share/aion/env")).unwrap();
}

fn pack(root: &Path, out: &Path) {
    let args = RpmArgs {
        from: packaging(),
        root: root.to_owned(),
        out: out.to_owned(),
        licence: Path::new(env!("CARGO_MANIFEST_DIR")).join("../../LICENSE"),
        package_version: "1.2.3".to_owned(),
        release: 4,
        epoch: 1_700_000_000,
        requires: vec!["libc.so.6(GLIBC_2.34)(64bit)".to_owned()],
    };
    make(&args).unwrap();
}

fn packed(folder: &Path) -> PathBuf {
    let (root, out) = (folder.join("tree"), folder.join("aion.rpm"));
    fill(&root, FILES.iter(), SystemTime::now(), 0);
    pack(&root, &out);
    out
}

#[test]
fn the_same_tree_gives_the_same_bytes_whatever_its_times_order_and_place() {
    let folder = tempfile::tempdir().unwrap();
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let (one, two) = (folder.path().join("one"), folder.path().join("two/deeper"));
    fill(&one, FILES.iter(), SystemTime::now(), 0);
    fill(&two, FILES.iter().rev(), old, 0o027);
    pack(&one, &folder.path().join("one.rpm"));
    pack(&two, &folder.path().join("two.rpm"));
    let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
    assert!(read("one.rpm") == read("two.rpm"));
}

#[test]
fn another_tree_gives_other_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let before = fs::read(packed(folder.path())).unwrap();
    fs::write(folder.path().join("tree/etc/aion/aiond.env"), "x").unwrap();
    pack(&folder.path().join("tree"), &folder.path().join("aion.rpm"));
    assert!(before != fs::read(folder.path().join("aion.rpm")).unwrap());
}

#[test]
fn files_are_where_rpm_distributions_have_them_and_marked_for_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let package = rpm::Package::open(packed(folder.path())).unwrap();
    let files = package.metadata.get_file_entries().unwrap();
    let find = |path: &str| files.iter().find(|file| file.path() == Path::new(path));
    let flags = |path: &str| find(path).unwrap_or_else(|| panic!("{path} is missing")).flags();
    assert_eq!(flags("/etc/aion/aiond.env"), rpm::FileFlags::CONFIG | rpm::FileFlags::NOREPLACE);
    assert_eq!(flags("/usr/share/man/man1/aionctl.1.gz"), rpm::FileFlags::DOC);
    assert_eq!(flags("/usr/share/licenses/aion/LICENSE"), rpm::FileFlags::LICENSE);
    assert!(find("/usr/lib/systemd/system/aiond.service").is_some());
    assert!(find("/lib/systemd/system/aiond.service").is_none());
    assert!(find("/usr/share/doc/aion/copyright").is_none());
    // Its own folders are the package's, the distribution's are not.
    assert!(find("/etc/aion").is_some() && find("/usr/share/aion").is_some());
    assert!(find("/etc").is_none() && find("/usr/share/man").is_none());
    for file in &files {
        assert_eq!((file.user(), file.group()), ("root", "root"), "{}", file.path().display());
        assert_eq!(u32::from(file.modified_at()), 1_700_000_000, "{}", file.path().display());
    }
}

/// The rpm of the distributions reads it as we mean it.
#[test]
fn rpm_reads_it() {
    if Command::new("rpm").arg("--version").output().is_err() {
        eprintln!("skipped: there is no rpm here (Debian's package rpm)");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let package = packed(folder.path());
    let rpm = |args: &[&str]| {
        let output = Command::new("rpm").args(args).arg(&package).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "rpm {args:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
        said
    };
    assert!(rpm(&["-K", "--nosignature"]).contains("digests OK"));
    let about = rpm(&["-qpil"]);
    for line in ["Version     : 1.2.3", "Release     : 4", "License     : Apache-2.0", "/usr/bin/aionctl"] {
        assert!(about.contains(line), "{line}: {about}");
    }
    assert_eq!(rpm(&["-qp", "--configfiles"]), "/etc/aion/aiond.env\n");
    let needs = rpm(&["-qp", "--requires"]);
    assert!(needs.contains("libc.so.6(GLIBC_2.34)(64bit)") && needs.contains("systemd >= 252"), "{needs}");
    let scripts = rpm(&["-qp", "--scripts"]);
    for word in ["postinstall scriptlet", "preuninstall scriptlet", "postuninstall scriptlet"] {
        assert!(scripts.contains(word), "{word}: {scripts}");
    }
}

/// Below a folder of its own, without the scripts: `dist` does the same with the packages that it makes.
#[test]
fn rpm_installs_it_and_removes_it() {
    let folder = tempfile::tempdir().unwrap();
    if fs::metadata(folder.path()).unwrap().uid() != 0
        || Command::new("rpm").arg("--version").output().is_err()
    {
        eprintln!("skipped: this wants root and rpm (Debian's package rpm)");
        return;
    }
    let (package, root) = (packed(folder.path()), folder.path().join("root"));
    fs::create_dir(&root).unwrap();
    let rpm = |args: &[&str]| {
        let mut command = Command::new("rpm");
        if Path::new("/etc/debian_version").exists() {
            command.arg("--force-debian");
        }
        command.arg("--root").arg(&root).args(["--dbpath", "/var/lib/rpm", "--nodeps", "--noscripts"]);
        let output = command.args(args).output().unwrap();
        assert!(output.status.success(), "rpm {args:?}: {output:?}");
    };
    rpm(&["--install", "--nosignature", package.to_str().unwrap()]);
    let program = fs::metadata(root.join("usr/bin/aionctl")).unwrap();
    assert_eq!((program.mode(), program.uid(), program.gid()), (0o100_755, 0, 0));
    let text = fs::read_to_string(root.join("usr/lib/systemd/system/aiond.service")).unwrap();
    assert_eq!(text, "lib/systemd/system/aiond.service\n".repeat(1000));
    let link = fs::read_link(root.join("usr/share/aion/env")).unwrap();
    assert_eq!(link, Path::new("/etc/aion/aiond.env"));
    rpm(&["--verify", "aion"]);
    rpm(&["--erase", "aion"]);
    for left in ["etc/aion", "usr/share/aion", "usr/bin/aionctl"] {
        assert!(!root.join(left).exists(), "{left}");
    }
}

#[test]
fn the_scripts_are_what_a_shell_takes() {
    for name in ["post", "preun", "postun"] {
        let checked = Command::new("sh").arg("-n").arg(packaging().join(name)).status().unwrap();
        assert!(checked.success(), "{name}");
    }
}
