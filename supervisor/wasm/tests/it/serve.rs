//! The binary over its pipes: what it answers, side by side, to garbage, and how much memory it takes.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::guest::{TARGETS, guest};

pub(crate) struct Runner {
    pub(crate) child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Drop for Runner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Runner {
    pub(crate) fn start(target: &str, flags: &[&str]) -> Self {
        Self::spawn(Command::new(env!("CARGO_BIN_EXE_aion-wasm")), target, flags)
    }

    /// Starts it by a program whose last arguments are the command.
    pub(crate) fn start_under(mut loader: Command, target: &str, flags: &[&str]) -> Self {
        loader.arg(env!("CARGO_BIN_EXE_aion-wasm"));
        Self::spawn(loader, target, flags)
    }

    fn spawn(mut command: Command, target: &str, flags: &[&str]) -> Self {
        command.arg("serve").arg(guest(target)).args(["--name", "guest"]).args(flags);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut runner = Self { child, stdin, stdout };
        let hello = runner.ask(0, "initialize", &json!({"protocolVersion": "2025-06-18"}));
        assert_eq!(hello["result"]["serverInfo"]["name"], "aion-wasm");
        runner.say(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}).to_string());
        runner
    }

    pub(crate) fn say(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(line.as_bytes()).unwrap();
        stdin.write_all(b"\n").unwrap();
    }

    pub(crate) fn hear(&mut self) -> Value {
        let mut line = String::new();
        assert!(self.stdout.read_line(&mut line).unwrap() > 0, "the runner ended");
        serde_json::from_str(&line).unwrap()
    }

    pub(crate) fn request(&mut self, id: u64, method: &str, params: &Value) {
        self.say(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string());
    }

    pub(crate) fn ask(&mut self, id: u64, method: &str, params: &Value) -> Value {
        self.request(id, method, params);
        let answer = self.hear();
        assert_eq!(answer["id"], id, "{answer}");
        answer
    }

    fn start_call(&mut self, id: u64, what: &str) {
        self.request(id, "tools/call", &json!({"name": "guest", "arguments": {"do": what}}));
    }

    pub(crate) fn call(&mut self, id: u64, what: &str) -> Value {
        self.start_call(id, what);
        let answer = self.hear();
        assert_eq!(answer["id"], id, "{answer}");
        answer["result"].clone()
    }
}

#[test]
fn it_is_a_server_with_one_tool() {
    let folder = tempfile::tempdir().unwrap();
    let schema = json!({"type": "object", "properties": {"do": {"type": "string"}}, "required": ["do"]});
    let file = folder.path().join("schema.json");
    std::fs::write(&file, schema.to_string()).unwrap();
    for target in TARGETS {
        let mut runner =
            Runner::start(target, &["--input-schema", file.to_str().unwrap(), "--description", "Does it."]);
        let tools = runner.ask(1, "tools/list", &json!({}))["result"]["tools"].clone();
        assert_eq!(tools, json!([{"name": "guest", "description": "Does it.", "inputSchema": schema}]));
        assert_eq!(runner.ask(2, "ping", &json!({}))["result"], json!({}));
        let result = runner.call(3, "echo");
        assert_eq!(
            (&result["isError"], &result["structuredContent"]),
            (&json!(false), &json!({"do": "echo"}))
        );
        assert_eq!(result["content"], json!([{"type": "text", "text": "{\"do\":\"echo\"}"}]));
        assert!(result["_meta"]["aion.os/usage"]["fuel"].as_u64().unwrap() > 0, "{result}");
        let result = runner.call(4, "list");
        assert_eq!(
            (&result["structuredContent"], &result["content"][0]["text"]),
            (&Value::Null, &json!("[1,2,3]"))
        );
        let result = runner.call(5, "exit");
        assert_eq!(result["isError"], true);
        assert_eq!(result["_meta"]["aion.os/failure"]["code"], "exit");
        assert!(result["content"][0]["text"].as_str().unwrap().contains("it is broken"), "{result}");
        let unknown = runner.ask(6, "tools/call", &json!({"name": "other"}));
        assert_eq!(unknown["error"]["code"], -32602);
        // The last answers come although nothing more is asked.
        runner.start_call(7, "short-sleep");
        drop(runner.stdin.take());
        assert_eq!(runner.hear()["result"]["content"][0]["text"], "true");
        assert!(runner.child.wait().unwrap().success());
    }
}

