//! Files and programs that are taken from an agent while it runs, and given back. Runs where `bpf` is in the kernel's LSM list.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use aion_probes::{FileAccess, FilePlace, Opened, WithheldFile};
use nix::sys::stat::{major, minor};

use crate::world::{Agent, EVENTS, What, World, drain};

struct Held {
    world: World,
    opened: Opened,
    agent: Agent,
    dir: tempfile::TempDir,
}

/// Two folders, each with a file in a folder of it, and an agent that may do everything.
fn held() -> Option<Held> {
    let world = World::new(1 << 20)?;
    let opened = world.open();
    if !opened.probes.holds_files() {
        let reason = opened.report.programs.iter().find(|program| program.name == "lsm_path_rename");
        println!("skipped: no BPF LSM: {reason:?}");
        return None;
    }
    let agent = world.agent(&opened.probes, EVENTS);
    opened.probes.arm(agent.id).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for name in ["taken", "kept"] {
        fs::create_dir_all(dir.path().join(name).join("sub")).unwrap();
        fs::write(dir.path().join(name).join("sub/file"), "text").unwrap();
    }
    Some(Held { world, opened, agent, dir })
}

fn place(path: &Path) -> FilePlace {
    let found = fs::metadata(path).unwrap();
    let number = |part: u64| u32::try_from(part).unwrap();
    FilePlace::new(number(major(found.dev())), number(minor(found.dev())), found.ino()).unwrap()
}

impl Held {
    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    fn withhold(&self, name: &str, all: &[(FileAccess, u16)]) {
        let place = place(&self.dir.path().join(name));
        let files: Vec<_> = all.iter().map(|&(access, rule)| WithheldFile { place, access, rule }).collect();
        self.opened.probes.withhold_files(self.agent.id, &files).unwrap();
    }

