//! A support bundle has what helps and no secret that was planted, and is made without a daemon, too.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aion_e2e::{Ctl, Daemons, Which, eventually};
use serde_json::{Value, json};

use crate::agent::detached;

/// By their words nobody would know them for secrets: it is where they stand that tells.
const PLANTED: [&str; 8] = [
    "marzipan-of-the-agent",
    "marzipan-of-the-arguments",
    "marzipan-of-the-config",
    "marzipan-of-the-url",
    "marzipan-of-the-header",
    "marzipan-of-the-second-line",
    "marzipan-of-the-continuation",
    "marzipan-of-the-block",
];

type Files = BTreeMap<String, Vec<u8>>;

fn unpacked(path: &Path) -> Files {
    let plain = zstd::stream::decode_all(File::open(path).unwrap()).unwrap();
    let mut archive = tar::Archive::new(plain.as_slice());
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().strip_prefix("aion-support").unwrap().display().to_string();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (name, bytes)
    });
    entries.collect()
}

fn json_of(files: &Files, name: &str) -> Value {
    let bytes = files.get(name).unwrap_or_else(|| panic!("{name} is not in {:?}", files.keys()));
    serde_json::from_slice(bytes).unwrap()
}

fn text_of(files: &Files, name: &str) -> String {
    String::from_utf8(files.get(name).unwrap_or_else(|| panic!("no {name}")).clone()).unwrap()
}

/// The configuration of an operator who was careless.
fn configured(folder: &Path) -> PathBuf {
    let [_, _, config, url, header, second, continued, block] = PLANTED;
    let path = folder.join("config.yaml");
    let text = format!(
        "apiVersion: aion.os/v1\nkind: Config\nlog: {{level: info}}\ntracing:\n  otlp_endpoint: http://collector:{url}@127.0.0.1:4318\n"
    );
    fs::write(&path, text).unwrap();
    fs::create_dir(folder.join("config.yaml.d")).unwrap();
    let mine = format!(
        "backend:\n  api_key: {config}\ncredentials:\n  - key: |\n      first: line\n      {block}: line\n"
    );
    fs::write(folder.join("config.yaml.d/50-mine.yaml"), mine).unwrap();
    let header = format!(
        "OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20{header}\nAION_LOG=info\nWEATHER_TOKEN=\"first\n{second}\n\"\n\
         API_KEY=first\\\n{continued}\nAION_LOG_FORMAT=json\n"
    );
    fs::write(folder.join("aiond.env"), header).unwrap();
    path
}

fn bundle(daemons: &Daemons, config: &Path, to: &Path) -> Ctl {
    let policies = daemons.clone_dir().join("policies");
    daemons
        .ctl(["support-bundle", "--since", "1h"])
        .args([Path::new("--out"), to, Path::new("--state"), daemons.state()])
        .args([Path::new("--config"), config, Path::new("--policies"), &policies])
        .within(Duration::from_secs(240))
}

fn has_no_secret(files: &Files) {
    for (name, bytes) in files {
        for secret in PLANTED {
            assert!(memchr::memmem::find(bytes, secret.as_bytes()).is_none(), "{secret} is in {name}");
        }
    }
}

