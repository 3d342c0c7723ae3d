//! Signatures: ECDSA on P-256 over SHA-256, DER in base64, which is what `cosign sign-blob --key` writes and `cosign verify-blob --key`
//! reads. OpenSSL makes them; each has a random number in it, so two signatures of one file differ.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::{capture, note, read, write_whole};

/// The public key beside the files. Who verifies takes it from elsewhere.
const PUBLIC: &str = "aion-dist.pub";

/// Whether this is a key that can sign, so that a build does not end with the news that it is none.
pub(crate) fn check(key: &Path) -> Result<()> {
    let text = fs::read_to_string(key).with_context(|| format!("cannot read the key {}", key.display()))?;
    if text.contains("ENCRYPTED SIGSTORE") || text.contains("ENCRYPTED COSIGN") {
        bail!(
            "{} is in cosign's own form: make one with openssl, and give it to cosign with `cosign import-key-pair`",
            key.display()
        );
    }
    let output = capture(&mut openssl(key, &["pkey", "-noout", "-text"], "-in"))?;
    if !output.status.success() {
        bail!(
            "{} is no private key, or AION_SIGN_PASSPHRASE does not open it: {}",
            key.display(),
            String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default()
        );
    }
    if !String::from_utf8_lossy(&output.stdout).contains("ASN1 OID: prime256v1") {
        bail!("{} is no key of the curve P-256", key.display());
    }
    Ok(())
}

/// Signs each file, verifies that with the public half, and writes that half. Gives what it wrote.
pub(crate) fn sign(key: &Path, out: &Path, files: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let public = out.join(PUBLIC);
    read(openssl(key, &["pkey", "-pubout"], "-in").arg("-out").arg(&public))?;
    let der = out.join("signature.part");
    let mut made = Vec::new();
    for file in files {
        read(openssl(key, &["dgst", "-sha256"], "-sign").arg("-out").arg(&der).arg(file))?;
        let mut verify = Command::new("openssl");
        verify.args(["dgst", "-sha256", "-verify"]).arg(&public).arg("-signature").arg(&der).arg(file);
        read(&mut verify)?;
        let mut name = file.clone().into_os_string();
        name.push(".sig");
        let text = read(Command::new("openssl").args(["base64", "-A", "-in"]).arg(&der))?;
        write_whole(Path::new(&name), text.trim().as_bytes())?;
        made.push(PathBuf::from(name));
    }
    fs::remove_file(&der)?;
    note(&format!("signed; the public key is {}", public.display()));
    made.push(public);
    Ok(made)
}

