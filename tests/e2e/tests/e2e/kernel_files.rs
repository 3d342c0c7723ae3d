//! fs.read, fs.write, fs.list and fs.stat on files of a real agent: what works, and what does not lead out. Each way out is also
//! gone by root without AION's care, and must lead out there.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use aion_e2e::{eventually, until};
use serde_json::{Value, json};

use crate::kernel::{Reply, World};

const AGENT: &str = "agent://tenantA/files-1";
const OTHER: &str = "agent://tenantA/files-2";

struct Files {
    world: World,
    /// Folders of the host that the first agent is given: one to read, one to write.
    host: tempfile::TempDir,
}

impl Files {
    fn start() -> Self {
        let world = World::start();
        let host = tempfile::Builder::new().prefix("aion-e2e-files-").tempdir_in("/var/tmp").unwrap();
        fs::set_permissions(host.path(), PermissionsExt::from_mode(0o755)).unwrap();
        for folder in ["in", "out"] {
            fs::create_dir(host.path().join(folder)).unwrap();
            std::os::unix::fs::chown(host.path().join(folder), Some(1234), Some(1234)).unwrap();
        }
        fs::write(host.path().join("in/given"), "given").unwrap();
        fs::write(host.path().join("beside"), "not given").unwrap();
        // For the group of root, which an agent is not in and the launcher must not be.
        fs::write(host.path().join("in/of-the-group"), "not given").unwrap();
        fs::set_permissions(host.path().join("in/of-the-group"), PermissionsExt::from_mode(0o640)).unwrap();
        let at = |folder: &str| host.path().join(folder).display().to_string();
        let allow = json!([format!("fs:read:{}/**", at("in")), format!("fs:write:{}/**", at("out"))]);
        let capabilities = json!({
            "filesystem": true, "subprocess": true, "allow": allow,
            "deny": ["fs:write:/workspace/kept/**", "fs:read:/workspace/private/**"]
        });
        let files = Self { world, host };
        files.apply("files-1", &capabilities);
        files.apply("files-2", &json!({"filesystem": true, "subprocess": true}));
        files
    }

    fn apply(&self, name: &str, capabilities: &Value) {
        let manifest = json!({
            "apiVersion": "aion.os/v1", "kind": "Agent", "metadata": {"name": "files"},
            "spec": {
                "entry": "sleep 100000", "capabilities": capabilities, "syscalls": ["fs.*"],
                "resources": {"disk": "32Mi", "file_size": "8Mi"}
            }
        });
        let apply = self.world.daemons.ctl(["apply", "-f", "-", "--tenant", "tenantA", "--as", name]);
        apply.stdin(manifest.to_string()).ok();
    }

    fn launch(&self, name: &str) {
        self.world.daemons.ctl(["--tenant", "tenantA", "start", name]).ok();
    }

    fn call(&self, agent: &str, call: &str, params: Value) -> Reply {
        self.world.signed(&format!("/v1/syscall/fs.{call}"), &json!({"agent_id": agent, "params": params}))
    }

    fn good(&self, call: &str, params: Value) -> Value {
        let (number, answer) = self.call(AGENT, call, params.clone());
        assert_eq!((number, &answer["status"]), (200, &json!("ok")), "{call} {params}: {answer}");
        answer["result"].clone()
    }

    fn bad(&self, call: &str, params: Value) -> (u16, String, Value) {
        let (number, answer) = self.call(AGENT, call, params.clone());
        let code = answer["error"]["code"].as_str().unwrap_or_else(|| panic!("{call} {params}: {answer}"));
        (number, code.to_owned(), answer["error"].clone())
    }

    fn refused(&self, call: &str, path: &str, code: &str) -> Value {
        let params = if call == "write" { json!({"path": path, "data": "x"}) } else { json!({"path": path}) };
        let (_, got, error) = self.bad(call, params);
        assert_eq!(got, code, "{call} {path}: {error}");
        error
    }

    /// Runs a script in the first agent, and gives what it prints.
    fn inside(&self, script: &str) -> String {
        self.world
            .daemons
            .ctl(["--tenant", "tenantA", "exec", "files-1", "--", "sh", "-c", script])
            .ok()
            .text()
    }

