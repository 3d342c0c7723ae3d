//! Detections: rules that are read again, daemons that come and go, and what was taken from an agent and stays taken.

use std::time::Duration;

use aion_e2e::{Which, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::agent::{detached, path, workspace};
use crate::detections::{World, py, restraint, restraints};

/// A rule about a program's arguments. Programs below put the word together, so that they are not found by their own text.
pub(crate) fn about(name: &str, word: &str, action: &str) -> String {
    format!(
        "apiVersion: aion.os/v1\nkind: Detection\nmetadata: {{name: {name}}}\nspec:\n  severity: high\n  window: 10s\n  \
         condition: {{count: {{events: [proc.exec], where: {{argv: {{contains: [{word}]}}}}}}}}\n  action: {action}\n"
    )
}

fn names(world: &World) -> Vec<String> {
    let listed = world.daemons.ctl(["detections", "ls"]).json();
    let name = |rule: &serde_json::Value| rule["name"].as_str().unwrap().to_owned();
    listed["detections"].as_array().unwrap().iter().map(name).collect()
}

pub(crate) fn rules_are_read_again_all_of_them_or_none() {
    World::with(&[("one.yaml", &about("one", "first-word", "alert"))]).check(|world| {
        let daemons = &world.daemons;
        assert_eq!(names(world), ["one"]);

        // One that is wrong: none of the folder is taken, also not what is right.
        std::fs::write(world.rules.join("two.yaml"), about("two", "second-word", "freeze")).unwrap();
        let wrong = about("three", "x", "explode").replace("contains", "containz");
        std::fs::write(world.rules.join("wrong.yaml"), &wrong).unwrap();
        let refused = daemons.ctl(["detections", "reload"]).done();
        assert_ne!(refused.code, 0);
        assert!(refused.err.contains("wrong.yaml:7:") && refused.err.contains("containz"), "{}", refused.err);
        let tested = daemons.ctl(["detections", "test"]).args([&world.rules]).done().expect(2);
        assert!(
            tested.err.contains("wrong.yaml:7:") && tested.err.contains("did you mean"),
            "{}",
            tested.err
        );
        assert_eq!(names(world), ["one"]);
        let agent = detached(daemons, "before", &[], &["sh", "-c", "sleep 300; : second-word first-word"]);
        world.finding(&agent, "one");
        assert_eq!(agent.state(), "running");

        std::fs::remove_file(world.rules.join("wrong.yaml")).unwrap();
        daemons.ctl(["detections", "test"]).args([&world.rules]).ok();
        daemons.ctl(["detections", "reload"]).ok();
        assert_eq!(names(world), ["one", "two"]);
        let agent = detached(daemons, "after", &[], &["sh", "-c", "sleep 300; : second-word"]);
        world.finding(&agent, "two");
        assert_eq!(restraints(&agent), restraint("frozen", "detection two"));

        // As scheduler.yaml, by a signal.
        std::fs::remove_file(world.rules.join("two.yaml")).unwrap();
        let pid = daemons.pid(Which::Aiond).unwrap();
        kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGHUP).unwrap();
        assert!(until(Duration::from_secs(20), || (names(world) == ["one"]).then_some(())).is_some());
    });
}

pub(crate) fn a_daemon_finds_what_happened_while_it_was_away() {
    World::with(&[("one.yaml", &about("one", "while-away", "freeze"))]).check(|world| {
        let daemons = &world.daemons;
        let folder = workspace();
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let script = "while [ ! -e go ]; do sleep 0.1; done; sh -c 'sleep 300; : while-away'; sleep 300";
        std::fs::write(folder.path().join("script"), script).unwrap();
        let agent = detached(daemons, "late", &["--workspace", path(&folder)], &["sh", "./script"]);
        daemons.kill(Which::Aiond);
        std::fs::write(folder.path().join("go"), "").unwrap();
        std::thread::sleep(Duration::from_secs(2));
        daemons.start_one(Which::Aiond).unwrap();
        daemons.await_ready().unwrap();
        let found = world.finding(&agent, "one");
        assert_eq!(found["result"], "done", "{found}");
        assert_eq!(agent.state(), "paused");

        // What was told is not told again by the daemon after that.
        daemons.kill_and_restart(Which::Aiond).unwrap();
        let other = detached(daemons, "mark", &[], &["sh", "-c", "sleep 300; : while-away"]);
        world.finding(&other, "one");
        assert_eq!(world.history(&agent.name).len(), 1);
    });
}