/// openssl with the key. It would ask a terminal for a passphrase; it is told instead that there is none.
fn openssl(key: &Path, words: &[&str], option: &str) -> Command {
    const PASSPHRASE: &str = "AION_SIGN_PASSPHRASE";
    let mut command = Command::new("openssl");
    command.args(words);
    let given = std::env::var_os(PASSPHRASE).is_some();
    command.args(["-passin", if given { "env:AION_SIGN_PASSPHRASE" } else { "pass:" }]);
    command.arg(option).arg(key);
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{in_path, succeeds};

    /// A folder with a file and keys; none where there is no openssl.
    fn folder(name: &str, keys: &[(&str, &str)]) -> Option<PathBuf> {
        if !in_path("openssl") {
            println!("skipped: there is no openssl here");
            return None;
        }
        let folder = std::env::temp_dir().join(format!("aion-sign-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("file"), "content").unwrap();
        for (file, words) in keys {
            let mut command = Command::new("openssl");
            assert!(succeeds(command.args(words.split(' ')).arg("-out").arg(folder.join(file))), "{words}");
        }
        Some(folder)
    }

    #[test]
    fn what_is_signed_verifies_and_what_was_changed_does_not() {
        let keys = [
            ("pkcs8", "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256"),
            ("sec1", "ecparam -name prime256v1 -genkey"),
        ];
        let Some(folder) = folder("good", &keys) else { return };
        for (key, _) in keys {
            let key = folder.join(key);
            check(&key).unwrap();
            let file = folder.join("file");
            fs::write(&file, "content").unwrap();
            let made = sign(&key, &folder, std::slice::from_ref(&file)).unwrap();
            assert_eq!(made, [folder.join("file.sig"), folder.join(PUBLIC)]);
            let text = fs::read_to_string(folder.join("file.sig")).unwrap();
            assert!(text.starts_with("ME") && !text.contains('\n'), "DER in base64 on one line: {text}");
            let verify = || {
                let decode = "openssl base64 -d -A -in file.sig -out der &&
                    openssl dgst -sha256 -verify aion-dist.pub -signature der file";
                succeeds(Command::new("sh").args(["-c", decode]).current_dir(&folder))
            };
            assert!(verify());
            fs::write(&file, "Content").unwrap();
            assert!(!verify());
        }
        fs::remove_dir_all(&folder).unwrap();
    }

    /// The commands of docs/operate/install.md that verify, but for cosign's, which is not everywhere.
    fn documented() -> Vec<String> {
        let page = crate::project::Project::locate().unwrap().root.join("docs/operate/install.md");
        let page = fs::read_to_string(page).unwrap();
        let block = page.split("## Checksums").nth(1).and_then(|rest| rest.split("```").nth(1)).unwrap();
        let is_command = |line: &&str| line.starts_with("sha256sum") || line.starts_with("openssl");
        block.lines().filter(is_command).map(str::to_owned).collect()
    }

    #[test]
    fn a_changed_package_sums_for_it_and_a_strange_key_are_refused_by_what_the_page_says() {
        let key = "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256";
        let Some(folder) = folder("page", &[("key", key), ("other", key)]) else { return };
        let public = |key: &str| {
            let mut command = Command::new("openssl");
            command.args(["pkey", "-pubout", "-in"]).arg(folder.join(key));
            assert!(succeeds(command.arg("-out").arg(folder.join("release.pub"))));
        };
        let sums = || {
            let text = read(Command::new("sha256sum").arg("file").current_dir(&folder)).unwrap();
            fs::write(folder.join("SHA256SUMS"), text).unwrap();
        };
        let commands = documented();
        let [check, verify] = commands.as_slice() else { panic!("{commands:?}") };
        let run = |command: &str| {
            let output = capture(Command::new("sh").args(["-c", command]).current_dir(&folder)).unwrap();
            let said = [output.stdout, output.stderr].concat();
            (output.status.success(), String::from_utf8_lossy(&said).into_owned())
        };
        sums();
        sign(&folder.join("key"), &folder, &[folder.join("SHA256SUMS")]).unwrap();
        public("key");
        assert!(run(check).0 && run(verify).0, "{:?} {:?}", run(check), run(verify));
        // The package.
        fs::write(folder.join("file"), "Content").unwrap();
        let (passes, said) = run(check);
        assert!(!passes && said.contains("file: FAILED"), "{said}");
        // And the sums with it.
        sums();
        let (passes, said) = run(verify);
        assert!(run(check).0 && !passes && said.contains("erification"), "{said}");
        // Signed again, by somebody else.
        sign(&folder.join("other"), &folder, &[folder.join("SHA256SUMS")]).unwrap();
        let (passes, said) = run(verify);
        assert!(!passes && said.contains("erification"), "{said}");
        public("other");
        assert!(run(verify).0, "{:?}", run(verify));
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_cannot_sign_is_refused_with_the_reason() {
        let p384 = ("p384", "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384");
        let locked =
            ("locked", "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -aes256 -pass pass:x");
        let Some(folder) = folder("bad", &[p384, locked]) else { return };
        fs::write(folder.join("cosign"), "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n").unwrap();
        for (key, reason) in [
            ("missing", "cannot read the key"),
            ("file", "is no private key"),
            ("p384", "no key of the curve P-256"),
            ("locked", "AION_SIGN_PASSPHRASE does not open it"),
            ("cosign", "cosign import-key-pair"),
        ] {
            let said = format!("{:#}", check(&folder.join(key)).unwrap_err());
            assert!(said.contains(reason), "{key}: {said}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
