//! Tools that are servers: started by the first call in a sandbox of their own, kept warm, and gone with what they belong to.

use std::fs;
use std::path::Path;
use std::time::Duration;

use aion_e2e::{Daemons, Verdict, Which, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::kernel::{AGENT, World};

/// A server of the Model Context Protocol that says how it lives.
const SERVER: &str = r#"
import json, os, sys, time
calls = 0
def can(path):
    try:
        open(path, "w").close()
        return True
    except OSError:
        return False
for line in sys.stdin:
    message = json.loads(line)
    method, params = message.get("method"), message.get("params") or {}
    if method == "initialize":
        result = {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}},
                  "serverInfo": {"name": "probe", "version": "1"}}
    elif method == "tools/call":
        calls += 1
        query = params["arguments"].get("query", "")
        if query == "hang":
            time.sleep(600)
        if query == "flood":
            while True:
                sys.stdout.write("x" * 65536)
        if query == "garbage":
            print("this is no JSON", flush=True)
            continue
        print("called", file=sys.stderr, flush=True)
        about = {"calls": calls, "pid": os.getpid(), "writes": can("/workspace/x"), "scratch": can("/tmp/x"),
                 "interfaces": sorted(os.listdir("/sys/class/net")) if os.path.isdir("/sys/class/net") else [],
                 "environment": sorted(os.environ), "host": os.path.exists("/var/tmp/aion-e2e-host-mark")}
        result = {"content": [{"type": "text", "text": json.dumps(about)}], "structuredContent": about}
    else:
        continue
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
"#;

fn install(daemons: &Daemons, folder: &Path, mark: &str) {
    fs::write(folder.join(format!("{mark}.py")), SERVER).unwrap();
    let manifest = format!(
        "apiVersion: aion.os/v1\nkind: Tool\nmetadata: {{name: probe}}\nspec:\n  entry: \"mcp:python3 -I {mark}.py\"\n  \
         files: [{mark}.py]\n  timeout: 20s\n"
    );
    let path = folder.join("tool.yml");
    fs::write(&path, manifest).unwrap();
    daemons.ctl(["tool", "install"]).args([path]).ok();
}

/// Processes of this host whose command line has a word with `mark`.
fn processes(mark: &str) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|b| *b == 0).any(|word| String::from_utf8_lossy(word).starts_with(mark))
    })
    .collect()
}

impl World {
    fn probe(&self, query: &str, ms: u64) -> Value {
        let body = json!({
            "agent_id": AGENT, "params": {"tool": "probe", "query": query}, "budget": {"latency_ms": ms},
        });
        self.signed("/v1/syscall/tool.invoke", &body).1
    }
}

