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
    fs::copy(&file, profiles.join("seccomp").join(format!("{profile}.json"))).unwrap();

    let manifest = folder.path().join(format!("{}.yml", agent.name));
    let text = fs::read_to_string(&manifest).unwrap();
    assert!(text.contains("exec:/usr/bin/head") && text.contains("subprocess: false"), "{text}");
    daemons.ctl(["validate".as_ref(), "-f".as_ref(), manifest.as_os_str()]).ok();
    daemons.ctl(["apply".as_ref(), "-f".as_ref(), manifest.as_os_str()]).ok();
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
    drop((uncounted, again));
    drop(agent);
    daemons.finish().unwrap();
}
