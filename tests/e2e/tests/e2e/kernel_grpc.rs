//! System calls over gRPC on TCP: signed, or with a client's certificate; and what no door lets in.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aion_api_proto::v1::syscall_part::Kind;
use aion_api_proto::v1::syscall_service_client::SyscallServiceClient;
use aion_api_proto::v1::{SyscallAnswer, SyscallRequest};
use aion_e2e::eventually;
use hmac::{Hmac, Mac as _};
use prost::Message as _;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use serde_json::json;
use sha2::Sha256;
use tokio::runtime::Runtime;
use tonic::metadata::MetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};

use crate::kernel::{AGENT, SECRET, World};

const INVOKE: &str = "/aion.v1.SyscallService/Invoke";
const STREAM: &str = "/aion.v1.SyscallService/InvokeStream";

fn address(world: &World) -> String {
    fs::read_to_string(world.daemons.state().join("run/grpc")).unwrap().trim().to_owned()
}

fn put(agent: &str) -> SyscallRequest {
    let params = json!({"key": "over-grpc", "value": {"n": 7}}).to_string();
    SyscallRequest {
        syscall: "memory.put".to_owned(),
        agent: agent.to_owned(),
        params_json: params,
        ..SyscallRequest::default()
    }
}

fn now_ms() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()
}

/// What a request is signed with.
struct Signer<'a> {
    tenant: &'a str,
    secret: &'a str,
    nonce: &'a str,
    path: &'a str,
}

impl Signer<'_> {
    /// Signs a message; `sent` is what goes out.
    fn request(&self, signed: &SyscallRequest, sent: SyscallRequest) -> Request<SyscallRequest> {
        let timestamp = now_ms().to_string();
        let mut mac = Hmac::<Sha256>::new_from_slice(self.secret.as_bytes()).unwrap();
        mac.update(format!("{timestamp}\n{}\nPOST\n{}\n", self.nonce, self.path).as_bytes());
        mac.update(&signed.encode_to_vec());
        let mut request = Request::new(sent);
        for (name, value) in [
            ("x-tenant-id", self.tenant.to_owned()),
            ("x-timestamp", timestamp),
            ("x-nonce", self.nonce.to_owned()),
            ("x-sig-hmac", hex::encode(mac.finalize().into_bytes())),
        ] {
            request.metadata_mut().insert(name, MetadataValue::try_from(value).unwrap());
        }
        request
    }

    fn of(&self, message: SyscallRequest) -> Request<SyscallRequest> {
        self.request(&message.clone(), message)
    }
}

const fn signer<'a>(nonce: &'a str) -> Signer<'a> {
    Signer { tenant: "tenantA", secret: SECRET, nonce, path: INVOKE }
}

fn invoke(
    runtime: &Runtime,
    channel: &Channel,
    request: Request<SyscallRequest>,
) -> Result<SyscallAnswer, Status> {
    let mut client = SyscallServiceClient::new(channel.clone());
    runtime.block_on(client.invoke(request)).map(tonic::Response::into_inner)
}

fn unauthenticated(result: Result<SyscallAnswer, Status>, words: &str) {
    let status = result.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
    assert!(status.message().contains(words), "{words}: {status:?}");
}

