//! The environment, variable by variable: what is wrong with one is told by its name, not by an option's that nobody typed.
//!
//! clap reads variables as it reads the command line, and its errors do not say which of both it was.

use std::ffi::{OsStr, OsString};

use clap::parser::ValueSource;
use clap::{Command, CommandFactory as _};

use crate::options::Options;

/// The options without their variables.
pub(crate) fn without() -> Command {
    Options::command().mut_args(|arg| arg.env(None::<&'static str>))
}

/// The variable of the option with this id.
pub(crate) fn name(id: &str) -> String {
    let command = Options::command();
    let arg = command.get_arguments().find(|arg| arg.get_id().as_str() == id);
    arg.and_then(clap::Arg::get_env).unwrap_or_default().to_string_lossy().into_owned()
}

/// All variables that cannot be taken, where the command line alone could be. One that an option stands before is not looked at.
pub(crate) fn faults(args: &[OsString]) -> Vec<String> {
    let Ok(typed) = without().try_get_matches_from(args) else { return Vec::new() };
    let command = Options::command();
    let faults = command.get_arguments().filter_map(|arg| {
        let (variable, option) = (arg.get_env()?, arg.get_long()?);
        if typed.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine) {
            return None;
        }
        fault(variable, option, &std::env::var_os(variable)?)
    });
    faults.collect()
}

fn fault(variable: &OsStr, option: &str, value: &OsStr) -> Option<String> {
    let mut arg = OsString::from(format!("--{option}="));
    arg.push(value);
    let error = without().try_get_matches_from([OsString::from("aiond"), arg]).err()?;
    let (variable, value) = (variable.to_string_lossy(), value.to_string_lossy());
    Some(format!("{variable}: {value:?} cannot be taken; {}", reason(&error)))
}

/// Why a value cannot be taken.
pub(crate) fn reason(error: &clap::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => source.to_string(),
        None => {
            let text = error.to_string();
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty()).take(2);
            lines.collect::<Vec<_>>().join(" ").trim_start_matches("error: ").to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_judged_as_its_option_and_told_by_its_name() {
        let told = |variable: &str, option: &str, value: &str| {
            fault(OsStr::new(variable), option, OsStr::new(value))
        };
        assert_eq!(told("AION_HTTP", "http", "127.0.0.1:1"), None);
        assert_eq!(told("AION_DNS", "dns", "10.0.0.2,10.0.0.3:54"), None);
        for (variable, option, value, word) in [
            ("AION_HTTP", "http", "0.0.0.0:80", "loopback"),
            ("AION_KERNEL_PORT", "kernel-port", "--offline", "invalid digit"),
            ("AION_LOG_FORMAT", "log-format", "xml", "json"),
        ] {
            let told = told(variable, option, value).unwrap();
            let start = format!("{variable}: {value:?} cannot be taken; ");
            assert!(told.starts_with(&start) && told.contains(word), "{told}");
        }
        assert_eq!(name("kernel_port"), "AION_KERNEL_PORT");
        assert_eq!(name("offline"), "OFFLINE_MODE");
    }

    #[test]
    fn who_asks_for_help_is_told_of_no_variable() {
        assert!(faults(&["aiond", "--help"].map(OsString::from)).is_empty());
        assert!(faults(&["aiond", "--no-such"].map(OsString::from)).is_empty());
    }
}
