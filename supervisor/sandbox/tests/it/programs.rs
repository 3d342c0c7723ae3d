//! Programs of several kinds run, and are found as a shell finds them.

use std::process::Command;

use aion_sandbox::{LaunchFds, RootfsKind, mounts};
use aion_types::LayerName;

use crate::harness::{Home, argv, sh, skip, spawner, spec};

#[test]
fn python_runs() {
    if skip() {
        return;
    }
    let script = "import json, os, ssl, sqlite3, subprocess, threading, multiprocessing, tempfile\n\
        t = threading.Thread(target=lambda: None); t.start(); t.join()\n\
        q = multiprocessing.Queue(); q.put(1); print(q.get())\n\
        print(subprocess.check_output(['echo', 'child']).decode().strip())\n\
        open('/workspace/f', 'w').write('x'); print(os.getuid(), os.cpu_count() > 0)";
    let text = Home::new().run(&argv(&["python3", "-c", script])).good();
    assert_eq!(text, "1\nchild\n1000 True\n");
}

#[test]
fn programs_can_have_terminals_of_their_own() {
    if skip() {
        return;
    }
    let script = "import pty\nprint(pty.spawn(['sh', '-c', 'tty; test -t 1 && exit 5']) >> 8)";
    let text = Home::new().run(&argv(&["python3", "-c", script])).good();
    assert_eq!(text.replace('\r', ""), "/dev/pts/0\n5\n");
}

#[test]
fn node_runs() {
    if skip() {
        return;
    }
    if !std::path::Path::new("/usr/bin/node").exists() {
        eprintln!("skipped: no /usr/bin/node");
        return;
    }
    let script = "const fs = require('fs'); fs.writeFileSync('/workspace/f', 'x'); \
        new (require('worker_threads').Worker)('process.exit(0)', {eval: true}).on('exit', () => \
        console.log(require('child_process').execSync('echo child').toString().trim(), process.getuid()));";
    assert_eq!(Home::new().run(&argv(&["node", "-e", script])).good(), "child 1000\n");
}

#[test]
fn a_static_binary_and_a_script_run_from_the_workspace() {
    if skip() {
        return;
    }
    let home = Home::new();
    let source = home.dir.path().join("hello.c");
    std::fs::write(
        &source,
        "#include <unistd.h>\nint main(void) { return write(1, \"static\\n\", 7) != 7; }\n",
    )
    .unwrap();
    let program = home.workspace().join("hello");
    let built = Command::new("cc").args(["-static", "-o"]).arg(&program).arg(&source).status();
    if !built.is_ok_and(|s| s.success()) {
        eprintln!("skipped: no C compiler for a static binary");
        return;
    }
    assert_eq!(home.run(&argv(&["./hello"])).good(), "static\n");

    let home = Home::new();
    let script = home.workspace().join("s");
    std::fs::write(&script, "#!/usr/bin/env python3\nprint('script')\n").unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    assert_eq!(home.run(&argv(&["/workspace/s"])).good(), "script\n");
}

#[test]
fn what_cannot_be_executed_says_why() {
    if skip() {
        return;
    }
    let home = Home::new();
    std::fs::write(home.workspace().join("data"), "data").unwrap();
    std::fs::write(home.workspace().join("no-interpreter"), "#!/no/such\n").unwrap();
    for name in ["data", "no-interpreter"] {
        let file = home.workspace().join(name);
        let mode = if name == "data" { 0o644 } else { 0o755 };
        std::fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    }
    for (program, code) in [
        ("no-such-program", 127),
        ("/no/such/program", 127),
        ("/workspace/no-interpreter", 127),
        ("/workspace/data", 126),
        ("/workspace", 126),
        ("/bin/true/x", 127),
    ] {
        let error = Home::new().launch(&argv(&[program])).err();
        let error = home.launch(&argv(&[program])).err().or(error).unwrap();
        assert_eq!(error.shell_code(), Some(code), "{program}: {error}");
    }
}

#[test]
fn a_root_folder_of_ones_own() {
    if skip() {
        return;
    }
    let Some(busybox) =
        ["/bin/busybox", "/usr/bin/busybox"].iter().find(|p| std::path::Path::new(p).exists())
    else {
        eprintln!("skipped: no busybox");
        return;
    };
    let root = tempfile::tempdir().unwrap();
    std::fs::set_permissions(root.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for name in ["bin", "proc", "dev", "tmp", "run"] {
        std::fs::create_dir(root.path().join(name)).unwrap();
    }
    std::fs::copy(busybox, root.path().join("bin/sh")).unwrap();
    let mut plan = sh("echo /*; echo x > /tmp/x; echo x > /x");
    plan.rootfs = RootfsKind::Directory;
    let launch = |plan| {
        let home = Home::new();
        let slot = spawner().spawn(spec()).unwrap();
        let mut fds = LaunchFds::new(home.journal_fd(), home.workspace_mount(&slot, false));
        let dir = mounts::open_path(root.path(), LayerName::Rootfs).unwrap();
        fds.rootfs = Some(mounts::rootfs(std::os::fd::AsFd::as_fd(&dir)).unwrap());
        slot.launch(plan, fds).map(|launched| home.finish(launched))
    };
    let error = launch(&plan).unwrap_err();
    assert_eq!(error.failed_layer(), Some(LayerName::Workspace));
    assert!(error.to_string().contains("/workspace"), "{error}");

    std::os::unix::fs::symlink("/tmp", root.path().join("workspace")).unwrap();
    assert!(launch(&plan).unwrap_err().to_string().contains("symbolic link"));

    std::fs::remove_file(root.path().join("workspace")).unwrap();
    std::fs::create_dir(root.path().join("workspace")).unwrap();
    let seen = launch(&plan).unwrap();
    assert_eq!(seen.text(), "/bin /dev /proc /run /tmp /workspace\n");
    assert!(seen.errors().contains("/x"), "{}", seen.errors());
}
