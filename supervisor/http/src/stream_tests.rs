//! Streams of events over a socket: who leaves is noticed, and whose right ends hears no more. And what a body's head says is enough.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aion_syscall::Refusal;
use aion_tenants::{Secret, sign};
use aion_types::TenantId;
use futures::stream;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::World;
use crate::auth::now_ns;
use crate::backend::{Backend, BoxFuture, EventQuery, EventStream, Part};
use crate::serve::{Options, Service};

const QUIET: Duration = Duration::from_millis(100);

/// Events that never come; counts who waits for them.
#[derive(Clone, Default)]
struct Silent(Arc<AtomicUsize>);

struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Backend for Silent {
    fn events(&self, _: EventQuery) -> Result<EventStream, Refusal> {
        self.0.fetch_add(1, Ordering::SeqCst);
        let place = Place(Arc::clone(&self.0));
        Ok(Box::pin(stream::unfold(place, |place| async move {
            std::future::pending::<()>().await;
            drop(place);
            None
        })))
    }

    fn metrics(&self) -> BoxFuture<'_, String> {
        Box::pin(async { String::new() })
    }

    fn parts(&self) -> BoxFuture<'_, Vec<Part>> {
        Box::pin(async { Vec::new() })
    }
}

struct Door {
    world: World,
    silent: Silent,
    address: SocketAddr,
}

impl Door {
    async fn open() -> Self {
        Self::with(QUIET).await
    }

    async fn with(quiet: Duration) -> Self {
        let (world, silent) = (World::new(), Silent::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let options = Options { quiet, ..Options::default() };
        let service = Service::new(world.kernel.clone(), Arc::new(silent.clone()), options);
        tokio::spawn(service.serve(listener, std::future::pending()));
        Self { world, silent, address }
    }

    async fn ask(&self, head: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    }

    /// Follows events; comes back when the answer has begun.
    async fn follow(&self, secret: &Secret, how: &str) -> TcpStream {
        let before = self.places();
        let head = format!(
            "GET /v1/events/stream HTTP/1.1\r\nHost: x\r\nX-Tenant-Id: t\r\nX-Sig-HMAC: {}\r\n{how}\r\n\r\n",
            sign(secret, b"")
        );
        let stream = self.ask(&head).await;
        assert!(until(|| self.places() == before + 1).await, "it was not opened");
        stream
    }

    fn places(&self) -> usize {
        self.silent.0.load(Ordering::SeqCst)
    }

    async fn nobody_is_left(&self) -> bool {
        until(|| self.places() == 0).await
    }
}

const SERVER_SENT: &str = "Accept: text/event-stream";
const WEBSOCKET: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";

async fn until(ask: impl Fn() -> bool) -> bool {
    let begun = Instant::now();
    while !ask() {
        if begun.elapsed() > Duration::from_secs(20) {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    true
}

/// All that comes until the other side ends it.
async fn rest(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut all)).await;
    assert!(read.is_ok(), "it was not ended: {}", String::from_utf8_lossy(&all));
    String::from_utf8_lossy(&all).into_owned()
}

#[tokio::test]
async fn who_leaves_a_silent_stream_gives_its_place_back() {
    let door = Door::open().await;
    // The last two are those whose end is not seen while reading: nothing more is read from them.
    let pipelined = format!("{SERVER_SENT}\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x");
    let closing = format!("{SERVER_SENT}\r\nConnection: close");
    for how in [SERVER_SENT, WEBSOCKET, &closing, &pipelined] {
        drop(door.follow(&door.world.secret, how).await);
        assert!(door.nobody_is_left().await, "{how}");
    }
}

#[tokio::test]
async fn a_websocket_that_answers_no_ping_is_let_go() {
    let door = Door::open().await;
    let mut mute = door.follow(&door.world.secret, WEBSOCKET).await;
    assert!(rest(&mut mute).await.starts_with("HTTP/1.1 101"));
    assert!(door.nobody_is_left().await);

    // One that does stays.
    let mut heard = door.follow(&door.world.secret, WEBSOCKET).await;
    let begun = Instant::now();
    while begun.elapsed() < QUIET * 10 {
        heard.write_all(&[0x8a, 0x80, 0, 0, 0, 0]).await.unwrap();
        tokio::time::sleep(QUIET / 4).await;
    }
    assert_eq!(door.places(), 1);
    drop(heard);
    assert!(door.nobody_is_left().await);
}

#[tokio::test]
async fn a_stream_ends_with_the_right_to_it() {
    // What ends it must be the right, not the pings that nobody answers here.
    let door = Door::with(Duration::from_secs(3600)).await;
    let (tenants, tenant) = (door.world.kernel.tenants(), TenantId::parse("t").unwrap());
    let (old, new) = (&door.world.secret, Secret::new(vec![b'n'; 32]));
    // Its end is the connection's.
    let server_sent = format!("{SERVER_SENT}\r\nConnection: close");
    let mut of_old = door.follow(old, &server_sent).await;
    tenants.rotate(&tenant, new.clone(), 300_000_000, now_ns()).unwrap();
    let mut of_new = [door.follow(&new, &server_sent).await, door.follow(&new, WEBSOCKET).await];
    let told = rest(&mut of_old).await;
    assert!(told.contains("event: error") && told.contains("UNAUTHENTICATED"), "{told}");
    assert_eq!(door.places(), 2, "those of the new secret go on");

    tenants.revoke(&tenant).unwrap();
    let begun = Instant::now();
    assert!(rest(&mut of_new[0]).await.contains("UNAUTHENTICATED"));
    let within = begun.elapsed();
    assert!(rest(&mut of_new[1]).await.contains("UNAUTHENTICATED"));
    assert!(door.nobody_is_left().await);
    assert!(within < Duration::from_secs(2), "{within:?}");
}

#[tokio::test]
async fn what_is_refused_by_its_head_is_not_asked_for() {
    let door = Door::open().await;
    let signed = format!("X-Tenant-Id: t\r\nX-Sig-HMAC: {}\r\n", "0".repeat(64));
    for (path, headers, length, status) in [
        ("/v1/memory/put", signed.as_str(), 1u64 << 40, "413"),
        ("/v1/syscall/memory.put", &signed, 5 << 20, "413"),
        ("/v1/syscall/memory.put", "X-Tenant-Id: t\r\n", 1000, "401"),
        ("/v1/agent/register", "", 1000, "401"),
        ("/v1/chat/completions", "Authorization: Bearer x\r\n", 1 << 40, "401"),
        ("/mcp", "", 1 << 40, "401"),
        ("/v1/nowhere", &signed, 1 << 40, "404"),
    ] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
        );
        let mut stream = door.ask(&head).await;
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&first), format!("HTTP/1.1 {status}"), "{path} {headers}");
        let told = rest(&mut stream).await;
        assert!(!told.contains("100 Continue"), "{told}");
        let body = told.split_once("\r\n\r\n").unwrap().1;
        assert!(serde_json::from_str::<Value>(body).is_ok(), "{path}: {told}");
    }
}

#[tokio::test]
async fn a_name_that_is_no_text_is_refused_as_json() {
    let world = World::new();
    let (status, answer) = world.signed("POST", "/v1/syscall/%ff", b"{}").await;
    let answer: Value = serde_json::from_str(&answer).expect(&answer);
    assert_eq!((status, &answer["error"]["code"]), (400, &"INVALID_FIELD".into()), "{answer}");
    assert_eq!(answer["error"]["field"], "syscall");
}
