//! `validate`: manifests checked here, by the same code and with the same messages as in the daemon.

use serde::Serialize;

use super::target::each_sync;
use crate::cli::{Format, ValidateArgs};
use crate::failure::Outcome;
use crate::output::{Printer, lines, note};
use crate::source::{Source, check};

#[derive(Serialize)]
struct Valid {
    file: String,
    name: String,
    version: String,
    warnings: Vec<String>,
    /// With every value decided.
    manifest: serde_json::Value,
}

pub(super) fn validate(args: &ValidateArgs, printer: Printer) -> Outcome {
    let mut valid = Vec::new();
    let files: Vec<String> = args.files.iter().map(|path| path.display().to_string()).collect();
    let status = each_sync(&files, |file| {
        let source = Source::read(file.as_ref())?;
        let spec = check(&source, aion_manifest::Overrides::default())?;
        valid.push(Valid {
            file: source.name,
            name: spec.name.as_str().to_owned(),
            version: spec.version.clone(),
            warnings: spec.warnings.clone(),
            manifest: serde_yaml::from_str(&spec.to_yaml()).unwrap_or_default(),
        });
        Ok(())
    })?;
    for one in &valid {
        for warning in &one.warnings {
            note(&format!("warning: {}: {warning}", one.file));
        }
    }
    match (printer.format, valid.as_slice()) {
        (Format::Table | Format::Wide, valid) => {
            let line = |one: &Valid| format!("{}: valid, agent {} {}", one.file, one.name, one.version);
            lines(valid.iter().map(|one| crate::text::clean_line(&line(one))))?;
        }
        // The manifest itself, as it would be stored: what `-o yaml` of one file is for.
        (_, [one]) if files.len() == 1 && printer.format == Format::Yaml => {
            printer.document(&one.manifest, &one.name, String::new)?;
        }
        (_, [one]) if files.len() == 1 => printer.document(one, &one.name, String::new)?,
        (_, valid) => printer.items(valid, |one| one.name.clone(), || crate::output::table(&[]))?,
    }
    Ok(status)
}
