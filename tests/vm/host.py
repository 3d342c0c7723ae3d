"""The machine of the suite `ship` as its operator has it: commands, what they say, states that are waited for, and lengths of time that
are held to what is promised.
"""

import glob
import json
import os
import pathlib
import re
import subprocess
import time

import pace

PACKAGES = sorted(glob.glob("/payload/packages/aion_*.deb"))
DAEMONS = ["aion-launcher.service", "aiond.service"]
UNITS = ["aiond.socket", "aion-agents.service", *DAEMONS]
# No check takes nearly so long; what does not come at all is found out after it.
PATIENCE = 420

SPANS = {"us": 1e-6, "ms": 1e-3, "s": 1, "min": 60, "h": 3600}

CONSOLE = open("/dev/console", "w", buffering=1, errors="replace")


def say(text):
    print(text, file=CONSOLE, flush=True)


def sh(command, ok=True, **more):
    """Runs it; gives what it printed."""
    done = subprocess.run(command, shell=isinstance(command, str), capture_output=True, text=True, timeout=1200, **more)
    if ok and done.returncode != 0:
        raise AssertionError(f"{command} ended with {done.returncode}: {done.stdout[-1500:]}{done.stderr[-1500:]}")
    return done.stdout + ("" if ok else done.stderr)


def ctl(*args):
    return sh(["aionctl", *args])


def ctl_json(*args):
    return json.loads(ctl(*args, "-o", "json"))


def until(what, holds, patience=PATIENCE, pause=0.5):
    """Waits until it holds; gives what it gave."""
    begun = time.monotonic()
    last = None
    while time.monotonic() - begun < patience:
        try:
            last = holds()
            if last:
                return last
        except (AssertionError, ValueError, KeyError, OSError) as error:
            last = error
        time.sleep(pause)
    raise AssertionError(f"never: {what}; last: {last}")


def show(unit, name):
    return sh(["systemctl", "show", "--value", "-p", name, unit]).strip()


def span(unit, name):
    """A length of time that the unit names, as systemd writes it: 1min 30s."""
    found = re.findall(r"([0-9.]+)(us|ms|min|s|h)", show(unit, name))
    assert found, f"{unit} has no {name}"
    return sum(float(number) * SPANS[word] for number, word in found)


def active(units=UNITS):
    return all(sh(["systemctl", "is-active", unit], ok=False).strip() == "active" for unit in units)


def running():
    """Name, process and start of each agent that runs."""
    agents = ctl_json("ps")
    return {a["name"]: [a["pid"], a["restarts"], a["started"]] for a in agents if a["state"] == "running"}


def load():
    """The agents that nothing may stop."""
    return {name: what for name, what in running().items() if name.startswith("load-")}


def task(name):
    found = ctl_json("task", "inspect", name)
    return found[0] if isinstance(found, list) else found


def journal(*asked):
    """Entries of systemd's journal since the boot."""
    lines = sh(["journalctl", "--no-pager", "-b", "-o", "json", *asked]).splitlines()
    return [json.loads(line) for line in lines]


def group_of(pid):
    return pathlib.Path(f"/proc/{pid}/cgroup").read_text().strip().removeprefix("0::")


def serving():
    until("the API answers", lambda: active() and ctl("ps", "-q") is not None)


def submit(agent, names, params=None, **flags):
    for name in names:
        more = [word for key, value in flags.items() for word in (f"--{key}", value)]
        ctl("task", "submit", "--agent", agent, "--id", name, "--params", json.dumps(params or {}), *more)


def all_ended(names):
    states = {t["id"]: t["state"] for t in ctl_json("task", "ps", "-a")}
    return [states[name] for name in names] if all(states[n] in ("succeeded", "failed", "cancelled") for n in names) else None


def install(package):
    # `apt`, as an operator would; the machine has no network, so it takes nothing but what is there.
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    return sh(["apt-get", "install", "--yes", "--no-install-recommends", package], env=env)


def slowness():
    """By how much this machine is slower than the one that emulates it. Asked anew each time, since that one does other things, too."""
    return max(1.0, pace.seconds() / float(os.environ["AION_HOST_PACE"]))


def within(what, took, limit, waits=0.0):
    """Holds what took so long here to what is promised of a real machine, by how much slower this one is. Of both, `waits` seconds are
    waited for on any machine, and are not converted."""
    factor = slowness()
    there = min(took, waits) + max(took - waits, 0.0) / factor
    most = waits + (limit - waits) * factor
    say(f"{what}: {took:.1f} s here, {there:.1f} s on a machine {factor:.1f} times as fast; at most {limit:g} s there, {most:.1f} s here")
    assert waits < limit, f"{what}: {waits:g} s pass before anything is done, of {limit:g} s"
    assert took <= most, f"{what}: {took:.1f} s, at most {most:.1f} s"
