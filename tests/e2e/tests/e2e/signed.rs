//! Agents, tools and policies that must be signed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use aion_e2e::{Daemons, Place, Which};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::tasks_node::copy;

/// Made by OpenSSL, for this test alone.
const RELEASE: (&str, &str) = (include_str!("signed/release.key"), include_str!("signed/release.pub"));
const OTHER: &str = include_str!("signed/other.key");

/// Until a call ends with this status, as the daemon reads its keys again by itself.
fn until(mut call: impl FnMut() -> i32, status: i32) {
    for _ in 0..100 {
        if call() == status {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("it does not end with {status}");
}

pub(crate) fn what_must_be_signed_is_refused_when_it_is_not_or_was_changed() {
    let clone = Place::find().unwrap().clone;
    // Not in /tmp: where that is a tmpfs, kernels before 6.3 cannot map the owners of a tool's files.
    let folder = tempfile::Builder::new().prefix("aion-e2e-signed-").tempdir_in("/var/tmp").unwrap();
    let at = folder.path();
    fs::set_permissions(at, fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(at.join("keys")).unwrap();
    for (name, content) in [("release.key", RELEASE.0), ("other.key", OTHER), ("keys/release.pub", RELEASE.1)]
    {
        fs::write(at.join(name), content).unwrap();
        fs::set_permissions(at.join(name), fs::Permissions::from_mode(0o644)).unwrap();
    }
    fs::set_permissions(at.join("keys"), fs::Permissions::from_mode(0o755)).unwrap();
    let policies = at.join("state/policies");
    copy(&clone.join("policies"), &policies);
    let rules = policies.join("agent.capabilities.yaml");
    copy(&clone.join("examples/web-search"), &at.join("tool"));
    let (key, keys, tool) = (at.join("release.key"), at.join("keys"), at.join("tool/tool.yml"));
    let agent = at.join("agent.yml");
    let manifest =
        "apiVersion: aion.os/v1\nkind: Agent\nmetadata: {name: signed}\nspec: {entry: [echo, hello]}\n";
    fs::write(&agent, manifest).unwrap();

    // The tools need no daemon.
    let offline = |words: &[&str], file: &Path| {
        let mut command = Command::new(Place::find().unwrap().bin.join("aionctl"));
        command.args(words).arg(file).env_clear();
        command.output().unwrap()
    };
    let sign = |key: &Path, file: &Path| {
        let done = offline(&["sign", "--key", key.to_str().unwrap()], file);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    let verify = |file: &Path| {
        offline(&["verify", "--trusted-keys", keys.to_str().unwrap()], file).status.code().unwrap()
    };
    assert_eq!(verify(&agent), 5);
    sign(&key, &rules);
    sign(&key, &agent);
    assert_eq!(verify(&agent), 0);

    let env = [("AION_REQUIRE_SIGNED", "all"), ("AION_TRUSTED_KEYS", keys.to_str().unwrap())];
    let daemons = Daemons::start_with(at, &env).unwrap();
    let install = || daemons.ctl(["tool", "install"]).args([&tool]);
    let apply = || daemons.ctl(["apply", "-f"]).args([&agent]);

    // Unsigned, by an unknown key, changed.
    install().done().expect(5).says("it is not signed");
    sign(&at.join("other.key"), &tool);
    install().done().expect(5).says("signed by somebody else");
    sign(&key, &tool);
    let script = fs::read_dir(at.join("tool"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|kind| kind == "py"))
        .unwrap();
    let text = fs::read(&script).unwrap();
    fs::write(&script, [&text[..], b"\n# one line more\n"].concat()).unwrap();
    assert_eq!(verify(&tool), 5);
    install().done().expect(5).says("it was changed");
    fs::write(&script, &text).unwrap();
    assert_eq!(verify(&tool), 0);
    install().ok();

    fs::write(&agent, manifest.replace("hello", "bye")).unwrap();
    apply().done().expect(5).says("it was changed");
    fs::write(&agent, manifest).unwrap();
    daemons.ctl(["run", "--rm", "--", "true"]).done().expect(125).says("it is not signed");
    daemons
        .ctl(["run", "--rm", "-f"])
        .args([&agent])
        .args(["--", "true"])
        .done()
        .expect(125)
        .says("overrides.argv");
    assert_eq!(daemons.ctl(["run", "--rm", "-f"]).args([&agent]).ok().text(), "hello\n");
    // What is refused stops nothing that runs.
    fs::write(&agent, manifest.replace("echo, hello", "sleep, '600'")).unwrap();
    sign(&key, &agent);
    apply().ok();
    fs::write(&agent, manifest).unwrap();
    apply().done().expect(5).says("it was changed");
    let state = || daemons.ctl(["inspect", "signed"]).json();
    assert!(state().to_string().contains("\"running\""), "{}", state());
    sign(&key, &agent);
    apply().ok();
    daemons.ctl(["wait", "signed"]).ok();
    let shown = daemons.ctl(["inspect", "signed"]).json();
    let by = shown["signed_by"].as_str().or_else(|| shown[0]["signed_by"].as_str()).unwrap().to_owned();
    assert_eq!(by.len(), 64, "{shown}");
    let denied = daemons.ctl(["audit", "query", "--verdict", "denied", "-o", "jsonl"]).done().json_lines();
    assert!(
        denied.len() >= 5 && denied.iter().all(|record| record["kind"].as_str().unwrap().starts_with("api.")),
        "{denied:?}"
    );

    // Rules that were changed are not taken; what was before holds.
    let before = fs::read(&rules).unwrap();
    fs::write(&rules, [&before[..], b"\n# one line more\n"].concat()).unwrap();
    assert_ne!(daemons.ctl(["policy", "reload"]).done().code, 0);
    fs::write(&rules, before).unwrap();
    daemons.ctl(["policy", "reload"]).ok();

    // A key that is taken away takes along what it has signed.
    let public = fs::read(keys.join("release.pub")).unwrap();
    let reload = || {
        kill(Pid::from_raw(i32::try_from(daemons.pid(Which::Aiond).unwrap()).unwrap()), Signal::SIGHUP)
            .unwrap()
    };
    fs::remove_file(keys.join("release.pub")).unwrap();
    reload();
    let invoke = || daemons.ctl(["tool", "invoke", "web_search", "query=aion"]).done();
    until(|| daemons.ctl(["start", "signed"]).done().code, 5);
    invoke().expect(5).says("not trusted any more");
    // An expired one lets nothing new in.
    let expired = [b"not-after: 2020-01-01\n", &public[..]].concat();
    fs::write(keys.join("release.pub"), expired).unwrap();
    reload();
    until(|| daemons.ctl(["start", "signed"]).done().code, 0);
    invoke().expect(0);
    install().done().expect(5).says("expired at 2020-01-01");
    daemons.finish().unwrap();
}
