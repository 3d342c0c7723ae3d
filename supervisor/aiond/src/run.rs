//! The order of things, from root with flags to a serving daemon, and back.

use std::fs::File;
use std::future::Future;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aion_api::{Api, Door, Options as ApiOptions};
use aion_http::{GrpcOptions, Options as HttpOptions, Service};
use aion_launcher_client::{Client, Options as LauncherOptions};
use aion_resolver::Upstream;
use aion_store::{Options as StoreOptions, Store};
use aion_tasks::Options as TaskOptions;
use aion_telemetry::{Settings as SpanSettings, Spans};
use aion_types::TenantId;
use aion_webhook::{Webhook, Webhooks};
use anyhow::{Context as _, Result, ensure};
use rustix::process::{Resource, Rlimit};
use sd_notify::NotifyState;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tonic::service::Routes;

use crate::alerts;
use crate::config::{Files, RULES};
use crate::folders;
use crate::grpc;
use crate::health;
use crate::listen;
use crate::privileges::Account;
use crate::reload::{Reloader, SetLog, log};
use crate::settings::Loaded;
use crate::state;
use crate::telemetry;
use crate::watchdog;

/// Two are enough for a local API, and keep the daemon small.
const WORKERS: usize = 2;
/// Threads for reads of journals, the index and the audit log.
const BLOCKING: usize = 32;
/// Spans that wait at the end have so long.
const LAST_SPANS: Duration = Duration::from_secs(2);
/// So have alerts.
const LAST_ALERTS: Duration = Duration::from_secs(2);
const DAEMON_NICE: i32 = -10;
const DESCRIPTORS: u64 = 65_536;

/// Where agents take all the processors, whoever is to stop them must not wait behind them. A niceness that was chosen stays, and
/// without root it is the service manager's to give.
fn go_before_agents() {
    if rustix::process::getpriority_process(None) == Ok(0) {
        let _ = rustix::process::setpriority_process(None, DAEMON_NICE);
    }
}

/// Connections take descriptors: as many as the hard limit gives, within reason. Gives how many there are.
fn raise_descriptors() -> u64 {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(DESCRIPTORS).min(DESCRIPTORS);
    let current = limit.current.unwrap_or(DESCRIPTORS);
    let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
    if current < wanted && rustix::process::setrlimit(Resource::Nofile, raised).is_ok() {
        wanted
    } else {
        current
    }
}

pub(crate) fn run(loaded: Loaded) -> Result<()> {
    let set_log = log(&loaded.options)?;
    let options = &loaded.options;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o027));
    let account = Account::resolve(&options.user, &options.group)?;
    let wrong = folders::problems(&loaded);
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    let files = Files::read(options)?;
    let collector = telemetry::settings(options).with_context(|| loaded.said_by(&telemetry::OPTIONS))?;
    let grpc = grpc::settings(options).with_context(|| loaded.said_by(&grpc::OPTIONS))?;
    let webhooks = alerts::settings(&loaded)?;
    let handed_over = listen::handed_over()?;
    let run = options.inside_state(&options.run_dir);
    state::enter(&options.state, run, &account)?;
    let pid_file = state::lock(run)?;
    let listener = match handed_over {
        Some(listener) => listener,
        None => listen::bind(options.inside_state(&options.socket), &account)?,
    };
    let http_file = state::door_file(run, "http", &account)?;
    let grpc_file = state::door_file(run, "grpc", &account)?;
    // While root can: the user may not get to where this program lies.
    let wasm_runner = std::env::current_exe().ok().map(|own| own.with_file_name("aion-wasm"));
    let wasm_runner = wasm_runner.filter(|path| path.exists());
    go_before_agents();
    account.drop_to()?;
    // Root has read them for this start; the next one to read them is our user.
    for problem in folders::problems(&loaded) {
        tracing::warn!(problem, "a reload will fail");
    }

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING)
        .thread_keep_alive(Duration::from_secs(5))
        .thread_name("aiond")
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let given = Given { files, collector, grpc, webhooks, listener, http_file, grpc_file, wasm_runner };
    let result = runtime.block_on(serve(&loaded, set_log, &account, given));
    // What still reads on the blocking pool has nobody to read for any more.
    runtime.shutdown_timeout(Duration::from_secs(1));
    drop(pid_file);
    result
}

/// What was read and opened before root was gone.
struct Given {
    files: Files,
    collector: Option<SpanSettings>,
    grpc: Option<grpc::Settings>,
    webhooks: Vec<Webhook>,
    listener: StdListener,
    http_file: File,
    grpc_file: File,
    wasm_runner: Option<PathBuf>,
}

