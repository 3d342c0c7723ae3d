//! `/etc/aion/config.yaml` and the files of `config.yaml.d`: the settings of aiond, each with the place it comes from.
//!
//! What a value may be is the daemon's business: it has the same settings as options of the command line, and one parser for both.

use aion_types::ErrorCode;

use crate::alerts::AlertWebhooks;
use crate::error::{Error, Place, Problem};
use crate::{header, raw, yaml};

/// One setting that a file makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The option of aiond that it stands for, without its dashes.
    pub option: &'static str,
    /// What is given; more than one for a list.
    pub values: Vec<String>,
    /// The field, as `http.address`.
    pub field: &'static str,
    /// The file.
    pub file: String,
    /// Where in it.
    pub place: Place,
}

impl Setting {
    /// That it is wrong.
    #[must_use]
    pub fn problem(&self, message: &str, fix: &str) -> Problem {
        Problem {
            file: self.file.clone(),
            place: Some(self.place),
            field: self.field.to_owned(),
            message: message.to_owned(),
            fix: fix.to_owned(),
        }
    }
}

/// The settings of one file, or of several: what a later one says counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigFile {
    settings: Vec<Setting>,
    alerts: Option<AlertWebhooks>,
}

impl ConfigFile {
    /// Reads a file's content; `file` is its name for messages.
    ///
    /// # Errors
    /// With all that is wrong, each with its line, column and field.
    pub fn parse(bytes: &[u8], file: &str) -> Result<Self, Error> {
        let (config, wrong) = Self::parse_all(bytes, file);
        wrong.map_or(Ok(config), Err)
    }

    /// What can be read of a file's content, so that its values can be judged, too, and all that is wrong with the rest.
    #[must_use]
    pub fn parse_all(bytes: &[u8], file: &str) -> (Self, Option<Error>) {
        let refused = |problems| (Self::default(), Some(Error::new(ErrorCode::ProfileInvalid, problems)));
        let tree = match yaml::parse(bytes, file) {
            Ok(tree) => tree,
            Err(malformed) => return refused(vec![*malformed.problem]),
        };
        if let Err(problem) = header(&tree, file, "Config", "this is the configuration of aiond") {
            return refused(vec![problem]);
        }
        let (raw, mut problems) = yaml::all_from_node::<raw::Config>(&tree, file);
        let Some(mut raw) = raw else { return refused(problems) };
        // What was passed over is not counted in the list any more, so that places in it would be wrong.
        let whole = problems.iter().all(|problem| !problem.field.starts_with("alerts"));
        let given = raw.alerts.webhooks.take().filter(|_| whole);
        let alerts = match given.map(|given| AlertWebhooks::check(given, &tree, file)).transpose() {
            Ok(alerts) => alerts,
            Err(error) => {
                problems.extend(error.into_problems());
                None
            }
        };
        let settings = given_by(raw).into_iter().filter_map(|(option, field, values)| {
            let values = values?;
            Some(Setting { option, values, field, file: file.to_owned(), place: tree.place_of(field) })
        });
        let config = Self { settings: settings.collect(), alerts };
        let wrong = (!problems.is_empty()).then(|| Error::new(ErrorCode::ProfileInvalid, problems));
        (config, wrong)
    }

    /// Takes another file's settings, which count before those that are there.
    pub fn then(&mut self, later: Self) {
        self.settings.retain(|old| later.settings.iter().all(|new| new.option != old.option));
        self.settings.extend(later.settings);
        if later.alerts.is_some() {
            self.alerts = later.alerts;
        }
    }

    /// What is set.
    #[must_use]
    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }

    /// Who is told of what detections find; none: no file says.
    #[must_use]
    pub const fn alerts(&self) -> Option<&AlertWebhooks> {
        self.alerts.as_ref()
    }
}

type Given = (&'static str, &'static str, Option<Vec<String>>);

