use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::secrets::SecretConfig;

const PLANTED: &str = "planted-s3cret/value";

/// A server that answers with what it was sent, or redirects to what its path says: `/to/HOST:PORT/PATH`.
async fn echo() -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let heads = Arc::<Mutex<Vec<String>>>::default();
    let kept = Arc::clone(&heads);
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = vec![0; 8192];
            let n = stream.read(&mut head).await.unwrap_or(0);
            let head = String::from_utf8_lossy(&head[..n]).into_owned();
            kept.lock().unwrap().push(head.clone());
            let path = head.split(' ').nth(1).unwrap_or_default();
            if path == "/stall" {
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_secs(60)).await;
                    drop(stream);
                });
                continue;
            }
            let answer = match path.strip_prefix("/to/") {
                Some(leak @ ("leak" | "leak-in-part")) => {
                    // The second is an escape that no encoder has as a whole.
                    let (from, to) = if leak == "leak" { ("/", "%2F") } else { ("-", "%2d") };
                    let value = head.lines().find_map(|line| line.strip_prefix("authorization: Bearer "));
                    let query = value.unwrap_or_default().replace(from, to);
                    format!(
                        "HTTP/1.1 302 x\r\nlocation: http://127.0.0.2:9/?{query}\r\ncontent-length: 0\r\n\r\n"
                    )
                }
                Some("packed") => {
                    "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 1\r\n\r\nx".to_owned()
                }
                Some(to) => format!("HTTP/1.1 302 x\r\nlocation: http://{to}\r\ncontent-length: 0\r\n\r\n"),
                None => format!(
                    "HTTP/1.1 200 OK\r\nx-echo: {PLANTED}\r\ncontent-length: {}\r\n\r\n{head}",
                    head.len()
                ),
            };
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (port, heads)
}

impl World {
    /// The operator's rules for the tenant, with these beside all of the others.
    fn allow(&self, more: &[String], deny: &[&str]) {
        let tenant = TenantId::parse("tenantA").unwrap();
        let mut allow: Vec<String> =
            ["network", "tool:*", "memory:*", "secret:use:*"].map(str::to_owned).to_vec();
        allow.extend_from_slice(more);
        let deny = deny.iter().map(ToString::to_string).collect();
        self.kernel.tenants().set(&tenant, Settings { allow, deny, ..Settings::default() }, 0).unwrap();
    }

    fn agent(&self, name: &str, capabilities: &Value) {
        let manifest = json!({
            "apiVersion": "aion.os/v1", "kind": "Agent", "metadata": {"name": name},
            "spec": {"entry": "x", "capabilities": capabilities, "syscalls": ["net.fetch", "secret.use", "tool.invoke"]}
        });
        self.fake.agents.lock().unwrap().push(("tenantA".to_owned(), name.to_owned(), manifest.to_string()));
    }

    async fn fetch(&self, agent: &str, url: String) -> Answer {
        self.call(agent, "net.fetch", json!({"url": url})).await.answer
    }

    async fn plant(&self, name: &str, hosts: &[String]) {
        let tenant = TenantId::parse("tenantA").unwrap();
        let config = SecretConfig {
            name: name.to_owned(),
            hosts: hosts.to_vec(),
            header: "authorization".to_owned(),
            prefix: "Bearer ".to_owned(),
        };
        self.kernel.add_secret(tenant, config, Secret::new(PLANTED.into())).await.unwrap();
    }

    /// Rows and records of a call, as text.
    async fn told(&self, audit_id: &str) -> String {
        let row = self.kernel.explain(None, audit_id.to_owned()).await.unwrap();
        format!("{} {:?}", serde_json::to_string(&row).unwrap(), self.fake.records.lock().unwrap())
    }
}

fn code(answer: &Answer) -> &str {
    answer.error.as_ref().map_or("ok", |error| error.code.as_str())
}

fn address(port: u16) -> String {
    format!("net:connect:127.0.0.1:{port}")
}