async fn serve(loaded: &Loaded, set_log: SetLog, account: &Account, given: Given) -> Result<()> {
    let options = &loaded.options;
    let Given { files, collector, grpc, webhooks, listener, http_file, grpc_file, wasm_runner } = given;
    let stop = stop_signal()?;
    let mut settings = ApiOptions::new(PathBuf::new());
    settings.manifests = files.manifests(&options.state)?;
    settings.policy = Some(Arc::new(files.policy()?));
    settings.signatures = Arc::clone(files.guard());
    settings.state_absolute = options.state.clone();
    if let Some(runner) = wasm_runner {
        settings.wasm_runner = runner;
    }
    let spans = collector.as_ref().map(Spans::start).transpose()?.unwrap_or_default();
    settings.spans = spans.clone();
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let webhooks = Webhooks::start(webhooks, &host)?;
    settings.webhooks = webhooks.clone();
    if !options.dns.is_empty() {
        settings.dns = Upstream::Servers(options.dns.clone());
    }
    // Before anything is opened: a port that is taken ends the start.
    let http = match options.http() {
        Some(address) => {
            Some(bind(address, "HTTP", "--http or AION_KERNEL_PORT, or `--http off`", &http_file).await?)
        }
        None => None,
    };
    let grpc = match grpc {
        Some(grpc) => Some((bind(grpc.address, "gRPC", "--grpc", &grpc_file).await?, grpc.tls)),
        None => None,
    };
    let store = tokio::task::spawn_blocking(|| Store::open(Path::new("db"), StoreOptions::default()))
        .await
        .context("opening the database did not run to its end")??;
    let launcher = Client::new(LauncherOptions::new(options.inside_state(&options.launcher_socket)));
    let store = Arc::new(store);
    let looked_at = Arc::clone(&store);
    let api = Api::new(settings, store, launcher)?;
    for (what, path) in files.built_in() {
        if path.ends_with(RULES) {
            tracing::warn!(path = %path.display(), "not there: agents may have what the built-in {what} leave them");
            api.rules_are_built_in(path);
        } else {
            tracing::info!(path = %path.display(), "not there: the built-in {what} are used");
        }
    }
    api.start_detections(files.detections())?;
    let (reload, policy) = (files.scheduler(), files.policy_again());
    let (offline, for_tasks) = (options.offline, spans.clone());
    let (api, kernel) = tokio::task::spawn_blocking(move || {
        let kernel = api.start_kernel(offline)?;
        let mut tasks = TaskOptions::new(PathBuf::new());
        tasks.spans = for_tasks;
        api.start_tasks(tasks, reload)?;
        Ok::<_, aion_api::Error>((api, kernel))
    })
    .await
    .context("restoring the tasks did not run to its end")??;
    api.read_policy_with(policy);
    tokio::spawn(reload_on_hangup(&api, Reloader::new(loaded, set_log, Arc::clone(files.guard())))?);
    let tenant = TenantId::parse("default")?;
    let door = Door::new(tenant, account.uid(), Some(account.gid()));
    let listener = UnixListener::from_std(listener).context("cannot use the socket")?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        socket = %options.socket.display(),
        uid = account.uid(),
        "serving"
    );
    // The operators' socket, the database and agents' doors need some, too.
    let room = usize::try_from(raise_descriptors() / 4).unwrap_or(64);
    let mut doors = JoinSet::new();
    if let Some(listener) = http {
        let defaults = HttpOptions::default();
        let options = HttpOptions { connections: defaults.connections.min(room), ..defaults };
        let service = Service::new(kernel.clone(), api.http_backend(), options);
        doors.spawn(service.serve(listener, api.shutting_down()));
    }
    if let Some((listener, tls)) = grpc {
        let defaults = GrpcOptions::default();
        let options = GrpcOptions { connections: defaults.connections.min(room), ..defaults };
        doors.spawn(api.grpc_door(kernel, tls, options).serve(listener, api.shutting_down()));
    }
    watchdog::start(looked_at, api.tasks());
    notify(&[NotifyState::Ready]);
    let routes = fixed_services(&api).await?;
    let ending = async {
        stop.await;
        notify(&[NotifyState::Stopping]);
    };
    let served = api.serve(listener, door, routes, ending).await;
    while doors.join_next().await.is_some() {}
    for file in [http_file, grpc_file] {
        let _ = file.set_len(0);
    }
    tokio::join!(spans.flush(LAST_SPANS), webhooks.finish(LAST_ALERTS));
    served.map_err(anyhow::Error::from)
}

/// Binds a door over TCP, and says where it is.
async fn bind(address: SocketAddr, what: &str, flag: &str, mut file: &File) -> Result<TcpListener> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot serve {what} on {address}; choose another with {flag}"))?;
    let address = listener.local_addr().context("the socket has no address")?;
    file.write_all(format!("{address}\n").as_bytes()).context("cannot say where it is")?;
    tracing::info!(%address, "serving {what}");
    Ok(listener)
}

/// Health and reflection.
async fn fixed_services(api: &Api) -> Result<Routes> {
    let (reporter, service) = tonic_health::server::health_reporter();
    health::begin(&reporter).await;
    tokio::spawn(health::follow(reporter, api.http_backend(), api.shutting_down()));
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(aion_api_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .context("the descriptors of the API do not fit together")?;
    Ok(Routes::new(service).add_service(reflection))
}

/// Reads the configuration, the scheduler's settings, the operator's rules and the detections again with each SIGHUP.
fn reload_on_hangup(
    api: &Api,
    mut configuration: Reloader,
) -> Result<impl Future<Output = ()> + Send + use<>> {
    let mut hangup = signal(SignalKind::hangup()).context("cannot catch SIGHUP")?;
    let (tasks, policy, detections) = (api.tasks(), api.policy_reloader(), api.reload_detections());
    Ok(async move {
        while hangup.recv().await.is_some() {
            configuration.reload();
            if let Some(tasks) = &tasks
                && let Err(error) = tasks.reload().await
            {
                tracing::error!(%error, "scheduler.yaml was not taken; what was before holds");
            }
            if let Err(error) = policy().await {
                tracing::error!(%error, "agent.capabilities.yaml was not taken; what was before holds");
            }
            if let Err(error) = detections() {
                tracing::error!(error, "detections were not taken; those of before hold");
            }
        }
    })
}

/// Ends with SIGTERM or SIGINT.
fn stop_signal() -> Result<impl Future<Output = ()> + Send + 'static> {
    let mut term = signal(SignalKind::terminate()).context("cannot catch SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot catch SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Tells systemd, when it is there.
pub(crate) fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "cannot notify the service manager");
    }
}
