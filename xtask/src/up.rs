//! `cargo xtask up` and `down`: AION at work on this machine, without systemd, and nothing left of it after.
//!
//! Building is the caller's; everything after it is root's. Without root this program runs itself once more
//! through sudo for that second half.

use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::daemons::{DAEMONS, Daemons};
use crate::process::{as_root, head, is_root, note, run, succeeds, warn};
use crate::project::Project;
use crate::setup::{Group, setup};
use crate::{binaries, demo, leftovers};

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Leave the daemons in the background; `cargo xtask down` stops them
    #[arg(long)]
    detach: bool,
    /// The state folder; below the clone unless it is absolute
    #[arg(long, value_name = "DIR", default_value = ".aion")]
    state: PathBuf,
    /// Start the daemons alone, without the sample agents
    #[arg(long)]
    no_demo: bool,
    /// Take the last build as it is
    #[arg(long, hide = true)]
    prebuilt: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DownArgs {
    /// The state folder; below the clone unless it is absolute
    #[arg(long, value_name = "DIR", default_value = ".aion")]
    state: PathBuf,
    /// Also remove the state folder: agents' records, the audit log, its key
    #[arg(long)]
    purge: bool,
}

/// Sets up, builds, starts, shows.
pub(crate) fn up(project: &Project, args: &UpArgs) -> Result<()> {
    if !args.prebuilt {
        setup(&[Group::Build])?;
        binaries::build(project)?;
    }
    if !is_root() {
        let mut again = as_root(std::env::current_exe()?);
        again.args(["up", "--prebuilt", "--state"]).arg(&args.state);
        again.args(args.detach.then_some("--detach")).args(args.no_demo.then_some("--no-demo"));
        return run(again.envs(project.environment()).current_dir(&project.root));
    }
    serve(project, args)
}

fn serve(project: &Project, args: &UpArgs) -> Result<()> {
    let daemons = Daemons::new(project, &args.state)?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("cannot listen for signals")?;
    }
    let running = DAEMONS.iter().all(|name| daemons.pid(name).is_some());
    if running && !args.detach {
        bail!(
            "AION already runs from {}: `cargo xtask down --state {0}` stops it, `up --detach` brings it up to date",
            daemons.state.display()
        );
    }
    let mut children = start(&daemons)?;
    let env = daemons.write_env()?;
    head(&format!("AION runs from {}", daemons.state.display()));
    let tool = project.root.join("examples/web-search/tool.yml");
    if !succeeds(daemons.aionctl().args(["tool", "install"]).arg(&tool)) {
        warn(&format!("{} cannot be installed", tool.display()));
    }
    if !args.no_demo && !stop.load(Ordering::Relaxed) {
        demo::show(project, &daemons)?;
    }
    println!(
        "\nTo use it, in another shell:\n  source {}\n  aionctl run -- python3 -c 'print(2 ** 100)'",
        env.display()
    );
    if std::env::var_os("SUDO_USER").is_some() {
        println!("as root, or as a member of the group aion");
    }
    if args.detach {
        println!("To stop it:\n  cargo xtask down");
        return Ok(());
    }
    println!("Ctrl-C stops it.");
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(200));
        watch(&daemons, &mut children, &stop)?;
    }
    println!();
    take_down(project, &daemons)
}

/// Starts what does not run, and anew what runs an older build: agents outlive that.
fn start(daemons: &Daemons<'_>) -> Result<Vec<(&'static str, Child)>> {
    for name in DAEMONS.iter().rev() {
        if daemons.is_stale(name) {
            note(&format!("{name} runs an older build: starting it again, agents run on"));
            daemons.stop(name)?;
        }
    }
    let mut children = Vec::new();
    for name in DAEMONS {
        if let Some(child) = daemons.start(name)? {
            children.push((name, child));
        }
    }
    if let Err(error) = daemons.await_ready() {
        for name in DAEMONS.iter().rev() {
            let _already_gone = daemons.stop(name);
        }
        return Err(error);
    }
    Ok(children)
}

/// Starts a daemon again that ended, as systemd would.
fn watch(daemons: &Daemons<'_>, children: &mut [(&'static str, Child)], stop: &AtomicBool) -> Result<()> {
    for (name, child) in children {
        if let Some(status) = child.try_wait()? {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            warn(&format!("{name} ended ({status}): starting it again"));
            std::thread::sleep(Duration::from_secs(1));
            if let Some(new) = daemons.start(name)? {
                *child = new;
            }
        }
    }
    Ok(())
}

/// Stops agents and daemons, and looks whether anything is left.
pub(crate) fn down(project: &Project, args: &DownArgs) -> Result<()> {
    if !is_root() {
        let mut again = as_root(std::env::current_exe()?);
        again.args(["down", "--state"]).arg(&args.state).args(args.purge.then_some("--purge"));
        return run(again.envs(project.environment()).current_dir(&project.root));
    }
    let daemons = Daemons::new(project, &args.state)?;
    if !daemons.state.is_dir() {
        println!("nothing runs from {}", daemons.state.display());
        return Ok(());
    }
    take_down(project, &daemons)?;
    if args.purge {
        // Whatever this folder is, it was made by `up`, or nothing is removed.
        if !daemons.state.join("env").is_file() && !daemons.state.join("launcher").is_dir() {
            bail!("{} does not look like a state folder of AION: not removed", daemons.state.display());
        }
        std::fs::remove_dir_all(&daemons.state)
            .with_context(|| format!("cannot remove {}", daemons.state.display()))?;
    }
    Ok(())
}

/// aiond first, so that nothing is started again; then the agents; then the launcher.
pub(crate) fn take_down(project: &Project, daemons: &Daemons<'_>) -> Result<()> {
    head("stopping the agents and the daemons");
    for name in DAEMONS.iter().rev() {
        daemons.stop(name)?;
    }
    run(Command::new(project.binary("aion-launcher")).args(["purge", "--state"]).arg(&daemons.state))?;
    // The kernel ends what was killed in its own time.
    let mut left = leftovers::find(&daemons.state);
    for _ in 0..50 {
        if left.is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
        left = leftovers::find(&daemons.state);
    }
    if !left.is_empty() {
        bail!("these are left behind:\n  {}", left.join("\n  "));
    }
    println!("stopped: no process, cgroup, mount or pinned object is left");
    Ok(())
}
