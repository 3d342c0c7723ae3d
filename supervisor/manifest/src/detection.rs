//! `policies/detections/*.yaml`: rules of the engine, checked against the kinds and fields that there are.

mod words;

use std::collections::{BTreeMap, HashMap};

use aion_detect::{
    Action, Beacon, Deviation, Exception, FieldType, Filter, KindId, MAX_BEATS, MAX_DISTINCT, Op, Rate, Rule,
    Step, Test, When, field_type, fields_of, kind_names,
};
use aion_types::ErrorCode;

pub(crate) use self::words::severity;
use self::words::{action, is_tag, of_type, rate};
use crate::error::{Error, Problem, did_you_mean, quote};
use crate::problems::Problems;
use crate::raw::{self, Span};
use crate::yaml;

/// Rules at once.
const MAX_RULES: usize = 256;
/// Words of one test, and tests of one filter.
const MAX_WORDS: usize = 256;
const MAX_WINDOW_MS: u64 = 86_400_000;
const MAX_COUNT: u64 = 1_000_000;

macro_rules! shipped {
    ($($name:literal),* $(,)?) => {
        /// The rules that AION ships: file name and content.
        pub const SHIPPED_DETECTIONS: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../../policies/detections/", $name)))),*];
    };
}

shipped![
    "beaconing.yaml",
    "canary-touched.yaml",
    "credential-access.yaml",
    "crypto-miner.yaml",
    "data-exfiltration.yaml",
    "deleted-binary.yaml",
    "deleted-running.yaml",
    "denied-burst.yaml",
    "escape-attempt.yaml",
    "exec-writable.yaml",
    "fork-bomb.yaml",
    "fork-rate.yaml",
    "mass-encrypt.yaml",
    "mass-write.yaml",
    "memfd-exec.yaml",
    "novel-syscalls.yaml",
    "privilege-change.yaml",
    "rate-deviation.yaml",
    "reverse-shell.yaml",
];

/// Reads one detection; `file` is its name for messages.
///
/// # Errors
/// `PROFILE_INVALID` with every problem that the file has, its line, column and field.
pub fn parse_detection(bytes: &[u8], file: &str) -> Result<Rule, Error> {
    let failed = |problems| Error::new(ErrorCode::ProfileInvalid, problems);
    let tree = yaml::parse(bytes, file).map_err(|m| failed(vec![*m.problem]))?;
    crate::header(&tree, file, "Detection", "this folder holds detections")
        .map_err(|problem| failed(vec![problem]))?;
    let raw: raw::Detection = yaml::whole_from_node(&tree, file).map_err(failed)?;
    let mut check = Problems::of(&tree, file);
    let rule = check.rule(raw);
    check.or(ErrorCode::ProfileInvalid, rule)
}

/// Reads all of a folder's detections: all of them, or none.
///
/// # Errors
/// `PROFILE_INVALID` with every problem of every file, and names that two files give.
pub fn parse_detections<'a>(
    files: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> Result<Vec<Rule>, Error> {
    let mut problems = Vec::new();
    let mut rules: Vec<Rule> = Vec::new();
    let mut named: HashMap<String, String> = HashMap::new();
    for (file, bytes) in files {
        match parse_detection(bytes, file) {
            Ok(rule) => {
                if let Some(other) = named.insert(rule.name.clone(), file.to_owned()) {
                    let message = format!("{other} has a detection of the name {}, too", quote(&rule.name));
                    problems.push(whole(file, &message, "give each a name of its own"));
                }
                rules.push(rule);
            }
            Err(error) => problems.extend(error.into_problems()),
        }
    }
    if rules.len() > MAX_RULES {
        let message = format!("{} detections, at most {MAX_RULES} are taken", rules.len());
        problems.push(whole("detections", &message, "take some away"));
    }
    if problems.is_empty() { Ok(rules) } else { Err(Error::new(ErrorCode::ProfileInvalid, problems)) }
}

/// The rules that AION ships.
///
/// # Errors
/// None: a test reads them as they are compiled in.
pub fn shipped_detections() -> Result<Vec<Rule>, Error> {
    parse_detections(SHIPPED_DETECTIONS.iter().map(|(name, text)| (*name, text.as_bytes())))
}

fn whole(file: &str, message: &str, fix: &str) -> Problem {
    Problem {
        file: file.to_owned(),
        place: None,
        field: "metadata.name".to_owned(),
        message: message.to_owned(),
        fix: fix.to_owned(),
    }
}

/// A test with a list of words.
type OfWords = fn(Vec<String>) -> Op;

