//! Limits hold, and say which they are.

use aion_launcher_proto::v1;

use crate::client::until;
use crate::daemon::Daemon;
use crate::fixtures::{python, sh};
use crate::records::records;

#[test]
fn running_out_of_memory_ends_the_agent() {
    let Some(daemon) = Daemon::start(&[]) else { return };
    let mut client = daemon.client();
    let mut asked = python("x = bytearray(200 << 20)\nimport time; time.sleep(100)");
    asked.limits.as_mut().unwrap().mem_bytes = 64 << 20;
    client.launch(&asked).unwrap();
    let exit = client.wait(&asked.id).exit.unwrap();
    assert_eq!((exit.signal, exit.reason.as_str()), (9, "oom"));
    until("the limit is told", || {
        records(&daemon).iter().any(|r| r.kind == "limit.hit" && r.detail_json.contains("memory"))
    });
}

#[test]
fn a_child_that_runs_out_of_memory_ends_the_agent_too() {
    let Some(daemon) = Daemon::start(&[]) else { return };
    let mut client = daemon.client();
    let mut asked = sh("python3 -c 'x = bytearray(200 << 20)'; echo went on; sleep 100");
    asked.limits.as_mut().unwrap().mem_bytes = 64 << 20;
    client.launch(&asked).unwrap();
    assert_eq!(client.wait(&asked.id).exit.unwrap().reason, "oom");
}

#[test]
fn a_fork_bomb_meets_its_limit() {
    let Some(daemon) = Daemon::start(&[]) else { return };
    let mut client = daemon.client();
    let mut asked = python(
        "import os, time\nfor i in range(50):\n  try:\n    if os.fork() == 0: time.sleep(100)\n  except OSError: pass\ntime.sleep(100)",
    );
    asked.limits.as_mut().unwrap().pids = 20;
    client.launch(&asked).unwrap();
    until("the limit is told", || {
        records(&daemon).iter().any(|r| r.kind == "limit.hit" && r.rule == "limits.pids")
    });
    assert!(client.stats(&asked.id).pids <= 21);
    client.kill(&asked.id).unwrap();
}

#[test]
fn time_is_over_on_time() {
    let Some(daemon) = Daemon::start(&[]) else { return };
    let mut client = daemon.client();
    let mut asked = sh("sleep 100");
    asked.limits.as_mut().unwrap().wall_ms = 300;
    let begun = std::time::Instant::now();
    client.launch(&asked).unwrap();
    let exit = client.wait(&asked.id).exit.unwrap();
    assert_eq!(exit.reason, "timeout");
    let took = begun.elapsed().as_millis();
    assert!((300..2000).contains(&took), "{took} ms");
}

#[test]
fn the_disk_ends_where_the_limit_is() {
    let Some(daemon) = Daemon::start(&[]) else { return };
    let mut client = daemon.client();
    let mut asked = sh("head -c 100m /dev/zero > big; ls -l big | awk '{print $5}'; df -k . | tail -1");
    asked.limits.as_mut().unwrap().disk_bytes = 64 << 20;
    client.launch(&asked).unwrap();
    client.wait(&asked.id);
    let (out, err) = daemon.output(&asked.id);
    let (out, err) = (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap());
    let size: u64 = out.lines().next().unwrap().parse().unwrap();
    assert!(size < 64 << 20, "{out}{err}");
    assert!(err.contains("No space left"), "{out}{err}");
}

#[test]
fn limits_of_files_and_descriptors() {
    let Some(daemon) = Daemon::start(&[]) else { return };
    let mut client = daemon.client();
    let mut asked = sh("ulimit -n; head -c 2m /dev/zero > big; echo $?");
    let limits = asked.limits.as_mut().unwrap();
    (limits.open_files, limits.file_size_bytes) = (64, 1 << 20);
    client.launch(&asked).unwrap();
    client.wait(&asked.id);
    let out = String::from_utf8(daemon.output(&asked.id).0).unwrap();
    assert!(out.starts_with("64\n"), "{out}");
    assert!(!out.ends_with("\n0\n"), "{out}");
}

#[test]
fn disk_without_limit_and_in_memory() {
    let Some(daemon) = Daemon::start(&[]) else { return };
    let mut client = daemon.client();
    let mut asked = sh("echo x > note && cat note");
    asked.limits = Some(v1::Limits::default());
    let state = client.launch(&asked).unwrap();
    assert_eq!(state.layers.iter().find(|l| l.name == "disk").unwrap().state, "off");
    assert_eq!(client.wait(&asked.id).exit.unwrap().code, 0);
}

#[test]
fn nobody_gets_more_than_the_launchers_ceilings() {
    let ceilings = ["--max-pids", "40", "--max-mem-mib", "96", "--max-agents", "2"];
    let Some(daemon) = Daemon::start(&ceilings) else { return };
    let mut client = daemon.client();
    let forks = "import os, time\nn = 0\ntry:\n  while n < 200:\n    if os.fork() == 0: time.sleep(100)\n    n += 1\n\
                 except OSError: pass\nprint(n, flush=True)\nos._exit(0)";
    let mut greedy = python(forks);
    greedy.limits.as_mut().unwrap().pids = 4000;
    let mut boundless = python(forks);
    boundless.limits = None;
    for asked in [&greedy, &boundless] {
        let state = client.launch(asked).unwrap();
        let cgroup = state.layers.iter().find(|l| l.name == "cgroup").unwrap().detail.clone();
        assert!(
            cgroup.contains("pids 40") && cgroup.contains(&format!("mem_bytes {}", 96 << 20)),
            "{cgroup}"
        );
        assert_eq!(cgroup.contains("lowered"), asked.limits.is_some(), "{cgroup}");
        client.wait(&asked.id);
        let (out, _) = daemon.output(&asked.id);
        let forked: u32 = String::from_utf8(out).unwrap().trim().parse().unwrap();
        assert!(forked < 41, "{forked} processes");
    }
    let mut running = Vec::new();
    for _ in 0..2 {
        let asked = sh("sleep 100");
        client.launch(&asked).unwrap();
        running.push(asked.id);
    }
    let refused = client.launch(&sh("sleep 100")).unwrap_err();
    assert_eq!(refused.code, "RESOURCE_EXHAUSTED");
    for id in running {
        client.kill(&id).unwrap();
    }
}

#[test]
fn the_hosts_network_is_recorded_and_can_be_refused() {
    let host = || v1::Launch { network: v1::Network::Host.into(), ..sh("true") };
    {
        let Some(daemon) = Daemon::start(&[]) else { return };
        let mut client = daemon.client();
        let asked = host();
        client.launch(&asked).unwrap();
        client.wait(&asked.id);
        let recorded = || records(&daemon).iter().any(|r| r.kind == "agent.network" && r.agent == asked.id);
        until("the host's network is recorded", recorded);
    }
    let Some(daemon) = Daemon::start(&["--host-network", "refuse"]) else { return };
    let mut client = daemon.client();
    assert_eq!(client.launch(&host()).unwrap_err().code, "POLICY_DENIED");
    client.launch(&sh("true")).unwrap();
    until("the refusal is recorded", || {
        records(&daemon).iter().any(|r| r.kind == "agent.launched" && r.verdict == "denied")
    });
}
