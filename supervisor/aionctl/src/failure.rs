//! How a command ends when it does not end well: an exit status, and what stderr says.

use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use aion_types::ErrorCode;

use crate::text::clean;

/// The exit status of `run` for errors of AION's own.
pub(crate) const RUN_ERROR: u8 = 125;
/// `run`, `exec`: the command cannot be executed.
pub(crate) const NOT_EXECUTABLE: u8 = 126;
/// `run`, `exec`: the command was not found.
pub(crate) const NOT_FOUND: u8 = 127;
/// The invalid command line or manifest.
pub(crate) const USAGE: u8 = 2;
/// As a shell shows a program that wrote to a closed pipe: 128 + SIGPIPE.
const BROKEN_PIPE: u8 = 141;

/// What a command ends with: the exit status, or a failure.
pub(crate) type Outcome<T = u8> = Result<T, Failure>;

/// A failure. Printed once, in `main`.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: u8,
    /// Empty when everything has been said already.
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
    code: Option<String>,
}

impl Failure {
    /// A failure without a code: the message says it all.
    pub(crate) fn new(exit: u8, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), causes: Vec::new(), hint: None, code: None }
    }

    /// A failure with a stable code, which gives the exit status.
    pub(crate) fn coded(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code: Some(code.as_str().to_owned()), ..Self::new(code.exit_status(), message) }
    }

    /// Everything has been said on stderr; only the exit status is left.
    pub(crate) fn silent(exit: u8) -> Self {
        Self::new(exit, "")
    }

    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub(crate) fn cause(mut self, cause: &dyn std::error::Error) -> Self {
        let mut next = Some(cause);
        while let Some(error) = next {
            self.causes.push(error.to_string());
            next = error.source();
        }
        self
    }

    /// The same about a flag: what the daemon calls `field` is what was given there. `fix` stands in for a missing hint.
    #[must_use]
    pub(crate) fn of_flag(mut self, field: &str, flag: &str, fix: &str) -> Self {
        let own = format!("{field}: ");
        self.message = format!("{flag}: {}", self.message.strip_prefix(&own).unwrap_or(&self.message));
        if self.hint.is_none() && !fix.is_empty() {
            self.hint = Some(fix.to_owned());
        }
        self
    }

    /// The same with another exit status.
    #[must_use]
    pub(crate) fn exiting(mut self, exit: u8) -> Self {
        self.exit = exit;
        self
    }

    /// The same about one of several agents.
    #[must_use]
    pub(crate) fn about(mut self, subject: &str) -> Self {
        if !self.message.is_empty() && !self.message.contains(subject) {
            self.message = format!("{subject}: {}", self.message);
        }
        self
    }

    /// The same without line and column behind `file`.
    #[must_use]
    pub(crate) fn without_places(mut self, file: &str) -> Self {
        let start = format!("{file}:");
        let mut out = String::new();
        for (i, part) in self.message.split(&start).enumerate() {
            let digits = |c: char| c.is_ascii_digit() || c == ':';
            let cut = part.trim_start_matches(digits);
            let place = part.len() - cut.len();
            if i > 0 {
                out.push_str(&start);
            }
            out.push_str(if i > 0 && place > 1 { cut } else { part });
        }
        self.message = out;
        self
    }

    /// Whether it carries this code.
    pub(crate) fn is(&self, code: ErrorCode) -> bool {
        self.code.as_deref() == Some(code.as_str())
    }

    /// For stderr, with colours that the stream strips where they do not belong.
    pub(crate) fn render(&self) -> String {
        let mut out = String::new();
        if self.message.is_empty() {
            return out;
        }
        // Messages may quote what a manifest or an agent says.
        let _ = writeln!(out, "\x1b[1;31merror:\x1b[0m {}", clean(&self.message));
        for cause in &self.causes {
            let _ = writeln!(out, "  because: {}", clean(cause));
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(out, "\x1b[1;36mhint:\x1b[0m {}", clean(hint));
        }
        if let Some(code) = &self.code {
            let code = clean(code);
            let _ = writeln!(out, "code: {code} (see docs/errors/{code}.md)");
        }
        out
    }
}

