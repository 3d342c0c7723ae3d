//! Doctor and Version.

use aion_api_proto::v1 as api;

use crate::core::Core;
use crate::problem::Outcome;

impl Core {
    pub(crate) async fn doctor(&self) -> Outcome<api::DoctorResponse> {
        let host = self.launcher.host().await?;
        Ok(api::DoctorResponse {
            kernel: host.kernel,
            checks: host
                .checks
                .into_iter()
                .map(|check| api::Check {
                    name: check.name,
                    state: check.state,
                    detail: check.detail,
                    fix: check.fix,
                })
                .collect(),
        })
    }

    /// Answers also while the launcher is away, with an empty version of it.
    pub(crate) async fn version(&self) -> api::VersionResponse {
        let launcher_version = match self.launcher.hello().await {
            Ok(hello) => hello.version,
            Err(error) => {
                tracing::debug!(%error, "the launcher does not say its version");
                String::new()
            }
        };
        api::VersionResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            launcher_version,
            uptime_s: self.started.elapsed().as_secs(),
        }
    }
}
