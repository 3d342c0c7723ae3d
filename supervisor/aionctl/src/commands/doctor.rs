//! `doctor`: what this host gives each layer. The daemons know best; without them, what files tell from here.

use std::path::Path;

use aion_client::{Client, Options, api};
use serde::Serialize;

use super::host_files::look;
use crate::failure::Outcome;
use crate::output::{Printer, note};
use crate::view::host::{CheckView, checks_table};

#[derive(Serialize)]
struct DoctorView {
    kernel: String,
    /// Whether aiond answered.
    daemon: bool,
    checks: Vec<CheckView>,
}

pub(super) async fn doctor(options: Options, printer: Printer) -> Outcome {
    let socket = options.socket.clone();
    let (view, failure) = match ask(options).await {
        Ok(answer) => {
            let checks = answer.checks.into_iter().map(CheckView::from).collect();
            (DoctorView { kernel: answer.kernel, daemon: true, checks }, None)
        }
        Err(error) => {
            let mut checks = vec![CheckView::new(
                "aiond",
                "missing",
                format!("no answer at {}", socket.display()),
                "systemctl start aiond, or cargo xtask up; --socket or AION_SOCKET names another socket",
            )];
            checks.extend(look(Path::new("/")));
            let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
            (DoctorView { kernel: kernel.trim().to_owned(), daemon: false, checks }, Some(error))
        }
    };
    printer.document(&view, &view.kernel, || {
        format!("Kernel {}\n\n{}\n", view.kernel, printer.rendered(checks_table(&view.checks)))
    })?;
    let Some(error) = failure else { return Ok(0) };
    note("The daemons are not there to look closer: these checks were made from here, from files alone.");
    Err(error.into())
}

async fn ask(options: Options) -> aion_client::Result<api::DoctorResponse> {
    Client::connect(options).await?.doctor(api::DoctorRequest {}).await
}
