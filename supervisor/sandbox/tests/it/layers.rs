//! Each layer stops what it is there for; the same attempt goes through when the layer is left out.

use aion_agent_journal::{Item, Reader};
use aion_sandbox::{Landlock, Plan};
use aion_types::{LayerName, LayerState};

use crate::harness::{Home, argv, sh, skip, spawner, spec};

/// The first line that a script writes, with stderr.
fn answer(plan: &Plan) -> String {
    let seen = Home::new().run(plan);
    format!("{}{}", seen.text(), seen.errors())
}

#[test]
fn every_layer_is_reported_as_active() {
    if skip() {
        return;
    }
    let home = Home::new();
    let launched = home.launch(&argv(&["/bin/true"])).unwrap();
    for layer in &launched.layers {
        println!("{:<14} {:<8} {}", layer.name, layer.state.as_str(), layer.detail);
        assert_eq!(layer.state, LayerState::Active, "{layer:?}");
    }
    let names: Vec<_> = launched.layers.iter().map(|l| l.name).collect();
    for name in [LayerName::Namespaces, LayerName::Rootfs, LayerName::Landlock, LayerName::Seccomp] {
        assert!(names.contains(&name), "{name}");
    }
    assert_eq!(names.len(), 10);
    home.finish(launched);
}

#[test]
fn seccomp_refuses_and_the_journal_tells() {
    if skip() {
        return;
    }
    let script = "import ctypes, sys\nl = ctypes.CDLL(None, use_errno=True)\n\
        for i in range(int(sys.argv[1])): r = l.unshare(0x10000000)\nprint(r, ctypes.get_errno())";
    let home = Home::new();
    let plan = argv(&["python3", "-c", script, "1000"]);
    assert_eq!(home.run(&plan).good(), "-1 1\n");
    let mut reader = Reader::open(std::fs::File::open(home.journal()).unwrap(), 0).unwrap();
    let (mut records, mut calls) = (0, 0);
    while let Some(item) = reader.next_event().unwrap() {
        let Item::Record(record) = item else { panic!("lost") };
        if let Some(denied) = record.denied() {
            assert_eq!((i64::from(denied.nr), denied.errno), (libc::SYS_unshare, libc::EPERM));
            records += 1;
            calls += denied.count;
        }
    }
    assert_eq!(calls, 1000);
    assert!((1..=5).contains(&records), "{records} records: they flood the journal");
    let mut plan = argv(&["python3", "-c", script, "1"]);
    plan.seccomp = None;
    assert_eq!(Home::new().run(&plan).good(), "0 0\n");
}

#[test]
fn landlock_refuses_what_permissions_would_allow() {
    if skip() {
        return;
    }
    // /proc/self/comm is the agent's own and writable; nothing but Landlock is in the way.
    let mut plan = sh("echo other > /proc/self/comm && cat /proc/self/comm");
    assert!(answer(&plan).contains("Permission denied"));
    plan.landlock = None;
    assert!(!answer(&plan).contains("Permission denied"));
}

#[test]
fn landlock_restricts_execution_to_the_entry() {
    if skip() {
        return;
    }
    let script = "echo builtin; /bin/echo other; cp /bin/true /tmp/t; /tmp/t && echo copied";
    let mut plan = sh(script);
    plan.landlock = Some(Landlock { restrict_exec: true, ..Landlock::default() });
    let text = answer(&plan);
    assert!(text.starts_with("builtin\n") && !text.contains("\nother") && !text.contains("copied"), "{text}");
    let allow = vec![b"/usr/bin/echo".to_vec()];
    plan.landlock = Some(Landlock { restrict_exec: true, exec_allow: allow, ..Landlock::default() });
    let text = answer(&plan);
    assert!(text.starts_with("builtin\nother\n") && !text.contains("copied"), "{text}");

    let home = Home::new();
    let script = home.workspace().join("s");
    std::fs::write(
        &script,
        "#!/usr/bin/env python3\nimport os\nprint('python')\nos.execv('/bin/echo', ['echo', 'x'])\n",
    )
    .unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut plan = argv(&["/workspace/s"]);
    plan.landlock = Some(Landlock { restrict_exec: true, ..Landlock::default() });
    let seen = home.run(&plan);
    assert!(seen.text() == "python\n" && seen.errors().contains("Permission denied"), "{seen:?}");
}

