//! BPF LSM: what no agent may do is refused in the kernel, once the agent is set up. Runs where `bpf` is in
//! the kernel's LSM list (the VMs).

use aion_probes::Opened;

use crate::world::{Agent, EVENTS, What, World, drain};

fn with_lsm() -> Option<(World, Opened, Agent)> {
    let world = World::new(1 << 20)?;
    let opened = world.open();
    if !opened.probes.lsm_available() {
        let reason = opened.report.programs.iter().find(|program| program.name == "lsm_bpf");
        println!("skipped: no BPF LSM: {reason:?}");
        return None;
    }
    let agent = world.agent(&opened.probes, EVENTS);
    Some((world, opened, agent))
}

fn refused(opened: &mut Opened) -> Vec<&'static str> {
    drain(opened)
        .iter()
        .filter_map(|s| if let What::Lsm(hook) = s.what { Some(hook) } else { None })
        .collect()
}

#[test]
fn every_hook_is_attached() {
    let Some((_world, opened, _agent)) = with_lsm() else { return };
    for program in &opened.report.programs {
        println!("{} {:?}", program.name, program.state);
    }
    let missing = |name: &str| {
        opened
            .report
            .programs
            .iter()
            .any(|p| p.name == name && matches!(p.state, aion_probes::ProgramState::Unavailable { .. }))
    };
    for name in ["lsm_bpf", "lsm_sb_mount", "lsm_userns_create", "lsm_file_open", "lsm_task_kill"] {
        assert!(!missing(name), "{name}");
    }
}

#[test]
fn refusals_begin_when_the_agent_is_armed() {
    let Some((_world, mut opened, agent)) = with_lsm() else { return };
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().to_str().unwrap();
    assert_eq!(agent.help(&["mount", at]), "ok", "the set-up of the sandbox mounts");
    nix::mount::umount(at).unwrap();
    assert_eq!(agent.help(&["no-new-privs-mount", at]), "ok EPERM");
    assert_eq!(refused(&mut opened), ["sb_mount"]);
    opened.probes.arm(agent.id).unwrap();
    assert_eq!(agent.help(&["mount", at]), "EPERM");
    assert!(!agent.run(&["unshare", "--user", "true"]).success());
    assert_ne!(agent.help(&["bpf", "/sys/fs/bpf/never"]), "ok");
    let hooks = refused(&mut opened);
    assert_eq!(hooks[..2], ["sb_mount", "userns_create"], "{hooks:?}");
    assert!(hooks.contains(&"bpf"), "{hooks:?}");
    // Bystanders are not touched.
    nix::mount::mount(Some("none"), at, Some("tmpfs"), nix::mount::MsFlags::empty(), None::<&str>).unwrap();
    nix::mount::umount(at).unwrap();
    assert!(opened.probes.counters(agent.id).unwrap().denied >= 3);
}

#[test]
fn signals_stay_inside() {
    let Some((_world, mut opened, agent)) = with_lsm() else { return };
    opened.probes.arm(agent.id).unwrap();
    assert_eq!(agent.help(&["kill", &std::process::id().to_string()]), "EPERM");
    assert_eq!(refused(&mut opened), ["task_kill"]);
    assert!(agent.run(&["/bin/sh", "-c", "sleep 5 & kill $!"]).success());
    assert!(refused(&mut opened).is_empty());
}

#[test]
fn opens_for_writing_have_the_resolved_path() {
    let Some((_world, mut opened, agent)) = with_lsm() else { return };
    opened.probes.arm(agent.id).unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("sub")).unwrap();
    let crooked = dir.path().join("sub/../written");
    let straight = dir.path().join("written");
    assert_eq!(agent.help(&["open-write", crooked.to_str().unwrap()]), "ok");
    let seen = drain(&mut opened);
    let paths: Vec<_> = seen
        .iter()
        .filter_map(
            |s| if let What::Open { path, raw } = &s.what { Some((path.as_str(), *raw)) } else { None },
        )
        .collect();
    assert!(paths.contains(&(straight.to_str().unwrap(), false)), "{paths:?}");
}
