//! A rule in the form that is evaluated, and whether one event is what it asks for.

use std::fmt;

use crate::event::Event;
use crate::kinds::{FieldType, GRAM_FIELDS, KindId};

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }
        impl $name {
            /// The word for it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(self.as_str()) }
        }
    };
}

words! {
    /// How bad it is.
    Severity {
        /// Worth knowing.
        Info = "info",
        /// Odd.
        Low = "low",
        /// To be looked at.
        Medium = "medium",
        /// To be looked at now.
        High = "high",
        /// Somebody attacks.
        Critical = "critical",
    }
}

words! {
    /// What is done.
    Action {
        /// Tell.
        Alert = "alert",
        /// And take processor time away.
        Throttle = "throttle",
        /// And stop it where it stands.
        Freeze = "freeze",
        /// And take its network away.
        IsolateNetwork = "isolate_network",
        /// And end it.
        Kill = "kill",
    }
}

words! {
    /// What a baseline is kept of.
    Rate {
        /// Processes made.
        Forks = "forks",
        /// Programs started.
        Execs = "execs",
        /// Connections and datagrams begun.
        Connects = "connects",
        /// Whatever was refused.
        Denials = "denials",
        /// Files opened for writing.
        FilesWritten = "files_written",
        /// System calls, where they are counted.
        Syscalls = "syscalls",
        /// Bytes sent.
        BytesOut = "bytes_out",
        /// Bytes received.
        BytesIn = "bytes_in",
        /// Bytes written to disks.
        DiskWritten = "disk_written",
        /// Sequences of system calls that the agent never made before, where those are looked at.
        NovelGrams = "novel_grams",
    }
}

impl Rate {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Forks,
        Self::Execs,
        Self::Connects,
        Self::Denials,
        Self::FilesWritten,
        Self::Syscalls,
        Self::BytesOut,
        Self::BytesIn,
        Self::DiskWritten,
        Self::NovelGrams,
    ];

    /// The kinds of events that it counts, and the field that is added up.
    #[must_use]
    pub const fn source(self) -> (&'static [&'static str], &'static str) {
        const SAMPLE: &[&str] = &[crate::event::SAMPLE];
        match self {
            Self::Forks => (&["proc.fork"], "times"),
            Self::Execs => (&["proc.exec"], "times"),
            Self::Connects => (&["net.connect", "net.sendto"], "times"),
            Self::Denials => (
                &[
                    "sys.denied",
                    "lsm.denied",
                    "device.denied",
                    "net.connect",
                    "net.bind",
                    "net.sendto",
                    "api.net.resolve",
                ],
                "times",
            ),
            Self::FilesWritten => (&["file.open_write"], "times"),
            Self::Syscalls => (SAMPLE, "syscalls"),
            Self::BytesOut => (SAMPLE, "bytes_out"),
            Self::BytesIn => (SAMPLE, "bytes_in"),
            Self::DiskWritten => (SAMPLE, "disk_written"),
            Self::NovelGrams => (SAMPLE, "novel_grams"),
        }
    }
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Unique among the loaded ones.
    pub name: String,
    /// For people.
    pub description: String,
    /// How bad it is.
    pub severity: Severity,
    /// MITRE ATT&CK ids and other words.
    pub tags: Vec<String>,
    /// How long events count.
    pub window_ns: u64,
    /// What it looks for.
    pub when: When,
    /// What is done.
    pub action: Action,
    /// What it does not look at.
    pub exceptions: Vec<Exception>,
    /// Whether it is evaluated.
    pub enabled: bool,
}

/// What a rule looks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum When {
    /// So many events within the window.
    Count {
        /// Which.
        of: Filter,
        /// How many.
        at_least: u64,
    },
    /// So many different values of a field.
    Distinct {
        /// Of which events.
        of: Filter,
        /// The field.
        field: String,
        /// How many.
        at_least: u64,
    },
    /// A field that adds up to so much.
    Sum {
        /// Of which events.
        of: Filter,
        /// The field.
        field: String,
        /// How much.
        at_least: u64,
    },
    /// One event after another, the whole within the window.
    Sequence(Vec<Step>),
    /// The same again and again at even distances.
    Beacon(Beacon),
    /// More than the agent's own habit.
    Deviation(Deviation),
}

