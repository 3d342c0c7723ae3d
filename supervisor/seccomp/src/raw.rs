//! The shape of a profile file, before any check. Unknown fields are errors.

use schemars::JsonSchema;
use serde::Deserialize;

/// A seccomp profile of AION.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "AION seccomp profile")]
pub(crate) struct File {
    /// For editors; ignored.
    #[serde(rename = "$schema", default)]
    #[expect(dead_code, reason = "accepted so that editors can complete the file")]
    pub(crate) schema: Option<String>,
    /// The version of this format: 1.
    #[schemars(range(min = 1, max = 1))]
    pub(crate) version: u32,
    /// What the profile is for, in a sentence.
    pub(crate) description: String,
    /// A profile whose rules hold for every system call that this one does not name.
    #[serde(default)]
    pub(crate) extends: Option<String>,
    /// What becomes of a call that no group names. Needed unless `extends` brings it.
    #[serde(default)]
    pub(crate) default_action: Option<Action>,
    /// The rules. Rules with `when` are tried first, in this order; then the one without.
    pub(crate) groups: Vec<Group>,
}

/// Some system calls, what becomes of them, and why.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Group {
    /// A name, unique in the file; denials in the audit log name it.
    pub(crate) name: String,
    /// Why.
    pub(crate) reason: String,
    /// What becomes of these calls.
    pub(crate) action: Action,
    /// Names of system calls.
    pub(crate) syscalls: Vec<String>,
    /// Conditions on arguments, all of which must hold.
    #[serde(default)]
    pub(crate) when: Vec<Condition>,
}

/// `"allow"`, `{"errno": "ENOSYS"}`, or `{"notify": "EPERM"}`: fail and report to the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Action {
    /// The kernel carries it out.
    Allow,
    /// It fails with this errno.
    Errno(String),
    /// It fails with this errno, and the denial is reported.
    Notify(String),
}

/// A test of one argument. Exactly one of `in` and `not_in`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Condition {
    /// Which argument, from 0.
    #[schemars(range(min = 0, max = 5))]
    pub(crate) arg: u8,
    /// Bits that are looked at; all when absent.
    #[serde(default)]
    pub(crate) mask: Option<Values>,
    /// The masked argument is one of these.
    #[serde(default, rename = "in")]
    pub(crate) is_in: Option<Vec<Value>>,
    /// The masked argument is none of these.
    #[serde(default)]
    pub(crate) not_in: Option<Vec<Value>>,
    /// 32 (default) when the kernel takes an `int`: it ignores the upper half, so a filter must too. Else 64.
    #[serde(default)]
    pub(crate) bits: Option<u8>,
}

/// One value, or several that are or-ed.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Values {
    /// One.
    One(Value),
    /// Or-ed.
    Many(Vec<Value>),
}

/// A number, a text such as `"0x5412"`, or a constant's name such as `"AF_UNIX"`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Value {
    /// A number.
    Number(u64),
    /// Hexadecimal, or a name.
    Text(String),
}
