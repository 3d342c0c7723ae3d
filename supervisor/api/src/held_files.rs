//! Files, programs and devices of running agents under the operator's rules: what they do not leave an agent, aion-launcher withholds
//! from it, rule by rule; files and programs where its kernel can. See `policies`, whose other half this is.

use std::collections::BTreeSet;

use aion_api_proto::v1 as api;
use aion_launcher_proto::v1 as launcher;
use aion_manifest::{AgentSpec, withheld_of_launch};
use aion_store::AgentRecord;
use aion_types::ErrorCode;
use prost::Message as _;
use serde_json::json;

use crate::core::Core;
use crate::permitted::Bounds;
use crate::problem::{Outcome, Problem};

/// How rules of devices begin.
const DEVICE: &str = "device:";

/// The rules of a launch that can be withheld, as the launcher names them.
fn rules_of(plan: &launcher::Launch) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let mut files = |path: &str, writable: bool| {
        all.insert(format!("fs:read:{path}"));
        if writable {
            all.insert(format!("fs:write:{path}"));
        }
    };
    for bind in &plan.binds {
        files(&String::from_utf8_lossy(&bind.path), bind.writable);
    }
    if let Some(workspace) = &plan.workspace
        && let Some(launcher::workspace::Kind::Directory(_)) = &workspace.kind
    {
        files("/workspace", !workspace.read_only);
    }
    all.extend(plan.exec_allow.iter().map(|path| format!("exec:{}", String::from_utf8_lossy(path))));
    if !plan.restrict_exec && plan.exec_allow.is_empty() {
        all.insert("exec:/**".to_owned());
    }
    for device in &plan.devices {
        let path = String::from_utf8_lossy(&device.path);
        all.insert(format!("{DEVICE}read:{path}"));
        if device.writable {
            all.insert(format!("{DEVICE}write:{path}"));
        }
    }
    all
}

/// What can be withheld of a launch.
struct Launched {
    rules: BTreeSet<String>,
    /// The host folder that stands for `/workspace`.
    workspace: Option<String>,
}

impl Launched {
    fn of(plan: &launcher::Launch) -> Self {
        let kind = plan.workspace.as_ref().and_then(|workspace| workspace.kind.as_ref());
        let workspace = match kind {
            Some(launcher::workspace::Kind::Directory(path)) => {
                Some(String::from_utf8_lossy(path).into_owned())
            }
            _ => None,
        };
        Self { rules: rules_of(plan), workspace }
    }
}

/// Which of these bounds do not leave the agent, and why. The launch is judged: the manifest may be another by now, or gone.
fn withheld(
    launched: &Launched,
    spec: Option<&AgentSpec>,
    bounds: &Outcome<Bounds>,
) -> Vec<api::WithheldFile> {
    let told = |(rule, why)| api::WithheldFile { rule, why };
    let rules = &launched.rules;
    match bounds {
        Ok(bounds) => {
            let mut left = rules.clone();
            let workspace = launched.workspace.as_deref();
            let all = bounds.policies().flat_map(|policy| withheld_of_launch(rules, workspace, spec, policy));
            all.filter(|(rule, _)| left.remove(rule)).map(told).collect()
        }
        // Nobody knows what it may have.
        Err(problem) => rules.iter().map(|rule| told((rule.clone(), problem.to_string()))).collect(),
    }
}

