//! Who is told of what detections find: the configuration's webhooks, with their files, which are read while files can be reached.

use std::path::PathBuf;

use aion_manifest::WebhookFile;
use aion_webhook::{Authorities, Error, Secret, Webhook};
use anyhow::{Context as _, Result};

use crate::config::read;
use crate::options::Options;
use crate::settings::{Loaded, Refused};

/// The webhooks. A credential that only the service has is left out where the configuration is checked alone.
///
/// # Errors
/// All files that cannot be used, with where they are named.
pub(crate) fn settings(loaded: &Loaded) -> Result<Vec<Webhook>, Refused> {
    let Some(alerts) = &loaded.alerts else { return Ok(Vec::new()) };
    let (mut webhooks, mut wrong) = (Vec::new(), Vec::new());
    for (at, given) in alerts.list.iter().enumerate() {
        let mut told = |file, error: anyhow::Error| {
            wrong.push(alerts.file_problem(at, file, &format!("{error:#}"), "").to_string());
        };
        let secret = of_file(&loaded.options, given.secret.as_deref(), Secret::new);
        let secret = secret.map_err(|error| told(WebhookFile::Secret, error)).ok().flatten();
        let ca = of_file(&loaded.options, given.ca_file.as_deref(), |pem| Authorities::new(&pem));
        let ca = ca.map_err(|error| told(WebhookFile::Authorities, error)).ok().flatten();
        webhooks.push(Webhook {
            name: given.name.clone(),
            url: given.url.clone(),
            secret,
            ca,
            min_severity: given.min_severity,
            rules: given.rules.clone(),
            timeout: given.timeout,
        });
    }
    if wrong.is_empty() { Ok(webhooks) } else { Err(Refused(wrong)) }
}

/// Whether a file was not looked at: it is a credential, and this is not the service.
pub(crate) fn unread(loaded: &Loaded) -> bool {
    let all = loaded.alerts.iter().flat_map(|alerts| &alerts.list);
    let mut files = all.flat_map(|one| [&one.secret, &one.ca_file]).flatten();
    files.any(|file| matches!(loaded.options.secret(file), Ok(None)))
}

/// The webhooks' files, without credentials that only the service has.
pub(crate) fn files(loaded: &Loaded) -> impl Iterator<Item = PathBuf> {
    let all = loaded.alerts.iter().flat_map(|alerts| &alerts.list);
    let files = all.flat_map(|one| [&one.secret, &one.ca_file]).flatten();
    files.filter_map(move |file| loaded.options.secret(file).ok().flatten())
}

/// What a file holds; none: there is no file, or only the service has it.
fn of_file<T>(
    options: &Options,
    given: Option<&str>,
    what: impl FnOnce(Vec<u8>) -> Result<T, Error>,
) -> Result<Option<T>> {
    let path: Option<PathBuf> = given.map(|given| options.secret(given)).transpose()?.flatten();
    let Some(path) = path else { return Ok(None) };
    let content = read(&path)?.with_context(|| format!("{} is not there", path.display()))?;
    what(content).map(Some).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("aiond-alerts-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        /// One webhook with this for its secret.
        fn load(&self, secret: &str, more: &[&str]) -> Result<Loaded, Refused> {
            let config = self.0.join("config.yaml");
            let text = format!(
                "apiVersion: aion.os/v1\nkind: Config\nalerts:\n  webhooks:\n    - name: oncall\n      \
                 url: https://alerts.example.com/key-in-it\n      secret: {secret}\n"
            );
            std::fs::write(&config, text).unwrap();
            let args =
                ["aiond", "--config", config.to_str().unwrap()].into_iter().chain(more.iter().copied());
            Loaded::read(args.map(OsString::from).collect())
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_secret_is_a_file_with_something_in_it() {
        let folder = Folder::new("file");
        let key = folder.0.join("key");
        let loaded = folder.load(key.to_str().unwrap(), &[]).unwrap();
        let told = settings(&loaded).unwrap_err().to_string();
        assert!(told.contains("config.yaml:7:15: alerts.webhooks[0].secret: "), "{told}");
        assert!(told.contains("key is not there"), "{told}");
        std::fs::write(&key, "\n").unwrap();
        assert!(settings(&loaded).unwrap_err().to_string().contains("the secret is empty"));
        std::fs::write(&key, "secret\n").unwrap();
        let webhooks = settings(&loaded).unwrap();
        assert!(webhooks[0].secret.is_some() && !unread(&loaded));
        assert_eq!(files(&loaded).collect::<Vec<_>>(), [key]);
    }

    #[test]
    fn authorities_are_certificates() {
        let folder = Folder::new("authorities");
        let (key, ca) = (folder.0.join("key"), folder.0.join("ca.pem"));
        std::fs::write(&key, "secret\n").unwrap();
        let secret = format!("{}\n      ca_file: {}", key.display(), ca.display());
        let loaded = folder.load(&secret, &[]).unwrap();
        let told = settings(&loaded).unwrap_err().to_string();
        assert!(told.contains("config.yaml:8:16: alerts.webhooks[0].ca_file: "), "{told}");
        assert!(told.contains("ca.pem is not there"), "{told}");
        std::fs::write(&ca, "no certificate").unwrap();
        let told = settings(&loaded).unwrap_err().to_string();
        assert!(told.contains("no certificate of an authority: there is none"), "{told}");
        let loaded = folder.load("/dev/null\n      ca_file: credential:ca", &["check-config"]).unwrap();
        assert!(unread(&loaded));
    }

    #[test]
    fn a_credential_is_the_service_s_alone() {
        let folder = Folder::new("credential");
        let loaded = folder.load("credential:webhook-key", &["check-config"]).unwrap();
        assert!(settings(&loaded).unwrap()[0].secret.is_none() && unread(&loaded));
        assert_eq!(files(&loaded).count(), 0);
        let loaded = folder.load("credential:../key", &["check-config"]).unwrap();
        assert!(settings(&loaded).unwrap_err().to_string().contains("not a credential's name"));
        let loaded = folder.load("credential:webhook-key", &[]).unwrap();
        let told = settings(&loaded).unwrap_err().to_string();
        assert!(told.contains("LoadCredential=webhook-key"), "{told}");
    }

    #[test]
    fn what_is_set_is_told_without_addresses_and_a_change_waits_for_a_restart() {
        let folder = Folder::new("told");
        let before = folder.load("/etc/one", &[]).unwrap();
        let told = before.describe().collect::<Vec<_>>().join("\n");
        assert!(told.contains("alerts.webhooks: oncall (") && told.contains("config.yaml:"), "{told}");
        assert!(!told.contains("key-in-it"), "{told}");
        assert!(folder.load("/etc/one", &[]).unwrap().changes(&before).is_empty());
        let changes = folder.load("/etc/two", &[]).unwrap().changes(&before);
        assert_eq!(changes.len(), 1, "{changes:?}");
        assert!(changes[0].0 == "alerts" && changes[0].1.contains("alerts.webhooks in "), "{changes:?}");
    }
}
