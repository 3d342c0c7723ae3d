//! Files, programs and devices of running agents, taken and given back while they run: verdicts of BPF LSM beside what Landlock and the
//! mounts of the launch give; of devices, those of the program that every agent is under, on any kernel.
//!
//! [`rules`] says what a launch gave and can be withheld, [`places`] where the kernel finds it. What is to be is written down before it
//! is done: a launcher that dies in between leaves it to the next one. Nothing can be given that the launch did not give.

mod places;
mod rules;

use std::path::Path;

use aion_launcher_proto::v1;
use aion_probes::{FileAccess, Probes, WithheldFile};
use aion_types::{AgentId, LayerName};
use serde_json::json;

use crate::Failure;
use crate::agent::{Agent, Run};
use crate::audit::Entry;
use crate::devices;
use crate::launcher::Launcher;
use crate::limits;
use crate::lock::lock;
use crate::request::{Launch, is_of_device};
use rules::Where;
pub(crate) use rules::texts;

/// How the report of the layer begins to say what is withheld, and what is to be and is not for sure.
const WITHHELD: &str = "; withheld: ";
const BEING_WITHHELD: &str = "; being withheld: ";

/// How often an agent that moves folders all the time is held still: each time one more mount that hangs in another.
const ROUNDS: usize = 3;

/// Whether this kernel can take files from a running agent.
pub(crate) fn is_possible(launcher: &Launcher, probed: bool) -> bool {
    probed && launcher.probes.get().is_some_and(|probes| probes.holds_files())
}

/// Makes the kernel withhold these rules of a launch, and no others. Where some of them are not found, the others are withheld all the
/// same, and nothing is given back.
fn enter(probes: &Probes, run: &Run, launch: &Launch, withheld: &[String]) -> Result<(), Failure> {
    let group = run.held.group.id();
    let all = rules::of(launch);
    let numbered = (1u16..).zip(&all);
    let chosen: Vec<_> = numbered.filter(|(_, rule)| withheld.contains(&rule.text)).collect();
    if chosen.is_empty() {
        return Ok(probes.withhold_files(group, &[])?);
    }
    let given: Vec<&Path> = all.iter().filter_map(|rule| rule.place.mount()).collect();
    let wanted: Vec<&Where> = chosen.iter().map(|(_, rule)| &rule.place).collect();
    let mut found = places::find(run, &wanted, &given)?;
    for _ in 0..ROUNDS {
        let missing = chosen.iter().zip(&found).filter(|(_, places)| places.is_none());
        let mut still = Vec::new();
        for ((number, rule), _) in missing {
            for place in places::movers(run, &rule.place)? {
                still.push(WithheldFile { place, access: FileAccess::Write, rule: *number });
                if rule.access == FileAccess::Exec {
                    still.push(WithheldFile { place, access: FileAccess::Exec, rule: *number });
                }
            }
        }
        if still.is_empty() {
            break;
        }
        // Until all is found, or for good: it does not move any more what it cannot write to.
        probes.withhold_more_files(group, &still)?;
        found = places::find(run, &wanted, &given)?;
    }
    let mut files = Vec::new();
    let mut missing = Vec::new();
    for ((number, rule), places) in chosen.into_iter().zip(found) {
        let of = |place| WithheldFile { place, access: rule.access, rule: number };
        match places {
            Some(places) => files.extend(places.into_iter().map(of)),
            None => missing.push(rule.text.as_str()),
        }
    }
    if missing.is_empty() {
        return Ok(probes.withhold_files(group, &files)?);
    }
    probes.withhold_more_files(group, &files)?;
    let missing = missing.join(" ");
    Err(Failure::internal(format!(
        "{missing} could not be withheld: folders on the way are moved without end"
    )))
}

/// Does what an earlier launcher wrote down. What the kernel withholds it goes on withholding when that fails.
pub(crate) fn take_over(launcher: &Launcher, agent: &Agent, run: &Run) {
    let (spec, withheld, is_behind, given) = {
        let mut inner = agent.lock();
        inner.record.agent.holds_files = is_possible(launcher, run.probed);
        let record = &inner.record;
        (inner.spec.clone(), record.withheld_files.clone(), record.files_are_behind, record.devices.clone())
    };
    if withheld.is_empty() && !is_behind {
        return;
    }
    let done = match (launcher.probes.get(), spec) {
        (Some(probes), Some(spec)) => {
            // Each whatever became of the other.
            let devices = probes.set_devices(run.held.group.id(), &devices::uses(&given, &withheld));
            enter(probes, run, &spec, &withheld).and(devices.map_err(Failure::from))
        }
        _ => Err(Failure::layer(LayerName::Lsm, 0, "no probes, or it is not known how it was launched")),
    };
    {
        let record = &mut agent.lock().record;
        record.files_are_behind = done.is_err();
        note(&mut record.agent.layers, &withheld, done.is_ok());
    }
    if let Err(failure) = done {
        tracing::warn!(agent = %agent.id, %failure, "files that are withheld from the agent are as the kernel knows them");
    }
}

