//! Detections of sequences of system calls: a program that becomes another one is told, by the rule as it is shipped, and one that goes on
//! as before is not.

use crate::agent::{Agent, detached, path, workspace};
use crate::detections::World;

/// Tells when as much was learned of an agent as the shipped rule wants.
const LEARNED: &str = "apiVersion: aion.os/v1\nkind: Detection\nmetadata: {name: learned}\nspec:\n  severity: info\n  window: 1h\n  \
    condition: {count: {events: [agent.sample], where: {learned_grams: {at_least: 50000}, novel_grams: {at_most: 10}}}}\n";

/// One call again and again; told to, another program.
const SCRIPT: &str = "while [ ! -e go ]; do :; done; \
    /usr/bin/python3 -c 'import json, socket, subprocess; subprocess.run([\"ls\", \"/usr\"])' > /dev/null; sleep 300";

pub(crate) fn a_program_that_changes_is_told_and_one_that_does_not_is_not() {
    let file = aion_e2e::Place::find().unwrap().clone.join("policies/detections/novel-syscalls.yaml");
    let shipped = std::fs::read_to_string(file).unwrap();
    World::with(&[("novel-syscalls.yaml", &shipped), ("learned.yaml", LEARNED)]).check(|world| {
        let folders = [workspace(), workspace()];
        let begin = |stem: &str, folder: &tempfile::TempDir| {
            let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
            std::fs::set_permissions(folder.path(), open).unwrap();
            let flags = ["--audit", "count", "--cpus", "0.3", "--workspace", path(folder)];
            detached(&world.daemons, stem, &flags, &["sh", "-c", SCRIPT])
        };
        let (changing, steady) = (begin("changing", &folders[0]), begin("steady", &folders[1]));
        let told =
            |agent: &Agent<'_>| world.history(&agent.name).iter().any(|it| it["rule"] == "novel-syscalls");
        for agent in [&changing, &steady] {
            world.finding(agent, "learned");
            assert!(!told(agent), "it does what it always did");
        }

        std::fs::write(folders[0].path().join("go"), "").unwrap();
        let found = world.finding(&changing, "novel-syscalls");
        assert_eq!((&found["action"], &found["result"]), (&"alert".into(), &"none".into()), "{found}");
        assert_eq!(found["severity"], "info");
        assert!(found["detail"]["value"].as_u64().unwrap() >= 50, "{found}");
        assert_eq!(changing.state(), "running", "it is told, and nothing is taken from it");
        assert!(!told(&steady));
    });
}
