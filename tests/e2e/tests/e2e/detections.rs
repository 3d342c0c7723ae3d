//! Detections: each scenario by a real agent on the real kernel, with the rules as they are shipped; and ordinary work, of which
//! they say nothing.

use std::io::Read as _;
use std::net::TcpListener;
use std::time::Duration;

use aion_e2e::{Daemons, until};
use serde_json::Value;

use crate::agent::{Agent, detached, path, workspace};

/// A pair of daemons with rules of its own, and their folder.
pub(crate) struct World {
    pub(crate) daemons: Daemons,
    pub(crate) rules: std::path::PathBuf,
    _dir: tempfile::TempDir,
}

impl World {
    /// With the rules that are shipped.
    pub(crate) fn shipped() -> Self {
        let world = Self::prepare(None, |rules, clone| {
            for file in std::fs::read_dir(clone.join("policies/detections")).unwrap() {
                let file = file.unwrap().path();
                std::fs::copy(&file, rules.join(file.file_name().unwrap())).unwrap();
            }
        });
        let loaded = world.daemons.ctl(["detections", "ls"]).json();
        assert!(loaded["detections"].as_array().unwrap().len() > 10, "{loaded}");
        world
    }

    /// With these: file name and content.
    pub(crate) fn with(rules: &[(&str, &str)]) -> Self {
        Self::prepare(None, |folder, _| put(rules, folder))
    }

    /// The same, and what aiond's configuration is.
    pub(crate) fn configured(rules: &[(&str, &str)], config: &str) -> Self {
        Self::prepare(Some(config), |folder, _| put(rules, folder))
    }

    fn prepare(config: Option<&str>, fill: impl FnOnce(&std::path::Path, &std::path::Path)) -> Self {
        // Where aiond's user can read them.
        let dir = tempfile::Builder::new().prefix("aion-e2e-").tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let rules = dir.path().join("rules");
        std::fs::create_dir(&rules).unwrap();
        fill(&rules, &aion_e2e::Place::find().unwrap().clone);
        let file = dir.path().join("config.yaml");
        let mut env = vec![("AION_DETECTIONS", rules.to_str().unwrap())];
        if let Some(text) = config {
            std::fs::write(&file, text).unwrap();
            env.push(("AION_CONFIG", file.to_str().unwrap()));
        }
        let daemons = Daemons::start_with(dir.path(), &env).unwrap();
        Self { daemons, rules, _dir: dir }
    }

    /// Does a test, and looks at what is left behind once its agents are gone.
    pub(crate) fn check(self, test: impl FnOnce(&Self)) {
        test(&self);
        self.daemons.finish().unwrap();
    }

    /// What was found of an agent.
    pub(crate) fn history(&self, agent: &str) -> Vec<Value> {
        let found = self.daemons.ctl(["detections", "history", agent]).json();
        found.as_array().unwrap().clone()
    }

    pub(crate) fn finding(&self, agent: &Agent<'_>, rule: &str) -> Value {
        let found = until(Duration::from_secs(60), || {
            self.history(&agent.name).into_iter().find(|finding| finding["rule"] == rule)
        });
        found.unwrap_or_else(|| panic!("{rule} was not found; but {:?}", self.history(&agent.name)))
    }
}

fn put(rules: &[(&str, &str)], folder: &std::path::Path) {
    for (name, text) in rules {
        std::fs::write(folder.join(name), text).unwrap();
    }
}

pub(crate) fn py<'a>(daemons: &'a Daemons, stem: &str, flags: &[&str], program: &str) -> Agent<'a> {
    detached(daemons, stem, flags, &["/usr/bin/python3", "-c", program])
}

/// What was taken from an agent: kind and reason.
pub(crate) fn restraints(agent: &Agent<'_>) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let all = agent.inspect()["restraints"].as_array().unwrap().clone();
    all.iter().map(|one| (text(&one["kind"]), text(&one["reason"]))).collect()
}

pub(crate) fn restraint(kind: &str, reason: &str) -> Vec<(String, String)> {
    vec![(kind.to_owned(), reason.to_owned())]
}

/// Without a network there is no loopback either.
pub(crate) const HOST: &[&str] = &["--network", "host"];

const CALLS: &str = "import ctypes, time\nlibc = ctypes.CDLL(None)\n";

