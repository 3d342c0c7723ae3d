//! What the command line says over the file. It is merged before anything is checked, so that it is checked, too.

use std::collections::BTreeMap;

use crate::raw::{self, Quota};

/// The "file" in messages about an override.
pub(crate) const COMMAND_LINE: &str = "command line";

/// What the command line adds to a manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--name`.
    pub name: Option<String>,
    /// The words after `--`; empty: the manifest's entry.
    pub argv: Vec<String>,
    /// `--workspace`.
    pub workspace: Option<String>,
    /// `--env`, over those of the manifest.
    pub env: BTreeMap<String, String>,
    /// `--tty`; false leaves the manifest's.
    pub tty: bool,
    /// `--label`, over those of the manifest.
    pub labels: BTreeMap<String, String>,
    /// What it does not exceed, together with the manifest's own quota.
    pub quota: Quota,
}

impl Overrides {
    /// Merges, and answers which fields came from which option.
    pub(crate) fn apply(self, manifest: &mut raw::Manifest) -> BTreeMap<String, String> {
        let mut from = BTreeMap::new();
        let mut set = |field: String, option: String| {
            from.insert(field, option);
        };
        if let Some(name) = self.name {
            manifest.metadata.name = name;
            set("metadata.name".to_owned(), "--name".to_owned());
        }
        if !self.argv.is_empty() {
            manifest.spec.entry = Some(raw::TextOrList::List(self.argv));
            set("spec.entry".to_owned(), "command".to_owned());
        }
        if let Some(path) = self.workspace {
            // The folder is another, whether it is only read is still the manifest's word.
            let read_only = match manifest.spec.workspace.take() {
                Some(raw::WordOr::Full(w)) => w.read_only,
                _ => None,
            };
            manifest.spec.workspace = Some(raw::WordOr::Full(raw::Workspace { path: Some(path), read_only }));
            set("spec.workspace".to_owned(), "--workspace".to_owned());
        }
        for (name, value) in self.env {
            set(format!("spec.env.{name}"), format!("--env {}", crate::error::quote(&name)));
            manifest.spec.env.insert(name, value);
        }
        for (key, value) in self.labels {
            set(format!("metadata.labels.{key}"), format!("--label {}", crate::error::quote(&key)));
            manifest.metadata.labels.insert(key, value);
        }
        if self.quota != Quota::default() {
            manifest.spec.quota = Some(manifest.spec.quota.unwrap_or_default().tighter(self.quota));
        }
        if self.tty {
            manifest.spec.tty = Some(true);
        }
        from
    }
}
