//! The command line, the environment and the configuration's files as one: what is on the command line counts before the environment,
//! that before `config.yaml.d`, that before `config.yaml`.
//!
//! A file's setting is an option of the command line that nobody typed: one parser says what is valid, wherever it comes from.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use aion_manifest::{AlertWebhooks, ConfigFile, Problem, Setting};
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _};

use crate::config::{read, read_folder};
use crate::options::Options;
use crate::variables;

/// Read when nobody names another, and when it is there.
const DEFAULT: &str = "/etc/aion/config.yaml";
/// Instead of a file: none is read.
const NONE: &str = "none";

/// What counts.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    pub(crate) options: Options,
    /// The command line as it came, and the file that it names, absolute: the working directory changes.
    args: Vec<OsString>,
    config: Option<PathBuf>,
    /// The files that were read.
    pub(crate) files: Vec<String>,
    /// What they set.
    settings: Vec<Setting>,
    /// Who is told of what detections find; none: nobody says.
    pub(crate) alerts: Option<AlertWebhooks>,
    /// Each option's value, and whether a file may set it.
    values: BTreeMap<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Value {
    text: String,
    /// Set by the command line or the environment, which a file does not change.
    outside: Option<Outside>,
}

/// Who says what an option is, besides files.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outside {
    CommandLine,
    /// The variable of this name.
    Variable(String),
}

impl std::fmt::Display for Outside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::CommandLine => "the command line",
            Self::Variable(name) => name,
        })
    }
}

/// Why the files were not taken: all that is wrong with them.
#[derive(Debug)]
pub(crate) struct Refused(pub(crate) Vec<String>);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Refused {}

impl From<anyhow::Error> for Refused {
    fn from(error: anyhow::Error) -> Self {
        Self(vec![format!("{error:#}")])
    }
}

impl From<clap::Error> for Refused {
    fn from(error: clap::Error) -> Self {
        Self(vec![error.to_string()])
    }
}

impl Loaded {
    /// Reads everything. Ends the process when the command line is wrong, or asks for help.
    pub(crate) fn from_command_line(args: Vec<OsString>) -> Result<Self, Refused> {
        if let Err(error) = Options::command().try_get_matches_from(&args) {
            let wrong = variables::faults(&args);
            if wrong.is_empty() {
                error.exit();
            }
            return Err(Refused(wrong));
        }
        Self::read(args)
    }

    /// Reads everything.
    pub(crate) fn read(args: Vec<OsString>) -> Result<Self, Refused> {
        let typed = Options::command().try_get_matches_from(&args)?;
        let named = match typed.get_one::<PathBuf>("config") {
            Some(path) if path != Path::new(NONE) => {
                Some(std::path::absolute(path).map_err(anyhow::Error::from)?)
            }
            other => other.cloned(),
        };
        Self::of(args, named)
    }

    /// The same, from the files as they are now.
    pub(crate) fn read_again(&self) -> Result<Self, Refused> {
        Self::of(self.args.clone(), self.config.clone())
    }

    fn of(args: Vec<OsString>, named: Option<PathBuf>) -> Result<Self, Refused> {
        let typed = Options::command().try_get_matches_from(&args)?;
        let (config, files, mut wrong) = read_files(named.as_deref())?;
        wrong.extend(config.settings().iter().filter_map(fault).map(|problem| problem.to_string()));
        if !wrong.is_empty() {
            return Err(Refused(wrong));
        }
        let mut all = args.clone();
        let rest = all.split_off(all.len().min(1));
        for setting in config.settings() {
            if outside(&typed, &setting.option.replace('-', "_")).is_none() {
                all.extend(arguments(setting));
            }
        }
        all.extend(rest);
        let matches = Options::command().try_get_matches_from(all)?;
        let values = values(&typed, &matches);
        let options = Options::from_arg_matches(&matches)?.absolute()?;
        let (settings, alerts) = (config.settings().to_vec(), config.alerts().cloned());
        Ok(Self { options, args, config: named, files, settings, alerts, values })
    }

