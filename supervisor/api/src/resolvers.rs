//! The resolvers of agents with network mode `egress`: one for each that runs, on sockets that the launcher made inside.
//!
//! Names are looked up here, where untrusted answers are parsed without any privilege; what an agent may then reach the launcher
//! decides, and writes down before the agent hears of it.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use aion_egress::{Name, Rules};
use aion_launcher_client::Client;
use aion_launcher_proto::v1 as launcher;
use aion_resolver::{Admit, Refused, serve};
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use crate::core::Core;

/// Names of one agent whose refusals wait for the audit log; questions for more names are counted.
const WAITING: usize = 64;
/// So often one of them is written down.
const TELL_EVERY: Duration = Duration::from_millis(200);
/// A resolver that cannot be had is asked for again, so often and no more.
const AGAIN: Duration = Duration::from_millis(500);
const TRIES: usize = 20;

/// The resolvers that run, by agent.
#[derive(Default)]
pub(crate) struct Resolvers {
    running: Mutex<HashMap<String, Running>>,
}

struct Running {
    incarnation: u32,
    /// Once its sockets are there.
    rules: Arc<OnceLock<watch::Sender<Rules>>>,
    stop: CancellationToken,
    task: AbortHandle,
}

impl Resolvers {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self, id: &str) {
        if let Some(running) = self.lock().remove(id) {
            running.stop.cancel();
        }
    }
}

impl Core {
    /// Takes note of an agent's state: who runs has a resolver, who does not has none.
    pub(crate) fn mind_resolver(self: &Arc<Self>, state: &launcher::AgentState) {
        if state.network() != launcher::Network::Egress {
            return;
        }
        if state.state == "exited" {
            return self.resolvers.stop(&state.id);
        }
        let mut running = self.resolvers.lock();
        if let Some(before) = running.get(&state.id) {
            if before.incarnation == state.incarnation && !before.task.is_finished() {
                return;
            }
            before.stop.cancel();
        }
        let (core, id, tenant) = (Arc::clone(self), state.id.clone(), state.tenant.clone());
        let stop = self.shutdown.child_token();
        let (stopped, rules) = (stop.clone(), Arc::default());
        let set = Arc::clone(&rules);
        let task =
            tokio::spawn(async move { core.resolve_for(id, tenant, set, stopped).await }).abort_handle();
        running.insert(state.id.clone(), Running { incarnation: state.incarnation, rules, stop, task });
    }

    /// Names are looked up by other rules from now on.
    pub(crate) fn set_names(&self, id: &str, rules: Rules) {
        if let Some(running) = self.resolvers.lock().get(id)
            && let Some(sender) = running.rules.get()
        {
            sender.send_replace(rules);
        }
    }

    /// The same for all that the launcher knows; the others are gone.
    pub(crate) fn mind_resolvers(self: &Arc<Self>, table: &[launcher::AgentState]) {
        let gone = |id: &String| !table.iter().any(|state| state.id == *id);
        let over: Vec<String> = self.resolvers.lock().keys().filter(|id| gone(id)).cloned().collect();
        over.iter().for_each(|id| self.resolvers.stop(id));
        table.iter().for_each(|state| self.mind_resolver(state));
    }

    async fn resolve_for(
        self: Arc<Self>,
        id: String,
        tenant: String,
        set: Arc<OnceLock<watch::Sender<Rules>>>,
        stop: CancellationToken,
    ) {
        for _ in 0..TRIES {
            if stop.is_cancelled() {
                return;
            }
            match self.launcher.open_resolver(&id).await {
                Ok((rules, udp, tcp)) => {
                    let served = async {
                        let (sender, rules) = watch::channel(Rules::parse(&rules)?);
                        let _ = set.set(sender);
                        self.serve_resolver((&id, &tenant), rules, (udp.into(), tcp.into()), stop).await
                    };
                    let done: Result<(), String> = served.await;
                    if let Err(error) = done {
                        tracing::error!(agent = id, error, "the agent's resolver has ended");
                    }
                    return;
                }
                Err(error) => tracing::warn!(agent = id, %error, "the agent has no resolver yet"),
            }
            tokio::time::sleep(AGAIN).await;
        }
        tracing::error!(
            agent = id,
            "the agent has no resolver: it looks up no names until aiond or it starts again"
        );
    }

