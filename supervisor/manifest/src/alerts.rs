//! `alerts:` of the configuration: who is told of what detections find.
//!
//! It is no option of the command line, as it is no single value: what is wrong with it is said here.

use std::time::Duration;

use aion_detect::Severity;
use aion_types::ErrorCode;
use url::{Host, Url};

use crate::detection::severity;
use crate::error::{Error, Place, Problem, quote};
use crate::problems::Problems;
use crate::raw::{self, Span};
use crate::yaml;

/// The list's field.
const FIELD: &str = "alerts.webhooks";
/// Webhooks, and patterns of one.
const MAX_WEBHOOKS: usize = 16;
const MAX_PATTERNS: usize = 64;
const MAX_NAME: usize = 63;
const MAX_URL: usize = 2048;
const DEFAULT_TIMEOUT: Span = Span(5_000);
const TIMEOUTS: (Span, Span) = (Span(100), Span(60_000));

/// One receiver of alerts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertWebhook {
    /// Unique.
    pub name: String,
    /// Where alerts are posted: https, or http to where that is allowed.
    pub url: String,
    /// The file of what alerts are signed with, or `credential:NAME`, as it is given.
    pub secret: Option<String>,
    /// The file of authorities that its certificate may be of, besides Mozilla's, or `credential:NAME`, as it is given.
    pub ca_file: Option<String>,
    /// What is less bad is not told.
    pub min_severity: Severity,
    /// Patterns of rules' names, in which `*` stands for anything.
    pub rules: Vec<String>,
    /// One try takes no longer.
    pub timeout: Duration,
}

/// All of them, as one file says. They count as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertWebhooks {
    /// In the file's order.
    pub list: Vec<AlertWebhook>,
    /// The file.
    pub file: String,
    /// Where in it.
    pub place: Place,
    /// Where each one's files are named.
    files: Vec<[Place; 2]>,
}

impl AlertWebhooks {
    pub(crate) fn check(given: Vec<raw::AlertWebhook>, tree: &yaml::Node, file: &str) -> Result<Self, Error> {
        let mut check = Problems::of(tree, file);
        if given.len() > MAX_WEBHOOKS {
            check.wrong(FIELD, "these are too many", format!("use at most {MAX_WEBHOOKS}"));
        }
        let mut list: Vec<AlertWebhook> = Vec::new();
        for (at, one) in given.into_iter().enumerate() {
            let field = format!("{FIELD}[{at}]");
            if list.iter().any(|other| other.name == one.name) {
                let message = format!("another webhook has the name {}, too", quote(&one.name));
                check.wrong(&format!("{field}.name"), message, "give each a name of its own");
            }
            list.push(check.webhook(&field, one));
        }
        let list = check.or(ErrorCode::ProfileInvalid, list)?;
        let places =
            |at| [WebhookFile::Secret, WebhookFile::Authorities].map(|file| tree.place_of(&file.field(at)));
        let files = (0..list.len()).map(places).collect();
        Ok(Self { list, file: file.to_owned(), place: tree.place_of(FIELD), files })
    }

    /// That something is wrong with a file of the one at this place of the list.
    #[must_use]
    pub fn file_problem(&self, at: usize, file: WebhookFile, message: &str, fix: &str) -> Problem {
        let place = self.files.get(at).map(|[secret, authorities]| match file {
            WebhookFile::Secret => *secret,
            WebhookFile::Authorities => *authorities,
        });
        Problem {
            file: self.file.clone(),
            place: place.or(Some(self.place)),
            field: file.field(at),
            message: message.to_owned(),
            fix: fix.to_owned(),
        }
    }
}

/// A file that a webhook names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookFile {
    /// What alerts are signed with.
    Secret,
    /// Whose certificates the receiver may have.
    Authorities,
}

impl WebhookFile {
    fn field(self, at: usize) -> String {
        let name = match self {
            Self::Secret => "secret",
            Self::Authorities => "ca_file",
        };
        format!("{FIELD}[{at}].{name}")
    }
}

