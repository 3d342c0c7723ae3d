//! The folders that somebody named. What is not there would silently be what AION ships: a slip of the pen, or a folder that is gone, would
//! give agents more than their operator left them. So that one is an error, with who names it; only what nobody named may be missing.

use std::io;
use std::path::Path;

use crate::config::RULES;
use crate::settings::Loaded;

/// What is wrong with them, as the process that asks may see it.
pub(crate) fn problems(loaded: &Loaded) -> Vec<String> {
    let options = &loaded.options;
    let folders = [
        ("profiles", Some(options.profiles.as_path())),
        ("policies", Some(options.policies.as_path())),
        ("detections", options.detections.as_deref()),
        ("trusted-keys", Some(options.trusted_keys.as_path())),
    ];
    let named = folders.into_iter().filter(|(option, _)| loaded.is_given(option));
    let faults = named.filter_map(|(option, folder)| {
        let folder = folder?;
        let rules = || (option == "policies").then(|| without_rules(folder)).flatten();
        let (message, fix) = fault(folder).or_else(rules)?;
        Some(loaded.problem(option, &message, &fix))
    });
    faults.collect()
}

/// What is wrong with a folder, and what to do about it.
fn fault(folder: &Path) -> Option<(String, String)> {
    // To list it is not to get through it.
    let error = std::fs::read_dir(folder).and_then(|_| std::fs::metadata(folder.join("."))).err()?;
    let folder = folder.display();
    Some(match error.kind() {
        io::ErrorKind::NotFound => {
            (format!("there is no folder {folder}"), "make it, or name one that is there".to_owned())
        }
        io::ErrorKind::NotADirectory => {
            (format!("{folder} is no folder"), "name the folder, and not a file of it".to_owned())
        }
        io::ErrorKind::PermissionDenied => (
            format!("{folder} cannot be read by user {}, whom aiond runs as", nix::unistd::geteuid()),
            "let that user read it and get through all folders above it".to_owned(),
        ),
        _ => (format!("{folder} cannot be read: {error}"), "mend it, or name another".to_owned()),
    })
}

/// A folder of policies without the operator's rules.
fn without_rules(folder: &Path) -> Option<(String, String)> {
    let rules = folder.join(RULES);
    let gone = std::fs::metadata(&rules).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    gone.then(|| {
        let message =
            format!("there is no {RULES} in {}, and what agents may have is not guessed", folder.display());
        (message, format!("put it back; /usr/share/aion/policies/{RULES} is what AION ships"))
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::path::PathBuf;

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("aiond-folders-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn path(&self, name: &str) -> String {
            self.0.join(name).display().to_string()
        }

        /// What is told of this configuration and these arguments.
        fn told(&self, text: &str, args: &[&str]) -> Vec<String> {
            let config = self.path("config.yaml");
            std::fs::write(&config, format!("apiVersion: aion.os/v1\nkind: Config\n{text}")).unwrap();
            let all = ["aiond", "--config", config.as_str()].into_iter().chain(args.iter().copied());
            problems(&Loaded::read(all.map(OsString::from).collect()).unwrap())
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_folder_that_is_named_and_not_there_is_told_with_who_names_it() {
        let folder = Folder::new("gone");
        let [none, file] = ["none", "file"].map(|name| folder.path(name));
        std::fs::write(&file, "").unwrap();
        let text =
            format!("paths: {{policies: {none}, detections: {file}}}\nsignatures:\n  trusted_keys: {none}\n");
        let told = folder.told(&text, &["--profiles", &none]);
        let config = folder.path("config.yaml");
        assert_eq!(told.len(), 4, "{told:?}");
        for (told, start) in told.iter().zip([
            format!("--profiles: there is no folder {none}; make it"),
            format!("{config}:3:19: paths.policies: there is no folder {none}; make it"),
            format!("{config}:3:"),
            format!("{config}:5:17: signatures.trusted_keys: there is no folder {none}; make it"),
        ]) {
            assert!(told.starts_with(&start), "{start}: {told}");
        }
        assert!(told[2].contains(&format!("paths.detections: {file} is no folder")), "{told:?}");
    }

    #[test]
    fn what_nobody_named_may_be_missing() {
        assert!(Folder::new("default").told("", &[]).is_empty());
    }

    #[test]
    fn a_folder_of_policies_without_rules_gives_agents_nothing() {
        let folder = Folder::new("empty");
        let policies = folder.path("policies");
        std::fs::create_dir(&policies).unwrap();
        let told = folder.told("", &["--policies", &policies]);
        assert!(
            told.len() == 1 && told[0].starts_with("--policies: there is no agent.capabilities.yaml in "),
            "{told:?}"
        );
        std::fs::write(Path::new(&policies).join(RULES), "").unwrap();
        assert!(folder.told("", &["--policies", &policies]).is_empty());
        // Folders of profiles and detections may be empty.
        assert!(folder.told("", &["--profiles", &policies, "--detections", &policies]).is_empty());
    }
}
