//! What launches leave on the host, which must be nothing, and what the host's own failures do.

use std::time::Duration;

use aion_sandbox::{InitImage, LaunchFds, NetworkMode, Options, SlotSpec, Spawner};

use crate::ends::until;
use crate::harness::{Home, PATIENCE, argv, read_journal, sh, skip, spawner, spec};

/// Descriptors of ours, without the user namespaces that are kept for the next mount with the same owners.
fn open_descriptors() -> usize {
    let links =
        std::fs::read_dir("/proc/self/fd").unwrap().flatten().flat_map(|e| std::fs::read_link(e.path()));
    links.filter(|l| !l.to_string_lossy().starts_with("user:")).count()
}

fn children_named(name: &str) -> Vec<u32> {
    let ours = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_str().unwrap_or_default().parse::<u32>() else { continue };
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let field = |key: &str| status.lines().find_map(|l| l.strip_prefix(key)).unwrap_or_default().trim();
        if field("Name:") == name && field("PPid:") == ours {
            found.push(pid);
        }
    }
    found
}

#[test]
fn a_spawner_of_its_own_leaves_nothing_and_survives_its_forkers() {
    if skip() {
        return;
    }
    // Other tests run meanwhile, so this one looks only at what it can tell apart.
    let before = children_named("aion-forker");
    let image = InitImage::load(&crate::init_binary::path()).unwrap();
    let spawner = Spawner::start(image, Options { workers: 1 }).unwrap();
    let launch = || {
        let home = Home::new();
        let launched = home.launch_in(spawner.spawn(spec()).unwrap(), &argv(&["/bin/true"])).unwrap();
        home.finish(launched).good()
    };
    launch();
    // One of another spawner's would do as well: each is replaced.
    let forkers = children_named("aion-forker");
    let forker = *forkers.iter().find(|p| !before.contains(p)).expect("no forker");
    std::process::Command::new("kill").args(["-9", &forker.to_string()]).status().unwrap();
    launch();
    assert!(!std::path::Path::new(&format!("/proc/{forker}/exe")).exists());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(" /system"), "{mounts}");
    drop(spawner);
}

#[test]
fn descriptors_do_not_pile_up() {
    if skip() {
        return;
    }
    let run = |n: usize| {
        for _ in 0..n {
            let home = Home::new();
            // Ranges are used again, as the launcher does; maps of mounts are kept for each.
            let slot = || spawner().spawn(SlotSpec::new(0x1800_0000)).unwrap();
            home.finish(home.launch_in(slot(), &argv(&["/bin/true"])).unwrap());
            home.launch_in(slot(), &argv(&["no-such-program"])).map(drop).unwrap_err();
        }
    };
    run(5);
    let before = open_descriptors();
    run(40);
    // Other tests hold some of their own.
    assert!(open_descriptors() < before + 60, "{before} before, {} after", open_descriptors());
}

#[test]
fn the_hosts_network_comes_with_its_names() {
    if skip() {
        return;
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = format!(
        "import socket\nsocket.create_connection(('127.0.0.1', {port}), 5)\nprint(open('/etc/resolv.conf').read(), end='')"
    );
    let home = Home::new();
    let mut host = spec();
    host.network = NetworkMode::Host;
    let launched =
        home.launch_in(spawner().spawn(host).unwrap(), &argv(&["python3", "-c", &script])).unwrap();
    let text = home.finish(launched).good();
    assert_eq!(text, std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
    // The same without it.
    let seen = Home::new().run(&argv(&["python3", "-c", &script]));
    assert_ne!(seen.exit.unwrap().code, 0);
}

#[test]
fn a_stop_ends_an_agent_whose_last_output_finds_no_room() {
    if skip() {
        return;
    }
    let disk = tempfile::tempdir().unwrap();
    let mount =
        |args: &[&str]| std::process::Command::new(args[0]).args(&args[1..]).arg(disk.path()).status();
    assert!(mount(&["mount", "-t", "tmpfs", "-o", "size=256k", "none"]).unwrap().success());
    let path = disk.path().join("journal");
    let journal = std::fs::File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    let home = Home::new();
    let slot = spawner().spawn(spec()).unwrap();
    let fds = LaunchFds::new(journal.into(), home.workspace_mount(&slot, false));
    // More than the disk, less than disk and pipe together: the agent ends, its output waits.
    let plan = sh("head -c 320000 /dev/zero; echo end >&2; exit 8");
    let mut launched = slot.launch(&plan, fds).unwrap();
    let agent = format!("/proc/{}", launched.agent_pid);
    until(|| !std::path::Path::new(&agent).exists());
    assert!(launched.init.wait(Some(Duration::from_millis(300))).unwrap().is_none(), "output was dropped");
    launched.init.signal(libc::SIGTERM).unwrap();
    let ended = launched.init.wait(Some(PATIENCE)).unwrap().expect("it does not stop");
    let seen = read_journal(&path);
    assert!(mount(&["umount"]).unwrap().success());
    assert_eq!((ended.code, seen.exit.map(|e| e.code)), (8, Some(8)));
    assert!(seen.out.len() > 100_000 && seen.out.len() < 320_000, "{}", seen.out.len());
}
