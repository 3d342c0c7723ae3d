//! Running the command line, never for longer than a minute.

use std::ffi::OsStr;
use std::io::{Read, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::scale::stretched;

/// A command line that has been put together and not run.
#[derive(Debug)]
pub struct Ctl {
    command: Command,
    stdin: Vec<u8>,
    deadline: Duration,
    shown: String,
}

/// What a command line gave.
#[derive(Debug)]
pub struct Done {
    /// The exit status; 128 + n when a signal ended the program itself.
    pub code: i32,
    /// Its data, byte for byte.
    pub out: Vec<u8>,
    /// What it said besides.
    pub err: String,
    /// How long it took.
    pub took: Duration,
    shown: String,
}

/// A command line that runs.
#[derive(Debug)]
pub struct Live {
    child: Child,
    out: Option<JoinHandle<Vec<u8>>>,
    err: Option<JoinHandle<Vec<u8>>>,
    chunks: mpsc::Receiver<Vec<u8>>,
    seen: Vec<u8>,
    deadline: Duration,
    begun: Instant,
    shown: String,
}

impl Ctl {
    pub(crate) fn new(
        program: &Path,
        socket: &Path,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Self {
        let mut command = Command::new(program);
        command
            .args(args)
            .env("AION_SOCKET", socket)
            .env_remove("AION_PROFILES")
            .env("AION_RECONNECT_SECONDS", "60");
        let shown: Vec<String> =
            command.get_args().map(|arg| arg.to_string_lossy().chars().take(120).collect()).collect();
        Self {
            command,
            stdin: Vec::new(),
            deadline: stretched(Duration::from_secs(60)),
            shown: format!("aionctl {}", shown.join(" ")),
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        for arg in args {
            self.shown.push(' ');
            self.shown.extend(arg.as_ref().to_string_lossy().chars().take(120));
            self.command.arg(arg);
        }
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Gives it something to read.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Sets its working directory.
    #[must_use]
    pub fn cwd(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Allows it another time than a minute; stretched on slow machines.
    #[must_use]
    pub fn within(mut self, deadline: Duration) -> Self {
        self.deadline = stretched(deadline);
        self
    }

    /// The plain command, for a test that wires its descriptors itself.
    #[must_use]
    pub fn into_command(self) -> Command {
        self.command
    }

    /// Starts it.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn spawn(mut self) -> Live {
        let begun = Instant::now();
        let child = self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|error| panic!("{}: {error}", self.shown));
        if let Some(mut pipe) = child.stdin.take() {
            let bytes = std::mem::take(&mut self.stdin);
            // A program that does not read closes its end; that is its own affair.
            std::thread::spawn(move || drop(pipe.write_all(&bytes)));
        }
        let (send, chunks) = mpsc::channel();
        let out = child.stdout.take().map(|pipe| std::thread::spawn(move || drain(pipe, Some(&send))));
        let err = child.stderr.take().map(|pipe| std::thread::spawn(move || drain(pipe, None)));
        Live { child, out, err, chunks, seen: Vec::new(), deadline: self.deadline, begun, shown: self.shown }
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// When it does not end in time.
    #[must_use]
    pub fn done(self) -> Done {
        self.spawn().done()
    }

    /// Runs it, and it must succeed.
    ///
    /// # Panics
    /// When it does not.
    pub fn ok(self) -> Done {
        self.done().expect(0)
    }

    /// Runs it, must succeed, and gives its one JSON document.
    ///
    /// # Panics
    /// When it does not, or gives none.
    #[must_use]
    pub fn json(self) -> Value {
        self.args(["-o", "json"]).ok().json()
    }
}

fn drain(mut pipe: impl Read, copy: Option<&mpsc::Sender<Vec<u8>>>) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match pipe.read(&mut buffer) {
            Ok(0) | Err(_) => return all,
            Ok(read) => {
                let chunk = buffer.get(..read).unwrap_or_default();
                all.extend_from_slice(chunk);
                if let Some(copy) = copy {
                    // Nobody may be looking any more.
                    let _ = copy.send(chunk.to_vec());
                }
            }
        }
    }
}

impl Live {
    /// Its process.
    #[must_use]
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or(i32::MAX)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        // It may have ended; then the test finds out by other means.
        let _ = kill(Pid::from_raw(self.pid()), signal);
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until its data contain `text`; gives all that has come so far.
    ///
    /// # Panics
    /// When it ends or time is up before.
    pub fn await_text(&mut self, text: &str) -> String {
        loop {
            let so_far = String::from_utf8_lossy(&self.seen).into_owned();
            if so_far.contains(text) {
                return so_far;
            }
            let left = self.deadline.saturating_sub(self.begun.elapsed());
            match self.chunks.recv_timeout(left) {
                Ok(chunk) => self.seen.extend_from_slice(&chunk),
                Err(error) => panic!("{}: {error} while waiting for {text:?}; so far {so_far:?}", self.shown),
            }
        }
    }

    /// All the data that has come so far, without waiting.
    pub fn so_far(&mut self) -> String {
        while let Ok(chunk) = self.chunks.try_recv() {
            self.seen.extend_from_slice(&chunk);
        }
        String::from_utf8_lossy(&self.seen).into_owned()
    }

    /// Waits for its end, and does not mind how it is; for cleaning up after a test.
    pub fn done_quietly(mut self) {
        while self.runs() && self.begun.elapsed() < self.deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When time is up; the program is killed then.
    #[must_use]
    pub fn done(mut self) -> Done {
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break Some(status),
                Ok(None) if self.begun.elapsed() > self.deadline => {
                    let _ = self.child.kill();
                    let _ = self.child.wait();
                    break None;
                }
                Ok(None) => std::thread::sleep(Duration::from_millis(2)),
                Err(error) => panic!("{}: {error}", self.shown),
            }
        };
        let took = self.begun.elapsed();
        let collect =
            |thread: Option<JoinHandle<Vec<u8>>>| thread.and_then(|t| t.join().ok()).unwrap_or_default();
        let out = collect(self.out.take());
        let err = String::from_utf8_lossy(&collect(self.err.take())).into_owned();
        let Some(status) = status else {
            let said = String::from_utf8_lossy(&out);
            panic!("{}: no end after {took:?}\n--- stdout\n{said}\n--- stderr\n{err}", self.shown);
        };
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        Done { code, out, err, took, shown: std::mem::take(&mut self.shown) }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // A test that failed leaves nothing running.
        if self.runs() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Done {
    /// Its data as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    /// It must have ended with this code.
    ///
    /// # Panics
    /// When it has not.
    pub fn expect(self, code: i32) -> Self {
        assert!(
            self.code == code,
            "{} ended with {}, not {code}\n--- stdout\n{}\n--- stderr\n{}",
            self.shown,
            self.code,
            self.text().chars().take(4000).collect::<String>(),
            self.err
        );
        self
    }

    /// Its stderr must contain this.
    ///
    /// # Panics
    /// When it does not.
    pub fn says(self, part: &str) -> Self {
        assert!(self.err.contains(part), "{} does not say {part:?} but\n{}", self.shown, self.err);
        self
    }

    /// Its one JSON document.
    ///
    /// # Panics
    /// When its data are none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.out)
            .unwrap_or_else(|error| panic!("{}: {error}\n{}", self.shown, self.text()))
    }

    /// Its JSON documents, one a line.
    ///
    /// # Panics
    /// When a line is none.
    #[must_use]
    pub fn json_lines(&self) -> Vec<Value> {
        let parse = |line: &str| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{}: {error}\n{line}", self.shown))
        };
        self.text().lines().map(parse).collect()
    }
}
