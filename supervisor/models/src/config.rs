//! One model's configuration, and what makes it acceptable.
//!
//! `local` is a promise that privacy rests on, so it is checked here against the URL and once more when a connection is
//! made (`loopback.rs`).

use std::net::IpAddr;

use reqwest::Url;
use serde::{Deserialize, Serialize};

/// What a model can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Chat completions.
    Generate,
    /// Embeddings.
    Embed,
}

impl Kind {
    /// The name in configuration: `generate` or `embed`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Generate => "generate",
            Self::Embed => "embed",
        }
    }
}

/// The field that bounds the output in a backend's dialect. Exactly one is sent: OpenAI refuses both together, its
/// reasoning models refuse the old one, and older servers ignore the new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputLimit {
    /// `max_tokens`: vLLM, llama.cpp, Ollama, OpenAI's older models.
    #[default]
    MaxTokens,
    /// `max_completion_tokens`: OpenAI's reasoning models.
    MaxCompletionTokens,
}

impl OutputLimit {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::MaxTokens => "max_tokens",
            Self::MaxCompletionTokens => "max_completion_tokens",
        }
    }
}

/// A model: where it is, what it may do and what it costs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// The public name: 1 to 128 of letters, digits and `. _ - : / @`.
    pub name: String,
    /// The base of the API, as `http://127.0.0.1:8080/v1`; http or https, without credentials, query or fragment.
    pub url: String,
    /// The name that the backend knows; default the public name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// Whether calls stay on this host: the URL's host is a loopback address or `localhost`. Default false, also for
    /// a loopback URL, since a tunnel may listen there.
    #[serde(default)]
    pub local: bool,
    /// The price of prompts, in millionths of a dollar per million tokens; of the dearest kind of token when the
    /// backend has several. Default 0.
    #[serde(default)]
    pub usd_per_mtok_in: u64,
    /// The price of output, in millionths of a dollar per million tokens. Default 0.
    #[serde(default)]
    pub usd_per_mtok_out: u64,
    /// The most output of one choice, in tokens; also what is asked for when a client sets no limit. Servers that add it
    /// to the prompt (vLLM) refuse prompts longer than the context less this. Default 4096.
    #[serde(default = "default_output")]
    pub max_output_tokens: u32,
    /// How the backend is told so.
    #[serde(default)]
    pub output_limit: OutputLimit,
    /// The backend's context in tokens. Quotes rely on it: no prompt is taken to be longer.
    pub context_tokens: u32,
    /// How long a call may take with all its attempts, in milliseconds. Default 120000.
    #[serde(default = "default_timeout")]
    pub timeout_ms: u64,
    /// How often a call is repeated after 408, 429, 5xx or a broken connection; at most 10, default 2. What failed
    /// attempts may have cost at the backend is known to nobody here.
    #[serde(default = "default_retries")]
    pub max_retries: u32,
    /// How long answers are kept, in seconds; 0, the default, keeps none. Streams are not kept.
    #[serde(default)]
    pub cache_ttl_s: u64,
    /// Other names. Several models may share one: the first that privacy allows and that is not failing is taken.
    /// `*` takes calls of names that nothing else has.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// What it can be asked for. Default `[generate]`.
    #[serde(default = "default_kinds")]
    pub kinds: Vec<Kind>,
}

const fn default_output() -> u32 {
    4096
}

const fn default_timeout() -> u64 {
    120_000
}

const fn default_retries() -> u32 {
    2
}

fn default_kinds() -> Vec<Kind> {
    vec![Kind::Generate]
}

/// A field that is not acceptable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The field's name in the configuration.
    pub field: &'static str,
    /// What is wrong with it.
    pub message: String,
}

/// The dearest price taken for real: a million dollars per million tokens.
const MAX_PRICE: u64 = 1_000_000_000_000;
/// The most tokens of a context or an output.
const MAX_TOKENS: u32 = 1 << 26;

impl ModelConfig {
    /// A model of this name at this address, with the defaults above; not local, and free.
    #[must_use]
    pub fn new(name: impl Into<String>, url: impl Into<String>, context_tokens: u32) -> Self {
        Self {
            name: name.into(),
            url: url.into(),
            upstream: None,
            local: false,
            usd_per_mtok_in: 0,
            usd_per_mtok_out: 0,
            max_output_tokens: default_output(),
            output_limit: OutputLimit::default(),
            context_tokens,
            timeout_ms: default_timeout(),
            max_retries: default_retries(),
            cache_ttl_s: 0,
            aliases: Vec::new(),
            kinds: default_kinds(),
        }
    }

