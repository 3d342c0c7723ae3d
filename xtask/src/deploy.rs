//! That what is kept for operators' own tools (deploy/, .github/) is what they take, and speaks of nothing that AION does not have.

mod container;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use clap::Parser as _;
use serde_json::Value;

use crate::process::{in_path, read};
use crate::project::{Project, tracked};

fn file(path: &str) -> String {
    let path = Project::locate().unwrap().root.join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&file(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn json(path: &str) -> Value {
    serde_json::from_str(&file(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().unwrap_or_else(|| panic!("no list {field} in {value}"))
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no text {field} in {value}"))
}

/// The words `aion_…` of a text, without those that name a crate: `aion_detect::`.
fn figures(text: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices("aion_") {
        let before = text[..at].chars().next_back();
        let rest = &text[at..];
        let end = rest.find(|c| !word(c)).unwrap_or(rest.len());
        if !before.is_some_and(word) && !rest[end..].starts_with("::") {
            found.insert(rest[..end].to_owned());
        }
    }
    found
}

/// What the daemon exports: the names in the files that write Prometheus' text.
fn exported() -> BTreeSet<String> {
    let folder = Project::locate().unwrap().root.join("supervisor");
    let mut found = BTreeSet::new();
    for name in tracked(&folder).unwrap() {
        if !name.ends_with(".rs") || name.contains("/tests") {
            continue;
        }
        let source = fs::read_to_string(folder.join(name)).unwrap();
        let code = source.split("#[cfg(test)]").next().unwrap();
        if code.contains("# TYPE ") {
            found.extend(figures(code));
        }
    }
    found
}

fn is_exported(name: &str, exported: &BTreeSet<String>) -> bool {
    let of_histogram = ["_bucket", "_sum", "_count"].iter().filter_map(|end| name.strip_suffix(end));
    exported.contains(name) || of_histogram.into_iter().any(|base| exported.contains(base))
}

fn alerts() -> Vec<Value> {
    let rules = yaml("deploy/prometheus/aion.rules.yml");
    list(&rules, "groups").iter().flat_map(|group| list(group, "rules").to_vec()).collect()
}

#[test]
fn alerts_and_dashboards_speak_of_figures_that_there_are() {
    let exported = exported();
    assert!(exported.len() > 40, "{exported:?}");
    let rules: String = alerts().iter().map(|alert| text(alert, "expr").to_owned() + "\n").collect();
    let dashboard = json("deploy/grafana/aion.json");
    let mut asked = list(&dashboard["templating"], "list")
        .iter()
        .filter_map(|variable| variable["definition"].as_str())
        .collect::<String>();
    for target in list(&dashboard, "panels").iter().filter_map(|panel| panel["targets"].as_array()).flatten()
    {
        asked.push_str(text(target, "expr"));
        asked.push('\n');
    }
    for (place, expressions) in [("the alerts", rules), ("the dashboard", asked)] {
        let named = figures(&expressions);
        assert!(named.len() > 15, "{named:?}");
        for name in named {
            assert!(is_exported(&name, &exported), "{place} ask for {name}, which nothing exports");
        }
    }
}

#[test]
fn each_alert_says_how_bad_it_is_and_what_to_do() {
    let page = file("docs/operate/troubleshooting.md");
    let headings: BTreeSet<String> =
        page.lines().filter_map(|line| line.strip_prefix("### ")).map(str::to_lowercase).collect();
    let mut names = BTreeSet::new();
    for alert in alerts() {
        let name = text(&alert, "alert");
        assert!(names.insert(name.to_owned()), "{name} is there twice");
        assert!(["critical", "info", "warning"].contains(&text(&alert["labels"], "severity")), "{name}");
        let annotations = &alert["annotations"];
        assert!(!text(annotations, "summary").is_empty() && !text(annotations, "description").is_empty());
        let anchor = text(annotations, "runbook_url")
            .strip_prefix("/usr/share/doc/aion/operate/troubleshooting.md#")
            .unwrap_or_else(|| panic!("{name}: {annotations}"));
        assert!(headings.contains(anchor), "{name}: troubleshooting.md has no heading for #{anchor}");
    }
    assert!(names.len() >= 20, "{names:?}");
}

#[test]
fn each_error_code_is_in_the_troubleshooting() {
    let page = file("docs/operate/troubleshooting.md");
    let folder = Project::locate().unwrap().root.join("docs/errors");
    for entry in fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name == "README.md" || page.contains(&format!("(../errors/{name})")), "{name} is not linked");
    }
}

#[test]
fn each_page_for_operators_is_in_the_index() {
    let index = file("docs/README.md");
    let folder = Project::locate().unwrap().root.join("docs/operate");
    for entry in fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(index.contains(&format!("(operate/{name})")), "{name} is not linked");
    }
}

#[test]
fn the_dashboard_is_one_that_grafana_can_import() {
    let dashboard = json("deploy/grafana/aion.json");
    assert_eq!(text(&dashboard, "uid"), "aion");
    assert!(dashboard["id"].is_null(), "an id belongs to one Grafana");
    let mut ids = BTreeSet::new();
    for panel in list(&dashboard, "panels") {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        assert!(panel["gridPos"]["w"].as_u64().unwrap() <= 24);
        if text(panel, "type") != "row" {
            assert_eq!(text(&panel["datasource"], "uid"), "${datasource}", "{panel}");
            assert!(!list(panel, "targets").is_empty());
        }
    }
}

#[test]
fn prometheus_takes_the_rules() {
    for path in ["deploy/prometheus/prometheus.yml", "deploy/prometheus/aion.rules.test.yml"] {
        assert!(yaml(path).is_object());
    }
    if !in_path("promtool") {
        println!("skipped: there is no promtool here (Debian's package prometheus)");
        return;
    }
    let folder = Project::locate().unwrap().root.join("deploy/prometheus");
    for words in [
        ["check", "rules", "aion.rules.yml"],
        ["check", "config", "prometheus.yml"],
        ["test", "rules", "aion.rules.test.yml"],
    ] {
        read(Command::new("promtool").args(words).current_dir(&folder)).unwrap();
    }
}

#[test]
fn workflows_are_pinned_and_know_no_machine() {
    for path in [".github/workflows/ci.yml", ".github/workflows/release.yml"] {
        let workflow = yaml(path);
        assert!(workflow["permissions"].is_object(), "{path} takes more rights than it says");
        for (name, job) in workflow["jobs"].as_object().unwrap() {
            // Another workflow of this repository, which is looked at for itself.
            if let Some(own) = job["uses"].as_str() {
                assert!(own.starts_with("./.github/workflows/"), "{path}: {name} is not pinned: {own}");
                continue;
            }
            assert!(job["timeout-minutes"].is_u64(), "{path}: {name} may hang for ever");
            for action in list(job, "steps").iter().filter_map(|step| step["uses"].as_str()) {
                let version = action.rsplit_once("@v").unwrap_or_else(|| panic!("{path}: {action}")).1;
                assert!(version.starts_with(|c: char| c.is_ascii_digit()), "{path}: {action}");
            }
        }
        let source = file(path);
        for word in ["/root", "/work/", "/tmp/"] {
            assert!(!source.contains(word), "{path} has {word}");
        }
    }
}

/// What a text has people and machines run: the words behind `cargo xtask`.
fn commands(text: &str) -> Vec<Vec<&str>> {
    let ends = ["  ", " #", "`", ";", "\""];
    text.lines()
        .flat_map(|line| line.split("cargo xtask ").skip(1))
        .map(|rest| ends.iter().fold(rest, |rest, end| rest.split(end).next().unwrap_or(rest)))
        .map(|words| words.split_whitespace().collect())
        .collect()
}

#[test]
fn what_workflows_and_pages_run_is_what_xtask_takes() {
    let mut paths: Vec<_> =
        ["release.yml", "ci.yml"].map(|name| format!(".github/workflows/{name}")).to_vec();
    paths.extend(["Dockerfile", "README.md", "CONTRIBUTING.md"].map(str::to_owned));
    let folder = Project::locate().unwrap().root.join("docs/operate");
    let pages = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    paths.extend(pages.map(|name| format!("docs/operate/{name}")));
    let mut seen = 0;
    for path in paths {
        let text = file(&path);
        for words in commands(&text) {
            seen += 1;
            let args = ["cargo xtask"].into_iter().chain(words.iter().copied());
            if let Err(error) = crate::Cli::try_parse_from(args) {
                assert_eq!(error.exit_code(), 0, "{path}: cargo xtask {}: {error}", words.join(" "));
            }
        }
    }
    assert!(seen > 20, "{seen} commands were found");
    let found = commands("a `cargo xtask vm --suite ship`, b\ncargo xtask up      # installs\n");
    assert_eq!(found, [vec!["vm", "--suite", "ship"], vec!["up"]]);
}

#[test]
fn words_are_figures_or_crates() {
    let found = figures("use aion_detect::Engine; \"aion_kernel_x{{a}}\" xaion_y aion_z");
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["aion_kernel_x", "aion_z"]);
}
