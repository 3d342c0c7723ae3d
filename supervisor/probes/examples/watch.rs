//! Watches one command through the probes and prints what they see. For a look by hand:
//! `cargo run -p aion-probes --example watch -- OBJECT COMMAND…` as root.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a tool for the terminal")]

use std::error::Error;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use aion_probes::{AgentConfig, AuditMode, NetPolicy, Object, Options, Probes};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let object = args.next().ok_or("usage: watch OBJECT COMMAND…")?;
    let command: Vec<String> = args.collect();
    let (program, rest) = command.split_first().ok_or("usage: watch OBJECT COMMAND…")?;
    let root = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
        .iter()
        .map(Path::new)
        .find(|root| root.join("cgroup.controllers").exists())
        .ok_or("no cgroup v2 is mounted")?;
    let parent = root.join(format!("aion-watch-{}", std::process::id()));
    let cgroup = parent.join("agent");
    fs::create_dir_all(&cgroup)?;
    let pin_dir = PathBuf::from(format!("/sys/fs/bpf/aion-watch-{}", std::process::id()));
    let result = watch(&parent, &cgroup, &pin_dir, object.into(), program, rest);
    Probes::unpin_all(&pin_dir)?;
    fs::remove_dir(&cgroup)?;
    fs::remove_dir(&parent)?;
    result
}

fn watch(
    parent: &Path,
    cgroup: &Path,
    pin_dir: &Path,
    object: PathBuf,
    program: &str,
    args: &[String],
) -> Result<(), Box<dyn Error>> {
    let options = Options {
        object: Object::Path(object),
        pin_dir: pin_dir.to_owned(),
        cgroup: parent.to_owned(),
        ring_bytes: Options::RING_BYTES,
    };
    let mut opened = Probes::open_or_load(&options)?;
    for program in &opened.report.programs {
        eprintln!("{:28} {:?}", program.name, program.state);
    }
    let id = fs::metadata(cgroup)?.ino();
    let config = AgentConfig { mode: AuditMode::Latency, strict: false, net: NetPolicy::LoopbackOnly };
    opened.probes.add_agent(id, config)?;
    let procs = cgroup.join("cgroup.procs");
    let mut command = Command::new("/bin/sh");
    command
        .arg("-c")
        .arg("echo $$ > \"$1\"; shift; exec \"$@\"")
        .arg("sh")
        .arg(&procs)
        .arg(program)
        .args(args);
    command.process_group(0);
    #[cfg(feature = "log")]
    let mut debug_log = stderr_log::open(&opened.probes)?;
    let status = command.status()?;
    std::thread::sleep(Duration::from_millis(50));
    opened.ring.drain(&mut |event| println!("{} {:?}", event.kind.as_str(), event))?;
    #[cfg(feature = "log")]
    debug_log.flush();
    println!("{status}");
    let last = opened.probes.remove_agent(id)?;
    println!("{:#?}", last.counters);
    for call in last.syscalls {
        println!("{call:?}");
    }
    Ok(())
}

#[cfg(feature = "log")]
mod stderr_log {
    //! The programs' log lines on stderr.

    struct Stderr;

    impl log::Log for Stderr {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }
        fn log(&self, record: &log::Record<'_>) {
            eprintln!("[{}] {}", record.target(), record.args());
        }
        fn flush(&self) {}
    }

    pub(super) fn open(
        probes: &aion_probes::Probes,
    ) -> Result<aion_probes::DebugLog, Box<dyn std::error::Error>> {
        log::set_logger(&Stderr).map_err(|error| error.to_string())?;
        log::set_max_level(log::LevelFilter::Trace);
        Ok(probes.debug_log()?)
    }
}
