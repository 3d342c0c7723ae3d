//! What is wrong with the configuration is told at once, with who says it, and no daemon starts with it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use aion_e2e::{Daemons, Place, eventually};

const HEAD: &str = "apiVersion: aion.os/v1\nkind: Config\n";

fn aiond(args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(Place::find().unwrap().bin.join("aiond"));
    command.args(args).env_clear().envs(env.iter().copied()).current_dir("/");
    command.output().unwrap()
}

/// Refused, with all of these words.
fn refused(output: &Output, words: &[&str]) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    for word in words {
        assert!(told.contains(word), "{word}: {told}");
    }
}

pub(crate) fn all_that_is_wrong_is_told_with_who_says_it_and_nothing_starts() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let (config, state, none, private) = (at("config.yaml"), at("state"), at("none"), at("private"));
    let clone = Place::find().unwrap().clone;
    let profiles = at("profiles");
    crate::tasks_node::copy(&clone.join("profiles"), Path::new(&profiles));
    let check = |text: &str, env: &[(&str, &str)]| {
        fs::write(&config, format!("{HEAD}{text}")).unwrap();
        aiond(&["--config", &config, "--state", &state, "--profiles", &profiles, "check-config"], env)
    };

    // Keys and values together, of all files.
    fs::create_dir(at("config.yaml.d")).unwrap();
    fs::write(at("config.yaml.d/50.yaml"), format!("{HEAD}log: {{level: info, formt: text}}\n")).unwrap();
    let done = check("http: {adress: x, port: 70000}\npath: {}\n", &[]);
    refused(
        &done,
        &["config.yaml:3:8: http", "config.yaml:3:25: http.port", "config.yaml:4:1:", "50.yaml:3:20: log"],
    );
    fs::remove_file(at("config.yaml.d/50.yaml")).unwrap();

    // Folders, with who names them; a daemon says the same, and has not begun.
    let text = format!("paths: {{policies: {none}}}\nsignatures: {{trusted_keys: {none}}}\n");
    let expected = [
        "config.yaml:3:19: paths.policies: there is no folder",
        "config.yaml:4:28: signatures.trusted_keys: there is",
    ];
    refused(&check(&text, &[]), &expected);
    refused(&aiond(&["--config", &config, "--state", &state, "--profiles", &profiles], &[]), &expected);
    assert!(!Path::new(&state).exists());
    let done = check(&text, &[("AION_POLICIES", none.as_str()), ("AION_TRUSTED_KEYS", "/")]);
    refused(&done, &["AION_POLICIES: there is no folder"]);
    assert!(!String::from_utf8_lossy(&done.stderr).contains("config.yaml:"), "{done:?}");
    refused(
        &check("", &[("AION_HTTP", "0.0.0.0:80"), ("AION_KERNEL_PORT", "x")]),
        &["AION_HTTP: ", "AION_KERNEL_PORT: "],
    );

    // One that root may read, and aiond's user may not.
    crate::tasks_node::copy(&clone.join("policies"), Path::new(&private));
    let text = format!("paths: {{policies: {private}}}\n");
    fs::set_permissions(&private, Permissions::from_mode(0o755)).unwrap();
    let done = check(&text, &[]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    fs::set_permissions(&private, Permissions::from_mode(0o700)).unwrap();
    refused(&check(&text, &[]), &["config.yaml:3:19: paths.policies: ", "cannot be read by user"]);
    fs::set_permissions(&private, Permissions::from_mode(0o755)).unwrap();

    // One without rules is not one with those that AION ships.
    fs::remove_file(Path::new(&private).join("agent.capabilities.yaml")).unwrap();
    let expected = ["config.yaml:3:19: paths.policies: there is no agent.capabilities.yaml in"];
    refused(&check(&text, &[]), &expected);
    refused(&aiond(&["--config", &config, "--state", &state, "--profiles", &profiles], &[]), &expected);
}

pub(crate) fn rules_that_go_while_aiond_runs_leave_what_was_before() {
    let folder = tempfile::Builder::new().prefix("aion-e2e-rules-").tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let policies = folder.path().join("state/policies");
    crate::tasks_node::copy(&Place::find().unwrap().clone.join("policies"), &policies);
    fs::set_permissions(folder.path().join("state"), Permissions::from_mode(0o755)).unwrap();
    let daemons = Daemons::start_in(folder.path()).unwrap();
    let rules = policies.join("agent.capabilities.yaml");
    let few = "apiVersion: aion.os/v1\nkind: CapabilityPolicy\nallow: [\"exec:/**\", \"fs:read:/**\"]\n";
    fs::write(&rules, few).unwrap();
    fs::set_permissions(&rules, Permissions::from_mode(0o644)).unwrap();
    daemons.ctl(["policy", "reload"]).ok();
    fs::remove_file(&rules).unwrap();
    let done = daemons.ctl(["policy", "reload"]).done();
    assert_ne!(done.code, 0, "{}", done.err);
    assert!(done.err.contains("is gone"), "{}", done.err);
    eventually("it is on record", Duration::from_secs(30), || {
        daemons
            .ctl(["audit", "query", "--kind", "api.policy.reload", "-o", "jsonl"])
            .ok()
            .text()
            .contains("is gone")
    });
    daemons.finish().unwrap();
}
