//! What the programs need of the host's libraries, as RPM's own tools would find and name it.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use super::tree;
use crate::process::read;

/// What all programs of the tree need together: `libc.so.6(GLIBC_2.34)(64bit)`, `libseccomp.so.2()(64bit)`.
pub(crate) fn needs(root: &Path) -> Result<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    for program in tree::DYNAMIC {
        all.extend(parse(&read(Command::new("objdump").arg("-p").arg(root.join(program)))?));
    }
    if !all.iter().any(|need| need.starts_with("libc.so.6(GLIBC_")) {
        bail!("objdump names no version of libc.so.6: {all:?}");
    }
    Ok(all)
}

/// `objdump -p`: lines `NEEDED libc.so.6`, and for each library the versions of its symbols.
fn parse(text: &str) -> BTreeSet<String> {
    let mut needs = BTreeSet::new();
    let mut library = None;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["NEEDED", name] => {
                needs.insert(format!("{name}()(64bit)"));
            }
            ["required", "from", name] => library = Some(name.trim_end_matches(':')),
            // The second number has the flags; 2 is a weak one, which the loader can do without.
            [hash, flags, _, version] if hash.starts_with("0x") && *flags != "0x02" => {
                if let Some(library) = library {
                    needs.insert(format!("{library}({version})(64bit)"));
                }
            }
            _ => library = library.filter(|_| !line.trim().is_empty()),
        }
    }
    needs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_versions_are_named_as_rpm_names_them() {
        let text = "Dynamic Section:\n  NEEDED               libseccomp.so.2\n  NEEDED               libc.so.6\n  INIT 0x1\n\n\
                    Version definitions:\n1 0x01 0x0c x\n\nVersion References:\n  required from libc.so.6:\n\
                    \x20   0x0d696913 0x00 11 GLIBC_2.3.4\n    0x069691b4 0x02 03 GLIBC_2.34\n\
                    \x20 required from libm.so.6:\n    0x06969189 0x00 07 GLIBC_2.29\n";
        let needs: Vec<String> = parse(text).into_iter().collect();
        assert_eq!(
            needs,
            [
                "libc.so.6()(64bit)",
                "libc.so.6(GLIBC_2.3.4)(64bit)",
                "libm.so.6(GLIBC_2.29)(64bit)",
                "libseccomp.so.2()(64bit)",
            ]
        );
    }

    #[test]
    fn a_program_of_this_host_needs_its_libc() {
        let text = read(Command::new("objdump").args(["-p", "/bin/true"])).unwrap();
        let needs = parse(&text);
        assert!(needs.contains("libc.so.6()(64bit)"), "{needs:?}");
        assert!(needs.iter().any(|need| need.starts_with("libc.so.6(GLIBC_2.")), "{needs:?}");
    }
}