pub(crate) fn what_is_run_and_how_is_found_and_answered() {
    World::shipped().check(|world| {
    let daemons = &world.daemons;

    // From memory: stopped where it stands, and an operator lets it go on.
    let program = "import os\nfd = os.memfd_create('x', 0)\nos.write(fd, open('/bin/sleep', 'rb').read())\n\
                   os.execve(fd, ['quiet', '300'], {})";
    let agent = py(daemons, "memfd", &[], program);
    let found = world.finding(&agent, "memfd-exec");
    assert_eq!((&found["action"], &found["result"]), (&"freeze".into(), &"done".into()), "{found}");
    assert_eq!(found["severity"], "high");
    assert_eq!(found["detail"]["tags"][0], "T1620");
    assert_eq!(found["detail"]["evidence"]["detail"]["memfd"], true, "{found}");
    assert_eq!(agent.state(), "paused");
    assert_eq!(restraints(&agent), restraint("frozen", "detection memfd-exec"));
    let shown = daemons.ctl(["inspect", &agent.name]).ok().text();
    assert!(shown.contains("frozen by detection memfd-exec"), "{shown}");
    daemons.ctl(["resume", &agent.name]).ok();
    assert_eq!((agent.state().as_str(), restraints(&agent).len()), ("running", 0));
    let events = agent.records("detection.finding");
    assert_eq!(events[0]["rule"], "detection: memfd-exec");
    assert_eq!(events[0]["verdict"], "denied", "something was done");

    // A file that has no name any more, and before that a program in the workspace.
    let program = "import os, shutil, subprocess, time\nshutil.copy('/bin/sleep', 'x'); os.chmod('x', 0o755)\n\
                   subprocess.run(['./x', '0'])\nfd = os.open('x', os.O_RDONLY)\nos.unlink('x')\n\
                   os.execve(fd, ['gone', '300'], {})";
    let agent = py(daemons, "deleted", &[], program);
    let found = world.finding(&agent, "deleted-binary");
    assert_eq!((&found["action"], &found["result"]), (&"alert".into(), &"none".into()));
    assert_eq!(world.finding(&agent, "exec-writable")["severity"], "info");
    assert_eq!(agent.state(), "running", "an alert alone changes nothing");
    assert!(world.history(&agent.name).iter().all(|found| found["rule"] != "memfd-exec"));

    // Ways out: ended, and not started again although its manifest would.
    let program = format!(
        "{CALLS}for nr in (165, 308, 272, 321, 101): libc.syscall(nr, 0, 0, 0, 0, 0)\ntime.sleep(300)"
    );
    let agent = py(daemons, "escape", &["--restart", "always"], &program);
    let found = world.finding(&agent, "escape-attempt");
    assert_eq!((&found["action"], &found["result"]), (&"kill".into(), &"done".into()), "{found}");
    assert_eq!(found["detail"]["value"], 3);
    let ended = agent.inspect();
    assert_eq!((&ended["state"], &ended["exit"]["reason"]), (&"exited".into(), &"killed".into()), "{ended}");

    // Arguments that give it away.
    let miner = ["sh", "-c", "sleep 300; true", "-o", "stratum+tcp://pool.example:3333"];
    let agent = detached(daemons, "miner", &[], &miner);
    world.finding(&agent, "crypto-miner");
    assert_eq!(agent.state(), "paused");
    let agent = detached(daemons, "keys", &[], &["sh", "-c", "cat /etc/shadow; sleep 300"]);
    assert_eq!(world.finding(&agent, "credential-access")["severity"], "medium");

    let listed = daemons.ctl(["detections", "ls"]).json();
    let fired = |name: &str| {
        let all = listed["detections"].as_array().unwrap();
        all.iter().find(|rule| rule["name"] == name).unwrap()["fired"].as_u64().unwrap()
    };
    assert_eq!((fired("memfd-exec"), fired("escape-attempt"), fired("reverse-shell")), (1, 1, 0));
    let figures = daemons.ctl(["queue", "--metrics"]).ok().text();
    let by_agent = format!(
        "aion_agent_findings_total{{tenant=\"default\",agent=\"{}\",severity=\"medium\"}} ",
        agent.name
    );
    for line in [
        r#"aion_detection_findings_total{rule="memfd-exec",severity="high",tenant="default"} 1"#,
        r#"aion_detection_findings_total{rule="reverse-shell",severity="critical",tenant="default"} 0"#,
        r#"aion_detection_actions_total{action="kill",result="done"} 1"#,
        by_agent.as_str(),
    ] {
        assert!(figures.contains(line), "{line} is not in\n{figures}");
    }
    });
}

