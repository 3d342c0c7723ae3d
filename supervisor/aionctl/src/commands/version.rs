//! `version`: of the client and of the daemons.

use aion_client::{Client, Options, api};
use serde::Serialize;

use crate::failure::Outcome;
use crate::output::Printer;

#[derive(Serialize)]
struct VersionView {
    client: &'static str,
    aiond: Option<String>,
    launcher: Option<String>,
    uptime_s: Option<u64>,
}

pub(super) async fn version(options: Options, client_only: bool, printer: Printer) -> Outcome {
    let client = env!("CARGO_PKG_VERSION");
    let mut view = VersionView { client, aiond: None, launcher: None, uptime_s: None };
    let mut failure = None;
    if !client_only {
        match ask(options).await {
            Ok(answer) => {
                view.aiond = Some(answer.version);
                view.launcher = Some(answer.launcher_version).filter(|version| !version.is_empty());
                view.uptime_s = Some(answer.uptime_s);
            }
            Err(error) => failure = Some(error),
        }
    }
    printer.document(&view, client, || {
        let unknown = || "unknown".to_owned();
        let mut out = format!("aionctl        {client}\n");
        if !client_only {
            let up = view.uptime_s.map(|s| crate::when::words(std::time::Duration::from_secs(s)));
            let up = up.map_or_else(String::new, |up| format!(" (up {up})"));
            out.push_str(&format!("aiond          {}{up}\n", view.aiond.clone().unwrap_or_else(unknown)));
            out.push_str(&format!("aion-launcher  {}\n", view.launcher.clone().unwrap_or_else(unknown)));
        }
        out
    })?;
    failure.map_or(Ok(0), |error| Err(error.into()))
}

async fn ask(options: Options) -> aion_client::Result<api::VersionResponse> {
    Client::connect(options).await?.version(api::VersionRequest {}).await
}