    /// A path of the first agent as root reaches it, without any care.
    fn careless(&self, path: &str) -> PathBuf {
        let shown =
            self.world.daemons.ctl(["--tenant", "tenantA", "inspect", "files-1", "-o", "json"]).json();
        let shown = if shown.is_array() { shown[0].clone() } else { shown };
        let pid = shown["pid"].as_u64().unwrap_or_else(|| panic!("{shown}"));
        PathBuf::from(format!("/proc/{pid}/root{path}"))
    }

    fn at(&self, path: &str) -> String {
        self.host.path().join(path).display().to_string()
    }

    fn finish(self) {
        fs::remove_file(self.world.daemons.state().join("the-secret")).unwrap();
        self.world.daemons.finish().unwrap();
    }
}

pub(crate) fn files_are_read_and_written_as_the_agent_would() {
    let files = Files::start();
    let (number, code, error) = files.bad("read", json!({"path": "/workspace/x"}));
    assert_eq!((number, code.as_str()), (409, "AGENT_NOT_RUNNING"), "{error}");
    files.launch("files-1");
    let path = "/workspace/notes.txt";
    files.refused("read", path, "FILE_NOT_FOUND");
    let made = files.good("write", json!({"path": path, "data": "one\n"}));
    assert_eq!((&made["bytes"], &made["size"]), (&json!(4), &json!(4)));
    files.good("write", json!({"path": path, "data": "two\n", "mode": "append"}));
    files.good("write", json!({"path": path, "data": "O", "mode": "update", "offset": 0}));
    let (_, code, _) = files.bad("write", json!({"path": path, "data": "x", "mode": "new"}));
    assert_eq!(code, "FILE_EXISTS");
    // It is the agent's own: it can be read, changed and removed in there.
    let seen = files.inside(
        "cat notes.txt; stat -c '%u %a' notes.txt; id -u; echo more >> notes.txt; chmod 750 notes.txt",
    );
    assert_eq!(seen, "One\ntwo\n1000 644\n1000\n");
    let read = files.good("read", json!({"path": path, "offset": 4, "max_bytes": 3}));
    assert_eq!((&read["data"], &read["more"], &read["size"]), (&json!("two"), &json!(true), &json!(13)));
    // In place of the old file, with its rights, and nothing beside it.
    files.good("write", json!({"path": path, "data": "/+8=", "encoding": "base64", "mode": "replace"}));
    assert_eq!(files.inside("stat -c %a notes.txt; ls -A | grep -c part || true"), "750\n0\n");
    let read = files.good("read", json!({"path": path}));
    assert_eq!((&read["data"], &read["encoding"]), (&json!("/+8="), &json!("base64")));
    let (_, code, _) = files.bad("read", json!({"path": path, "encoding": "utf8"}));
    assert_eq!(code, "INVALID_FIELD");
    // Folders, page by page.
    files.inside("mkdir d && cd d && for i in $(seq 250); do echo $i > f$i; done; ln -s ../notes.txt link; mkfifo pipe; mkdir sub");
    let (mut names, mut after) = (Vec::new(), Value::Null);
    loop {
        let page = files.good("list", json!({"path": "/workspace/d", "limit": 60, "after": after}));
        let entries = page["entries"].as_array().unwrap();
        assert!(entries.len() <= 60);
        names.extend(
            entries.iter().map(|entry| (entry["name"].as_str().unwrap().to_owned(), entry["kind"].clone())),
        );
        after = page["next"].clone();
        if after.is_null() {
            break;
        }
    }
    names.sort_by(|a, b| a.0.cmp(&b.0));
    names.dedup();
    assert_eq!(names.len(), 253, "each once");
    for (name, kind) in [("f7", "file"), ("link", "link"), ("pipe", "other"), ("sub", "folder")] {
        assert!(names.contains(&(name.to_owned(), json!(kind))), "{name}");
    }
    let link = files.good("stat", json!({"path": "/workspace/d/link"}));
    assert_eq!((&link["kind"], &link["target"]), (&json!("link"), &json!("../notes.txt")));
    assert_eq!(files.good("stat", json!({"path": "/workspace"}))["kind"], "folder");
    // What the host gave it.
    let given = files.good("read", json!({"path": files.at("in/given")}));
    assert_eq!(given["data"], "given");
    files.refused("write", &files.at("in/given"), "POLICY_DENIED");
    files.good("write", json!({"path": files.at("out/new"), "data": "x", "mode": "replace"}));
    let owner = fs::metadata(files.host.path().join("out/new")).unwrap();
    assert_eq!((owner.uid(), owner.mode() & 0o777), (1234, 0o644), "it belongs to the folder's owner");
    // Rights that the agent does not have are not had by way of the kernel.
    files.inside("echo x > locked; chmod 000 locked");
    files.refused("read", "/workspace/locked", "FILE_REFUSED");
    assert_eq!(fs::read_to_string(files.careless("/workspace/locked")).unwrap(), "x\n", "root may");
    // An agent that is frozen holds nobody up.
    files.world.daemons.ctl(["--tenant", "tenantA", "pause", "files-1"]).ok();
    files.good("read", json!({"path": path}));
    files.world.daemons.ctl(["--tenant", "tenantA", "resume", "files-1"]).ok();
    files.finish();
}

