//! Further commands in a running agent.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use aion_launcher_proto::v1::{self, notice::Kind};

use crate::client::{Watch, borrowed, until};
use crate::daemon::Daemon;
use crate::fixtures::{id, sh};

fn exec(agent: &str, argv: &[&str]) -> v1::Exec {
    v1::Exec {
        id: agent.into(),
        exec_id: id(),
        argv: argv.iter().map(|a| a.as_bytes().to_vec()).collect(),
        env: vec![b"EXTRA=1".to_vec()],
        ..Default::default()
    }
}

fn ended(watch: &mut Watch, exec: &v1::Exec) -> v1::Exit {
    watch.find(|kind| match kind {
        Kind::ExecExited(e) if e.exec_id == exec.exec_id => e.exit,
        _ => None,
    })
}

fn pipes() -> (Vec<OwnedFd>, std::fs::File, std::fs::File, std::fs::File) {
    let (in_read, in_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let (out_read, out_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let (err_read, err_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    (vec![in_read, out_write, err_write], in_write.into(), out_read.into(), err_read.into())
}

#[test]
fn a_command_shares_the_sandbox_and_its_layers() {
    let Some(daemon) = Daemon::start(&[]) else { return };
    let mut client = daemon.client();
    let mut watch = daemon.client().watch(0);
    let asked = sh("echo mine > note; exec sleep 100");
    client.launch(&asked).unwrap();
    let script = "read line; echo $line $EXTRA; cat note; grep -E 'NoNewPrivs|Seccomp:|CapEff' /proc/self/status; \
                  cat /proc/self/cgroup; echo bad >&2; exit 5";
    let run = exec(&asked.id, &["/bin/sh", "-c", script]);
    let (fds, mut stdin, mut stdout, mut stderr) = pipes();
    let pid = client.exec(run.clone(), &borrowed(&fds)).unwrap();
    assert!(pid > 0);
    drop(fds);
    stdin.write_all(b"hello\n").unwrap();
    let exit = ended(&mut watch, &run);
    assert_eq!((exit.code, exit.reason.as_str()), (5, "exited"));
    let (mut out, mut err) = (String::new(), String::new());
    stdout.read_to_string(&mut out).unwrap();
    stderr.read_to_string(&mut err).unwrap();
    assert!(out.starts_with("hello 1\nmine\n"), "{out}");
    assert!(out.contains("NoNewPrivs:\t1") && out.contains("Seccomp:\t2"), "{out}");
    assert!(out.contains("CapEff:\t0000000000000000"), "{out}");
    assert_eq!(err, "bad\n");
    client.kill(&asked.id).unwrap();
}

#[test]
fn commands_end_with_their_agent() {
    let Some(daemon) = Daemon::start(&[]) else { return };
    let mut client = daemon.client();
    let mut watch = daemon.client().watch(0);
    let asked = sh("sleep 100");
    client.launch(&asked).unwrap();
    let run = exec(&asked.id, &["sleep", "100"]);
    let (fds, _stdin, _stdout, _stderr) = pipes();
    client.exec(run.clone(), &borrowed(&fds)).unwrap();
    client.kill(&asked.id).unwrap();
    let exit = ended(&mut watch, &run);
    assert_eq!((exit.signal, exit.reason.as_str()), (9, "killed"));
}

#[test]
fn what_cannot_be_run_is_told() {
    let Some(daemon) = Daemon::start(&[]) else { return };
    let mut client = daemon.client();
    let asked = sh("sleep 100");
    let (fds, ..) = pipes();
    let run = exec(&asked.id, &["/no/such"]);
    assert_eq!(client.exec(run.clone(), &borrowed(&fds)).unwrap_err().code, "AGENT_NOT_FOUND");
    client.launch(&asked).unwrap();
    assert_eq!(client.exec(run.clone(), &borrowed(&fds)).unwrap_err().code, "COMMAND_NOT_FOUND");
    let tty = v1::Exec { tty: true, ..run.clone() };
    assert_eq!(client.exec(tty.clone(), &borrowed(&fds)).unwrap_err().field, "fds");
    assert_eq!(client.exec(tty, &borrowed(&fds[..1])).unwrap_err().field, "fds");
    client.freeze(&asked.id).unwrap();
    assert_eq!(client.exec(run.clone(), &borrowed(&fds)).unwrap_err().code, "AGENT_PAUSED");
    client.kill(&asked.id).unwrap();
    assert_eq!(client.exec(run, &borrowed(&fds)).unwrap_err().code, "AGENT_NOT_RUNNING");
}

#[test]
fn a_command_may_have_a_terminal() {
    let Some(daemon) = Daemon::start(&[]) else { return };
    let mut client = daemon.client();
    let mut watch = daemon.client().watch(0);
    let asked = sh("sleep 100");
    client.launch(&asked).unwrap();
    let size = nix::pty::Winsize { ws_row: 20, ws_col: 70, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = nix::pty::openpty(Some(&size), None).unwrap();
    let run = v1::Exec {
        tty: true,
        ..exec(&asked.id, &["/bin/sh", "-c", "stty size; test -t 0 && echo terminal"])
    };
    client.exec(run.clone(), &borrowed(&[pty.slave])).unwrap();
    assert_eq!(ended(&mut watch, &run).code, 0);
    let (mut out, mut master) = (Vec::new(), std::fs::File::from(pty.master));
    // What was written comes in parts; after the last one, with nobody at the other end, an error.
    let _ = master.read_to_end(&mut out);
    let out = String::from_utf8_lossy(&out).into_owned();
    assert!(out.contains("20 70") && out.contains("terminal"), "{out}");
    client.kill(&asked.id).unwrap();
}

#[test]
fn what_was_denied_to_a_command_is_recorded() {
    let Some(daemon) = Daemon::start(&[]) else { return };
    let mut client = daemon.client();
    let mut watch = daemon.client().watch(0);
    let asked = sh("sleep 100");
    client.launch(&asked).unwrap();
    let script = "import ctypes\nlibc = ctypes.CDLL(None)\nfor i in range(20): libc.mount(b'n', b'/tmp', b'tmpfs', 0, None)";
    let run = exec(&asked.id, &["python3", "-c", script]);
    let (fds, _stdin, _stdout, _stderr) = pipes();
    client.exec(run.clone(), &borrowed(&fds)).unwrap();
    assert_eq!(ended(&mut watch, &run).code, 0);
    let denied = || -> u64 {
        let all = crate::records::records(&daemon);
        let of_it = all.iter().filter(|r| r.kind == "sys.denied" && r.agent == asked.id);
        let of_it =
            of_it.filter(|r| r.detail_json.contains(&run.exec_id) && r.detail_json.contains("\"mount\""));
        of_it
            .map(|r| {
                serde_json::from_str::<serde_json::Value>(&r.detail_json).unwrap()["count"].as_u64().unwrap()
            })
            .sum()
    };
    until("all denied calls are recorded", || denied() == 20);
    client.kill(&asked.id).unwrap();
}

#[test]
fn a_command_gets_streams_and_nothing_that_leads_out() {
    let Some(daemon) = Daemon::start(&[]) else { return };
    let mut client = daemon.client();
    let asked = sh("sleep 100");
    client.launch(&asked).unwrap();
    let mut with = |first: OwnedFd| {
        let (mut fds, ..) = pipes();
        fds[0] = first;
        client.exec(exec(&asked.id, &["/bin/true"]), &borrowed(&fds))
    };
    let open = |path: &str| OwnedFd::from(std::fs::File::open(path).unwrap());
    let named =
        |path: &str| rustix::fs::open(path, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    for (what, fd) in [
        ("a folder", open("/")),
        ("a folder's name", named("/etc")),
        ("a file", open("/etc/passwd")),
        ("a device", open("/dev/zero")),
        ("a device's name", named("/dev/null")),
        ("a socket", socket.into()),
        ("a terminal's other end", open("/dev/ptmx")),
    ] {
        let refused = with(fd).expect_err(what);
        assert_eq!((refused.code.as_str(), refused.field.as_str()), ("INVALID_FIELD", "fds"), "{what}");
    }
    with(open("/dev/null")).unwrap();
    let away = v1::Exec { cwd: b"/proc/self/fd/3".to_vec(), ..exec(&asked.id, &["/bin/true"]) };
    let (fds, ..) = pipes();
    assert_eq!(client.exec(away, &borrowed(&fds)).unwrap_err().field, "cwd");
    client.kill(&asked.id).unwrap();
}
