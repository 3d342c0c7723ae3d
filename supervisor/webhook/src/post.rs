//! One try: a request, and what its answer means.

use std::error::Error as _;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, ClientBuilder, Url, redirect};
use tokio::time::{Instant, timeout_at};

use crate::authority::Authorities;
use crate::schedule::{Verdict, retry_after, verdict};
use crate::settings::{Error, Webhook};
use crate::signature::Secret;

/// A name that is this host, whatever somebody made of its addresses: without TLS nothing else may be reached by it.
const LOCALHOST: &str = "localhost";

/// How a try went.
#[derive(Debug)]
pub(crate) enum Outcome {
    Delivered,
    /// It may go better later, or when the receiver says so.
    Again {
        why: String,
        asked: Option<Duration>,
        /// The receiver was there, so that it may be about what was sent.
        answered: bool,
    },
    GiveUp {
        why: String,
    },
}

/// A webhook's address, with connections of its own.
#[derive(Debug)]
pub(crate) struct Post {
    client: Client,
    url: Url,
    secret: Option<Secret>,
    timeout: Duration,
}

impl Post {
    /// Nothing is connected yet.
    pub(crate) fn new(webhook: &Webhook) -> Result<Self, Error> {
        let url = Url::parse(&webhook.url).map_err(|_| Error::Url { name: webhook.name.clone() })?;
        let loopback =
            [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), SocketAddr::from((Ipv6Addr::LOCALHOST, 0))];
        // The receiver is where the operator says: no proxy of the environment, no redirect, and nothing is sent twice by itself.
        let client = Client::builder();
        let authorities = webhook.ca.iter().flat_map(Authorities::certificates);
        let client = authorities
            .fold(client, ClientBuilder::add_root_certificate)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .retry(reqwest::retry::never())
            .resolve_to_addrs(LOCALHOST, &loopback)
            .pool_max_idle_per_host(1)
            .user_agent(concat!("aiond/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|source| Error::Setup { name: webhook.name.clone(), source })?;
        Ok(Self { client, url, secret: webhook.secret.clone(), timeout: webhook.timeout })
    }

    /// Sends a body once.
    pub(crate) async fn send(&self, id: &str, body: Bytes) -> Outcome {
        let deadline = Instant::now() + self.timeout;
        let mut request = self.client.post(self.url.clone()).header(CONTENT_TYPE, "application/json");
        let timestamp = now();
        request = request.header("X-Aion-Event-Id", id).header("X-Aion-Timestamp", timestamp.to_string());
        if let Some(secret) = &self.secret {
            let Some(signature) = secret.sign(timestamp, &body) else {
                return Outcome::GiveUp { why: "it cannot be signed".to_owned() };
            };
            request = request.header("X-Aion-Signature", signature);
        }
        let response = match timeout_at(deadline, request.body(body).send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Outcome::Again { why: told(error), asked: None, answered: false },
            Err(_) => {
                let why = "no answer in time".to_owned();
                return Outcome::Again { why, asked: None, answered: true };
            }
        };
        let status = response.status();
        let asked = retry_after(response.headers());
        let verdict = verdict(status.as_u16());
        if verdict == Verdict::Delivered {
            return Outcome::Delivered;
        }
        // Its words are not read: receivers repeat the address that they do not know, and there may be a key in it.
        let mut why = format!("the receiver answered {}", status.as_u16());
        if status.is_redirection() {
            why.push_str(", a redirect, which is not followed");
        }
        match verdict {
            // What asks for a pause asks for all.
            Verdict::Again => {
                Outcome::Again { why, asked, answered: status.is_server_error() && asked.is_none() }
            }
            _ => Outcome::GiveUp { why },
        }
    }
}

/// Why a connection failed, without the address: there may be a key in it.
fn told(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
