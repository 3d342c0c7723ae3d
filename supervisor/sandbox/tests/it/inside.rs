//! What an agent sees around it: itself, its file system, its processes, and nothing of the host.

use std::os::unix::fs::MetadataExt;

use aion_sandbox::{BindTarget, DeviceNode, LaunchFds, Secret, mounts};
use aion_types::LayerName;

use crate::harness::{Home, sh, sh_text, skip, spawner, spec};

#[test]
fn output_and_exit_code_arrive() {
    if skip() {
        return;
    }
    let seen = Home::new().run(&sh("echo hello; echo bad >&2; exit 3"));
    assert_eq!((seen.text().as_str(), seen.errors().as_str()), ("hello\n", "bad\n"));
    assert_eq!((seen.exit.unwrap().code, seen.ended.code), (3, 3));
}

#[test]
fn it_is_an_ordinary_user_without_privileges() {
    if skip() {
        return;
    }
    let text = sh_text(
        "id; grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status; umask; ulimit -c; ulimit -n; cat /proc/self/oom_score_adj",
    );
    assert!(text.contains("uid=1000(agent) gid=1000(agent) groups=1000(agent)"), "{text}");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(text.contains(&format!("{set}:\t0000000000000000")), "{text}");
    }
    assert!(text.contains("NoNewPrivs:\t1") && text.contains("Seccomp:\t2"), "{text}");
    assert!(text.ends_with("0022\n0\n1024\n500\n"), "{text}");
}

#[test]
fn it_sees_only_its_own_processes() {
    if skip() {
        return;
    }
    let text =
        sh_text("echo /proc/[0-9]*; cat /proc/1/comm; echo $$; cat /proc/1/environ /proc/1/maps 2>&1; true");
    assert!(text.starts_with("/proc/1 /proc/2"), "{text}");
    assert!(text.lines().next().unwrap().split(' ').count() <= 3, "{text}");
    assert!(text.contains("\naion-init\n2\n"), "{text}");
    assert_eq!(text.matches("Permission denied").count(), 2, "{text}");
}

#[test]
fn no_file_of_the_host_is_there() {
    if skip() {
        return;
    }
    let text = sh_text(
        "ls /; ls /root /home /var /boot /opt /srv /mnt 2>/dev/null; ls /proc/1/root 2>/dev/null; \
         cat /etc/shadow /etc/machine-id 2>/dev/null; grep -c . /etc/passwd; grep -v ' - \\(proc\\|tmpfs\\|devpts\\|devtmpfs\\) ' \
         /proc/self/mountinfo | cut -d' ' -f5 | sort -u | tr '\\n' ' '",
    );
    let top: Vec<&str> = text.lines().take_while(|l| !l.chars().all(|c| c.is_ascii_digit())).collect();
    let known = ["bin", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "run", "sbin", "sys", "tmp"];
    assert!(top.iter().all(|t| known.contains(t) || ["usr", "workspace"].contains(t)), "{text}");
    let mounts = text.lines().last().unwrap();
    for mount in mounts.split_whitespace() {
        let ours = ["/usr", "/etc/", "/workspace"].iter().any(|m| mount.starts_with(m));
        assert!(ours || ["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"].contains(&mount), "{text}");
    }
}

#[test]
fn each_mount_is_one_of_ours() {
    if skip() {
        return;
    }
    let text = sh_text("cut -d' ' -f5,6 /proc/self/mountinfo");
    println!("{text}");
    let mut seen = std::collections::HashSet::new();
    for line in text.lines() {
        let (place, options) = line.split_once(' ').unwrap();
        assert!(seen.insert(place), "{place} is covered by another mount: {text}");
        let options: Vec<_> = options.split(',').collect();
        let writable = ["/tmp", "/run", "/dev/shm", "/dev/pts", "/workspace", "/proc"].contains(&place);
        assert_eq!(options.contains(&"rw"), writable, "{line}");
        assert!(options.contains(&"nosuid"), "{line}");
        let device = place.starts_with("/dev/") && place != "/dev/shm" || options.contains(&"noexec");
        assert!(options.contains(&"nodev") || device, "{line}");
    }
    for place in ["/", "/proc", "/proc/sys", "/dev", "/dev/null", "/usr", "/etc", "/workspace"] {
        assert!(seen.contains(place), "{place}");
    }
}

#[test]
fn the_system_cannot_be_written() {
    if skip() {
        return;
    }
    let mut plan = sh(
        "for d in / /usr /etc /dev /proc/sys/kernel /sys /run/secrets; do touch $d/x 2>/dev/null && echo $d; done; \
         echo x > /proc/sys/kernel/hostname && echo hostname; echo x > /etc/passwd && echo passwd; \
         mount -o remount,rw / 2>/dev/null && echo remount; true",
    );
    plan.secrets = vec![Secret { name: "token".into(), value: b"s3cret".to_vec() }];
    let home = Home::new();
    assert_eq!(home.run(&plan).good(), "");
    // The same without Landlock and seccomp: the mounts and the user stop it as well.
    let home = Home::new();
    plan.landlock = None;
    plan.seccomp = None;
    assert_eq!(home.run(&plan).good(), "");
}

