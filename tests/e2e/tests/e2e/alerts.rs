//! Alerts: what a detection finds of a real agent is posted to a server of the test.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::mpsc;
use std::time::Duration;

use aion_e2e::until;
use hmac::{Hmac, Mac as _};
use serde_json::Value;
use sha2::Sha256;

use crate::agent::detached;
use crate::detections::World;
use crate::detections_rules::about;

const KEY: &str = "key of the webhook";

/// A request as it arrived.
struct Post {
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

/// Answers one request after the other with these statuses, and tells of each.
fn receive(listener: &TcpListener, statuses: &[u16], posts: &mpsc::Sender<Post>) {
    for status in statuses {
        let (stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream);
        let mut headers = HashMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            if line.trim().is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':') {
                headers.insert(name.to_lowercase(), value.trim().to_owned());
            }
        }
        let mut body = vec![0; headers["content-length"].parse().unwrap()];
        reader.read_exact(&mut body).unwrap();
        let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        reader.get_mut().write_all(answer.as_bytes()).unwrap();
        posts.send(Post { headers, body }).unwrap();
    }
}

pub(crate) fn what_is_found_is_posted_until_it_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, format!("{KEY}\n")).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, posts) = mpsc::channel();
    std::thread::spawn(move || receive(&listener, &[503, 200], &sender));
    let config = format!(
        "apiVersion: aion.os/v1\nkind: Config\nalerts:\n  webhooks:\n    - name: oncall\n      url: http://{address}/aion\n      \
         secret: {}\n      rules: [tol*]\n",
        key.display()
    );
    let rules =
        [("a.yaml", about("told", "tell-this", "freeze")), ("b.yaml", about("kept", "keep-this", "alert"))];
    let rules: Vec<(&str, &str)> = rules.iter().map(|(name, text)| (*name, text.as_str())).collect();
    World::configured(&rules, &config).check(|world| {
        let agent = detached(&world.daemons, "alert", &[], &["sh", "-c", "sleep 300; : keep-this tell-this"]);
        world.finding(&agent, "kept");
        let found = world.finding(&agent, "told");
        let next = || posts.recv_timeout(Duration::from_secs(60)).unwrap();
        let (refused, taken) = (next(), next());
        assert_eq!(refused.headers["x-aion-event-id"], taken.headers["x-aion-event-id"]);
        assert_eq!(refused.body, taken.body);

        let mut mac = Hmac::<Sha256>::new_from_slice(KEY.as_bytes()).unwrap();
        mac.update(format!("{}.", taken.headers["x-aion-timestamp"]).as_bytes());
        mac.update(&taken.body);
        let signature = format!("sha256={}", hex::encode(mac.finalize().into_bytes()));
        assert_eq!(taken.headers["x-aion-signature"], signature);

        let body: Value = serde_json::from_slice(&taken.body).unwrap();
        assert_eq!(body["id"], taken.headers["x-aion-event-id"]);
        assert_eq!((&body["rule"], &body["severity"]), (&"told".into(), &"high".into()), "{body}");
        assert_eq!((&body["action"], &body["action_taken"]), (&"freeze".into(), &true.into()), "{body}");
        assert_eq!(body["agent_name"], agent.name);
        assert_eq!(
            (&body["evidence"], &body["seq"]),
            (&found["detail"]["evidence"], &found["detail"]["seq"])
        );
        assert_eq!(agent.state(), "paused", "the action did not wait for the webhook");

        let counted = until(Duration::from_secs(20), || {
            let figures = world.daemons.ctl(["queue", "--metrics"]).ok().text();
            let line = r#"aion_webhook_deliveries_total{webhook="oncall",result="delivered"} 1"#;
            figures.contains(line).then_some(())
        });
        assert!(counted.is_some(), "the other rule's finding is not told");
    });
}
