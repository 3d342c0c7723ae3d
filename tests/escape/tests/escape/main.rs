//! Every attempt inside a real agent, and its control without the layer: the first must be stopped, the second succeed.
//!
//! One test for each attempt. The attempts of a kind share an agent, except those that use something up.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop")]

mod agents;
mod controls;
mod links;
mod table;

use std::process::ExitCode;
use std::time::Instant;

use aion_e2e::{Daemons, Options, Report, Suite, why_not};
use table::{Listed, Results, Row};

/// What the suite promises: so many attempts whose controls succeed on the machine at hand.
const PROMISED: usize = 80;

fn main() -> ExitCode {
    let begun = Instant::now();
    let options = Options::read(std::env::args().skip(1));
    let list = table::list();
    let mut report = Report::default();
    if options.lists() {
        let mut suite = Suite::new(&options);
        list.iter().for_each(|attempt| suite.test(&attempt.name(), || ()));
        suite.run(1, &mut report);
        return ExitCode::SUCCESS;
    }
    println!("running {} tests", list.len());
    if let Some(why) = why_not() {
        let mut suite = Suite::new(&options);
        list.iter().for_each(|attempt| suite.test(&attempt.name(), || ()));
        report.skip_all(suite, &why);
        return report.close(begun);
    }
    let daemons = match Daemons::start() {
        Ok(daemons) => daemons,
        Err(error) => {
            report.check("daemons", Err(format!("{error:#}")));
            return report.close(begun);
        }
    };
    let attempts = agents::run_all(&daemons, &list);
    let controls = controls::run_all();
    let rows: Vec<Row<'_>> = list.iter().map(|listed| row(listed, &attempts, &controls)).collect();
    table::print(&rows);

    let mut suite = Suite::new(&options);
    for row in &rows {
        suite.test(&row.listed.name(), || row.check());
    }
    links::add(&mut suite, &daemons);
    suite.run(2, &mut report);
    let shown = rows.iter().filter(|row| row.is_shown()).count();
    let enough =
        if shown >= PROMISED { Ok(()) } else { Err(format!("{shown} attempts, {PROMISED} are promised")) };
    report.check("enough attempts with a control that succeeds", enough);
    report.check("nothing is left behind", daemons.finish().map_err(|error| format!("{error:#}")));
    report.close(begun)
}

fn row<'a>(listed: &'a Listed, attempts: &Results, controls: &Results) -> Row<'a> {
    Row { listed, attempt: attempts.get(&listed.id).cloned(), control: controls.get(&listed.id).cloned() }
}
