use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustls::pki_types::PrivatePkcs8KeyDer;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

/// A server that answers the text for each path, and keeps what it was sent.
struct Server {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

type Pages = HashMap<&'static str, String>;

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, pages: &Pages, heads: &Mutex<Vec<String>>) {
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while !head.windows(4).any(|w| w == b"\r\n\r\n") {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(n) => head.extend_from_slice(&buffer[..n]),
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    heads.lock().unwrap().push(head);
    let Some(page) = pages.get(path.as_str()) else { return };
    let _ = stream.write_all(page.as_bytes()).await;
    if page.contains("x-stall") {
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    let _ = stream.shutdown().await;
}

impl Server {
    async fn start(pages: Pages, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, heads) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<String>>>::default());
        let (pages, kept) = (Arc::new(pages), Arc::clone(&heads));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (pages, kept, tls) = (Arc::clone(&pages), Arc::clone(&kept), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, &pages, &kept).await,
                        Some(tls) => match tokio_rustls::TlsAcceptor::from(tls).accept(stream).await {
                            Ok(stream) => serve(stream, &pages, &kept).await,
                            Err(error) => kept.lock().unwrap().push(format!("TLS: {error}")),
                        },
                    }
                });
            }
        });
        Self { address, heads }
    }

    fn url(&self, host: &str, path: &str) -> String {
        format!("http://{host}:{}{path}", self.address.port())
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

fn page(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len())
}

fn redirect(status: u16, to: &str) -> String {
    page(&format!("{status} x"), &format!("location: {to}\r\n"), "")
}

/// Lets hosts through by name, and loopback when it says so; adds a header for one host.
#[derive(Default)]
struct Rules {
    denied: Vec<&'static str>,
    loopback: bool,
    added: Option<(&'static str, &'static str)>,
    asked: Mutex<Vec<(String, usize)>>,
}

impl Gate for Rules {
    type Denial = String;

    fn host(&self, target: &Target, hop: usize) -> Result<HeaderMap, String> {
        self.asked.lock().unwrap().push((target.host().to_owned(), hop));
        if self.denied.contains(&target.host()) {
            return Err(format!("{} is denied", target.host()));
        }
        let mut headers = HeaderMap::new();
        if let Some((host, value)) = self.added.filter(|(host, _)| *host == target.host()) {
            let _ = host;
            headers.insert("authorization", value.parse().unwrap());
        }
        Ok(headers)
    }

    fn address(&self, _: &Target, address: IpAddr, special: Option<Special>) -> Result<(), String> {
        match special {
            None => Ok(()),
            Some(Special::Of(crate::SpecialKind::Loopback)) if self.loopback => Ok(()),
            Some(special) => Err(format!("{address} is {}", special.as_str())),
        }
    }
}

fn open() -> Rules {
    Rules { loopback: true, ..Rules::default() }
}

/// All names are this host, but those of the table.
fn resolver(table: &'static [(&'static str, &'static [&'static str])]) -> Lookup {
    Arc::new(move |name| {
        let found = table.iter().find(|(known, _)| *known == name);
        let addresses = found.map_or(&["127.0.0.1"][..], |(_, addresses)| addresses);
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        Box::pin(async move { Ok(addresses) })
    })
}

fn fetcher(lookup: Lookup) -> Fetcher {
    Fetcher::with(lookup, rustls::RootCertStore::empty()).unwrap()
}

async fn fetch(rules: &Rules, params: Value) -> Result<Answer, Error<String>> {
    let request = Request::from_params(params.as_object().unwrap()).unwrap();
    fetcher(resolver(&[])).fetch(request, rules).await
}

