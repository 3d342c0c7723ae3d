//! One call of a tool: arguments in, a result out, within its time.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aion_manifest::{Classes, McpEntry, ToolEntry};
use aion_mcp::ToolResult;
use aion_syscall::{Reason, Refusal};
use aion_types::{ErrorCode, TenantId};
use serde_json::{Value, json};

use crate::host::{Host, Sandbox, ToolEnd, ToolRun};
use crate::servers::{Servers, Spec, Start};
use crate::tools::Installed;

/// Bytes of a result.
const MAX_OUTPUT: usize = 4 << 20;
/// Where the runner of modules says in one word what went wrong.
const FAILURE: &str = "aion.os/failure";
/// Standard error that a failure shows.
const SHOWN: usize = 2000;

/// What tools are called with.
pub(crate) struct Caller<'a> {
    pub(crate) host: &'a Arc<dyn Host>,
    pub(crate) servers: &'a Servers,
    pub(crate) classes: &'a Classes,
    /// The program that runs WebAssembly.
    pub(crate) wasm_runner: &'a Path,
    pub(crate) tenant: &'a TenantId,
    pub(crate) audit_id: &'a str,
}

/// Folders that each sandbox has of its own: a program of the host that lies there cannot be shown in it.
const OWN_FOLDERS: [&str; 6] = ["/tmp", "/run", "/proc", "/dev", "/sys", "/workspace"];

/// Whether a sandbox can see the runner where the host has it.
fn visible(runner: &Path) -> Result<(), Refusal> {
    let Some(own) = OWN_FOLDERS.into_iter().find(|own| runner.starts_with(own)) else { return Ok(()) };
    let message = format!(
        "aion-wasm, which runs WebAssembly tools, is {}, and each sandbox has a {own} of its own that hides it",
        runner.display()
    );
    Err(Refusal::new(Reason::Failed, ErrorCode::ToolFailed, message).hint(format!(
        "put AION's programs elsewhere than below {own}, as /usr/libexec/aion, and start its daemons from there"
    )))
}

/// Nobody waits for the answer any more.
pub(crate) fn left(tool: &str) -> Refusal {
    let message = format!("tool {tool} was ended, as its caller has gone");
    Refusal::new(Reason::Failed, ErrorCode::ToolFailed, message)
}