pub(crate) fn who_signs_is_served_and_nobody_else() {
    let world = World::start_with(&[("AION_GRPC", "127.0.0.1:0")]);
    let runtime = Runtime::new().unwrap();
    let url = format!("http://{}", address(&world));
    let channel = runtime.block_on(Endpoint::from_shared(url).unwrap().connect()).unwrap();

    let answer = invoke(&runtime, &channel, signer("nonce-01").of(put(AGENT))).unwrap();
    assert_eq!((answer.status.as_str(), answer.error), ("ok", None));
    let decision = world.daemons.ctl(["explain", &answer.audit_id, "-o", "json"]).json();
    assert_eq!((&decision["caller"], &decision["agent"]), (&json!("hmac:tenantA"), &json!(AGENT)));
    // A stream ends with the answer.
    let request = Signer { path: STREAM, ..signer("nonce-02") }.of(put(AGENT));
    let last = runtime.block_on(async {
        let mut client = SyscallServiceClient::new(channel.clone());
        let mut parts = client.invoke_stream(request).await.unwrap().into_inner();
        let mut last = None;
        while let Some(part) = parts.message().await.unwrap() {
            last = part.kind;
        }
        last
    });
    assert!(matches!(last, Some(Kind::Answer(answer)) if answer.status == "ok"));

    // Another secret, another tenant's secret, nobody's.
    for (tenant, secret) in
        [("tenantA", "a wrong secret, long enough"), ("tenantB", SECRET), ("nobody", SECRET)]
    {
        let request = Signer { tenant, secret, ..signer("nonce-03") }.of(put(AGENT));
        unauthenticated(invoke(&runtime, &channel, request), "signature");
    }
    // Another message, and another method, than the ones that were signed.
    let mut altered = put(AGENT);
    altered.params_json = json!({"key": "over-grpc", "value": {"n": 8}}).to_string();
    unauthenticated(invoke(&runtime, &channel, signer("nonce-04").request(&put(AGENT), altered)), "altered");
    let other = Signer { path: STREAM, ..signer("nonce-05") }.of(put(AGENT));
    unauthenticated(invoke(&runtime, &channel, other), "signature");
    // The same once more, to the byte.
    let again = signer("nonce-06").of(put(AGENT));
    let mut copy = Request::new(again.get_ref().clone());
    *copy.metadata_mut() = again.metadata().clone();
    assert_eq!(invoke(&runtime, &channel, again).unwrap().status, "ok");
    unauthenticated(invoke(&runtime, &channel, copy), "nonce");
    // Without time and nonce, or without anything.
    let mut bare = signer("nonce-07").of(put(AGENT));
    bare.metadata_mut().remove("x-nonce");
    unauthenticated(invoke(&runtime, &channel, bare), "X-Nonce");
    unauthenticated(invoke(&runtime, &channel, Request::new(put(AGENT))), "X-Tenant-Id");
    // Another tenant's agent: it is known who asks, and that is not for it.
    let foreign = invoke(&runtime, &channel, signer("nonce-08").of(put("agent://tenantB/x"))).unwrap();
    assert_eq!(
        (foreign.status.as_str(), foreign.error.unwrap().code.as_str()),
        ("denied", "PERMISSION_DENIED")
    );
    // Too much, and what is no request of gRPC's.
    let mut large = put(AGENT);
    large.params_json = format!("{{\"key\": \"k\", \"value\": \"{}\"}}", "x".repeat(6 << 20));
    let status = invoke(&runtime, &channel, signer("nonce-09").of(large)).unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    // Only system calls are here.
    let mut health = tonic::client::Grpc::new(channel.clone());
    let status = runtime.block_on(async {
        health.ready().await.unwrap();
        let path = "/aion.v1.AgentService/List".parse().unwrap();
        let codec = tonic_codec();
        health
            .unary::<_, SyscallAnswer, _>(Request::new(SyscallRequest::default()), path, codec)
            .await
            .unwrap_err()
    });
    assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
    // A tenant that is revoked is nobody from then on.
    world.daemons.ctl(["tenant", "revoke", "tenantA"]).ok();
    unauthenticated(invoke(&runtime, &channel, signer("nonce-10").of(put(AGENT))), "signature");
    eventually("it is in the audit log", Duration::from_secs(10), || {
        let found = world.daemons.ctl(["audit", "query", "--kind", "api.unauthenticated", "-o", "jsonl"]);
        let rules: Vec<_> = found.ok().json_lines().iter().map(|record| record["rule"].clone()).collect();
        ["door:mismatch", "door:replayed", "door:time_required", "door:no_tenant"]
            .iter()
            .all(|rule| rules.contains(&json!(rule)))
    });
    drop(channel);
    world.daemons.finish().unwrap();
}

fn tonic_codec() -> impl tonic::codec::Codec<Encode = SyscallRequest, Decode = SyscallAnswer> {
    tonic_prost::ProstCodec::default()
}

/// Authorities and certificates, in a folder.
struct Papers {
    folder: PathBuf,
    ca: Issuer<'static, KeyPair>,
    ca_pem: String,
}

fn authority(name: &str) -> (Issuer<'static, KeyPair>, String) {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), pem)
}

/// A certificate and its key, in PEM.
fn issued(ca: &Issuer<'static, KeyPair>, uri: Option<&str>, days: (i64, i64)) -> (String, String) {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.subject_alt_names.extend(uri.map(|uri| SanType::URI(uri.try_into().unwrap())));
    let today = time::OffsetDateTime::now_utc();
    params.not_before = today + time::Duration::days(days.0);
    params.not_after = today + time::Duration::days(days.1);
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, ca).unwrap().pem(), key.serialize_pem())
}

impl Papers {
    fn new(folder: &Path) -> Self {
        let (ca, ca_pem) = authority("ca of the operator");
        let (cert, key) = issued(&ca, None, (-1, 30));
        for (name, text) in [("cert.pem", &cert), ("key.pem", &key), ("ca.pem", &ca_pem)] {
            fs::write(folder.join(name), text).unwrap();
        }
        Self { folder: folder.to_owned(), ca, ca_pem }
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).to_str().unwrap().to_owned()
    }

    /// A connection; with a certificate, when there is one.
    fn connect(
        &self,
        runtime: &Runtime,
        address: &str,
        identity: Option<(String, String)>,
    ) -> Result<Channel, tonic::transport::Error> {
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&self.ca_pem))
            .domain_name("localhost");
        if let Some((cert, key)) = identity {
            tls = tls.identity(Identity::from_pem(cert, key));
        }
        let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap().tls_config(tls).unwrap();
        runtime.block_on(endpoint.connect())
    }
}