pub(crate) fn limits_of_size_and_disk_hold() {
    let files = Files::start();
    files.launch("files-1");
    let block = "y".repeat(3 << 20);
    let write = |path: &str, mode: &str| {
        let params = json!({"path": path, "data": block, "mode": mode});
        files.call(AGENT, "write", params).1["error"].clone()
    };
    assert!(write("/workspace/a", "append").is_null() && write("/workspace/a", "append").is_null());
    let error = write("/workspace/a", "append");
    assert_eq!((&error["code"], &error["rule"]), (&json!("TOO_LARGE"), &json!("spec.resources.file_size")));
    let far = json!({"path": "/workspace/b", "data": "x", "mode": "update", "offset": 8 << 20});
    assert_eq!(files.bad("write", far).1, "TOO_LARGE");
    let full = (0..20).map(|n| write(&format!("/workspace/f{n}"), "replace")).find(|error| !error.is_null());
    let full = full.expect("32 MiB hold no 60");
    assert_eq!(
        (&full["code"], &full["rule"]),
        (&json!("DISK_FULL"), &json!("spec.resources.disk")),
        "{full}"
    );
    assert_eq!(files.inside("ls -A | grep -c part || true"), "0\n", "what did not fit leaves nothing");
    assert_eq!(files.bad("read", json!({"path": "/workspace/a", "max_bytes": 5 << 20})).1, "INVALID_FIELD");
    let read = files.good("read", json!({"path": "/workspace/a", "max_bytes": 4 << 20}));
    assert_eq!((&read["bytes"], &read["more"]), (&json!(4 << 20), &json!(true)));
    files.finish();
}