    async fn serve_resolver(
        self: &Arc<Self>,
        (id, tenant): (&str, &str),
        rules: watch::Receiver<Rules>,
        (udp, tcp): (UdpSocket, TcpListener),
        stop: CancellationToken,
    ) -> Result<(), String> {
        let refusals = Arc::new(Refusals::default());
        let gate =
            Gate { launcher: self.launcher.clone(), id: id.to_owned(), refusals: Arc::clone(&refusals) };
        let serving = async {
            tokio::select! {
                done = serve(udp, tcp, rules, self.options.dns.clone(), gate) => {
                    done.map_err(|error| error.to_string())
                }
                () = stop.cancelled() => Ok(()),
            }
        };
        // What was refused last is told after the agent's end.
        let (done, ()) = tokio::join!(serving, self.tell_refusals(id, tenant, &refusals));
        done
    }

    /// Ends when nobody can be refused any more, and all of it is told.
    async fn tell_refusals(&self, id: &str, tenant: &str, refusals: &Refusals) {
        while let Some(refusal) = refusals.next().await {
            let why = match refusal.why {
                Refused::Name => "no rule has the name",
                Refused::Addresses => "it resolved to addresses that no rule names",
            };
            let mut detail =
                json!({"name": refusal.name.as_str(), "why": why, "questions": refusal.questions});
            if refusal.untold != 0
                && let Some(fields) = detail.as_object_mut()
            {
                fields.insert("untold".to_owned(), json!(refusal.untold));
            }
            self.trail.refused(tenant, id, "api.net.resolve", "network", detail).await;
            if !refusals.is_over() {
                tokio::time::sleep(TELL_EVERY).await;
            }
        }
    }
}

/// What waits to be told: each name once, with how often it was asked for.
#[derive(Default)]
struct Refusals {
    waiting: Mutex<Waiting>,
    wake: Notify,
}

#[derive(Default)]
struct Waiting {
    names: BTreeMap<(Name, Refused), u64>,
    untold: u64,
    over: bool,
}

struct Refusal {
    name: Name,
    why: Refused,
    questions: u64,
    /// Questions for names that found no room.
    untold: u64,
}

impl Refusals {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.lock().over
    }

    fn note(&self, name: &Name, why: Refused) {
        let mut waiting = self.lock();
        let key = (name.clone(), why);
        if waiting.names.len() >= WAITING && !waiting.names.contains_key(&key) {
            waiting.untold += 1;
        } else {
            *waiting.names.entry(key).or_default() += 1;
        }
        drop(waiting);
        self.wake.notify_one();
    }

    fn end(&self) {
        self.lock().over = true;
        self.wake.notify_one();
    }

    /// The next one; none when all is told and there will be no more.
    async fn next(&self) -> Option<Refusal> {
        loop {
            {
                let mut waiting = self.lock();
                if let Some(((name, why), questions)) = waiting.names.pop_first() {
                    let untold = std::mem::take(&mut waiting.untold);
                    return Some(Refusal { name, why, questions, untold });
                }
                if waiting.over {
                    return None;
                }
            }
            self.wake.notified().await;
        }
    }
}

/// The launcher, for one agent.
struct Gate {
    launcher: Client,
    id: String,
    refusals: Arc<Refusals>,
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.refusals.end();
    }
}

impl Admit for Gate {
    async fn admit(&self, name: &Name, addresses: &[IpAddr], ttl_s: u32) -> Result<Vec<IpAddr>, String> {
        let resolved = launcher::Resolved {
            id: self.id.clone(),
            name: name.as_str().to_owned(),
            addresses: addresses.iter().map(octets).collect(),
            ttl_s,
        };
        let admitted = self.launcher.resolved(resolved).await.map_err(|error| error.to_string())?;
        Ok(addresses.iter().copied().filter(|address| admitted.contains(&octets(address))).collect())
    }

    fn refused(&self, name: &Name, why: Refused) {
        self.refusals.note(name, why);
    }
}

fn octets(address: &IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_name_is_told_once_and_what_has_no_room_is_counted() {
        let refusals = Refusals::default();
        for n in 0..WAITING + 5 {
            let name = Name::parse(&format!("n{n:03}.example")).unwrap();
            refusals.note(&name, Refused::Name);
            refusals.note(&name, Refused::Name);
        }
        refusals.end();
        let first = refusals.next().await.unwrap();
        assert_eq!((first.name.as_str(), first.questions, first.untold), ("n000.example", 2, 10));
        let mut rest = 0;
        while let Some(refusal) = refusals.next().await {
            assert_eq!((refusal.questions, refusal.untold), (2, 0));
            rest += 1;
        }
        assert_eq!(rest, WAITING - 1);
    }
}
