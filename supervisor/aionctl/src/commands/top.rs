//! `top`: a table of the agents that run, refreshed in place.

use aion_client::{Client, api};

use super::stats::{Rounds, ids};
use crate::cli::TopArgs;
use crate::failure::Outcome;
use crate::output::Printer;
use crate::terminal::{Page, Raw, read_stdin, size};
use crate::view::stats::{StatsView, stats_table};
use crate::when::Moment;

/// How long after the delay samples may come; then there are none.
const QUIET: std::time::Duration = std::time::Duration::from_millis(500);

pub(super) async fn top(client: &Client, args: TopArgs, printer: Printer) -> Outcome {
    let agents = ids(client, &args.agents).await?;
    if args.iterations == Some(0) {
        return Ok(0);
    }
    let interactive = !args.batch && printer.width.is_some();
    let page = interactive.then(Page::open).transpose()?;
    let _keys = if interactive { Raw::enter_keys() } else { None };
    let mut typed = (interactive && _keys.is_some()).then(read_stdin);
    let delay = std::time::Duration::from_secs(u64::from(args.delay));
    let mut rounds = Rounds::new(client, agents.clone(), args.delay, false);
    let mut shown = 0;
    loop {
        let mut samples = tokio::select! {
            samples = rounds.next() => match samples? {
                Some(samples) => samples,
                // Nothing runs; something may in a moment.
                None => {
                    rounds = Rounds::new(client, agents.clone(), args.delay, false);
                    tokio::time::sleep(delay).await;
                    Vec::new()
                }
            },
            // The stream of samples stays open and silent while nothing runs.
            () = tokio::time::sleep(delay + QUIET) => Vec::new(),
            quit = pressed_q(&mut typed) => if quit { return Ok(0) } else { typed = None; continue },
            _ = tokio::signal::ctrl_c() => return Ok(0),
        };
        samples.sort_by(|a, b| b.cpu_percent.total_cmp(&a.cpu_percent).then_with(|| a.name.cmp(&b.name)));
        let text = frame(client, &samples, printer).await?;
        match &page {
            Some(page) => page.show(&text, size(&std::io::stdout()).map_or(24, |(rows, _)| rows))?,
            None => printer.text(&format!("{text}\n"))?,
        }
        shown += 1;
        if args.iterations.is_some_and(|wanted| shown >= wanted) {
            return Ok(0);
        }
    }
}

async fn frame(client: &Client, samples: &[StatsView], printer: Printer) -> Outcome<String> {
    let all = client.list(api::ListRequest { page_size: 1000, ..Default::default() }).await?;
    let count = |state: &str| all.iter().filter(|agent| agent.state == state).count();
    let cpu: f64 = samples.iter().map(|sample| sample.cpu_percent).sum();
    let memory: u64 = samples.iter().map(|sample| sample.mem_bytes).sum();
    let head = format!(
        "{}  agents: {} running, {} paused, {} ended  cpu {cpu:.1} %  memory {}",
        Moment::now().rfc3339().get(11..19).unwrap_or_default(),
        count("running"),
        count("paused"),
        count("exited") + count("failed"),
        crate::text::bytes(memory),
    );
    Ok(format!("{head}\n\n{}\n", printer.rendered(stats_table(samples))))
}

/// Waits until q is typed; false when nothing can be typed any more. Never ends without a keyboard.
async fn pressed_q(typed: &mut Option<tokio::sync::mpsc::Receiver<Vec<u8>>>) -> bool {
    let Some(keys) = typed else { return std::future::pending().await };
    loop {
        match keys.recv().await {
            Some(keys) if keys.is_empty() => return false,
            Some(keys) if keys.contains(&b'q') => return true,
            Some(_) => {}
            None => return false,
        }
    }
}