impl From<aion_client::Error> for Failure {
    fn from(error: aion_client::Error) -> Self {
        let code = error.code();
        let mut failure = Self::coded(code, error.to_string());
        match &error {
            aion_client::Error::Unreachable { source, .. } => failure = failure.cause(source),
            aion_client::Error::Disconnected { source, .. } => {
                failure.causes.push(source.message().to_owned())
            }
            aion_client::Error::Api { reason, .. } => failure.code = Some(reason.clone()),
            aion_client::Error::Answer { .. } => {}
        }
        failure.hint =
            error.meta("hint").map(str::to_owned).or_else(|| default_hint(&error).map(str::to_owned));
        if let Some(ms) = error.meta("retry_after_ms").and_then(|text| text.parse::<u64>().ok()) {
            let hint = failure.hint.take().map_or_else(String::new, |hint| format!("{hint}; "));
            failure.hint =
                Some(format!("{hint}try again in {:.1} s", Duration::from_millis(ms).as_secs_f64()));
        }
        failure
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            // Whoever read has read enough, as `head` does.
            return Self::silent(BROKEN_PIPE);
        }
        Self::new(1, "cannot write").cause(&error)
    }
}

/// What to do about an error, when the daemon gives no better advice.
fn default_hint(error: &aion_client::Error) -> Option<&'static str> {
    Some(match error.code() {
        ErrorCode::DaemonUnavailable => {
            "is aiond running? start it with `systemctl start aiond` or `cargo xtask up`; \
             the socket comes from --socket or AION_SOCKET; `aionctl doctor` looks further"
        }
        ErrorCode::LauncherUnavailable => {
            "aiond runs, aion-launcher does not: `systemctl start aion-launcher`; agents run on meanwhile"
        }
        ErrorCode::PermissionDenied if matches!(error, aion_client::Error::Unreachable { .. }) => {
            "root and members of the group aion may use the socket: `usermod -aG aion USER`, then log in again"
        }
        ErrorCode::AgentNotRunning => {
            "`aionctl ps -a` shows what became of it; `aionctl start AGENT` starts it again"
        }
        ErrorCode::AgentRunning => {
            "`aionctl stop AGENT` ends it first; `aionctl rm -f AGENT` ends and forgets it"
        }
        ErrorCode::AgentPaused => "`aionctl resume AGENT` thaws it first",
        ErrorCode::NameTaken => "choose another name, or `aionctl rm NAME` the old agent first",
        ErrorCode::LayerFailed | ErrorCode::LayerUnavailable => {
            "`aionctl doctor` says what this host gives each layer; `--allow-degraded LAYER` goes without it"
        }
        ErrorCode::CommandNotFound => {
            "the agent sees the host's /usr, its workspace at /workspace, and nothing else of the host"
        }
        ErrorCode::SecretNotFound => {
            "put it into the state folder as secrets/NAME, readable by aiond's user alone"
        }
        ErrorCode::TaskNotFound => "`aionctl task ps --all` shows the tasks that are kept",
        ErrorCode::CursorExpired => "begin without --cursor",
        ErrorCode::ProtocolMismatch => "aionctl and aiond should be of one version: `aionctl version`",
        ErrorCode::Internal => "this is a defect of AION; aiond's log says more",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_why_and_what_to_do() {
        let failure = Failure::coded(ErrorCode::AgentNotFound, "no agent is called \"x\u{1b}[2J\"")
            .cause(&io::Error::other("disk"))
            .hint("look");
        let text = anstream::adapter::strip_str(&failure.render()).to_string();
        assert_eq!(
            text,
            "error: no agent is called \"x\\u{1b}[2J\"\n  because: disk\nhint: look\n\
             code: AGENT_NOT_FOUND (see docs/errors/AGENT_NOT_FOUND.md)\n"
        );
        assert_eq!(failure.exit, 4);
    }

    #[test]
    fn places_in_a_manifest_that_nobody_wrote_are_left_out() {
        let failure = Failure::new(2, "command line:5:3: spec.env: bad\ncommand line: --name: bad: 3:4")
            .without_places("command line");
        assert_eq!(failure.message, "command line: spec.env: bad\ncommand line: --name: bad: 3:4");
    }

    #[test]
    fn a_field_is_told_as_the_flag_that_gave_it() {
        for said in ["url: it is no URL", "it is no URL"] {
            let failure = Failure::new(2, said).of_flag("url", "--url", "write http://HOST/v1");
            assert_eq!(
                (failure.message.as_str(), failure.hint.as_deref()),
                ("--url: it is no URL", Some("write http://HOST/v1"))
            );
        }
        assert_eq!(
            Failure::new(2, "x").hint("kept").of_flag("a", "--a", "fix").hint.as_deref(),
            Some("kept")
        );
    }

    #[test]
    fn a_closed_pipe_is_nothing_to_talk_about() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((failure.exit, failure.render().as_str()), (141, ""));
    }
}
