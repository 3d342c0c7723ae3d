//! Reading a profile file and checking all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;

use aion_types::NEEDED_CALLS;

use crate::error::Error;
use crate::names::{self, Errno, shorten};
use crate::profile::{Action, Condition, Group, Profile, Syscall};
use crate::raw;

/// Far more than a profile needs.
const MAX_BYTES: u64 = 256 * 1024;
/// Rules with conditions for one call, and values in one condition.
const MAX_RULES: usize = 32;

impl Profile {
    /// Reads `dir/name.json`, and what it extends.
    ///
    /// # Errors
    /// [`Error`] names the file, the group and what would be right.
    pub fn load(dir: &Path, name: &str) -> Result<Self, Error> {
        Self::parse_in(dir, name, &read(dir, name)?)
    }

    /// Checks what is to become `dir/name.json`. What it extends is there.
    ///
    /// # Errors
    /// As [`Profile::load`].
    pub fn parse_in(dir: &Path, name: &str, json: &[u8]) -> Result<Self, Error> {
        Self::parse(name, json, |parent| read(dir, parent))
    }

    /// Checks a profile that is already in memory; `parent` brings the file that it extends.
    ///
    /// # Errors
    /// As [`Profile::load`].
    pub fn parse(
        name: &str,
        json: &[u8],
        parent: impl FnOnce(&str) -> Result<Vec<u8>, Error>,
    ) -> Result<Self, Error> {
        check_name(name)?;
        let file = decode(name, json)?;
        let profile = match file.extends.clone() {
            None => check(name, file, None)?,
            Some(base) => {
                let wrong = |problem| Error::Profile { profile: name.to_owned(), problem };
                check_name(&base)?;
                if base == name {
                    return Err(wrong("it extends itself".to_owned()));
                }
                let below = decode(&base, &parent(&base)?)?;
                if below.extends.is_some() {
                    return Err(wrong(format!(
                        "it extends {base:?}, which itself extends; one step is the limit"
                    )));
                }
                check(name, file, Some(check(&base, below, None)?))?
            }
        };
        can_run(&profile)?;
        Ok(profile)
    }

    /// The names of the profiles in a folder, sorted.
    #[must_use]
    pub fn list(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|e| e.file_name().to_str()?.strip_suffix(".json").map(str::to_owned))
            .filter(|n| check_name(n).is_ok())
            .collect();
        names.sort();
        names
    }
}

fn check_name(name: &str) -> Result<(), Error> {
    let good = (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-');
    if good { Ok(()) } else { Err(Error::BadName { name: shorten(name) }) }
}

fn read(dir: &Path, name: &str) -> Result<Vec<u8>, Error> {
    check_name(name)?;
    let path = dir.join(format!("{name}.json"));
    let file = std::fs::File::open(&path).map_err(|source| {
        if source.kind() == std::io::ErrorKind::NotFound {
            let known = Profile::list(dir).join(", ");
            let known = if known.is_empty() { "none".to_owned() } else { known };
            Error::NotFound { name: name.to_owned(), dir: dir.to_owned(), known }
        } else {
            Error::Read { path: path.clone(), source }
        }
    })?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|source| Error::Read { path, source })?;
    Ok(bytes)
}

fn decode(name: &str, json: &[u8]) -> Result<raw::File, Error> {
    if json.len() as u64 > MAX_BYTES {
        return Err(Error::TooLarge { profile: name.to_owned(), max: MAX_BYTES });
    }
    serde_json::from_slice(json).map_err(|source| Error::Syntax { profile: name.to_owned(), source })
}

fn check(name: &str, file: raw::File, base: Option<Profile>) -> Result<Profile, Error> {
    let wrong = |problem: String| Error::Profile { profile: name.to_owned(), problem };
    if file.version != 1 {
        return Err(wrong(format!("version {} is not known; this AION reads version 1", file.version)));
    }
    if file.description.trim().is_empty() {
        return Err(wrong("the description is empty".to_owned()));
    }
    let default_action = match (&file.default_action, &base) {
        (Some(raw::Action::Errno(errno)), _) => Action::Errno(Errno::parse(errno).map_err(wrong)?),
        (Some(_), _) => {
            return Err(wrong(
                "default_action must be an errno: what nobody thought of is refused, and only what is named is reported"
                    .to_owned(),
            ));
        }
        (None, Some(base)) => base.default_action,
        (None, None) => return Err(wrong("it has neither default_action nor extends".to_owned())),
    };
    let mut groups = Vec::with_capacity(file.groups.len());
    let mut names = BTreeSet::new();
    for raw in file.groups {
        let in_group =
            |problem: String| Error::Group { profile: name.to_owned(), group: shorten(&raw.name), problem };
        if raw.name.is_empty() || !names.insert(raw.name.clone()) {
            return Err(in_group("a group needs a name of its own".to_owned()));
        }
        groups.push(check_group(&raw).map_err(in_group)?);
    }
    consistent(name, &groups)?;
    if let Some(base) = base {
        let named: BTreeSet<u32> = groups.iter().flat_map(|g| g.syscalls.iter().map(|s| s.nr)).collect();
        for mut group in base.groups {
            group.syscalls.retain(|s| !named.contains(&s.nr));
            if !group.syscalls.is_empty() {
                groups.push(group);
            }
        }
    }
    Ok(Profile { name: name.to_owned(), description: file.description, default_action, groups })
}