#[tokio::test]
async fn a_private_address_needs_the_operator_and_a_host_the_agent() {
    let world = World::new().await;
    let (port, heads) = echo().await;
    world.agent("net", &json!(["network"]));
    world.agent("one", &json!(["net:connect:127.0.0.1:1"]));
    let url = || format!("http://127.0.0.1:{port}/x?token=y");
    for (host, why) in [
        ("127.0.0.1", "a loopback address"),
        ("localhost", "a loopback address"),
        ("10.0.0.1", "a private address"),
    ] {
        let denied = world.fetch("net", format!("http://{host}:{port}/")).await;
        let error = denied.error.clone().unwrap();
        assert_eq!(
            (denied.status, error.code.as_str(), error.field.as_str()),
            (Status::Denied, "POLICY_DENIED", "params.url")
        );
        assert!(error.message.contains(why) && error.rule.contains("name an address"), "{error:?}");
    }
    world.allow(&[address(port)], &[]);
    let answer = world.fetch("net", url()).await;
    assert_eq!((code(&answer), &answer.result["status"]), ("ok", &json!(200)), "{answer:?}");
    assert!(answer.result["body"].as_str().unwrap().starts_with("GET /x?token=y HTTP/1.1"));
    let row = world.kernel.explain(None, answer.audit_id.clone()).await.unwrap();
    assert_eq!(row.target, format!("GET http://127.0.0.1:{port}/x"), "the query stays out of the records");
    let steps = row.decision.unwrap().steps;
    assert!(steps.iter().any(|step| step.rule.contains("tenant tenantA")), "{steps:?}");
    // A name that has the address, and on some hosts a second one, which must be open as well.
    let both = [address(port), format!("net:connect:[::1]:{port}")];
    world.allow(&both, &[]);
    assert_eq!(code(&world.fetch("net", format!("http://localhost:{port}/")).await), "ok");
    assert_eq!(code(&world.fetch("one", url()).await), "POLICY_DENIED");
    assert_eq!(code(&world.fetch("a", url()).await), "POLICY_DENIED", "not on its list of calls");
    assert_eq!(
        code(&world.fetch("net", "http://127.0.0.1:9/".to_owned()).await),
        "POLICY_DENIED",
        "another port"
    );
    let before = heads.lock().unwrap().len();
    world.allow(&both, &["net:connect:127.0.0.1:*"]);
    let denied = world.fetch("net", format!("http://localhost:{port}/")).await;
    assert!(denied.error.unwrap().message.contains("is denied"), "a denied address is denied by any name");
    world.allow(&both, &["net:connect:127.0.0.0/8:*"]);
    let denied = world.fetch("net", format!("http://localhost:{port}/")).await;
    assert!(denied.error.unwrap().message.contains("is denied"), "and so is a block");
    assert_eq!(heads.lock().unwrap().len(), before);
}

