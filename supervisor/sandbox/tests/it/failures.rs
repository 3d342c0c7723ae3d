//! A launch that fails says which layer it was, and leaves nothing that runs.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use aion_sandbox::{BindTarget, Error, LaunchFds, Plan, Seccomp, Slot};
use aion_types::LayerName;

use crate::harness::{Home, argv, skip, spawner, spec};

/// Launches with something broken; the slot's init must be gone afterwards.
fn fails(break_it: impl FnOnce(&mut Plan, &mut LaunchFds, &Slot)) -> Error {
    let home = Home::new();
    let slot = spawner().spawn(spec()).unwrap();
    let pidfd: OwnedFd = slot.pidfd().unwrap().try_clone_to_owned().unwrap();
    let mut plan = argv(&["/bin/sleep", "1000"]);
    let mut fds = LaunchFds::new(home.journal_fd(), home.workspace_mount(&slot, false));
    break_it(&mut plan, &mut fds, &slot);
    let error = slot.launch(&plan, fds).map(drop).unwrap_err();
    // It was our child and has been reaped: nobody can be signalled any more.
    let gone = rustix::process::pidfd_send_signal(pidfd.as_fd(), rustix::process::Signal::KILL);
    assert_eq!(gone, Err(rustix::io::Errno::SRCH), "{error}");
    println!("{error}");
    error
}

fn null() -> OwnedFd {
    std::fs::File::open("/dev/null").unwrap().into()
}

#[test]
fn each_layer_that_fails_is_named() {
    if skip() {
        return;
    }
    let layer = |error: &Error| error.failed_layer();
    assert_eq!(layer(&fails(|_, fds, _| fds.workspace = null())), Some(LayerName::Workspace));
    assert_eq!(layer(&fails(|_, fds, _| fds.journal = null())), Some(LayerName::Disk));
    assert_eq!(layer(&fails(|plan, _, _| plan.cwd = b"/no/such".to_vec())), Some(LayerName::Workspace));
    let bad = |plan: &mut Plan| {
        plan.seccomp = Some(Seccomp { profile: "bad".into(), program: vec![0xff; 16], notify: None });
    };
    assert_eq!(layer(&fails(|plan, _, _| bad(plan))), Some(LayerName::Seccomp));
    let bind = |path: &[u8]| BindTarget { path: path.to_vec(), writable: false, directory: true };
    let error = fails(|plan, fds, _| {
        plan.binds = vec![bind(b"/usr/no-such-place")];
        fds.binds = vec![null()];
    });
    assert_eq!(layer(&error), Some(LayerName::Rootfs));
    let error = fails(|plan, fds, _| {
        plan.binds = vec![bind(b"/data")];
        fds.binds = vec![null()];
    });
    assert_eq!(layer(&error), Some(LayerName::Rootfs));
}

#[test]
fn impossible_plans_are_refused_before_anything_happens() {
    if skip() {
        return;
    }
    let field = |error: Error| match error {
        Error::InvalidPlan { field, .. } => field,
        other => panic!("{other}"),
    };
    assert_eq!(field(fails(|plan, _, _| plan.argv.clear())), "argv");
    assert_eq!(field(fails(|plan, _, _| plan.env = vec![b"x".to_vec()])), "env");
    assert_eq!(field(fails(|plan, _, _| plan.cwd = b"/a/../b".to_vec())), "cwd");
    assert_eq!(field(fails(|plan, _, _| plan.hostname = "a/b".into())), "hostname");
    for path in ["/proc/x", "/dev", "/run/secrets", "/usr", "/", "relative", "/a/./b", "/a//b"] {
        let error = fails(|plan, fds, _| {
            let path = path.as_bytes().to_vec();
            plan.binds = vec![BindTarget { path, writable: false, directory: true }];
            fds.binds = vec![null()];
        });
        assert_eq!(field(error), "binds", "{path}");
    }
    assert_eq!(field(fails(|_, fds, _| fds.rootfs = Some(null()))), "rootfs");
    assert_eq!(field(fails(|_, fds, _| fds.binds = vec![null()])), "binds");
    let error = spawner().spawn(aion_sandbox::SlotSpec::new(0)).map(drop).unwrap_err();
    assert_eq!(field(error), "uid_base");
}

#[test]
fn an_init_that_is_killed_or_stopped_does_not_hang_the_launch() {
    if skip() {
        return;
    }
    let error = fails(|_, _, slot| {
        let pidfd = slot.pidfd().unwrap();
        rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL).unwrap();
        std::thread::sleep(Duration::from_millis(50));
    });
    assert!(matches!(error, Error::InitDied { .. } | Error::Host { .. }), "{error}");

    let home = Home::new();
    let mut short = spec();
    short.timeout = Duration::from_millis(200);
    let slot = spawner().spawn(short).unwrap();
    let pidfd = slot.pidfd().unwrap();
    rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::STOP).unwrap();
    let error = home.launch_in(slot, &argv(&["/bin/true"])).map(drop).unwrap_err();
    assert!(matches!(error, Error::Timeout { ms: 200 }), "{error}");
}

#[test]
fn an_unused_slot_goes_away() {
    if skip() {
        return;
    }
    let slot = spawner().spawn(spec()).unwrap();
    let pidfd: OwnedFd = slot.pidfd().unwrap().try_clone_to_owned().unwrap();
    slot.discard();
    let gone = rustix::process::pidfd_send_signal(pidfd.as_fd(), rustix::process::Signal::KILL);
    assert_eq!(gone, Err(rustix::io::Errno::SRCH));
}
