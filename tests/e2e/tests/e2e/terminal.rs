//! Agents with a terminal.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use aion_e2e::{Ctl, slowness};
use nix::pty::{Winsize, openpty};

use crate::Shared;
use crate::agent::{Agent, pair};

/// The command line on a terminal of its own.
struct Terminal {
    keyboard: File,
    screen: mpsc::Receiver<Vec<u8>>,
    shown: String,
    child: Child,
}

impl Terminal {
    fn start(ctl: Ctl) -> Self {
        let size = Winsize { ws_row: 33, ws_col: 99, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).unwrap();
        let slave = |fd: &OwnedFd| Stdio::from(fd.try_clone().unwrap());
        let mut command = ctl.into_command();
        command.stdin(slave(&pty.slave)).stdout(slave(&pty.slave)).stderr(slave(&pty.slave));
        let child = command.spawn().unwrap();
        drop((command, pty.slave));
        let mut reader = File::from(pty.master.try_clone().unwrap());
        let (send, screen) = mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // EIO is the end: the last descriptor of the other side is closed.
            while let Ok(read @ 1..) = reader.read(&mut buffer) {
                if send.send(buffer[..read].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { keyboard: File::from(pty.master), screen, shown: String::new(), child }
    }

    fn types(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).unwrap();
    }

    fn await_text(&mut self, text: &str) {
        let end = Instant::now() + Duration::from_secs(20) * slowness();
        while !self.shown.contains(text) {
            let left = end.saturating_duration_since(Instant::now());
            match self.screen.recv_timeout(left) {
                Ok(chunk) => self.shown.push_str(&String::from_utf8_lossy(&chunk)),
                Err(_) => panic!("the terminal never showed {text:?} but {:?}", self.shown),
            }
        }
    }

    fn ends(&mut self) -> i32 {
        let end = Instant::now() + Duration::from_secs(20) * slowness();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(Instant::now() < end, "no end; the terminal shows {:?}", self.shown);
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn a_terminal_inside(shared: &Shared) {
    let daemons = pair(shared);
    let script =
        "test -t 0 && test -t 1 && echo is a terminal; stty size; read line; echo \"got $line\"; exit 3";
    let mut terminal = Terminal::start(daemons.ctl(["run", "--rm", "-t", "--", "sh", "-c", script]));
    terminal.await_text("is a terminal");
    terminal.await_text("33 99");
    terminal.types(b"hello\r");
    terminal.await_text("got hello");
    assert_eq!(terminal.ends(), 3);

    let agent = crate::agent::detached(daemons, "tty-exec", &[], &["sleep", "60"]);
    let mut terminal =
        Terminal::start(daemons.ctl(["exec", "-i", "-t", &agent.name, "--", "sh", "-c", script]));
    terminal.await_text("33 99");
    terminal.types(b"again\r");
    terminal.await_text("got again");
    assert_eq!(terminal.ends(), 3);
}

pub(crate) fn detach_keys_leave_it_running(shared: &Shared) {
    let daemons = pair(shared);
    let name = daemons.name("detach");
    let mut terminal = Terminal::start(daemons.ctl([
        "run",
        "-t",
        "--name",
        &name,
        "--",
        "sh",
        "-c",
        "echo ready; sleep 60",
    ]));
    let agent = Agent { daemons, name };
    terminal.await_text("ready");
    terminal.types(b"\x10\x11");
    assert_eq!(terminal.ends(), 0);
    assert_eq!(agent.state(), "running");
    assert!(agent.logs().text().contains("ready"), "what it wrote to its terminal is in its logs");
}

pub(crate) fn signals_reach_the_foreground(shared: &Shared) {
    let daemons = pair(shared);
    let script = "trap 'echo interrupted; exit 4' INT; echo ready; while :; do sleep 0.05; done";
    let mut terminal = Terminal::start(daemons.ctl(["run", "--rm", "-t", "--", "sh", "-c", script]));
    terminal.await_text("ready");
    terminal.types(b"\x03");
    terminal.await_text("interrupted");
    assert_eq!(terminal.ends(), 4);
}
