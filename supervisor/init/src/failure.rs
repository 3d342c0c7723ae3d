//! Why there is no agent: the layer that could not be set up, or the program that could not be executed.

use aion_sys::agent::{Failed, Step};
use aion_types::LayerName;
use rustix::io::Errno;

pub(crate) type Result<T> = std::result::Result<T, Failure>;

#[derive(Debug)]
pub(crate) enum Failure {
    Layer { layer: LayerName, errno: i32, message: String },
    Exec { errno: i32 },
}

impl Failure {
    pub(crate) fn because(layer: LayerName, message: &str) -> Self {
        Self::Layer { layer, errno: 0, message: message.to_owned() }
    }
}

/// Names the layer and what was tried.
pub(crate) fn at(layer: LayerName, message: &str) -> impl FnOnce(Errno) -> Failure {
    move |e| Failure::Layer { layer, errno: e.raw_os_error(), message: message.to_owned() }
}

impl From<Failed> for Failure {
    fn from(failed: Failed) -> Self {
        let (layer, message) = match failed.step {
            Step::None | Step::Session => (LayerName::Session, "cannot make the agent's session"),
            Step::OomScore => (LayerName::Rlimits, "cannot set oom_score_adj"),
            Step::Rlimits => (LayerName::Rlimits, "cannot set a limit"),
            Step::Capabilities => (LayerName::Capabilities, "cannot drop capabilities"),
            Step::User => (LayerName::Namespaces, "cannot become the agent's user"),
            Step::Directory => (LayerName::Workspace, "cannot enter the working directory"),
            Step::NoNewPrivs => (LayerName::NoNewPrivs, "cannot set no_new_privs"),
            Step::Landlock => (LayerName::Landlock, "cannot enter the domain"),
            Step::Seccomp => (LayerName::Seccomp, "cannot load the filter"),
            Step::Execute => return Self::Exec { errno: failed.errno.raw_os_error() },
        };
        at(layer, message)(failed.errno)
    }
}
