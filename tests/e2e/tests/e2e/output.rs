//! Every byte that an agent writes, in its order, once.

use std::process::Stdio;
use std::time::Duration;

use aion_e2e::{slowness, until};

use crate::Shared;
use crate::agent::{detached, detached_sh, pair, python, sh};

/// A pattern in which every position can be told from its neighbours.
const PATTERN: &str = "import sys, os\nn = int(sys.argv[1])\nout = bytes((i * 31 + i // 251) % 256 for i in range(1 << 16))\n\
    left = n\nwhile left:\n  piece = out[:min(left, len(out))]\n  os.write(1, piece) if len(piece) < 4096 else sys.stdout.buffer.write(piece)\n  \
    left -= len(piece)\nsys.stdout.buffer.flush()\n";

fn pattern(len: usize) -> Vec<u8> {
    let piece: Vec<u8> = (0..1usize << 16).map(|i| u8::try_from((i * 31 + i / 251) % 256).unwrap()).collect();
    piece.iter().copied().cycle().take(len).collect()
}

pub(crate) fn every_byte_arrives(shared: &Shared) {
    let daemons = pair(shared);
    for len in [0usize, 1, 65_537, 6_000_011] {
        let done =
            crate::agent::run(daemons, &[], &["/usr/bin/python3", "-c", PATTERN, &len.to_string()]).ok();
        assert_eq!(done.out.len(), len);
        assert!(done.out == pattern(len), "{len} bytes, and not those that were written");
    }
    // A last line without an end, and bytes that are no text.
    assert_eq!(sh(daemons, &[], r"printf 'a\000b\377c'").ok().out, b"a\0b\xffc");
}

pub(crate) fn the_order_between_streams_is_kept(shared: &Shared) {
    let daemons = pair(shared);
    let program = "import os\nfor i in range(500): os.write(1 + i % 2, b'%d\\n' % i)";
    // Both into one pipe, as on a terminal.
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut command = python(daemons, &[], program).into_command();
    let mut child =
        command.stdin(Stdio::null()).stdout(writer.try_clone().unwrap()).stderr(writer).spawn().unwrap();
    drop(command);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut reader, &mut text).unwrap();
    assert!(child.wait().unwrap().success());
    // The two pipes inside are read one after the other, so neighbours may change places; what is far apart may not.
    let numbers: Vec<usize> = text.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(numbers.len(), 500);
    for stream in 0..2 {
        let own: Vec<usize> = numbers.iter().copied().filter(|n| n % 2 == stream).collect();
        assert!(own.is_sorted(), "within a stream the order is exact");
    }
    // Far apart is what the reader inside cannot take for one moment, however slow the machine is.
    let slow = format!(
        "import os, time\nfor i in range(10): os.write(1 + i % 2, b'%d\\n' % i); time.sleep({})",
        0.02 * f64::from(slowness())
    );
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut command = python(daemons, &[], &slow).into_command();
    let mut child =
        command.stdin(Stdio::null()).stdout(writer.try_clone().unwrap()).stderr(writer).spawn().unwrap();
    drop(command);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut reader, &mut text).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(text, "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n");
}

pub(crate) fn following_ends_with_the_agent(shared: &Shared) {
    let daemons = pair(shared);
    let agent = detached_sh(
        daemons,
        "follow",
        &[],
        "for i in 1 2 3 4 5; do echo $i; sleep 0.1; done; echo end >&2; exit 3",
    );
    let done = daemons.ctl(["logs", "-f", &agent.name]).ok();
    assert_eq!((done.text().as_str(), done.err.as_str()), ("1\n2\n3\n4\n5\n", "end\n"));
    // Afterwards it is all there still.
    let done = daemons.ctl(["logs", "-f", &agent.name]).ok();
    assert_eq!((done.text().as_str(), done.err.as_str()), ("1\n2\n3\n4\n5\n", "end\n"));
}

