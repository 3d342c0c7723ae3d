use std::collections::BTreeSet;

use super::*;

fn real() -> Value {
    let project = Project::locate().unwrap();
    let graph = linked::graph(&project).unwrap();
    let programs = ["aiond", "aion-launcher", "aion-wasm", "aionctl", "aion-init", "aion-probe-programs"];
    let sums = programs.iter().map(|name| (*name, "0".repeat(64))).collect();
    bill(&graph, &known(&project).unwrap(), &sums, "1.95.0", "0.1.0-1", 1_700_000_000)
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no {field} in {value}"))
}

/// What the specification requires of version 1.5, and what readers of bills look for.
#[test]
fn the_bill_has_what_is_required() {
    let bill = real();
    assert_eq!((text(&bill, "bomFormat"), text(&bill, "specVersion")), ("CycloneDX", "1.5"));
    assert_eq!(bill["version"], 1);
    assert_eq!(text(&bill["metadata"], "timestamp"), "2023-11-14T22:13:20Z");
    let mut references = BTreeSet::from(["aion"]);
    for component in bill["components"].as_array().unwrap() {
        assert!(["application", "library"].contains(&text(component, "type")));
        assert!(!text(component, "name").is_empty() && !text(component, "version").is_empty());
        assert!(text(component, "purl").starts_with("pkg:"));
        assert!(!text(&component["licenses"][0], "expression").contains('/'), "{component}");
        assert!(references.insert(text(component, "bom-ref")), "{component} is there twice");
        if text(component, "purl").starts_with("pkg:cargo/") {
            assert_eq!(text(&component["hashes"][0], "content").len(), 64, "{component}");
        }
    }
    let mut told = BTreeSet::new();
    for dependency in bill["dependencies"].as_array().unwrap() {
        assert!(told.insert(text(dependency, "ref")), "{dependency} is there twice");
        for on in dependency["dependsOn"].as_array().unwrap() {
            assert!(references.contains(on.as_str().unwrap()), "{on} is no component");
        }
    }
    assert_eq!(told, references);
}

#[test]
fn the_bill_names_what_is_linked_and_nothing_else() {
    let bill = real();
    let of_kind = |kind: &str| -> BTreeSet<&str> {
        let all = bill["components"].as_array().unwrap().iter();
        all.filter(|component| text(component, "type") == kind)
            .map(|component| text(component, "name"))
            .collect()
    };
    let programs = ["aion-init", "aion-launcher", "aion-probe-programs", "aion-wasm", "aionctl", "aiond"];
    assert_eq!(of_kind("application"), BTreeSet::from(programs));
    let libraries = of_kind("library");
    for name in
        ["aion-types", "aya", "aya-ebpf", "librocksdb-sys", "rust-std", "tokio", "wasmtime", "zstd-sys"]
    {
        assert!(libraries.contains(name), "{name} is linked");
    }
    // Tests, build scripts, procedural macros, tools.
    for name in ["aion-e2e", "cc", "insta", "proptest", "serde_derive", "tonic-prost-build", "xtask"] {
        assert!(!libraries.contains(name), "{name} is linked into nothing");
    }
}

#[test]
fn the_same_inputs_give_the_same_bill() {
    assert_eq!(real().to_string(), real().to_string());
}

#[test]
fn times_are_written_as_everybody_writes_them() {
    assert_eq!(time(0), "1970-01-01T00:00:00Z");
    assert_eq!(time(951_782_400), "2000-02-29T00:00:00Z");
    assert_eq!(time(1_767_225_599), "2025-12-31T23:59:59Z");
    assert_eq!(time(4_107_542_400), "2100-03-01T00:00:00Z");
}

#[test]
fn a_number_is_a_uuid_and_that_of_its_content() {
    let hash = "0123456789abcdef".repeat(4);
    assert_eq!(serial(&hash), "urn:uuid:01234567-89ab-8cde-af01-23456789abcd");
    assert_ne!(serial(&hash), serial(&"fedcba9876543210".repeat(4)));
}

#[test]
fn a_lock_file_tells_checksums() {
    let lock = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"x\"\nchecksum = \"ff\"\n\n\
                [[package]]\nname = \"own\"\nversion = \"0.1.0\"\n";
    let id = ("a".to_owned(), "1.0.0".to_owned());
    assert_eq!(checksums(lock), BTreeMap::from([(id, "ff".to_owned())]));
}

#[test]
fn licences_are_expressions() {
    assert_eq!(expression("MIT/Apache-2.0"), "MIT OR Apache-2.0");
    assert_eq!(expression("Apache-2.0 WITH LLVM-exception OR MIT"), "Apache-2.0 WITH LLVM-exception OR MIT");
}
