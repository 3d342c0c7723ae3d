//! An attempt: what it tries, which layer stops it first, and how its control runs.

use serde::Serialize;

use crate::sys::{Stop, Tried};
use crate::target::Targets;

/// Where an attempt runs inside AION.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Place {
    /// In an agent with default settings, together with others.
    Agent,
    /// In an agent with small limits, alone, because it uses them up.
    Alone,
    /// In an agent with `subprocess: false`.
    NoSubprocess,
}

/// How the control runs: the same code where the layer that stops the attempt is missing.
pub(crate) enum Control {
    /// As root on the host.
    Host,
    /// As root in throw-away namespaces, so that the host keeps its own.
    Fresh(i32),
    /// As an ordinary user on the host: what it gains would otherwise not show.
    User,
}

type Run = Box<dyn Fn(&Targets) -> Tried>;
type Prepare = Box<dyn Fn(&mut Targets) -> Result<(), Stop>>;

pub(crate) struct Attempt {
    pub(crate) id: String,
    pub(crate) category: &'static str,
    pub(crate) description: String,
    /// The layer that stops it first.
    pub(crate) layer: &'static str,
    pub(crate) place: Place,
    pub(crate) control: Control,
    /// Makes what the attempt finds in place in an agent or would find on a careless host.
    pub(crate) prepare: Option<Prepare>,
    pub(crate) run: Run,
    /// In a control, these mean that the kernel at hand does not have the thing.
    pub(crate) absent: &'static [i32],
}

/// Errors by which a kernel says that it does not have something.
const ABSENT: &[i32] = &[
    libc::ENOSYS,
    libc::EAFNOSUPPORT,
    libc::EPROTONOSUPPORT,
    libc::ESOCKTNOSUPPORT,
    libc::EOPNOTSUPP,
    libc::ENODEV,
    libc::ENXIO,
];

impl Attempt {
    pub(crate) fn new(
        id: impl Into<String>,
        description: impl Into<String>,
        layer: &'static str,
        run: impl Fn(&Targets) -> Tried + 'static,
    ) -> Self {
        Self {
            id: id.into(),
            category: "",
            description: description.into(),
            layer,
            place: Place::Agent,
            control: Control::Host,
            prepare: None,
            run: Box::new(run),
            absent: ABSENT,
        }
    }

    pub(crate) fn control(mut self, control: Control) -> Self {
        self.control = control;
        self
    }

    pub(crate) fn prepare(mut self, prepare: impl Fn(&mut Targets) -> Result<(), Stop> + 'static) -> Self {
        self.prepare = Some(Box::new(prepare));
        self
    }

    pub(crate) fn place(mut self, place: Place) -> Self {
        self.place = place;
        self
    }

    pub(crate) fn absent(mut self, absent: &'static [i32]) -> Self {
        self.absent = absent;
        self
    }

    pub(crate) fn control_text(&self) -> &'static str {
        match self.control {
            Control::Host => "as root on the host",
            Control::Fresh(_) => "as root in throw-away namespaces",
            Control::User => "as an ordinary user on the host",
        }
    }
}

/// Gives attempts of one file their category.
pub(crate) fn category(name: &'static str, attempts: Vec<Attempt>) -> Vec<Attempt> {
    attempts.into_iter().map(|attempt| Attempt { category: name, ..attempt }).collect()
}