pub(crate) fn a_certificate_says_who_calls() {
    let folder = tempfile::tempdir().unwrap();
    let papers = Papers::new(folder.path());
    let (cert, key, ca) = (papers.path("cert.pem"), papers.path("key.pem"), papers.path("ca.pem"));
    let world = World::start_with(&[
        ("AION_GRPC", "127.0.0.1:0"),
        ("AION_GRPC_TLS_CERT", &cert),
        ("AION_GRPC_TLS_KEY", &key),
        ("AION_GRPC_CLIENT_CA", &ca),
    ]);
    let runtime = Runtime::new().unwrap();
    let address = address(&world);
    let good = |uri: &str| Some(issued(&papers.ca, Some(uri), (-1, 30)));
    let call = |identity, agent: &str| {
        let channel = papers.connect(&runtime, &address, identity).map_err(|error| error.to_string())?;
        invoke(&runtime, &channel, Request::new(put(agent)))
            .map_err(|status| format!("{:?}: {}", status.code(), status.message()))
    };
    // A tenant's certificate speaks for its agents, an agent's for itself: then the request need not say so.
    let answer = call(good("tenant://tenantA"), AGENT).unwrap();
    assert_eq!(answer.status, "ok");
    let decision = world.daemons.ctl(["explain", &answer.audit_id, "-o", "json"]).json();
    assert_eq!(decision["caller"], "mtls:tenantA");
    let own = good("agent://tenantA/researcher-1");
    let answer = call(own.clone(), "").unwrap();
    let decision = world.daemons.ctl(["explain", &answer.audit_id, "-o", "json"]).json();
    assert_eq!((&decision["caller"], &decision["agent"]), (&json!(AGENT), &json!(AGENT)));
    for (identity, agent) in [(own, "agent://tenantA/offline-1"), (good("tenant://tenantB"), AGENT)] {
        let denied = call(identity, agent).unwrap();
        assert_eq!(denied.error.unwrap().code, "PERMISSION_DENIED");
    }
    // Of the authority, and of nobody that is there.
    for uri in ["tenant://nobody", "https://tenantA.example"] {
        let told = call(good(uri), AGENT).unwrap_err();
        assert!(told.starts_with("Unauthenticated"), "{uri}: {told}");
    }
    // Another authority's, one that is over, one that is not yet good: there is no connection, or none that lasts.
    let (foreign, _) = authority("ca of somebody");
    for (what, identity) in [
        ("another authority's", issued(&foreign, Some("tenant://tenantA"), (-1, 30))),
        ("expired", issued(&papers.ca, Some("tenant://tenantA"), (-30, -1))),
        ("not yet good", issued(&papers.ca, Some("tenant://tenantA"), (1, 30))),
    ] {
        let told = call(Some(identity), AGENT).unwrap_err();
        assert!(!told.starts_with("Unauthenticated"), "{what} got past the handshake: {told}");
    }
    // Without a certificate a request is signed, as ever.
    let channel = papers.connect(&runtime, &address, None).unwrap();
    unauthenticated(invoke(&runtime, &channel, Request::new(put(AGENT))), "X-Tenant-Id");
    assert_eq!(invoke(&runtime, &channel, signer("nonce-01").of(put(AGENT))).unwrap().status, "ok");
    // Without TLS there is nothing.
    let plain = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let spoken = runtime.block_on(async {
        let channel = plain.connect().await.ok()?;
        SyscallServiceClient::new(channel).invoke(signer("nonce-02").of(put(AGENT))).await.ok()
    });
    assert!(spoken.is_none());
    // A connection outlives its tenant by not one call.
    let channel = papers.connect(&runtime, &address, good("tenant://tenantA")).unwrap();
    assert_eq!(invoke(&runtime, &channel, Request::new(put(AGENT))).unwrap().status, "ok");
    world.daemons.ctl(["tenant", "revoke", "tenantA"]).ok();
    unauthenticated(invoke(&runtime, &channel, Request::new(put(AGENT))), "certificate");
    eventually("wrong certificates are in the audit log", Duration::from_secs(10), || {
        let found = world.daemons.ctl(["audit", "query", "--kind", "api.unauthenticated", "-o", "jsonl"]);
        found.ok().json_lines().iter().filter(|record| record["rule"] == "door:certificate").count() >= 5
    });
    drop(channel);
    world.daemons.finish().unwrap();
}

