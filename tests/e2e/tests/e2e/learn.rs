//! The least that a run needed is learned, is enough for the same run, and for no other.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use aion_e2e::{Daemons, Place};
use serde_json::Value;

use crate::agent::{Agent, detached, python};
use crate::tasks_node::copy;

const WORK: &str = "import os, subprocess, socket\n\
    open('/workspace/out', 'w').write('x' * 10)\n\
    subprocess.run(['/usr/bin/head', '-c', '1', '/workspace/out'], check=True)\n\
    a, b = socket.socketpair(); a.send(b'1'); b.recv(1)\n\
    print('done', os.getpid() > 0)\n";

pub(crate) fn a_run_s_least_profile_is_enough_for_it_and_no_more() {
    let folder = tempfile::Builder::new().prefix("aion-e2e-").tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let profiles = folder.path().join("profiles");
    copy(&Place::find().unwrap().clone.join("profiles"), &profiles);
    let daemons = Daemons::start_in(folder.path()).unwrap();
    let learn = |name: &str| {
        let learn = daemons.ctl(["profile", "learn", name]).args(["--dir".as_ref(), folder.path()]);
        learn.env("AION_PROFILES", profiles.to_str().unwrap())
    };

    let uncounted = detached(&daemons, "uncounted", &[], &["true"]);
    uncounted.wait();
    learn(&uncounted.name).done().expect(2).says("--audit count");

    let agent = detached(&daemons, "learner", &["--audit", "count"], &["/usr/bin/python3", "-c", WORK]);
    assert_eq!(agent.wait(), 0, "{}", agent.logs().err);
    let counted = &agent.records("agent.counted")[0]["detail"]["calls"];
    assert!(counted["socketpair"].as_u64() == Some(1) && counted["getpid"].as_u64() >= Some(1), "{counted}");
    let told = learn(&agent.name).json();
    let (kept, before) = (told["calls"].as_u64().unwrap(), told["calls_before"].as_u64().unwrap());
    assert!(kept > 20 && kept * 2 < before, "{told}");
    learn(&agent.name).done().expect(1).says("--force");

    let profile = format!("{}-learned", agent.name);
    let file = folder.path().join(format!("{profile}.json"));
    let written: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let gone = written["groups"][0]["syscalls"].as_array().unwrap();
    assert!(gone.contains(&"getpriority".into()) && !gone.contains(&"socketpair".into()), "{written}");

    let manifest = folder.path().join(format!("{}.yml", agent.name));
    let text = fs::read_to_string(&manifest).unwrap();
    assert!(text.contains("exec:/usr/bin/head") && text.contains("subprocess: false"), "{text}");
    let review = |words: &[&str]| {
        let [command, flags @ ..] = words else { panic!("no command") };
        let asked = daemons
            .ctl(["profile", command, &agent.name])
            .args(flags)
            .args(["--dir".as_ref(), folder.path()]);
        asked.env("AION_PROFILES", profiles.to_str().unwrap())
    };
    // Files that leave out what the run did are told, and not enforced.
    let narrow = |from: &str, to: &str| fs::write(&manifest, text.replace(from, to)).unwrap();
    narrow("exec:/usr/bin/head", "exec:/usr/bin/tail");
    assert!(review(&["diff"]).done().expect(1).text().contains("exec:/usr/bin/head"));
    review(&["apply", "--enforce"]).done().expect(1).says("exec:/usr/bin/head").says("--force");
    assert!(!profiles.join("seccomp").join(format!("{profile}.json")).exists(), "installed all the same");
    // Runs that are counted are compared anew; nothing more is denied to them.
    review(&["apply", "--audit"]).ok();
    assert_eq!(agent.wait(), 0, "{}", agent.logs().err);
    let denied = review(&["diff", "-o", "json"]).done().expect(1).json();
    assert_eq!(denied["denied"].as_array().map(Vec::len), Some(1), "{denied}");
    assert_eq!(denied["denied"][0]["layer"], "landlock", "{denied}");
    fs::write(&manifest, &text).unwrap();
    assert!(review(&["diff"]).ok().text().contains("nothing"));
    // A profile that cannot be compiled stops nobody, and is not installed.
    let idle = detached(&daemons, "idle", &["--audit", "count"], &["/usr/bin/sleep", "4711"]);
    learn(&idle.name).ok();
    let own = folder.path().join(format!("{}-learned.json", idle.name));
    let good = fs::read_to_string(&own).unwrap();
    fs::write(&own, good.replacen("\"syscalls\": [", "\"syscalls\": [\"no_such_call\", ", 1)).unwrap();
    let asked = daemons.ctl(["profile", "apply", &idle.name, "--enforce", "--force"]);
    let asked =
        asked.args(["--dir".as_ref(), folder.path()]).env("AION_PROFILES", profiles.to_str().unwrap());
    asked.done().expect(1).says("PROFILE_INVALID").says("no_such_call").says("as it was");
    assert!(!profiles.join("seccomp").join(format!("{}-learned.json", idle.name)).exists());
    assert_eq!(idle.inspect()["state"], "running");
    review(&["apply", "--enforce"]).ok();
    let again = Agent { daemons: &daemons, name: agent.name.clone() };
    assert_eq!(again.wait(), 0, "{} {}", again.logs().text(), again.logs().err);
    assert!(again.logs().text().contains("done True"));
    let state = again.inspect();
    let layer = state["layers"].as_array().unwrap().iter().find(|layer| layer["name"] == "seccomp").unwrap();
    assert!(layer["detail"].as_str().unwrap().contains(&profile), "{layer}");

    // What the run did not do is refused, told, and explained.
    let other = "import os\ntry: print('got', os.getpriority(os.PRIO_PROCESS, 0))\nexcept OSError as e: print('no', e.errno)\n";
    let said = python(&daemons, &["--seccomp-profile", &profile], other).ok().text();
    assert_eq!(said.trim(), "no 38");
    let said = python(&daemons, &[], other).ok().text();
    assert_eq!(said.trim(), "got 0");
    drop((uncounted, idle, again));
    drop(agent);
    daemons.finish().unwrap();
}