#[test]
fn a_rule_for_execution_is_not_led_astray_by_a_link() {
    if skip() {
        return;
    }
    let allow = |path: &str| Landlock {
        restrict_exec: true,
        exec_allow: vec![path.as_bytes().to_vec()],
        ..Landlock::default()
    };
    let home = Home::new();
    std::os::unix::fs::symlink("/usr/bin/echo", home.workspace().join("tool")).unwrap();
    let mut plan = sh("/usr/bin/echo other");
    plan.landlock = Some(allow("/workspace/tool"));
    let launched = home.launch(&plan).unwrap();
    let landlock = launched.layers.iter().find(|l| l.name == LayerName::Landlock).unwrap().detail.clone();
    assert_eq!(home.finish(launched).text(), "", "the link's target was executed");
    assert!(landlock.contains("not of /workspace/tool"), "{landlock}");
    // A link of the system leads where it should.
    plan.landlock = Some(allow("/bin/echo"));
    assert_eq!(Home::new().run(&plan).good(), "other\n");
}

#[test]
fn without_the_capability_layer_root_inside_has_capabilities() {
    if skip() {
        return;
    }
    let mut plan = sh("grep CapEff /proc/self/status");
    plan.uid = 0;
    plan.gid = 0;
    assert!(answer(&plan).contains("CapEff:\t0000000000000000"));
    plan.drop_capabilities = false;
    let mut slot = spec();
    slot.empty_bounding_set = false;
    let home = Home::new();
    let launched = home.launch_in(spawner().spawn(slot).unwrap(), &plan).unwrap();
    assert!(!home.finish(launched).text().contains("CapEff:\t0000000000000000"));
    // A parked init has given the bounding set up: not even root inside gets a capability that way.
    assert!(answer(&plan).contains("CapEff:\t0000000000000000"));
}

#[test]
fn without_no_new_privs_it_is_not_set() {
    if skip() {
        return;
    }
    let mut plan = sh("grep NoNewPrivs /proc/self/status");
    plan.landlock = None;
    plan.seccomp = None;
    assert_eq!(answer(&plan), "NoNewPrivs:\t1\n");
    plan.no_new_privs = false;
    assert_eq!(answer(&plan), "NoNewPrivs:\t0\n");
}

#[test]
fn without_the_session_layer_descriptors_leak() {
    if skip() {
        return;
    }
    let mut plan = sh("ls /proc/self/fd | wc -l");
    assert_eq!(answer(&plan), "4\n");
    plan.session = false;
    let leaked: u32 = answer(&plan).trim().parse().unwrap();
    assert!(leaked > 6, "{leaked}");
}

#[test]
fn without_rlimits_there_are_none() {
    if skip() {
        return;
    }
    let mut plan = sh("ulimit -n");
    assert_eq!(answer(&plan), "1024\n");
    plan.rlimits = None;
    assert_ne!(answer(&plan), "1024\n");
}

#[test]
fn without_the_network_namespace_the_hosts_devices_show() {
    if skip() {
        return;
    }
    let plan = sh("tail -n +3 /proc/net/dev | wc -l");
    let devices = std::fs::read_to_string("/proc/net/dev").unwrap().lines().count() - 2;
    assert_eq!(answer(&plan), "1\n");
    let mut host = spec();
    host.namespaces = host.namespaces.without("net");
    let home = Home::new();
    let launched = home.launch_in(spawner().spawn(host).unwrap(), &plan).unwrap();
    let namespaces = launched.layers.iter().find(|l| l.name == LayerName::Namespaces).unwrap();
    assert_eq!(namespaces.state, LayerState::Degraded);
    assert_eq!(home.finish(launched).text(), format!("{devices}\n"));
}

#[test]
fn without_masks_proc_is_whole() {
    if skip() {
        return;
    }
    let plan = sh("grep -c ' /proc/' /proc/self/mountinfo");
    assert_ne!(answer(&plan), "0\n");
    let mut bare = spec();
    bare.mask_proc = false;
    let home = Home::new();
    let launched = home.launch_in(spawner().spawn(bare).unwrap(), &plan).unwrap();
    assert_eq!(home.finish(launched).text(), "0\n");
}
