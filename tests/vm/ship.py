"""The suite `ship`, inside the machine: a host with systemd, an operator, and AION's package.

Three boots: the first installs, runs, crashes and upgrades, the second comes after an orderly reboot, the third after the plug was pulled;
it ends with a purge. What one boot has to tell the next is in /var/lib/ship. Each check prints its name and its result. Checks hang on states
that are waited for; lengths of time that are promised are held by how much slower the emulated machine is (`within`).
"""

import json
import os
import pathlib
import re
import select
import signal
import subprocess
import sys
import threading
import time
import traceback

from host import (
    DAEMONS,
    PACKAGES,
    active,
    all_ended,
    ctl,
    ctl_json,
    group_of,
    install,
    journal,
    load,
    running,
    say,
    serving,
    sh,
    show,
    span,
    submit,
    task,
    until,
    within,
)

STATE = pathlib.Path("/var/lib/ship/state.json")
# As `systemd-analyze security` counts: 10 is a service with all of root's rights.
EXPOSURE = {"aiond.service": 1.5, "aion-launcher.service": 8.6}
AGENTS = 20
# An upgrade: a hundred wait besides those that the agent has places for.
PLACES = 4
TASKS = 100 + PLACES
LOAD = 40
# What the README tells an operator to do.
USER = "alice"
# Seconds that are promised of a real machine: from the bare one to an agent, until a daemon is back and serves, without an answer
# while the package is upgraded.
FIRST_AGENT = 300
BACK = 5
GAP = 2

state = {"failed": 0, "boot": 0}


# The first boot.


def readme():
    """The commands of its section on the package, but for those that make the package."""
    text = pathlib.Path("/payload/clone/README.md").read_text()
    block = text.split("## Install as a service")[1].split("```sh\n")[1].split("```")[0]
    commands = [line.split("  #")[0].strip() for line in block.splitlines()]
    return [command for command in commands if command and not command.startswith("cargo ")]


def as_the_readme_says(command):
    """Runs a command of it: what begins with sudo as root, all else as the operator, who has logged in again."""
    if command.startswith("sudo "):
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "USER": USER}
        return sh(command.removeprefix("sudo "), env=env, cwd="/root/downloads")
    return sh(["runuser", "-l", USER, "-c", command])


def the_readme_alone_leads_to_a_first_agent():
    # Who reads it answers apt with yes; the machine has no network, so nothing but the package can be had.
    answers = 'APT::Get::Assume-Yes "true";\nAPT::Install-Recommends "false";\n'
    pathlib.Path("/etc/apt/apt.conf.d/99ship").write_text(answers)
    sh(f"useradd --create-home --shell /bin/bash {USER}; mkdir /root/downloads && cp {PACKAGES[0]} /root/downloads")
    *commands, purge = readme()
    assert purge == "sudo apt purge aion" and any("aionctl run" in command for command in commands), readme()
    said = [as_the_readme_says(command) for command in commands]
    assert str(2**100) in said[-1], said
    # With the boot: who is in a hurry counts that, too.
    up = float(pathlib.Path("/proc/uptime").read_text().split()[0])
    within("from the bare machine to the first agent", up, FIRST_AGENT)
    serving()


def units_are_active_and_enabled():
    assert active(), sh("systemctl --no-pager status 'aion*'", ok=False)
    for unit in ["aiond.socket", *DAEMONS]:
        assert sh(["systemctl", "is-enabled", unit]).strip() == "enabled", unit


def units_have_no_fault():
    said = sh("systemd-analyze --no-pager --man=no verify /lib/systemd/system/aion* 2>&1")
    assert "aion" not in said, said


def exposure_is_held():
    for unit, most in EXPOSURE.items():
        said = sh(["systemd-analyze", "--no-pager", "security", unit])
        found = float(re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)[1])
        say(f"exposure of {unit}: {found}")
        assert found <= most, f"{unit}: {found}, at most {most}"


def the_socket_is_for_the_group():
    assert sh("stat -c '%a %U %G' /run/aion/aion.sock").strip() == "660 root aion"


def aiond_has_no_privilege():
    pid = show("aiond.service", "MainPID")
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    assert re.search(r"CapEff:\s+0000000000000000\n", status) and re.search(r"CapBnd:\s+0000000000000000\n", status)
    assert re.search(r"Seccomp:\s+2\n", status), "no system call filter"
    assert sh(["ps", "-o", "user=", "-p", pid]).strip() == "aion"


# The sample agents that do something by themselves, and what they say at the end.
SAMPLES = {
    "python-report": "wrote report/summary.md",
    "node-indexer": "indexed ",
    "sdk-agent": '"stopped": true',
    "hostile": "attempts were stopped",
}


