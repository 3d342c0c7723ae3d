//! Words of a detection as the engine has them.

use aion_detect::{Action, FieldType, Rate, Severity};

use crate::raw;

/// An ATT&CK id, or a plain word.
pub(super) fn is_tag(tag: &str) -> bool {
    if let Some(id) = tag.strip_prefix('T') {
        let (technique, sub) = id.split_once('.').map_or((id, None), |(t, s)| (t, Some(s)));
        let digits = |text: &str, count| text.len() == count && text.bytes().all(|b| b.is_ascii_digit());
        return digits(technique, 4) && sub.is_none_or(|sub| digits(sub, 3));
    }
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-');
    (1..=40).contains(&tag.len()) && tag.bytes().all(word)
}

pub(super) const fn of_type(kind: FieldType) -> &'static str {
    match kind {
        FieldType::Text => "a text",
        FieldType::Number => "a number",
        FieldType::Flag => "true or false: test it with is",
    }
}

pub(crate) const fn severity(word: raw::SeverityWord) -> Severity {
    match word {
        raw::SeverityWord::Info => Severity::Info,
        raw::SeverityWord::Low => Severity::Low,
        raw::SeverityWord::Medium => Severity::Medium,
        raw::SeverityWord::High => Severity::High,
        raw::SeverityWord::Critical => Severity::Critical,
    }
}

pub(super) const fn action(word: Option<raw::ActionWord>) -> Action {
    match word {
        None | Some(raw::ActionWord::Alert) => Action::Alert,
        Some(raw::ActionWord::Throttle) => Action::Throttle,
        Some(raw::ActionWord::Freeze) => Action::Freeze,
        Some(raw::ActionWord::IsolateNetwork) => Action::IsolateNetwork,
        Some(raw::ActionWord::Kill) => Action::Kill,
    }
}

pub(super) const fn rate(word: raw::RateWord) -> Rate {
    match word {
        raw::RateWord::Forks => Rate::Forks,
        raw::RateWord::Execs => Rate::Execs,
        raw::RateWord::Connects => Rate::Connects,
        raw::RateWord::Denials => Rate::Denials,
        raw::RateWord::FilesWritten => Rate::FilesWritten,
        raw::RateWord::Syscalls => Rate::Syscalls,
        raw::RateWord::BytesOut => Rate::BytesOut,
        raw::RateWord::BytesIn => Rate::BytesIn,
        raw::RateWord::DiskWritten => Rate::DiskWritten,
        raw::RateWord::NovelGrams => Rate::NovelGrams,
    }
}
