//! Files of a running agent, asked for as a taken-over aiond would.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;

use aion_launcher_proto::v1::{self, FileUse, request::Op, response::Result as Answer};

use crate::client::{Client, until};
use crate::daemon::Daemon;
use crate::fixtures::{id, sh};

fn open(
    client: &mut Client,
    id: &str,
    path: &str,
    what_for: FileUse,
    part: &str,
) -> Result<OwnedFd, v1::Error> {
    let op = Op::OpenFile(v1::OpenFile {
        id: id.into(),
        path: path.into(),
        r#use: what_for.into(),
        part: part.into(),
    });
    client.call_with(op, &[]).map(|(answer, mut fds)| {
        assert!(matches!(answer, Answer::File(_)), "{answer:?}");
        assert_eq!(fds.len(), 1);
        fds.remove(0)
    })
}

fn put(client: &mut Client, id: &str, path: &str, part: &str, keep: bool) -> Result<(), v1::Error> {
    let put = v1::PutFile { id: id.into(), path: path.into(), part: part.into(), keep };
    client.call(Op::PutFile(put)).map(drop)
}

fn stat(client: &mut Client, id: &str, path: &str) -> Result<v1::FileInfo, v1::Error> {
    match client.call(Op::StatFile(v1::StatFile { id: id.into(), path: path.into() }))? {
        Answer::File(info) => Ok(info),
        other => panic!("not a file: {other:?}"),
    }
}

fn list(client: &mut Client, id: &str, path: &str, after: u64) -> Result<v1::FolderPage, v1::Error> {
    let list = v1::ListFolder { id: id.into(), path: path.into(), after, limit: 1000 };
    match client.call(Op::ListFolder(list))? {
        Answer::Folder(page) => Ok(page),
        other => panic!("not a folder: {other:?}"),
    }
}

#[test]
fn nothing_but_the_workspace_and_the_binds_is_opened() {
    let Some(daemon) = Daemon::start(&[]) else { return };
    let mut client = daemon.client();
    let host = tempfile::tempdir_in("/var/tmp").unwrap();
    for folder in ["in", "in/deep", "out"] {
        std::fs::create_dir(host.path().join(folder)).unwrap();
    }
    std::fs::write(host.path().join("in/one"), "one").unwrap();
    std::fs::write(host.path().join("beside"), "beside").unwrap();
    let at = |path: &str| host.path().join(path).display().to_string();
    let mut asked = sh("echo mine > note; ln -s / root; sleep 1000");
    asked.binds = [("in", false), ("out", true)]
        .map(|(path, writable)| v1::Bind { path: at(path).into_bytes(), writable })
        .to_vec();
    asked.secrets = vec![v1::Secret { name: "token".into(), value: b"t".to_vec() }];
    client.launch(&asked).unwrap();
    until("the script has written", || stat(&mut client, &asked.id, "/workspace/root").is_ok());
    for path in [
        "/",
        "/etc/passwd",
        "/proc/self/environ",
        "/proc/1/root/etc/passwd",
        "/run/secrets/token",
        "/dev/null",
        "/tmp/x",
        "/workspacex",
        &at("beside"),
        &at(""),
    ] {
        let error = open(&mut client, &asked.id, path.trim_end_matches('/'), FileUse::Read, "").unwrap_err();
        assert_eq!(
            (error.code.as_str(), error.field.as_str()),
            ("INVALID_FIELD", "path"),
            "{path}: {error:?}"
        );
    }
    for path in ["/workspace/root/etc/passwd", "/workspace/root"] {
        for what_for in [FileUse::Read, FileUse::Write, FileUse::Append] {
            let error = open(&mut client, &asked.id, path, what_for, "").unwrap_err();
            assert_eq!(error.code, "FILE_REFUSED", "{path}: {error:?}");
        }
    }
    // A folder is no file for anybody: a descriptor of one would be a way on.
    for path in ["/workspace", "/workspace/", &at("in"), &at("in/deep")] {
        let path = path.trim_end_matches('/');
        assert_eq!(open(&mut client, &asked.id, path, FileUse::Read, "").unwrap_err().code, "FILE_REFUSED");
        assert_eq!(
            open(&mut client, &asked.id, path, FileUse::Write, "").unwrap_err().code,
            "FILE_REFUSED",
            "{path}"
        );
    }
    open(&mut client, &asked.id, "/workspace/note", FileUse::Read, "").unwrap();
    open(&mut client, &asked.id, &at("in/one"), FileUse::Read, "").unwrap();
    for what_for in [FileUse::Write, FileUse::New, FileUse::Append] {
        let error = open(&mut client, &asked.id, &at("in/two"), what_for, "").unwrap_err();
        assert_eq!(error.code, "FILE_REFUSED", "it is given to be read: {error:?}");
    }
    open(&mut client, &asked.id, &at("out/two"), FileUse::New, "").unwrap();
    let names: Vec<_> =
        list(&mut client, &asked.id, &at("in"), 0).unwrap().entries.into_iter().map(|e| e.name).collect();
    assert!(names.contains(&b"one".to_vec()) && names.contains(&b"deep".to_vec()) && names.len() == 2);
    // Any number may come as a place to go on from.
    for after in [1, 12_345, u64::MAX, u64::MAX / 2] {
        let _ = list(&mut client, &asked.id, "/workspace", after);
    }
    // Whoever did all this as the agent's user is root again: the same connection launches, kills and removes.
    let more = sh("sleep 1000");
    client.launch(&more).unwrap();
    for agent in [&asked.id, &more.id] {
        client.kill(agent).unwrap();
        let error = stat(&mut client, agent, "/workspace").unwrap_err();
        assert_eq!(error.code, "AGENT_NOT_RUNNING");
        client.remove(agent).unwrap();
    }
}

