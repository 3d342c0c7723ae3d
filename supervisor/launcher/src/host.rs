//! What this host gives each layer: the general checks, and what this launcher itself has found.

use aion_host_checks::{Release, all};
use aion_launcher_proto::v1;

use crate::launcher::{Launcher, ProbesState};

pub(crate) fn answer(launcher: &Launcher) -> v1::HostOk {
    let mut checks: Vec<v1::Check> =
        all().into_iter().map(|c| check(c.name, c.state.as_str(), c.detail, &c.fix)).collect();
    checks.push(probes(launcher));
    checks.push(match launcher.volumes {
        Some(_) => check("volume-pool", "ok", "volumes for workspaces are kept ready".to_owned(), ""),
        None => check(
            "volume-pool",
            "missing",
            "the folder for volumes cannot be used; the launcher's log says why".to_owned(),
            "make STATE/volumes usable and restart aion-launcher",
        ),
    });
    v1::HostOk { checks, kernel: Release::running().to_string() }
}

fn probes(launcher: &Launcher) -> v1::Check {
    match &launcher.probes {
        ProbesState::Missing { reason } => check(
            "probes",
            "missing",
            reason.clone(),
            "build the BPF object (cargo xtask build-ebpf) and start aion-launcher with --bpf-object",
        ),
        ProbesState::Loaded { report, .. } => {
            let missing: Vec<String> = report
                .programs
                .iter()
                .filter_map(|p| match &p.state {
                    aion_probes::ProgramState::Unavailable { reason } => {
                        Some(format!("{}: {reason}", p.name))
                    }
                    _ => None,
                })
                .collect();
            let how = format!("{:?}, {} programs", report.adoption, report.programs.len()).to_lowercase();
            if missing.is_empty() {
                check("probes", "ok", how, "")
            } else {
                let detail = format!("{how}; without {}", missing.join("; "));
                check("probes", "degraded", detail, "boot with lsm=…,bpf for the LSM programs")
            }
        }
    }
}

fn check(name: &str, state: &str, detail: String, fix: &str) -> v1::Check {
    v1::Check { name: name.to_owned(), state: state.to_owned(), detail, fix: fix.to_owned() }
}