pub(crate) fn tail_since_and_timestamps(shared: &Shared) {
    let daemons = pair(shared);
    let agent =
        detached_sh(daemons, "tail", &[], "seq 1 100; sleep 1.2; echo late; echo err >&2; printf unfinished");
    agent.wait();
    let logs = |args: &[&str]| daemons.ctl(["logs", &agent.name]).args(args).ok();
    assert_eq!(logs(&["--tail", "3"]).text().lines().last(), Some("unfinished"));
    assert_eq!(logs(&["--tail", "0"]).text(), "");
    assert!(logs(&["--tail", "1000"]).text().starts_with("1\n2\n"));
    assert_eq!(logs(&["--tail", "3", "--stream", "stdout"]).text(), "100\nlate\nunfinished");
    assert_eq!(logs(&["--tail", "3", "--stream", "stderr"]).err, "err\n");
    let stamped = logs(&["--timestamps", "--stream", "stdout"]).text();
    for line in stamped.lines() {
        let (time, _) = line.split_once(' ').unwrap();
        assert!(time.len() == 30 && time.ends_with('Z'), "{line}");
    }
    let late = stamped.lines().find(|line| line.ends_with(" late")).unwrap().split(' ').next().unwrap();
    assert_eq!(logs(&["--since", late, "--stream", "stdout"]).text(), "late\nunfinished");
    let objects = logs(&["-o", "jsonl"]).json_lines();
    assert!(objects.iter().all(|object| object["cursor"].as_u64().is_some() && object["time"].is_string()));
}

pub(crate) fn one_stream_alone(shared: &Shared) {
    let daemons = pair(shared);
    let agent = detached_sh(daemons, "stream", &[], "echo out; echo err >&2");
    agent.wait();
    let done = daemons.ctl(["logs", "--stream", "stderr", &agent.name]).ok();
    assert_eq!((done.text().as_str(), done.err.as_str()), ("", "err\n"));
}

pub(crate) fn the_size_limit_drops_the_oldest_and_says_so(shared: &Shared) {
    let daemons = pair(shared);
    let name = daemons.name("big");
    let manifest = format!(
        "apiVersion: aion.os/v1\nkind: Agent\nmetadata: {{name: {name}}}\nspec:\n  \
         entry: [sh, -c, \"seq -f %015.0f 1 500000\"]\n  capabilities: {{subprocess: true}}\n  log_max: 1Mi\n"
    );
    daemons.ctl(["run", "-d", "-f", "-"]).stdin(manifest).ok();
    let agent = crate::agent::Agent { daemons, name };
    assert_eq!(agent.wait(), 0);
    let done = agent.logs().says("are gone: the size limit");
    let text = done.text();
    // Whole from where it begins, and to the end.
    let begin = text.find('\n').unwrap() + 1;
    let first: u64 = text[begin..].lines().next().unwrap().parse().unwrap();
    let kept: Vec<u64> = text[begin..].lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(kept, (first..=500_000).collect::<Vec<_>>());
    assert!(text.len() < 4 << 20, "{} bytes are kept", text.len());
    // It is counted with the journal's own few bytes for each record.
    let lost: u64 = done.err.split(' ').find_map(|word| word.parse().ok()).unwrap();
    let gone = 500_000 * 16 - u64::try_from(text.len()).unwrap();
    assert!((gone..gone + gone / 4).contains(&lost), "{lost} bytes are said to be gone, {gone} are");
}

pub(crate) fn output_of_background_children(shared: &Shared) {
    let daemons = pair(shared);
    // The first process ends; its child goes with it, and what both wrote is there.
    let script =
        "(echo child; : > said; sleep 60) & while [ ! -e said ]; do sleep 0.05; done; sleep 0.3; echo first";
    let agent = detached(daemons, "children", &[], &["sh", "-c", script]);
    assert_eq!(agent.wait(), 0);
    let text =
        until(Duration::from_secs(5), || Some(agent.logs().text()).filter(|text| text.contains("first")));
    assert_eq!(text.as_deref(), Some("child\nfirst\n"));
}