#[tokio::test]
async fn an_answer_comes_with_what_it_had() {
    let headers = "X-Up: a\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n";
    let server = Server::start(HashMap::from([("/a?b=1", page("200 OK", headers, "hello"))]), None).await;
    let params =
        json!({"url": server.url("name.example", "/a?b=1#c"), "headers": {"x-own": "1", "user-agent": "me"}});
    let answer = fetch(&open(), params).await.unwrap().into_json();
    assert_eq!(
        (&answer["status"], &answer["body"], &answer["truncated"]),
        (&json!(200), &json!("hello"), &json!(false))
    );
    assert_eq!(
        (&answer["headers"]["x-up"], &answer["headers"]["set-cookie"]),
        (&json!("a"), &json!(["a=1", "b=2"]))
    );
    let head = server.heads().remove(0).to_lowercase();
    let host = format!("host: name.example:{}\r\n", server.address.port());
    for line in [
        "get /a?b=1 http/1.1\r\n",
        &host,
        "x-own: 1\r\n",
        "user-agent: me\r\n",
        "accept-encoding: identity\r\n",
    ] {
        assert!(head.contains(line), "{line} in {head}");
    }
    assert!(!head.contains("aion/"), "{head}");
}

#[tokio::test]
async fn what_is_too_much_is_cut_and_what_is_too_slow_ended() {
    let chunked =
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabcde\r\n5\r\nfghij\r\n0\r\n\r\n";
    let large = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(100_000));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(200));
    let pages = HashMap::from([
        ("/", page("200 OK", "", &"x".repeat(5000))),
        ("/chunked", chunked.to_owned()),
        ("/stall", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\nx-stall: 1\r\n\r\nabc".to_owned()),
        ("/large", large),
        ("/many", many),
        ("/short", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc".to_owned()),
        ("/nonsense", "SSH-2.0-x\r\n\r\n".to_owned()),
        ("/gzip", page("200 OK", "content-encoding: gzip\r\n", "\u{1f}pretend")),
    ]);
    let server = Server::start(pages, None).await;
    let get = |path: &str, max: usize| {
        let params = json!({"url": server.url("127.0.0.1", path), "max_bytes": max, "timeout_ms": 2000});
        async move { fetch(&open(), params).await }
    };
    for (path, max, length, truncated) in [
        ("/", 4999, 4999, true),
        ("/", 5000, 5000, false),
        ("/", 0, 0, true),
        ("/chunked", 7, 7, true),
        ("/chunked", 10, 10, false),
    ] {
        let answer = get(path, max).await.unwrap();
        assert_eq!((answer.body.len(), answer.truncated), (length, truncated), "{path} {max}");
    }
    let began = Instant::now();
    assert_eq!(get("/stall", 100).await.unwrap_err(), Error::Failed(Failure::Timeout { ms: 2000 }));
    assert!(began.elapsed() < Duration::from_secs(20));
    for path in ["/large", "/many", "/short", "/nonsense", "/none"] {
        let error = get(path, 100).await.unwrap_err();
        assert!(matches!(error, Error::Failed(Failure::Http { .. })), "{path}: {error}");
    }
    let packed = get("/gzip", 100).await.unwrap();
    assert_eq!(packed.body, b"\x1fpretend", "nothing is decompressed");
}

#[tokio::test]
async fn every_hop_is_decided_as_the_first() {
    let server = Server::start(HashMap::from([("/end", page("200 OK", "", "end"))]), None).await;
    let port = server.address.port();
    let pages: Pages = HashMap::from([
        ("/ok", redirect(302, &format!("http://b.example:{port}/end"))),
        ("/denied", redirect(302, &format!("http://denied.example:{port}/end"))),
        ("/private", redirect(307, "http://10.0.0.1/")),
        ("/metadata", redirect(301, "http://169.254.169.254/latest/")),
        ("/odd", redirect(301, "http://0xa9fea9fe/")),
        ("/mapped", redirect(301, "http://[::ffff:10.0.0.1]/")),
        ("/scheme", redirect(302, "file:///etc/passwd")),
        ("/user", redirect(302, "http://u:p@b.example/")),
        ("/plain", page("302 x", "", "no Location")),
        ("/end", page("200 OK", "", "end")),
    ]);
    let first = Server::start(pages, None).await;
    let rules = Rules { denied: vec!["denied.example"], loopback: true, ..Rules::default() };
    let get = |path: &str| fetch(&rules, json!({"url": first.url("a.example", path)}));
    let answer = get("/ok").await.unwrap();
    assert_eq!((answer.status, answer.body.as_slice()), (200, &b"end"[..]));
    assert_eq!(answer.redirects, [Hop { status: 302, url: answer.url.clone() }]);
    assert_eq!(*rules.asked.lock().unwrap(), [("a.example".to_owned(), 0), ("b.example".to_owned(), 1)]);
    for (path, why) in [
        ("/denied", "denied.example is denied"),
        ("/private", "10.0.0.1 is a private address"),
        ("/metadata", "169.254.169.254 is an address where clouds serve credentials"),
        ("/odd", "169.254.169.254 is an address where clouds serve credentials"),
        ("/mapped", "10.0.0.1 is a private address"),
    ] {
        assert_eq!(get(path).await.unwrap_err(), Error::Denied(why.to_owned()), "{path}");
    }
    for path in ["/scheme", "/user"] {
        assert!(matches!(get(path).await, Err(Error::Failed(Failure::Redirect { .. }))), "{path}");
    }
    assert_eq!(get("/plain").await.unwrap().status, 302);
    assert_eq!(server.heads().len(), 1, "who is denied is not asked");
}

#[tokio::test]
async fn redirects_are_counted() {
    let pages: Pages = HashMap::from([
        ("/0", redirect(302, "/1")),
        ("/1", redirect(302, "/2")),
        ("/2", page("200 OK", "", "end")),
        ("/loop", redirect(302, "/loop")),
    ]);
    let server = Server::start(pages, None).await;
    let get = |path: &str, redirects: u8| {
        fetch_owned(json!({"url": server.url("127.0.0.1", path), "redirects": redirects}))
    };
    assert_eq!(get("/0", 2).await.unwrap().redirects.len(), 2);
    assert!(matches!(get("/0", 1).await, Err(Error::Failed(Failure::Redirect { .. }))));
    assert_eq!(get("/0", 0).await.unwrap().status, 302, "asked for none, so this is the answer");
    let before = server.heads().len();
    assert!(get("/loop", 10).await.is_err());
    assert_eq!(server.heads().len() - before, 11);
}

async fn fetch_owned(params: Value) -> Result<Answer, Error<String>> {
    fetch(&open(), params).await
}

#[tokio::test]
async fn what_tells_who_asks_stays_behind() {
    let other = Server::start(HashMap::from([("/end", page("200 OK", "", ""))]), None).await;
    let pages: Pages = HashMap::from([
        ("/same", redirect(307, "/end")),
        ("/other", redirect(307, &other.url("b.example", "/end"))),
        ("/see", redirect(303, "/end")),
        ("/end", page("200 OK", "", "")),
    ]);
    let server = Server::start(pages, None).await;
    let rules = Rules { added: Some(("a.example", "Bearer planted")), ..open() };
    let post = |path: &str| {
        json!({
            "method": "POST", "url": server.url("a.example", path), "body": "data",
            "headers": {"authorization": "mine", "cookie": "c=1", "x-api-key": "k", "content-type": "text/plain"}
        })
    };
    fetch(&rules, post("/same")).await.unwrap();
    let heads = server.heads();
    assert!(heads.iter().all(|head| head.contains("Bearer planted") && !head.contains("mine")), "{heads:?}");
    assert!(heads[1].starts_with("POST /end") && heads[1].contains("x-api-key"), "the same origin gets all");
    fetch(&rules, post("/other")).await.unwrap();
    let head = other.heads().remove(0);
    for gone in ["authorization", "cookie", "x-api-key", "planted", "mine"] {
        assert!(!head.contains(gone), "{gone} in {head}");
    }
    assert!(head.starts_with("POST /end") && head.contains("content-type: text/plain"), "{head}");
    fetch(&rules, post("/see")).await.unwrap();
    let last = server.heads().pop().unwrap();
    assert!(last.starts_with("GET /end") && !last.contains("content-type"), "{last}");
}

#[tokio::test]
async fn one_bad_address_is_one_too_many() {
    let server = Server::start(HashMap::from([("/", page("200 OK", "", ""))]), None).await;
    let fetcher = fetcher(resolver(&[
        ("mixed.example", &["127.0.0.1", "10.0.0.1"]),
        ("private.example", &["192.168.1.1"]),
        ("mapped.example", &["::ffff:10.0.0.1"]),
        ("none.example", &[]),
        ("second.example", &["127.0.0.2", "127.0.0.1"]),
    ]));
    for (host, good) in [
        ("mixed", false),
        ("private", false),
        ("mapped", false),
        ("none", false),
        ("second", true),
        ("x", true),
    ] {
        let params = json!({"url": server.url(&format!("{host}.example"), "/")});
        let request = Request::from_params(params.as_object().unwrap()).unwrap();
        assert_eq!(fetcher.fetch(request, &open()).await.is_ok(), good, "{host}");
    }
    assert!(matches!(
        fetch(&Rules::default(), json!({"url": server.url("x.example", "/")})).await,
        Err(Error::Denied(_))
    ));
}

/// A name that is this host at first and another at the second look: there is no second look.
#[tokio::test]
async fn a_name_is_looked_up_once_a_hop_and_checked_each_time() {
    let pages: Pages = HashMap::from([("/", page("200 OK", "", "")), ("/again", redirect(302, "/"))]);
    let server = Server::start(pages, None).await;
    let looked = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&looked);
    let lookup: Lookup = Arc::new(move |_| {
        let first = seen.fetch_add(1, Ordering::SeqCst) == 0;
        let address: IpAddr = if first { "127.0.0.1" } else { "10.0.0.1" }.parse().unwrap();
        Box::pin(async move { Ok(vec![address]) })
    });
    let fetcher = fetcher(lookup);
    let get = |path: &str| {
        let params = json!({"url": server.url("x.example", path)});
        Request::from_params(params.as_object().unwrap()).unwrap()
    };
    fetcher.fetch(get("/"), &open()).await.unwrap();
    assert_eq!(looked.load(Ordering::SeqCst), 1);
    looked.store(0, Ordering::SeqCst);
    let error = fetcher.fetch(get("/again"), &open()).await.unwrap_err();
    assert_eq!(error, Error::Denied("10.0.0.1 is a private address".to_owned()));
    assert_eq!(looked.load(Ordering::SeqCst), 2, "the redirect is looked up anew, and checked anew");
}

