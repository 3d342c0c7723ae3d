//! System calls: counted, timed, recorded one by one; and what the kernel denied.

use aion_probes::{AgentConfig, AuditMode, PrivSource};

use crate::world::{EVENTS, What, World, drain};

const GETPPID: u32 = 110;
const SETRESUID: u32 = 117;
const MOUNT: u32 = 165;

fn mode(mode: AuditMode) -> AgentConfig {
    AgentConfig { mode, ..EVENTS }
}

#[test]
fn attached_only_while_asked_for() {
    let Some(world) = World::new(1 << 20) else { return };
    let opened = world.open();
    assert!(!opened.probes.syscall_probes_attached());
    let agent = world.agent(&opened.probes, EVENTS);
    assert!(!opened.probes.syscall_probes_attached(), "enforce mode has no system-call probe");
    let other = world.cgroup("other");
    opened.probes.add_agent(other.id, mode(AuditMode::Count)).unwrap();
    assert!(opened.probes.syscall_probes_attached());
    opened.probes.update_agent(agent.id, mode(AuditMode::Full)).unwrap();
    opened.probes.remove_agent(other.id).unwrap();
    assert!(opened.probes.syscall_probes_attached());
    opened.probes.update_agent(agent.id, EVENTS).unwrap();
    assert!(!opened.probes.syscall_probes_attached());
}

#[test]
fn counted_exactly() {
    let Some(world) = World::new(1 << 20) else { return };
    let opened = world.open();
    let agent = world.agent(&opened.probes, mode(AuditMode::Count));
    assert_eq!(agent.help(&["getppid", "10000"]), "ok");
    let calls = opened.probes.syscalls(agent.id).unwrap();
    let getppid = calls.iter().find(|call| call.nr == GETPPID).unwrap();
    assert_eq!((getppid.count, getppid.errors), (10_000, 0));
    assert!(getppid.latency_log2_ns.is_empty());
    assert!(calls.iter().any(|call| call.errors > 0));
    // Counters go on when the mode changes, and an agent in the same slot begins at nothing.
    opened.probes.update_agent(agent.id, mode(AuditMode::Latency)).unwrap();
    agent.help(&["getppid", "5000"]);
    let last = opened.probes.remove_agent(agent.id).unwrap();
    let getppid = last.syscalls.iter().find(|call| call.nr == GETPPID).unwrap();
    assert_eq!(getppid.count, 15_000);
    assert_eq!(getppid.latency_log2_ns.iter().sum::<u64>(), 5_000);
    opened.probes.add_agent(agent.id, mode(AuditMode::Latency)).unwrap();
    assert!(opened.probes.syscalls(agent.id).unwrap().is_empty());
}

#[test]
fn every_call_one_by_one() {
    let Some(world) = World::new(8 << 20) else { return };
    let mut opened = world.open();
    let agent = world.agent(&opened.probes, mode(AuditMode::Full));
    agent.help(&["getppid", "1000"]);
    let seen = drain(&mut opened);
    let me = std::process::id();
    let calls = seen.iter().filter(|s| matches!(&s.what, What::Syscall(call) if call.nr == GETPPID));
    assert_eq!(calls.clone().count(), 1000);
    assert!(calls.clone().all(|s| matches!(&s.what, What::Syscall(call) if call.ret == i64::from(me))));
    assert_eq!(opened.probes.dropped(agent.id).unwrap(), 0);
    assert_eq!(opened.probes.events(agent.id).unwrap(), seen.len() as u64);
}

#[test]
fn denials_and_changes_of_privileges() {
    let Some(world) = World::new(1 << 20) else { return };
    let mut opened = world.open();
    let agent = world.agent(&opened.probes, mode(AuditMode::Count));
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(agent.help(&["unprivileged-mount", dir.path().to_str().unwrap()]), "ok EPERM");
    let seen = drain(&mut opened);
    let denied: Vec<_> = seen
        .iter()
        .filter(|s| matches!(&s.what, What::SyscallDenied(c) if c.nr == MOUNT && c.ret == -1))
        .collect();
    assert_eq!(denied.len(), 1, "{seen:#?}");
    if opened.probes.lsm_available() {
        // There the hook tells, of agents that are armed.
        return;
    }
    let change = seen
        .iter()
        .find_map(|s| match &s.what {
            What::Priv(change) => Some(change),
            _ => None,
        })
        .unwrap();
    assert_eq!(change.source, PrivSource::Syscall(SETRESUID));
    assert_eq!((change.new.uid, change.new.euid, change.new.cap_effective), (65534, 65534, 0));
}

#[test]
fn opens_for_writing() {
    let Some(world) = World::new(1 << 20) else { return };
    let mut opened = world.open();
    let agent = world.agent(&opened.probes, mode(AuditMode::Count));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("written");
    assert_eq!(agent.help(&["open-write", file.to_str().unwrap()]), "ok");
    let seen = drain(&mut opened);
    let lsm = opened.probes.lsm_available();
    let found = seen.iter().any(
        |s| matches!(&s.what, What::Open { path, raw } if *path == file.to_string_lossy() && *raw != lsm),
    );
    // With LSM an agent is recorded once it is armed.
    assert!(found || lsm, "{seen:#?}");
}

#[test]
fn out_of_memory() {
    let Some(world) = World::new(1 << 20) else { return };
    let mut opened = world.open();
    let agent = world.agent(&opened.probes, EVENTS);
    let Some(memory) = Memory::limit(&world, &agent, 24 << 20) else {
        println!("skipped: no memory controller");
        return;
    };
    let me = std::env::current_exe().unwrap();
    let script = format!("echo $$ > {}/cgroup.procs; exec \"$@\"", memory.path.display());
    let status = agent
        .command(&["/bin/sh", "-c", &script, "sh", me.to_str().unwrap(), "--exact", "helper::helper"])
        .env("AION_IT_HELPER", "eat 256")
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(!status.success());
    let seen = drain(&mut opened);
    let victim = seen.iter().find_map(|s| if let What::Oom(victim) = s.what { Some(victim) } else { None });
    let exit = seen.iter().find(|s| matches!(&s.what, What::Exit(exit) if exit.oom && exit.signal == 9));
    assert_eq!(victim.unwrap(), exit.unwrap().pid, "{seen:#?}");
}

/// A memory limit: the agent's own cgroup on v2, one of its own on v1.
struct Memory {
    path: std::path::PathBuf,
    v1: bool,
}

impl Memory {
    fn limit(world: &World, agent: &crate::world::Agent, bytes: u64) -> Option<Self> {
        let v1 = std::path::Path::new("/sys/fs/cgroup/memory");
        if v1.join("memory.limit_in_bytes").exists() {
            let path = v1.join(world.name());
            std::fs::create_dir(&path).ok()?;
            std::fs::write(path.join("memory.limit_in_bytes"), bytes.to_string()).ok()?;
            let _ = std::fs::write(path.join("memory.memsw.limit_in_bytes"), bytes.to_string());
            return Some(Self { path, v1: true });
        }
        std::fs::write(world.parent.parent()?.join("cgroup.subtree_control"), "+memory").ok()?;
        std::fs::write(world.parent.join("cgroup.subtree_control"), "+memory").ok()?;
        std::fs::write(agent.path.join("memory.max"), bytes.to_string()).ok()?;
        let _ = std::fs::write(agent.path.join("memory.swap.max"), "0");
        Some(Self { path: agent.path.clone(), v1: false })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.v1 {
            let _ = std::fs::remove_dir(&self.path);
        }
    }
}