def members_run_the_sample_agents():
    folder = pathlib.Path(f"/home/{USER}/samples")
    sh(f"cp -r /payload/clone/examples {folder} && cp -r /payload/clone/sdk/python/aion_sdk {folder}/sdk-agent/")
    sh(f"chown -R {USER}: {folder}")
    member = ["runuser", "-u", USER, "--", "aionctl"]
    try:
        # As `cargo xtask up` has it for them.
        sh([*member, "tool", "install", f"{folder}/web-search/tool.yml"])
        for name, last in SAMPLES.items():
            # Their own limits of time are those of a machine that is not emulated.
            run = ["run", "--rm", "--timeout", "10m", "-f", f"{folder}/{name}/agent.yml", "--workspace", f"{folder}/{name}"]
            said = sh([*member, *run], ok=name != "hostile")
            assert "DID IT" not in said, f"{name}: {said}"
            # One that tries so many ways out is ended by a detection, unless it is through with them before.
            caught = name == "hostile" and "escape-attempt" in ctl("detections", "history")
            assert last in said or caught, f"{name}: {said}"
        assert (folder / "python-report/report/summary.json").exists() and (folder / "node-indexer/index/search.json").exists()
    finally:
        sh(f"rm -rf {folder}")


def members_run_agents_and_nobody_else():
    sh("useradd --create-home mallory")
    run = ["runuser", "-u", "{}", "--", "aionctl", "run", "--rm", "--", "python3", "-c", "print(6 * 7)"]
    assert "42" in sh([word.format("alice") for word in run])
    done = subprocess.run([word.format("mallory") for word in run], capture_output=True, text=True, timeout=600)
    assert done.returncode != 0 and "42" not in done.stdout, done
    # Also with the socket open to all: aiond asks who it is.
    sh("chmod 666 /run/aion/aion.sock")
    done = subprocess.run([word.format("mallory") for word in run], capture_output=True, text=True, timeout=600)
    sh("chmod 660 /run/aion/aion.sock")
    assert done.returncode != 0 and "42" not in done.stdout, done
    say(f"mallory is told: {done.stderr.strip()[:300]}")
    assert "denied" in done.stderr.lower() or "not allowed" in done.stderr.lower(), done


def a_member_shows_a_folder_of_its_home():
    sh("runuser -u alice -- mkdir /home/alice/work")
    sh("runuser -u alice -- aionctl run --rm --workspace /home/alice/work -- sh -c 'echo made > made'")
    assert sh("stat -c %U /home/alice/work/made").strip() == "alice"


def agents_start():
    for number in range(AGENTS):
        ctl("run", "--detach", "--name", f"load-{number}", "--memory", "32Mi", "--", "sleep", "1000000")
    assert len(load()) == AGENTS, load()
    layers = ctl_json("inspect", "load-0")
    layers = (layers[0] if isinstance(layers, list) else layers)["layers"]
    missing = [f"{l['name']}: {l['state']} {l['detail']}" for l in layers if l["state"] not in ("active", "off")]
    assert layers and not missing, missing


def agents_are_in_the_delegated_group():
    assert len(load()) == AGENTS
    for pid, *_ in load().values():
        assert group_of(pid).startswith("/aion.slice/aion-agents.service/agents/"), group_of(pid)
    for unit in DAEMONS:
        assert group_of(show(unit, "MainPID")) == f"/system.slice/{unit}"


def nothing_of_the_units_is_inherited():
    launcher = show("aion-launcher.service", "MainPID")
    status = pathlib.Path(f"/proc/{launcher}/status").read_text()
    assert re.search(r"Seccomp:\s+0\n", status), "the launcher has a system call filter, and agents would inherit it"
    for kind in ["mnt", "net", "ipc", "uts", "pid", "user", "cgroup"]:
        own, first = (os.readlink(f"/proc/{pid}/ns/{kind}") for pid in (launcher, 1))
        assert own == first, f"the launcher has its own {kind} namespace"
    # The lowest that an agent can go back to is not below everybody else's.
    code = (
        "import re; s = open('/proc/self/status').read(); print('filters', re.search(r'Seccomp_filters:\\s+(\\d+)', s)[1])\n"
        "try: open('/proc/self/oom_score_adj', 'w').write('-1'); print('below')\n"
        "except OSError as e: print('refused')\n"
    )
    said = ctl("run", "--rm", "--", "python3", "-c", code)
    assert "refused" in said, said
    say(said.strip())


def a_restart_stops_no_agent():
    before = load()
    pids = {unit: show(unit, "MainPID") for unit in DAEMONS}
    sh("systemctl restart aiond aion-launcher")
    serving()
    assert load() == before and len(before) == AGENTS, (before, load())
    assert all(show(unit, "MainPID") != pid for unit, pid in pids.items())
    # They say what they found.
    words = "compared the records with the launcher's table"
    found = {"AION_RUNNING": str(AGENTS), "AION_ENDED": "0", "AION_MISSING": "0", "AION_UNKNOWN": "0", "AION_FAILED": "0"}

    def told():
        entries = [entry for entry in journal("-u", "aiond") if entry["MESSAGE"] == words]
        return entries and {name: entries[-1][name] for name in found} == found

    until("aiond says it", told)
    taken = [entry for entry in journal("-u", "aion-launcher") if entry["MESSAGE"].startswith("took over")]
    assert taken[-1]["AION_RUNNING"] == str(AGENTS), taken[-1]


def clients_wait_while_aiond_restarts():
    script = "for i in 1 2 3 4 5 6 7 8; do AION_RECONNECT_SECONDS=0 aionctl ps -q >/dev/null || echo refused; done"
    client = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    sh("systemctl stop aiond.service")
    # The socket is open; who comes now starts aiond.
    assert len(ctl("ps", "-q").split()) >= AGENTS
    out, _ = client.communicate(timeout=600)
    # What was under way when it stopped may be told so; nobody finds the door gone.
    assert "No such file" not in out and "onnection refused" not in out, out
    serving()