#[test]
fn its_own_places_can_be_written() {
    if skip() {
        return;
    }
    let text = sh_text(
        "for d in /workspace /tmp /run /dev/shm; do echo x > $d/file && cat $d/file; done; \
         mkdir /tmp/d && mv /tmp/file /tmp/d/ && ln -s d /tmp/l && cat /tmp/l/file; \
         echo x > /dev/null; head -c 3 /dev/zero | wc -c; head -c 3 /dev/urandom | wc -c; \
         cp /bin/true /tmp/t && /tmp/t && echo executed",
    );
    assert_eq!(text, "x\nx\nx\nx\nx\n3\n3\nexecuted\n");
}

#[test]
fn scratch_space_has_a_limit() {
    if skip() {
        return;
    }
    let mut plan = sh(
        "head -c 9000000 /dev/zero > /tmp/a; stat -c %s /tmp/a; df -k /tmp /run /dev/shm | awk '{print $2}'",
    );
    plan.scratch_bytes = 8 << 20;
    let text = Home::new().run(&plan).text();
    assert!(text.contains("8192\n8192\n8192"), "{text}");
    let size: u64 = text.lines().next().unwrap().parse().unwrap();
    assert!(size <= 8 << 20, "{text}");
}

#[test]
fn names_and_environment_are_the_plans() {
    if skip() {
        return;
    }
    let mut plan =
        sh("uname -n; cat /etc/hostname; env | sort; pwd; cut -d: -f3 /proc/self/cgroup | sort -u");
    plan.hostname = "researcher-1".into();
    plan.env = vec![b"PATH=/usr/bin".to_vec(), b"A=b c".to_vec()];
    plan.cwd = b"/tmp".to_vec();
    let text = Home::new().run(&plan).good();
    assert!(text.starts_with("researcher-1\nresearcher-1\nA=b c\nPATH=/usr/bin\nPWD=/tmp\n"), "{text}");
    assert!(text.ends_with("/tmp\n/\n"), "the cgroup namespace shows a path: {text}");
}

#[test]
fn there_is_no_network() {
    if skip() {
        return;
    }
    let text = sh_text(
        "cat /proc/net/dev | tail -n +3 | cut -d: -f1; \
         python3 -c 'import socket\ntry: socket.create_connection((\"127.0.0.1\", 22), 2)\nexcept OSError as e: print(type(e).__name__)'",
    );
    assert_eq!(text.replace(' ', ""), "lo\nPermissionError\n");
}

#[test]
fn no_descriptor_and_no_key_is_inherited() {
    if skip() {
        return;
    }
    let text = sh_text("ls /proc/self/fd | tr '\\n' ' '; readlink /proc/self/fd/0; cat /proc/keys 2>&1");
    // 3 is the folder that ls reads.
    assert_eq!(text, "0 1 2 3 /dev/null\n");
}

#[test]
fn what_it_makes_belongs_to_the_folders_owner() {
    if skip() {
        return;
    }
    for (uid, gid) in [(0, 0), (1000, 1000), (4321, 8765)] {
        let home = Home::new();
        std::os::unix::fs::chown(home.workspace(), Some(uid), Some(gid)).unwrap();
        let theirs = home.workspace().join("theirs");
        std::fs::write(&theirs, "old").unwrap();
        std::os::unix::fs::chown(&theirs, Some(uid), Some(gid)).unwrap();
        let text = home.run(&sh("echo new > made; echo more >> theirs; stat -c %U made theirs .")).good();
        assert_eq!(text, "agent\nagent\nagent\n");
        let meta = std::fs::metadata(home.workspace().join("made")).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (uid, gid));
        assert_eq!(std::fs::read_to_string(theirs).unwrap(), "oldmore\n");
    }
}

#[test]
fn a_read_only_workspace_is_read_only() {
    if skip() {
        return;
    }
    let home = Home::new();
    std::fs::write(home.workspace().join("data"), "data").unwrap();
    let mut plan = sh("cat data; touch x 2>/dev/null || echo refused");
    plan.workspace_read_only = true;
    assert_eq!(home.run(&plan).good(), "datarefused\n");
}

#[test]
fn secrets_are_files_for_the_agent_alone() {
    if skip() {
        return;
    }
    let mut plan = sh(
        "cat /run/secrets/token; stat -c '%a %U' /run/secrets/token /run/secrets; echo x > /run/secrets/token",
    );
    plan.secrets = vec![Secret { name: "token".into(), value: b"s3cret\n".to_vec() }];
    let seen = Home::new().run(&plan);
    assert_eq!(seen.text(), "s3cret\n400 agent\n500 agent\n");
    assert_ne!(seen.exit.unwrap().code, 0);
}