pub(crate) fn no_link_and_no_name_leads_out() {
    let files = Files::start();
    files.launch("files-1");
    files.launch("files-2");
    let planted = files.host.path().join("beside");
    // By name.
    let error = files.refused("read", "/etc/passwd", "POLICY_DENIED");
    assert!(error["rule"].as_str().unwrap().contains("grants no fs:read:/etc/passwd"), "{error}");
    files.refused("read", &files.at("beside"), "POLICY_DENIED");
    files.refused("list", &files.at(""), "INVALID_FIELD");
    files.refused("stat", "/proc/self/environ", "POLICY_DENIED");
    for path in
        ["/workspace/../etc/passwd", "/workspace/./a", "workspace/a", "/workspace//a", "/workspace/a\n", ""]
    {
        let error = files.refused("read", path, "INVALID_FIELD");
        assert_eq!(error["field"], "params.path", "{path}");
    }
    // A name as long and wide as can be keeps no denial out of the log.
    let wide = format!("/{}", "\u{20ac}".repeat(1300));
    let denied = files.call(AGENT, "read", json!({"path": wide})).1;
    assert_eq!(denied["error"]["code"], "POLICY_DENIED");
    let audit_id = denied["audit_id"].as_str().unwrap();
    eventually("the denial is in the audit log", Duration::from_secs(20), || {
        let query = ["--tenant", "tenantA", "audit", "query", "--kind", "api.syscall", "-o", "json"];
        files.world.daemons.ctl(query).json().to_string().contains(audit_id)
    });
    // What the agent's user may not open is not opened by root's groups.
    files.refused("read", &files.at("in/of-the-group"), "FILE_REFUSED");
    // What the manifest takes back, by its rule.
    files.inside(
        "mkdir private kept; echo p > private/p; echo k > kept/k; ln -s private open; ln -s kept/k k",
    );
    let error = files.refused("read", "/workspace/private/p", "POLICY_DENIED");
    assert!(error["rule"].as_str().unwrap().contains("deny fs:read:/workspace/private/**"), "{error}");
    files.refused("write", "/workspace/kept/k", "POLICY_DENIED");
    assert_eq!(files.good("read", json!({"path": "/workspace/kept/k"}))["data"], "k\n");
    // By links, also from inside to inside: what was decided is what is opened.
    files.inside(
        "ln -s /etc/shadow shadow; ln -s / root; ln -s ../../../../../../etc up; ln -s /proc/self/root magic; ln -s /proc/1/root init",
    );
    let host = files.at("beside");
    files.inside(&format!("ln -s {host} beside"));
    for (path, way_out) in [
        ("/workspace/shadow", true),
        ("/workspace/root/etc/hostname", true),
        ("/workspace/magic/etc/passwd", true),
        ("/workspace/beside", true),
        ("/workspace/up/passwd", true),
        ("/workspace/open/p", true),
        ("/workspace/k", true),
        ("/workspace/init/etc/passwd", false),
    ] {
        // A part of the path in the middle, and its end, for each of the calls.
        for call in ["read", "write"] {
            files.refused(call, path, "FILE_REFUSED");
        }
        files.refused("list", path, "FILE_REFUSED");
        if way_out {
            fs::metadata(files.careless(path))
                .unwrap_or_else(|error| panic!("no way out to be closed: {path}: {error}"));
        }
    }
    assert_eq!(fs::read_to_string(&planted).unwrap(), "not given", "and nothing was written through one");
    assert_eq!(
        fs::read_to_string(files.careless("/workspace/beside")).unwrap(),
        "not given",
        "though it leads there"
    );
    let replace = json!({"path": "/workspace/beside", "data": "x", "mode": "replace"});
    assert_eq!(files.bad("write", replace).1, "FILE_REFUSED");
    // Another agent's file of the same name is another file, and another tenant's agents are not spoken for.
    files.good("write", json!({"path": "/workspace/same", "data": "mine"}));
    assert_eq!(
        files.call(OTHER, "read", json!({"path": "/workspace/same"})).1["error"]["code"],
        "FILE_NOT_FOUND"
    );
    files.refused("read", &format!("{}/volumes", files.world.daemons.state().display()), "POLICY_DENIED");
    let foreign = files.call("agent://tenantB/files-1", "read", json!({"path": "/workspace/same"}));
    assert_eq!((foreign.0, &foreign.1["error"]["code"]), (403, &json!("PERMISSION_DENIED")));
    files.finish();
}

