//! What this host gives each layer: the general checks, and what this launcher itself has found.

use std::collections::BTreeMap;

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
            // Programs that lack the same thing are told together.
            let mut missing: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
            for program in &report.programs {
                if let aion_probes::ProgramState::Unavailable { reason } = &program.state {
                    missing.entry(reason).or_default().push(program.name.as_ref());
                }
            }
            let how = format!("{:?}, {} programs", report.adoption, report.programs.len()).to_lowercase();
            if missing.is_empty() {
                check("probes", "ok", how, "")
            } else {
                let told: Vec<String> = missing
                    .iter()
                    .map(|(reason, programs)| match programs.as_slice() {
                        [one] => format!("without {one}: {reason}"),
                        [first, ..] => format!("without {first} and {} more: {reason}", programs.len() - 1),
                        [] => String::new(),
                    })
                    .collect();
                let detail = format!("{how}; {}", told.join("; "));
                check("probes", "degraded", detail, "boot with lsm=…,bpf for the LSM programs")
            }
        }
    }
}

fn check(name: &str, state: &str, detail: String, fix: &str) -> v1::Check {
    v1::Check { name: name.to_owned(), state: state.to_owned(), detail, fix: fix.to_owned() }
}
