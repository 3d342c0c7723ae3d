//! An agent on a terminal: init writes its output to the journal, the launcher's descriptor is for input.

use std::io::Write;

use aion_sandbox::WindowSize;

use crate::ends::until;
use crate::harness::{Home, read_journal, sh, skip};

#[test]
fn a_terminal_has_a_size_input_and_output() {
    if skip() {
        return;
    }
    let home = Home::new();
    let script = "tty; stty size; test -t 0 && test -t 1 && echo terminal; read line; echo got $line; \
        stty size; ls -l $(tty) | cut -d' ' -f3; exit 6";
    let mut plan = sh(script);
    plan.tty = Some(WindowSize { rows: 30, cols: 100 });
    let launched = home.launch(&plan).unwrap();
    let mut terminal = std::fs::File::from(launched.tty.as_ref().unwrap().try_clone().unwrap());
    until(|| read_journal(&home.journal()).text().contains("terminal"));
    let size = rustix::termios::Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&terminal, size).unwrap();
    terminal.write_all(b"hello\n").unwrap();
    let seen = home.finish(launched);
    assert_eq!(seen.exit.unwrap().code, 6);
    let text = seen.text().replace('\r', "");
    assert_eq!(text, "/dev/pts/0\n30 100\nterminal\nhello\ngot hello\n40 120\nagent\n");
}

#[test]
fn control_characters_become_signals() {
    if skip() {
        return;
    }
    let home = Home::new();
    let mut plan = sh("trap 'echo interrupted; exit 9' INT; echo ready; while :; do sleep 0.05; done");
    plan.tty = Some(WindowSize::default());
    let launched = home.launch(&plan).unwrap();
    until(|| read_journal(&home.journal()).text().contains("ready"));
    std::fs::File::from(launched.tty.as_ref().unwrap().try_clone().unwrap()).write_all(b"\x03").unwrap();
    let seen = home.finish(launched);
    assert_eq!(seen.exit.unwrap().code, 9);
    assert!(seen.text().contains("interrupted"));
}

#[test]
fn a_client_that_goes_away_changes_nothing() {
    if skip() {
        return;
    }
    let home = Home::new();
    let mut plan = sh("sleep 0.2; echo still here; exec < /dev/null > /dev/null 2>&1; exit 3");
    plan.tty = Some(WindowSize { rows: 24, cols: 80 });
    let mut launched = home.launch(&plan).unwrap();
    launched.tty = None;
    let seen = home.finish(launched);
    assert_eq!((seen.exit.unwrap().code, seen.text().as_str()), (3, "still here\r\n"));
}
