//! What an agent sees.

use std::net::TcpListener;
use std::os::unix::fs::MetadataExt as _;

use aion_e2e::Daemons;

use crate::Shared;
use crate::agent::{detached_sh, pair, path, python, sh, status_field, workspace};

fn stdout(daemons: &Daemons, script: &str) -> String {
    sh(daemons, &[], script).ok().text()
}

pub(crate) fn its_own_processes_alone(shared: &Shared) {
    let daemons = pair(shared);
    let out = python(
        daemons,
        &[],
        "import os; print(os.getpid(), sorted(int(p) for p in os.listdir('/proc') if p.isdigit()))",
    );
    let out = out.ok().text();
    let (own, all) = out.trim().split_once(' ').unwrap();
    assert!(all.split(',').count() <= 2, "only PID 1 and itself: {out}");
    assert!(own.parse::<u32>().unwrap() < 100, "numbers of its own: {out}");
    // PID 1 is AION's, and cannot be looked into.
    let out = stdout(daemons, "cat /proc/1/comm; cat /proc/1/environ 2>/dev/null | wc -c");
    assert!(out.starts_with("aion-init") && out.ends_with("0\n"), "{out}");
}

pub(crate) fn no_host_files(shared: &Shared) {
    let daemons = pair(shared);
    let secret = tempfile::Builder::new().prefix("aion-e2e-secret-").tempfile().unwrap();
    let state = daemons.state().to_str().unwrap();
    for hidden in [
        "/root",
        "/home",
        "/var/lib",
        "/boot",
        "/mnt",
        "/etc/shadow",
        "/etc/sudoers",
        secret.path().to_str().unwrap(),
        state,
    ] {
        let out = stdout(
            daemons,
            &format!("ls -A {hidden} 2>/dev/null | head -3; cat {hidden} 2>/dev/null | head -c 20"),
        );
        assert_eq!(out, "", "{hidden} shows something");
    }
    let users = stdout(daemons, "cat /etc/passwd");
    assert!(!users.contains("sshd") && !users.contains("daemon:"), "the host's users: {users}");
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_ne!(stdout(daemons, "uname -n"), host, "the host's name");
}

pub(crate) fn no_network(shared: &Shared) {
    let daemons = pair(shared);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let program = format!(
        "import socket\nfor where in (('127.0.0.1', {port}), ('1.1.1.1', 53), ('::1', {port})):\n  \
           s = socket.socket(socket.AF_INET6 if ':' in where[0] else socket.AF_INET)\n  s.settimeout(3)\n  \
           try: s.connect(where); print('connected', where)\n  except OSError as e: print('refused')\n\
         try: print(socket.gethostbyname('example.org'))\nexcept OSError: print('no names')\n\
         print([l.split(':')[0].strip() for l in open('/proc/net/dev').read().splitlines()[2:]])"
    );
    let out = python(daemons, &[], &program).ok().text();
    assert_eq!(out, "refused\nrefused\nrefused\nno names\n['lo']\n");
}

pub(crate) fn no_privileges(shared: &Shared) {
    let daemons = pair(shared);
    let status = stdout(daemons, "cat /proc/self/status");
    let field = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.unwrap_or_default().trim().to_owned()
    };
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(field("NoNewPrivs"), "1");
    assert_eq!(field("Seccomp"), "2");
    let out = stdout(
        daemons,
        "mount -t tmpfs x /tmp 2>&1; unshare -U true 2>&1; chroot / true 2>&1; su -c id 2>&1; true",
    );
    assert!(!out.contains("uid=0"), "{out}");
}

pub(crate) fn system_is_read_only(shared: &Shared) {
    let daemons = pair(shared);
    for file in [
        "/usr/x",
        "/etc/x",
        "/bin/x",
        "/x",
        "/etc/passwd",
        "/usr/bin/env",
        "/proc/sys/kernel/hostname",
        "/sys/x",
    ] {
        let out = stdout(daemons, &format!("(echo x > {file}) 2>/dev/null && echo written; true"));
        assert_eq!(out, "", "{file} can be written");
    }
}

