//! What is shown of a backup.

use std::path::Path;

use aion_backup::Summary;
use serde::Serialize;

use crate::text::{bytes, clean};

#[derive(Serialize)]
pub(super) struct View {
    pub(super) ok: bool,
    encrypted: bool,
    created: String,
    host: String,
    version: String,
    format: u32,
    files: u64,
    bytes: u64,
    archive_bytes: u64,
    /// Over all headers and files, after decryption.
    sha256: String,
    /// For how long tasks were held up when it was made.
    paused_ms: f64,
    parts: Vec<PartView>,
    left_out: Vec<String>,
}

#[derive(Serialize)]
struct PartView {
    name: String,
    files: u64,
    bytes: u64,
}

impl View {
    pub(super) fn new(summary: &Summary, encrypted: bool) -> Self {
        let (manifest, total) = (&summary.manifest, summary.total());
        let parts = summary.parts.iter().map(|(part, counted)| PartView {
            name: part.folder().to_owned(),
            files: counted.files,
            bytes: counted.bytes,
        });
        // Far from where a double has gaps between whole numbers.
        let paused_us = u32::try_from(manifest.paused_us).unwrap_or(u32::MAX);
        Self {
            ok: true,
            encrypted,
            created: manifest.created.clone(),
            host: manifest.host.clone(),
            version: manifest.aion.clone(),
            format: manifest.format,
            files: total.files,
            bytes: total.bytes,
            archive_bytes: summary.archive_bytes,
            sha256: summary.sha256.iter().map(|byte| format!("{byte:02x}")).collect(),
            paused_ms: f64::from(paused_us) / 1000.0,
            parts: parts.collect(),
            left_out: manifest.left_out.clone(),
        }
    }

    /// Of when and where.
    pub(super) fn origin(&self) -> String {
        format!("{} on {}, by version {}", clean(&self.created), clean(&self.host), clean(&self.version))
    }

    pub(super) fn written(&self, file: &Path) -> String {
        format!(
            "wrote {}: {} in {} files; tasks waited {:.1} ms\n",
            clean(&file.display().to_string()),
            bytes(self.bytes),
            self.files,
            self.paused_ms
        )
    }

    pub(super) fn verified(&self) -> String {
        let sealed = if self.encrypted { "encrypted" } else { "NOT encrypted" };
        let mut out = format!(
            "ok: the state of {}; {} in {} files, {sealed}\n",
            self.origin(),
            bytes(self.bytes),
            self.files
        );
        for part in &self.parts {
            out.push_str(&format!("  {:<14} {:>7} files {:>12}\n", part.name, part.files, bytes(part.bytes)));
        }
        for what in &self.left_out {
            out.push_str(&format!("  not in it: {}\n", clean(what)));
        }
        out
    }
}
