//! fs.*: what is decided, and what becomes of bytes. Where files are opened is the launcher's business, and tested there.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::host::{FileInfo, FileUse};

fn info(path: &Path) -> FileInfo {
    let size = std::fs::metadata(path).map_or(0, |found| found.len());
    let kind = "file".to_owned();
    FileInfo {
        name: b"na\xffme".to_vec(),
        kind,
        size,
        modified_ns: 5_000_000,
        mode: 0o644,
        target: Vec::new(),
    }
}

fn part_of(path: &Path, part: &str) -> PathBuf {
    path.with_file_name(part)
}

/// Does to the path itself what the launcher does to the agent's.
pub(super) fn answer(path: &str, ask: FileAsk) -> Result<FileAnswer, Refusal> {
    let failed =
        |error: std::io::Error| Refusal::new(Reason::NotFound, ErrorCode::FileNotFound, error.to_string());
    let path = Path::new(path);
    let opened = |options: &mut OpenOptions, path: &Path| {
        let file = options.open(path).map_err(failed)?;
        Ok(FileAnswer::Opened(info(path), file))
    };
    match ask {
        FileAsk::Open { what_for: FileUse::Read } => opened(File::options().read(true), path),
        FileAsk::Open { what_for: FileUse::Write } => opened(File::options().write(true).create(true), path),
        FileAsk::Open { what_for: FileUse::Append } => {
            opened(File::options().append(true).create(true), path)
        }
        FileAsk::Open { what_for: FileUse::New } => {
            opened(File::options().write(true).create_new(true), path)
        }
        FileAsk::Open { what_for: FileUse::Part(part) } => {
            opened(File::options().write(true).create_new(true), &part_of(path, &part))
        }
        FileAsk::Put { part, keep: true } => {
            std::fs::rename(part_of(path, &part), path).map(|()| FileAnswer::Done).map_err(failed)
        }
        FileAsk::Put { part, keep: false } => {
            std::fs::remove_file(part_of(path, &part)).map(|()| FileAnswer::Done).map_err(failed)
        }
        FileAsk::Stat => Ok(FileAnswer::Info(info(path))),
        FileAsk::List { after, limit } => {
            Ok(FileAnswer::Page(vec![info(path); limit as usize], (after == 0).then_some(u64::MAX)))
        }
    }
}

/// An agent that may write to a folder of the test's, and not to one in it.
async fn world() -> (World, tempfile::TempDir, String) {
    let world = World::new().await;
    // Not in /tmp, which no manifest may name.
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let at = dir.path().display().to_string();
    let manifest = json!({
        "apiVersion": "aion.os/v1", "kind": "Agent", "metadata": {"name": "files"},
        "spec": {
            "entry": "x", "syscalls": ["fs.*"], "resources": {"file_size": "64Ki"},
            "capabilities": {"filesystem": true, "allow": [format!("fs:write:{at}/**")], "deny": ["fs:read:/workspace/no/**"]}
        }
    });
    world.fake.agents.lock().unwrap().push(("tenantA".to_owned(), "f".to_owned(), manifest.to_string()));
    (world, dir, at)
}

async fn good(world: &World, call: &str, params: Value) -> Value {
    let answer = world.call("f", call, params).await.answer;
    assert_eq!(answer.status, Status::Ok, "{answer:?}");
    answer.result
}

#[tokio::test]
async fn what_may_be_used_is_what_is_named() {
    let (world, _dir, at) = world().await;
    for (call, path, rule) in [
        (
            "fs.read",
            "/etc/passwd".to_owned(),
            "agent://tenantA/f: spec.capabilities grants no fs:read:/etc/passwd",
        ),
        ("fs.stat", format!("{at}x"), "grants no fs:read:"),
        ("fs.write", "/workspace/no/x".to_owned(), "deny fs:read:/workspace/no/**"),
        ("fs.list", "/workspace/no".to_owned(), "deny fs:read:/workspace/no/**"),
    ] {
        let data = if call == "fs.write" { json!({"path": path, "data": ""}) } else { json!({"path": path}) };
        let answer = world.call("f", call, data).await.answer;
        let error = answer.error.unwrap();
        assert_eq!((answer.status, error.code.as_str()), (Status::Denied, "POLICY_DENIED"), "{call} {path}");
        assert!(error.rule.contains(rule), "{error:?}");
    }
    let held = json!({
        "agent_id": "agent://tenantA/f", "syscall": "fs.read", "params": {"path": format!("{at}/a")},
        "caps_required": [format!("fs:read:{at}/b")],
    });
    assert_eq!(
        world.call_with(held).await.answer.status,
        Status::Denied,
        "what it names is all that it gets"
    );
    // Names that patterns could not have.
    good(&world, "fs.write", json!({"path": format!("{at}/a*[b]?"), "data": "x"})).await;
    assert_eq!(std::fs::read_to_string(format!("{at}/a*[b]?")).unwrap(), "x");
}