LEDGER = """
apiVersion: aion.os/v1
kind: Agent
metadata: {name: ledger, version: "1.0.0"}
spec:
  mode: job
  entry: [/bin/sh, -c, 'echo "$AION_TASK_ID" >> /workspace/ledger; while [ ! -e /workspace/go ]; do sleep 0.5; done']
  concurrency: 4
  workspace: /srv/ledger
  capabilities: {subprocess: true}
  resources: {cpu: "500m", mem: "32Mi", pids: 16}
"""


GATE = pathlib.Path("/srv/ledger/go")


def make_the_ledger():
    """The agent whose tasks write their names down as they begin, and wait for the gate."""
    sh(f"mkdir -p /srv/ledger && chown {USER} /srv/ledger")
    GATE.unlink(missing_ok=True)
    pathlib.Path("/root/ledger.yml").write_text(LEDGER)
    ctl("apply", "--no-start", "-f", "/root/ledger.yml")


def entries(prefix):
    """What tasks with such names have written: a line for each time that one began."""
    ledger = GATE.with_name("ledger")
    return [name for name in (ledger.read_text().split() if ledger.exists() else []) if name.startswith(prefix)]


def each_was_done_once(names, prefix):
    ended = until("all tasks have ended", lambda: all_ended(names), patience=1200)
    assert ended == ["succeeded"] * len(names), ended
    found = entries(prefix)
    assert sorted(found) == sorted(names), f"lost or doubled: {sorted(set(names) ^ set(found))}, {len(found)} lines"


# Tasks across all deaths of the daemons: some run, some wait.
MORTAL = [f"c-{number}" for number in range(2 * PLACES)]
# An agent that is through at once: what starts it serves.
BRIEF = ["run", "--rm", "--memory", "32Mi", "--", "true"]
# How often the watchdog was given a reason in this boot.
hung = dict.fromkeys(DAEMONS, 0)


def work_waits_for_the_crashes():
    make_the_ledger()
    submit("ledger", MORTAL)
    until("as many run as have a place", lambda: len(entries("c-")) == PLACES)


def unfinished():
    return sorted(found["id"] for found in ctl_json("task", "ps") if found["id"] in MORTAL)


def is_back(unit, pid):
    said = sh(["systemctl", "show", "-p", "MainPID", "-p", "ActiveState", unit]).split()
    return "ActiveState=active" in said and not {f"MainPID={pid}", "MainPID=0"} & set(said)


def crash(unit, kill, expected, waits=0.0):
    """Kills it, and holds it to be back and serving in time: `waits` seconds of it are those that it takes systemd to notice."""
    before, tasks = load(), unfinished()
    pid = show(unit, "MainPID")
    begun = time.monotonic()
    kill(int(pid))
    until(f"{unit} is back", lambda: is_back(unit, pid), pause=0.1)
    until("agents are started", lambda: ctl(*BRIEF) is not None, pause=0.1)
    took = time.monotonic() - begun
    serving()
    assert load() == before and len(before) == AGENTS, (before, load())
    assert unfinished() == tasks, (tasks, unfinished())
    said = sh(["journalctl", "--no-pager", "-b", "-u", unit, "-n", "200", "-o", "cat"])
    assert expected in said, said[-1500:]
    within(f"{unit} is back and serves", took, BACK, waits + span(unit, "RestartUSec"))


def killed(unit):
    crash(unit, lambda pid: os.kill(pid, signal.SIGKILL), "status=9/KILL")


def stopped(unit):
    hung[unit] += 1
    crash(unit, lambda pid: os.kill(pid, signal.SIGSTOP), "Watchdog timeout", span(unit, "WatchdogUSec"))


def out_of_memory(unit):
    def kill(pid):
        process = os.pidfd_open(pid)
        sh(["systemctl", "set-property", "--runtime", unit, "MemoryMax=1M"])
        try:
            assert select.select([process], [], [], 300)[0], "it lives on, with one mebibyte"
        finally:
            os.close(process)
            sh(["systemctl", "set-property", "--runtime", unit, "MemoryMax=infinity"])

    crash(unit, kill, "oom-kill")


def aiond_comes_back_after_kill_9():
    killed("aiond.service")


def the_launcher_comes_back_after_kill_9():
    killed("aion-launcher.service")


def a_hung_aiond_is_started_again():
    stopped("aiond.service")


def a_hung_launcher_is_started_again():
    stopped("aion-launcher.service")


def aiond_comes_back_after_it_was_out_of_memory():
    out_of_memory("aiond.service")


def the_launcher_comes_back_after_it_was_out_of_memory():
    out_of_memory("aion-launcher.service")


def nothing_was_lost_over_the_crashes():
    GATE.touch()
    each_was_done_once(MORTAL, "c-")


def no_watchdog_bit_without_a_reason():
    """Busy as this machine is, whoever ran gave signs of life in time."""
    for unit in DAEMONS:
        said = sh(["journalctl", "--no-pager", "-b", "-u", unit, "-o", "cat"])
        assert said.count("Watchdog timeout") == hung[unit], f"{unit}: {said.count('Watchdog timeout')}, {hung[unit]} with a reason"


