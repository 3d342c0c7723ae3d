//! What rules can be about: kinds of events, and the fields of each with their types.
//!
//! The names are those of the audit log's records, as the launcher and aiond write them. A rule that names another kind or
//! field is refused when it is read, so that no rule waits in silence for what never comes.

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldType {
    /// Text; a list is its elements with a space between them.
    Text,
    /// A whole number.
    Number,
    /// True or false; false where it is missing.
    Flag,
}

use FieldType::{Flag, Number, Text};

/// A kind of events, by its place in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KindId(pub(crate) usize);

type Fields = &'static [(&'static str, FieldType)];

/// Fields that every kind has.
const ALWAYS: Fields = &[("verdict", Text), ("times", Number)];

const NET: Fields = &[
    ("addr", Text),
    ("port", Number),
    ("protocol", Number),
    ("loopback", Flag),
    ("comm", Text),
    ("pid", Number),
];

/// Kinds and their own fields.
const KINDS: &[(&str, Fields)] = &[
    ("proc.fork", &[("comm", Text), ("child", Number), ("pid", Number), ("ppid", Number)]),
    (
        "proc.exec",
        &[
            ("file", Text),
            ("argv", Text),
            ("comm", Text),
            ("pid", Number),
            ("ppid", Number),
            ("uid", Number),
            ("secure", Flag),
            ("truncated", Flag),
            ("stdin_socket", Flag),
            ("stdout_socket", Flag),
            ("memfd", Flag),
            ("deleted", Flag),
            ("writable", Flag),
        ],
    ),
    ("proc.exit", &[("code", Number), ("signal", Number), ("oom", Flag), ("comm", Text), ("pid", Number)]),
    ("net.connect", NET),
    ("net.bind", NET),
    ("net.sendto", NET),
    ("file.open_write", &[("path", Text), ("inode", Number), ("dev", Number), ("pid", Number)]),
    ("sys.denied", &[("syscall", Text), ("nr", Number), ("pid", Number)]),
    ("lsm.denied", &[("hook", Text), ("withheld", Text), ("comm", Text), ("pid", Number)]),
    (
        "device.denied",
        &[
            ("device", Text),
            ("major", Number),
            ("minor", Number),
            ("block", Flag),
            ("access", Text),
            ("withheld", Text),
            ("comm", Text),
            ("pid", Number),
        ],
    ),
    ("priv.change", &[("source", Text), ("comm", Text), ("pid", Number)]),
    ("mem.oom", &[("victim", Number), ("pid", Number)]),
    ("limit.hit", &[("limit", Text)]),
    ("api.syscall", &[("syscall", Text), ("target", Text), ("code", Text), ("caller", Text)]),
    ("api.net.resolve", &[("name", Text)]),
    (
        crate::event::SAMPLE,
        &[
            ("network", Text),
            ("span_ms", Number),
            ("cpu_percent", Number),
            ("bytes_out", Number),
            ("bytes_in", Number),
            ("disk_written", Number),
            ("pids", Number),
            ("deleted_programs", Number),
            ("syscalls", Number),
            ("syscall_grams", Number),
            ("novel_grams", Number),
            ("unkept_grams", Number),
            ("learned_grams", Number),
        ],
    ),
];

/// Fields of samples that are of sequences of system calls.
pub(crate) const GRAM_FIELDS: [&str; 4] = ["syscall_grams", "novel_grams", "unkept_grams", "learned_grams"];

/// How many there are.
pub(crate) const COUNT: usize = KINDS.len();

impl KindId {
    /// A kind by its name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        KINDS.iter().position(|(kind, _)| *kind == name).map(Self)
    }

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        KINDS.get(self.0).map_or("", |(name, _)| name)
    }
}

/// The names of all kinds.
pub fn kind_names() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|(name, _)| *name)
}

/// The fields of a kind.
pub fn fields_of(kind: KindId) -> impl Iterator<Item = (&'static str, FieldType)> {
    KINDS.get(kind.0).map_or(&[] as Fields, |(_, fields)| fields).iter().chain(ALWAYS).copied()
}

/// The type of a kind's field, and its name as the table has it.
#[must_use]
pub fn field_type(kind: KindId, name: &str) -> Option<(&'static str, FieldType)> {
    fields_of(kind).find(|(field, _)| *field == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_and_each_stands_for_one() {
        let mut names: Vec<_> = kind_names().collect();
        assert!(names.iter().all(|name| KindId::parse(name).unwrap().as_str() == *name));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), COUNT);
        let exec = KindId::parse("proc.exec").unwrap();
        assert_eq!(field_type(exec, "memfd"), Some(("memfd", Flag)));
        assert_eq!(field_type(exec, "verdict"), Some(("verdict", Text)));
        assert_eq!(field_type(exec, "path"), None);
        assert_eq!(field_type(exec, "file"), Some(("file", Text)));
        assert_eq!(KindId::parse("proc.*"), None);
        let sample = KindId::parse(crate::event::SAMPLE).unwrap();
        assert!(GRAM_FIELDS.iter().all(|field| field_type(sample, field) == Some((*field, Number))));
    }
}
