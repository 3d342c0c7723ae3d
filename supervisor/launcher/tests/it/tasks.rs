//! Agents that serve tasks: the door of a service, and a job's checkpoints and result.

use std::fs::{File, Permissions};
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use aion_agent_journal::{Checkpoint, Item, Kind, NoteAbout, Reader, Record};
use aion_launcher_proto::v1::{self, request::Op, response::Result as Answer};
use sha2::{Digest, Sha256};

use crate::client::{Client, until};
use crate::daemon::Daemon;
use crate::fixtures::{id, python, sh};

/// A door as aiond makes it, with a socket that answers with a line and what it got.
fn door(daemon: &Daemon, id: &str, word: &'static str) -> PathBuf {
    let dir = daemon.state().join("doors").join(id);
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::set_permissions(daemon.state().join("doors"), Permissions::from_mode(0o700)).unwrap();
    let listener = UnixListener::bind(dir.join("kernel.sock")).unwrap();
    std::fs::set_permissions(dir.join("kernel.sock"), Permissions::from_mode(0o666)).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut got = [0; 64];
            let n = stream.read(&mut got).unwrap_or(0);
            let _ = stream.write_all(&[word.as_bytes(), b" ", &got[..n]].concat());
        }
    });
    dir
}

const ASK: &str = "
import socket, os, errno
s = socket.socket(socket.AF_UNIX); s.connect('/run/aion/kernel.sock'); s.sendall(b'hello')
print(s.recv(100).decode(), sorted(os.listdir('/run/aion')))
def code(f):
    try: f(); return 'done'
    except OSError as e: return errno.errorcode[e.errno]
print(code(lambda: open('/run/aion/x', 'w')), code(lambda: os.unlink('/run/aion/kernel.sock')),
      code(lambda: os.rmdir('/run/aion')), code(lambda: os.rename('/run/aion', '/run/b')), code(lambda: os.chmod('/run/aion', 0o777)))
";

#[test]
fn a_door_leads_to_its_own_socket_and_cannot_be_changed() {
    let Some(daemon) = Daemon::start(&[]) else { return };
    let mut client = daemon.client();
    let (one, two) = (id(), id());
    door(&daemon, &one, "one");
    door(&daemon, &two, "two");
    for (id, word) in [(&one, "one"), (&two, "two")] {
        let asked = v1::Launch { id: id.clone(), door: true, ..python(ASK) };
        client.launch(&asked).unwrap();
        client.wait(id);
        let (out, err) = daemon.output(id);
        let out = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines.first(), Some(&format!("{word} hello ['kernel.sock']").as_str()), "{out} {err:?}");
        assert!(
            lines[1].split(' ').all(|code| ["EROFS", "EACCES", "EBUSY", "EPERM"].contains(&code)),
            "{out}"
        );
    }
    // Without one there is nothing to see.
    let asked = sh("ls /run");
    client.launch(&asked).unwrap();
    client.wait(&asked.id);
    assert!(!String::from_utf8(daemon.output(&asked.id).0).unwrap().contains("aion"));
}

#[test]
fn a_door_that_is_not_aionds_is_refused() {
    let Some(daemon) = Daemon::start(&[]) else { return };
    let mut client = daemon.client();
    let asked = v1::Launch { door: true, ..sh("true") };
    let doors = daemon.state().join("doors");
    assert_eq!(client.launch(&asked).unwrap_err().layer, "rootfs", "there is none");
    std::fs::create_dir(&doors).unwrap();
    std::os::unix::fs::symlink("/etc", doors.join(&asked.id)).unwrap();
    assert_eq!(client.launch(&asked).unwrap_err().layer, "rootfs", "a link");
    std::fs::remove_file(doors.join(&asked.id)).unwrap();
    std::fs::write(doors.join(&asked.id), "").unwrap();
    assert_eq!(client.launch(&asked).unwrap_err().layer, "rootfs", "a file");
    std::fs::remove_file(doors.join(&asked.id)).unwrap();
    std::fs::create_dir(doors.join(&asked.id)).unwrap();
    std::os::unix::fs::chown(doors.join(&asked.id), Some(4321), None).unwrap();
    assert_eq!(client.launch(&asked).unwrap_err().field, "door", "somebody else's");
}

