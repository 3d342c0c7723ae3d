//! What the commands do. Each gets the parsed arguments and gives an exit status or a failure; only this module
//! knows which command is which.

mod apply;
mod approvals;
mod audit;
mod backup;
mod detections;
mod doctor;
mod events;
mod exec;
mod flags;
mod forward;
mod host_files;
mod inspect;
mod journal;
mod kernel;
mod lifecycle;
mod logs;
mod man;
mod partial;
mod policy;
mod profile;
mod ps;
mod queue;
mod run;
mod secret;
mod signals;
mod signing;
mod stats;
mod support;
mod sync_output;
mod target;
mod task;
mod task_submit;
mod tool_files;
mod top;
mod tty;
mod validate;
mod version;
mod wait;

use std::time::Duration;

use aion_client::{Client, Options};

use crate::cli::{AuditCommand, BackupCommand, Cli, Command, DetectionsCommand, Global};
use crate::failure::{Failure, Outcome, RUN_ERROR, USAGE};
use crate::output::Printer;

/// Does what the command line asks.
pub(crate) async fn dispatch(cli: Cli) -> Outcome {
    let printer = Printer::new(cli.global.output);
    let global = &cli.global;
    match cli.command {
        Command::Completion(args) => man::completion(args.shell),
        Command::Man(args) => man::pages(&args.dir),
        Command::Validate(args) => validate::validate(&args, printer),
        Command::Doctor => doctor::doctor(options(global)?, printer).await,
        Command::SupportBundle(args) => support::bundle(options(global)?, &args, printer).await,
        Command::Version(args) => version::version(options(global)?, args.client, printer).await,
        Command::Run(args) => {
            let options = options(global).map_err(|failure| failure.exiting(RUN_ERROR))?;
            run::run(options, *args, printer).await
        }
        Command::Ps(args) => ps::ps(&connect(global).await?, &args, printer).await,
        Command::Inspect(args) => {
            inspect::inspect(&connect(global).await?, &args.names.agents, printer).await
        }
        Command::Logs(args) => logs::logs(&connect(global).await?, args, printer).await,
        Command::Top(args) => top::top(&connect(global).await?, args, printer).await,
        Command::Exec(args) => exec::exec(&connect(global).await?, args).await,
        Command::Events(args) => events::events(&connect(global).await?, &args, printer).await,
        Command::Stats(args) => stats::stats(&connect(global).await?, args, printer).await,
        Command::Stop(args) => lifecycle::stop(&connect(global).await?, args, printer).await,
        Command::Kill(args) => lifecycle::kill(&connect(global).await?, args, printer).await,
        Command::Pause(args) => lifecycle::pause(&connect(global).await?, args, printer).await,
        Command::Resume(args) => lifecycle::resume(&connect(global).await?, args, printer).await,
        Command::Start(args) => lifecycle::start(&connect(global).await?, args, printer).await,
        Command::Rm(args) => lifecycle::rm(&connect(global).await?, args, printer).await,
        Command::Wait(args) => wait::wait(&connect(global).await?, args, printer).await,
        Command::Apply(args) => apply::apply(&connect(global).await?, &args, printer).await,
        Command::Task(args) => task::task(&connect(global).await?, args, printer).await,
        Command::Queue(args) => queue::queue(&connect(global).await?, &args, printer).await,
        Command::Detections(DetectionsCommand::Test(args)) => detections::test(&args, printer),
        Command::Detections(command) => {
            detections::detections(&connect(global).await?, command, printer).await
        }
        Command::Tenant(args) => kernel::tenant(&connect(global).await?, args, printer).await,
        Command::Tool(args) => {
            kernel::tool(&connect(global).await?, args, global.tenant.clone(), printer).await
        }
        Command::Model(args) => kernel::model(&connect(global).await?, args, printer).await,
        Command::Approvals => {
            approvals::list(&connect(global).await?, global.tenant.as_deref(), printer).await
        }
        Command::Approve(args) => approvals::answer(&connect(global).await?, args, true, printer).await,
        Command::Deny(args) => approvals::answer(&connect(global).await?, args, false, printer).await,
        Command::Secret(args) => secret::secret(&connect(global).await?, args, printer).await,
        Command::Policy(args) => policy::policy(&connect(global).await?, &args, printer).await,
        Command::Profile(args) => profile::profile(&connect(global).await?, args, printer).await,
        Command::Explain(args) => kernel::explain(&connect(global).await?, args, printer).await,
        Command::Sign(args) => signing::sign(&args, printer),
        Command::Verify(args) => signing::verify(&args, printer),
        Command::Usage => kernel::usage(&connect(global).await?, printer).await,
        Command::Journal(args) => journal::journal(&connect(global).await?, args, printer).await,
        Command::Backup(BackupCommand::Archive(args)) => {
            backup::archive(&connect(global).await?, &args, printer).await
        }
        Command::Backup(BackupCommand::Verify(args)) => backup::verify(&args, printer),
        Command::Backup(BackupCommand::Restore(args)) => backup::restore(&args, printer),
        Command::Backup(BackupCommand::Create(args)) => {
            backup::create(&connect(global).await?, &args, printer).await
        }
        Command::Audit(AuditCommand::Verify(args)) if args.dir.is_some() => {
            audit::verify_folder(args, printer)
        }
        Command::Audit(args) => audit::audit(&connect(global).await?, args, printer).await,
    }
}

/// How long a call waits for a daemon that went away; `AION_RECONNECT_SECONDS` changes it.
fn patience() -> Outcome<Duration> {
    const NAME: &str = "AION_RECONNECT_SECONDS";
    let Some(text) = std::env::var_os(NAME).filter(|text| !text.is_empty()) else {
        return Ok(Duration::from_secs(120));
    };
    let seconds = text.to_str().and_then(|text| text.parse().ok());
    let wrong = || Failure::new(USAGE, format!("{NAME}: {text:?} is not a whole number of seconds"));
    seconds.map(Duration::from_secs).ok_or_else(wrong)
}

fn options(global: &Global) -> Outcome<Options> {
    Ok(Options { socket: global.socket.clone(), patience: patience()?, tenant: global.tenant.clone() })
}

async fn connect(global: &Global) -> Outcome<Client> {
    Ok(Client::connect(options(global)?).await?)
}