pub(crate) fn what_is_no_file_holds_nobody_up() {
    let files = Files::start();
    files.launch("files-1");
    files.inside("mkfifo pipe; mkdir folder");
    let device = files.host.path().join("in/zero");
    let made = Command::new("mknod").arg(&device).args(["c", "1", "5"]).status().unwrap();
    let pipe = files.careless("/workspace/pipe");
    let begun = Instant::now();
    files.refused("read", "/workspace/pipe", "FILE_REFUSED");
    files.refused("write", "/workspace/pipe", "FILE_REFUSED");
    files.refused("read", "/workspace/folder", "FILE_REFUSED");
    files.refused("write", "/workspace/folder", "FILE_REFUSED");
    files.refused("list", "/workspace/pipe", "FILE_NOT_FOUND");
    let replace = json!({"path": "/workspace/pipe", "data": "x", "mode": "replace"});
    assert_eq!(files.bad("write", replace).1, "FILE_REFUSED");
    assert!(begun.elapsed() < Duration::from_secs(10));
    // Without care it waits for a writer: until this test is one.
    let waits = thread::spawn({
        let pipe = pipe.clone();
        move || fs::read(pipe).unwrap()
    });
    thread::sleep(Duration::from_millis(300));
    assert!(!waits.is_finished(), "a pipe without a writer should hold its reader up");
    fs::write(&pipe, "now").unwrap();
    assert_eq!(waits.join().unwrap(), b"now");
    if made.success() {
        files.refused("read", &files.at("in/zero"), "FILE_REFUSED");
        let mut zeros = [1; 4];
        std::io::Read::read_exact(&mut fs::File::open(&device).unwrap(), &mut zeros).unwrap();
        assert_eq!(zeros, [0; 4], "outside it is a device");
        fs::remove_file(&device).unwrap();
    }
    files.finish();
}

/// An agent that exchanges a folder for a link, again and again, wins the race against whoever checks first and opens then.
pub(crate) fn a_race_is_not_won() {
    let files = Files::start();
    files.launch("files-1");
    files.inside("mkdir race race/a && echo inside > race/a/hostname && ln -s /etc race/b");
    let script = "import os,ctypes\nos.chdir('race')\n\
        libc = ctypes.CDLL(None)\nopen('begun','w')\n\
        while not os.path.exists('stop'):\n libc.renameat2(-100, b'a', -100, b'b', 2)\n";
    let racer = files
        .world
        .daemons
        .ctl(["--tenant", "tenantA", "exec", "files-1", "--", "python3", "-c", script])
        .spawn();
    let raced = files.careless("/workspace/race");
    eventually("the race has begun", Duration::from_secs(20), || raced.join("begun").exists());
    let (mut seen, mut refused) = (0, 0);
    for _ in 0..150 {
        let (_, answer) = files.call(AGENT, "read", json!({"path": "/workspace/race/a/hostname"}));
        match answer["error"]["code"].as_str() {
            None => {
                assert_eq!(answer["result"]["data"], "inside\n");
                seen += 1;
            }
            Some(code) => {
                assert!(["FILE_REFUSED", "FILE_NOT_FOUND"].contains(&code), "{answer}");
                refused += 1;
            }
        }
    }
    assert!(seen > 0 && refused > 0, "there was no race: {seen} seen, {refused} refused");
    let out = until(Duration::from_secs(20), || {
        let file = raced.join("a/hostname");
        // As who looks before and opens afterwards would.
        let looked = fs::symlink_metadata(raced.join("a")).is_ok_and(|found| found.is_dir());
        let read = fs::read_to_string(file).ok()?;
        (looked && read != "inside\n").then_some(read)
    });
    assert!(out.is_some(), "who looks first should lose the race at least once");
    files.inside("touch race/stop");
    racer.done_quietly();
    files.finish();
}

pub(crate) fn a_file_is_replaced_as_a_whole() {
    const LENGTH: usize = 3 << 20;
    let files = Files::start();
    files.launch("files-1");
    let (one, two) = ("a".repeat(LENGTH), "b".repeat(LENGTH));
    let path = "/workspace/whole";
    files.good("write", json!({"path": path, "data": one}));
    let file = files.careless(path);
    // How many of these writes were seen half done.
    let torn = |mode: &str, writes: usize| {
        let (stop, torn) = (AtomicBool::new(false), AtomicUsize::new(0));
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let read = fs::read(&file).unwrap();
                    if read.len() != LENGTH || read[0] != read[LENGTH - 1] {
                        torn.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
            for n in 0..writes {
                let data = if n % 2 == 0 { &two } else { &one };
                files.good("write", json!({"path": path, "data": data, "mode": mode}));
                if mode != "replace" && torn.load(Ordering::Relaxed) > 0 {
                    break;
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        torn.into_inner()
    };
    assert_eq!(torn("replace", 25), 0);
    assert!(torn("truncate", 500) > 0, "a file that is written in place should be seen half written");
    files.finish();
}
