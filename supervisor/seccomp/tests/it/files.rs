//! Files that are wrong, and what is said.

use std::path::Path;

use aion_seccomp::{Error, Profile, json_schema};
use aion_types::ErrorCode;

use crate::folder;

fn said(json: &str) -> String {
    let error = Profile::parse("mine", json.as_bytes(), |_| {
        std::fs::read(folder().join("default-restrictive.json"))
            .map_err(|source| Error::Read { path: "default-restrictive".into(), source })
    })
    .expect_err(json);
    assert_eq!(
        error.code(),
        if matches!(error, Error::BadName { .. }) {
            ErrorCode::ProfileNotFound
        } else {
            ErrorCode::ProfileInvalid
        }
    );
    error.to_string()
}

fn with_group(group: &str) -> String {
    format!(r#"{{"version":1,"description":"d","extends":"default-restrictive","groups":[{group}]}}"#)
}

#[test]
fn wrong_files_are_explained() {
    for (json, expected) in [
        ("", "EOF while parsing a value at line 1 column 0"),
        (r#"{"version":1,"description":"d","groups":[],"color":1}"#, "unknown field `color`"),
        (
            r#"{"version":2,"description":"d","groups":[]}"#,
            "version 2 is not known; this AION reads version 1",
        ),
        (r#"{"version":1,"description":"d","groups":[]}"#, "it has neither default_action nor extends"),
        (
            r#"{"version":1,"description":"d","default_action":"allow","groups":[]}"#,
            "default_action must be an errno",
        ),
        (
            r#"{"version":1,"description":"d","default_action":{"notify":"EPERM"},"groups":[]}"#,
            "default_action must be an errno",
        ),
        (
            r#"{"version":1,"description":"d","default_action":{"errno":"ENOSYS"},"groups":[]}"#,
            "it must allow execve without condition",
        ),
        (r#"{"version":1,"description":"d","extends":"mine","groups":[]}"#, "it extends itself"),
        (r#"{"version":1,"description":"d","extends":"../../etc/x","groups":[]}"#, "is not a profile name"),
    ] {
        let said = said(json);
        assert!(said.contains(expected), "{json}: {said}");
    }
    for (group, expected) in [
        (
            r#"{"name":"g","reason":"r","action":"allow","syscalls":["reed"]}"#,
            r#"group "g": "reed" is not a system call of x86_64"#,
        ),
        (r#"{"name":"g","reason":" ","action":"allow","syscalls":["read"]}"#, "a group needs a reason"),
        (
            r#"{"name":"","reason":"r","action":"allow","syscalls":["read"]}"#,
            "a group needs a name of its own",
        ),
        (r#"{"name":"g","reason":"r","action":"allow","syscalls":[]}"#, "it names no system call"),
        (r#"{"name":"g","reason":"r","action":"allow","syscalls":["read","read"]}"#, "read is named twice"),
        (
            r#"{"name":"g","reason":"r","action":{"errno":"EWHAT"},"syscalls":["read"]}"#,
            r#""EWHAT" is not an errno that a rule may give"#,
        ),
        (
            r#"{"name":"g","reason":"r","action":{"kill":"EPERM"},"syscalls":["read"]}"#,
            "unknown variant `kill`",
        ),
        (
            r#"{"name":"g","reason":"r","action":{"notify":"EPERM"},"syscalls":["execve"]}"#,
            "it must allow execve without condition",
        ),
        (
            r#"{"name":"g","reason":"r","action":"allow","syscalls":["bpf"],"when":[{"arg":6,"in":[1]}]}"#,
            "argument 6 does not exist",
        ),
        (
            r#"{"name":"g","reason":"r","action":"allow","syscalls":["bpf"],"when":[{"arg":0}]}"#,
            "exactly one of \"in\" and \"not_in\"",
        ),
        (
            r#"{"name":"g","reason":"r","action":"allow","syscalls":["bpf"],"when":[{"arg":0,"in":[]}]}"#,
            "1 to 64 values",
        ),
        (
            r#"{"name":"g","reason":"r","action":"allow","syscalls":["bpf"],"when":[{"arg":0,"in":["0x100000000"]}]}"#,
            "can never match",
        ),
        (
            r#"{"name":"g","reason":"r","action":"allow","syscalls":["bpf"],"when":[{"arg":0,"bits":16,"in":[1]}]}"#,
            "bits is 16; it is 32 or 64",
        ),
        (
            r#"{"name":"g","reason":"r","action":"allow","syscalls":["bpf"],"when":[{"arg":0,"in":["AF_NOPE"]}]}"#,
            "is not a constant that rules know",
        ),
        (
            r#"{"name":"g","reason":"r","action":{"notify":"EPERM"},"syscalls":["bpf"]},{"name":"h","reason":"r","action":{"notify":"EACCES"},"syscalls":["bpf"],"when":[{"arg":0,"in":[1]}]}"#,
            r#"bpf is reported with EACCES, but with EPERM in group "g"; a reported call has one errno"#,
        ),
        (
            r#"{"name":"g","reason":"r","action":"allow","syscalls":["bpf"]},{"name":"h","reason":"r","action":"allow","syscalls":["bpf"]}"#,
            r#"bpf is already in group "g""#,
        ),
    ] {
        let said = said(&with_group(group));
        assert!(said.contains(expected), "{group}: {said}");
    }
}

#[test]
fn nesting_and_size_are_bounded() {
    let start = std::time::Instant::now();
    said(&"[".repeat(200_000));
    assert!(said(&" ".repeat(300_000)).contains("larger than 262144 bytes"));
    assert!(start.elapsed().as_millis() < 500);
}

#[test]
fn names_do_not_leave_the_folder() {
    for name in ["../default-restrictive", "/etc/passwd", "", ".", "a/b", "A", "a\0b", &"x".repeat(64), "-x"]
    {
        let error = Profile::load(&folder(), name).expect_err(name);
        assert!(matches!(error, Error::BadName { .. }), "{name:?}: {error}");
    }
    let error = Profile::load(&folder(), "nope").expect_err("there is none");
    assert_eq!(error.code(), ErrorCode::ProfileNotFound);
    assert!(
        error.to_string().ends_with("there are: default-restrictive, network-client, tool-strict"),
        "{error}"
    );
    assert!(
        Profile::load(Path::new("/nonexistent"), "x")
            .expect_err("no folder")
            .to_string()
            .ends_with("there are: none")
    );
}

#[test]
fn a_child_replaces_the_rules_of_its_parent() {
    let json = with_group(
        r#"{"name":"mine","reason":"r","action":{"errno":"ENOSYS"},"syscalls":["socket","mount"]}"#,
    );
    let profile = Profile::parse("mine", json.as_bytes(), |name| {
        Ok(std::fs::read(folder().join(format!("{name}.json"))).expect("the parent"))
    })
    .expect("it is valid");
    let with = |call: &str| profile.groups().iter().filter(|g| g.syscalls().any(|s| s == call)).count();
    assert_eq!((with("socket"), with("mount"), with("umount2")), (1, 1, 1));
}

#[test]
fn the_committed_schema_is_current() {
    let path = folder().join("../schema/seccomp.schema.json");
    if std::env::var_os("AION_BLESS").is_some() {
        std::fs::write(&path, format!("{:#}\n", json_schema())).expect("it can be written");
    }
    let committed: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap_or_default()).unwrap_or_default();
    assert!(committed == json_schema(), "{} is stale: run `cargo xtask gen`", path.display());
}