/// In nanoseconds.
const fn nanos(span: Span) -> u64 {
    span.0.saturating_mul(1_000_000)
}

impl Problems<'_> {
    fn rule(&mut self, raw: raw::Detection) -> Rule {
        let raw::Detection { metadata, spec, .. } = raw;
        let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let name = &metadata.name;
        if name.is_empty() || name.len() > 63 || !name.bytes().all(word) || name.starts_with('-') {
            self.wrong(
                "metadata.name",
                format!("{} is not a detection's name", quote(name)),
                "use 1 to 63 of a-z, 0-9 and '-', not beginning with '-'",
            );
        }
        if metadata.description.len() > 1000 || metadata.description.chars().any(char::is_control) {
            self.wrong(
                "metadata.description",
                "it is too long, or has a line break",
                "use one line of at most 1000 bytes",
            );
        }
        for (at, tag) in spec.tags.iter().enumerate() {
            if !is_tag(tag) {
                self.wrong(
                    &format!("spec.tags[{at}]"),
                    format!("{} is not a tag", quote(tag)),
                    "write an ATT&CK id as T1059 or T1059.004, or a word of a-z, 0-9, '.' and '-'",
                );
            }
        }
        if spec.tags.len() > 16 {
            self.wrong("spec.tags", "these are too many", "use at most 16");
        }
        let window_ns = nanos(self.span("spec.window", spec.window, 1000, MAX_WINDOW_MS));
        let when = self.when(spec.condition, spec.deviation);
        let mut exceptions = Vec::new();
        for (at, given) in spec.exceptions.into_iter().enumerate() {
            exceptions.push(self.exception(&format!("spec.exceptions[{at}]"), given, &when));
        }
        let rule = Rule {
            name: metadata.name,
            description: metadata.description,
            severity: severity(spec.severity),
            tags: spec.tags,
            window_ns,
            when,
            action: action(spec.action),
            exceptions,
            enabled: spec.enabled.unwrap_or(true),
        };
        if rule.rests_on_grams() && rule.action != Action::Alert {
            self.wrong(
                "spec.action",
                format!(
                    "{} cannot rest on sequences of system calls, of which new ones prove nothing",
                    rule.action
                ),
                "use alert",
            );
        }
        rule
    }

    fn when(&mut self, condition: Option<raw::Condition>, deviation: Option<raw::DeviationOf>) -> When {
        let nothing = || When::Count { of: Filter { kinds: Vec::new(), tests: Vec::new() }, at_least: 1 };
        let condition = match (condition, deviation) {
            (Some(condition), None) => condition,
            (None, Some(deviation)) => return self.deviation(deviation),
            _ => {
                let fix = "give exactly one of spec.condition and spec.deviation";
                self.wrong("spec", "it does not say what is looked for", fix);
                return nothing();
            }
        };
        let raw::Condition { count, distinct, sum, sequence, beacon } = condition;
        let field = "spec.condition";
        match (count, distinct, sum, sequence, beacon) {
            (Some(raw), None, None, None, None) => {
                let field = format!("{field}.count");
                let of = self.filter(&field, &raw.events, &raw.tests);
                let at_least =
                    self.range(&format!("{field}.at_least"), raw.at_least.unwrap_or(1), 1, MAX_COUNT);
                When::Count { of, at_least }
            }
            (None, Some(raw), None, None, None) => {
                let place = format!("{field}.distinct");
                let of = self.filter(&place, &raw.events, &raw.tests);
                let at_least = self.range(&format!("{place}.at_least"), raw.at_least, 2, MAX_DISTINCT);
                let field = self.field(&format!("{place}.field"), &of.kinds, &raw.field, None);
                When::Distinct { of, field, at_least }
            }
            (None, None, Some(raw), None, None) => {
                let place = format!("{field}.sum");
                let of = self.filter(&place, &raw.events, &raw.tests);
                let at_least = self.range(&format!("{place}.at_least"), raw.at_least.0, 1, u64::MAX / 4);
                let number = Some(FieldType::Number);
                let field = self.field(&format!("{place}.field"), &of.kinds, &raw.field, number);
                When::Sum { of, field, at_least }
            }
            (None, None, None, Some(raw), None) => self.sequence(&format!("{field}.sequence"), raw),
            (None, None, None, None, Some(raw)) => self.beacon(&format!("{field}.beacon"), raw),
            _ => {
                let fix = "give exactly one of count, distinct, sum, sequence, beacon";
                self.wrong(field, "it is none or several conditions", fix);
                nothing()
            }
        }
    }

    fn sequence(&mut self, place: &str, raw: Vec<raw::StepOf>) -> When {
        if !(2..=4).contains(&raw.len()) {
            self.wrong(place, "a sequence has two to four steps", "");
        }
        let keyed = raw.iter().filter(|step| step.key.is_some()).count();
        if keyed != 0 && keyed != raw.len() {
            self.wrong(place, "some steps have a key and some have none", "give all of them one, or none");
        }
        let mut steps = Vec::new();
        for (at, step) in raw.into_iter().enumerate() {
            let place = format!("{place}[{at}]");
            let of = self.filter(&place, &step.events, &step.tests);
            let key = step.key.map(|key| self.field(&format!("{place}.key"), &of.kinds, &key, None));
            steps.push(Step { of, key });
        }
        When::Sequence(steps)
    }

    fn beacon(&mut self, place: &str, raw: raw::BeaconOf) -> When {
        let of = self.filter(place, &raw.events, &raw.tests);
        if !(1..=4).contains(&raw.by.len()) {
            self.wrong(&format!("{place}.by"), "it names one to four fields", "for example [addr, port]");
        }
        let mut by = Vec::new();
        for (at, name) in raw.by.iter().enumerate() {
            by.push(self.field(&format!("{place}.by[{at}]"), &of.kinds, name, None));
        }
        self.range(&format!("{place}.count"), u64::from(raw.count), 4, u64::from(MAX_BEATS));
        let jitter_percent = raw.jitter_percent.unwrap_or(10);
        self.range(&format!("{place}.jitter_percent"), u64::from(jitter_percent), 0, 100);
        let min = raw.min_distance.unwrap_or(Span(2000));
        let min_ns = nanos(self.span(&format!("{place}.min_distance"), min, 1, 3_600_000));
        When::Beacon(Beacon { of, by, count: raw.count, jitter_percent, min_ns })
    }

    fn deviation(&mut self, raw: raw::DeviationOf) -> When {
        let place = "spec.deviation";
        let rate = rate(raw.rate);
        let (kinds, _) = rate.source();
        let kinds: Vec<KindId> = kinds.iter().filter_map(|name| KindId::parse(name)).collect();
        let tests = if rate == Rate::Denials {
            let op = Op::In(vec!["denied".to_owned()]);
            vec![Test { field: "verdict".to_owned(), kind: FieldType::Text, op }]
        } else {
            Vec::new()
        };
        let every = raw.every.unwrap_or(Span(10_000));
        let every_ns = nanos(self.span(&format!("{place}.every"), every, 1000, 3_600_000));
        let (sigma, factor, warm_up) =
            (raw.sigma.unwrap_or(6), raw.factor.unwrap_or(1), raw.warm_up.unwrap_or(30));
        self.range(&format!("{place}.sigma"), u64::from(sigma), 2, 100);
        self.range(&format!("{place}.factor"), u64::from(factor), 1, 1000);
        self.range(&format!("{place}.warm_up"), u64::from(warm_up), 3, 10_000);
        let at_least = self.range(&format!("{place}.at_least"), raw.at_least.0, 1, u64::MAX / 4);
        let of = Filter { kinds, tests };
        When::Deviation(Deviation { rate, of, every_ns, sigma, at_least, factor, warm_up })
    }

    fn filter(&mut self, place: &str, events: &[String], tests: &BTreeMap<String, raw::TestOf>) -> Filter {
        let mut kinds = Vec::new();
        if events.is_empty() {
            self.wrong(&format!("{place}.events"), "it names no kind of events", "for example [proc.exec]");
        }
        for (at, name) in events.iter().enumerate() {
            match KindId::parse(name) {
                Some(kind) => kinds.push(kind),
                None => {
                    let fix = match did_you_mean(name, kind_names()) {
                        Some(near) => format!("did you mean {near:?}?"),
                        None => format!("use one of: {}", kind_names().collect::<Vec<_>>().join(", ")),
                    };
                    let message = format!("{} is not a kind of events that a rule can look at", quote(name));
                    self.wrong(&format!("{place}.events[{at}]"), message, fix);
                }
            }
        }
        let mut done = Vec::new();
        for (field, test) in tests {
            self.test(&format!("{place}.where.{field}"), &kinds, field, test, &mut done);
        }
        Filter { kinds, tests: done }
    }

    /// A field that each of the kinds has, with one type.
    fn field(&mut self, place: &str, kinds: &[KindId], name: &str, wanted: Option<FieldType>) -> String {
        for kind in kinds {
            match field_type(*kind, name) {
                None => {
                    let known: Vec<&'static str> = fields_of(*kind).map(|(field, _)| field).collect();
                    let fix = match did_you_mean(name, known.iter().copied()) {
                        Some(near) => format!("did you mean {near:?}?"),
                        None => format!("it has {}", known.join(", ")),
                    };
                    let message = format!("{} has no field {}", kind.as_str(), quote(name));
                    self.wrong(place, message, fix);
                    break;
                }
                Some((_, found)) if wanted.is_some_and(|wanted| wanted != found) => {
                    self.wrong(place, format!("{} is {}", quote(name), of_type(found)), "");
                    break;
                }
                Some(_) => {}
            }
        }
        name.to_owned()
    }

    fn test(&mut self, place: &str, kinds: &[KindId], name: &str, raw: &raw::TestOf, out: &mut Vec<Test>) {
        self.field(place, kinds, name, None);
        let Some(kind) = kinds.iter().find_map(|kind| Some(field_type(*kind, name)?.1)) else { return };
        let before = out.len();
        let mut add = |op| out.push(Test { field: name.to_owned(), kind, op });
        if let Some(is) = &raw.is {
            match (kind, is.as_str()) {
                (FieldType::Flag, "true") => add(Op::Is(true)),
                (FieldType::Flag, "false") => add(Op::Is(false)),
                (FieldType::Flag, _) => self.wrong(&format!("{place}.is"), "it is true or false", ""),
                _ => add(Op::In(vec![is.clone()])),
            }
        }
        let lists: [(&str, &Vec<String>, OfWords, bool); 5] = [
            ("in", &raw.one_of, Op::In, kind != FieldType::Flag),
            ("not_in", &raw.not_in, Op::NotIn, kind != FieldType::Flag),
            ("prefix", &raw.prefix, Op::Prefix, kind == FieldType::Text),
            ("suffix", &raw.suffix, Op::Suffix, kind == FieldType::Text),
            ("contains", &raw.contains, Op::Contains, kind == FieldType::Text),
        ];
        for (word, words, op, fits) in lists {
            if words.is_empty() {
                continue;
            }
            let place = format!("{place}.{word}");
            if !fits {
                self.wrong(&place, format!("{} is {}", quote(name), of_type(kind)), "");
            } else if words.len() > MAX_WORDS || words.iter().any(|word| word.is_empty() || word.len() > 256)
            {
                self.wrong(
                    &place,
                    "these are too many, or one is empty or too long",
                    "use at most 256 words of 1 to 256 bytes",
                );
            } else {
                add(op(words.clone()));
            }
        }
        for (word, limit, op) in
            [("at_least", raw.at_least, Op::AtLeast as fn(i64) -> Op), ("at_most", raw.at_most, Op::AtMost)]
        {
            match limit {
                Some(limit) if kind == FieldType::Number => add(op(limit)),
                Some(_) => self.wrong(
                    &format!("{place}.{word}"),
                    format!("{} is {}", quote(name), of_type(kind)),
                    "",
                ),
                None => {}
            }
        }
        if out.len() == before && self.is_empty() {
            self.wrong(
                place,
                "it tests nothing",
                "give is, in, not_in, prefix, suffix, contains, at_least or at_most",
            );
        }
    }

    fn exception(&mut self, place: &str, raw: raw::Exception, when: &When) -> Exception {
        if raw.agents.is_empty() && raw.tenants.is_empty() && raw.tests.is_empty() {
            self.wrong(place, "it would except everything", "give agents, tenants or where");
        }
        // A field that one of the rule's kinds has: for the others the exception does not hold.
        let kinds: Vec<KindId> = match when {
            When::Count { of, .. } | When::Distinct { of, .. } | When::Sum { of, .. } => of.kinds.clone(),
            When::Sequence(steps) => steps.iter().flat_map(|step| step.of.kinds.clone()).collect(),
            When::Beacon(beacon) => beacon.of.kinds.clone(),
            When::Deviation(deviation) => deviation.of.kinds.clone(),
        };
        let mut tests = Vec::new();
        for (name, test) in &raw.tests {
            let having: Vec<KindId> =
                kinds.iter().copied().filter(|kind| field_type(*kind, name).is_some()).collect();
            let among = if having.is_empty() { &kinds } else { &having };
            self.test(&format!("{place}.where.{name}"), among, name, test, &mut tests);
        }
        Exception { agents: raw.agents, tenants: raw.tenants, tests }
    }
}
