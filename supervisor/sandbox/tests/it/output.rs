//! Output reaches the journal whole, within its limit, and on a full disk later.

use std::fs::File;
use std::process::Command;

use aion_agent_journal::{Exit, Item, Kind, Reader};
use aion_sandbox::LaunchFds;

use crate::ends::until;
use crate::harness::{Home, read_journal, sh, skip, spawner, spec};

/// Lines `0000000000\n` to n-1, which show any gap.
const COUNT: &str = "import sys, os\nfor i in range(int(sys.argv[1])): sys.stdout.write('%010d\\n' % i)\n";

fn count(n: u64) -> String {
    format!("python3 -c \"{COUNT}\" {n}")
}

#[test]
fn fifty_megabytes_arrive_whole() {
    if skip() {
        return;
    }
    const LINES: u64 = 5_000_000;
    let mut plan = sh(&count(LINES));
    plan.journal_limit = 0;
    let seen = Home::new().run(&plan);
    assert_eq!(seen.exit, Some(Exit { code: 0, signal: 0 }));
    assert_eq!(seen.out.len() as u64, LINES * 11);
    for (i, line) in seen.out.chunks(11).enumerate() {
        assert_eq!(line, format!("{i:010}\n").as_bytes());
    }
}

#[test]
fn output_that_nobody_waits_for_is_not_lost() {
    if skip() {
        return;
    }
    // The writer fills the pipe and ends at once; a child that holds the pipe is killed.
    let seen = Home::new().run(&sh("sleep 100 & head -c 60000 /dev/zero; head -c 1000 /dev/zero >&2"));
    assert_eq!((seen.out.len(), seen.err.len()), (60_000, 1000));
}

#[test]
fn the_journal_keeps_to_its_limit_and_says_what_is_gone() {
    if skip() {
        return;
    }
    const LINES: u64 = 1_000_000;
    const LIMIT: u64 = 1 << 20;
    let home = Home::new();
    let mut plan = sh(&count(LINES));
    plan.journal_limit = LIMIT;
    home.run(&plan);
    let mut reader = Reader::open(File::open(home.journal()).unwrap(), 4096).unwrap();
    let Some(Item::Lost { bytes, cursor }) = reader.next().unwrap() else { panic!("nothing is lost") };
    assert_eq!(cursor, 4096 + bytes);
    let mut last = Vec::new();
    while let Some(Item::Record(record)) = reader.next().unwrap() {
        if record.kind == Kind::Stdout {
            last = record.payload;
        }
    }
    assert!(last.ends_with(format!("{:010}\n", LINES - 1).as_bytes()));
    let used = std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(home.journal()).unwrap()) * 512;
    assert!(used < LIMIT + 512 * 1024, "{used} bytes on the disk");
}

#[test]
fn the_next_incarnation_goes_on_in_the_same_journal() {
    if skip() {
        return;
    }
    let home = Home::new();
    home.run(&sh("echo one"));
    let mut plan = sh("echo two; exit 5");
    plan.incarnation = 1;
    let seen = home.run(&plan);
    assert_eq!((seen.text().as_str(), seen.exit.unwrap().code), ("one\ntwo\n", 5));
}

#[test]
fn a_full_disk_makes_the_agent_wait_and_loses_nothing() {
    if skip() {
        return;
    }
    let disk = tempfile::tempdir().unwrap();
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "none"]).arg(disk.path()).status();
    assert!(mounted.unwrap().success());
    let ballast = disk.path().join("ballast");
    std::fs::write(&ballast, vec![1; 1 << 20]).unwrap();
    let home = Home::new();
    let path = disk.path().join("journal");
    let journal = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    let slot = spawner().spawn(spec()).unwrap();
    let mut plan = sh(&count(200_000));
    plan.journal_limit = 0;
    let workspace = home.workspace_mount(&slot, false);
    // A twentieth of the output fits; the rest waits in the agent.
    let mut launched = slot.launch(&plan, LaunchFds::new(journal.into(), workspace)).unwrap();
    let size = || std::fs::metadata(&path).unwrap().len();
    until(|| size() > 500_000);
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(
        launched.init.wait(Some(std::time::Duration::ZERO)).unwrap().is_none(),
        "it ended on a full disk"
    );
    let grown = Command::new("mount").args(["-o", "remount,size=16m"]).arg(disk.path()).status();
    assert!(grown.unwrap().success());
    let ended = launched.init.wait(Some(crate::harness::PATIENCE)).unwrap().expect("it does not go on");
    let seen = read_journal(&path);
    assert!(Command::new("umount").arg(disk.path()).status().unwrap().success());
    assert_eq!((ended.code, seen.out.len()), (0, 200_000 * 11));
    assert_eq!(seen.exit, Some(Exit { code: 0, signal: 0 }));
}