    /// Each setting of the files, and where it comes from.
    pub(crate) fn describe(&self) -> impl Iterator<Item = String> {
        let settings = self.settings.iter().map(|setting| {
            let place = format!("{}:{}", setting.file, setting.place.line);
            let value = self.values.get(&setting.option.replace('-', "_"));
            match value.and_then(|value| value.outside.as_ref()) {
                Some(by) => format!("{}: not used, {by} says --{} ({place})", setting.field, setting.option),
                None => format!("{}: {} ({place})", setting.field, setting.values.join(", ")),
            }
        });
        // By name: there may be keys in addresses.
        let alerts = self.alerts.as_ref().map(|alerts| {
            let names: Vec<&str> = alerts.list.iter().map(|one| one.name.as_str()).collect();
            let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            format!("alerts.webhooks: {names} ({}:{})", alerts.file, alerts.place.line)
        });
        settings.chain(alerts)
    }

    /// What is not as it was `before`: the option, and how it is told.
    pub(crate) fn changes(&self, before: &Self) -> Vec<(String, String)> {
        let changed = self.values.iter().filter(|(id, value)| before.values.get(*id) != Some(value));
        let mut changes: Vec<_> =
            changed.map(|(id, value)| (id.clone(), self.told(id, &value.text))).collect();
        let list = |loaded: &Self| loaded.alerts.as_ref().map(|alerts| alerts.list.clone());
        if list(self).unwrap_or_default() != list(before).unwrap_or_default() {
            let told = match &self.alerts {
                Some(alerts) => {
                    format!("alerts.webhooks in {}:{} is another", alerts.file, alerts.place.line)
                }
                None => "alerts.webhooks is not in the files any more".to_owned(),
            };
            changes.push(("alerts".to_owned(), told));
        }
        changes
    }

    /// An option is from now on as there.
    pub(crate) fn take(&mut self, id: &str, from: &Self) {
        if let Some(value) = from.values.get(id) {
            self.values.insert(id.to_owned(), value.clone());
        }
    }

    /// The setting of an option, when a file makes it.
    fn setting(&self, option: &str) -> Option<&Setting> {
        self.settings.iter().find(|setting| setting.option == option)
    }

    fn outside(&self, option: &str) -> Option<&Outside> {
        self.values.get(&option.replace('-', "_"))?.outside.as_ref()
    }

    /// Whether somebody says what an option is; else it is as `aiond --help` has it.
    pub(crate) fn is_given(&self, option: &str) -> bool {
        self.outside(option).is_some() || self.setting(option).is_some()
    }

    /// That something is wrong with what an option is, beginning with who says it: a variable, an option of the command line, or a field of
    /// a file and its place.
    pub(crate) fn problem(&self, option: &str, message: &str, fix: &str) -> String {
        let by = match (self.outside(option), self.setting(option)) {
            (Some(Outside::Variable(name)), _) => name.clone(),
            (None, Some(setting)) => return setting.problem(message, fix).to_string(),
            (Some(Outside::CommandLine) | None, _) => format!("--{option}"),
        };
        if fix.is_empty() { format!("{by}: {message}") } else { format!("{by}: {message}; {fix}") }
    }

    /// Who says what these options are, of those that are given: for what is wrong with them together.
    pub(crate) fn said_by(&self, options: &[&str]) -> String {
        let given = options.iter().filter(|option| self.is_given(option));
        let told = given.map(|option| match (self.outside(option), self.setting(option)) {
            (Some(Outside::Variable(name)), _) => name.clone(),
            (None, Some(s)) => format!("{} in {}:{}", s.field, s.file, s.place.line),
            (Some(Outside::CommandLine) | None, _) => format!("--{option}"),
        });
        told.collect::<Vec<_>>().join(", ")
    }

    fn told(&self, id: &str, value: &str) -> String {
        match self.settings.iter().find(|setting| setting.option.replace('-', "_") == id) {
            Some(s) => format!("{} in {}:{} is {value}", s.field, s.file, s.place.line),
            None => format!("--{} is not in the files any more", id.replace('_', "-")),
        }
    }
}

