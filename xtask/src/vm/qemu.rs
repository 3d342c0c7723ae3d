//! One machine: QEMU with the CPU emulated, two disks, a serial console, no network.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::console::Console;
use crate::process::{note, show, warn};

/// How long a boot may take; it takes 4 to 15 seconds.
const BOOT: Duration = Duration::from_secs(90);
/// How often a boot is tried.
const BOOTS: u32 = 3;

/// What a machine boots, and where its console goes.
pub(crate) struct Machine<'a> {
    pub(crate) kernel: &'a Path,
    pub(crate) initramfs: &'a Path,
    pub(crate) root: &'a Path,
    pub(crate) payload: &'a Path,
    pub(crate) log: &'a Path,
    /// What runs as PID 1 after the initramfs, when it is not guest-init.
    pub(crate) init: Option<&'a str>,
    /// Whether it may go down and come up again, also because QEMU was killed: it writes to `root` itself.
    pub(crate) reboots: bool,
}

impl Machine<'_> {
    fn command(&self) -> Command {
        // What is raw and unsafe is in the host's cache before the guest hears that it is written: QEMU's death takes nothing of it along.
        let disk = |path: &Path, kept: bool| {
            let snapshot = if kept { "off" } else { "on" };
            format!("file={},if=virtio,format=raw,snapshot={snapshot},cache=unsafe", path.display())
        };
        // It ends with us: a machine that nobody reads would take both processors for as long as the host is up.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64"]);
        // KVM is not asked for even where it is there: the figure of a run must not hang on the host.
        command.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "3G"]);
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-nic", "none"]);
        if !self.reboots {
            command.arg("-no-reboot");
        }
        command.args(["-device", "virtio-rng-pci", "-serial", "stdio"]);
        command.arg("-kernel").arg(self.kernel).arg("-initrd").arg(self.initramfs);
        // A panic must not look like a reboot.
        let panic = if self.reboots { 0 } else { -1 };
        let init =
            self.init.map(|init| format!(" aion.init={init} systemd.show_status=no")).unwrap_or_default();
        command.arg("-append").arg(format!(
            "console=ttyS0 panic={panic} oops=panic quiet loglevel=4 random.trust_cpu=on mitigations=off \
             lsm=landlock,lockdown,yama,integrity,apparmor,bpf{init}"
        ));
        command.arg("-drive").arg(disk(self.root, self.reboots));
        command.arg("-drive").arg(disk(self.payload, false));
        command
    }

    /// The command line, for a machine that is kept.
    pub(crate) fn command_line(&self) -> String {
        format!("{:?}", self.command())
    }

    /// Boots and runs to the end. A boot that hangs is tried again: when a busy host takes the processor away from
    /// QEMU at the wrong moment, the guest calibrates its timers wrongly and a CPU of its never ticks.
    pub(crate) fn boot(&self, limit: Duration) -> Result<Console> {
        for _ in 1..BOOTS {
            let console = self.boot_once(limit)?;
            if console.boots > 0 {
                return Ok(console);
            }
            warn("the machine did not come up: booting it again");
        }
        self.boot_once(limit)
    }

    /// Starts QEMU, and a thread that reads its console.
    fn start(&self) -> Result<(Child, Receiver<String>)> {
        let mut command = self.command();
        note(&format!("$ {}", show(&command)));
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .context("cannot run qemu-system-x86_64")?;
        let output = child.stdout.take().context("QEMU has no console")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(output);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                if sender.send(text).is_err() {
                    break;
                }
                line.clear();
            }
        });
        Ok((child, lines))
    }

    /// Boots, copies the console to the log, and shows what matters of it while it runs.
    fn boot_once(&self, limit: Duration) -> Result<Console> {
        let (mut child, mut lines) = self.start()?;
        let mut log =
            File::create(self.log).with_context(|| format!("cannot write {}", self.log.display()))?;
        let begun = Instant::now();
        let mut console = Console::default();
        // What is to be reached, by when, and how often that is tried again: only after a cut, where nobody else does.
        let (mut boots, mut up_by, mut tries) = (1, BOOT, 0);
        loop {
            let limit = if console.boots >= boots { limit } else { up_by.min(limit) };
            match lines.recv_timeout(limit.saturating_sub(begun.elapsed())) {
                Ok(line) => {
                    writeln!(log, "{:8.2} {line}", begun.elapsed().as_secs_f64())?;
                    if console.read(&line, begun.elapsed()) {
                        println!("  {line}");
                    }
                    // One that may reboot does not end by itself.
                    if self.reboots && console.is_over() {
                        child.kill().context("cannot stop QEMU")?;
                        break;
                    }
                    if !(self.reboots && console.take_cut()) {
                        continue;
                    }
                    note("the power is cut: QEMU is killed");
                    (boots, tries) = (console.boots + 1, BOOTS);
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) if console.boots < boots && tries > 1 => {
                    warn("the machine did not come up again: booting it once more");
                    tries -= 1;
                }
                Err(RecvTimeoutError::Timeout) => {
                    console.ended_badly = Some(format!("it hung: switched off after {} s", limit.as_secs()));
                    child.kill().context("cannot stop QEMU")?;
                    break;
                }
            }
            child.kill().context("cannot stop QEMU")?;
            child.wait()?;
            (child, lines) = self.start()?;
            up_by = begun.elapsed() + BOOT;
        }
        child.wait()?;
        console.finish();
        Ok(console)
    }
}
