//! Ordinary programs run under the profiles, and none of them is reported for anything.

use std::path::Path;
use std::process::Command;

use crate::{load, probe, python};

/// Threads, subprocesses, sockets, files: what a runtime does on an ordinary day.
const PYTHON: &str = r#"
import threading, subprocess, socket, os, tempfile, multiprocessing, asyncio, sqlite3, mmap, select, signal, getpass, ssl
t = threading.Thread(target=lambda: None); t.start(); t.join()
assert subprocess.run(["/bin/sh", "-c", "echo hi | cat"], capture_output=True).stdout == b"hi\n"
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map(abs, [-1, -2]) == [1, 2]
async def main():
    p = await asyncio.create_subprocess_exec("true"); assert await p.wait() == 0
asyncio.run(main())
db = sqlite3.connect("x.db"); db.execute("create table if not exists t(a)"); db.commit()
os.symlink("x.db", "link"); os.unlink("link")
try: socket.getaddrinfo("localhost", 80)
except OSError: pass
s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen(); c = socket.create_connection(s.getsockname()); c.close()
print("fine")
"#;

const PYTHON_TOOL: &str = r#"
import threading, subprocess, json, os, asyncio
t = threading.Thread(target=lambda: None); t.start(); t.join()
assert subprocess.run(["/bin/sh", "-c", "echo hi | cat"], capture_output=True).stdout == b"hi\n"
async def main(): await asyncio.sleep(0.01)
asyncio.run(main())
open("out.json", "w").write(json.dumps({"a": 1})); os.rename("out.json", "done.json")
"#;

const NODE: &str = r#"
const { execFileSync } = require("child_process"); const fs = require("fs"); const net = require("net");
const { Worker } = require("worker_threads");
if (execFileSync("echo", ["hi"]).toString() !== "hi\n") process.exit(1);
fs.writeFileSync("f", "x"); fs.readFile("f", (e) => { if (e) process.exit(2);
  const server = net.createServer((c) => c.end("ok")).listen(0, "127.0.0.1", () => {
    net.connect(server.address().port, "127.0.0.1").on("data", () => { server.close();
      new Worker("require('zlib').gzipSync('x')", { eval: true }).on("exit", (c) => process.exit(c)); }); }); });
"#;

fn runs(profile: &str, argv: &[&str], dir: &Path) {
    if !Command::new("which").arg(argv[0]).output().is_ok_and(|o| o.status.success())
        && !Path::new(argv[0]).exists()
    {
        println!("skipped: {} is not installed", argv[0]);
        return;
    }
    let report = probe(&load(profile).1, &[], argv, dir);
    assert_eq!(report.status, 0, "{profile}: {argv:?}: {}", report.stderr);
    assert!(report.reported.is_empty(), "{profile}: {argv:?} was reported for {:?}", report.reported);
}

#[test]
fn ordinary_programs_run() {
    if !python() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    runs("default-restrictive", &["python3", "-c", PYTHON], dir);
    runs("default-restrictive", &["node", "-e", NODE], dir);
    runs("tool-strict", &["python3", "-c", PYTHON_TOOL], dir);
    runs(
        "network-client",
        &["python3", "-c", "import socket; socket.socket().close(); socket.getaddrinfo('localhost', 1)"],
        dir,
    );
    runs(
        "default-restrictive",
        &[
            "sh",
            "-c",
            "git init -q r && cd r && echo x > f && git add f && git -c user.name=a -c user.email=a@b commit -qm x && git gc -q",
        ],
        dir,
    );
    runs(
        "default-restrictive",
        &[
            "sh",
            "-c",
            "tar cf t.tar r && mkdir -p u && tar xf t.tar -C u && cp -a r v && ls -lR v >/dev/null && rm -r v u && sleep 0.01",
        ],
        dir,
    );
    std::fs::write(dir.join("a.c"), "#include <pthread.h>\n#include <unistd.h>\n#include <sys/wait.h>\nstatic void*f(void*p){return p;}\n\
        int main(void){pthread_t t;if(pthread_create(&t,0,f,0))return 1;pthread_join(t,0);pid_t c=fork();if(!c)_exit(0);int s;waitpid(c,&s,0);return s;}\n").unwrap();
    runs("default-restrictive", &["gcc", "-O1", "-pthread", "-static", "-o", "a", "a.c"], dir);
    for profile in ["default-restrictive", "tool-strict", "network-client"] {
        runs(profile, &["./a"], dir);
        runs(profile, &["sh", "-c", "true; (exit 0); ls / | head -1"], dir);
    }
}