#[test]
fn binds_are_where_they_are_on_the_host() {
    if skip() {
        return;
    }
    let home = Home::new();
    let data = tempfile::tempdir_in("/var/tmp").unwrap();
    std::fs::write(data.path().join("in"), "in").unwrap();
    std::os::unix::fs::chown(data.path(), Some(77), Some(77)).unwrap();
    let path = data.path().to_str().unwrap().to_owned();
    for writable in [false, true] {
        let mut plan = sh(&format!("cat {path}/in; touch {path}/out && echo written || echo refused"));
        plan.binds = vec![BindTarget { path: path.clone().into_bytes(), writable, directory: true }];
        let slot = spawner().spawn(spec()).unwrap();
        let dir = mounts::open_path(data.path(), LayerName::Rootfs).unwrap();
        let mut fds = LaunchFds::new(home.journal_fd(), home.workspace_mount(&slot, false));
        fds.binds.push(slot.bind_mount(&dir, writable).unwrap());
        std::fs::remove_file(home.journal()).unwrap_or_default();
        let mut fds = LaunchFds { journal: home.journal_fd(), ..fds };
        fds.stdin = None;
        let text = home.finish(slot.launch(&plan, fds).unwrap()).good();
        assert_eq!(text, if writable { "inwritten\n" } else { "inrefused\n" });
    }
    assert_eq!(std::fs::metadata(data.path().join("out")).unwrap().uid(), 77);
}

#[test]
fn a_dev_of_its_own_has_its_nodes_beside_everybodys() {
    if skip() {
        return;
    }
    let Some((path, number)) = ["/dev/fuse", "/dev/net/tun"].into_iter().find_map(|path| {
        let opened = std::fs::File::options().read(true).write(true).open(path).ok()?;
        Some((path, opened.metadata().ok()?.rdev()))
    }) else {
        println!("skipped: neither /dev/fuse nor /dev/net/tun can be opened here");
        return;
    };
    let home = Home::new();
    let mut plan = sh(&format!(
        "exec 3<>{path} && echo opened; stat -c '%F %a %g' {path}; chmod 666 {path} 2>/dev/null || echo kept; \
         rm {path} 2>/dev/null || echo stays; echo x >/dev/null && head -c 3 /dev/zero | wc -c; \
         exec 4<>/dev/ptmx && echo terminal; echo x >/dev/shm/x && echo memory; \
         find /dev -xdev -type c | sort | tr '\\n' ' '; readlink /dev/fd"
    ));
    plan.devices = true;
    let slot = spawner().spawn(spec()).unwrap();
    let mut fds = LaunchFds::new(home.journal_fd(), home.workspace_mount(&slot, false));
    let relative = path.strip_prefix("/dev/").unwrap();
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    fds.devices = Some(slot.device_mount(&[DeviceNode { path: relative.into(), major, minor }]).unwrap());
    let text = home.finish(slot.launch(&plan, fds).unwrap()).good();
    let mut nodes: Vec<String> =
        ["null", "zero", "full", "random", "urandom", "tty"].map(|name| format!("/dev/{name}")).to_vec();
    nodes.push(path.to_owned());
    nodes.sort();
    let expected = format!(
        "opened\ncharacter special file 660 1000\nkept\nstays\n3\nterminal\nmemory\n{} /proc/self/fd\n",
        nodes.join(" ")
    );
    assert_eq!(text, expected);
}

#[test]
fn a_dev_and_its_mount_go_together() {
    if skip() {
        return;
    }
    let home = Home::new();
    let slot = spawner().spawn(spec()).unwrap();
    let mut fds = LaunchFds::new(home.journal_fd(), home.workspace_mount(&slot, false));
    fds.devices = Some(slot.device_mount(&[]).unwrap());
    assert!(slot.launch(&sh("true"), fds).is_err());
    // What the sandbox has itself is not covered.
    let slot = spawner().spawn(spec()).unwrap();
    let error = slot.device_mount(&[DeviceNode { path: "null".into(), major: 10, minor: 229 }]).unwrap_err();
    assert_eq!(error.failed_layer(), Some(LayerName::Devices));
}

#[test]
fn paths_through_links_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/etc", dir.path().join("link")).unwrap();
    let error = mounts::open_path(&dir.path().join("link"), LayerName::Workspace).unwrap_err();
    assert!(error.to_string().contains("symbolic link"), "{error}");
    assert_eq!(error.failed_layer(), Some(LayerName::Workspace));
    assert!(mounts::open_path("relative".as_ref(), LayerName::Workspace).is_err());
}
