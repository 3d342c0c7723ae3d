//! The sample worker in its sandbox, over its door, against a small AION of its own. Needs the Python SDK (`cargo xtask sdk`).

use std::path::{Path, PathBuf};
use std::process::Command;

use aion_launcher_proto::v1;

use crate::daemon::Daemon;
use crate::fixtures::{directory, id, launch};

/// Assigns a task, makes it yield, has it go on from its checkpoint, and ends with 0 when the result is right.
const AION: &str = "
import json, os, sys, time
from fake import Server, pb
folder = sys.argv[1]
class AtDoor(Server):
    def start(self):
        self.path = os.path.join(folder, 'kernel.sock')
        super().start()
        os.chmod(self.path, 0o666)
server = AtDoor()
print('ready', flush=True)
stream, hello = server.attached()
def assign(seq, **more):
    a = pb.Assignment(attempt=pb.Attempt(epoch=1, seq=seq), task_id='T', number=seq, params_json=json.dumps({'to': 300, 'pause_ms': 1}), **more)
    stream.send(assignments=pb.Assignments(assignments=[a]))
assign(1)
stream.next('started'); time.sleep(0.05)
preempt = pb.Preempt(attempt=pb.Attempt(epoch=1, seq=1)); preempt.grace.FromMilliseconds(2000)
began = time.time(); stream.send(preempt=preempt)
part = stream.next('checkpoint')
print('yielded at', part.data.decode(), 'after %.1f ms' % ((time.time() - began) * 1000), flush=True)
assert part.yields and 0 < int(part.data) < 300
stream.send(recorded=pb.Recorded(checkpoints=[part.attempt]))
assign(2, checkpoint=part.data, checkpoint_bytes=len(part.data))
completion = stream.next('completions').completions[0]
assert json.loads(completion.result_json) == {'count': 300}, completion
os._exit(0)
";

#[test]
fn the_sample_worker_serves_tasks_from_inside() {
    let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
    let sdk = std::env::var_os("AION_SDK_PYTHON").map_or(home.join(".cache/aion/sdk/python"), PathBuf::from);
    if !sdk.join(".complete").is_file() {
        eprintln!("skipped: no Python SDK at {}: run `cargo xtask sdk`", sdk.display());
        return;
    }
    let Some(daemon) = Daemon::start(&[]) else { return };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let id = id();
    let door = daemon.state().join("doors").join(&id);
    std::fs::create_dir_all(&door).unwrap();
    let mut aion = Command::new("/usr/bin/python3")
        .args(["-B", "-c", AION])
        .arg(&door)
        .env("PYTHONPATH", format!("{}:{}", sdk.display(), root.join("sdk/python/tests").display()))
        .spawn()
        .unwrap();
    let mut client = daemon.client();
    let mut asked = launch(&["/usr/bin/python3", "-B", "worker.py"]);
    (asked.id, asked.door) = (id.clone(), true);
    asked.restrict_exec = true;
    asked.workspace = directory(&root.join("examples/task-worker").canonicalize().unwrap());
    asked.limits.as_mut().unwrap().disk_bytes = 0;
    let path = sdk.as_os_str().as_encoded_bytes().to_vec();
    asked.env.push([b"PYTHONPATH=".as_slice(), &path].concat());
    asked.env.push(b"AION_RUNTIME_SOCKET=/run/aion/kernel.sock".to_vec());
    asked.binds = vec![v1::Bind { path, writable: false }];
    client.launch(&asked).unwrap();
    let served = aion.wait().unwrap();
    let (out, err) = daemon.output(&id);
    let said = format!("{}{}", String::from_utf8_lossy(&out), String::from_utf8_lossy(&err));
    client.signal(&id, 15).unwrap();
    let exit = client.wait(&id).exit.unwrap();
    assert!(served.success(), "{said}");
    assert!(said.contains("T: attempt 1 from 0 to 300") && said.contains("attempt 2 from"), "{said}");
    assert_eq!(exit.code, 0, "{said}");
}