pub(crate) fn what_helps_is_in_it_and_no_secret_is_also_without_a_daemon() {
    let daemons = Daemons::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = configured(folder.path());
    let [in_env, in_arguments, ..] = PLANTED;
    let variable = format!("WEATHER={in_env}");
    let program = ["sh", "-c", "sleep 1000", "sh", "--token", in_arguments];
    let agent = detached(&daemons, "furtive", &["--env", &variable], &program);
    let to = folder.path().join("bundle.tar.zst");
    // The index of the audit log comes a moment after what it tells of.
    eventually("records are counted", Duration::from_secs(30), || {
        !daemons.ctl(["audit", "query", "-o", "jsonl"]).ok().text().is_empty()
    });

    let done = bundle(&daemons, &config, &to).ok();
    assert_eq!(done.text(), format!("{}\n", to.display()));
    let done = done.says("agents/inspect.json").says("config/aiond.env").says("REDACTED");
    assert!(PLANTED.iter().all(|secret| !done.err.contains(secret)), "{}", done.err);
    assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o600);
    let files = unpacked(&to);
    has_no_secret(&files);
    let summary = json_of(&files, "summary.json");
    assert_eq!(summary["daemon"]["answers"], true, "{summary:#}");
    assert!(summary["redactions"].as_u64() >= Some(5), "{summary:#}");
    what_helps(&files, &agent.name);

    // A file is written over only by who says so, and one that cannot be written is an error.
    let before = fs::read(&to).unwrap();
    drop(bundle(&daemons, &config, &to).done().expect(1).says("is there already"));
    assert_eq!(fs::read(&to).unwrap(), before);
    bundle(&daemons, &config, &to).args(["--force", "--agent", &agent.name]).ok();
    drop(bundle(&daemons, &config, Path::new("/no/such/folder/x")).done().expect(1));

    drop(agent);
    daemons.kill(Which::Aiond);
    let without = folder.path().join("without.tar.zst");
    drop(bundle(&daemons, &config, &without).ok().says("aiond does not answer"));
    let files = unpacked(&without);
    has_no_secret(&files);
    let summary = json_of(&files, "summary.json");
    assert_eq!(summary["daemon"]["answers"], false, "{summary:#}");
    let missing = |name: &str| {
        let files = summary["files"].as_array().unwrap();
        let file = files.iter().find(|file| file["name"] == name).unwrap();
        file["state"] == "missing" && file["why"].is_string()
    };
    assert!(missing("agents/list.json") && missing("audit/verify.json"), "{summary:#}");
    for there in ["host.json", "doctor.json", "logs/aiond.log", "logs/aion-launcher.log"] {
        assert!(files.contains_key(there), "{there}: {:?}", files.keys());
    }
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("partial")), "{left:?}");
    daemons.start_one(Which::Aiond).unwrap();
    daemons.await_ready().unwrap();
    daemons.finish().unwrap();
}

fn what_helps(files: &Files, agent: &str) {
    let inspected = json_of(files, "agents/inspect.json");
    let inspected = inspected.as_array().unwrap().iter().find(|one| one["name"] == agent).unwrap();
    assert_eq!(inspected["manifest"]["spec"]["env"]["WEATHER"], "[redacted]", "{inspected:#}");
    let command = inspected["command"].as_array().unwrap();
    assert!(command.ends_with(&[json!("--token"), json!("[redacted]")]), "{inspected:#}");
    assert!(text_of(files, "agents/list.json").contains(agent));
    let verified = json_of(files, "audit/verify.json");
    assert_eq!((&verified["ok"], &verified["faults"]), (&json!(true), &json!([])), "{verified:#}");
    assert!(!json_of(files, "audit/kinds.json")["kinds"].as_array().unwrap().is_empty());
    assert!(json_of(files, "tasks.json")["queues"]["queues"].is_array());
    assert!(json_of(files, "doctor.json")["checks"].as_array().unwrap().len() > 5);
    assert!(json_of(files, "versions.json")["aiond"]["launcher"].is_string());
    assert!(json_of(files, "health.json")["parts"].is_array());
    assert!(text_of(files, "metrics.txt").contains("aion_"));
    let host = json_of(files, "host.json");
    assert!(host["uname"]["release"].is_string() && host["state"]["bytes"].is_u64(), "{host:#}");
    let policies = json_of(files, "config/policies.json");
    let digest = policies[0]["sha256"].as_str().unwrap();
    assert!(digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit()), "{policies:#}");
    let config = text_of(files, "config/config.yaml");
    assert!(config.contains("http://collector:[redacted]@127.0.0.1:4318"), "{config}");
    let mine = "backend:\n  api_key: [redacted]\ncredentials:\n  - key: [redacted]\n      [redacted]\n      [redacted]\n";
    assert_eq!(text_of(files, "config/config.yaml.d/50-mine.yaml"), mine);
    let variables = text_of(files, "config/aiond.env");
    assert!(
        variables.contains("AION_LOG=info\n") && variables.ends_with("\nAION_LOG_FORMAT=json\n"),
        "{variables}"
    );
    for log in ["logs/aiond.log", "logs/aion-launcher.log"] {
        assert!(!text_of(files, log).is_empty(), "{log}");
    }
}
