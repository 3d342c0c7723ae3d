//! Health: each part for itself, over HTTP and gRPC, and what a start says that it found.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use aion_e2e::{Daemons, Which, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tonic::Code;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::agent::{detached, status_field};

const LONG: Duration = Duration::from_secs(60);

/// What HTTP answers: the number, and its JSON.
fn get(daemons: &Daemons, path: &str) -> (u16, Value) {
    let address = fs::read_to_string(daemons.state().join("run/http")).unwrap();
    let mut stream = TcpStream::connect(address.trim()).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let number = answer.split(' ').nth(1).and_then(|number| number.parse().ok()).unwrap();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (number, serde_json::from_str(body).unwrap())
}

/// The parts that do not work, by `/readyz`.
fn broken(daemons: &Daemons) -> (u16, Vec<String>) {
    let (number, answer) = get(daemons, "/readyz");
    let parts = answer["parts"].as_array().unwrap();
    assert!(parts.len() >= 3, "{answer}");
    let broken = parts.iter().filter(|part| part["ok"] != true);
    (number, broken.map(|part| part["name"].as_str().unwrap().to_owned()).collect())
}

pub(crate) fn each_part_tells_how_it_is() {
    let daemons = Daemons::start().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let socket = format!("unix://{}", daemons.socket().display());
    let mut client = runtime.block_on(async {
        HealthClient::new(Endpoint::from_shared(socket).unwrap().connect().await.unwrap())
    });
    let mut ask = |service: &str| {
        let request = HealthCheckRequest { service: service.to_owned() };
        runtime.block_on(client.check(request)).map(|answer| answer.into_inner().status())
    };
    let all = ["", "launcher", "store", "tasks", "aion.v1.AgentService", "aion.v1.TaskService"];
    let mut serve = |names: &[&str], status: ServingStatus| {
        eventually(&format!("{names:?}: {status:?}"), LONG, || {
            names.iter().all(|name| ask(name).is_ok_and(|told| told == status))
        });
    };
    serve(&all, ServingStatus::Serving);
    assert_eq!(broken(&daemons), (200, Vec::new()));

    daemons.kill(Which::Launcher);
    serve(&["", "launcher", "aion.v1.AgentService"], ServingStatus::NotServing);
    serve(&["store", "tasks", "aion.v1.TaskService", "aion.v1.HostService"], ServingStatus::Serving);
    assert_eq!(broken(&daemons), (503, vec!["launcher".to_owned()]));
    assert_eq!(get(&daemons, "/healthz").0, 200, "aiond lives");

    daemons.start_one(Which::Launcher).unwrap();
    daemons.await_ready().unwrap();
    serve(&all, ServingStatus::Serving);
    assert_eq!(broken(&daemons), (200, Vec::new()));
    assert_eq!(ask("nobody").unwrap_err().code(), Code::NotFound);
    drop(client);
    drop(runtime);
    daemons.finish().unwrap();
}

/// The last line of a daemon's log that has these words.
fn last_line(daemons: &Daemons, which: Which, words: &str) -> String {
    let log = fs::read_to_string(daemons.log(which)).unwrap();
    log.lines().rfind(|line| line.contains(words)).unwrap_or_default().to_owned()
}

pub(crate) fn a_start_says_what_it_found() {
    let daemons = Daemons::start().unwrap();
    let stays = detached(&daemons, "stays", &[], &["sleep", "1000"]);
    let ends = detached(&daemons, "ends", &[], &["sleep", "1000"]);
    let (first, init) = (ends.pid(), status_field(ends.pid(), "PPid"));
    daemons.kill(Which::Aiond);
    daemons.kill(Which::Launcher);
    kill(Pid::from_raw(first.try_into().unwrap()), Signal::SIGKILL).unwrap();
    eventually("its init is gone", LONG, || !Path::new("/proc").join(&init).exists());

    daemons.start_one(Which::Launcher).unwrap();
    // Only then its table has the exit.
    eventually("it is known", LONG, || !last_line(&daemons, Which::Launcher, "ended agent=").is_empty());
    let line = last_line(&daemons, Which::Launcher, "took over what an earlier launcher left");
    assert!(line.contains("running=1 ended=1"), "{line}");

    daemons.start_one(Which::Aiond).unwrap();
    daemons.await_ready().unwrap();
    let compared = "compared the records with the launcher's table";
    let found = "running=1 ended=1 to_launch=0 missing=0 unknown=0 failed=0";
    eventually("aiond says it", LONG, || last_line(&daemons, Which::Aiond, compared).contains(found));
    let line = last_line(&daemons, Which::Aiond, "restored the tasks");
    assert!(line.contains("waiting=0 running=0"), "{line}");
    assert_eq!(ends.wait(), 137);
    drop((stays, ends));
    daemons.finish().unwrap();
}