impl Caller<'_> {
    pub(crate) async fn call(
        &self,
        installed: &Installed,
        arguments: Value,
        timeout: Duration,
    ) -> Result<Value, Refusal> {
        match &installed.tool.entry {
            ToolEntry::Exec(argv) => self.run(installed, argv, &arguments, timeout).await,
            ToolEntry::Wasm(module) => {
                visible(self.wasm_runner)?;
                let answer = self.serve(installed, self.wasm(installed, module), arguments, timeout).await?;
                module_result(&installed.tool.name, answer)
            }
            ToolEntry::Mcp(McpEntry::Stdio(argv)) => {
                let start = (argv.clone(), None);
                let answer = self.serve(installed, start, arguments, timeout).await?;
                server_result(&installed.tool.name, answer)
            }
            ToolEntry::Mcp(McpEntry::Http(url)) => {
                let answer = self.ask(installed, Start::Http(url.clone()), arguments, timeout).await?;
                server_result(&installed.tool.name, answer)
            }
        }
    }

    async fn run(
        &self,
        installed: &Installed,
        argv: &[String],
        arguments: &Value,
        timeout: Duration,
    ) -> Result<Value, Refusal> {
        let run = ToolRun {
            sandbox: self.sandbox(installed, argv.to_vec())?,
            audit_id: self.audit_id.to_owned(),
            stdin: arguments.to_string().into_bytes(),
            timeout,
            max_output: MAX_OUTPUT,
        };
        let end = self.host.run(run).await?;
        result(&installed.tool.name, timeout, &end)
    }

    /// The command that serves a module, and the program in it that is AION's.
    fn wasm<'p>(&'p self, installed: &Installed, module: &str) -> (Vec<String>, Option<&'p Path>) {
        let tool = &installed.tool;
        let mut argv = vec![
            self.wasm_runner.to_string_lossy().into_owned(),
            "serve".to_owned(),
            format!("/workspace/{module}"),
            "--name".to_owned(),
            tool.name.clone(),
            "--timeout-ms".to_owned(),
            tool.timeout_ms.to_string(),
            // Its own files are its working directory.
            "--dir".to_owned(),
            "/workspace=.:ro".to_owned(),
        ];
        if let Some(class) = self.classes.get(&tool.class) {
            // The other half is the runner's own.
            argv.extend(["--total-memory".to_owned(), (class.mem.0 / 2).to_string()]);
        }
        for (name, value) in [("--fuel", tool.wasm.fuel), ("--max-memory", tool.wasm.max_memory)] {
            argv.extend(value.into_iter().flat_map(|value| [name.to_owned(), value.to_string()]));
        }
        for (name, value) in &tool.env {
            argv.extend(["--env".to_owned(), format!("{name}={value}")]);
        }
        (argv, Some(self.wasm_runner))
    }

    async fn serve(
        &self,
        installed: &Installed,
        (argv, runner): (Vec<String>, Option<&Path>),
        arguments: Value,
        timeout: Duration,
    ) -> Result<ToolResult, Refusal> {
        let mut sandbox = self.sandbox(installed, argv)?;
        sandbox.runner = runner.map(Path::to_owned);
        self.ask(installed, Start::Sandbox(Box::new(sandbox)), arguments, timeout).await
    }

    async fn ask(
        &self,
        installed: &Installed,
        start: Start,
        arguments: Value,
        timeout: Duration,
    ) -> Result<ToolResult, Refusal> {
        let tool = &installed.tool;
        let spec = Spec {
            tenant: self.tenant.clone(),
            tool: tool.name.clone(),
            digest: installed.digest.clone(),
            start,
        };
        let Value::Object(arguments) = arguments else {
            return Err(Refusal::field("params", "they are not an object"));
        };
        self.servers.call(spec, &tool.mcp_tool, arguments, Instant::now() + timeout).await
    }

    fn sandbox(&self, installed: &Installed, mut argv: Vec<String>) -> Result<Sandbox, Refusal> {
        let tool = &installed.tool;
        let class = self.classes.get(&tool.class).cloned().ok_or_else(|| {
            let message = format!("there is no class {:?} any more", tool.class);
            Refusal::new(Reason::Conflict, ErrorCode::ProfileNotFound, message)
        })?;
        if let Some(program) = argv.first_mut()
            && program.contains('/')
            && !program.starts_with('/')
        {
            // Inside, its files are its working directory.
            *program = format!("/workspace/{program}");
        }
        let mut env: Vec<(String, String)> = tool.env.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        env.push(("AION_TOOL".to_owned(), tool.name.clone()));
        Ok(Sandbox {
            tenant: self.tenant.clone(),
            argv,
            env,
            folder: installed.folder.clone(),
            runner: None,
            class,
            seccomp_profile: tool.seccomp_profile.clone(),
            network: tool.network,
        })
    }
}

fn failed(message: String) -> Refusal {
    Refusal::new(Reason::Failed, ErrorCode::ToolFailed, message)
}

/// The end of a text, for people.
fn end_of(text: &str) -> &str {
    let text = text.trim();
    let from = text.char_indices().rev().nth(SHOWN).map_or(0, |(at, _)| at);
    text.get(from..).unwrap_or_default()
}