pub(crate) fn a_private_tmp(shared: &Shared) {
    let daemons = pair(shared);
    let name = format!("aion-e2e-tmp-{}", std::process::id());
    let out = stdout(daemons, &format!("echo hi > /tmp/{name} && cat /tmp/{name}; ls -A /tmp | wc -l"));
    assert_eq!(out, "hi\n1\n", "its own alone");
    assert!(!std::env::temp_dir().join(&name).exists());
}

pub(crate) fn the_workspace(shared: &Shared) {
    let daemons = pair(shared);
    let dir = workspace();
    std::fs::write(dir.path().join("in"), "from the host").unwrap();
    let script =
        "pwd; cat in; mkdir -p a/b && echo from inside > a/b/out; ln -s /etc/passwd link; chmod 600 a/b/out";
    let out = sh(daemons, &["--workspace", path(&dir)], script).ok().text();
    assert_eq!(out, "/workspace\nfrom the host");
    let made = dir.path().join("a/b/out");
    assert_eq!(std::fs::read_to_string(&made).unwrap(), "from inside\n");
    let owner = std::fs::metadata(dir.path()).unwrap();
    let file = std::fs::metadata(&made).unwrap();
    assert_eq!(
        (file.uid(), file.gid()),
        (owner.uid(), owner.gid()),
        "what it makes belongs to the folder's owner"
    );

    let out = sh(
        daemons,
        &["--workspace", path(&dir), "--read-only-workspace"],
        "cat in; (echo x > in) 2>/dev/null || echo no",
    );
    assert_eq!(out.ok().text(), "from the hostno\n");
    assert_eq!(std::fs::read_to_string(dir.path().join("in")).unwrap(), "from the host");

    // A relative folder is the caller's.
    let out = daemons.ctl(["run", "--rm", "--workspace", ".", "--", "cat", "in"]).cwd(dir.path()).ok();
    assert_eq!(out.text(), "from the host");

    // Without one there is a private one, which is gone afterwards.
    assert_eq!(stdout(daemons, "pwd; ls -A | grep -v lost+found; echo x > y && cat y"), "/workspace\nx\n");
}

pub(crate) fn nothing_of_the_callers_environment(shared: &Shared) {
    let daemons = pair(shared);
    let out = sh(daemons, &["--env", "GIVEN=a b", "-e", "TAKEN"], "env")
        .env("AION_E2E_LEAK", "1")
        .env("TAKEN", "here")
        .ok();
    let text = out.text();
    assert!(
        text.lines().any(|line| line == "GIVEN=a b") && text.lines().any(|line| line == "TAKEN=here"),
        "{text}"
    );
    assert!(!text.contains("AION_E2E_LEAK") && !text.contains("LD_LIBRARY_PATH"), "{text}");
    assert!(text.lines().any(|line| line.starts_with("PATH=")), "{text}");
}

pub(crate) fn no_leaked_descriptors(shared: &Shared) {
    let out = python(pair(shared), &[], "import os; print(sorted(os.listdir('/proc/self/fd')))").ok().text();
    // The fourth is the folder that is being listed.
    assert_eq!(out, "['0', '1', '2', '3']\n");
}

pub(crate) fn an_unprivileged_user(shared: &Shared) {
    let agent = detached_sh(pair(shared), "user", &[], "sleep 60");
    let uid: u32 = status_field(agent.pid(), "Uid").split_whitespace().next().unwrap().parse().unwrap();
    assert!(uid >= 65536, "a user of its own, not {uid}");
    // The daemons go before agents; what they start does not.
    let nice = |pid: u32| -> i32 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit(')').next().unwrap().split_whitespace().nth(16).unwrap().parse().unwrap()
    };
    let init = status_field(agent.pid(), "PPid").trim().parse().unwrap();
    assert_eq!((nice(agent.pid()), nice(init)), (0, 0));
    let inside = pair(shared).ctl(["exec", &agent.name, "--", "nice"]).ok().text();
    assert_eq!(inside.trim(), "0", "a command that runs beside it");
    let other = detached_sh(pair(shared), "user", &[], "sleep 60");
    let second: u32 = status_field(other.pid(), "Uid").split_whitespace().next().unwrap().parse().unwrap();
    assert_ne!(uid, second, "no two agents are one user");
}