/// What the files set, their names, and what is wrong with them.
fn read_files(named: Option<&Path>) -> Result<(ConfigFile, Vec<String>, Vec<String>), Refused> {
    let path = match named {
        Some(none) if none == Path::new(NONE) => {
            return Ok((ConfigFile::default(), Vec::new(), Vec::new()));
        }
        Some(path) => path,
        None => Path::new(DEFAULT),
    };
    let mut found = Vec::new();
    match read(path)? {
        Some(bytes) => found.push((path.display().to_string(), bytes)),
        None if named.is_some() => {
            return Err(Refused(vec![format!(
                "{}: there is no such file; --config none reads none",
                path.display()
            )]));
        }
        None => {}
    }
    let mut folder = path.as_os_str().to_owned();
    folder.push(".d");
    found.extend(read_folder(Path::new(&folder))?.unwrap_or_default());
    let (mut config, mut wrong, mut files) = (ConfigFile::default(), Vec::new(), Vec::new());
    for (name, bytes) in found {
        let (one, refused) = ConfigFile::parse_all(&bytes, &name);
        config.then(one);
        wrong.extend(refused.iter().flat_map(aion_manifest::Error::problems).map(ToString::to_string));
        files.push(name);
    }
    Ok((config, files, wrong))
}

/// As options that nobody typed. Written with `=`, so that no value is taken for another option.
fn arguments(setting: &Setting) -> impl Iterator<Item = OsString> {
    setting.values.iter().map(|value| format!("--{}={value}", setting.option).into())
}

/// What is wrong with a value, by the option's own parser.
fn fault(setting: &Setting) -> Option<Problem> {
    let args = std::iter::once(OsString::from("aiond")).chain(arguments(setting));
    if setting.values.iter().any(String::is_empty) {
        return Some(setting.problem("it is empty", "give it a value, or leave it out"));
    }
    let error = variables::without().try_get_matches_from(args).err()?;
    let message = format!("{:?} cannot be taken", setting.values.join(", "));
    Some(setting.problem(&message, &variables::reason(&error)))
}

/// Whether somebody outside the files has said it, and who.
fn outside(typed: &ArgMatches, id: &str) -> Option<Outside> {
    match typed.value_source(id)? {
        ValueSource::CommandLine => Some(Outside::CommandLine),
        ValueSource::EnvVariable => Some(Outside::Variable(variables::name(id))),
        _ => None,
    }
}