def flipped(path, to):
    """The same file with one bit changed, in the middle."""
    data = pathlib.Path(path).read_bytes()
    at = len(data) // 2
    pathlib.Path(to).write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


def a_tampered_package_changes_nothing():
    before, pids = load(), [show(unit, "MainPID") for unit in DAEMONS]
    flipped(PACKAGES[1], "/root/downloads/tampered.deb")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(["apt-get", "install", "--yes", "/root/downloads/tampered.deb"], capture_output=True, text=True, env=env)
    said = done.stdout + done.stderr
    assert done.returncode != 0 and re.search("checksum|corruption", said), said[-1500:]
    assert sh("dpkg-query -W -f '${Version} ${Status}' aion").endswith("-1 install ok installed"), said[-1500:]
    serving()
    assert load() == before and [show(unit, "MainPID") for unit in DAEMONS] == pids, (before, load(), said[-1500:])


class Client(threading.Thread):
    """Asks again and again; each call is to be answered, and the longest to be short enough."""

    def __init__(self):
        super().__init__(daemon=True)
        self.over = threading.Event()
        self.calls, self.longest, self.failed = 0, 0.0, []

    def run(self):
        while not self.over.is_set():
            begun = time.monotonic()
            done = subprocess.run(["aionctl", "ps", "-q"], capture_output=True, text=True, timeout=1200)
            self.longest = max(self.longest, time.monotonic() - begun)
            self.calls += 1
            if done.returncode != 0:
                self.failed.append(done.stderr.strip())

    def end(self):
        self.over.set()
        self.join()
        assert self.calls and not self.failed, self.failed
        within(f"the longest of a client's {self.calls} calls", self.longest, GAP)


def an_upgrade_stops_no_agent_and_loses_no_task():
    make_the_ledger()
    names = [f"t-{number}" for number in range(TASKS)]
    submit("ledger", names)
    before = load()
    # Those that run wait at the gate, so that all others are queued.
    queued = [t for t in ctl_json("task", "ps") if t["state"] == "queued"]
    assert len(queued) >= TASKS - PLACES, f"{len(queued)} are queued"
    until("some run", lambda: entries("t-"))
    pids = {unit: show(unit, "MainPID") for unit in DAEMONS}
    client = Client()
    client.start()
    try:
        install(PACKAGES[1])
        version = sh("dpkg-query -W -f '${Version}' aion").strip()
        assert version.endswith("-2"), version
        serving()
        assert all(show(unit, "MainPID") != pid for unit, pid in pids.items()), "the daemons run on as before"
        for unit in DAEMONS:
            exe = os.readlink(f"/proc/{show(unit, 'MainPID')}/exe")
            assert "deleted" not in exe, exe
        client.end()
        assert load() == before and len(before) == AGENTS, (before, load())
    finally:
        client.over.set()
        GATE.touch()
    each_was_done_once(names, "t-")
    assert load() == before