fn memfd(bytes: &[u8], sealed: bool) -> OwnedFd {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
    let fd = memfd_create("params", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    let mut file = File::from(fd);
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    if sealed {
        let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK;
        fcntl_add_seals(&file, seals).unwrap();
    }
    file.into()
}

fn job(launch: v1::Launch) -> v1::Launch {
    let job =
        v1::Job { task_id: "T-1".into(), attempt: 1, checkpoint_max_bytes: 1 << 20, ..Default::default() };
    v1::Launch { job: Some(job), ..launch }
}

fn launch_with(
    client: &mut Client,
    asked: &v1::Launch,
    fds: &[&OwnedFd],
) -> Result<v1::AgentState, v1::Error> {
    let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
    client.call_with(Op::Launch(asked.clone()), &fds).map(|(answer, _)| match answer {
        Answer::Agent(state) => state,
        other => panic!("{other:?}"),
    })
}

fn records(daemon: &Daemon, id: &str) -> Vec<Record> {
    let path = daemon.state().join("agents").join(id).join("journal");
    let mut reader = Reader::open(File::open(path).unwrap(), 0).unwrap();
    let mut all = Vec::new();
    while let Some(item) = reader.next().unwrap() {
        if let Item::Record(record) = item {
            all.push(record);
        }
    }
    all
}

fn checkpoints(daemon: &Daemon, id: &str) -> Vec<Checkpoint> {
    records(daemon, id).iter().filter_map(Record::checkpoint).collect()
}

fn notes(daemon: &Daemon, id: &str) -> Vec<(NoteAbout, String)> {
    records(daemon, id).iter().filter_map(Record::task_note).map(|n| (n.about, n.text)).collect()
}

/// The bytes of a checkpoint, compared with what its record says.
fn packed(daemon: &Daemon, id: &str, checkpoint: &Checkpoint) -> File {
    let path = daemon.state().join("agents").join(id).join(format!("checkpoint.{}", checkpoint.file));
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(bytes.len() as u64, checkpoint.len);
    assert_eq!(<[u8; 32]>::from(Sha256::digest(&bytes)), checkpoint.sha256);
    let meta = std::fs::metadata(&path).unwrap();
    assert_eq!((meta.uid(), meta.mode() & 0o777), (0, 0o640));
    File::open(path).unwrap()
}

const COUNT: &str = r#"
umask 077
params=$(cat)
n=0; [ -f $AION_CHECKPOINT_DIR/sub/n ] && n=$(cat $AION_CHECKPOINT_DIR/sub/n)
echo "task $AION_TASK_ID attempt $AION_TASK_ATTEMPT params $params from $n"
mkdir -p $AION_CHECKPOINT_DIR/sub
save() { echo $n > $AION_CHECKPOINT_DIR/sub/n; }
trap 'save; exit 143' TERM
while [ $n -lt 60 ]; do
  n=$((n+1))
  if [ $((n % 10)) = 0 ]; then
    save; : > $AION_CHECKPOINT_DIR/.commit
    while [ -e $AION_CHECKPOINT_DIR/.commit ]; do sleep 0.005; done
  fi
  [ $n = 45 ] && [ $AION_TASK_ATTEMPT = 1 ] && { echo ready; sleep 100 & wait; }
done
echo "{\"count\": $n}" > $AION_RESULT
"#;

#[test]
fn a_job_goes_on_from_its_checkpoint_though_the_launcher_died() {
    let Some(mut daemon) = Daemon::start(&[]) else { return };
    let mut client = daemon.client();
    let params = memfd(br#"{"a":1}"#, true);
    let mut asked = job(sh(COUNT));
    asked.job.as_mut().unwrap().stdin = true;
    launch_with(&mut client, &asked, &[&params]).unwrap();
    until("it counted to 45", || daemon.output(&asked.id).0.ends_with(b"ready\n"));
    let taken = checkpoints(&daemon, &asked.id);
    assert_eq!(
        taken.iter().map(|c| (c.number, c.file, c.at_end)).collect::<Vec<_>>(),
        [(1, 0, false), (2, 1, false), (3, 0, false), (4, 1, false)]
    );
    packed(&daemon, &asked.id, &taken[2]);
    daemon.murder();
    // init needs no launcher for the last one.
    let init = records(&daemon, &asked.id).len();
    daemon.again();
    let mut client = daemon.client();
    client.signal(&asked.id, 15).unwrap();
    assert_eq!(client.wait(&asked.id).exit.unwrap().code, 143);
    assert!(records(&daemon, &asked.id).len() > init);
    let last = *checkpoints(&daemon, &asked.id).last().unwrap();
    assert_eq!((last.number, last.at_end, last.entries), (5, true, 2));
    let kinds: Vec<_> = records(&daemon, &asked.id).iter().map(|r| r.kind).collect();
    assert_eq!(kinds[kinds.len() - 2..], [Kind::Checkpoint, Kind::Exit]);
    let from: OwnedFd = packed(&daemon, &asked.id, &last).into();

    let mut next = job(sh(COUNT));
    next.job = Some(v1::Job { attempt: 2, stdin: true, restore: true, ..next.job.unwrap() });
    launch_with(&mut client, &next, &[&params, &from]).unwrap();
    assert_eq!(client.wait(&next.id).exit.unwrap().code, 0);
    let out = String::from_utf8(daemon.output(&next.id).0).unwrap();
    assert_eq!(out, "task T-1 attempt 2 params {\"a\":1} from 45\n");
    let all = records(&daemon, &next.id);
    let result = all.iter().find_map(Record::result).unwrap();
    assert_eq!(result.inline.as_deref(), Some(&b"{\"count\": 60}\n"[..]));
    assert!(checkpoints(&daemon, &next.id).iter().all(|c| !c.at_end), "success leaves none at its end");
}

#[test]
fn what_was_committed_survives_a_kill_and_what_was_not_does_not_count() {
    let Some(daemon) = Daemon::start(&[]) else { return };
    let mut client = daemon.client();
    let script = "cd $AION_CHECKPOINT_DIR; echo good > f; : > .commit; while [ -e .commit ]; do sleep 0.01; done; \
                  echo half > f; echo result > $AION_RESULT; echo ready; sleep 100";
    let asked = job(sh(script));
    client.launch(&asked).unwrap();
    until("it has committed", || daemon.output(&asked.id).0 == b"ready\n");
    client.signal(&asked.id, 9).unwrap();
    assert_eq!(client.wait(&asked.id).exit.unwrap().signal, 9);
    assert_eq!(checkpoints(&daemon, &asked.id).len(), 1);
    assert!(records(&daemon, &asked.id).iter().all(|r| r.result().is_none()), "half a result is none");
    // The whole group, init with it.
    let asked = job(sh(script));
    client.launch(&asked).unwrap();
    until("it has committed", || daemon.output(&asked.id).0 == b"ready\n");
    client.kill(&asked.id).unwrap();
    let taken = checkpoints(&daemon, &asked.id);
    assert_eq!(taken.len(), 1);
    packed(&daemon, &asked.id, &taken[0]);
}

#[test]
fn hostile_folders_are_refused_or_taken_without_what_is_no_file() {
    let Some(daemon) = Daemon::start(&[]) else { return };
    let mut client = daemon.client();
    let script = r#"
import os, socket, time, ctypes
d = os.environ['AION_CHECKPOINT_DIR']; os.chdir(d)
def commit(what):
    began = time.time()
    open('.commit', 'w').close()
    while os.path.lexists('.commit'): time.sleep(0.002)
    why = open('.refused').read().strip() if os.path.exists('.refused') else 'taken'
    print(what, '|', why, '|', 'slow' if time.time() - began > 5 else 'quick', flush=True)
open('f', 'w').write('x')
os.mkfifo('fifo'); os.symlink('/etc/shadow', 'link'); os.symlink('.', 'loop'); socket.socket(socket.AF_UNIX).bind('sock')
commit('odd')
for n in ('fifo', 'link', 'loop', 'sock'): os.unlink(n)
with open('sparse', 'w') as f: f.truncate(1 << 40)
commit('sparse')
os.unlink('sparse')
os.makedirs('/'.join(['d'] * 60)); commit('deep')
import shutil; shutil.rmtree('d')
made = 0
try:
    for i in range(100000):
        open('n%d' % i, 'w').close(); made += 1
except OSError as e: pass
for i in range(made - 5, made): os.unlink('n%d' % i)
made -= 5
commit('many %s' % (made < 100000))
for i in range(made): os.unlink('n%d' % i)
os.chmod('f', 0); os.chmod('.', 0o300); commit('unreadable'); os.chmod('.', 0o700)
os.mkdir('.commit'); open('.commit/x', 'w').close(); time.sleep(0.5); os.unlink('.commit/x'); os.rmdir('.commit')
os.mkfifo('.commit'); time.sleep(0.3); print('fifo gone', not os.path.exists('.commit'), flush=True)
os.symlink('/etc/shadow', '.commit'); time.sleep(0.3); print('link gone', not os.path.lexists('.commit'), flush=True)
time.sleep(0.3); commit('again')
"#;
    let asked = job(python(script));
    client.launch(&asked).unwrap();
    let exit = client.wait(&asked.id).exit.unwrap();
    let (out, err) = daemon.output(&asked.id);
    let out = String::from_utf8(out).unwrap();
    eprintln!("{out}{}", String::from_utf8_lossy(&err));
    assert_eq!(exit.code, 0);
    let lines: Vec<&str> = out.lines().collect();
    let said = |at: usize, text: &str| assert!(lines[at].contains(text), "{:?} without {text:?}", lines[at]);
    said(0, "odd | taken | quick");
    said(1, "larger than 1048576 bytes | quick");
    said(2, "in each other | quick");
    said(3, "many True | more than 10000 files and folders | quick");
    said(4, "unreadable | taken | quick");
    said(5, "fifo gone True");
    said(6, "link gone True");
    said(7, "again | taken | quick");
    let notes = notes(&daemon, &asked.id);
    assert!(
        notes.iter().any(|(about, text)| *about == NoteAbout::EntriesSkipped && text.contains("link")),
        "{notes:?}"
    );
    for checkpoint in checkpoints(&daemon, &asked.id).iter().rev().take(2) {
        let mut bytes = Vec::new();
        packed(&daemon, &asked.id, checkpoint).read_to_end(&mut bytes).unwrap();
        assert!(!bytes.windows(5).any(|w| w == b"root:"), "nothing of the host");
    }
}

#[test]
fn a_storm_of_commits_leaves_room_for_others() {
    let Some(daemon) = Daemon::start(&[]) else { return };
    let mut client = daemon.client();
    let script = "import os, time\nos.chdir(os.environ['AION_CHECKPOINT_DIR']); open('f','wb').write(b'x'*500000)\n\
                  end = time.time() + 2\nn = 0\nwhile time.time() < end:\n  open('.commit','w').close(); open('t','w').close(); os.unlink('t'); n += 1\n\
                  print(n)";
    let asked = v1::Launch { log_max_bytes: 64 << 10, ..job(python(script)) };
    client.launch(&asked).unwrap();
    let state = client.wait(&asked.id);
    assert_eq!(state.exit.unwrap().code, 0);
    let taken = checkpoints(&daemon, &asked.id);
    let asked_for: u64 = String::from_utf8(daemon.output(&asked.id).0).unwrap().trim().parse().unwrap();
    eprintln!("{asked_for} asked, {} taken", taken.len());
    assert!((2..=110).contains(&taken.len()), "at most one each 20 ms");
    packed(&daemon, &asked.id, taken.last().unwrap());
}

#[test]
fn a_checkpoint_is_told_again_when_output_pushes_it_out() {
    let Some(daemon) = Daemon::start(&[]) else { return };
    let mut client = daemon.client();
    let script = "cd $AION_CHECKPOINT_DIR; echo a > f; : > .commit; while [ -e .commit ]; do sleep 0.01; done; \
                  head -c 3000000 /dev/zero; sleep 0.2; kill -9 $$";
    let asked = v1::Launch { log_max_bytes: 64 << 10, ..job(sh(script)) };
    client.launch(&asked).unwrap();
    client.wait(&asked.id);
    let taken = checkpoints(&daemon, &asked.id);
    assert_eq!(taken.last().map(|c| c.number), Some(1), "{taken:?}");
    packed(&daemon, &asked.id, &taken[0]);
}

#[test]
fn results_are_text_of_limited_size() {
    let Some(daemon) = Daemon::start(&[]) else { return };
    let mut client = daemon.client();
    let mut result = |script: &str| {
        let asked = job(python(script));
        client.launch(&asked).unwrap();
        assert_eq!(client.wait(&asked.id).exit.unwrap().code, 0);
        let all = records(&daemon, &asked.id);
        (all.iter().find_map(Record::result), notes(&daemon, &asked.id), asked.id)
    };
    let write = |what: &str| format!("import os\nopen(os.environ['AION_RESULT'], 'wb').write({what})");
    assert_eq!(result("pass").0, None);
    let (long, _, id) = result(&write("b'7' * 1000000"));
    let long = long.unwrap();
    assert_eq!((long.len, long.inline), (1_000_000, None));
    let stored = std::fs::read(daemon.state().join("agents").join(id).join("result")).unwrap();
    assert_eq!(<[u8; 32]>::from(Sha256::digest(&stored)), long.sha256);
    for (script, why) in [
        (write("b'7' * 1048577"), "larger than"),
        (write(r"b'\xff\xfe'"), "UTF-8"),
        ("import os; os.mkfifo(os.environ['AION_RESULT'])".to_owned(), "not a file"),
        ("import os; os.symlink('/etc/passwd', os.environ['AION_RESULT'])".to_owned(), "cannot be read"),
        ("import os; open(os.environ['AION_RESULT'], 'w').truncate(1 << 40)".to_owned(), "larger than"),
    ] {
        let (got, notes, _) = result(&script);
        assert_eq!(got, None, "{script}");
        assert!(
            notes.iter().any(|(a, t)| *a == NoteAbout::ResultRefused && t.contains(why)),
            "{script}: {notes:?}"
        );
    }
}

#[test]
fn descriptors_of_a_job_are_what_they_should_be() {
    let Some(daemon) = Daemon::start(&[]) else { return };
    let mut client = daemon.client();
    let with = |stdin: bool, restore: bool| {
        let mut asked = job(sh("cat"));
        (asked.job.as_mut().unwrap().stdin, asked.job.as_mut().unwrap().restore) = (stdin, restore);
        asked
    };
    let field = |client: &mut Client, asked: &v1::Launch, fds: &[&OwnedFd]| {
        launch_with(client, asked, fds).unwrap_err().field
    };
    let file: OwnedFd = File::open("/etc/passwd").unwrap().into();
    let sealed = memfd(b"{}", true);
    assert_eq!(field(&mut client, &with(true, false), &[&memfd(b"{}", false)]), "job.stdin");
    assert_eq!(field(&mut client, &with(true, false), &[&file]), "job.stdin");
    assert_eq!(field(&mut client, &with(true, false), &[]), "fds");
    assert_eq!(field(&mut client, &with(false, false), &[&sealed]), "fds");
    let named = rustix::fs::open("/etc/shadow", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    assert_eq!(field(&mut client, &with(false, true), &[&named]), "job.restore");
    let folder: OwnedFd = File::open("/etc").unwrap().into();
    assert_eq!(field(&mut client, &with(false, true), &[&folder]), "job.restore");
    let big = tempfile::tempfile().unwrap();
    big.set_len((1 << 20) + 1).unwrap();
    assert_eq!(field(&mut client, &with(false, true), &[&big.into()]), "job.restore");
    let noise = tempfile::tempfile().unwrap();
    noise.write_all_at(b"AIONCKP1 and nonsense that is long enough", 0).unwrap();
    let error = launch_with(&mut client, &with(false, true), &[&noise.into()]).unwrap_err();
    assert_eq!(error.layer, "workspace", "{error:?}");
    // A command beside it sees the task's folder, too.
    let asked = job(sh("sleep 100"));
    client.launch(&asked).unwrap();
    client.kill(&asked.id).unwrap();
}

#[test]
fn frozen_and_thawed_in_time() {
    let Some(daemon) = Daemon::start(&[]) else { return };
    let mut client = daemon.client();
    let asked = python(
        "import threading\nfor i in range(8): threading.Thread(target=lambda: [0 for _ in iter(int, 1)]).start()",
    );
    client.launch(&asked).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let (mut freezes, mut thaws) = (Vec::new(), Vec::new());
    for _ in 0..200 {
        let began = Instant::now();
        client.freeze(&asked.id).unwrap();
        freezes.push(began.elapsed());
        let began = Instant::now();
        client.thaw(&asked.id).unwrap();
        thaws.push(began.elapsed());
    }
    freezes.sort();
    thaws.sort();
    eprintln!(
        "freeze p50 {:?} p99 {:?} max {:?}; thaw p50 {:?} p99 {:?}",
        freezes[100], freezes[197], freezes[199], thaws[100], thaws[197]
    );
    assert!(freezes[100] < Duration::from_millis(50));
    client.kill(&asked.id).unwrap();
}

#[test]
fn a_large_checkpoint_in_time() {
    let Some(daemon) = Daemon::start(&[]) else { return };
    let mut client = daemon.client();
    let script = "import os, time\nos.chdir(os.environ['AION_CHECKPOINT_DIR'])\n\
                  open('f','wb').write(os.urandom(60 << 20))\n\
                  for i in range(3):\n  t = time.time(); open('.commit','w').close()\n  while os.path.exists('.commit'): time.sleep(0.001)\n  \
                  print(round((time.time() - t) * 1000), flush=True)\n";
    let mut asked = job(python(script));
    asked.job.as_mut().unwrap().checkpoint_max_bytes = 64 << 20;
    client.launch(&asked).unwrap();
    client.wait(&asked.id);
    let out = String::from_utf8(daemon.output(&asked.id).0).unwrap();
    eprintln!("60 MiB committed in {out:?} ms");
    let taken = checkpoints(&daemon, &asked.id);
    let from: OwnedFd = packed(&daemon, &asked.id, taken.last().unwrap()).into();
    let mut next = job(sh("stat -c %s $AION_CHECKPOINT_DIR/f"));
    next.job = Some(v1::Job { checkpoint_max_bytes: 64 << 20, restore: true, ..next.job.unwrap() });
    let state = launch_with(&mut client, &next, &[&from]).unwrap();
    eprintln!("restored in {} ms", state.launch_ns / 1_000_000);
    client.wait(&next.id);
    assert_eq!(daemon.output(&next.id).0, b"62914560\n");
}
