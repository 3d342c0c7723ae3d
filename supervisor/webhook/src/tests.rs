//! Webhooks against real servers on the loopback, which answer as each test wants.

use std::net::SocketAddr;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::*;
use crate::signature::Secret;

#[path = "tests/tls.rs"]
mod tls;

const KEY: &[u8] = b"key of the webhook";

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn alert(rule: &str, severity: Severity) -> Alert {
    Alert {
        id: Alert::id_of("01J0000000000000000000AGNT", rule, 7, 1),
        time_ns: 1_700_000_000_007_000_000,
        rule: rule.to_owned(),
        severity,
        tags: vec!["T1059.004".to_owned()],
        tenant: "default".to_owned(),
        agent: "01J0000000000000000000AGNT".to_owned(),
        agent_name: "web-1".to_owned(),
        action: "isolate_network".to_owned(),
        result: "done".to_owned(),
        why: None,
        summary: "a shell".to_owned(),
        evidence: json!({"kind": "proc.exec", "detail": {"comm": "sh"}}),
        value: 1,
        seqs: (5, 7),
    }
}

/// What a receiver answers with.
#[derive(Clone)]
enum Reply {
    Status(u16),
    /// A status, and a header.
    With(u16, &'static str, String),
    /// A status, and this many bytes.
    Long(u16, usize),
    /// 500 for what this rule found, 200 for all else.
    Not(&'static str),
    /// 200, once the test gives leave.
    Wait,
    /// Nothing, ever.
    Hang,
}

struct Shared {
    /// One for each request; the last one stays.
    script: Vec<Reply>,
    seen: Mutex<Vec<(HeaderMap, Vec<u8>)>>,
    leave: Semaphore,
}

/// It ends with the test's runtime.
struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Receiver {
    async fn start(script: Vec<Reply>) -> Self {
        let shared = Arc::new(Shared { script, seen: Mutex::default(), leave: Semaphore::new(0) });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, shared }
    }

    fn webhook(&self, name: &str) -> Webhook {
        Webhook {
            name: name.to_owned(),
            url: format!("http://{}/aion?key=in-the-address", self.address),
            secret: Some(Secret::new(KEY.to_vec()).unwrap()),
            ca: None,
            min_severity: Severity::Info,
            rules: vec!["*".to_owned()],
            timeout: Duration::from_secs(10),
        }
    }

    fn count(&self) -> usize {
        self.shared.seen.lock().unwrap().len()
    }

    fn header(&self, at: usize, name: &str) -> String {
        self.shared.seen.lock().unwrap()[at].0[name].to_str().unwrap().to_owned()
    }

    fn body(&self, at: usize) -> Value {
        serde_json::from_slice(&self.shared.seen.lock().unwrap()[at].1).unwrap()
    }

    async fn has(&self, count: usize) {
        wait_for(|| self.count() >= count).await;
    }
}

async fn answer(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: axum::body::Bytes) -> Response {
    let rule = serde_json::from_slice::<Value>(&body).unwrap()["rule"].clone();
    let at = {
        let mut seen = shared.seen.lock().unwrap();
        seen.push((headers, body.to_vec()));
        seen.len() - 1
    };
    let plain =
        |status, body: Body| Response::builder().status(StatusCode::from_u16(status).unwrap()).body(body);
    match shared.script[at.min(shared.script.len() - 1)].clone() {
        Reply::Status(status) => plain(status, "words".into()).unwrap(),
        Reply::Not(refused) => plain(if rule == refused { 500 } else { 200 }, "words".into()).unwrap(),
        Reply::Long(status, length) => plain(status, "x".repeat(length).into()).unwrap(),
        Reply::With(status, name, value) => {
            let mut response = plain(status, Body::empty()).unwrap();
            response.headers_mut().insert(name, value.parse().unwrap());
            response
        }
        Reply::Wait => {
            shared.leave.acquire().await.unwrap().forget();
            plain(200, Body::empty()).unwrap()
        }
        Reply::Hang => std::future::pending().await,
    }
}

async fn wait_for(mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "it did not happen");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Pauses that a test can wait for.
fn quick() -> Limits {
    let first = Duration::from_millis(10);
    Limits { tries: 3, first, most: Duration::from_millis(50), ..Limits::default() }
}

fn start(webhooks: Vec<Webhook>, limits: Limits) -> Webhooks {
    Webhooks::start_within(webhooks, "node-1", limits).unwrap()
}

fn counted(webhooks: &Webhooks, name: &str, result: &str) -> u64 {
    let begin = format!("aion_webhook_deliveries_total{{webhook=\"{name}\",result=\"{result}\"}} ");
    let text = webhooks.metrics();
    text.lines().find_map(|line| line.strip_prefix(&begin)?.parse().ok()).unwrap()
}

#[tokio::test]
async fn an_alert_arrives_signed() {
    let receiver = Receiver::start(vec![Reply::Status(204)]).await;
    let webhooks = start(vec![receiver.webhook("oncall")], quick());
    let alert = alert("reverse-shell", Severity::Critical);
    webhooks.tell(alert.clone());
    wait_for(|| counted(&webhooks, "oncall", "delivered") == 1).await;
    let time: u64 = receiver.header(0, "x-aion-timestamp").parse().unwrap();
    let signature = {
        let seen = receiver.shared.seen.lock().unwrap();
        Secret::new(KEY.to_vec()).unwrap().sign(time, &seen[0].1).unwrap()
    };
    assert_eq!(receiver.header(0, "x-aion-signature"), signature);
    assert_eq!(receiver.header(0, "x-aion-event-id"), alert.id);
    assert_eq!(receiver.header(0, "content-type"), "application/json");
    assert_eq!(receiver.header(0, "user-agent"), concat!("aiond/", env!("CARGO_PKG_VERSION")));
    let body = receiver.body(0);
    assert_eq!((&body["id"], &body["host"]), (&json!(alert.id), &json!("node-1")));
    assert_eq!(body["evidence"]["detail"]["comm"], "sh");
    assert!(webhooks.metrics().contains("aion_webhook_queue{webhook=\"oncall\"} 0\n"));
}

#[tokio::test]
async fn without_a_secret_there_is_no_signature() {
    let receiver = Receiver::start(vec![Reply::Status(200)]).await;
    let webhooks = start(vec![Webhook { secret: None, ..receiver.webhook("plain") }], quick());
    webhooks.tell(alert("one", Severity::Low));
    receiver.has(1).await;
    assert!(!receiver.shared.seen.lock().unwrap()[0].0.contains_key("x-aion-signature"));
}

#[tokio::test]
async fn what_may_pass_is_tried_again_under_the_same_id() {
    let receiver = Receiver::start(vec![Reply::Status(503), Reply::Status(429), Reply::Status(200)]).await;
    let webhooks = start(vec![receiver.webhook("oncall")], quick());
    webhooks.tell(alert("one", Severity::High));
    wait_for(|| counted(&webhooks, "oncall", "delivered") == 1).await;
    assert_eq!(receiver.count(), 3);
    assert_eq!(receiver.header(0, "x-aion-event-id"), receiver.header(2, "x-aion-event-id"));
    assert_eq!(receiver.body(0), receiver.body(2));
    assert_eq!(counted(&webhooks, "oncall", "given_up"), 0);
}

#[tokio::test]
async fn a_receiver_that_asks_for_a_pause_gets_it() {
    let later = Reply::With(503, "retry-after", "1".to_owned());
    let receiver = Receiver::start(vec![later, Reply::Status(200)]).await;
    let limits = Limits { most: Duration::from_secs(5), ..quick() };
    let webhooks = start(vec![receiver.webhook("oncall")], limits);
    let begun = Instant::now();
    webhooks.tell(alert("one", Severity::High));
    wait_for(|| counted(&webhooks, "oncall", "delivered") == 1).await;
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn what_is_refused_is_given_up_at_once_and_told() {
    let receiver = Receiver::start(vec![Reply::Status(400), Reply::Status(200)]).await;
    let webhooks = start(vec![receiver.webhook("oncall")], quick());
    webhooks.tell(alert("one", Severity::High));
    webhooks.tell(alert("two", Severity::High));
    let gone = webhooks.undelivered().await.unwrap();
    assert_eq!((gone.webhook.as_str(), gone.rule.as_str(), gone.tries), ("oncall", "one", 1));
    assert_eq!(gone.why, "the receiver answered 400");
    wait_for(|| counted(&webhooks, "oncall", "delivered") == 1).await;
    assert_eq!((receiver.count(), counted(&webhooks, "oncall", "given_up")), (2, 1));
}

#[tokio::test]
async fn what_never_passes_is_given_up_in_the_end() {
    let receiver = Receiver::start(vec![Reply::Long(500, 1 << 20)]).await;
    let webhooks = start(vec![receiver.webhook("oncall")], quick());
    webhooks.tell(alert("one", Severity::High));
    let gone = webhooks.undelivered().await.unwrap();
    assert_eq!((gone.tries, receiver.count()), (3, 3));
    assert_eq!(gone.why, "the receiver answered 500");
}

#[tokio::test]
async fn one_that_never_passes_does_not_hold_others_up() {
    let receiver = Receiver::start(vec![Reply::Not("poison")]).await;
    let webhooks = start(vec![receiver.webhook("oncall")], Limits { tries: 5, insist: 2, ..quick() });
    for rule in ["poison", "one", "two", "three"] {
        webhooks.tell(alert(rule, Severity::High));
    }
    let gone = webhooks.undelivered().await.unwrap();
    assert_eq!((gone.rule.as_str(), gone.tries), ("poison", 5));
    wait_for(|| counted(&webhooks, "oncall", "delivered") == 3).await;
    let rules: Vec<String> =
        (0..receiver.count()).map(|at| receiver.body(at)["rule"].as_str().unwrap().to_owned()).collect();
    // Others go before it after two tries, and keep their order.
    assert_eq!(rules[..3], ["poison", "poison", "one"]);
    assert!(rules.iter().filter(|rule| *rule != "poison").eq(["one", "two", "three"]), "{rules:?}");
    assert_eq!(rules.len(), 3 + 5);
    assert!(webhooks.metrics().contains("aion_webhook_queue{webhook=\"oncall\"} 0\n"));
}

#[tokio::test]
async fn of_too_many_that_wait_again_the_first_is_given_up() {
    let receiver = Receiver::start(vec![Reply::Status(500)]).await;
    let limits = Limits {
        tries: 5,
        insist: 1,
        aside: 1,
        first: Duration::from_millis(1),
        most: Duration::from_secs(600),
        ..quick()
    };
    let webhooks = start(vec![receiver.webhook("oncall")], limits);
    for rule in ["one", "two"] {
        webhooks.tell(alert(rule, Severity::High));
    }
    let gone = webhooks.undelivered().await.unwrap();
    assert_eq!((gone.rule.as_str(), gone.tries), ("one", 1));
    assert!(gone.why.contains("too many others"), "{gone:?}");
    let gone = webhooks.undelivered().await.unwrap();
    assert_eq!((gone.rule.as_str(), gone.tries), ("two", 5));
}

#[tokio::test]
async fn the_end_tries_what_was_set_aside_once_more() {
    let script = vec![Reply::Status(500), Reply::Status(200), Reply::Status(200)];
    let receiver = Receiver::start(script).await;
    let limits =
        Limits { insist: 1, first: Duration::from_secs(600), most: Duration::from_secs(600), ..quick() };
    let webhooks = start(vec![receiver.webhook("oncall")], limits);
    for rule in ["one", "two"] {
        webhooks.tell(alert(rule, Severity::High));
    }
    receiver.has(1).await;
    // Until its answer was taken.
    tokio::time::sleep(Duration::from_millis(200)).await;
    webhooks.finish(PATIENCE).await;
    assert_eq!((counted(&webhooks, "oncall", "delivered"), counted(&webhooks, "oncall", "lost")), (2, 0));
    assert_eq!(webhooks.undelivered().await, None);
}

#[tokio::test]
async fn who_is_not_there_is_told_without_the_address() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut webhook = Receiver { address: listener.local_addr().unwrap(), shared: shared() }.webhook("gone");
    webhook.url = webhook.url.replace("127.0.0.1", "localhost");
    drop(listener);
    let webhooks = start(vec![webhook], quick());
    webhooks.tell(alert("one", Severity::High));
    let gone = webhooks.undelivered().await.unwrap();
    assert_eq!(gone.tries, 3);
    assert!(!gone.why.contains("in-the-address") && gone.why.contains("onnect"), "{}", gone.why);
}

fn shared() -> Arc<Shared> {
    Arc::new(Shared { script: Vec::new(), seen: Mutex::default(), leave: Semaphore::new(0) })
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let other = Receiver::start(vec![Reply::Status(200)]).await;
    let there = format!("http://{}/", other.address);
    let receiver = Receiver::start(vec![Reply::With(307, "location", there)]).await;
    let webhooks = start(vec![receiver.webhook("oncall")], quick());
    webhooks.tell(alert("one", Severity::High));
    let gone = webhooks.undelivered().await.unwrap();
    assert!(gone.why.contains("307") && gone.why.contains("not followed"), "{}", gone.why);
    assert_eq!((receiver.count(), other.count()), (1, 0));
}

#[tokio::test]
async fn one_that_hangs_is_cut_off_by_its_timeout() {
    let receiver = Receiver::start(vec![Reply::Hang, Reply::Status(200)]).await;
    let webhook = Webhook { timeout: Duration::from_millis(200), ..receiver.webhook("oncall") };
    let webhooks = start(vec![webhook], quick());
    webhooks.tell(alert("one", Severity::High));
    wait_for(|| counted(&webhooks, "oncall", "delivered") == 1).await;
    assert_eq!(receiver.count(), 2);
}

#[tokio::test]
async fn what_finds_no_room_is_counted_and_told_later() {
    let receiver = Receiver::start(vec![Reply::Wait]).await;
    let webhooks = start(vec![receiver.webhook("oncall")], Limits { queue: 2, ..quick() });
    webhooks.tell(alert("sent", Severity::High));
    receiver.has(1).await;
    for rule in ["first", "second", "dropped", "dropped-2"] {
        webhooks.tell(alert(rule, Severity::High));
    }
    assert_eq!(counted(&webhooks, "oncall", "dropped"), 2);
    assert!(webhooks.metrics().contains("aion_webhook_queue{webhook=\"oncall\"} 3\n"));
    receiver.shared.leave.add_permits(3);
    wait_for(|| counted(&webhooks, "oncall", "delivered") == 3).await;
    let bodies: Vec<Value> = (0..3).map(|at| receiver.body(at)).collect();
    assert_eq!(bodies.iter().map(|body| &body["rule"]).collect::<Vec<_>>(), ["sent", "first", "second"]);
    assert_eq!(bodies[1]["dropped"], 2);
    assert!(bodies[0].get("dropped").is_none() && bodies[2].get("dropped").is_none(), "told once");
}

#[tokio::test]
async fn severity_and_rule_say_who_is_told() {
    let receiver = Receiver::start(vec![Reply::Status(200)]).await;
    let high = Webhook { min_severity: Severity::High, ..receiver.webhook("high") };
    let forks = Webhook { rules: vec!["fork-*".to_owned()], ..receiver.webhook("forks") };
    let webhooks = start(vec![high, forks], quick());
    assert!(webhooks.want(Severity::Low, "fork-bomb") && !webhooks.want(Severity::Low, "beaconing"));
    for (rule, severity) in
        [("fork-bomb", Severity::Low), ("beaconing", Severity::Medium), ("memfd-exec", Severity::High)]
    {
        webhooks.tell(alert(rule, severity));
    }
    wait_for(|| counted(&webhooks, "high", "delivered") + counted(&webhooks, "forks", "delivered") == 2)
        .await;
    webhooks.finish(PATIENCE).await;
    assert_eq!((counted(&webhooks, "high", "delivered"), counted(&webhooks, "forks", "delivered")), (1, 1));
    assert_eq!(receiver.count(), 2);
}

#[tokio::test]
async fn one_that_hangs_does_not_hold_another_up() {
    let slow = Receiver::start(vec![Reply::Hang]).await;
    let quick_one = Receiver::start(vec![Reply::Status(200)]).await;
    let webhooks = start(vec![slow.webhook("slow"), quick_one.webhook("quick")], quick());
    let begun = Instant::now();
    for rule in ["one", "two", "three"] {
        webhooks.tell(alert(rule, Severity::High));
    }
    assert!(begun.elapsed() < Duration::from_secs(1), "to tell is not to wait");
    wait_for(|| counted(&webhooks, "quick", "delivered") == 3).await;
    assert_eq!(counted(&webhooks, "slow", "delivered"), 0);
}

#[tokio::test]
async fn the_end_waits_for_nobody_and_says_what_is_lost() {
    let slow = Receiver::start(vec![Reply::Hang]).await;
    let webhooks = start(vec![slow.webhook("slow")], quick());
    for rule in ["one", "two", "three"] {
        webhooks.tell(alert(rule, Severity::High));
    }
    slow.has(1).await;
    let begun = Instant::now();
    webhooks.finish(Duration::from_millis(200)).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    webhooks.tell(alert("four", Severity::High));
    assert_eq!(counted(&webhooks, "slow", "lost"), 4);
    assert!(webhooks.metrics().contains("aion_webhook_queue{webhook=\"slow\"} 0\n"));
    assert_eq!(webhooks.undelivered().await, None);
}

#[tokio::test]
async fn the_end_tries_what_pauses_once_more() {
    let receiver = Receiver::start(vec![Reply::Status(503), Reply::Status(200)]).await;
    let patient = Limits { first: Duration::from_secs(600), most: Duration::from_secs(600), ..quick() };
    let webhooks = start(vec![receiver.webhook("oncall")], patient);
    webhooks.tell(alert("one", Severity::High));
    webhooks.tell(alert("two", Severity::High));
    receiver.has(1).await;
    // Until its answer was taken: an answer in the end's own time counts as lost.
    tokio::time::sleep(Duration::from_millis(200)).await;
    webhooks.finish(PATIENCE).await;
    assert_eq!((counted(&webhooks, "oncall", "delivered"), counted(&webhooks, "oncall", "lost")), (2, 0));
}

#[tokio::test]
async fn without_webhooks_nothing_is_told() {
    let webhooks = Webhooks::start(Vec::new(), "node-1").unwrap();
    webhooks.tell(alert("one", Severity::Critical));
    assert!(!webhooks.want(Severity::Critical, "one") && webhooks.metrics().is_empty());
    assert_eq!(webhooks.undelivered().await, None);
    webhooks.finish(PATIENCE).await;
    let wrong = Webhook { url: "nowhere".to_owned(), ..Receiver::start(Vec::new()).await.webhook("wrong") };
    assert!(Webhooks::start(vec![wrong], "node-1").unwrap_err().to_string().contains("wrong"));
}