pub(crate) fn what_floods_is_slowed_or_stopped() {
    World::shipped().check(|world| {
    let daemons = &world.daemons;

    let bomb = "import os, time\nwhile True:\n  try:\n    if os.fork() == 0: time.sleep(300)\n  except OSError: pass\n";
    let agent = py(daemons, "bomb", &["--pids", "20"], bomb);
    let found = world.finding(&agent, "fork-bomb");
    assert_eq!((&found["action"], &found["result"]), (&"freeze".into(), &"done".into()), "{found}");
    assert_eq!(agent.state(), "paused");
    daemons.ctl(["kill", &agent.name]).ok();

    // Refused again and again: it goes on with little, until an operator gives it back what it had.
    let agent = py(
        daemons,
        "burst",
        &["--cpus", "0.5"],
        &format!("{CALLS}for n in range(2000): libc.syscall(165, 0, 0, 0, 0, 0)\ntime.sleep(300)"),
    );
    let found = world.finding(&agent, "denied-burst");
    assert_eq!((&found["action"], &found["result"]), (&"throttle".into(), &"done".into()), "{found}");
    assert_eq!(restraints(&agent), restraint("throttled", "detection denied-burst"));
    assert_eq!(agent.inspect()["restraints"][0]["cpu_millis"], 100);
    assert_eq!(quota(&agent), Some(100));
    daemons.ctl(["detections", "clear", &agent.name]).ok();
    assert_eq!((restraints(&agent).len(), quota(&agent)), (0, Some(500)), "what it was launched with");
    assert!(!agent.records("agent.throttled").is_empty() && !agent.records("agent.unthrottled").is_empty());

    let busy = "import os\nmine = os.fork()\nfor n in range(40000):\n  child = os.fork()\n  if child == 0: os._exit(0)\n  os.waitpid(child, 0)\n";
    let agent = py(daemons, "busy", &["--cpus", "2"], busy);
    assert_eq!(world.finding(&agent, "fork-rate")["action"], "throttle");

    // Files are recorded where there is BPF LSM, or system calls are counted.
    let files = "import time\nfor n in range(1500): open(f'f{n % 300}', 'w').close()\ntime.sleep(300)";
    let agent = py(daemons, "files", &["--audit", "count"], files);
    assert_eq!(world.finding(&agent, "mass-write")["severity"], "info");
    });
}

/// Thousandths of a processor that the agent's group may use, in whichever hierarchy they are counted.
fn quota(agent: &Agent<'_>) -> Option<u64> {
    let group = agent.inspect()["cgroup"].as_str().unwrap().to_owned();
    let read = |file: String| std::fs::read_to_string(file).ok();
    let words = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .iter()
        .find_map(|root| read(format!("{root}/{group}/cpu.max")))
        .or_else(|| {
            let v1 = ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"].into_iter();
            v1.flat_map(|root| read(format!("{root}/{group}/cpu.cfs_quota_us"))).next()
        })?;
    let quota: u64 = words.split_whitespace().next()?.parse().ok()?;
    Some(quota / 100)
}

/// Connects to a listener of its own, says how that went, and can be told to begin a shell on the connection.
const SHELL: &str = "\
import socket, subprocess, time
server = socket.create_server(('127.0.0.1', 0))
def connect():
    try:
        client = socket.create_connection(server.getsockname()); server.accept(); return client
    except OSError as error: return error.errno
client = connect()
print('first', isinstance(client, socket.socket), flush=True)
shell = subprocess.Popen(['sh'], stdin=client, stdout=client)
while True:
    time.sleep(0.2)
    got = connect()
    print('now', 'open' if isinstance(got, socket.socket) else got, flush=True)
";

pub(crate) fn what_leaves_is_cut_off() {
    World::shipped().check(|world| {
    let daemons = &world.daemons;

    let agent = py(daemons, "shell", HOST, SHELL);
    let found = world.finding(&agent, "reverse-shell");
    assert_eq!((&found["action"], &found["result"]), (&"isolate_network".into(), &"done".into()), "{found}");
    assert_eq!((&found["severity"], &found["detail"]["tags"][0]), (&"critical".into(), &"T1059.004".into()));
    assert_eq!(restraints(&agent), restraint("isolated", "detection reverse-shell"));
    agent.await_log("now 1\n");
    assert_eq!(agent.state(), "running", "it can be looked at");
    daemons.ctl(["detections", "clear", "--network", &agent.name]).ok();
    let cut = agent.logs().text().len();
    let open = until(Duration::from_secs(20), || {
        agent.logs().text().get(cut..).filter(|new| new.contains("now open")).map(|_| ())
    });
    assert!(open.is_some(), "its network is there again: {}", agent.logs().text());
    assert!(restraints(&agent).is_empty());

    // Children that talk over pairs of Unix sockets are no reverse shell, and a shell whose output alone is a connection is none.
    let quiet = "import socket, subprocess\na, b = socket.socketpair()\nsubprocess.run(['sh', '-c', 'true'], stdin=a, stdout=a)\n\
                 s = socket.create_server(('127.0.0.1', 0)); c = socket.create_connection(s.getsockname())\n\
                 subprocess.run(['sh', '-c', 'true'], stdout=c)\nprint('done', flush=True)\nimport time; time.sleep(300)";
    let agent = py(daemons, "pair", HOST, quiet);
    agent.await_log("done");

    // Much that leaves.
    let sink = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = sink.local_addr().unwrap().port();
    let reader = std::thread::spawn(move || {
        let (mut stream, _) = sink.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut buffer = vec![0; 1 << 20];
        while stream.read(&mut buffer).is_ok_and(|count| count > 0) {}
    });
    let send = format!(
        "import socket, time\ns = socket.create_connection(('127.0.0.1', {port}))\ntime.sleep(12)\n\
         for n in range(400): s.sendall(bytes(1 << 20))\nprint('sent', flush=True)\ntime.sleep(300)"
    );
    let leak = py(daemons, "leak", &["--network", "host"], &send);
    let found = world.finding(&leak, "data-exfiltration");
    assert_eq!((&found["action"], &found["result"]), (&"isolate_network".into(), &"done".into()), "{found}");
    assert!(found["detail"]["value"].as_u64().unwrap() >= 256 << 20);
    daemons.ctl(["kill", &leak.name]).ok();
    let _ = reader.join();

    assert!(world.history(&agent.name).is_empty(), "{:?}", world.history(&agent.name));
    });
}

