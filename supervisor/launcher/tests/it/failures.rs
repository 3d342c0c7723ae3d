//! What cannot be launched is told by layer or field, and leaves nothing.

use aion_launcher_proto::v1::{self, request::Op};

use crate::client::Client;
use crate::daemon::Daemon;
use crate::fixtures::{directory, launch, sh};
use crate::leftovers;

/// The launch fails with this code, and nothing of it is left.
fn fails(daemon: &Daemon, client: &mut Client, asked: &v1::Launch, code: &str) -> v1::Error {
    let error = client.launch(asked).unwrap_err();
    assert_eq!(error.code, code, "{error:?}");
    assert!(client.list().is_empty());
    for at in ["launcher/agents", "agents"] {
        assert!(!daemon.state().join(at).join(&asked.id).exists(), "{at} is left after {code}");
    }
    assert!(
        !daemon.state().join("volumes").join(format!("volume-{}", asked.id)).exists(),
        "a volume after {code}"
    );
    error
}

#[test]
fn each_failure_has_its_code() {
    let Some(daemon) = Daemon::start(&[]) else { return };
    let mut client = daemon.client();
    fails(&daemon, &mut client, &launch(&["/no/such/program"]), "COMMAND_NOT_FOUND");
    fails(&daemon, &mut client, &launch(&["no-such-program"]), "COMMAND_NOT_FOUND");
    fails(&daemon, &mut client, &launch(&["/etc/passwd"]), "COMMAND_NOT_EXECUTABLE");
    let asked = v1::Launch { seccomp_profile: "nothing".into(), ..launch(&["/bin/true"]) };
    fails(&daemon, &mut client, &asked, "PROFILE_NOT_FOUND");
    let asked = v1::Launch { workspace: directory("/no/such/folder".as_ref()), ..launch(&["/bin/true"]) };
    let mut unlimited = asked.clone();
    unlimited.limits.as_mut().unwrap().disk_bytes = 0;
    let error = fails(&daemon, &mut client, &unlimited, "LAYER_FAILED");
    assert_eq!((error.layer.as_str(), error.errno), ("workspace", 2));
    let file = tempfile::NamedTempFile::new().unwrap();
    unlimited.workspace = directory(file.path());
    fails(&daemon, &mut client, &unlimited, "WORKSPACE_INVALID");
    let dir = tempfile::tempdir().unwrap();
    let asked = v1::Launch { workspace: directory(dir.path()), ..launch(&["/bin/true"]) };
    assert_eq!(fails(&daemon, &mut client, &asked, "LAYER_FAILED").layer, "disk");
    let asked = v1::Launch { workspace: directory(&daemon.state().join("audit")), ..launch(&["/bin/true"]) };
    assert_eq!(fails(&daemon, &mut client, &asked, "INVALID_FIELD").field, "workspace");
    let asked = v1::Launch { cwd: b"/no/such/folder".to_vec(), ..launch(&["/bin/true"]) };
    fails(&daemon, &mut client, &asked, "LAYER_FAILED");
    let asked = v1::Launch {
        binds: vec![v1::Bind { path: b"/usr".to_vec(), writable: false }],
        ..launch(&["/bin/true"])
    };
    assert_eq!(fails(&daemon, &mut client, &asked, "INVALID_FIELD").field, "binds");
    // And a good one still works.
    let asked = launch(&["/bin/true"]);
    client.launch(&asked).unwrap();
    assert_eq!(client.wait(&asked.id).exit.unwrap().code, 0);
}

#[test]
fn a_failed_restart_leaves_the_agent_as_it_was() {
    let Some(daemon) = Daemon::start(&[]) else { return };
    let mut client = daemon.client();
    let asked = sh("echo kept > note; exit 4");
    client.launch(&asked).unwrap();
    let before = client.wait(&asked.id);
    let broken = v1::Launch { incarnation: 1, argv: vec![b"/nothing".to_vec()], ..asked.clone() };
    assert_eq!(client.launch(&broken).unwrap_err().code, "COMMAND_NOT_FOUND");
    assert_eq!(client.get(&asked.id).unwrap().exit, before.exit);
    let mended =
        v1::Launch { incarnation: 1, argv: vec![b"/bin/cat".to_vec(), b"note".to_vec()], ..asked.clone() };
    client.launch(&mended).unwrap();
    client.wait(&asked.id);
    assert_eq!(daemon.output(&asked.id).0, b"kept\n");
}