#[tokio::test]
async fn redirects_are_decided_as_the_call() {
    let world = World::new().await;
    let ((port, _), (other, heads)) = (echo().await, echo().await);
    world.agent("net", &json!(["network"]));
    world.agent("one", &json!([address(port)]));
    world.allow(&[address(port), address(other)], &["net:connect:denied.example:*"]);
    let to = |place: String| format!("http://127.0.0.1:{port}/to/{place}");
    let good = world.fetch("net", to(format!("127.0.0.1:{other}/end"))).await;
    assert_eq!(
        good.result["redirects"][0]["url"],
        json!(format!("http://127.0.0.1:{other}/end")),
        "{good:?}"
    );
    assert_eq!(heads.lock().unwrap().len(), 1);
    for (agent, place) in [
        ("net", "10.0.0.1/".to_owned()),
        ("net", "169.254.169.254/latest/meta-data/".to_owned()),
        ("net", "[::ffff:10.0.0.1]/".to_owned()),
        ("net", "denied.example/".to_owned()),
        ("one", format!("127.0.0.1:{other}/")),
    ] {
        let denied = world.fetch(agent, to(place.clone())).await;
        assert_eq!((code(&denied), denied.status), ("POLICY_DENIED", Status::Denied), "{place}");
        let row = world.kernel.explain(None, denied.audit_id).await.unwrap();
        let decision = row.decision.unwrap();
        assert!(!decision.allowed && !decision.steps.last().unwrap().allowed, "{decision:?}");
    }
    assert_eq!(heads.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_told() {
    let world = World::new().await;
    let (port, _) = echo().await;
    world.agent("net", &json!(["network"]));
    world.allow(&[address(port), "net:connect:127.0.0.1:1".to_owned()], &[]);
    for (params, field, code) in [
        (json!({}), "params.url", "INVALID_FIELD"),
        (json!({"url": "http://0x7f000001/"}), "params.url", "INVALID_FIELD"),
        (json!({"url": "https://u:p@example.com/"}), "params.url", "INVALID_FIELD"),
        (
            json!({"url": "https://example.com/", "headers": {"host": "x"}}),
            "params.headers.host",
            "INVALID_FIELD",
        ),
        (json!({"url": format!("http://127.0.0.1:{port}/{}", "x".repeat(9000))}), "params.url", "TOO_LARGE"),
        (json!({"url": "http://127.0.0.1:1/"}), "", "FETCH_FAILED"),
        (
            json!({"url": format!("http://127.0.0.1:{port}/stall"), "timeout_ms": 50}),
            "params.timeout_ms",
            "DEADLINE_EXCEEDED",
        ),
    ] {
        let error = world.call("net", "net.fetch", params.clone()).await.answer.error.unwrap();
        assert_eq!((error.field.as_str(), error.code.as_str()), (field, code), "{params}");
    }
    let began = Instant::now();
    let late = world
        .call_with(json!({
            "agent_id": "agent://tenantA/net", "syscall": "net.fetch", "budget": {"latency_ms": 100},
            "params": {"url": format!("http://127.0.0.1:{port}/stall")}
        }))
        .await;
    assert_eq!(late.answer.error.unwrap().field, "budget.latency_ms");
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn a_secret_works_at_its_hosts_and_is_told_to_nobody() {
    let world = World::new().await;
    let ((port, heads), (other, others)) = (echo().await, echo().await);
    world.agent("net", &json!(["network"]));
    world.agent("narrow", &json!(["network", "secret:use:another"]));
    world.allow(&[address(port), address(other), "net:connect:10.9.9.9:80".to_owned()], &[]);
    world.plant("hub", &[format!("127.0.0.1:{port}"), "10.9.9.9:80".to_owned()]).await;
    let using = |agent: &'static str, secret: &str, url: String| {
        let params = json!({"secret": secret, "request": {"url": url, "headers": {"authorization": "mine", "x-a": "b"}}});
        world.call(agent, "secret.use", params)
    };
    let answer = using("net", "hub", format!("http://127.0.0.1:{port}/")).await.answer;
    assert_eq!(code(&answer), "ok", "{answer:?}");
    let head = heads.lock().unwrap().pop().unwrap();
    assert!(head.contains(&format!("authorization: Bearer {PLANTED}")) && !head.contains("mine"), "{head}");
    assert!(answer.result["body"].as_str().unwrap().contains("Bearer [redacted:hub]"), "{answer:?}");
    assert_eq!(answer.result["headers"]["x-echo"], json!("[redacted:hub]"));
    let told = format!("{answer:?} {}", world.told(&answer.audit_id).await);
    assert!(!told.contains(PLANTED) && told.contains("hub: GET"), "{told}");
    // Another host of the agent's is none of the secret's.
    let denied = using("net", "hub", format!("http://127.0.0.1:{other}/")).await.answer;
    assert!(denied.error.unwrap().rule.starts_with("secret hub"), "its hosts are its own");
    assert!(others.lock().unwrap().is_empty());
    // It does not go along, and where the host itself sends it along, nobody goes.
    let led = using("net", "hub", format!("http://127.0.0.1:{port}/to/127.0.0.1:{other}/")).await.answer;
    assert_eq!(code(&led), "ok", "{led:?}");
    let head = others.lock().unwrap().pop().unwrap();
    assert!(!head.contains("authorization") && !head.contains("x-a"), "{head}");
    for leak in ["leak", "leak-in-part"] {
        let leak = using("net", "hub", format!("http://127.0.0.1:{port}/to/{leak}")).await.answer;
        assert_eq!(code(&leak), "POLICY_DENIED", "{leak:?}");
        assert!(!format!("{leak:?} {}", world.told(&leak.audit_id).await).contains("planted"));
    }
    // Without TLS to this host alone.
    let clear = using("net", "hub", "http://10.9.9.9/".to_owned()).await.answer;
    assert!(clear.error.unwrap().rule.contains("https"), "in the clear");
    let none = using("net", "none", format!("http://127.0.0.1:{port}/")).await.answer;
    assert_eq!(code(&none), "SECRET_NOT_FOUND");
    let narrow = using("narrow", "hub", format!("http://127.0.0.1:{port}/")).await.answer;
    assert_eq!(code(&narrow), "POLICY_DENIED");
    for (params, field) in [
        (json!({"secret": "hub"}), "params.request"),
        (json!({"request": {"url": "https://x.example/"}}), "params.secret"),
        (json!({"secret": "a b", "request": {"url": "https://x.example/"}}), "params.secret"),
        (json!({"secret": "hub", "request": {"url": "x"}}), "params.request.url"),
        (json!({"secret": "hub", "request": {}, "url": "x"}), "params.url"),
    ] {
        let error = world.call("net", "secret.use", params).await.answer.error.unwrap();
        assert_eq!(error.field, field);
    }
}

#[tokio::test]
async fn no_cut_and_no_code_gives_a_secret_away() {
    let world = World::new().await;
    let (port, _) = echo().await;
    world.agent("net", &json!(["network"]));
    world.allow(&[address(port)], &[]);
    world.plant("hub", &[format!("127.0.0.1:{port}")]).await;
    let whole = world
        .call(
            "net",
            "secret.use",
            json!({"secret": "hub", "request": {"url": format!("http://127.0.0.1:{port}/")}}),
        )
        .await;
    let whole = whole.answer.result["body"].as_str().unwrap().find("[redacted").unwrap();
    for more in [0, 3, 4, 10, PLANTED.len() - 1, PLANTED.len()] {
        let request = json!({"url": format!("http://127.0.0.1:{port}/"), "max_bytes": whole + more});
        let answer =
            world.call("net", "secret.use", json!({"secret": "hub", "request": request})).await.answer;
        assert!(!answer.result["body"].as_str().unwrap().contains("plan"), "{more}: {answer:?}");
    }
    for (header, field) in [("Range", "range"), ("accept-encoding", "accept-encoding")] {
        let request = json!({"url": format!("http://127.0.0.1:{port}/"), "headers": {header: "bytes=0-3"}});
        let answer =
            world.call("net", "secret.use", json!({"secret": "hub", "request": request})).await.answer;
        assert_eq!(answer.error.unwrap().field, format!("params.request.headers.{field}"));
    }
    let packed = json!({"secret": "hub", "request": {"url": format!("http://127.0.0.1:{port}/to/packed")}});
    let answer = world.call("net", "secret.use", packed).await.answer;
    assert_eq!(code(&answer), "FETCH_FAILED", "{answer:?}");
    // A tool that says it, or fails with it, and a rule or a name that holds it.
    let answer =
        world.call("net", "tool.invoke", json!({"tool": "web_search", "query": PLANTED})).await.answer;
    assert_eq!(answer.result["items"], json!(["[redacted:hub]"]));
    let outcome = world.call("net", "tool.invoke", json!({"tool": PLANTED})).await;
    assert!(
        !format!("{outcome:?} {}", world.told(&outcome.answer.audit_id).await).contains(PLANTED),
        "{outcome:?}"
    );
    the_contract_s_other_calls_tell_none(&world).await;
    // Removed and added anew, it is known at once; another tenant's is not looked for.
    let tenant = TenantId::parse("tenantA").unwrap();
    world.kernel.remove_secret(tenant.clone(), "hub".to_owned()).await.unwrap();
    let plain =
        world.call("net", "tool.invoke", json!({"tool": "web_search", "query": PLANTED})).await.answer;
    assert_eq!(plain.result["items"], json!([PLANTED]));
    let key = Secret::new(PLANTED.replace('/', "-").into());
    let mut config = aion_models::ModelConfig::new("m", "http://127.0.0.1:1/v1", 1000);
    config.local = true;
    world.kernel.add_model(config, Some(key)).await.unwrap();
    let query = PLANTED.replace('/', "-");
    let plain = world.call("net", "tool.invoke", json!({"tool": "web_search", "query": query})).await.answer;
    assert_eq!(plain.result["items"], json!(["[redacted:model:m]"]));
    world.kernel.tenants().rotate(&tenant, Secret::new(b"the tenant's own secret".to_vec()), 0, 1).unwrap();
    let said = world
        .call("net", "tool.invoke", json!({"tool": "web_search", "query": "x the tenant's own secret"}))
        .await
        .answer;
    assert_eq!(said.result["items"], json!(["x [redacted:tenant]"]));
}

/// Those have no row and no record of their own: a task's name stands in its records, and what is refused is told.
async fn the_contract_s_other_calls_tell_none(world: &World) {
    let caller = &world.caller;
    for (field, task) in [
        ("task_id", json!({"task_id": PLANTED})),
        ("trace_id", json!({"trace_id": hex::encode(PLANTED)})),
        ("labels", json!({"labels": {"a": format!("x{PLANTED}")}})),
        ("labels", json!({"labels": {PLANTED: "a"}})),
        ("intent", json!({"intent": [PLANTED]})),
        ("[redacted:hub]", json!({PLANTED: "a"})),
    ] {
        let refusal = world.kernel.schedule(caller, task.clone()).await.expect_err(&task.to_string());
        assert_eq!((refusal.field.as_str(), refusal.code), (field, ErrorCode::InvalidField), "{task}");
        assert!(!format!("{refusal:?}").contains(PLANTED), "{refusal:?}");
    }
    let params = json!({"task_id": "t", "params": {"token": PLANTED}});
    assert_eq!(world.kernel.schedule(caller, params.clone()).await, Ok(params));
    let planted = json!({"agent_id": "agent://tenantA/x", "limits": {}, PLANTED: 1});
    let refusal = world.kernel.register(caller, &planted).await.unwrap_err();
    assert_eq!(refusal.field, "[redacted:hub]");
    let refusal = world.kernel.heartbeat(caller, &json!({"agent_id": PLANTED})).unwrap_err();
    assert!(!format!("{refusal:?}").contains(PLANTED), "{refusal:?}");
}

#[tokio::test]
async fn a_redirect_does_not_go_round_a_person() {
    let (port, heads) = echo().await;
    let text = format!(
        "apiVersion: aion.os/v1\nkind: CapabilityPolicy\nallow: [network, \"tool:*\", \"memory:*\", \"net:connect:127.0.0.1:{port}\"]\n\
         approval: [\"net:connect:localhost:*\"]\n"
    );
    let policy = CapabilityPolicy::parse(text.as_bytes(), "policy.yaml").unwrap();
    let world = World::with(Some(Arc::new(policy))).await;
    world.agent("net", &json!(["network"]));
    let answer = world.fetch("net", format!("http://127.0.0.1:{port}/to/127.0.0.1:{port}/x")).await;
    assert_eq!(code(&answer), "ok", "{answer:?}");
    let answer = world.fetch("net", format!("http://127.0.0.1:{port}/to/localhost:{port}/x")).await;
    let error = answer.error.clone().unwrap();
    assert_eq!(error.rule, "policy.yaml:4: approval net:connect:localhost:*");
    assert_eq!(heads.lock().unwrap().len(), 3, "it was not followed");
}