#[test]
fn garbage_does_not_end_it() {
    let mut runner = Runner::start(TARGETS[0], &[]);
    let long = "x".repeat(5 << 20);
    let values = format!("[{}0]", "0,".repeat(300_000));
    for line in
        ["{", "\u{0}\u{1}", "null", "{}", &long, &values, r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#]
    {
        runner.say(line);
        assert!(runner.hear()["error"]["code"].is_i64());
    }
    runner.stdin.as_mut().unwrap().write_all(b"\xff\xfe\n\n\n").unwrap();
    assert_eq!(runner.hear()["error"]["code"], -32700);
    assert_eq!(runner.call(1, "list")["isError"], false);
}

#[test]
fn calls_run_side_by_side_and_are_cancelled() {
    let mut runner = Runner::start(TARGETS[0], &["--fuel", "18446744073709551615", "--timeout-ms", "60000"]);
    // Three that never end, in a runner that runs four.
    for (id, what) in [(1, "loop"), (2, "loop"), (3, "sleep")] {
        runner.start_call(id, what);
    }
    for id in 10..20 {
        assert_eq!(runner.call(id, "echo")["isError"], false);
    }
    runner.start_call(4, "loop");
    // Now all places are taken, and this waits for one.
    runner.start_call(20, "list");
    std::thread::sleep(Duration::from_millis(100));
    let begun = Instant::now();
    runner.say(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":2}}"#);
    assert_eq!(runner.hear()["id"], 20);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    for id in [1, 3, 4] {
        let params = json!({"requestId": id});
        runner.say(
            &json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}).to_string(),
        );
    }
    // With nothing left to answer, it ends with its input.
    drop(runner.stdin.take());
    assert!(runner.child.wait().unwrap().success());
}

#[test]
fn the_memory_of_the_process_stays_bounded() {
    let mut runner = Runner::start(TARGETS[0], &["--max-memory", "33554432"]);
    for round in 0..5 {
        for (n, (what, code)) in
            [("allocate", "memory"), ("flood", "output"), ("recurse", "trap"), ("many-values", "output")]
                .into_iter()
                .enumerate()
        {
            let result = runner.call(100 + round * 10 + n as u64, what);
            assert_eq!(result["_meta"]["aion.os/failure"]["code"], code, "{result}");
        }
    }
    let peak = status(runner.child.id(), "VmHWM:");
    eprintln!("peak of the runner after hostile calls: {peak} kB");
    assert!(peak < 200 << 10, "{peak} kB");
}

/// A figure of `/proc/PID/status`, in kB.
pub(crate) fn status(pid: u32, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn check(path: &std::path::Path) -> (Value, Output) {
    let out = Command::new(env!("CARGO_BIN_EXE_aion-wasm")).arg("check").arg(path).output().unwrap();
    (serde_json::from_slice(&out.stdout).unwrap(), out)
}

#[test]
fn check_says_what_a_file_is() {
    let (report, out) = check(guest(TARGETS[0]));
    assert_eq!(
        (&report["ok"], &report["kind"], &report["wasi"]),
        (&json!(true), &json!("component"), &json!("preview2"))
    );
    assert!(out.status.success());
    assert!(report["imports"].to_string().contains("wasi:cli/stdin"), "{report}");
    let (report, _) = check(guest(TARGETS[1]));
    assert_eq!((&report["kind"], &report["wasi"]), (&json!("module"), &json!("preview1")));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.wasm");
    std::fs::write(&file, "no module").unwrap();
    for path in [file, folder.path().join("none.wasm")] {
        let (report, out) = check(&path);
        assert_eq!(report["ok"], false);
        assert_eq!(out.status.code(), Some(1));
        // A runner of such a file ends at once, and says why.
        let served = Command::new(env!("CARGO_BIN_EXE_aion-wasm")).arg("serve").arg(&path).output().unwrap();
        assert_eq!(served.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&served.stderr).starts_with("aion-wasm: cannot serve"));
    }
}