#[tokio::test]
async fn what_is_wrong_with_a_call_is_told_with_its_field() {
    let (world, _dir, at) = world().await;
    let path = format!("{at}/x");
    for (call, params, field) in [
        ("fs.read", json!({}), "params.path"),
        ("fs.read", json!({"path": 5}), "params.path"),
        ("fs.read", json!({"path": "/workspace/../etc"}), "params.path"),
        ("fs.read", json!({"path": "notes"}), "params.path"),
        ("fs.read", json!({"path": path, "max_bytes": 0}), "params.max_bytes"),
        ("fs.read", json!({"path": path, "max_bytes": 5 << 20}), "params.max_bytes"),
        ("fs.read", json!({"path": path, "offset": -1}), "params.offset"),
        ("fs.read", json!({"path": path, "encoding": "latin1"}), "params.encoding"),
        ("fs.read", json!({"path": path, "data": "x"}), "params.data"),
        ("fs.write", json!({"path": path}), "params.data"),
        ("fs.write", json!({"path": path, "data": "?", "encoding": "base64"}), "params.data"),
        ("fs.write", json!({"path": path, "data": "", "mode": "delete"}), "params.mode"),
        ("fs.write", json!({"path": path, "data": "", "mode": "append", "offset": 1}), "params.offset"),
        ("fs.list", json!({"path": path, "limit": 1001}), "params.limit"),
        ("fs.list", json!({"path": path, "after": "x"}), "params.after"),
        ("fs.stat", json!({"path": path, "x": 1}), "params.x"),
    ] {
        let error = world.call("f", call, params.clone()).await.answer.error.unwrap();
        assert_eq!((error.code.as_str(), error.field.as_str()), ("INVALID_FIELD", field), "{call} {params}");
    }
}

#[tokio::test]
async fn bytes_come_back_as_they_went() {
    let (world, dir, at) = world().await;
    let path = format!("{at}/x");
    let write = |params: Value| {
        let mut params = params;
        params["path"] = json!(path);
        good(&world, "fs.write", params)
    };
    write(json!({"data": "héllo"})).await;
    write(json!({"data": " wörld", "mode": "append"})).await;
    let size = write(json!({"data": "H", "mode": "update"})).await["size"].clone();
    assert_eq!(size, json!(13));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "Héllo wörld");
    let read = |params: Value| {
        let mut params = params;
        params["path"] = json!(path);
        good(&world, "fs.read", params)
    };
    // The limit is in the middle of a letter, which comes whole with the next piece.
    let first = read(json!({"max_bytes": 2})).await;
    assert_eq!((&first["data"], &first["bytes"], &first["more"]), (&json!("H"), &json!(1), &json!(true)));
    let rest = read(json!({"offset": 1})).await;
    assert_eq!(
        (&rest["data"], &rest["more"], &rest["encoding"]),
        (&json!("éllo wörld"), &json!(false), &json!("utf8"))
    );
    let cut = read(json!({"offset": 2, "max_bytes": 3})).await;
    assert_eq!((&cut["encoding"], &cut["data"]), (&json!("base64"), &json!(STANDARD.encode(b"\xa9ll"))));
    let behind = read(json!({"offset": 1_000_000})).await;
    assert_eq!((&behind["data"], &behind["more"]), (&json!(""), &json!(false)));
    write(json!({"data": STANDARD.encode(b"\0\xff"), "encoding": "base64", "mode": "replace"})).await;
    assert_eq!(std::fs::read(&path).unwrap(), b"\0\xff");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no part stays");
    assert_eq!(
        world.code("f", "fs.write", json!({"path": path, "data": "", "mode": "new"})).await,
        "FILE_NOT_FOUND"
    );
    let listed = good(&world, "fs.list", json!({"path": at, "limit": 2})).await;
    assert_eq!(
        (listed["entries"].as_array().unwrap().len(), &listed["next"]),
        (2, &json!(u64::MAX.to_string()))
    );
    let entry = &listed["entries"][0];
    assert_eq!(
        (&entry["name_base64"], &entry["mode"]),
        (&json!(STANDARD.encode(b"na\xffme")), &json!("0644"))
    );
    let last = good(&world, "fs.list", json!({"path": at, "after": u64::MAX.to_string()})).await;
    assert_eq!(last["next"], Value::Null);
}

#[tokio::test]
async fn no_file_grows_over_its_limit() {
    let (world, _dir, at) = world().await;
    let path = format!("{at}/x");
    let write = |data: String, mode: &str| {
        world.code("f", "fs.write", json!({"path": path, "data": data, "mode": mode}))
    };
    for mode in ["truncate", "new", "append", "replace"] {
        assert_eq!(write("y".repeat((64 << 10) + 1), mode).await, "TOO_LARGE", "{mode}");
    }
    assert!(!Path::new(&path).exists());
    assert_eq!(write("y".repeat(64 << 10), "append").await, "ok");
    assert_eq!(write("y".to_owned(), "append").await, "TOO_LARGE");
    let update = json!({"path": path, "data": "y", "mode": "update", "offset": 64 << 10});
    assert_eq!(world.code("f", "fs.write", update).await, "TOO_LARGE");
    let update = json!({"path": path, "data": "y", "mode": "update", "offset": u64::MAX});
    assert_eq!(world.code("f", "fs.write", update).await, "INVALID_FIELD");
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 64 << 10);
}
