//! Detections: what is refused with its place, and each shipped rule with what it finds and what it does not.

use aion_detect::{Engine, Event, KindId, Rule, SAMPLE, Who};
use aion_manifest::{SHIPPED_DETECTIONS, parse_detection, parse_detections, shipped_detections};
use serde_json::{Value, json};

const S: u64 = 1_000_000_000;

fn read(spec: &str) -> Result<Rule, aion_manifest::Error> {
    let text = format!("apiVersion: aion.os/v1\nkind: Detection\nmetadata: {{name: x}}\nspec:\n{spec}");
    parse_detection(text.as_bytes(), "x.yaml")
}

fn refused(spec: &str) -> String {
    read(spec).unwrap_err().to_string()
}

#[test]
fn every_problem_has_its_place() {
    let unknown = refused("  severity: high\n  window: 5s\n  conditions: {}\n");
    assert!(unknown.contains("x.yaml:7:") && unknown.contains("did you mean \"condition\""), "{unknown}");
    let said = refused(
        "  severity: high\n  window: 0\n  tags: [T12]\n  condition:\n    count:\n      events: [proc.exek, proc.exec]\n      \
         where: {path: {is: x}, memfd: {in: [a]}, uid: {prefix: [a]}}\n      at_least: 0\n",
    );
    for part in [
        "x.yaml:6:11: spec.window: it is out of range; use 1s to 1d",
        "spec.tags[0]: \"T12\" is not a tag",
        "spec.condition.count.events[0]: \"proc.exek\" is not a kind of events that a rule can look at; did you mean \"proc.exec\"?",
        "spec.condition.count.where.path: proc.exec has no field \"path\"",
        "spec.condition.count.where.memfd.in: \"memfd\" is true or false",
        "spec.condition.count.where.uid.prefix: \"uid\" is a number",
        "spec.condition.count.at_least: it is out of range",
    ] {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
    let head = "  severity: low\n  window: 5s\n";
    for (spec, part) in [
        ("", "it does not say what is looked for"),
        ("  condition: {}\n", "it is none or several conditions"),
        ("  condition: {count: {events: []}}\n", "it names no kind of events"),
        ("  condition: {count: {events: [proc.exec], where: {comm: {}}}}\n", "it tests nothing"),
        ("  condition: {distinct: {events: [proc.exec], field: comm, at_least: 999}}\n", "use 2 to 256"),
        ("  condition: {sum: {events: [proc.exec], field: comm, at_least: 9}}\n", "\"comm\" is a text"),
        ("  condition: {sequence: [{events: [proc.exec]}]}\n", "two to four steps"),
        ("  condition: {count: {events: [proc.exec]}}\n  exceptions: [{}]\n", "it would except everything"),
        (
            "  condition: {count: {events: [proc.exec]}}\n  deviation: {rate: forks, at_least: 1}\n",
            "exactly one of",
        ),
        ("  deviation: {rate: fork, at_least: 1}\n", "use one of: forks"),
        ("  condition: {count: {events: [proc.exec]}}\n  action: shoot\n", "use one of: alert, throttle"),
    ] {
        let said = refused(&format!("{head}{spec}"));
        assert!(said.contains(part), "{spec}: {part} is not in\n{said}");
    }
}

#[test]
fn what_rests_on_sequences_of_system_calls_only_alerts() {
    let samples = "events: [agent.sample]";
    for looked_for in [
        "deviation: {rate: novel_grams, at_least: 5}".to_owned(),
        format!("condition: {{sum: {{{samples}, field: novel_grams, at_least: 5}}}}"),
        format!("condition: {{count: {{{samples}, where: {{learned_grams: {{at_least: 5}}}}}}}}"),
        format!(
            "condition: {{sequence: [{{events: [proc.exec]}}, {{{samples}, where: {{novel_grams: {{at_least: 5}}}}}}]}}"
        ),
    ] {
        let spec =
            |action: &str| format!("  severity: low\n  window: 10s\n  action: {action}\n  {looked_for}\n");
        for action in ["throttle", "freeze", "isolate_network", "kill"] {
            let said = refused(&spec(action));
            let wanted =
                format!("x.yaml:7:11: spec.action: {action} cannot rest on sequences of system calls");
            assert!(said.contains(&wanted) && said.contains("use alert"), "{said}");
        }
        let rule = read(&spec("alert")).unwrap();
        assert!(rule.wants_grams() && rule.rests_on_grams());
    }
    let excepted = "  severity: low\n  window: 10s\n  action: throttle\n  condition: {sum: {events: [agent.sample], field: bytes_out, at_least: 5}}\n  \
        exceptions: [{where: {novel_grams: {at_most: 3}}}]\n";
    assert!(read(excepted).unwrap().wants_grams());
}

#[test]
fn a_folder_is_taken_as_a_whole() {
    let good = SHIPPED_DETECTIONS[0].1.as_bytes();
    let twice = parse_detections([("a.yaml", good), ("b.yaml", good)]).unwrap_err().to_string();
    assert!(twice.contains("b.yaml") && twice.contains("a.yaml has a detection of the name"), "{twice}");
    let wrong = parse_detections([("a.yaml", good), ("b.yaml", &b"kind: x"[..])]).unwrap_err().to_string();
    assert!(wrong.contains("b.yaml:1:"), "{wrong}");
    assert!(parse_detections([]).unwrap().is_empty());
}

#[test]
fn what_ships_is_what_the_folder_has() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies/detections");
    let mut files: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(files, SHIPPED_DETECTIONS.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    for rule in shipped_detections().unwrap() {
        assert!(rule.enabled && !rule.description.is_empty() && !rule.tags.is_empty(), "{rule:?}");
        assert!(SHIPPED_DETECTIONS.iter().any(|(file, _)| *file == format!("{}.yaml", rule.name)));
    }
}

struct Told {
    engine: Engine,
    now: u64,
    seq: u64,
    found: Vec<String>,
}

impl Told {
    fn new() -> Self {
        let rules: Vec<Rule> = shipped_detections().unwrap();
        Self { engine: Engine::new(rules), now: 1_700_000_000 * S, seq: 0, found: Vec::new() }
    }

    /// `times` events, each so much after the one before.
    fn events(mut self, times: u64, step_ns: u64, kind: &str, verdict: &str, detail: &Value) -> Self {
        for _ in 0..times {
            self.now += step_ns;
            self.seq += 1;
            let who = Who { agent: "a", name: "a", tenant: "default" };
            let kind = KindId::parse(kind).unwrap();
            let (detail, time_ns, seq) = (detail.as_object().unwrap(), self.now, self.seq);
            let mut findings = Vec::new();
            self.engine.observe(&Event { who, kind, verdict, time_ns, seq, detail }, &mut findings);
            self.found.extend(findings.into_iter().map(|finding| finding.rule.name.clone()));
        }
        self
    }

    #[track_caller]
    fn finds(self, rule: &str) {
        assert_eq!(self.found, [rule]);
    }

    #[track_caller]
    fn finds_nothing(self) {
        assert_eq!(self.found, Vec::<String>::new());
    }
}

fn exec(detail: Value) -> Told {
    Told::new().events(1, 1, "proc.exec", "allowed", &detail)
}

#[test]
fn programs() {
    let shell = |comm: &str, stdin: bool, stdout: bool| {
        exec(json!({"comm": comm, "stdin_socket": stdin, "stdout_socket": stdout}))
    };
    shell("bash", true, true).finds("reverse-shell");
    shell("bash", true, false).finds_nothing();
    shell("nginx", true, true).finds_nothing();
    exec(json!({"memfd": true, "writable": true})).finds("memfd-exec");
    exec(json!({"deleted": true})).finds("deleted-binary");
    exec(json!({"writable": true})).finds("exec-writable");
    exec(json!({"secure": true})).finds("privilege-change");
    exec(json!({"file": "/usr/bin/true"})).finds_nothing();
    let argv = |words: &[&str]| exec(json!({"argv": words}));
    argv(&["./x", "-o", "stratum+tcp://pool:3333"]).finds("crypto-miner");
    argv(&["pip", "install", "stratum"]).finds_nothing();
    argv(&["cat", "/root/.ssh/id_ed25519"]).finds("credential-access");
    argv(&["cat", "/etc/passwd"]).finds_nothing();
}

#[test]
fn floods() {
    let none = json!({});
    let hit = |limit: &str| json!({"limit": limit, "refused": 150});
    Told::new().events(2, S, "limit.hit", "denied", &hit("pids")).finds("fork-bomb");
    Told::new().events(2, S, "limit.hit", "denied", &hit("memory")).finds_nothing();
    Told::new().events(2, 20 * S, "limit.hit", "denied", &hit("pids")).finds_nothing();
    Told::new().events(9000, S / 1500, "proc.fork", "allowed", &none).finds("fork-rate");
    // A shell that runs small programs, as fast as it can.
    Told::new().events(9000, S / 600, "proc.fork", "allowed", &none).finds_nothing();
    Told::new().events(1000, S / 1000, "file.open_write", "allowed", &none).finds("mass-write");
    Told::new().events(1000, S / 50, "file.open_write", "allowed", &none).finds_nothing();
    let refused = json!({"syscall": "socket", "count": 100});
    Told::new().events(6, S, "sys.denied", "denied", &refused).finds("denied-burst");
    Told::new().events(6, S, "net.connect", "allowed", &json!({"addr": "127.0.0.1"})).finds_nothing();
    Told::new().events(4, S, "sys.denied", "denied", &refused).finds_nothing();
    // What libc tries first each time.
    let tried = json!({"syscall": "clone3", "count": 100});
    Told::new().events(60, S / 10, "sys.denied", "denied", &tried).finds_nothing();
}

#[test]
fn files() {
    let written = |count: u64, name: &dyn Fn(u64) -> String| {
        (0..count).fold(Told::new(), |told, n| {
            told.events(1, S / 100, "file.open_write", "allowed", &json!({"path": name(n)}))
        })
    };
    written(60, &|n| format!("/workspace/{n}.docx.locked")).finds("mass-encrypt");
    written(60, &|_| "/workspace/backup.tar.enc".to_owned()).finds_nothing();
    written(900, &|n| format!("/workspace/{n}.o")).finds_nothing();
    written(20, &|n| format!("/workspace/{n}.enc")).finds_nothing();
}

#[test]
fn ways_out() {
    let call = |name: &str| json!({"syscall": name, "count": 1});
    let tried = |names: &[&str]| {
        names.iter().fold(Told::new(), |told, name| told.events(1, S, "sys.denied", "denied", &call(name)))
    };
    tried(&["mount", "setns", "bpf"]).finds("escape-attempt");
    tried(&["mount", "mount", "mount", "setns"]).finds_nothing();
    // What Python, Node and git try and can do without.
    tried(&["io_uring_setup", "socket", "set_mempolicy", "personality", "statx"]).finds_nothing();
}

#[test]
fn the_network() {
    let beat = json!({"addr": "198.51.100.7", "port": 443});
    Told::new().events(10, 60 * S, "net.connect", "allowed", &beat).finds("beaconing");
    Told::new().events(10, 60 * S, "net.connect", "denied", &beat).finds_nothing();
    let own = json!({"addr": "127.0.0.1", "port": 443});
    Told::new().events(10, 60 * S, "net.connect", "allowed", &own).finds_nothing();
    let gaps = [5, 90, 7, 300, 11, 45, 200, 6, 80, 30, 150];
    let uneven =
        gaps.iter().fold(Told::new(), |told, gap| told.events(1, gap * S, "net.connect", "allowed", &beat));
    uneven.finds_nothing();
    let sent = |network: &str| json!({"network": network, "bytes_out": 64 << 20});
    Told::new().events(4, 10 * S, SAMPLE, "allowed", &sent("egress")).finds("data-exfiltration");
    Told::new().events(4, 10 * S, SAMPLE, "allowed", &sent("none")).finds_nothing();
    Told::new().events(4, 30 * S, SAMPLE, "allowed", &sent("host")).finds_nothing();
}

#[test]
fn sequences_of_system_calls() {
    let sample = |learned: u64, novel: u64| json!({"learned_grams": learned, "novel_grams": novel});
    let told =
        |count, learned, novel| Told::new().events(count, 10 * S, SAMPLE, "allowed", &sample(learned, novel));
    told(3, 60_000, 20).finds("novel-syscalls");
    told(3, 40_000, 2000).finds_nothing();
    told(12, 60_000, 8).finds_nothing();
}

#[test]
fn programs_that_are_gone() {
    let sample = |deleted: u64| {
        Told::new().events(
            3,
            10 * S,
            SAMPLE,
            "allowed",
            &json!({"network": "none", "deleted_programs": deleted}),
        )
    };
    sample(1).finds("deleted-running");
    sample(0).finds_nothing();
}

#[test]
fn a_canary() {
    let call = |target: &str| {
        Told::new().events(1, 1, "api.syscall", "denied", &json!({"syscall": "fs.read", "target": target}))
    };
    call("/workspace/canary-passwords.txt").finds("canary-touched");
    call("/workspace/notes.txt").finds_nothing();
}

#[test]
fn beyond_habit() {
    let none = json!({});
    let usual = (0..40).fold(Told::new(), |mut told, _| {
        told = told.events(20, 1, "proc.exec", "allowed", &none);
        told.now += 10 * S;
        told
    });
    usual.events(600, 1, "proc.exec", "allowed", &none).finds("rate-deviation");
    // A build that gets the other processor, too.
    let steady = (0..40).fold(Told::new(), |mut told, _| {
        told = told.events(700, 1, "proc.exec", "allowed", &none);
        told.now += 10 * S;
        told
    });
    steady.events(1500, 1, "proc.exec", "allowed", &none).finds_nothing();
    Told::new().events(600, 1, "proc.exec", "allowed", &none).finds_nothing();
}