/// Which events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Of these kinds.
    pub kinds: Vec<KindId>,
    /// For which all of these hold.
    pub tests: Vec<Test>,
}

/// One step of a sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Which event.
    pub of: Filter,
    /// The field whose value must be the same in all steps.
    pub key: Option<String>,
}

/// Even distances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beacon {
    /// Which events.
    pub of: Filter,
    /// Fields that must be the same.
    pub by: Vec<String>,
    /// How many in a row.
    pub count: u32,
    /// How uneven the distances may be: their deviation in per cent of their mean.
    pub jitter_percent: u32,
    /// What comes sooner after another belongs to it.
    pub min_ns: u64,
}

/// Beyond habit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deviation {
    /// Of what.
    pub rate: Rate,
    /// Which events that is.
    pub of: Filter,
    /// Counted over so long.
    pub every_ns: u64,
    /// How many deviations above the mean.
    pub sigma: u32,
    /// Never below this.
    pub at_least: u64,
    /// Never below so many times the mean.
    pub factor: u32,
    /// Intervals that are learned from first.
    pub warm_up: u32,
}

/// A test of one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Test {
    /// The field.
    pub field: String,
    /// Its type.
    pub kind: FieldType,
    /// What must hold.
    pub op: Op,
}

/// What must hold of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// It is one of these.
    In(Vec<String>),
    /// It is none of these.
    NotIn(Vec<String>),
    /// It begins with one of these.
    Prefix(Vec<String>),
    /// It ends with one of these.
    Suffix(Vec<String>),
    /// It has one of these in it.
    Contains(Vec<String>),
    /// It is so much or more.
    AtLeast(i64),
    /// It is so much or less.
    AtMost(i64),
    /// The flag is so.
    Is(bool),
}

/// What a rule does not look at: events for which all that is given holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exception {
    /// Agents by name, or `prefix*`; empty: any.
    pub agents: Vec<String>,
    /// Tenants; empty: any.
    pub tenants: Vec<String>,
    /// Tests that hold; where a kind has no such field, the test does not hold.
    pub tests: Vec<Test>,
}

impl Test {
    pub(crate) fn holds(&self, event: &Event<'_>) -> bool {
        match (&self.op, self.kind) {
            (Op::Is(wanted), _) => event.flag(&self.field) == *wanted,
            (Op::AtLeast(limit), _) => event.number(&self.field).is_some_and(|n| n >= *limit),
            (Op::AtMost(limit), _) => event.number(&self.field).is_some_and(|n| n <= *limit),
            (Op::In(words), kind) => self.is_one_of(event, kind, words),
            (Op::NotIn(words), kind) => !self.is_one_of(event, kind, words),
            (Op::Prefix(words), _) => self.any(event, words, |text, word| text.starts_with(word)),
            (Op::Suffix(words), _) => self.any(event, words, |text, word| text.ends_with(word)),
            (Op::Contains(words), _) => self.any(event, words, |text, word| text.contains(word)),
        }
    }

    fn is_one_of(&self, event: &Event<'_>, kind: FieldType, words: &[String]) -> bool {
        let one_of = |value: &str| words.iter().any(|word| word == value);
        match kind {
            FieldType::Text => one_of(&event.text(&self.field)),
            FieldType::Number => {
                one_of(&event.number(&self.field).map_or_else(String::new, |n| n.to_string()))
            }
            FieldType::Flag => one_of(if event.flag(&self.field) { "true" } else { "false" }),
        }
    }

    fn any(&self, event: &Event<'_>, words: &[String], test: impl Fn(&str, &str) -> bool) -> bool {
        let text = event.text(&self.field);
        words.iter().any(|word| test(&text, word))
    }
}

impl Filter {
    pub(crate) fn matches(&self, event: &Event<'_>) -> bool {
        self.kinds.contains(&event.kind) && self.tests.iter().all(|test| test.holds(event))
    }
}

