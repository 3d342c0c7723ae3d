//! Clients that the world uses, unmodified from their registry, at AION's doors.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use aion_e2e::Verdict;

use crate::kernel::World;

const KEY: &str = "sk-the-key-of-the-provider";

pub(crate) fn openai_langchain_and_mcp_clients_are_served() -> Verdict {
    let python = std::env::var_os("AION_MCP_VENV").map(|folder| Path::new(&folder).join("bin/python"));
    let Some(python) = python.filter(|path| path.exists()) else {
        return Verdict::Skipped(
            "AION_MCP_VENV names no Python environment with openai, langchain-openai and mcp".to_owned(),
        );
    };
    let world = World::start();
    let scripts = world.daemons.clone_dir().join("tests/e2e/peers");
    let mut backend =
        Command::new("python3").arg(scripts.join("backend.py")).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(backend.stdout.take().unwrap()).lines();
    let port = lines.next().unwrap().unwrap();
    let url = format!("http://127.0.0.1:{port}/v1");
    world
        .daemons
        .ctl(["model", "add", "tiny", "--local", "--key-file", "-", "--url", &url])
        .args(["--kind", "generate", "--kind", "embed"])
        .stdin(KEY)
        .ok();
    world.daemons.ctl(["apply", "-f", "-", "--tenant", "tenantA", "--as", "asker"]).stdin(
        r#"{"apiVersion": "aion.os/v1", "kind": "Agent", "metadata": {"name": "asker"},
            "spec": {"entry": "true", "capabilities": {"network": true}, "syscalls": ["tool.*", "model.*"]}}"#,
    ).ok();
    let token = world.daemons.ctl(["tenant", "token", "tenantA", "asker"]).ok().text();
    let clients = Command::new(python)
        .arg(scripts.join("clients.py"))
        .args([format!("http://{}", world.address()), token.trim().to_owned()])
        .output()
        .unwrap();
    let told =
        format!("{}{}", String::from_utf8_lossy(&clients.stdout), String::from_utf8_lossy(&clients.stderr));
    assert!(clients.status.success(), "{told}");
    assert!(!told.contains(KEY));
    backend.kill().unwrap();
    backend.wait().unwrap();
    let asked: Vec<String> = lines.map_while(Result::ok).collect();
    assert!(asked.len() >= 6 && asked.iter().all(|line| *line == format!("asked Bearer {KEY}")), "{asked:?}");
    world.daemons.finish().unwrap();
    Verdict::Passed
}