pub(crate) fn what_was_taken_stays_taken_without_daemons() {
    World::with(&[("one.yaml", &about("one", "phone-home", "isolate_network"))]).check(|world| {
    let daemons = &world.daemons;
    let folder = workspace();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let program = "import socket, time, subprocess\nserver = socket.create_server(('127.0.0.1', 0))\n\
        subprocess.Popen(['sh', '-c', 'sleep 300; : phone-' + 'home'])\nwhile True:\n  time.sleep(0.1)\n  try:\n    \
        c = socket.create_connection(server.getsockname()); server.accept(); said = 'open'\n  \
        except OSError as e: said = str(e.errno)\n  open('said', 'w').write(said)\n";
    let agent = py(daemons, "home", &["--workspace", path(&folder), "--network", "host"], program);
    world.finding(&agent, "one");
    assert_eq!(restraints(&agent), restraint("isolated", "detection one"));
    let file = folder.path().join("said");
    let said = || std::fs::read_to_string(&file).unwrap_or_default();
    assert!(until(Duration::from_secs(10), || (said() == "1").then_some(())).is_some(), "{}", said());

    daemons.kill(Which::Aiond);
    daemons.kill(Which::Launcher);
    std::fs::remove_file(&file).unwrap();
    assert!(until(Duration::from_secs(10), || (said() == "1").then_some(())).is_some(), "{}", said());
    daemons.start_one(Which::Launcher).unwrap();
    daemons.start_one(Which::Aiond).unwrap();
    daemons.await_ready().unwrap();
    std::fs::remove_file(&file).unwrap();
    assert!(until(Duration::from_secs(10), || (said() == "1").then_some(())).is_some(), "{}", said());
    assert_eq!(restraints(&agent), restraint("isolated", "detection one"), "and the reason is known");
    daemons.ctl(["detections", "clear", &agent.name]).ok();
    assert!(until(Duration::from_secs(10), || (said() == "open").then_some(())).is_some(), "{}", said());
    });
}

pub(crate) fn an_agent_s_restart_gets_it_out_of_nothing() {
    World::with(&[
        ("one.yaml", &about("one", "take-network", "isolate_network")),
        ("two.yaml", &about("two", "take-processor", "throttle")),
    ]).check(|world| {
    let daemons = &world.daemons;
    let program = "import socket, os, subprocess, time\nserver = socket.create_server(('127.0.0.1', 0)) if not os.path.exists('again') else None\n\
        if server:\n  subprocess.Popen(['sh', '-c', 'sleep 300; : take-' + 'network take-' + 'processor'])\n  \
        while not os.path.exists('go'): time.sleep(0.1)\n  open('again', 'w'); os._exit(1)\n\
        try: socket.create_server(('127.0.0.1', 0)); print('bound', flush=True)\n\
        except OSError as e: print('refused', e.errno, flush=True)\ntime.sleep(300)\n";
    let folder = workspace();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let flags = ["--workspace", path(&folder), "--restart", "on-failure", "--network", "host"];
    let agent = py(daemons, "again", &flags, program);
    world.finding(&agent, "one");
    world.finding(&agent, "two");
    std::fs::write(folder.path().join("go"), "").unwrap();
    agent.await_log("refused 1");
    let mut held = restraints(&agent);
    held.sort();
    let wanted = [restraint("isolated", "detection one"), restraint("throttled", "detection two")].concat();
    assert_eq!(held, wanted);
    });
}