/// Says in the reports of layers `lsm` and `devices` what is withheld; not `done`: what is to be.
fn note(layers: &mut [v1::Layer], withheld: &[String], done: bool) {
    let says = if done { WITHHELD } else { BEING_WITHHELD };
    for layer in layers {
        let of_devices = layer.name == LayerName::Devices.as_str();
        if !of_devices && layer.name != LayerName::Lsm.as_str() {
            continue;
        }
        let begins = [WITHHELD, BEING_WITHHELD].into_iter().filter_map(|says| layer.detail.find(says));
        let kept = begins.min().unwrap_or(layer.detail.len());
        layer.detail.truncate(kept);
        let own = withheld.iter().filter(|rule| is_of_device(rule) == of_devices);
        let own: Vec<&str> = own.map(String::as_str).collect();
        if !own.is_empty() {
            layer.detail.push_str(&format!("{says}{}", own.join(" ")));
        }
    }
}

/// Whether two lists are the same but for rules of devices.
fn same_files(one: &[String], other: &[String]) -> bool {
    let files =
        |all: &[String]| -> Vec<String> { all.iter().filter(|rule| !is_of_device(rule)).cloned().collect() };
    files(one) == files(other)
}

impl Launcher {
    /// Takes files, programs and devices of its launch from a running agent, or gives them back: rules as [`texts`] writes them.
    pub(crate) fn withhold_files(
        &self,
        id: &AgentId,
        withheld: Vec<String>,
    ) -> Result<v1::AgentState, Failure> {
        let agent = self.agent(id)?;
        let _turn = lock(&agent.turn);
        let run = agent.running().ok_or_else(|| Failure::not_running(id))?;
        let spec = agent.lock().spec.clone();
        let launch =
            spec.ok_or_else(|| Failure::internal("what the agent was given is not known any more"))?;
        let known = texts(&launch);
        if let Some(rule) = withheld.iter().find(|rule| !known.contains(rule)) {
            return Err(Failure::field("rules", format!("the agent was not launched with {rule}")));
        }
        let of_files = is_possible(self, run.probed);
        if !of_files && !same_files(&agent.lock().record.withheld_files, &withheld) {
            let why = self.probes.lsm().err().unwrap_or_else(|| "a hook that it needs is missing".to_owned());
            return Err(Failure::layer(LayerName::Lsm, 0, format!("files cannot be withheld: {why}")));
        }
        let Some(probes) = self.probes.get().filter(|_| run.probed) else {
            return Err(Failure::layer(LayerName::Probes, 0, "nothing can be withheld without the probes"));
        };
        let (before, given) = {
            let mut inner = agent.lock();
            let record = &mut inner.record;
            if record.withheld_files == withheld && !record.files_are_behind {
                drop(inner);
                return Ok(agent.view());
            }
            let before =
                (record.withheld_files.clone(), record.files_are_behind, record.agent.layers.clone());
            note(&mut record.agent.layers, &withheld, false);
            record.withheld_files.clone_from(&withheld);
            record.files_are_behind = true;
            (before, record.devices.clone())
        };
        if let Err(failure) = self.publish(&agent) {
            let record = &mut agent.lock().record;
            (record.withheld_files, record.files_are_behind, record.agent.layers) = before;
            return Err(failure);
        }
        // What goes of all goes before what comes of any.
        let group = run.held.group.id();
        let either: Vec<String> = before.0.iter().chain(&withheld).cloned().collect();
        probes.set_devices(group, &devices::uses(&given, &either))?;
        if of_files {
            enter(probes, &run, &launch, &withheld)?;
        }
        probes.set_devices(group, &devices::uses(&given, &withheld))?;
        {
            let record = &mut agent.lock().record;
            // Files of an earlier launcher's that this kernel cannot take any more stay to be done.
            let is_behind = before.1 && !of_files && withheld.iter().any(|rule| !is_of_device(rule));
            record.files_are_behind = is_behind;
            note(&mut record.agent.layers, &withheld, !is_behind);
        }
        if let Err(failure) = self.publish(&agent) {
            // The next launcher does it once more.
            tracing::warn!(agent = %id, %failure, "it is not written down that files are withheld by now");
        }
        let detail = json!({ "withheld": withheld });
        limits::tell(self, &agent, vec![Entry::new("agent.files", "allowed", &detail)]);
        Ok(agent.view())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_says_what_is_withheld_now() {
        let mut layers = [v1::Layer {
            name: "lsm".to_owned(),
            state: "active".to_owned(),
            detail: "BPF LSM hooks".to_owned(),
        }];
        let both = ["fs:read:/a".to_owned(), "exec:/b".to_owned()];
        note(&mut layers, &both, false);
        assert_eq!(layers[0].detail, "BPF LSM hooks; being withheld: fs:read:/a exec:/b");
        note(&mut layers, &both, true);
        assert_eq!(layers[0].detail, "BPF LSM hooks; withheld: fs:read:/a exec:/b");
        note(&mut layers, &["exec:/b".to_owned()], true);
        assert_eq!(layers[0].detail, "BPF LSM hooks; withheld: exec:/b");
        note(&mut layers, &[], true);
        assert_eq!(layers[0].detail, "BPF LSM hooks");
    }

    #[test]
    fn devices_are_told_in_their_own_layer() {
        let layer =
            |name: &str| v1::Layer { name: name.to_owned(), detail: "x".to_owned(), ..Default::default() };
        let mut layers = [layer("devices"), layer("lsm"), layer("seccomp")];
        let both = ["fs:read:/a".to_owned(), "device:read:/dev/fuse".to_owned()];
        note(&mut layers, &both, true);
        let told: Vec<&str> = layers.iter().map(|layer| layer.detail.as_str()).collect();
        assert_eq!(told, ["x; withheld: device:read:/dev/fuse", "x; withheld: fs:read:/a", "x"]);
        assert!(same_files(&both, &both[..1]) && !same_files(&both, &both[1..]));
    }
}