fn result(name: &str, timeout: Duration, end: &ToolEnd) -> Result<Value, Refusal> {
    match end.reason.as_str() {
        "timeout" => {
            let message = format!("tool {name} was ended after {} ms", timeout.as_millis());
            return Err(Refusal::new(Reason::Timeout, ErrorCode::DeadlineExceeded, message));
        }
        "oom" => return Err(failed(format!("tool {name} took more memory than its class has"))),
        _ => {}
    }
    if end.code != 0 {
        let said = String::from_utf8_lossy(&end.stderr);
        return Err(failed(format!(
            "tool {name} ended with {} ({}): {}",
            end.code,
            end.reason,
            end_of(&said)
        )));
    }
    if end.cut {
        return Err(failed(format!("tool {name} answered with more than {MAX_OUTPUT} bytes")));
    }
    serde_json::from_slice(&end.stdout)
        .map_err(|error| failed(format!("tool {name} did not answer with JSON: {error}")))
}

fn text_of(answer: &ToolResult) -> String {
    let blocks = answer.content.iter().filter_map(|block| block.get("text").and_then(Value::as_str));
    blocks.collect::<Vec<_>>().join("\n")
}

/// What a server says: its structured content, else the blocks that it gave.
fn server_result(name: &str, answer: ToolResult) -> Result<Value, Refusal> {
    if answer.is_error {
        return Err(failed(format!("tool {name} failed: {}", end_of(&text_of(&answer)))));
    }
    Ok(answer.structured.unwrap_or_else(|| json!({"content": answer.content})))
}

/// What the runner of modules says: the result itself, as JSON.
fn module_result(name: &str, answer: ToolResult) -> Result<Value, Refusal> {
    let text = text_of(&answer);
    if !answer.is_error {
        return match answer.structured {
            Some(object) => Ok(object),
            None => serde_json::from_str(&text)
                .map_err(|error| failed(format!("tool {name} did not answer with JSON: {error}"))),
        };
    }
    let message = format!("tool {name} failed: {}", end_of(&text));
    let code = answer.meta.get(FAILURE).and_then(|failure| failure.get("code")).and_then(Value::as_str);
    Err(match code {
        Some("timeout") => Refusal::new(Reason::Timeout, ErrorCode::DeadlineExceeded, message),
        _ => failed(message),
    })
}

/// Whether an address is one of this host's loopback.
pub(crate) fn is_local(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_told_from_what_looks_like_it() {
        for local in
            ["http://127.0.0.1:80/mcp", "http://[::1]:9/x", "http://localhost/mcp", "http://LOCALHOST:1"]
        {
            assert!(is_local(local), "{local}");
        }
        for other in [
            "https://mcp.example.com/",
            "http://127.0.0.1.example.com/",
            "http://localhost.example",
            "http://10.0.0.1",
        ] {
            assert!(!is_local(other), "{other}");
        }
    }

    #[test]
    fn a_runner_that_no_sandbox_can_see_is_told_before_it_is_started() {
        for good in ["/usr/libexec/aion/aion-wasm", "/root/target/tmp/aion-wasm", "/tmpfs/aion-wasm"] {
            assert_eq!(visible(Path::new(good)), Ok(()), "{good}");
        }
        for (hidden, own) in [("/tmp/aion/bin/aion-wasm", "/tmp"), ("/run/aion-wasm", "/run")] {
            let refusal = visible(Path::new(hidden)).unwrap_err();
            assert!(
                refusal.message.contains(hidden) && refusal.hint.contains(&format!("below {own}")),
                "{refusal:?}"
            );
        }
    }

    #[test]
    fn a_server_says_its_result_in_one_of_two_forms() {
        let structured = ToolResult::structured(serde_json::Map::from_iter([("n".to_owned(), json!(1))]));
        assert_eq!(server_result("t", structured).unwrap(), json!({"n": 1}));
        let text = server_result("t", ToolResult::text("hello")).unwrap();
        assert_eq!(text, json!({"content": [{"type": "text", "text": "hello"}]}));
        let refusal = server_result("t", ToolResult::error("no such file")).unwrap_err();
        assert_eq!(refusal.message, "tool t failed: no such file");
        assert_eq!(module_result("t", ToolResult::text("[1]")).unwrap(), json!([1]));
    }
}