impl Problems<'_> {
    fn webhook(&mut self, field: &str, given: raw::AlertWebhook) -> AlertWebhook {
        let raw::AlertWebhook { name, url, secret, ca_file, min_severity, rules, timeout, insecure } = given;
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(is_word) || name.starts_with('-') {
            let message = format!("{} is not a webhook's name", quote(&name));
            let fix = "use 1 to 63 of a-z, 0-9 and '-', not beginning with '-'";
            self.wrong(&format!("{field}.name"), message, fix);
        }
        if let Err((message, fix)) = check_url(&url, insecure.unwrap_or(false)) {
            self.wrong(&format!("{field}.url"), message, fix);
        }
        if secret.as_ref().is_some_and(String::is_empty) {
            let fix = "name a file or credential:NAME, or leave it out";
            self.wrong(&format!("{field}.secret"), "it is empty", fix);
        }
        if ca_file.as_ref().is_some_and(String::is_empty) {
            let fix = "name a file or credential:NAME, or leave it out";
            self.wrong(&format!("{field}.ca_file"), "it is empty", fix);
        } else if ca_file.is_some() && Url::parse(&url).is_ok_and(|url| url.scheme() == "http") {
            let fix = "use https, or leave it out";
            self.wrong(&format!("{field}.ca_file"), "without TLS there is no certificate", fix);
        }
        let rules = rules.unwrap_or_else(|| vec!["*".to_owned()]);
        if rules.is_empty() || rules.len() > MAX_PATTERNS {
            let fix = format!("use 1 to {MAX_PATTERNS}; [\"*\"], or nothing, for all");
            self.wrong(&format!("{field}.rules"), "there are none, or too many", fix);
        }
        for (at, rule) in rules.iter().enumerate() {
            if rule.is_empty() || rule.len() > MAX_NAME || !rule.bytes().all(|b| b == b'*' || is_word(b)) {
                let message = format!("{} is no pattern of detections' names", quote(rule));
                let fix = "use a-z, 0-9 and '-', and '*' for anything";
                self.wrong(&format!("{field}.rules[{at}]"), message, fix);
            }
        }
        let timeout = timeout.unwrap_or(DEFAULT_TIMEOUT);
        if !(TIMEOUTS.0..=TIMEOUTS.1).contains(&timeout) {
            let fix = format!("use {} to 60s", TIMEOUTS.0);
            self.wrong(&format!("{field}.timeout"), "it is out of range", fix);
        }
        AlertWebhook {
            name,
            url,
            secret,
            ca_file,
            min_severity: min_severity.map_or(Severity::Medium, severity),
            rules,
            timeout: timeout.duration(),
        }
    }
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'
}