def the_operators_files_are_kept():
    changed = pathlib.Path("/etc/aion/aiond.env")
    changed.write_text(changed.read_text() + "AION_LOG=debug\n")
    install_again = ["apt-get", "install", "--yes", "--reinstall", "--no-install-recommends", PACKAGES[1]]
    sh(install_again, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
    assert "AION_LOG=debug" in changed.read_text()
    serving()


CONFIG = pathlib.Path("/etc/aion/config.yaml.d/50-ship.yaml")
HEAD = "apiVersion: aion.os/v1\nkind: Config\n"


def the_configuration_is_checked_reloaded_and_counts():
    CONFIG.parent.mkdir(exist_ok=True)
    # A variable counts before the files, and an earlier check has left one.
    sh("sed -i /^AION_LOG=/d /etc/aion/aiond.env && systemctl restart aiond")
    serving()
    pid = show("aiond.service", "MainPID")
    CONFIG.write_text(HEAD + "http: {prot: 8123}\n")
    said = sh(["aiond", "check-config"], ok=False)
    assert "50-ship.yaml:3:8" in said and "prot" in said, said
    assert subprocess.run(["systemctl", "reload", "aiond"], capture_output=True).returncode != 0, "it was reloaded"
    said = sh(["journalctl", "--no-pager", "-b", "-u", "aiond", "-n", "50", "-o", "cat"])
    assert "50-ship.yaml:3:8" in said and "prot" in said, said
    assert show("aiond.service", "MainPID") == pid
    CONFIG.write_text(HEAD + "http: {port: 8123}\nlog: {level: debug}\n")
    seen = pathlib.Path("/run/ship-follower")
    never = {**os.environ, "AION_RECONNECT_SECONDS": "0"}
    with seen.open("w") as out:
        follower = subprocess.Popen(["aionctl", "events", "-f", "-o", "jsonl"], stdout=out, stderr=out, env=never)
    begin = ["run", "--rm", "--memory", "32Mi", "--", "true"]
    until("somebody follows", lambda: ctl(*begin) is not None and "agent.launched" in seen.read_text())
    sh("systemctl reload aiond")
    cat = ["journalctl", "--no-pager", "-b", "-u", "aiond", "-n", "5000", "-o", "cat"]
    until("what waits for a restart is told", lambda: "waits for a restart" in sh(cat))
    until("the level was taken", lambda: "level was changed" in sh(cat))
    assert show("aiond.service", "MainPID") == pid
    # The connection of before goes on.
    before = seen.read_text().count("agent.launched")
    until("who followed does", lambda: ctl(*begin) is not None and seen.read_text().count("agent.launched") > before)
    assert follower.poll() is None, seen.read_text()[-500:]
    follower.kill()
    follower.wait()
    seen.unlink()
    sh("systemctl restart aiond")
    serving()
    assert "8123" in pathlib.Path("/run/aiond/http").read_text()
    # A credential is the service's alone; a reload goes all the same.
    dropin = pathlib.Path("/etc/systemd/system/aiond.service.d/ship.conf")
    dropin.parent.mkdir(exist_ok=True)
    pathlib.Path("/root/otlp.pem").write_text("")
    dropin.write_text("[Service]\nLoadCredential=otlp.pem:/root/otlp.pem\n")
    CONFIG.write_text(HEAD + "tracing: {otlp_certificate: \"credential:otlp.pem\"}\n")
    sh("systemctl daemon-reload && systemctl restart aiond")
    serving()
    sh("systemctl reload aiond")
    dropin.unlink()
    dropin.parent.rmdir()
    CONFIG.unlink()
    sh("systemctl daemon-reload && systemctl restart aiond")
    serving()


SIGNED = pathlib.Path("/payload/clone/tests/e2e/tests/e2e/signed")
KEYS = pathlib.Path("/etc/aion/keys")


def what_is_not_as_it_was_signed_is_refused():
    tool = pathlib.Path("/root/tool/tool.yml")
    key = (SIGNED / "release.pub").read_text()
    sh(f"cp -r /payload/clone/examples/web-search {tool.parent}")
    script = tool.with_name("search.py")

    def sign(name):
        ctl("sign", "--key", SIGNED / name, tool)

    def trust(text):
        (KEYS / "release.pub").write_text(text)
        sh("systemctl reload aiond")

    def refused(why):
        said = sh(["aionctl", "tool", "install", tool], ok=False)
        assert "SIGNATURE_INVALID" in said and why in said, said
        return True

    KEYS.mkdir()
    (KEYS / "release.pub").write_text(key)
    CONFIG.write_text(HEAD + "signatures: {require_signed: [tools]}\n")
    try:
        sh("systemctl restart aiond")
        serving()
        refused("it is not signed")
        sign("other.key")
        refused("signed by somebody else")
        sign("release.key")
        ctl("tool", "install", tool)
        text = script.read_text()
        script.write_text(text + "# one line more\n")
        refused("it was changed")
        script.write_text(text)
        ctl("tool", "install", tool)
        trust("not-after: 2020-01-01\n" + key)
        until("the key is seen to be expired", lambda: refused("expired at 2020-01-01"))
        trust(key)
        until("the key is good again", lambda: ctl("tool", "install", tool) is not None)
    finally:
        CONFIG.unlink()
        sh(f"rm -rf {KEYS} {tool.parent} && systemctl restart aiond")
    serving()


def the_journal_has_fields():
    ctl("run", "--detach", "--name", "again", "--restart", "always", "--memory", "32Mi", "--", "sleep", "1")
    agent = ctl_json("inspect", "again")
    agent = (agent[0] if isinstance(agent, list) else agent)["id"]
    entry = until("an entry about the agent", lambda: journal("-u", "aiond", f"AION_AGENT={agent}"))[0]
    assert entry["AION_TENANT"] == "default" and entry["MESSAGE"] == "launching again", entry
    of_launcher = ["-u", "aion-launcher", f"AION_AGENT={agent}"]
    until("the launcher's, too", lambda: {"launched", "ended"} <= {entry["MESSAGE"] for entry in journal(*of_launcher)})
    entries = journal(*of_launcher)
    assert all(entry["AION_TENANT"] == "default" for entry in entries), entries
    ctl("rm", "-f", "again")
    # Errors by their codes.
    said = sh("aionctl run --rm --memory 32Mi -- /no/such/program", ok=False)
    assert "COMMAND_NOT_FOUND" in said, said
    until("the launcher has the code", lambda: journal("-u", "aion-launcher", "AION_CODE=COMMAND_NOT_FOUND"))
    said = sh("aionctl tool invoke no-such-tool", ok=False)
    assert "TOOL_NOT_FOUND" in said, said
    until("aiond has the code", lambda: journal("-u", "aiond", "AION_CODE=TOOL_NOT_FOUND"))


def a_full_disk_refuses_work_and_stops_nothing():
    before = load()
    free = os.statvfs("/var/lib/aion")
    spare = free.f_bavail * free.f_frsize - (20 << 20)
    try:
        sh(["fallocate", "-l", str(spare), "/var/tmp/fill"])
        done = subprocess.run(["aionctl", "task", "submit", "--agent", "ledger", "--id", "full"], capture_output=True, text=True)
        assert done.returncode != 0 and "DISK_FULL" in done.stderr + done.stdout, done
        say(f"who submits is told: {done.stderr.strip()[:200]}")
        assert active() and load() == before and len(before) == AGENTS, (before, load())
    finally:
        sh("rm -f /var/tmp/fill")
    submit("ledger", ["after-full"])
    until("it has run", lambda: all_ended(["after-full"]))
    ctl("audit", "verify")


def a_backup_under_load_is_restored():
    names = [f"b-{number}" for number in range(LOAD)]
    GATE.unlink(missing_ok=True)
    submit("ledger", names)
    before = load()
    # They begin to end while the backup is made.
    GATE.touch()
    begun = time.monotonic()
    ctl("backup", "create", "/var/tmp/ship.backup")
    say(f"create: {time.monotonic() - begun:.0f} s")
    assert load() == before and len(before) == AGENTS, (before, load())
    ctl("backup", "verify", "/var/tmp/ship.backup")
    flipped("/var/tmp/ship.backup", "/var/tmp/bad.backup")
    sh("systemctl stop aiond.socket aiond aion-launcher aion-agents")
    sh("mkdir /var/tmp/old && mv /var/lib/aion/* /var/tmp/old/")
    refused = sh("aionctl backup restore /var/tmp/bad.backup", ok=False)
    assert "BACKUP_BROKEN" in refused and not os.listdir("/var/lib/aion"), refused
    begun = time.monotonic()
    ctl("backup", "restore", "/var/tmp/ship.backup")
    sh("systemctl start aiond.socket aion-launcher aiond")
    serving()
    say(f"restore until it serves: {time.monotonic() - begun:.0f} s")
    assert until("all tasks have ended", lambda: all_ended(names), patience=1200) == ["succeeded"] * LOAD
    ctl("journal", "check")
    ctl("audit", "verify")
    agents = {a["name"]: a["state"] for a in ctl_json("ps", "-a")}
    assert all(f"load-{number}" in agents for number in range(AGENTS)), agents
    # What the next boots look at.
    for number in range(AGENTS):
        ctl("rm", f"load-{number}")
    agents_start()
    sh("rm -rf /var/tmp/old /var/tmp/*.backup")


def the_units_lead_to_a_point_after_the_backup():
    # As operate/backup.md has it.
    sh("systemctl start aion-archive && systemctl enable --now aion-archive.timer && systemctl start aion-backup")
    submit("ledger", ["after-the-backup"])
    until("it has run", lambda: all_ended(["after-the-backup"]))
    sh("systemctl disable --now aion-archive.timer && systemctl start aion-archive")
    folder = pathlib.Path("/var/backups/aion")
    runs = ctl_json("backup", "verify", folder / "journal")["runs"]
    assert len(runs) == 1, runs
    backup = sorted(folder.glob("*.backup"))[-1]
    told = ctl_json("backup", "restore", backup, "--journal", folder / "journal", "--state", "/var/tmp/again")
    assert told["journal"]["commits"] > 0, told
    sh("rm -rf /var/tmp/again")


def a_killed_holder_of_the_group_stops_no_agent():
    before = load()
    sh(["kill", "-KILL", show("aion-agents.service", "MainPID")])
    until("systemd has noticed", lambda: show("aion-agents.service", "MainPID") == "0")
    assert active() and load() == before and len(before) == AGENTS, (before, load())
    sh("systemctl daemon-reload; systemctl restart aion-launcher")
    serving()
    assert load() == before, (before, load())
    ctl("run", "--rm", "--memory", "32Mi", "--", "true")


def work_waits_for_the_reboot():
    begin_counting("count-1")
    ctl("run", "--detach", "--name", "phoenix", "--restart", "always", "--memory", "32Mi", "--", "sleep", "1000000")
    GATE.unlink(missing_ok=True)
    submit("ledger", [f"r-{number}" for number in range(6)], queue="low")
    until("phoenix runs", lambda: "phoenix" in running())


def begin_counting(name):
    ctl("apply", "--no-start", "-f", "/payload/clone/examples/count-job/agent.yml")
    submit("count-job", [name], {"to": 600, "pause_ms": 20}, queue="high")
    until("a checkpoint is taken", lambda: task(name)["checkpoints"] >= 1)
    assert task(name)["state"] == "running", task(name)


# After a boot.


def everything_is_up_after_the_boot():
    serving()


def what_waited_waits_or_runs_again():
    states = {t["id"]: t["state"] for t in ctl_json("task", "ps")}
    assert all(f"r-{number}" in states for number in range(6)), states
    GATE.touch()


def the_task_goes_on_from_its_checkpoint(name):
    found = until("the task has ended", lambda: task(name)["state"] == "succeeded" and task(name))
    assert found["result"] == {"count": 600} and found["attempts"] >= 2, found
    history = [(event["kind"], event["detail"] or {}) for event in found["history"]]
    again = [detail for kind, detail in history if kind == "dispatched" and detail.get("from_checkpoint")]
    assert again, history
    assert [kind for kind, _ in history].count("succeeded") == 1, history


def count_1_goes_on_from_its_checkpoint():
    the_task_goes_on_from_its_checkpoint("count-1")


def count_2_goes_on_from_its_checkpoint():
    the_task_goes_on_from_its_checkpoint("count-2")


def queued_tasks_are_done():
    names = [f"r-{number}" for number in range(6)]
    ended = until("all tasks have ended", lambda: all_ended(names))
    assert ended == ["succeeded"] * len(names), ended
    assert len(ctl_json("task", "ps", "-a")) >= TASKS + len(names)


def agents_are_known_and_the_one_to_restart_runs():
    agents = {a["name"]: a for a in ctl_json("ps", "-a")}
    assert agents["load-0"]["state"] == "exited" and agents["load-0"]["exit"], agents["load-0"]
    phoenix = until("phoenix runs", lambda: {a["name"]: a for a in ctl_json("ps")}.get("phoenix"))
    assert phoenix["restarts"] >= 1, phoenix


def the_audit_log_verifies():
    ctl("audit", "verify")


def more_work_before_the_plug_is_pulled():
    begin_counting("count-2")
    until("phoenix runs", lambda: "phoenix" in running())


def the_last_word():
    """A task that is acknowledged when all else was long synced."""
    sh(["aionctl", "task", "submit", "--agent", "ledger", "--id", "last-word"], ok=False)


def what_was_acknowledged_last_is_done():
    until("it has ended", lambda: all_ended(["last-word"]))
    assert task("last-word")["state"] == "succeeded", task("last-word")


def those_that_stay():
    """Agents that are no process of a task's attempt."""
    names = {a["name"] for a in ctl_json("ps", "-a")}
    return sorted(name for name in names if name.startswith("load-") or name in ("count-job", "ledger", "phoenix"))


# What the host that is gone had.
moved = {}


RULES = pathlib.Path("/etc/aion/policies/agent.capabilities.yaml")


def what_the_rules_deny():
    """What is refused by the operator's rules; a folder that they say nothing of is shown."""
    refused = []
    for name in ["denied", "open"]:
        sh(f"mkdir -p /srv/{name} && chown {USER} /srv/{name}")
        run = ["aionctl", "run", "--rm", "--memory", "32Mi", "--workspace", f"/srv/{name}", "--", "true"]
        refused += [name] if subprocess.run(run, capture_output=True, text=True, timeout=600).returncode else []
    return refused


def a_backup_is_taken_along():
    GATE.unlink(missing_ok=True)
    # Policy: the operator's in /etc/aion, which is to be copied besides, and a tenant's, which is in the state.
    text = RULES.read_text()
    assert text.count("\ndeny:\n") == 1, text
    RULES.write_text(text.replace("\ndeny:\n", "\ndeny:\n  - fs:write:/srv/denied/**\n"))
    ctl("policy", "reload")
    pathlib.Path("/root/secret").write_text("0123456789abcdef" * 2)
    ctl("tenant", "add", "shop", "--secret-file", "/root/secret", "--deny", "net:connect:denied.example:*", "--rate", "50")
    submit("ledger", [f"m-{number}" for number in range(6)])
    ctl("backup", "create", "/root/moved.backup")
    sh("cp -a /etc/aion /root/etc-aion")
    moved["agents"], moved["tenants"], moved["denied"] = those_that_stay(), ctl_json("tenant", "ls"), what_the_rules_deny()
    assert moved["denied"] == ["denied"], moved
    assert [tenant["name"] for tenant in moved["tenants"] if tenant["deny"]] == ["shop"], moved


def purge_leaves_nothing():
    ctl("run", "--detach", "--name", "last", "--", "sleep", "1000001")
    as_the_readme_says(readme()[-1])
    left = []
    # Brackets, so that the shell that asks does not find itself.
    left += [f"process: {line}" for line in sh("pgrep -a -f 'sleep 10000[0]|aion-[i]nit|aion-[l]auncher|aion[d]' || true").split("\n") if line]
    for path in ["/sys/fs/bpf/aion", "/sys/fs/cgroup/aion.slice", "/var/lib/aion", "/etc/aion", "/run/aion", "/run/aiond"]:
        if os.path.exists(path):
            left.append(path)
    skip = "/payload /proc /sys /var/log /var/cache /var/lib/apt /var/lib/ship /var/lib/dpkg/status-old /var/backups /root".split()
    prune = " -o ".join(f"-path {path}" for path in skip)
    left += [f for f in sh(rf"find / \( {prune} \) -prune -o -iname '*aion*' -print 2>/dev/null", ok=False).split("\n") if f]
    left += [f"account: {line}" for line in sh("getent passwd aion; getent group aion || true", ok=False).split("\n") if line]
    left += [f"unit: {line}" for line in sh("systemctl --no-legend --all list-units 'aion*'").split("\n") if line.strip()]
    left += [f"loop: {line}" for line in sh("losetup -a").split("\n") if line]
    left += [f"link: {line}" for line in sh("ip -br link").split("\n") if "aion" in line]
    assert not left, left


def it_installs_again():
    install(PACKAGES[1])
    serving()
    assert "42" in ctl("run", "--rm", "--", "python3", "-c", "print(6 * 7)")


def a_host_that_knew_nothing_goes_on_with_the_backup():
    sh("systemctl stop aiond.socket aiond aion-launcher aion-agents")
    sh("find /var/lib/aion -mindepth 1 -delete && cp -a /root/etc-aion/. /etc/aion/")
    begun = time.monotonic()
    ctl("backup", "restore", "/root/moved.backup")
    sh("systemctl start aiond.socket aion-launcher aiond")
    serving()
    say(f"restore until it serves: {time.monotonic() - begun:.0f} s")
    assert those_that_stay() == moved["agents"] and len(moved["agents"]) == AGENTS + 3, (those_that_stay(), moved)
    assert ctl_json("tenant", "ls") == moved["tenants"], (ctl_json("tenant", "ls"), moved)
    assert what_the_rules_deny() == moved["denied"], moved
    GATE.touch()
    names = [f"m-{number}" for number in range(6)]
    ended = until("all tasks have ended", lambda: all_ended(names), patience=1200)
    assert ended == ["succeeded"] * len(names), ended
    # What had ended before stays, with its result.
    assert task("count-2")["result"] == {"count": 600}, task("count-2")
    until("phoenix runs", lambda: "phoenix" in running())
    ctl("journal", "check")
    ctl("audit", "verify")
    assert len(os.listdir("/var/lib/aion/audit-archive")) >= 2, "the logs of the host before, and of the one before it"


BOOTS = [
    [
        the_readme_alone_leads_to_a_first_agent,
        units_are_active_and_enabled,
        units_have_no_fault,
        exposure_is_held,
        the_socket_is_for_the_group,
        aiond_has_no_privilege,
        members_run_agents_and_nobody_else,
        members_run_the_sample_agents,
        a_member_shows_a_folder_of_its_home,
        agents_start,
        agents_are_in_the_delegated_group,
        nothing_of_the_units_is_inherited,
        a_restart_stops_no_agent,
        clients_wait_while_aiond_restarts,
        work_waits_for_the_crashes,
        aiond_comes_back_after_kill_9,
        the_launcher_comes_back_after_kill_9,
        a_hung_aiond_is_started_again,
        a_hung_launcher_is_started_again,
        aiond_comes_back_after_it_was_out_of_memory,
        the_launcher_comes_back_after_it_was_out_of_memory,
        nothing_was_lost_over_the_crashes,
        a_tampered_package_changes_nothing,
        an_upgrade_stops_no_agent_and_loses_no_task,
        the_operators_files_are_kept,
        the_configuration_is_checked_reloaded_and_counts,
        what_is_not_as_it_was_signed_is_refused,
        the_journal_has_fields,
        a_full_disk_refuses_work_and_stops_nothing,
        a_backup_under_load_is_restored,
        the_units_lead_to_a_point_after_the_backup,
        a_killed_holder_of_the_group_stops_no_agent,
        work_waits_for_the_reboot,
        no_watchdog_bit_without_a_reason,
    ],
    [
        everything_is_up_after_the_boot,
        what_waited_waits_or_runs_again,
        count_1_goes_on_from_its_checkpoint,
        queued_tasks_are_done,
        agents_are_known_and_the_one_to_restart_runs,
        the_audit_log_verifies,
        more_work_before_the_plug_is_pulled,
        no_watchdog_bit_without_a_reason,
    ],
    [
        everything_is_up_after_the_boot,
        what_was_acknowledged_last_is_done,
        count_2_goes_on_from_its_checkpoint,
        agents_are_known_and_the_one_to_restart_runs,
        the_audit_log_verifies,
        a_backup_is_taken_along,
        purge_leaves_nothing,
        it_installs_again,
        a_host_that_knew_nothing_goes_on_with_the_backup,
        no_watchdog_bit_without_a_reason,
    ],
]
WORDS = ["first", "rebooted", "power_cut"]


def check(boot, test):
    name = f"ship::{WORDS[boot]}::{test.__name__}"
    begun = time.monotonic()
    try:
        test()
    except Exception as error:  # noqa: BLE001: whatever it is, the next check is to run
        state["failed"] += 1
        where = traceback.extract_tb(sys.exc_info()[2])[-1].lineno
        say(f"{name}: line {where}: {type(error).__name__}: {str(error)[:3000]}")
        say(sh("journalctl --no-pager -b -u 'aion*' -n 40 -o short-monotonic", ok=False)[-5000:])
        say(f"test {name} ... FAILED")
    else:
        say(f"{time.monotonic() - begun:.0f} s")
        say(f"test {name} ... ok")


def save():
    STATE.parent.mkdir(parents=True, exist_ok=True)
    STATE.write_text(json.dumps(state))
    os.sync()


def main():
    if STATE.exists():
        state.update(json.loads(STATE.read_text()))
    boot = state["boot"]
    if boot == 0:
        say("@@aion begin ship")
    only = os.environ.get("AION_TEST_FILTER", "")
    for test in BOOTS[boot]:
        if only in test.__name__ or test in (the_readme_alone_leads_to_a_first_agent, agents_start):
            check(boot, test)
    state["boot"] += 1
    save()
    if boot == 0:
        say("@@aion note reboot")
        sh("systemctl --no-block reboot")
        return
    if boot == 1:
        the_last_word()
        # The host kills QEMU, and starts it again with the disk as it was at that moment.
        say("@@aion cut")
        return
    say(f"test result: {'ok' if state['failed'] == 0 else 'FAILED'}. {state['failed']} failed")
    say(f"@@aion end ship {1 if state['failed'] else 0}")
    say("@@aion off")


main()
