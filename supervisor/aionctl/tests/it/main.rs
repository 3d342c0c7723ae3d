//! The program from outside, where no daemon is needed: exit codes, streams, messages, and what is generated.

#![expect(clippy::unwrap_used, reason = "a failing test panics")]

use std::io::Write as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Runs the program with nothing of this machine's settings; `stdin` is given to it.
fn aionctl(args: &[&str], stdin: &str) -> (i32, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_aionctl"))
        .args(args)
        .env_clear()
        .env("AION_SOCKET", "/no/such/place/aion.sock")
        .env("COLUMNS", "100")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that does not read has closed the pipe already.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

const MANIFEST: &str = "\
apiVersion: aion.os/v1
kind: Agent
metadata: {name: researcher, version: \"1.0.0\"}
spec: {entry: \"python3 -m my_agent.start\"}
";

#[test]
fn without_a_daemon_every_command_ends_with_6_and_run_with_125() {
    for line in [
        "ps",
        "inspect x",
        "logs x",
        "top -b -n 1",
        "exec x true",
        "events",
        "stats --no-stream",
        "stop x",
        "kill x",
        "pause x",
        "resume x",
        "wait x",
        "rm x",
        "start x",
        "doctor",
        "audit query",
        "audit verify",
        "audit tail",
        "version",
    ] {
        let (code, _, err) = aionctl(&line.split(' ').collect::<Vec<_>>(), "");
        assert_eq!(code, 6, "{line}: {err}");
        assert!(
            err.contains("code: DAEMON_UNAVAILABLE (see docs/errors/DAEMON_UNAVAILABLE.md)"),
            "{line}: {err}"
        );
        assert!(err.contains("hint: "), "{line}: {err}");
    }
    let (code, out, err) = aionctl(&["run", "--", "true"], "");
    assert_eq!((code, out.as_str()), (125, ""), "{err}");
    let (code, ..) = aionctl(&["apply", "-f", "-"], MANIFEST);
    assert_eq!(code, 6);
}

#[test]
fn a_patience_that_is_no_number_is_told() {
    for (line, expected) in [("ps", 2), ("run -- true", 125)] {
        let output = Command::new(env!("CARGO_BIN_EXE_aionctl"))
            .args(line.split(' '))
            .env_clear()
            .env("AION_SOCKET", "/no/such/place/aion.sock")
            .env("AION_RECONNECT_SECONDS", "soon")
            .output()
            .unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(expected), "{err}");
        assert!(err.contains("AION_RECONNECT_SECONDS"), "{err}");
    }
}

#[test]
fn usage_errors_are_2_and_those_of_run_125() {
    for line in [
        "",
        "nonsense",
        "ps --nonsense",
        "stop",
        "inspect",
        "kill -s NOPE x",
        "stop -t soon x",
        "ps -o xml",
        "run --help-me",
        "logs",
        "events --kind *",
        "rm -a x",
        "top -d 0",
    ] {
        let (code, out, err) =
            aionctl(&line.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>(), "");
        // A wrong kind is seen only when the daemon is asked.
        let expected = if line.starts_with("run") {
            125
        } else if line.contains('*') {
            6
        } else {
            2
        };
        assert_eq!(code, expected, "{line}: {err}");
        assert!(out.is_empty(), "{line}: {out}");
        assert!(!err.is_empty(), "{line}");
    }
    let (code, out, _) = aionctl(&["run", "--help"], "");
    assert_eq!(code, 0);
    assert!(out.contains("aionctl run"));
}

#[test]
fn run_checks_its_command_line_before_anything_else() {
    for (line, part) in [
        ("run --workspace /no/such/folder -- true", "--workspace /no/such/folder: No such file or directory"),
        ("run --workspace /etc/passwd -- true", "it is no folder"),
        ("run --name UPPER -- true", "command line"),
        ("run --pids 0 -- true", "spec.resources.pids"),
        ("run --memory 12Q -- true", "12Q"),
        ("run --restart sometimes -- true", "write never, on-failure, always"),
        ("run -f /no/such/agent.yml", "cannot read /no/such/agent.yml"),
        ("run --env =x -- true", "--env"),
        ("run --timeout 0 -- true", "zero"),
        ("run --allow-degraded nothing -- true", "there are cgroup"),
    ] {
        let (code, out, err) = aionctl(&line.split(' ').collect::<Vec<_>>(), "");
        assert_eq!((code, out.as_str()), (125, ""), "{line}: {err}");
        assert!(err.contains(part), "{line}: {err}");
    }
}

#[test]
fn validate_is_offline_and_names_the_place() {
    let (code, out, err) = aionctl(&["validate", "-f", "-"], MANIFEST);
    assert_eq!((code, out.as_str(), err.as_str()), (0, "stdin: valid, agent researcher 1.0.0\n", ""));

    let bad = MANIFEST.replace("entry:", "entyr:");
    let (code, out, err) = aionctl(&["validate", "-f", "-"], &bad);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.starts_with("error: stdin:4:"), "{err}");
    assert!(err.contains("entyr") && err.contains("entry"), "{err}");
    assert!(err.contains("code: MANIFEST_INVALID"), "{err}");

    let (code, out, _) = aionctl(&["validate", "-f", "-", "-o", "json"], MANIFEST);
    let value: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, value["name"].as_str()), (0, Some("researcher")));
    assert_eq!(value["manifest"]["spec"]["entry"][0], "python3");

    // What is printed as YAML is a manifest again.
    let (_, yaml, _) = aionctl(&["validate", "-f", "-", "-o", "yaml"], MANIFEST);
    let (code, again, err) = aionctl(&["validate", "-f", "-", "-o", "yaml"], &yaml);
    assert_eq!((code, &again), (0, &yaml), "{err}");
}