fn values(typed: &ArgMatches, matches: &ArgMatches) -> BTreeMap<String, Value> {
    let command = Options::command();
    let ids = command.get_arguments().map(|arg| arg.get_id().as_str()).filter(|id| *id != "config");
    ids.filter(|id| !["help", "version"].contains(id))
        .map(|id| {
            let raw = matches.get_raw(id).into_iter().flatten().map(|value| value.to_string_lossy());
            let text = raw.collect::<Vec<_>>().join(", ");
            (id.to_owned(), Value { text, outside: outside(typed, id) })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: aion.os/v1\nkind: Config\n";

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("aiond-settings-{name}-{}", std::process::id()));
            std::fs::create_dir_all(path.join("config.yaml.d")).unwrap();
            Self(path)
        }
        fn put(&self, name: &str, text: &str) {
            std::fs::write(self.0.join(name), format!("{HEAD}{text}")).unwrap();
        }
        fn read(&self, more: &[&str]) -> Result<Loaded, Refused> {
            let config = self.0.join("config.yaml").display().to_string();
            let args = ["aiond", "--config", config.as_str()].into_iter().chain(more.iter().copied());
            Loaded::read(args.map(OsString::from).collect())
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_command_line_counts_before_drop_ins_and_those_before_the_file() {
        let folder = Folder::new("order");
        folder.put(
            "config.yaml",
            "http: {port: 9000}\nlog: {level: warn, format: json}\nmodels: {offline: true}\n",
        );
        folder.put("config.yaml.d/20-b.yaml", "http: {port: 9002}\n");
        folder.put("config.yaml.d/10-a.yaml", "http: {port: 9001}\nlog: {level: error}\n");
        folder.put("config.yaml.d/ignored.txt", "nonsense: 1\n");
        let loaded = folder.read(&["--log", "debug"]).unwrap();
        let options = &loaded.options;
        assert_eq!(
            (options.http().unwrap().port(), options.log.as_str(), options.offline),
            (9002, "debug", true)
        );
        assert_eq!(loaded.files.len(), 3);
        let told = loaded.describe().collect::<Vec<_>>().join("\n");
        assert!(told.contains("http.port: 9002 (") && told.contains("20-b.yaml:3)"), "{told}");
        assert!(told.contains("log.level: not used, the command line says --log"), "{told}");
    }

    #[test]
    fn all_that_is_wrong_is_told_with_its_place() {
        let folder = Folder::new("wrong");
        folder.put(
            "config.yaml",
            "http:\n  address: 0.0.0.0:80\nlog: {format: xml}\ndns: {servers: [nobody]}\n",
        );
        let told = folder.read(&[]).unwrap_err().to_string();
        let lines: Vec<_> = told.lines().collect();
        assert_eq!(lines.len(), 3, "{told}");
        for (place, word) in [
            (":4:12: http.address", "loopback"),
            (":5:15: log.format", "json"),
            (":6:16: dns.servers", "address"),
        ] {
            assert!(
                lines.iter().any(|line| line.contains(place) && line.contains(word)),
                "{place} {word}: {told}"
            );
        }
        // What is no setting, and a value that cannot be taken, are told together.
        folder.put("config.yaml", "http: {adress: x, port: 70000}\nlog: {format: xml}\nlauncher: 1\n");
        folder.put("config.yaml.d/10-a.yaml", "dns: {servers: [nobody]}\npath: {}\n");
        let told = folder.read(&[]).unwrap_err().to_string();
        assert_eq!(told.lines().count(), 6, "{told}");
        for word in
            ["\"adress\"", "http.port", "log.format: ", "\"launcher\"", "10-a.yaml:3:16: dns", "\"path\""]
        {
            assert!(told.contains(word), "{word}: {told}");
        }
        std::fs::remove_file(folder.0.join("config.yaml.d/10-a.yaml")).unwrap();
        // A value is never taken for an option.
        folder.put("config.yaml", "log: {level: --offline}\n");
        assert_eq!(folder.read(&[]).unwrap().options.log, "--offline");
        folder.put("config.yaml", "log: {level: \"\"}\n");
        assert!(folder.read(&[]).unwrap_err().to_string().contains("empty"));
    }

    #[test]
    fn a_problem_begins_with_who_says_it() {
        let folder = Folder::new("origin");
        folder.put("config.yaml", "log: {level: warn}\npaths: {policies: /p}\n");
        let mut loaded = folder.read(&["--log", "debug"]).unwrap();
        let said = |loaded: &Loaded, option| loaded.problem(option, "it is wrong", "mend it");
        assert_eq!(said(&loaded, "log"), "--log: it is wrong; mend it");
        let place = said(&loaded, "policies");
        assert!(place.ends_with("config.yaml:4:19: paths.policies: it is wrong; mend it"), "{place}");
        assert!(loaded.is_given("policies") && !loaded.is_given("profiles"));
        assert!(loaded.said_by(&["log", "policies", "profiles"]).starts_with("--log, paths.policies in "));
        // Tests share their environment, so that none sets one.
        let variable = Some(Outside::Variable("AION_POLICIES".to_owned()));
        loaded.values.get_mut("policies").unwrap().outside = variable;
        assert_eq!(said(&loaded, "policies"), "AION_POLICIES: it is wrong; mend it");
        assert_eq!(loaded.said_by(&["policies"]), "AION_POLICIES");
        let told = loaded.describe().collect::<Vec<_>>().join("\n");
        assert!(told.contains("paths.policies: not used, AION_POLICIES says --policies"), "{told}");
    }

    #[test]
    fn a_file_that_was_named_must_be_there_and_none_reads_none() {
        let folder = Folder::new("named");
        assert!(folder.read(&[]).unwrap_err().to_string().contains("no such file"));
        let args = ["aiond", "--config", "none"].map(OsString::from).to_vec();
        assert!(Loaded::read(args).unwrap().files.is_empty());
    }

    #[test]
    fn a_change_is_told_with_its_place() {
        let folder = Folder::new("change");
        folder.put("config.yaml", "http: {port: 9000}\nlog: {level: warn}\n");
        let before = folder.read(&[]).unwrap();
        folder.put("config.yaml", "http: {port: 9001}\n");
        let changes = folder.read(&[]).unwrap().changes(&before);
        assert_eq!(changes.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["kernel_port", "log"]);
        assert!(
            changes[0].1.contains("http.port in ") && changes[0].1.ends_with("config.yaml:3 is 9001"),
            "{changes:?}"
        );
        assert!(changes[1].1.contains("not in the files any more"), "{changes:?}");
        assert!(folder.read(&[]).unwrap().changes(&folder.read(&[]).unwrap()).is_empty());
    }
}
