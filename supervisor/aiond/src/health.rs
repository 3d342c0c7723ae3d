//! Health over gRPC (`grpc.health.v1`): each part under its name, each service by the parts that it rests on, as they are now.
//!
//! The parts are those of `/readyz`, looked at every few seconds; who watches hears of changes alone. A service whose part does not work
//! still answers, with the error that says so.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use aion_http::{Backend, Part};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// How often the parts are looked at.
const LOOK: Duration = Duration::from_secs(5);

const LAUNCHER: &str = "launcher";
const STORE: &str = "store";
const TASKS: &str = "tasks";

/// The services, with what they rest on; the one without a name is the daemon as a whole.
const SERVICES: [(&str, &[&str]); 12] = [
    ("", &[LAUNCHER, STORE, TASKS]),
    ("aion.v1.AgentService", &[LAUNCHER, STORE]),
    ("aion.v1.HostService", &[]),
    ("aion.v1.EventService", &[STORE]),
    ("aion.v1.AuditService", &[LAUNCHER, STORE]),
    ("aion.v1.BackupService", &[STORE, TASKS]),
    ("aion.v1.DetectionService", &[STORE]),
    ("aion.v1.TaskService", &[STORE, TASKS]),
    ("aion.v1.JournalService", &[STORE, TASKS]),
    ("aion.v1.KernelService", &[STORE]),
    ("aion.v1.PolicyService", &[LAUNCHER, STORE]),
    ("aion.v1.SyscallService", &[STORE]),
];

/// Before the first look nobody knows.
pub(crate) async fn begin(reporter: &HealthReporter) {
    for (service, _) in SERVICES {
        reporter.set_service_status(service, ServingStatus::Unknown).await;
    }
}

/// Looks until `ending`; from then on nothing serves.
pub(crate) async fn follow(
    reporter: HealthReporter,
    backend: Arc<dyn Backend>,
    ending: impl Future<Output = ()> + Send,
) {
    let mut ending = pin!(ending);
    let mut told = HashMap::new();
    loop {
        let parts = tokio::select! {
            parts = backend.parts() => parts,
            () = &mut ending => break,
        };
        for (name, status) in statuses(&parts) {
            if told.insert(name, status) != Some(status) {
                reporter.set_service_status(name, status).await;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = &mut ending => break,
        }
    }
    for name in told.into_keys() {
        reporter.set_service_status(name, ServingStatus::NotServing).await;
    }
}

fn statuses(parts: &[Part]) -> Vec<(&'static str, ServingStatus)> {
    let status = |works| if works { ServingStatus::Serving } else { ServingStatus::NotServing };
    let works = |name: &str| parts.iter().all(|part| part.name != name || part.ok);
    let each = parts.iter().map(|part| (part.name, status(part.ok)));
    let services = SERVICES.iter().map(|(name, on)| (*name, status(on.iter().all(|&part| works(part)))));
    each.chain(services).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_works_when_all_works_that_it_rests_on() {
        let parts =
            [LAUNCHER, STORE, TASKS].map(|name| Part { name, ok: name != LAUNCHER, detail: String::new() });
        let told: HashMap<_, _> = statuses(&parts).into_iter().collect();
        assert_eq!(told.len(), SERVICES.len() + parts.len());
        for name in ["", LAUNCHER, "aion.v1.AgentService"] {
            assert_eq!(told[name], ServingStatus::NotServing, "{name:?}");
        }
        for name in [STORE, TASKS, "aion.v1.TaskService", "aion.v1.HostService"] {
            assert_eq!(told[name], ServingStatus::Serving, "{name:?}");
        }
    }
}