#[test]
fn several_manifests_give_the_highest_exit_code_and_a_message_each() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        std::fs::write(dir.path().join(name), text).unwrap();
        dir.path().join(name).to_str().unwrap().to_owned()
    };
    let good = file("good.yml", MANIFEST);
    let bad = file("bad.yml", "kind: Agent\n");
    let (code, out, err) = aionctl(&["validate", "-f", &good, "-f", &bad, "-f", "/no/such.yml"], "");
    assert_eq!(code, 2);
    assert_eq!(out, format!("{good}: valid, agent researcher 1.0.0\n"));
    assert!(err.contains("bad.yml") && err.contains("/no/such.yml"), "{err}");
}

#[test]
fn hostile_manifests_are_refused_quickly() {
    let begun = std::time::Instant::now();
    for text in [
        format!("{MANIFEST}x: {}", "[".repeat(100_000)),
        format!("{MANIFEST}x: {}", "{a: ".repeat(30_000)),
        "a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\nd: [*c,*c]\n".to_owned(),
        "x".repeat(300 << 10),
        "\u{0}".to_owned(),
    ] {
        let (code, _, err) = aionctl(&["validate", "-f", "-"], &text);
        assert_eq!(code, 2, "{err}");
        assert!(err.len() < 4096, "{} bytes of message", err.len());
    }
    assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
}

#[test]
fn completion_is_there_for_the_shells_that_are_used() {
    for (shell, part) in
        [("bash", "complete -F _aionctl"), ("zsh", "#compdef aionctl"), ("fish", "complete -c aionctl")]
    {
        let (code, out, _) = aionctl(&["completion", shell], "");
        assert_eq!(code, 0);
        assert!(out.contains(part) && out.contains("inspect"), "{shell}");
    }
}

#[test]
fn every_command_has_a_man_page() {
    let dir = tempfile::tempdir().unwrap();
    let (code, out, _) = aionctl(&["man", dir.path().to_str().unwrap()], "");
    assert_eq!(code, 0);
    for page in ["aionctl.1", "aionctl-run.1", "aionctl-audit-verify.1", "aionctl-logs.1"] {
        assert!(out.lines().any(|line| line == page), "{out}");
        let text = std::fs::read_to_string(dir.path().join(page)).unwrap();
        assert!(text.contains(".TH") && text.contains(".SH"), "{page}");
    }
}

#[test]
fn no_colour_where_nobody_sees_it() {
    for args in [&["doctor"][..], &["ps"], &["--help"], &["run", "--oops"]] {
        let (_, out, err) = aionctl(args, "");
        assert!(!out.contains('\x1b') && !err.contains('\x1b'), "{args:?}");
    }
}

#[test]
fn doctor_looks_from_here_when_nobody_answers() {
    let (code, out, _) = aionctl(&["doctor", "-o", "json"], "");
    let value: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &value["daemon"]), (6, &serde_json::Value::Bool(false)));
    let checks = value["checks"].as_array().unwrap();
    assert_eq!(checks[0]["name"], "aiond");
    assert!(checks.len() > 5);
    assert!(Path::new("/proc").exists() && value["kernel"].as_str().is_some_and(|kernel| !kernel.is_empty()));
}

#[test]
fn a_reader_that_leaves_is_no_error_to_talk_about() {
    let script =
        format!("{} completion bash | head -c 1; echo ${{PIPESTATUS[0]}}", env!("CARGO_BIN_EXE_aionctl"));
    let output = Command::new("bash").args(["-c", &script]).output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(out.ends_with("141\n") || out.ends_with("0\n"), "{out}");
}

#[test]
fn a_support_bundle_that_is_cut_off_leaves_no_file() {
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let dir = tempfile::tempdir().unwrap();
        let (socket, out) = (dir.path().join("aion.sock"), dir.path().join("out"));
        // It takes connections and answers nobody, so that there is something to wait for.
        let _silent = UnixListener::bind(&socket).unwrap();
        std::fs::create_dir(&out).unwrap();
        let files = || std::fs::read_dir(&out).unwrap().count();
        let mut child = Command::new(env!("CARGO_BIN_EXE_aionctl"))
            .args(["support-bundle".as_ref(), "--out".as_ref(), out.join("x.tar.zst").as_os_str()])
            .env_clear()
            .env("AION_SOCKET", &socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        while files() == 0 {
            assert!(begun.elapsed() < Duration::from_secs(30), "there was no file");
            std::thread::sleep(Duration::from_millis(5));
        }
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code), "{signal}");
        assert_eq!(files(), 0, "{signal}");
    }
}
