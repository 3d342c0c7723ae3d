//! `policies/detections/*.yaml` as they are written. The comments become the descriptions in the JSON Schema.

use std::collections::BTreeMap;

use aion_types::ByteSize;
use schemars::JsonSchema;
use serde::Deserialize;

use super::manifest::ApiVersion;
use super::shapes::Scalar;
use super::span::Span;

/// What is looked for in the events of each agent, and what is done when it is found.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schemars(title = "AION detection")]
pub(crate) struct Detection {
    /// The version of this format.
    #[expect(dead_code, reason = "its type admits one value")]
    pub(crate) api_version: ApiVersion,
    /// What this file is.
    #[expect(dead_code, reason = "its type admits one value")]
    pub(crate) kind: DetectionKind,
    /// What it is called.
    pub(crate) metadata: DetectionMetadata,
    /// What it looks for and does.
    pub(crate) spec: DetectionSpec,
}

/// The kind of that file.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) enum DetectionKind {
    /// A detection.
    Detection,
}

/// What it is called.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DetectionMetadata {
    /// Unique among the detections: a-z, 0-9 and '-', at most 63.
    pub(crate) name: String,
    /// What it means when it is found, for people.
    #[serde(default)]
    pub(crate) description: String,
}

/// What it looks for and does.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DetectionSpec {
    /// How bad it is.
    pub(crate) severity: SeverityWord,
    /// MITRE ATT&CK ids as T1059.004, and other words of a-z, 0-9, '.' and '-'.
    #[serde(default)]
    pub(crate) tags: Vec<String>,
    /// How long events count together: 1s to 24h. Having found something, it says nothing more of the agent for so long, and for
    /// a minute at least.
    pub(crate) window: Span,
    /// Events that are looked for. Exactly one of `condition` and `deviation` is given.
    #[serde(default)]
    pub(crate) condition: Option<Condition>,
    /// A rate far above the agent's own habit.
    #[serde(default)]
    pub(crate) deviation: Option<DeviationOf>,
    /// What is done; `alert` when absent, and always besides. Rules that rest on sequences of system calls only alert.
    #[serde(default)]
    pub(crate) action: Option<ActionWord>,
    /// What it does not look at.
    #[serde(default)]
    pub(crate) exceptions: Vec<Exception>,
    /// Whether it is looked for; true when absent.
    #[serde(default)]
    pub(crate) enabled: Option<bool>,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SeverityWord {
    /// Worth knowing.
    Info,
    /// Odd.
    Low,
    /// To be looked at.
    Medium,
    /// To be looked at now.
    High,
    /// Somebody attacks.
    Critical,
}

/// What is done.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ActionWord {
    /// Tell: an event, a record in the audit log, a figure.
    Alert,
    /// And leave the agent a tenth of a processor.
    Throttle,
    /// And stop the agent where it stands.
    Freeze,
    /// And refuse it every connection and drop its packets.
    IsolateNetwork,
    /// And end it.
    Kill,
}

/// What is looked for: exactly one of these.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Condition {
    /// So many events within the window.
    #[serde(default)]
    pub(crate) count: Option<CountOf>,
    /// So many different values of a field.
    #[serde(default)]
    pub(crate) distinct: Option<DistinctOf>,
    /// A field that adds up to so much.
    #[serde(default)]
    pub(crate) sum: Option<SumOf>,
    /// One event after another, the whole within the window: two to four steps.
    #[serde(default)]
    pub(crate) sequence: Option<Vec<StepOf>>,
    /// The same again and again at even distances.
    #[serde(default)]
    pub(crate) beacon: Option<BeaconOf>,
}

/// So many events.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CountOf {
    /// Kinds of events, as proc.exec.
    pub(crate) events: Vec<String>,
    /// What must hold of their fields.
    #[serde(default, rename = "where")]
    pub(crate) tests: BTreeMap<String, TestOf>,
    /// How many; 1 when absent.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) at_least: Option<u64>,
}

/// So many different values.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DistinctOf {
    /// Kinds of events.
    pub(crate) events: Vec<String>,
    /// What must hold of their fields.
    #[serde(default, rename = "where")]
    pub(crate) tests: BTreeMap<String, TestOf>,
    /// The field whose values are told apart.
    pub(crate) field: String,
    /// How many.
    #[schemars(range(min = 2, max = 256))]
    pub(crate) at_least: u64,
}