pub(crate) fn slow_half_open_and_flooding_clients_hold_nobody_up() {
    let world = World::start_with(&[("AION_GRPC", "127.0.0.1:0")]);
    let runtime = Runtime::new().unwrap();
    let address = address(&world);
    let mut held = Vec::new();
    // Nothing, half a greeting, a greeting and then nothing, HTTP/1.1, noise.
    for text in [
        &b""[..],
        b"PRI * HTTP/2",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff\x00\x01",
    ] {
        for _ in 0..60 {
            let mut stream = TcpStream::connect(&address).unwrap();
            stream.write_all(text).unwrap();
            held.push(stream);
        }
    }
    // Heads of signed requests whose messages never come: on connections of their own, and many on one.
    let stuck = |channel: Channel, n: usize| {
        runtime.spawn(async move {
            let nonce = format!("stuck-{n:05}");
            let metadata = signer(&nonce).of(put(AGENT)).metadata().clone();
            let mut request = Request::new(tokio_stream::pending());
            *request.metadata_mut() = metadata;
            let mut client = tonic::client::Grpc::new(channel);
            client.ready().await.unwrap();
            let path = INVOKE.parse().unwrap();
            let _ = client.client_streaming::<_, _, SyscallAnswer, _>(request, path, tonic_codec()).await;
        })
    };
    let crowded =
        runtime.block_on(Endpoint::from_shared(format!("http://{address}")).unwrap().connect()).unwrap();
    let mut waiting: Vec<_> = (0..50).map(|n| stuck(crowded.clone(), n)).collect();
    for n in 50..100 {
        let own =
            runtime.block_on(Endpoint::from_shared(format!("http://{address}")).unwrap().connect()).unwrap();
        waiting.push(stuck(own, n));
    }
    // A flood of requests that nobody signed, from many connections at once.
    let url = format!("http://{address}");
    let flood = runtime.spawn({
        let url = url.clone();
        async move {
            let mut refused = 0;
            let channel = Endpoint::from_shared(url).unwrap().connect().await.unwrap();
            for n in 0..500 {
                let nonce = format!("flood-{n:05}");
                let wrong = Signer { secret: "a wrong secret, long enough", ..signer(&nonce) };
                let sent = SyscallServiceClient::new(channel.clone()).invoke(wrong.of(put(AGENT))).await;
                refused += usize::from(sent.is_err());
            }
            refused
        }
    });
    let channel = runtime.block_on(Endpoint::from_shared(url).unwrap().connect()).unwrap();
    for n in 0..20 {
        let answer = invoke(&runtime, &channel, signer(&format!("good-{n:05}")).of(put(AGENT))).unwrap();
        assert_eq!(answer.status, "ok");
    }
    assert_eq!(runtime.block_on(flood).unwrap(), 500);
    // HTTP's own door is another one.
    let put = json!({"agent_id": AGENT, "key": "k", "value": 1});
    assert_eq!(world.signed("/v1/memory/put", &put).0, 200);
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
    drop((held, channel, crowded));
    world.daemons.finish().unwrap();
}

/// A way to an address that lets 320 KB through in a second, for one connection.
fn slow_line(address: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (place, address) = (listener.local_addr().unwrap(), address.to_owned());
    thread::spawn(move || {
        let (mut from, _) = listener.accept().unwrap();
        let mut to = TcpStream::connect(address).unwrap();
        let (mut answers, mut back) = (to.try_clone().unwrap(), from.try_clone().unwrap());
        thread::spawn(move || std::io::copy(&mut answers, &mut back));
        let mut bytes = [0; 16 << 10];
        while let Ok(length @ 1..) = from.read(&mut bytes) {
            if to.write_all(&bytes[..length]).is_err() {
                break;
            }
            thread::sleep(Duration::from_millis(50));
        }
    });
    place.to_string()
}

pub(crate) fn a_large_first_request_comes_over_a_slow_line() {
    let world = World::start_with(&[("AION_GRPC", "127.0.0.1:0")]);
    let runtime = Runtime::new().unwrap();
    let url = format!("http://{}", slow_line(&address(&world)));
    let channel = runtime.block_on(Endpoint::from_shared(url).unwrap().connect()).unwrap();
    // Some seconds of sending: longer than one who has a place that others want may take, and is not known yet.
    let mut large = put(AGENT);
    large.params_json = json!({"key": "large", "value": "x".repeat(2 << 20)}).to_string();
    let answer = invoke(&runtime, &channel, signer("nonce-01").of(large)).unwrap();
    assert!(!answer.audit_id.is_empty(), "{answer:?}");
    let decision = world.daemons.ctl(["explain", &answer.audit_id, "-o", "json"]).json();
    assert_eq!(decision["caller"], "hmac:tenantA");
    drop(channel);
    world.daemons.finish().unwrap();
}