/// What is wrong with an address, and what to do. It is not repeated: some services have a key in it.
fn check_url(text: &str, insecure: bool) -> Result<(), (&'static str, &'static str)> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    let Some(url) = url.filter(|_| text.len() <= MAX_URL) else {
        return Err(("this is no address of a webhook", "write a URL, as https://alerts.example.com/aion"));
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(("it has a user or a password in it", "let the receiver check the signature: secret"));
    }
    if url.scheme() == "http" && !insecure && !is_loopback(&url) {
        let fix = "use https, or insecure: true where nobody else can read along";
        return Err(("without TLS only the loopback is told", fix));
    }
    Ok(())
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.to_canonical().is_loopback(),
        // The sender takes no other address for it.
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use crate::ConfigFile;

    use super::*;

    fn read(alerts: &str) -> Result<AlertWebhooks, String> {
        let text = format!("apiVersion: aion.os/v1\nkind: Config\nalerts:\n  webhooks:\n{alerts}");
        let config = ConfigFile::parse(text.as_bytes(), "c.yaml").map_err(|error| error.to_string())?;
        Ok(config.alerts().unwrap().clone())
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let alerts = read("    - {name: oncall, url: \"https://alerts.example.com/aion\"}\n").unwrap();
        let expected = AlertWebhook {
            name: "oncall".to_owned(),
            url: "https://alerts.example.com/aion".to_owned(),
            secret: None,
            ca_file: None,
            min_severity: Severity::Medium,
            rules: vec!["*".to_owned()],
            timeout: Duration::from_secs(5),
        };
        assert!((4..=5).contains(&alerts.place.line), "{:?}", alerts.place);
        assert_eq!((alerts.list, alerts.file.as_str()), (vec![expected], "c.yaml"));
        let all = "    - name: a\n      url: http://127.0.0.1:9/x\n      secret: credential:key\n      min_severity: high\n      \
                   rules: [fork-*, memfd-exec]\n      timeout: 60s\n";
        let alerts = read(all).unwrap();
        let problem =
            |alerts: &AlertWebhooks, file| alerts.file_problem(0, file, "it is not there", "").to_string();
        let told = problem(&alerts, WebhookFile::Secret);
        assert_eq!(told, "c.yaml:7:15: alerts.webhooks[0].secret: it is not there");
        let private = "    - name: a\n      url: https://a.example\n      ca_file: /etc/ca.pem\n";
        let private = read(private).unwrap();
        assert_eq!(private.list[0].ca_file.as_deref(), Some("/etc/ca.pem"));
        let told = problem(&private, WebhookFile::Authorities);
        assert_eq!(told, "c.yaml:7:16: alerts.webhooks[0].ca_file: it is not there");
        let one = &alerts.list[0];
        assert_eq!((one.min_severity, one.timeout), (Severity::High, Duration::from_secs(60)));
        assert_eq!((one.secret.as_deref(), one.rules.len()), (Some("credential:key"), 2));
    }

    #[test]
    fn all_that_is_wrong_is_told_with_its_place() {
        let wrong = "    - name: One\n      url: http://alerts.example.com/key-in-it\n      secret: \"\"\n      rules: [\"a?\"]\n      \
                     timeout: 61s\n    - {name: a, url: \"https://a.example\", rules: []}\n    - {name: a, url: \"ftp://a.example\"}\n";
        let told = read(wrong).unwrap_err();
        let lines: Vec<&str> = told.lines().collect();
        for (at, expected) in [
            "c.yaml:5:13: alerts.webhooks[0].name: \"One\" is not",
            "c.yaml:6:12: alerts.webhooks[0].url: without TLS",
            "c.yaml:7:15: alerts.webhooks[0].secret: it is empty",
            "c.yaml:8:15: alerts.webhooks[0].rules[0]: \"a?\" is no pattern",
            "c.yaml:9:16: alerts.webhooks[0].timeout: it is out of range; use 100ms to 60s",
            "c.yaml:10:50: alerts.webhooks[1].rules: there are none",
            "c.yaml:11:14: alerts.webhooks[2].name: another webhook has the name \"a\"",
            "c.yaml:11:22: alerts.webhooks[2].url: this is no address",
        ]
        .into_iter()
        .enumerate()
        {
            assert!(lines.get(at).is_some_and(|line| line.starts_with(expected)), "{expected}\n{told}");
        }
        assert_eq!(lines.len(), 8, "{told}");
        assert!(!told.contains("key-in-it"), "{told}");
        for (one, expected) in [
            ("    - {url: \"https://a.example\"}\n", "name is missing"),
            ("    - {name: a, url: \"https://a.example\", ca_file: \"\"}\n", "ca_file: it is empty"),
            ("    - {name: a, url: \"http://localhost/\", ca_file: /c}\n", "ca_file: without TLS"),
            (
                "    - {name: a, url: \"https://a.example\", min_severity: bad}\n",
                "use one of: info, low, medium",
            ),
            (
                "    - {name: a, url: \"https://a.example\", min_severty: low}\n",
                "did you mean \"min_severity\"?",
            ),
        ] {
            let told = read(one).unwrap_err();
            assert!(told.starts_with("c.yaml:5:") && told.contains(expected), "{told}");
        }
    }

    #[test]
    fn without_tls_only_the_loopback_is_told_unless_somebody_says_so() {
        for good in ["http://127.0.0.1:9", "http://[::1]:9/x", "http://localhost/x", "https://192.0.2.1/x"] {
            assert_eq!(check_url(good, false), Ok(()), "{good}");
        }
        for bad in
            ["http://192.0.2.1/", "http://localhost.example/", "http://[2001:db8::1]/", "http://0.0.0.0/"]
        {
            assert!(check_url(bad, false).is_err(), "{bad}");
            assert_eq!(check_url(bad, true), Ok(()), "{bad}");
        }
        for bad in ["", "alerts.example.com", "file:///etc/passwd", "https://", "https://u:p@a.example/"] {
            assert!(check_url(bad, true).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_later_file_counts_as_a_whole() {
        let read = |text: &str, file: &str| {
            ConfigFile::parse(format!("apiVersion: aion.os/v1\nkind: Config\n{text}").as_bytes(), file)
                .unwrap()
        };
        let one =
            |name: &str| format!("alerts: {{webhooks: [{{name: {name}, url: \"https://a.example\"}}]}}\n");
        let mut config = read(&one("first"), "a.yaml");
        config.then(read(&one("second"), "b.yaml"));
        config.then(read("log: {level: info}\n", "c.yaml"));
        let alerts = config.alerts().unwrap();
        assert_eq!(
            (alerts.list[0].name.as_str(), alerts.list.len(), alerts.file.as_str()),
            ("second", 1, "b.yaml")
        );
        config.then(read("alerts: {webhooks: []}\n", "d.yaml"));
        assert!(config.alerts().unwrap().list.is_empty(), "none is what that one says");
    }
}
