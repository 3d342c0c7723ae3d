//! With restricted execution no program starts from a memory file: Landlock has no path to judge there.

use aion_sandbox::{ExecFds, ExecPlan, Landlock, Plan};
use aion_types::LayerName;

use crate::ends::until;
use crate::harness::{Home, PATIENCE, argv, read_journal, skip, spawner};

/// Makes a memory file as programs do, and as one that wants to execute it does; tells what became of it.
const TRY: &str = "import ctypes, os\nl = ctypes.CDLL(None, use_errno=True)\n\
    def go(flags):\n  fd = l.memfd_create(b'x', flags)\n  if fd < 0: return 'not made'\n  \
    os.write(fd, open('/bin/true', 'rb').read())\n  pid = os.fork()\n  \
    if pid == 0:\n    try: os.execve(fd, ['true'], {})\n    except OSError as e: os._exit(e.errno)\n  \
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])\n\
    print(go(0), go(0x10), flush=True)";

const EXECUTED: &str = "0 0\n";

fn restricted(program: &str) -> Plan {
    let mut plan = argv(&["python3", "-c", program]);
    plan.landlock = Some(Landlock { restrict_exec: true, ..Landlock::default() });
    plan
}

/// Whether this kernel can; then the host's own namespace shows a value.
fn kernel_can() -> bool {
    std::fs::exists("/proc/sys/vm/memfd_noexec").unwrap()
}

#[test]
fn where_execution_is_restricted_none_starts_from_memory() {
    if skip() {
        return;
    }
    assert_eq!(Home::new().run(&argv(&["python3", "-c", TRY])).good(), EXECUTED);
    let home = Home::new();
    let launched = home.launch(&restricted(TRY)).unwrap();
    let landlock = launched.layers.iter().find(|l| l.name == LayerName::Landlock).unwrap().detail.clone();
    let seen = home.finish(launched).good();
    if kernel_can() {
        // Files for data stay what they were; executing one is refused (13), and asking for it.
        assert_eq!(seen, "13 not made\n");
        assert!(landlock.contains("vm.memfd_noexec"), "{landlock}");
    } else {
        assert_eq!(seen, "not made not made\n");
        assert!(landlock.contains("no memory files"), "{landlock}");
    }
    // Nothing of it outlives the sandbox or reaches another.
    assert_eq!(Home::new().run(&argv(&["python3", "-c", TRY])).good(), EXECUTED);
}

#[test]
fn a_further_command_starts_none_either() {
    if skip() {
        return;
    }
    let home = Home::new();
    let agent =
        home.launch(&restricted("import time; print('ready', flush=True); time.sleep(1000)")).unwrap();
    until(|| read_journal(&home.journal()).text().ends_with("ready\n"));
    let (mut output, theirs) = std::io::pipe().unwrap();
    let null = std::fs::File::open("/dev/null").unwrap();
    let fds =
        ExecFds { stdin: null.into(), stdout: theirs.try_clone().unwrap().into(), stderr: theirs.into() };
    let plan = ExecPlan { plan: restricted(TRY), tty: None };
    let slot = spawner().spawn_exec(None, PATIENCE).unwrap();
    let mut command = slot.run(agent.init.pidfd(), &plan, &fds).unwrap();
    drop(fds);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut output, &mut text).unwrap();
    command.helper.wait(Some(PATIENCE)).unwrap();
    agent.init.signal(libc::SIGKILL).unwrap();
    home.finish(agent);
    assert!(text == "13 not made\n" || text == "not made not made\n", "{text}");
}

#[test]
fn older_kernels_refuse_to_make_one_and_tell() {
    if skip() {
        return;
    }
    for listener in [true, false] {
        let mut plan = argv(&["python3", "-c", TRY]);
        let filter = plan.seccomp.as_mut().unwrap();
        if !listener {
            // Without the listener, what the profile would tell of needs another answer; none of it is called here.
            filter.notify = None;
        }
        filter.refuse_memory_files();
        let home = Home::new();
        assert_eq!(home.run(&plan).good(), "not made not made\n");
    }
}
