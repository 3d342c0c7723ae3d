//! That compose.yml, the image, the units and the page on containers speak of the same programs, paths and privileges.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use super::{file, list, text, yaml};
use crate::process::{in_path, read, succeeds};
use crate::project::Project;

/// The value of a line `NAME words` of the Dockerfile; lines that go on are one.
fn instructions(recipe: &str) -> Vec<(String, String)> {
    let joined = recipe.replace("\\\n", " ");
    let lines = joined.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.filter_map(|line| line.split_once(' ')).map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
}

/// Mounts of a service: from where, to where, read-only or not.
fn mounts(service: &Value) -> Vec<(String, String, bool)> {
    let mount = |volume: &Value| match volume.as_str() {
        Some(short) => {
            let words: Vec<&str> = short.split(':').collect();
            (words[0].to_owned(), words[1].to_owned(), words.get(2) == Some(&"ro"))
        }
        None => {
            let told = |field: &str| text(volume, field).to_owned();
            assert_eq!(told("type"), "bind", "{volume}");
            (told("source"), told("target"), volume["read_only"] == true)
        }
    };
    list(service, "volumes").iter().map(mount).collect()
}

fn words(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Fields that the specification of compose files has for a service, as far as they are used here.
const OF_A_SERVICE: [&str; 17] = [
    "cap_add",
    "cap_drop",
    "cgroup",
    "command",
    "depends_on",
    "environment",
    "healthcheck",
    "image",
    "network_mode",
    "pid",
    "privileged",
    "read_only",
    "restart",
    "security_opt",
    "stop_grace_period",
    "tmpfs",
    "volumes",
];

#[test]
fn each_container_has_what_its_daemon_needs_and_no_more() {
    let compose = yaml("deploy/compose.yml");
    let services = compose["services"].as_object().unwrap();
    assert_eq!(services.len(), 2);
    for (name, service) in services {
        for field in service.as_object().unwrap().keys() {
            assert!(OF_A_SERVICE.contains(&field.as_str()), "{name}: {field} is no field of a service");
        }
        for (from, to, _) in mounts(service) {
            assert_eq!(
                from, to,
                "{name}: paths in the container are the host's, since agents are on the host"
            );
        }
        assert_eq!(text(service, "network_mode"), "host", "{name}");
    }
    let (aiond, launcher) = (&services["aiond"], &services["aion-launcher"]);
    assert_eq!(launcher["privileged"], true);
    assert_eq!((text(launcher, "cgroup"), text(launcher, "pid")), ("host", "host"));
    assert_eq!(mounts(aiond), [("/var/lib/aion".to_owned(), "/var/lib/aion".to_owned(), false)]);
    assert_eq!(aiond["read_only"], true);
    for field in ["privileged", "cgroup", "pid"] {
        assert!(aiond[field].is_null(), "aiond's container has {field}");
    }
    assert_eq!(words(&aiond["cap_drop"]), ["ALL"]);
    assert_eq!(words(&aiond["security_opt"]), ["no-new-privileges:true"]);
    // What it takes before it is its user for good; nothing that reaches beyond its folders.
    let most = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETPCAP", "SETUID"];
    assert_eq!(words(&aiond["cap_add"]), most);
    assert_eq!(words(&aiond["depends_on"]), ["aion-launcher"]);
    assert!(services.contains_key(words(&aiond["depends_on"])[0]));
    // The launcher answers no `aionctl ps` of the image's health check; aiond does.
    assert_eq!(launcher["healthcheck"]["disable"], true);
    assert!(aiond["healthcheck"].is_null());
}

#[test]
fn what_the_containers_run_and_mount_is_what_the_image_and_the_daemons_have() {
    let compose = yaml("deploy/compose.yml");
    let recipe = instructions(&file("Dockerfile"));
    let all = |name: &str| {
        recipe.iter().filter(|(word, _)| word == name).map(|(_, rest)| rest.as_str()).collect::<Vec<_>>()
    };
    assert!(all("FROM")[0].starts_with("debian:bookworm"), "the distribution that the package is made for");
    assert_eq!(all("VOLUME"), ["/var/lib/aion"]);
    assert!(all("ARG").contains(&"PACKAGE") && all("RUN").iter().any(|run| run.contains("${PACKAGE}")));
    // The options of each daemon, from the man pages that its own description made.
    let options = |daemon: &str| file(&format!("packaging/man/{daemon}.8"));
    for daemon in ["aiond", "aion-launcher"] {
        let service = &compose["services"][daemon];
        let command = words(&service["command"]);
        assert_eq!(command, [daemon], "the service {daemon} runs another program");
        assert!(crate::dist::installs(daemon), "the package has no {daemon}");
        for (name, _) in service["environment"].as_object().into_iter().flatten() {
            assert!(options(daemon).contains(name.as_str()), "{daemon} knows no {name}");
        }
        // Compose waits as long for the end as systemd does.
        let unit = file(&format!("systemd/{daemon}.service"));
        let stop = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")).unwrap();
        assert_eq!(text(service, "stop_grace_period"), format!("{stop}s"), "{daemon}");
    }
    assert_eq!(all("CMD"), ["[\"aiond\"]"]);
    // The agents' group is not the one that systemd delegates: nobody does here.
    let launcher = &compose["services"]["aion-launcher"];
    assert_eq!(text(&launcher["environment"], "AION_CGROUP"), "aion-agents");
    let paths: Vec<String> = mounts(launcher).into_iter().map(|(from, ..)| from).collect();
    assert_eq!(paths, ["/var/lib/aion", "/sys/fs/cgroup", "/sys/fs/bpf", "/lib/modules", "/dev"]);
    assert!(mounts(launcher).iter().all(|(from, _, read_only)| *read_only == (from == "/lib/modules")));
    let state = list(launcher, "volumes").iter().find(|volume| volume["source"] == "/var/lib/aion").unwrap();
    assert_eq!(
        text(&state["bind"], "propagation"),
        "rshared",
        "agents' volumes are there for the next launcher"
    );
    // Where the image's health check and its operators find the socket.
    assert!(all("ENV").contains(&"AION_SOCKET=/var/lib/aion/run/aion.sock"));
    assert!(all("HEALTHCHECK")[0].contains("\"aionctl\""));
}

#[test]
fn the_page_on_containers_says_what_they_have() {
    let (page, compose, recipe) =
        (file("docs/operate/container.md"), yaml("deploy/compose.yml"), file("Dockerfile"));
    let commands: Vec<&str> = page.lines().filter(|line| line.starts_with("docker compose ")).collect();
    assert!(commands.len() >= 3, "{commands:?}");
    for command in commands {
        let mut words = command.split_whitespace().skip(2);
        assert_eq!((words.next(), words.next()), (Some("--file"), Some("deploy/compose.yml")), "{command}");
        if words.next() == Some("exec") {
            let service = words.next().unwrap();
            assert!(compose["services"][service].is_object(), "{command}");
        }
    }
    // The image has the name that is built, and that compose.yml and what ends agents by hand take.
    let build = page.lines().find(|line| line.starts_with("docker build ")).unwrap();
    let tag = build.split("--tag ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    for (name, service) in compose["services"].as_object().unwrap() {
        assert_eq!(text(service, "image"), tag, "{name}");
    }
    assert!(
        recipe
            .lines()
            .any(|line| line.starts_with("#   docker build ") && line.contains(&format!("--tag {tag} ")))
    );
    let version = format!("PACKAGE=aion_{}-1_amd64.deb", env!("CARGO_PKG_VERSION"));
    assert!(build.contains(&version) && recipe.contains(&version), "the package is {version}");
    // `aion-launcher purge` by hand sees what the launcher's container sees of the agents.
    let purge = page
        .lines()
        .find(|line| line.contains("docker run ") && line.contains("aion-launcher purge"))
        .unwrap();
    let launcher = &compose["services"]["aion-launcher"];
    for word in ["--privileged", "--cgroupns host", "--pid host"] {
        assert!(purge.contains(word), "{word}: {purge}");
    }
    let seen: BTreeSet<String> =
        purge.split("-v ").skip(1).filter_map(|rest| rest.split(' ').next()).map(str::to_owned).collect();
    let had: BTreeSet<String> =
        mounts(launcher).into_iter().map(|(from, to, _)| format!("{from}:{to}")).collect();
    assert!(seen.len() >= 3 && seen.is_subset(&had), "{seen:?} of {had:?}");
    assert!(page.contains("`AION_CGROUP`"), "{page}");
    // The number of the user and the group is one everywhere.
    assert!(recipe.contains("groupadd --system --gid 970 aion") && recipe.contains("--uid 970 --gid aion"));
    assert!(page.contains("(970)"), "{page}");
}

#[test]
fn docker_takes_the_file() {
    if !in_path("docker") || !succeeds(Command::new("docker").args(["compose", "version"])) {
        println!("skipped: there is no docker with compose here");
        return;
    }
    // The plug-in alone reads it: there need be no daemon.
    let folder = Project::locate().unwrap().root.join("deploy");
    let words = ["compose", "--file", "compose.yml", "config", "--quiet"];
    read(Command::new("docker").args(words).current_dir(folder)).unwrap();
}
