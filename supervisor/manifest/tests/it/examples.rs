//! The sample agents are valid, and the shipped rules let them have what they ask for.

use aion_manifest::{AgentSpec, CapabilityPolicy, Classes, Context, Overrides, ToolFile};

#[test]
fn the_sample_agents_are_valid() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let policy = std::fs::read(root.join("policies/agent.capabilities.yaml")).unwrap();
    let policy = CapabilityPolicy::parse(&policy, "agent.capabilities.yaml").unwrap();
    for folder in std::fs::read_dir(root.join("examples")).unwrap() {
        let path = folder.unwrap().path().join("agent.yml");
        let Ok(bytes) = std::fs::read(&path) else { continue };
        let name = path.display().to_string();
        let spec = AgentSpec::parse(&bytes, &name, Overrides::default(), &Context::builtin());
        let spec = spec.unwrap_or_else(|e| panic!("{e}"));
        spec.restrict(&policy).unwrap_or_else(|e| panic!("{e}"));
        assert!(spec.warnings.is_empty(), "{name}: {:?}", spec.warnings);
    }
}

#[test]
fn the_sample_tools_are_valid() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut seen = 0;
    for folder in std::fs::read_dir(root.join("examples")).unwrap() {
        let path = folder.unwrap().path().join("tool.yml");
        let Ok(bytes) = std::fs::read(&path) else { continue };
        let tool = ToolFile::parse(&bytes, &path.display().to_string(), &Classes::builtin());
        tool.unwrap_or_else(|e| panic!("{e}"));
        seen += 1;
    }
    assert!(seen > 1, "{seen}");
}