impl Exception {
    fn covers(&self, event: &Event<'_>) -> bool {
        let named = |pattern: &String| match pattern.strip_suffix('*') {
            Some(start) => event.who.name.starts_with(start),
            None => event.who.name == pattern,
        };
        (self.agents.is_empty() || self.agents.iter().any(named))
            && (self.tenants.is_empty() || self.tenants.iter().any(|tenant| tenant == event.who.tenant))
            && self
                .tests
                .iter()
                .all(|test| crate::kinds::field_type(event.kind, &test.field).is_some() && test.holds(event))
    }
}

fn is_of_grams(field: &str) -> bool {
    GRAM_FIELDS.contains(&field)
}

fn is_of_deleted_programs(field: &str) -> bool {
    field == "deleted_programs"
}

fn are_about(tests: &[Test], is: fn(&str) -> bool) -> bool {
    tests.iter().any(|test| is(&test.field))
}

impl Rule {
    /// The filters of which an event must match one to be looked at.
    pub(crate) fn filters(&self) -> impl Iterator<Item = &Filter> {
        let (one, steps): (_, &[Step]) = match &self.when {
            When::Count { of, .. } | When::Distinct { of, .. } | When::Sum { of, .. } => (Some(of), &[]),
            When::Sequence(steps) => (None, steps),
            When::Beacon(beacon) => (Some(&beacon.of), &[]),
            When::Deviation(deviation) => (Some(&deviation.of), &[]),
        };
        one.into_iter().chain(steps.iter().map(|step| &step.of))
    }

    /// Whether it looks at what events tell, and not only at that they come.
    pub(crate) fn reads(&self) -> bool {
        let only_counts = matches!(&self.when, When::Count { of, .. } if of.tests.is_empty());
        !only_counts || self.exceptions.iter().any(|exception| !exception.tests.is_empty())
    }

    /// Whether it looks at samples.
    #[must_use]
    pub fn wants_samples(&self) -> bool {
        self.wants(crate::event::SAMPLE)
    }

    /// Whether it looks at system calls that are counted.
    #[must_use]
    pub fn wants_syscalls(&self) -> bool {
        let tested = |filter: &Filter| filter.tests.iter().any(|test| test.field == "syscalls");
        self.enabled
            && match &self.when {
                When::Deviation(deviation) => deviation.rate == Rate::Syscalls,
                When::Sum { of, field, .. } => field == "syscalls" || tested(of),
                _ => self.filters().any(tested),
            }
    }

    /// Whether what it looks for rests on sequences of system calls. What is new is no proof of anything, so such a rule only tells.
    #[must_use]
    pub fn rests_on_grams(&self) -> bool {
        let rate = matches!(&self.when, When::Deviation(deviation) if deviation.rate == Rate::NovelGrams);
        rate || self.names(is_of_grams)
    }

    /// Whether it looks at sequences of system calls at all.
    #[must_use]
    pub fn wants_grams(&self) -> bool {
        self.enabled && (self.rests_on_grams() || self.excepts_by(is_of_grams))
    }

    /// Whether it looks at how many processes run a program that was deleted.
    #[must_use]
    pub fn wants_deleted_programs(&self) -> bool {
        let is = is_of_deleted_programs;
        self.enabled && (self.names(is) || self.excepts_by(is))
    }

    /// Whether what it looks for has such a field in it.
    fn names(&self, is: fn(&str) -> bool) -> bool {
        let named = match &self.when {
            When::Count { .. } | When::Deviation(_) => false,
            When::Distinct { field, .. } | When::Sum { field, .. } => is(field),
            When::Sequence(steps) => steps.iter().any(|step| step.key.as_deref().is_some_and(is)),
            When::Beacon(beacon) => beacon.by.iter().any(|field| is(field)),
        };
        named || self.filters().any(|filter| are_about(&filter.tests, is))
    }

    fn excepts_by(&self, is: fn(&str) -> bool) -> bool {
        self.exceptions.iter().any(|exception| are_about(&exception.tests, is))
    }

    pub(crate) fn wants(&self, kind: &str) -> bool {
        self.enabled && self.filters().any(|f| f.kinds.iter().any(|k| k.as_str() == kind))
    }

    pub(crate) fn excepts(&self, event: &Event<'_>) -> bool {
        self.exceptions.iter().any(|exception| exception.covers(event))
    }
}