    /// Everything that is wrong with it; empty when it can be used.
    #[must_use]
    pub fn check(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut no = |field, message: String| problems.push(Problem { field, message });
        if !is_name(&self.name) {
            no("name", "must be 1 to 128 of letters, digits and . _ - : / @".to_owned());
        }
        if let Err(message) = self.check_url() {
            no("url", message);
        }
        if self
            .upstream
            .as_ref()
            .is_some_and(|name| name.is_empty() || name.len() > 256 || name.chars().any(char::is_control))
        {
            no("upstream", "must be 1 to 256 bytes without control characters".to_owned());
        }
        let mut range = |field, value: u64, low: u64, high: u64| {
            if !(low..=high).contains(&value) {
                no(field, format!("must be {low} to {high}, is {value}"));
            }
        };
        range("usd_per_mtok_in", self.usd_per_mtok_in, 0, MAX_PRICE);
        range("usd_per_mtok_out", self.usd_per_mtok_out, 0, MAX_PRICE);
        range("max_output_tokens", self.max_output_tokens.into(), 1, MAX_TOKENS.into());
        range("context_tokens", self.context_tokens.into(), 1, MAX_TOKENS.into());
        range("timeout_ms", self.timeout_ms, 1, 24 * 3_600_000);
        range("max_retries", self.max_retries.into(), 0, 10);
        range("cache_ttl_s", self.cache_ttl_s, 0, 365 * 86_400);
        if self.aliases.len() > 32 {
            no("aliases", "must be at most 32".to_owned());
        }
        for (at, alias) in self.aliases.iter().enumerate() {
            if alias != "*" && !is_name(alias) {
                no("aliases", "each must be * or a name as in name".to_owned());
            } else if *alias == self.name || self.aliases[..at].contains(alias) {
                no("aliases", format!("{alias} is there twice"));
            }
        }
        if self.kinds.is_empty() {
            no("kinds", "must have generate or embed".to_owned());
        }
        problems
    }

    fn check_url(&self) -> Result<(), String> {
        let url = Url::parse(&self.url).map_err(|error| error.to_string())?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err("must be http or https".to_owned());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("must hold no credentials: give the key apart from it".to_owned());
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err("must have no query and no fragment".to_owned());
        }
        if self.local && !is_loopback(&url) {
            return Err("of a local model must have a loopback address or localhost as its host".to_owned());
        }
        Ok(())
    }

    /// The address of one of the API's calls. The caller has checked the configuration.
    pub(crate) fn endpoint(&self, kind: Kind) -> crate::Result<Url> {
        let call = match kind {
            Kind::Generate => "chat/completions",
            Kind::Embed => "embeddings",
        };
        Url::parse(&format!("{}/{call}", self.url.trim_end_matches('/')))
            .map_err(|error| crate::Error::invalid("url", error.to_string()))
    }
}

fn is_name(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-:/@".contains(&byte))
}

/// Whether the host is a loopback address or `localhost`. The parser has brought `127.1`, `0x7f000001` and the like into
/// the usual form; an IPv4 address in IPv6 counts as what it is.
fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(change: impl FnOnce(&mut ModelConfig)) -> Vec<&'static str> {
        let mut config = ModelConfig::new("llama3:8b", "http://127.0.0.1:8080/v1", 8192);
        config.local = true;
        change(&mut config);
        config.check().into_iter().map(|problem| problem.field).collect()
    }

    #[test]
    fn each_problem_names_its_field() {
        assert!(fields(|_| ()).is_empty());
        assert_eq!(fields(|c| c.name = String::new()), ["name"]);
        assert_eq!(fields(|c| c.name = "a b".into()), ["name"]);
        assert_eq!(fields(|c| c.upstream = Some(String::new())), ["upstream"]);
        assert_eq!(fields(|c| c.usd_per_mtok_in = u64::MAX), ["usd_per_mtok_in"]);
        assert_eq!(fields(|c| c.usd_per_mtok_out = u64::MAX), ["usd_per_mtok_out"]);
        assert_eq!(fields(|c| c.max_output_tokens = 0), ["max_output_tokens"]);
        assert_eq!(fields(|c| c.context_tokens = 0), ["context_tokens"]);
        assert_eq!(fields(|c| c.timeout_ms = 0), ["timeout_ms"]);
        assert_eq!(fields(|c| c.max_retries = 11), ["max_retries"]);
        assert_eq!(fields(|c| c.cache_ttl_s = u64::MAX), ["cache_ttl_s"]);
        assert_eq!(fields(|c| c.aliases = vec!["*".into(), "*".into()]), ["aliases"]);
        assert_eq!(fields(|c| c.aliases = vec!["a*".into()]), ["aliases"]);
        assert_eq!(fields(|c| c.kinds.clear()), ["kinds"]);
    }

    #[test]
    fn urls() {
        for bad in [
            "127.0.0.1:8080",
            "ftp://127.0.0.1/v1",
            "file:///v1",
            "http://u@127.0.0.1/v1",
            "http://u:p@127.0.0.1/v1",
            "http://127.0.0.1/v1?key=k",
            "http://127.0.0.1/v1#f",
        ] {
            assert_eq!(fields(|c| c.url = bad.into()), ["url"], "{bad}");
        }
    }

    #[test]
    fn local_is_loopback() {
        for good in
            ["http://localhost/v1", "https://[::1]:1/v1", "http://127.9.8.7/", "http://[::ffff:127.0.0.1]/"]
        {
            assert!(fields(|c| c.url = good.into()).is_empty(), "{good}");
        }
        for bad in [
            "http://10.0.0.1/v1",
            "http://0.0.0.0/v1",
            "http://localhost.example.com/v1",
            "http://127.0.0.1.nip.io/v1",
            "http://api.openai.com/v1",
            "http://[::ffff:8.8.8.8]/",
        ] {
            assert_eq!(fields(|c| c.url = bad.into()), ["url"], "{bad}");
        }
    }

    #[test]
    fn reads_strictly() {
        let text = r#"{"name":"m","url":"http://localhost/v1/","context_tokens":10}"#;
        let config: ModelConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config, ModelConfig::new("m", "http://localhost/v1/", 10));
        let url = config.endpoint(Kind::Generate).unwrap();
        assert_eq!(url.as_str(), "http://localhost/v1/chat/completions");
        let more = text.replace('}', r#","key":"k"}"#);
        assert!(serde_json::from_str::<ModelConfig>(&more).is_err());
    }
}
