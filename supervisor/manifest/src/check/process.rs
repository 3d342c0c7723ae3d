//! What is run, and what it finds around it: entry, environment, secrets, profile, kernel-API calls.

use std::collections::{BTreeMap, BTreeSet};

use aion_types::ByteSize;

use super::Checker;
use crate::error::quote;
use crate::raw;

/// What the kernel takes for arguments and environment together is far more; nobody needs it.
const MAX_BYTES: usize = 128 * 1024;
const MAX_ARGS: usize = 1024;
const MAX_ENV: usize = 256;

impl Checker<'_> {
    pub(super) fn entry(&mut self, given: Option<raw::TextOrList>) -> Vec<String> {
        const FIELD: &str = "spec.entry";
        let argv = match given {
            None => {
                self.problem(FIELD, "nothing to run; set entry, or give a command after --");
                return Vec::new();
            }
            Some(raw::TextOrList::List(argv)) => argv,
            Some(raw::TextOrList::Text(text)) => {
                let shell = [" | ", " && ", " || ", " > ", " < ", "$(", "${", "`"];
                if let Some(sign) = shell.into_iter().find(|s| text.contains(s)) {
                    self.warning(format!(
                        "spec.entry: {:?} is passed on as it is, because no shell runs the entry; write [sh, -c, \"…\"] for one",
                        sign.trim()
                    ));
                }
                match shell_words::split(&text) {
                    Ok(argv) => argv,
                    Err(_) => {
                        self.problem(FIELD, "a quote is not closed; close it, or write the entry as a list");
                        return Vec::new();
                    }
                }
            }
        };
        if argv.first().is_none_or(|program| program.trim().is_empty()) {
            self.problem(FIELD, "nothing to run; name a program");
        }
        if argv.len() > MAX_ARGS {
            self.problem(
                FIELD,
                &format!("there are {} arguments, at most {MAX_ARGS} are allowed", argv.len()),
            );
        }
        let bytes: usize = argv.iter().map(|a| a.len() + 1).sum();
        if bytes > MAX_BYTES {
            self.problem(
                FIELD,
                &format!("the arguments have {bytes} bytes, at most {MAX_BYTES} are allowed"),
            );
        }
        if let Some(i) = argv.iter().position(|a| a.contains('\0')) {
            self.problem(&format!("{FIELD}[{i}]"), "an argument has a NUL character; remove it");
        }
        argv
    }

    pub(super) fn env(&mut self, env: BTreeMap<String, String>) -> BTreeMap<String, String> {
        if env.len() > MAX_ENV {
            self.problem(
                "spec.env",
                &format!("there are {} variables, at most {MAX_ENV} are allowed", env.len()),
            );
        }
        let bytes: usize = env.iter().map(|(k, v)| k.len() + v.len() + 2).sum();
        if bytes > MAX_BYTES {
            self.problem(
                "spec.env",
                &format!("the variables have {bytes} bytes, at most {MAX_BYTES} are allowed"),
            );
        }
        for (name, value) in &env {
            let start = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
            if !start || name.len() > 128 || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                self.problem(
                    "spec.env",
                    &format!("{} is not a variable's name; use letters, digits and '_', not beginning with a digit", quote(name)),
                );
            } else if name.starts_with("AION_") {
                let text = "variables that begin with AION_ are set by AION; choose another name";
                self.problem(&format!("spec.env.{name}"), text);
            } else if value.contains('\0') {
                self.problem(&format!("spec.env.{name}"), "the value has a NUL character; remove it");
            }
        }
        env
    }

    pub(super) fn secrets(&mut self, secrets: Vec<String>) -> Vec<String> {
        if secrets.len() > 64 {
            self.problem(
                "spec.secrets",
                &format!("there are {} secrets, at most 64 are allowed", secrets.len()),
            );
        }
        let mut seen = BTreeSet::new();
        for (i, name) in secrets.iter().enumerate() {
            let field = format!("spec.secrets[{i}]");
            let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
            if name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.bytes().all(good) {
                let text =
                    "is not a secret's name; use 1 to 64 letters, digits and _-. and do not begin with '.'";
                self.problem(&field, &format!("{} {text}", quote(name)));
            } else if !seen.insert(name) {
                self.problem(&field, &format!("{} is named twice; remove one", quote(name)));
            }
        }
        secrets
    }

    pub(super) fn syscalls(&mut self, syscalls: Vec<String>) -> Vec<String> {
        if syscalls.len() > 128 {
            self.problem(
                "spec.syscalls",
                &format!("there are {} names, at most 128 are allowed", syscalls.len()),
            );
        }
        for (i, name) in syscalls.iter().enumerate() {
            let stem = name.strip_suffix(".*").unwrap_or(name);
            let part = |p: &str| {
                !p.is_empty() && p.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            };
            if name != "*" && (name.len() > 64 || !stem.split('.').all(part)) {
                self.problem(
                    &format!("spec.syscalls[{i}]"),
                    &format!("{} is not a system call of the kernel API; write a name as tool.invoke, a family as memory.*, or *", quote(name)),
                );
            }
        }
        syscalls
    }

    pub(super) fn seccomp_profile(&mut self, given: Option<String>) -> String {
        let name = given.unwrap_or_else(|| "default-restrictive".to_owned());
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if name.is_empty() || name.len() > 63 || name.starts_with('-') || !name.bytes().all(good) {
            self.problem(
                "spec.seccomp_profile",
                &format!("{} is not a profile's name; use one such as default-restrictive, tool-strict or network-client", quote(&name)),
            );
        }
        name
    }

    pub(super) fn log_max(&mut self, given: Option<ByteSize>) -> Option<ByteSize> {
        let size = given?;
        if !(64 << 10..=64 << 30).contains(&size.0) {
            self.problem("spec.log_max", &format!("{size} is out of range; use 64Ki to 64Gi"));
        }
        Some(size)
    }
}
