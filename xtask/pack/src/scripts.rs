//! What the scripts of the packages do, by programs in the place of systemd's: the RPM's is what the Debian package's is.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// All that the scripts may call: nothing else is in their PATH.
const STUBS: [&str; 6] = [
    "aion-launcher",
    "deb-systemd-helper",
    "deb-systemd-invoke",
    "systemctl",
    "systemd-sysusers",
    "systemd-tmpfiles",
];

fn clone(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// The calls that a script makes on a host that runs systemd, or on one that does not.
fn calls(script: &str, args: &[&str], systemd: bool) -> Vec<Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in STUBS {
        fs::write(at(name), format!("#!/bin/sh\necho \"{name} $*\" >>\"$LOG\"\n")).unwrap();
        fs::set_permissions(at(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let text = fs::read_to_string(clone(script)).unwrap();
    let host = if systemd { folder.path().to_owned() } else { at("missing") };
    assert!(text.contains("/run/systemd/system"), "{script}");
    let text = text.replace("/run/systemd/system", host.to_str().unwrap());
    let mut sh = Command::new("/bin/sh");
    sh.args(["-c", &text, script]).args(args).env_clear();
    let status = sh.env("PATH", folder.path()).env("LOG", at("log")).status().unwrap();
    assert!(status.success(), "{script} {args:?}");
    let log = fs::read_to_string(at("log")).unwrap_or_default();
    log.lines().map(|line| line.split(' ').map(str::to_owned).collect()).collect()
}

/// The units that these calls do something to: those that follow a word for it.
fn units(calls: &[Vec<String>], verbs: &[&str]) -> BTreeSet<String> {
    let does = |call: &&Vec<String>| {
        let now = call.iter().any(|word| word == "--now");
        call.iter().any(|word| {
            verbs.contains(&word.as_str()) || (now && word == "disable" && verbs.contains(&"stop"))
        })
    };
    let is_unit = |word: &&String| word.starts_with("aion") && word.contains('.');
    calls.iter().filter(does).flat_map(|call| call.iter().skip(1).filter(is_unit)).cloned().collect()
}

/// Everything of AION that systemd can run.
fn shipped() -> BTreeSet<String> {
    let names = fs::read_dir(clone("systemd")).unwrap().map(|entry| entry.unwrap().file_name());
    let names = names.map(|name| name.into_string().unwrap());
    names
        .filter(|name| [".service", ".slice", ".socket", ".timer"].iter().any(|end| name.ends_with(end)))
        .collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_removal_stops_all_that_is_shipped_and_ends_the_agents() {
    assert!(shipped().len() >= 8, "{:?}", shipped());
    for (script, args) in [("packaging/deb/prerm", ["remove"]), ("packaging/rpm/preun", ["0"])] {
        let made = calls(script, &args, true);
        assert_eq!(units(&made, &["stop"]), shipped(), "{script}");
        // The agents are not ended while a daemon could start them again.
        let place = |unit: &str| {
            let stops = |call: &Vec<String>| call.iter().any(|word| word == unit);
            made.iter().position(stops).unwrap_or_else(|| panic!("{script} has no {unit}: {made:?}"))
        };
        assert!(place("aiond.service") < place("aion-agents.service"), "{script}: {made:?}");
        for systemd in [true, false] {
            let last = calls(script, &args, systemd).pop().unwrap();
            assert_eq!(last.join(" "), "aion-launcher purge --state /var/lib/aion", "{script}");
        }
    }
}

#[test]
fn what_goes_before_an_upgrade_does_nothing() {
    assert!(calls("packaging/deb/prerm", &["upgrade", "9.9.9-1"], true).is_empty());
    assert!(calls("packaging/rpm/preun", &["1"], true).is_empty());
}

#[test]
fn an_installation_starts_the_daemons_and_an_upgrade_starts_them_again() {
    let daemons = set(&["aion-launcher.service", "aiond.service"]);
    let units_of_both = set(&["aion-launcher.service", "aiond.service", "aiond.socket"]);
    let scripts: [(&str, [&[&str]; 2]); 2] = [
        ("packaging/deb/postinst", [&["configure", ""], &["configure", "0.0.9-1"]]),
        ("packaging/rpm/post", [&["1"], &["2"]]),
    ];
    for (script, [first, again]) in scripts {
        let made = calls(script, first, true);
        assert_eq!(units(&made, &["start"]), units_of_both, "{script}: {made:?}");
        assert!(units(&made, &["restart", "try-restart", "stop"]).is_empty(), "{script}: {made:?}");
        for program in ["systemd-sysusers", "systemd-tmpfiles"] {
            assert!(made.iter().any(|call| call[0] == program), "{script}: {program}");
        }
        // The socket stays open, and the agents' group is left alone.
        let made = calls(script, again, true);
        assert_eq!(units(&made, &["restart", "try-restart"]), daemons, "{script}: {made:?}");
        assert!(units(&made, &["stop"]).is_empty(), "{script}: {made:?}");
        // In an image that is being built there is nobody to start anything.
        for args in [first, again] {
            let made = calls(script, args, false);
            assert!(
                units(&made, &["start", "restart", "try-restart", "stop"]).is_empty(),
                "{script}: {made:?}"
            );
        }
    }
}
