//! The client's side: the handshake, the list of tools, calls; over pipes or over HTTP.
//!
//! This file knows the protocol, the two transports below carry it. Invariant: no call outlives its deadline, and one
//! whose caller is gone is cancelled at the server.

mod allowance;
mod calls;
mod http;
mod incoming;

mod options;
mod pipes;
mod sse;

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OnceCell, Semaphore, watch};
use tokio::time::{Instant, timeout_at};

pub use self::options::{Bearer, HttpOptions, Options};
use crate::{Closed, Error, Result, Revision, ToolInfo, ToolResult, message};

const INITIALIZE: &str = "initialize";
const LIST: &str = "tools/list";
const CALL: &str = "tools/call";

/// What a server says of itself. The texts are the server's and not to be trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerInfo {
    /// The revision that was agreed on.
    pub revision: Revision,
    /// Its name; may be empty.
    pub name: String,
    /// Its version; may be empty.
    pub version: String,
    /// How it wants to be used; for the model.
    pub instructions: Option<String>,
    /// Whether it has tools at all.
    pub has_tools: bool,
}

/// A client of one MCP server. Cheap to clone; all clones share the connection, which ends with the last of them.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    common: Arc<Common>,
    server: OnceCell<ServerInfo>,
    places: Semaphore,
    wire: Wire,
}

enum Wire {
    Pipes(pipes::Pipes),
    Http(Box<http::Http>),
}

/// What the client shares with whatever carries it.
struct Common {
    options: Options,
    revision: OnceLock<Revision>,
    tools_changed: watch::Sender<u64>,
}

impl Common {
    fn new(options: Options) -> Arc<Self> {
        Arc::new(Self { options, revision: OnceLock::new(), tools_changed: watch::Sender::new(0) })
    }

    /// A message as a line.
    fn encode(&self, message: &Value) -> Result<Vec<u8>> {
        let mut line = message.to_string().into_bytes();
        let (bytes, limit) = (line.len(), self.options.max_message_bytes);
        if bytes > limit {
            return Err(Error::TooLarge { bytes, limit });
        }
        line.push(b'\n');
        Ok(line)
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("server", &self.server()).finish_non_exhaustive()
    }
}