/// A sum.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SumOf {
    /// Kinds of events.
    pub(crate) events: Vec<String>,
    /// What must hold of their fields.
    #[serde(default, rename = "where")]
    pub(crate) tests: BTreeMap<String, TestOf>,
    /// The field that is added up. `times` is for how many an event stands: some are told once, with a count.
    pub(crate) field: String,
    /// How much, as 500 or 64Mi.
    pub(crate) at_least: ByteSize,
}

/// A step of a sequence.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StepOf {
    /// Kinds of events.
    pub(crate) events: Vec<String>,
    /// What must hold of their fields.
    #[serde(default, rename = "where")]
    pub(crate) tests: BTreeMap<String, TestOf>,
    /// A field whose value must be the same as the other steps' keys.
    #[serde(default)]
    pub(crate) key: Option<String>,
}

/// Even distances.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BeaconOf {
    /// Kinds of events.
    pub(crate) events: Vec<String>,
    /// What must hold of their fields.
    #[serde(default, rename = "where")]
    pub(crate) tests: BTreeMap<String, TestOf>,
    /// Fields that are the same from beat to beat, as [addr, port].
    pub(crate) by: Vec<String>,
    /// How many beats in a row.
    #[schemars(range(min = 4, max = 64))]
    pub(crate) count: u32,
    /// How far the distances may deviate, in per cent of their mean; 10 when absent.
    #[serde(default)]
    #[schemars(range(max = 100))]
    pub(crate) jitter_percent: Option<u32>,
    /// What comes sooner after a beat belongs to it; 2s when absent.
    #[serde(default)]
    pub(crate) min_distance: Option<Span>,
}

/// Beyond habit.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeviationOf {
    /// Of what.
    pub(crate) rate: RateWord,
    /// Counted over so long; 10s when absent.
    #[serde(default)]
    pub(crate) every: Option<Span>,
    /// How many standard deviations above the mean; 6 when absent.
    #[serde(default)]
    #[schemars(range(min = 2, max = 100))]
    pub(crate) sigma: Option<u32>,
    /// Never below this in an interval, as 100 or 64Mi.
    pub(crate) at_least: ByteSize,
    /// Never below so many times the mean in an interval; 1 when absent.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1000))]
    pub(crate) factor: Option<u32>,
    /// Intervals with something in them that are learned from first; 30 when absent.
    #[serde(default)]
    #[schemars(range(min = 3, max = 10_000))]
    pub(crate) warm_up: Option<u32>,
}

/// What a habit is kept of.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RateWord {
    /// Processes made.
    Forks,
    /// Programs started.
    Execs,
    /// Connections and datagrams begun.
    Connects,
    /// Whatever was refused.
    Denials,
    /// Files opened for writing, where that is recorded.
    FilesWritten,
    /// System calls, with audit mode count or more.
    Syscalls,
    /// Bytes sent.
    BytesOut,
    /// Bytes received.
    BytesIn,
    /// Bytes written to disks.
    DiskWritten,
    /// Sequences of six system calls that the agent never made before, with audit mode count or more. With action alert alone.
    NovelGrams,
}

/// What must hold of a field: all that is given.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TestOf {
    /// It is this.
    #[serde(default)]
    #[schemars(with = "Option<Scalar>")]
    pub(crate) is: Option<String>,
    /// It is one of these.
    #[serde(default, rename = "in")]
    #[schemars(with = "Vec<Scalar>")]
    pub(crate) one_of: Vec<String>,
    /// It is none of these.
    #[serde(default)]
    #[schemars(with = "Vec<Scalar>")]
    pub(crate) not_in: Vec<String>,
    /// It begins with one of these.
    #[serde(default)]
    #[schemars(with = "Vec<Scalar>")]
    pub(crate) prefix: Vec<String>,
    /// It ends with one of these.
    #[serde(default)]
    #[schemars(with = "Vec<Scalar>")]
    pub(crate) suffix: Vec<String>,
    /// It has one of these in it.
    #[serde(default)]
    #[schemars(with = "Vec<Scalar>")]
    pub(crate) contains: Vec<String>,
    /// It is so much or more.
    #[serde(default)]
    pub(crate) at_least: Option<i64>,
    /// It is so much or less.
    #[serde(default)]
    pub(crate) at_most: Option<i64>,
}

/// What is not looked at: events for which all that is given holds.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Exception {
    /// Agents by name, or the beginning of names as build-*.
    #[serde(default)]
    pub(crate) agents: Vec<String>,
    /// Tenants.
    #[serde(default)]
    pub(crate) tenants: Vec<String>,
    /// What holds of the event's fields.
    #[serde(default, rename = "where")]
    pub(crate) tests: BTreeMap<String, TestOf>,
}
