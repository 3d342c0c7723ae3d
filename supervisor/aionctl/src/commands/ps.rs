//! `ps`: the list of agents.

use std::collections::HashMap;

use aion_client::{Client, api};

use crate::cli::{Format, PsArgs};
use crate::failure::{Failure, Outcome, USAGE};
use crate::output::{Printer, lines};
use crate::view::agent::{AgentView, agents_table};
use crate::when::Moment;

const LIVE: [&str; 4] = ["starting", "running", "paused", "stopping"];
const STATES: [&str; 7] = ["created", "starting", "running", "paused", "stopping", "exited", "failed"];

pub(super) async fn ps(client: &Client, args: &PsArgs, printer: Printer) -> Outcome {
    let request = request(args)?;
    let mut agents: Vec<AgentView> = client.list(request).await?.into_iter().map(AgentView::from).collect();
    // Newest first, as ids sort by creation.
    agents.sort_by(|a, b| b.id.cmp(&a.id));
    if args.quiet {
        lines(agents.iter().map(|agent| agent.id.clone()))?;
        return Ok(0);
    }
    let wide = printer.format == Format::Wide;
    let table = || agents_table(&agents, wide, args.no_trunc, Moment::now());
    printer.items(&agents, |agent| agent.name.clone(), table)?;
    Ok(0)
}

fn request(args: &PsArgs) -> Outcome<api::ListRequest> {
    let wrong = |text: &str, why: &str| Failure::new(USAGE, format!("--filter {text:?}: {why}"));
    let mut states: Vec<String> = Vec::new();
    let mut name_prefix = String::new();
    let mut labels = HashMap::new();
    for text in &args.filters {
        let (key, value) = text.split_once('=').ok_or_else(|| wrong(text, "write KEY=VALUE"))?;
        match key {
            "state" | "status" if STATES.contains(&value) => states.push(value.to_owned()),
            "state" | "status" => return Err(wrong(text, &format!("the states are {}", STATES.join(", ")))),
            "name" => value.clone_into(&mut name_prefix),
            "label" => {
                let (label, value) =
                    value.split_once('=').ok_or_else(|| wrong(text, "write label=KEY=VALUE"))?;
                labels.insert(label.to_owned(), value.to_owned());
            }
            _ => return Err(wrong(text, "the keys are state, name and label")),
        }
    }
    // A state that was asked for is shown without -a too.
    if states.is_empty() && !args.all {
        states = LIVE.map(str::to_owned).to_vec();
    }
    Ok(api::ListRequest { page_size: 1000, states, name_prefix, labels, ..Default::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(all: bool, filters: &[&str]) -> PsArgs {
        let filters = filters.iter().map(|&text| text.to_owned()).collect();
        PsArgs { all, filters, quiet: false, no_trunc: false }
    }

    #[test]
    fn filters_become_a_request() {
        let request = request(&args(false, &["state=exited", "name=web", "label=a=b=c"])).expect("valid");
        assert_eq!(request.states, ["exited"]);
        assert_eq!(request.name_prefix, "web");
        assert_eq!(request.labels["a"], "b=c");
    }

    #[test]
    fn without_all_only_live_agents_are_listed() {
        assert_eq!(request(&args(false, &[])).expect("valid").states, LIVE);
        assert!(request(&args(true, &[])).expect("valid").states.is_empty());
    }

    #[test]
    fn wrong_filters_are_usage_errors() {
        for text in ["state", "state=dead", "colour=red", "label=x"] {
            assert_eq!(request(&args(false, &[text])).expect_err(text).exit, USAGE, "{text}");
        }
    }
}