#[tokio::test]
async fn https_is_asked_by_name_and_must_be_trusted() {
    let made = rcgen::generate_simple_self_signed(vec!["good.example".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
    let plain = Server::start(HashMap::from([("/", page("200 OK", "", ""))]), None).await;
    let pages = HashMap::from([
        ("/", page("200 OK", "", "over TLS")),
        ("/down", redirect(302, &plain.url("good.example", "/"))),
    ]);
    let server = Server::start(pages, Some(Arc::new(tls))).await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let trusting = Fetcher::with(resolver(&[]), roots).unwrap();
    let get = |host: &str, path: &str| {
        let params = json!({"url": format!("https://{host}:{}{path}", server.address.port())});
        Request::from_params(params.as_object().unwrap()).unwrap()
    };
    assert_eq!(trusting.fetch(get("good.example", "/"), &open()).await.unwrap().body, b"over TLS");
    for (fetcher, host) in
        [(&trusting, "other.example"), (&trusting, "127.0.0.1"), (&fetcher(resolver(&[])), "good.example")]
    {
        let error = fetcher.fetch(get(host, "/"), &open()).await.unwrap_err();
        assert!(matches!(error, Error::Failed(Failure::Tls { .. })), "{host}: {error}");
    }
    let error = trusting.fetch(get("good.example", "/down"), &open()).await.unwrap_err();
    assert!(matches!(error, Error::Failed(Failure::Redirect { .. })), "{error}");
    assert!(plain.heads().is_empty());
}
