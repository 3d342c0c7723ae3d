//! The doors under requests that schemathesis makes up from our own OpenAPI document: no 5xx, no hang, and what is answered is what the
//! document says.

use std::path::Path;
use std::process::Command;

use aion_e2e::{Verdict, Which};
use serde_json::json;

use crate::kernel::{AGENT, SECRET, World};

/// Requests for each operation; about a minute in all.
const EXAMPLES: &str = "60";
const CHECKS: &str =
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";

pub(crate) fn what_schemathesis_makes_up_is_answered_as_documented() -> Verdict {
    let program =
        std::env::var_os("AION_FUZZ_VENV").map(|folder| Path::new(&folder).join("bin/schemathesis"));
    let Some(program) = program.filter(|path| path.exists()) else {
        return Verdict::Skipped("AION_FUZZ_VENV names no Python environment with schemathesis".to_owned());
    };
    let world = World::start();
    let manifest = json!({
        "apiVersion": "aion.os/v1", "kind": "Agent", "metadata": {"name": "fuzzed"},
        "spec": {"entry": "true", "capabilities": {"network": true}, "syscalls": ["*"]}
    });
    world
        .daemons
        .ctl(["apply", "-f", "-", "--tenant", "tenantA", "--as", "fuzzed"])
        .stdin(manifest.to_string())
        .ok();
    let token = world.daemons.ctl(["tenant", "token", "tenantA", "fuzzed"]).ok().text();
    let folder = tempfile::tempdir().unwrap();
    let examples = std::env::var("AION_FUZZ_EXAMPLES").unwrap_or_else(|_| EXAMPLES.to_owned());
    let run = Command::new(program)
        .args(["run", &format!("http://{}/openapi.json", world.address())])
        .args(["--checks", CHECKS, "--phases", "examples,coverage,fuzzing", "--max-examples", &examples])
        // A stream has no end; it has tests of its own.
        .args(["--exclude-path", "/v1/events/stream"])
        .args(["--seed", "1", "--workers", "2", "--request-timeout", "30", "--no-color", "--generation-database", "none"])
        .current_dir(folder.path())
        .env("SCHEMATHESIS_HOOKS", "fuzz")
        .env("PYTHONPATH", world.daemons.clone_dir().join("tests/e2e/peers"))
        .envs([("AION_TENANT", "tenantA"), ("AION_SECRET", SECRET), ("AION_TOKEN", token.trim())])
        .envs([("AION_AGENT_ID", "agent://tenantA/fuzzed")])
        .env("AION_CALLS", "tool.invoke,tool.list,model.generate,model.embed,model.list,memory.put,memory.get,memory.query,memory.delete,net.fetch,secret.use")
        .output()
        .unwrap();
    let told = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{told}");
    let log = std::fs::read_to_string(world.daemons.log(Which::Aiond)).unwrap();
    assert!(!log.contains("panicked") && !log.contains("did not run to its end"), "{log}");
    let put = json!({"agent_id": AGENT, "key": "k", "value": 1});
    assert_eq!(world.signed("/v1/memory/put", &put).0, 200);
    world.daemons.finish().unwrap();
    Verdict::Passed
}