#[test]
fn frames_that_are_none_end_the_connection_alone() {
    let Some(daemon) = Daemon::start(&[]) else { return };
    for garbage in [&b"\xff\xff\xff\xff"[..], b"\x00\x00\x00\x04\xff\xff\xff\xff"] {
        let mut client = daemon.client();
        client.send_bytes(garbage, &[]).unwrap();
        assert!(client.frame().is_none());
    }
    let mut client = daemon.client();
    let file = tempfile::tempfile().unwrap();
    let nine = [std::os::fd::AsFd::as_fd(&file); 9];
    client.send_bytes(b"\x00\x00\x00\x01", &nine).unwrap();
    assert!(client.frame().is_none());
    let error =
        daemon.client().call(Op::Freeze(v1::Freeze { id: "x".into(), ..Default::default() })).unwrap_err();
    assert_eq!((error.code.as_str(), error.field.as_str()), ("INVALID_FIELD", "id"));
}

#[test]
fn others_may_not_connect() {
    use std::os::unix::process::CommandExt;
    let Some(daemon) = Daemon::start(&[]) else { return };
    // Let the file's mode through, so that the launcher itself must refuse.
    std::fs::set_permissions(daemon.socket(), std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    std::fs::set_permissions(daemon.state(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let script = "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.sendall(b'\\0\\0\\0\\4\\x08\\1\\x4a\\0'); print(len(s.recv(9)))";
    let output = std::process::Command::new("python3")
        .args(["-c", script])
        .arg(daemon.socket())
        .uid(65_534)
        .gid(65_534)
        .output()
        .unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(said.starts_with('0') || said.contains("reset") || said.contains("Broken pipe"), "{said}");
}

#[test]
fn a_second_launcher_is_refused() {
    let Some(daemon) = Daemon::start(&[]) else { return };
    assert!(!daemon.purge(), "purge must not work beside a launcher");
    assert!(leftovers::find(&daemon.cgroup()).len() > 1, "it went all the same");
}

/// A small file system of its own, unmounted at the end.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("aion-full-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        nix::mount::mount(Some("aion"), &path, Some("tmpfs"), nix::mount::MsFlags::empty(), Some("size=48m"))
            .unwrap();
        Self(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn on_a_full_disk_nothing_starts_and_everything_stops() {
    use crate::client::until;
    use std::io::Write;
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let disk = SmallDisk::new();
    let Some(mut daemon) = Daemon::at(&disk.0, &["--pool", "1"]) else { return };
    let mut client = daemon.client();
    let running = sh("while :; do /bin/true; done");
    client.launch(&running).unwrap();
    let filler = disk.0.join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    let mut piece = 1 << 20;
    while piece > 0 {
        if file.write_all(&vec![1; piece]).is_err() {
            piece /= 2;
        }
    }
    let error = client.launch(&launch(&["/bin/true"])).unwrap_err();
    assert_eq!(error.code, "DISK_FULL", "{error:?}");
    let begun = std::time::Instant::now();
    assert_eq!(client.kill(&running.id).unwrap().exit.unwrap().reason, "killed");
    assert!(begun.elapsed().as_secs() < 15, "{:?}", begun.elapsed());
    drop(file);
    std::fs::remove_file(&filler).unwrap();
    let again = launch(&["/bin/true"]);
    until("there is room again", || client.launch(&again).is_ok());
    client.wait(&again.id);
    until("what had waited is written", || {
        crate::records::records(&daemon).iter().any(|r| r.kind == "agent.exited" && r.agent == again.id)
    });
    assert!(
        crate::records::records(&daemon).iter().any(|r| r.kind == "agent.killed" && r.agent == running.id)
    );
    daemon.stop();
    let report = aion_audit::verify(&disk.0.join("audit"), None).unwrap();
    assert!(report.faults.is_empty(), "{:?}", report.faults);
}
