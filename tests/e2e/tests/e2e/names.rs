//! Names and ids.

use crate::Shared;
use crate::agent::{detached, pair};

pub(crate) fn a_name_is_taken_once(shared: &Shared) {
    let daemons = pair(shared);
    let agent = detached(daemons, "taken", &[], &["sleep", "60"]);
    daemons.ctl(["run", "--name", &agent.name, "--", "true"]).done().expect(125).says("NAME_TAKEN");
    assert_eq!(agent.state(), "running", "the first is untouched");
    daemons.ctl(["stop", "-t", "0", &agent.name]).ok();
    daemons.ctl(["run", "-d", "--name", &agent.name, "--", "true"]).done().expect(125).says("NAME_TAKEN");
    daemons.ctl(["rm", &agent.name]).ok();
    daemons.ctl(["run", "-d", "--name", &agent.name, "--", "true"]).ok();
}

pub(crate) fn names_that_are_nearly_right(shared: &Shared) {
    let daemons = pair(shared);
    let agent = detached(daemons, "researcher", &[], &["sleep", "60"]);
    let wrong = agent.name.replace("researcher", "reseacher");
    daemons.ctl(["inspect", &wrong]).done().expect(4).says(&format!("did you mean {:?}?", agent.name));
}

pub(crate) fn pieces_of_ids(shared: &Shared) {
    let daemons = pair(shared);
    let agent = detached(daemons, "piece", &[], &["sleep", "60"]);
    let id = agent.inspect()["id"].as_str().unwrap().to_owned();
    for text in [&id[..], &id[16..]] {
        assert_eq!(daemons.ctl(["inspect", text]).json()["name"], agent.name.as_str());
    }
    // Without a name there is a random one of two words.
    let done = daemons.ctl(["run", "-d", "-o", "name", "--", "true"]).ok();
    let name = done.text().trim().to_owned();
    assert!(name.split('-').count() >= 2, "{name}");
    daemons.ctl(["wait", &name]).ok();
    daemons.ctl(["rm", &name]).ok();
}