    fn help(&self, words: &[&str]) -> String {
        let words: Vec<String> = words
            .iter()
            .enumerate()
            .map(|(at, word)| if at == 0 { (*word).to_owned() } else { self.path(word) })
            .collect();
        self.agent.help(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The hooks that refused since the last time, with the rule's number.
    fn refused(&mut self) -> Vec<(&'static str, u64)> {
        let seen = drain(&mut self.opened);
        seen.iter()
            .filter_map(|s| if let What::Withheld(hook, rule) = s.what { Some((hook, rule)) } else { None })
            .collect()
    }
}

#[test]
fn what_is_withheld_is_refused_and_given_back() {
    let Some(mut held) = held() else { return };
    let all = |held: &Held| {
        let _ = fs::remove_dir(held.path("taken/made"));
        fs::create_dir_all(held.path("taken/folder")).unwrap();
        fs::write(held.path("taken/new"), "x").unwrap();
        [
            held.help(&["open-read", "taken/sub/file"]),
            held.help(&["open-read", "taken"]),
            held.help(&["open-write", "taken/sub/file"]),
            held.help(&["open-write", "taken/new"]),
            held.help(&["unlink", "taken/new"]),
            held.help(&["mkdir", "taken/made"]),
            held.help(&["rmdir", "taken/folder"]),
        ]
    };
    assert_eq!(all(&held), ["ok"; 7], "nothing is withheld");
    assert_eq!(held.refused(), []);
    held.withhold("taken", &[(FileAccess::Read, 1), (FileAccess::Write, 2)]);
    assert_eq!(all(&held), ["EACCES"; 7]);
    let refused = held.refused();
    let expected = [
        ("file_open", 1),
        ("file_open", 1),
        ("file_open", 2),
        ("file_open", 2),
        ("path_unlink", 2),
        ("path_mkdir", 2),
        ("path_rmdir", 2),
    ];
    assert_eq!(refused, expected);
    for name in ["kept/sub/file", "kept"] {
        assert_eq!(held.help(&["open-read", name]), "ok", "{name}");
    }
    // Bystanders are not touched.
    assert_eq!(fs::read_to_string(held.path("taken/sub/file")).unwrap(), "x");
    held.opened.probes.withhold_files(held.agent.id, &[]).unwrap();
    assert_eq!(all(&held), ["ok"; 7], "given back");
}

#[test]
fn who_may_not_write_may_still_read() {
    let Some(held) = held() else { return };
    held.withhold("taken", &[(FileAccess::Write, 1)]);
    assert_eq!(held.help(&["open-read", "taken/sub/file"]), "ok");
    for words in [
        &["open-write", "taken/sub/file"][..],
        &["truncate", "taken/sub/file"],
        &["open-trunc", "taken/sub/file"],
        &["chmod", "taken/sub/file"],
        &["unlink", "taken/sub/file"],
        &["symlink", "taken/link"],
        &["fifo", "taken/pipe"],
    ] {
        assert_eq!(held.help(words), "EACCES", "{words:?}");
    }
    assert_eq!(fs::read_to_string(held.path("taken/sub/file")).unwrap(), "text");
}

#[test]
fn nothing_is_moved_out_or_in() {
    let Some(held) = held() else { return };
    held.withhold("taken", &[(FileAccess::Read, 1), (FileAccess::Write, 1)]);
    for (from, to) in [
        ("taken/sub/file", "kept/moved"),
        ("taken/sub", "kept/moved"),
        ("taken", "renamed"),
        ("kept/sub/file", "taken/moved"),
    ] {
        assert_eq!(held.help(&["rename", from, to]), "EACCES", "{from} {to}");
    }
    assert_eq!(held.help(&["link", "taken/sub/file", "kept/linked"]), "EACCES");
    assert_eq!(held.help(&["link", "kept/sub/file", "taken/linked"]), "EACCES");
    assert_eq!(held.help(&["rename", "kept/sub/file", "kept/other"]), "ok");
    // By another name: the inode counts.
    std::os::unix::fs::symlink(held.path("taken"), held.path("kept/way")).unwrap();
    assert_eq!(held.help(&["open-read", "kept/way/sub/file"]), "EACCES");
}

#[test]
fn what_lies_too_deep_to_be_sure_is_refused() {
    let Some(mut held) = held() else { return };
    let mut deep = held.dir.path().join("kept");
    for _ in 0..70 {
        deep.push("d");
    }
    fs::create_dir_all(&deep).unwrap();
    let name = deep.strip_prefix(held.dir.path()).unwrap().to_str().unwrap().to_owned();
    assert_eq!(held.help(&["open-read", &name]), "ok", "nothing is withheld");
    held.withhold("taken", &[(FileAccess::Read, 1)]);
    assert_eq!(held.help(&["open-read", &name]), "EACCES");
    assert_eq!(held.refused(), [("file_open", 0)]);
}

#[test]
fn programs_are_withheld_one_by_one_and_all_together() {
    let Some(mut held) = held() else { return };
    for name in ["taken/program", "kept/program"] {
        fs::copy("/bin/true", held.path(name)).unwrap();
        fs::set_permissions(held.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let code = |held: &Held, name: &str| held.agent.run(&[&held.path(name)]).code();
    assert_eq!((code(&held, "taken/program"), code(&held, "kept/program")), (Some(0), Some(0)));
    held.withhold("taken", &[(FileAccess::Exec, 3)]);
    assert_eq!((code(&held, "taken/program"), code(&held, "kept/program")), (Some(126), Some(0)));
    assert_eq!(held.help(&["open-read", "taken/program"]), "ok", "it may be read");
    assert_eq!(held.refused(), [("bprm_check_security", 3)]);
    let all = WithheldFile { place: FilePlace::EVERYTHING, access: FileAccess::Exec, rule: 4 };
    held.opened.probes.withhold_files(held.agent.id, &[all]).unwrap();
    assert_eq!((code(&held, "taken/program"), code(&held, "kept/program")), (Some(126), Some(126)));
    held.opened.probes.withhold_files(held.agent.id, &[]).unwrap();
    assert_eq!((code(&held, "taken/program"), code(&held, "kept/program")), (Some(0), Some(0)));
}

#[test]
fn it_outlives_whoever_withheld_it() {
    let Some(mut held) = held() else { return };
    held.withhold("taken", &[(FileAccess::Read, 1)]);
    drop(held.opened);
    assert_eq!(held.agent.help(&["open-read", held.dir.path().join("taken").to_str().unwrap()]), "EACCES");
    held.opened = held.world.open();
    assert_eq!(held.help(&["open-read", "taken"]), "EACCES");
    // Another configuration of the agent changes nothing of it.
    held.opened.probes.update_agent(held.agent.id, EVENTS).unwrap();
    assert_eq!(held.help(&["open-read", "taken"]), "EACCES");
    held.opened.probes.withhold_files(held.agent.id, &[]).unwrap();
    assert_eq!(held.help(&["open-read", "taken"]), "ok");
}