#[test]
fn a_part_is_our_own_and_goes_into_its_place() {
    let Some(daemon) = Daemon::start(&[]) else { return };
    let mut client = daemon.client();
    let asked = sh(
        "echo old > file; chmod 640 file; mkdir folder; mkfifo pipe; ln -s file link; echo x > ready; sleep 1000",
    );
    client.launch(&asked).unwrap();
    until("the script has written", || stat(&mut client, &asked.id, "/workspace/ready").is_ok());
    let part = id();
    let fd = open(&mut client, &asked.id, "/workspace/file", FileUse::Part, &part).unwrap();
    File::from(fd).write_all(b"new").unwrap();
    assert_eq!(stat(&mut client, &asked.id, "/workspace/file").unwrap().size, 4);
    // Twice the same name is a mistake; another is none of the launcher's.
    assert_eq!(
        open(&mut client, &asked.id, "/workspace/file", FileUse::Part, &part).unwrap_err().code,
        "FILE_EXISTS"
    );
    assert_eq!(
        put(&mut client, &asked.id, "/workspace/file", &id(), true).unwrap_err().code,
        "FILE_NOT_FOUND"
    );
    for name in ["ready", "../file", ""] {
        assert_eq!(put(&mut client, &asked.id, "/workspace/file", name, false).unwrap_err().field, "part");
    }
    put(&mut client, &asked.id, "/workspace/file", &part, true).unwrap();
    let found = stat(&mut client, &asked.id, "/workspace/file").unwrap();
    assert_eq!((found.size, found.mode), (3, 0o640), "with the rights of what was there");
    for path in ["/workspace/folder", "/workspace/pipe", "/workspace/link"] {
        let error = open(&mut client, &asked.id, path, FileUse::Part, &id()).unwrap_err();
        assert_eq!(error.code, "FILE_REFUSED", "{path}");
    }
    let part = id();
    drop(open(&mut client, &asked.id, "/workspace/folder/new", FileUse::Part, &part).unwrap());
    put(&mut client, &asked.id, "/workspace/folder/new", &part, false).unwrap();
    assert!(list(&mut client, &asked.id, "/workspace/folder", 0).unwrap().entries.is_empty());
    client.kill(&asked.id).unwrap();
    client.remove(&asked.id).unwrap();
}