pub(crate) fn ordinary_work_raises_nothing() {
    World::shipped().check(|world| {
    let daemons = &world.daemons;
    let folder = workspace();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let flags = ["--workspace", path(&folder), "--audit", "count", "--memory", "1Gi"];
    let has = |program: &str| {
        ["/usr/bin", "/bin", "/usr/local/bin"]
            .iter()
            .any(|dir| std::path::Path::new(dir).join(program).exists())
    };
    let mut agents = Vec::new();

    if has("git") && has("make") && has("cc") {
        let build = "set -e; export HOME=$PWD GIT_CONFIG_NOSYSTEM=1; git config --global user.email a@b; git config --global user.name a; \
            git init -q origin; cd origin; for n in $(seq 1 40); do echo \"int f$n(void) { return $n; }\" > f$n.c; done; \
            printf 'int main(void) { return 0; }\\n' > main.c; \
            printf 'prog: $(patsubst %%.c,%%.o,$(wildcard *.c))\\n\\tcc -o $@ $^\\ntest: prog\\n\\t./prog\\n' > Makefile; \
            git add .; git commit -qm one; cd ..; git clone -q origin copy; cd copy; make -j4 >/dev/null; make test >/dev/null; \
            git log --oneline | wc -l; echo built";
        agents.push((detached(daemons, "build", &flags, &["sh", "-c", build]), "built"));
    }
    let data = "import csv, gzip, json, random, sqlite3, subprocess, tempfile, concurrent.futures as f\n\
        rows = [(n, random.random()) for n in range(200000)]\n\
        with gzip.open('rows.csv.gz', 'wt') as out: csv.writer(out).writerows(rows)\n\
        db = sqlite3.connect('rows.db'); db.execute('create table rows (a, b)'); db.executemany('insert into rows values (?, ?)', rows); db.commit()\n\
        for n in range(100): json.dump(rows[n:n + 50], open(f'part-{n}.json', 'w'))\n\
        with f.ProcessPoolExecutor(4) as pool: print(sum(pool.map(abs, range(1000))))\n\
        subprocess.run('sort -r /etc/passwd | head -1', shell=True, stdout=subprocess.DEVNULL)\nprint('computed', flush=True)";
    agents.push((py(daemons, "data", &["--audit", "count", "--memory", "1Gi"], data), "computed"));
    if has("node") {
        let script = "const {execSync, spawnSync} = require('child_process'); const fs = require('fs'); const http = require('http');\
            for (let n = 0; n < 20; n++) execSync('true'); spawnSync('sh', ['-c', 'cat'], {input: 'x'});\
            for (let n = 0; n < 200; n++) fs.writeFileSync('n' + n, 'x');\
            const s = http.createServer((q, a) => a.end('y')).listen(0, '127.0.0.1', async () => {\
            for (let n = 0; n < 50; n++) await (await fetch('http://127.0.0.1:' + s.address().port)).text();\
            console.log('scripted'); process.exit(0); });";
        let node = ["node", "-e", script];
        agents.push((
            detached(daemons, "node", &["--audit", "count", "--memory", "1Gi", "--network", "host"], &node),
            "scripted",
        ));
    }
    for (agent, word) in &agents {
        let code = agent.wait();
        assert!(agent.logs().text().contains(word), "{} ended with {code}: {:?}", agent.name, agent.logs());
    }
    // The log is written in steps: what was done last shows once what comes after it does.
    let last = detached(daemons, "last", &[], &["sh", "-c", "cat /etc/shadow; sleep 300"]);
    world.finding(&last, "credential-access");
    for (agent, _) in &agents {
        let loud: Vec<Value> =
            world.history(&agent.name).into_iter().filter(|found| found["severity"] != "info").collect();
        assert!(loud.is_empty(), "{}: {loud:#?}", agent.name);
        assert!(agent.inspect()["restraints"].as_array().unwrap().is_empty());
    }
    });
}