impl Core {
    /// Holds an agent's files, programs and devices to its bounds; `held` is what is known of it so far.
    pub(crate) async fn hold_files(
        &self,
        state: &launcher::AgentState,
        record: &AgentRecord,
        bounds: &Outcome<Bounds>,
        held: api::HeldAgent,
        dry_run: bool,
    ) -> api::HeldAgent {
        let mut held = held;
        let mut launched = match self.launched_with(record) {
            Ok(launched) => launched,
            Err(problem) => return failed(held, &problem.to_string()),
        };
        if !state.holds_files {
            // Devices every kernel takes.
            launched.rules.retain(|rule| rule.starts_with(DEVICE));
        }
        // Most agents have none, and their manifests are not read for it.
        if launched.rules.is_empty() {
            return held;
        }
        held.withheld_files = withheld(&launched, self.runs_by(record).as_ref(), bounds);
        let now: BTreeSet<&str> = held.withheld_files.iter().map(|one| one.rule.as_str()).collect();
        let is_judged = |rule: &&str| state.holds_files || rule.starts_with(DEVICE);
        let before = state.withheld_files.iter().map(String::as_str);
        // What this kernel cannot change stays as it was.
        let (before, kept): (BTreeSet<&str>, BTreeSet<&str>) = before.partition(is_judged);
        held.files_given_back = before.difference(&now).map(|rule| (*rule).to_owned()).collect();
        // What is withheld already is asked for all the same: the launcher may be behind with it.
        if dry_run || (now.is_empty() && before.is_empty()) {
            return held;
        }
        let is_new = now != before;
        let wanted: Vec<String> = now.union(&kept).map(|rule| (*rule).to_owned()).collect();
        match self.launcher.withhold_files(&state.id, wanted).await {
            Ok(_) if is_new => {
                let told: Vec<_> =
                    held.withheld_files.iter().map(|one| json!({"rule": one.rule, "why": one.why})).collect();
                let detail = json!({"withheld_files": told, "files_given_back": held.files_given_back});
                self.trail.own(&state.tenant, &state.id, "api.policy.held", "policy", detail).await;
                held
            }
            Ok(_) => held,
            Err(error) if error.code() == ErrorCode::AgentNotRunning => {
                (held.withheld_files, held.files_given_back) = (Vec::new(), Vec::new());
                held
            }
            Err(error) => failed(held, &error.to_string()),
        }
    }

    fn launched_with(&self, record: &AgentRecord) -> Outcome<Launched> {
        let bytes = self.store.launch_of(&record.tenant, &record.id)?.unwrap_or_default();
        let plan = launcher::Launch::decode(bytes.as_slice())
            .map_err(|error| Problem::internal("a stored launch cannot be read", &error))?;
        Ok(Launched::of(&plan))
    }
}

fn failed(held: api::HeldAgent, why: &str) -> api::HeldAgent {
    let error = if held.error.is_empty() { why.to_owned() } else { format!("{}; {why}", held.error) };
    api::HeldAgent { error, ..held }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_launch_is_named_rule_by_rule() {
        let bind = |path: &[u8], writable| launcher::Bind { path: path.to_vec(), writable };
        let folder = launcher::workspace::Kind::Directory(b"/srv/work".to_vec());
        let plan = launcher::Launch {
            binds: vec![bind(b"/srv/in", false), bind(b"/srv/out", true)],
            workspace: Some(launcher::Workspace { kind: Some(folder), read_only: true }),
            restrict_exec: true,
            exec_allow: vec![b"/usr/bin/git".to_vec()],
            devices: vec![
                launcher::Device { path: b"/dev/fuse".to_vec(), writable: true },
                launcher::Device { path: b"/dev/kvm".to_vec(), writable: false },
            ],
            ..launcher::Launch::default()
        };
        let all: Vec<String> = rules_of(&plan).into_iter().collect();
        let expected = [
            "device:read:/dev/fuse",
            "device:read:/dev/kvm",
            "device:write:/dev/fuse",
            "exec:/usr/bin/git",
            "fs:read:/srv/in",
            "fs:read:/srv/out",
            "fs:read:/workspace",
            "fs:write:/srv/out",
        ];
        assert_eq!(all, expected);
        let any = rules_of(&launcher::Launch::default());
        assert_eq!(any.into_iter().collect::<Vec<_>>(), ["exec:/**"]);
    }

    #[test]
    fn without_bounds_nothing_is_left() {
        let launched = Launched { rules: BTreeSet::from(["fs:read:/srv".to_owned()]), workspace: None };
        let gone: Outcome<Bounds> = Err(Problem::new(ErrorCode::TenantNotFound, "gone"));
        assert_eq!(withheld(&launched, None, &gone)[0].rule, "fs:read:/srv");
    }
}