impl Client {
    /// Speaks to a server over a pair of pipes: what it writes to its standard output, and its standard input. A task
    /// of the current tokio runtime owns them, and drops them when the connection ends.
    pub fn start<R, W>(reader: R, writer: W, options: Options) -> Self
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let common = Common::new(options);
        let wire = Wire::Pipes(pipes::Pipes::start(reader, writer, Arc::clone(&common)));
        Self::new(common, wire)
    }

    /// Speaks to a server over streamable HTTP. The environment's proxies are not used, and redirects not followed.
    ///
    /// # Errors
    /// [`Error::Http`] when TLS cannot be set up.
    pub fn http(place: HttpOptions, options: Options) -> Result<Self> {
        let builder = reqwest::Client::builder().no_proxy().connect_timeout(options.request_timeout);
        Self::http_with(builder, place, options)
    }

    /// As [`Client::http`], for a caller who has proxies, certificates or name resolution of its own. Redirects are not
    /// followed whatever the builder says.
    ///
    /// # Errors
    /// [`Error::Http`] when what the builder says cannot be set up.
    pub fn http_with(builder: reqwest::ClientBuilder, place: HttpOptions, options: Options) -> Result<Self> {
        let common = Common::new(options);
        let wire = Wire::Http(Box::new(http::Http::new(builder, place, Arc::clone(&common))?));
        Ok(Self::new(common, wire))
    }

    fn new(common: Arc<Common>, wire: Wire) -> Self {
        let places = Semaphore::new(common.options.max_in_flight.clamp(1, Semaphore::MAX_PERMITS));
        Self { inner: Arc::new(Inner { common, server: OnceCell::new(), places, wire }) }
    }

    /// Agrees on a revision, which everything else needs. Once it has succeeded, repeating it answers the same.
    ///
    /// # Errors
    /// [`Error::Version`] when the server speaks no revision that this crate does; else as every call.
    pub async fn initialize(&self) -> Result<&ServerInfo> {
        self.inner.server.get_or_try_init(|| self.handshake()).await
    }

    /// What the server said of itself; `None` before [`Client::initialize`] has succeeded.
    #[must_use]
    pub fn server(&self) -> Option<&ServerInfo> {
        self.inner.server.get()
    }

    /// Whether the server still answers.
    ///
    /// # Errors
    /// As every call.
    pub async fn ping(&self) -> Result<()> {
        self.request("ping", Map::new(), self.soon()).await.map(drop)
    }

    /// All tools of the server, whatever the number of pages. None when it says that it has no tools.
    ///
    /// # Errors
    /// [`Error::TooMany`] over the limits of [`Options`]; [`Error::Malformed`] when one tool is not valid or two have
    /// the same name; [`Error::NotInitialized`]; else as every call.
    pub async fn list_tools(&self) -> Result<Vec<ToolInfo>> {
        if !self.initialized()?.has_tools {
            return Ok(Vec::new());
        }
        let malformed = |what| Error::Malformed { method: LIST, what };
        let options = &self.inner.common.options;
        let mut tools = Vec::new();
        let mut names = HashSet::new();
        let mut params = Map::new();
        for _ in 0..options.max_pages {
            let page = self.request(LIST, std::mem::take(&mut params), self.soon()).await?;
            let Value::Object(mut page) = page else { return Err(malformed("the result is not an object")) };
            let Some(Value::Array(listed)) = page.remove("tools") else {
                return Err(malformed("there are no tools in it"));
            };
            if tools.len() + listed.len() > options.max_tools {
                return Err(Error::TooMany { what: "tools", limit: options.max_tools });
            }
            for tool in listed {
                let tool = ToolInfo::read(tool).map_err(malformed)?;
                // One could stand for another when a policy names it.
                if !names.insert(tool.name.clone()) {
                    return Err(malformed("two tools have the same name"));
                }
                tools.push(tool);
            }
            match page.remove("nextCursor") {
                None | Some(Value::Null) => return Ok(tools),
                Some(cursor @ Value::String(_)) => _ = params.insert("cursor".to_owned(), cursor),
                Some(_) => return Err(malformed("the cursor is not a string")),
            }
        }
        Err(Error::TooMany { what: "pages of tools", limit: options.max_pages })
    }

    /// Calls a tool. That the tool itself fails is a result with `is_error`, not an error.
    ///
    /// Dropping the call, or its deadline, tells the server to stop.
    ///
    /// # Errors
    /// [`Error::Timeout`] at the deadline; [`Error::NotInitialized`]; else as every call: [`Error::Refused`],
    /// [`Error::Malformed`], [`Error::TooLarge`], [`Error::Closed`], and over HTTP [`Error::Http`],
    /// [`Error::Status`], [`Error::SessionEnded`].
    pub async fn call_tool(
        &self,
        name: &str,
        arguments: Map<String, Value>,
        deadline: Instant,
    ) -> Result<ToolResult> {
        self.initialized()?;
        let mut params = Map::new();
        params.insert("name".to_owned(), Value::from(name));
        params.insert("arguments".to_owned(), Value::Object(arguments));
        let result = self.request(CALL, params, deadline).await?;
        ToolResult::read(result).map_err(|what| Error::Malformed { method: CALL, what })
    }

    /// Counts the notices that the list of tools has changed, from 0. Over HTTP they come only beside answers.
    #[must_use]
    pub fn tools_changed(&self) -> watch::Receiver<u64> {
        self.inner.common.tools_changed.subscribe()
    }

    /// Waits until the connection has ended and says why. Over HTTP only [`Client::close`] ends it.
    pub async fn closed(&self) -> Closed {
        match &self.inner.wire {
            Wire::Pipes(pipes) => pipes.closed().await,
            Wire::Http(http) => http.closed().await,
        }
    }

    /// Ends the connection for all clones: waiting calls fail, the pipes are dropped, or the HTTP session is deleted
    /// (within 5 s).
    pub async fn close(&self) {
        match &self.inner.wire {
            Wire::Pipes(pipes) => {
                pipes.close();
                pipes.closed().await;
            }
            Wire::Http(http) => http.close().await,
        }
    }

    fn initialized(&self) -> Result<&ServerInfo> {
        self.server().ok_or(Error::NotInitialized)
    }

    fn soon(&self) -> Instant {
        Instant::now() + self.inner.common.options.request_timeout
    }

    async fn handshake(&self) -> Result<ServerInfo> {
        let options = &self.inner.common.options;
        let mut params = Map::new();
        params.insert("protocolVersion".to_owned(), Value::from(Revision::LATEST.as_str()));
        params.insert("capabilities".to_owned(), json!({}));
        params.insert("clientInfo".to_owned(), json!({ "name": options.name, "version": options.version }));
        let deadline = self.soon();
        let answer = self.request(INITIALIZE, params, deadline).await?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut theirs = text(&answer["protocolVersion"]);
        let Some(revision) = Revision::parse(&theirs) else {
            message::shorten(&mut theirs, 64);
            return Err(Error::Version { theirs });
        };
        // A handshake that failed after this point and is repeated must agree on the same.
        if *self.inner.common.revision.get_or_init(|| revision) != revision {
            return Err(Error::Malformed { method: INITIALIZE, what: "it now speaks another revision" });
        }
        let notified = self.notify("notifications/initialized");
        let late = Error::Timeout { method: INITIALIZE, after: options.request_timeout };
        timeout_at(deadline, notified).await.unwrap_or(Err(late))?;
        Ok(ServerInfo {
            revision,
            name: text(&answer["serverInfo"]["name"]),
            version: text(&answer["serverInfo"]["version"]),
            instructions: answer["instructions"].as_str().map(str::to_owned),
            has_tools: answer["capabilities"]["tools"].is_object(),
        })
    }

    async fn notify(&self, method: &'static str) -> Result<()> {
        match &self.inner.wire {
            Wire::Pipes(pipes) => pipes.notify(method).await,
            Wire::Http(http) => http.notify(method).await,
        }
    }

    async fn request(
        &self,
        method: &'static str,
        params: Map<String, Value>,
        deadline: Instant,
    ) -> Result<Value> {
        let began = Instant::now();
        let answer = async {
            let _place = self.inner.places.acquire().await.map_err(|_| Closed::ByUs)?;
            match &self.inner.wire {
                Wire::Pipes(pipes) => pipes.request(method, params).await,
                Wire::Http(http) => http.request(method, params).await,
            }
        };
        // The call that is dropped here tells the server.
        timeout_at(deadline, answer)
            .await
            .unwrap_or_else(|_| Err(Error::Timeout { method, after: began.elapsed() }))
    }
}
