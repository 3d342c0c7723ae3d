//! What init tells the launcher about the layers it has set up: built from what was done, not from what was asked.

use aion_sandbox::{Plan, RootfsKind};
use aion_types::{LayerName, LayerReport, LayerState};

use crate::domain::Domain;

pub(crate) fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// The layers of a first process: of its root, and of itself.
pub(crate) fn of_launch(plan: &Plan, masked: bool, domain: Option<&Domain>) -> Vec<LayerReport> {
    let mut layers = vec![rootfs(plan, masked), workspace(plan)];
    layers.extend(of_process(plan, domain));
    layers
}

/// The layers that each process has for itself.
pub(crate) fn of_process(plan: &Plan, domain: Option<&Domain>) -> Vec<LayerReport> {
    let flag = |on: bool| if on { LayerState::Active } else { LayerState::Off };
    let layer = |name, on, detail: &str| LayerReport {
        name,
        state: flag(on),
        detail: if on { detail.to_owned() } else { "left out".to_owned() },
    };
    vec![
        layer(
            LayerName::Session,
            plan.session,
            "an anonymous session keyring, a session of its own, no inherited descriptor",
        ),
        rlimits(plan),
        layer(LayerName::Capabilities, plan.drop_capabilities, "all five sets are empty"),
        layer(LayerName::NoNewPrivs, plan.no_new_privs, "set"),
        match domain {
            None => layer(LayerName::Landlock, false, ""),
            Some(domain) => LayerReport {
                name: LayerName::Landlock,
                state: if domain.abi == 0 { LayerState::Degraded } else { LayerState::Active },
                detail: domain.detail.clone(),
            },
        },
        seccomp(plan),
    ]
}

fn rootfs(plan: &Plan, masked: bool) -> LayerReport {
    let kind = match plan.rootfs {
        RootfsKind::HostSystem => "the host's system, read-only",
        RootfsKind::Directory => "a folder, read-only",
    };
    let state = if masked { LayerState::Active } else { LayerState::Degraded };
    let masked = if masked { ", /proc masked" } else { ", /proc not masked" };
    let detail = format!("{kind}{masked}; pivot_root; {} MiB of /tmp", plan.scratch_bytes >> 20);
    LayerReport { name: LayerName::Rootfs, state, detail }
}

fn workspace(plan: &Plan) -> LayerReport {
    let detail = match plan.workspace_read_only {
        true => "/workspace, read-only",
        false => "/workspace, what is made in it belongs to the folder's owner",
    };
    LayerReport { name: LayerName::Workspace, state: LayerState::Active, detail: detail.to_owned() }
}

fn rlimits(plan: &Plan) -> LayerReport {
    let (state, detail) = match &plan.rlimits {
        None => (LayerState::Off, "left out".to_owned()),
        Some(all) => {
            let mut text = String::new();
            for limit in all {
                let comma = if text.is_empty() { "" } else { ", " };
                text.push_str(&format!("{comma}{:?} {}", limit.resource, limit.soft));
            }
            (LayerState::Active, text)
        }
    };
    LayerReport { name: LayerName::Rlimits, state, detail }
}

fn seccomp(plan: &Plan) -> LayerReport {
    let (state, detail) = match &plan.seccomp {
        None => (LayerState::Off, "left out".to_owned()),
        Some(filter) => {
            let told = if filter.notify.is_some() { ", denied calls are recorded" } else { "" };
            (
                LayerState::Active,
                format!("{}: {} instructions{told}", filter.profile, filter.program.len() / 8),
            )
        }
    };
    LayerReport { name: LayerName::Seccomp, state, detail }
}