pub(crate) fn a_server_is_confined_kept_and_replaced() {
    let mut world = World::start();
    let mark = format!("probe-{}", std::process::id());
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    install(&world.daemons, folder.path(), &mark);
    assert!(processes(&mark).is_empty(), "nothing runs before it is called");

    let first = world.probe("", 20_000);
    let about = &first["result"];
    assert_eq!(
        (&about["calls"], &about["writes"], &about["scratch"]),
        (&json!(1), &json!(false), &json!(true)),
        "{first:#}"
    );
    let interfaces = about["interfaces"].as_array().unwrap();
    assert!(interfaces.iter().all(|name| name == "lo"), "{interfaces:?}");
    assert_eq!(about["environment"], json!(["AION_TOOL", "HOME", "LANG", "PATH"]));
    assert_eq!(world.probe("", 20_000)["result"]["calls"], 2, "it is kept warm");
    let pids = processes(&mark);
    assert_eq!(pids.len(), 1);

    // Another tenant has a server of its own.
    let operator = world.daemons.ctl(["tool", "invoke", "probe", "-o", "json"]).json();
    assert_eq!(operator["calls"], 1);
    assert_eq!(processes(&mark).len(), 2);

    // A call that hangs ends in its time.
    let late = world.probe("hang", 300);
    assert_eq!(late["error"]["code"], "DEADLINE_EXCEEDED", "{late}");
    // It was killed, and the next call finds another.
    kill(Pid::from_raw(pids[0]), Signal::SIGKILL).unwrap();
    eventually("it is gone", Duration::from_secs(10), || !Path::new(&format!("/proc/{}", pids[0])).exists());
    assert_eq!(world.probe("", 20_000)["result"]["calls"], 1);
    // What is no protocol ends the server, not the kernel.
    for query in ["garbage", "flood"] {
        let failed = world.probe(query, 20_000);
        assert_eq!(failed["error"]["code"], "TOOL_FAILED", "{query}: {failed}");
        assert_eq!(world.probe("", 20_000)["result"]["calls"], 1, "after {query}");
    }

    // The daemon dies: what ran for it does not stay, and the next call starts anew.
    let before = processes(&mark);
    world.restart();
    eventually("they are gone", Duration::from_secs(20), || {
        processes(&mark).iter().all(|pid| !before.contains(pid))
    });
    assert_eq!(world.probe("", 20_000)["result"]["calls"], 1);
    // The launcher dies: the server runs on.
    let before = processes(&mark);
    world.daemons.kill_and_restart(Which::Launcher).unwrap();
    assert_eq!(world.probe("", 20_000)["result"]["calls"], 2);
    assert_eq!(processes(&mark), before);
    let agents = world.daemons.ctl(["ps", "-a", "-q", "--tenant", "tenantA"]).ok().text();
    assert!(!agents.contains("tool-"), "{agents}");

    world.daemons.ctl(["tool", "rm", "probe"]).ok();
    eventually("its servers are gone", Duration::from_secs(10), || processes(&mark).is_empty());
    world.daemons.finish().unwrap();
}

/// The reference servers of the protocol, unmodified, where `AION_MCP_NODE` names a folder that npm has filled.
pub(crate) fn servers_from_npm_run_unmodified() -> Verdict {
    let modules = std::env::var_os("AION_MCP_NODE").map(|folder| Path::new(&folder).join("node_modules"));
    let Some(modules) = modules.filter(|path| path.join("@modelcontextprotocol/server-everything").is_dir())
    else {
        return Verdict::Skipped(
            "AION_MCP_NODE names no folder with @modelcontextprotocol/server-everything".to_owned(),
        );
    };
    let world = World::start();
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let copied =
        std::process::Command::new("cp").arg("-r").arg(&modules).arg(folder.path()).status().unwrap();
    assert!(copied.success());
    for (name, there, server, more) in [
        ("echo", "echo", "server-everything", ""),
        ("read_file", "read_text_file", "server-filesystem", " /workspace/node_modules"),
    ] {
        let manifest = format!(
            "apiVersion: aion.os/v1\nkind: Tool\nmetadata: {{name: {name}}}\nspec:\n  \
             entry: \"mcp:node node_modules/@modelcontextprotocol/{server}/dist/index.js{more}\"\n  \
             mcp: {{tool: {there}}}\n  files: [node_modules]\n  timeout: 1m\n  security: {{cgroup: agent-default}}\n"
        );
        let path = folder.path().join(format!("{name}.yml"));
        fs::write(&path, manifest).unwrap();
        world.daemons.ctl(["tool", "install"]).args([path]).ok();
    }
    let said = world.daemons.ctl(["tool", "invoke", "echo", "message=hello", "-o", "json"]).json();
    assert_eq!(said["content"][0]["text"], "Echo: hello");
    let path = "path=/workspace/node_modules/@modelcontextprotocol/server-filesystem/package.json";
    let read = world.daemons.ctl(["tool", "invoke", "read_file", path, "-o", "json"]).json();
    assert!(read.to_string().contains("server-filesystem"), "{read}");
    let outside = world.daemons.ctl(["tool", "invoke", "read_file", "path=/etc/passwd", "-o", "json"]).done();
    assert_ne!(outside.code, 0, "the server keeps to its folder");
    world.daemons.finish().unwrap();
    Verdict::Passed
}