fn check_group(raw: &raw::Group) -> Result<Group, String> {
    if raw.reason.trim().is_empty() {
        return Err("a group needs a reason".to_owned());
    }
    if raw.syscalls.is_empty() {
        return Err("it names no system call".to_owned());
    }
    let action = match &raw.action {
        raw::Action::Allow => Action::Allow,
        raw::Action::Errno(e) => Action::Errno(Errno::parse(e)?),
        raw::Action::Notify(e) => Action::Notify(Errno::parse(e)?),
    };
    let mut syscalls = Vec::with_capacity(raw.syscalls.len());
    for name in &raw.syscalls {
        let call = Syscall { name: name.clone(), nr: names::syscall(name)? };
        if syscalls.contains(&call) {
            return Err(format!("{name} is named twice"));
        }
        syscalls.push(call);
    }
    let when = raw.when.iter().map(check_condition).collect::<Result<Vec<_>, _>>()?;
    Ok(Group { name: raw.name.clone(), reason: raw.reason.clone(), action, syscalls, when })
}

fn check_condition(raw: &raw::Condition) -> Result<Condition, String> {
    if raw.arg > 5 {
        return Err(format!("argument {} does not exist; arguments are 0 to 5", raw.arg));
    }
    let wide = match raw.bits {
        None | Some(32) => false,
        Some(64) => true,
        Some(n) => return Err(format!("bits is {n}; it is 32 or 64")),
    };
    let (negated, values) = match (&raw.is_in, &raw.not_in) {
        (Some(values), None) => (false, values),
        (None, Some(values)) => (true, values),
        _ => return Err("a condition has exactly one of \"in\" and \"not_in\"".to_owned()),
    };
    if values.is_empty() || values.len() > MAX_RULES * 2 {
        return Err(format!("a condition has 1 to {} values", MAX_RULES * 2));
    }
    let all = if wide { u64::MAX } else { u64::from(u32::MAX) };
    let mask = match &raw.mask {
        None => all,
        Some(raw::Values::One(v)) => number(v)?,
        Some(raw::Values::Many(vs)) => vs.iter().try_fold(0, |acc, v| number(v).map(|n| acc | n))?,
    };
    if mask == 0 || mask & !all != 0 {
        return Err(format!("mask {mask:#x} is not within {} bits", if wide { 64 } else { 32 }));
    }
    let values = values.iter().map(number).collect::<Result<Vec<_>, _>>()?;
    if let Some(v) = values.iter().find(|&&v| v & !mask != 0) {
        return Err(format!("value {v:#x} has bits outside of mask {mask:#x}, so it can never match"));
    }
    Ok(Condition { arg: raw.arg, mask, wide, negated, values })
}

fn number(value: &raw::Value) -> Result<u64, String> {
    match value {
        raw::Value::Number(n) => Ok(*n),
        raw::Value::Text(t) => names::constant(t),
    }
}

/// What holds between the groups of one file.
fn consistent(profile: &str, groups: &[Group]) -> Result<(), Error> {
    let mut plain: BTreeMap<u32, &str> = BTreeMap::new();
    let mut errnos: BTreeMap<u32, (i32, &str)> = BTreeMap::new();
    let mut rules: BTreeMap<u32, usize> = BTreeMap::new();
    for group in groups {
        for call in &group.syscalls {
            let wrong = |problem: String| {
                Err(Error::Group { profile: profile.to_owned(), group: group.name.clone(), problem })
            };
            if group.is_conditional() {
                let count = rules.entry(call.nr).or_default();
                *count += 1;
                if *count > MAX_RULES {
                    return wrong(format!("{} has more than {MAX_RULES} rules with conditions", call.name));
                }
            } else if let Some(other) = plain.insert(call.nr, &group.name) {
                return wrong(format!("{} is already in group {other:?}", call.name));
            }
            // The listener sees only the number, so it has one answer for each.
            if let Action::Notify(errno) = group.action {
                let (first, other) = *errnos.entry(call.nr).or_insert((errno, &group.name));
                if first != errno {
                    return wrong(format!(
                        "{} is reported with {}, but with {} in group {other:?}; a reported call has one errno",
                        call.name,
                        Errno(errno),
                        Errno(first)
                    ));
                }
            }
        }
    }
    Ok(())
}

/// A profile under which nothing can start is a mistake. `notify` on these calls could lock the launch up, too: they are used to hand
/// the listener over.
fn can_run(profile: &Profile) -> Result<(), Error> {
    for &needed in NEEDED_CALLS {
        let mut rules = profile.groups.iter().filter(|g| g.syscalls.iter().any(|s| s.name == needed));
        let allowed = rules.next().is_some_and(|g| g.action == Action::Allow && !g.is_conditional());
        if !allowed || rules.next().is_some() {
            return Err(Error::Profile {
                profile: profile.name.clone(),
                problem: format!("it must allow {needed} without condition: no program can run otherwise"),
            });
        }
    }
    Ok(())
}
