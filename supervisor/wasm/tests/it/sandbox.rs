//! The runner under the seccomp profile that tools get.

use std::path::Path;
use std::process::Command;

use aion_seccomp::{Arch, Profile, compile};
use serde_json::json;

use crate::guest::TARGETS;
use crate::serve::Runner;

/// Loads the filter in its first argument and becomes the rest. Calls that the profile reports fail here with ENOSYS, as
/// nobody listens.
const LOADER: &str = "
import ctypes, os, sys
bpf = open(sys.argv[1], 'rb').read()
class Fprog(ctypes.Structure):
    _fields_ = [('len', ctypes.c_ushort), ('filter', ctypes.c_void_p)]
buffer = ctypes.create_string_buffer(bpf, len(bpf))
prog = Fprog(len(bpf) // 8, ctypes.cast(buffer, ctypes.c_void_p))
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.addressof(prog), 0, 0) == 0, ctypes.get_errno()
os.execv(sys.argv[2], sys.argv[2:])
";

#[test]
fn it_runs_under_the_profile_of_tools() {
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("skipped: there is no python3");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let profiles = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../profiles/seccomp");
    let profile = Profile::load(&profiles, "tool-strict").unwrap();
    let filter = compile(&profile, Arch::native().unwrap()).unwrap();
    let file = folder.path().join("filter");
    std::fs::write(&file, &filter.bpf).unwrap();
    std::fs::write(folder.path().join("word.txt"), "hello").unwrap();
    let dir = format!("{}=/data:ro", folder.path().display());
    for target in TARGETS {
        let mut loader = Command::new("python3");
        loader.args(["-c", LOADER]).arg(&file);
        let mut runner = Runner::start_under(loader, target, &["--dir", &dir, "--timeout-ms", "2000"]);
        let mut code =
            |id: u64, what: &str| runner.call(id, what)["_meta"]["aion.os/failure"]["code"].clone();
        // Signals (stack, traps), threads, timers, memory: all that the runtime asks of the kernel.
        assert_eq!(code(1, "recurse"), "trap");
        assert_eq!(code(2, "panic"), "trap");
        assert_eq!(code(3, "allocate"), "memory");
        assert_eq!(code(4, "sleep"), "timeout");
        assert_eq!(code(5, "recurse-wide"), "trap");
        let files = runner.call(6, "files")["structuredContent"].clone();
        assert_eq!((&files["read"], &files["wrote"]), (&json!("hello"), &json!(false)), "{files}");
        assert_eq!(runner.call(7, "network")["structuredContent"]["any"], false);
        assert_eq!(runner.call(8, "clocks")["isError"], false);
        let status = std::fs::read_to_string(format!("/proc/{}/status", runner.child.id())).unwrap();
        assert!(status.contains("Seccomp:\t2"), "the filter is not loaded");
    }
}
