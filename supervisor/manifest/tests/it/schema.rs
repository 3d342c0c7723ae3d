//! The committed schemas are what the types say.

#[test]
fn the_committed_schemas_are_current() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../profiles/schema");
    for (name, schema) in aion_manifest::json_schemas() {
        let path = dir.join(name);
        if std::env::var_os("AION_BLESS").is_some() {
            std::fs::write(&path, format!("{schema:#}\n")).unwrap();
        }
        let committed: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&path).unwrap_or_default()).unwrap_or_default();
        assert!(committed == schema, "{} is stale: run `cargo xtask gen`", path.display());
    }
}

#[test]
fn classes_are_checked() {
    let said = |text: &str| aion_manifest::Classes::parse(text.as_bytes(), "c.yaml").unwrap_err().to_string();
    let class = "{description: d, cpu: 1m, cpu_weight: 0, mem: 1, pids: 0, disk: 1, open_files: 1, gpu: none, io: {weight: 0}}";
    let error = said(&format!("apiVersion: aion.os/v1\nkind: CgroupProfiles\nprofiles:\n  X: {class}\n"));
    assert_eq!(error.lines().count(), 9, "{error}");
    assert!(
        error.starts_with("c.yaml:4:3: profiles:") && error.contains("the class agent-default is missing"),
        "{error}"
    );
    let builtin = aion_manifest::Classes::builtin();
    assert_eq!(builtin.names().collect::<Vec<_>>(), ["agent-default", "agent-large", "tool-low"]);
}