fn given_by(raw: raw::Config) -> [Given; 24] {
    let raw::Config { paths, access, http, grpc, models, dns, tracing, log, signatures, .. } = raw;
    let one = |value: Option<String>| value.map(|value| vec![value]);
    [
        ("state", "paths.state", one(paths.state)),
        ("socket", "paths.socket", one(paths.socket)),
        ("run-dir", "paths.run_dir", one(paths.run_dir)),
        ("launcher-socket", "paths.launcher_socket", one(paths.launcher_socket)),
        ("profiles", "paths.profiles", one(paths.profiles)),
        ("policies", "paths.policies", one(paths.policies)),
        ("detections", "paths.detections", one(paths.detections)),
        ("user", "access.user", one(access.user)),
        ("group", "access.group", one(access.group)),
        ("require-signed", "signatures.require_signed", signatures.require_signed.map(|kinds| kinds.words())),
        ("trusted-keys", "signatures.trusted_keys", one(signatures.trusted_keys)),
        ("http", "http.address", one(http.address)),
        ("kernel-port", "http.port", one(http.port.map(|port| port.to_string()))),
        ("grpc", "grpc.address", one(grpc.address)),
        ("grpc-tls-cert", "grpc.tls_cert", one(grpc.tls_cert)),
        ("grpc-tls-key", "grpc.tls_key", one(grpc.tls_key)),
        ("grpc-client-ca", "grpc.client_ca", one(grpc.client_ca)),
        ("offline", "models.offline", one(models.offline.map(|offline| offline.to_string()))),
        ("dns", "dns.servers", dns.servers),
        ("otlp-endpoint", "tracing.otlp_endpoint", one(tracing.otlp_endpoint)),
        ("otlp-protocol", "tracing.otlp_protocol", one(tracing.otlp_protocol)),
        ("otlp-certificate", "tracing.otlp_certificate", one(tracing.otlp_certificate)),
        ("log-format", "log.format", one(log.format)),
        ("log", "log.level", one(log.level)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: aion.os/v1\nkind: Config\n";

    fn read(text: &str, file: &str) -> Result<ConfigFile, String> {
        ConfigFile::parse(format!("{HEAD}{text}").as_bytes(), file).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_set_has_its_place_and_what_is_not_is_not_there() {
        let config =
            read("http:\n  port: 9000\ndns: {servers: [10.0.0.2, \"10.0.0.3:54\"]}\n", "c.yaml").unwrap();
        let said: Vec<_> =
            config.settings().iter().map(|s| (s.option, s.values.join(" "), s.place.line)).collect();
        let expected = [("kernel-port", "9000".to_owned(), 4), ("dns", "10.0.0.2 10.0.0.3:54".to_owned(), 5)];
        assert_eq!(said, expected);
        assert_eq!(read("", "c.yaml").unwrap(), ConfigFile::default());
    }

    #[test]
    fn a_later_file_counts() {
        let mut config = read("log: {level: info, format: json}\n", "a.yaml").unwrap();
        config.then(read("log: {level: debug}\n", "b.yaml").unwrap());
        let said: Vec<_> =
            config.settings().iter().map(|s| (s.field, s.values[0].as_str(), s.file.as_str())).collect();
        assert_eq!(said, [("log.format", "json", "a.yaml"), ("log.level", "debug", "b.yaml")]);
    }

    #[test]
    fn what_is_unknown_or_wrong_is_told_with_its_place() {
        for (text, expected) in [
            ("http: {adress: x}\n", "c.yaml:3:8: http: unknown field"),
            ("http: {port: 99999}\n", "c.yaml:3:14: http.port"),
            ("http: {port: 1}\nhttp: {port: 2}\n", "c.yaml:4:1"),
            ("models: {offline: 7}\n", "c.yaml:3:19: models.offline"),
            ("launcher: {pool: 1}\n", "c.yaml:3:1: unknown field"),
        ] {
            let error = read(text, "c.yaml").unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
        let all = "http: {adress: x, port: 99999}\nlauncher: {pool: 1}\nmodels: {offline: 7}\ndns: {servers: {a: b}}\nlog: {level: warn, formt: x}\n\
                   alerts:\n  webhooks:\n    - {name: [1], url: \"https://a.example\"}\n    - {name: b, urk: 1}\n";
        let (config, wrong) = ConfigFile::parse_all(format!("{HEAD}{all}").as_bytes(), "c.yaml");
        let told = wrong.unwrap().to_string();
        let lines: Vec<&str> = told.lines().collect();
        for (at, expected) in [
            "c.yaml:3:8: http: unknown field \"adress\"; did you mean \"address\"?",
            "c.yaml:3:25: http.port: 99999 is too large",
            "c.yaml:4:1: unknown field \"launcher\"",
            "c.yaml:5:19: models.offline",
            "c.yaml:6:16: dns.servers: expected a list",
            "c.yaml:7:20: log: unknown field \"formt\"",
            "c.yaml:10:14: alerts.webhooks[0].name",
            "c.yaml:11:",
            "c.yaml:11:17: alerts.webhooks[1]: unknown field \"urk\"",
        ]
        .into_iter()
        .enumerate()
        {
            assert!(lines.get(at).is_some_and(|line| line.starts_with(expected)), "{expected}\n{told}");
        }
        assert_eq!(lines.len(), 9, "what is wrong is not missing as well: {told}");
        assert!(told.contains("alerts.webhooks[1]: url is missing"), "{told}");
        assert_eq!(config.settings().iter().map(|s| s.field).collect::<Vec<_>>(), ["log.level"]);
        let error = ConfigFile::parse(b"", "c.yaml").unwrap_err().to_string();
        assert_eq!(error, "c.yaml: the file is empty");
    }
}
