# What each detection is for, done by a real agent; and beside it what comes near and is none. `attack.py NAME act|near`: the first act is
# told with its time, the end with a word. In a file of the workspace, because arguments of programs are what some rules look at.
import ctypes
import os
import shutil
import socket
import subprocess
import sys
import time

LIBC = ctypes.CDLL(None, use_errno=True)


def act():
    print("act", time.time_ns(), flush=True)


def connect(address):
    """A datagram socket: the connection is asked for and no packet leaves."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        try:
            client.connect(address)
        except OSError:
            pass


def refused(number, times):
    for _ in range(times):
        LIBC.syscall(number, 0, 0, 0, 0, 0)


def spawn(times):
    for _ in range(times):
        os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)


def fork_bomb(near):
    for _ in range(40) if near else iter(int, 1):
        try:
            if os.fork() == 0:
                time.sleep(3600)
        except OSError:
            pass


def fork_rate(near):
    if near:
        # As fast as one shell can, with programs.
        return spawn(3000)
    end = time.monotonic() + 90
    os.fork()
    while time.monotonic() < end:
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)


def reverse_shell(near):
    server = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(server.getsockname())
    if near:
        pair, _ = socket.socketpair()
        subprocess.run(["sh", "-c", "true"], stdin=pair, stdout=pair)
        subprocess.run(["sh", "-c", "true"], stdin=subprocess.DEVNULL, stdout=client)
        subprocess.run(["sh", "-c", "true"], stdin=client, stdout=subprocess.DEVNULL)
    else:
        subprocess.Popen(["sh"], stdin=client, stdout=client)


def copied(name):
    shutil.copy("/bin/sleep", name)
    os.chmod(name, 0o755)
    return "./" + name


def exec_writable(near):
    if near:
        os.symlink("/bin/sleep", "linked")
        subprocess.run(["./linked", "0"])
        subprocess.run(["sh", "-c", ". ./script"], check=False)
    else:
        subprocess.run([copied("copied"), "0"])


def memfd_exec(near):
    memory = os.memfd_create("x", 0)
    with open("/bin/sleep", "rb") as program:
        os.write(memory, program.read())
    if near:
        subprocess.run(["sh", "-c", "cat > /dev/null"], stdin=memory)
    else:
        subprocess.Popen(["/proc/self/fd/%d" % memory, "3600"], pass_fds=[memory])


def deleted_binary(near):
    program = copied("gone")
    held = os.open(program, os.O_RDONLY)
    if near:
        subprocess.run([program, "0"])
    os.unlink(program)
    if not near:
        subprocess.Popen(["/proc/self/fd/%d" % held, "3600"], pass_fds=[held])


def deleted_running(near):
    program = copied("server")
    child = subprocess.Popen([program, "3600"])
    if near:
        child.kill()
        child.wait()
    os.unlink(program)


def crypto_miner(near):
    pool = "stratum://notes" if near else "stratum+tcp://pool.example:3333"
    subprocess.Popen(["sh", "-c", "sleep 3600; true", "-o", pool])


def credential_access(near):
    subprocess.run(["cat", "/etc/passwd" if near else "/etc/shadow"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def mass_write(near):
    os.makedirs("many", exist_ok=True)
    for number in range(500 if near else 1500):
        open("many/%d" % number, "w").close()


def mass_encrypt(near):
    os.makedirs("papers", exist_ok=True)
    for number in range(200):
        with open("papers/%d.txt" % number, "w") as paper:
            paper.write("a letter\n" * 100)
    act()
    key = os.urandom(900)
    for number in range(200):
        with open("papers/%d.txt" % number, "rb") as paper:
            text = paper.read()
        changed = bytes(a ^ b for a, b in zip(text, key))
        name = "papers/%d.txt" % number + (".copy" if near and number > 9 else ".locked")
        with open(name, "wb") as copy:
            copy.write(changed)
        os.unlink("papers/%d.txt" % number)


def beaconing(near):
    # An address that nobody has.
    gaps = [4.5, 9, 5, 14, 4.5, 7, 20, 5, 11, 4.5, 8] if near else [5] * 14
    for gap in gaps:
        connect(("192.0.2.7", 443))
        if near:
            connect(("127.0.0.1", 443))
        time.sleep(gap)


def data_exfiltration(near):
    with socket.create_connection(("127.0.0.1", int(os.environ["SINK"]))) as sink:
        for _ in range(32 if near else 400):
            sink.sendall(bytes(1 << 20))


def denied_burst(near):
    refused(165, 100 if near else 2000)
    if near:
        refused(435, 2000)


def canary_touched(near):
    from aion_sdk import AionError, SyscallClient

    with SyscallClient.from_env() as aion:
        try:
            aion.call("fs.read", {"path": "/workspace/" + ("notes.txt" if near else "canary-passwords.txt")})
        except AionError as error:
            print(error, flush=True)


def escape_attempt(near):
    # mount and setns; and open_tree, unshare, ptrace, bpf.
    for number in (165, 308) if near else (165, 308, 428, 272, 101, 321):
        refused(number, 1)


def privilege_change(near):
    # In the sandbox nobody gains any; the other half is the host's to do.
    subprocess.run(["su", "--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def rate_deviation(near):
    begun = time.monotonic()
    # As many intervals as it learns from, and two.
    while time.monotonic() - begun < 320:
        spawn(4)
        time.sleep(2)
    act()
    spawn(300 if near else 3000)


def novel_syscalls(near):
    # What came before counts once a sample has told of it; the pauses are the same call again and again, too.
    begun = time.monotonic()
    while time.monotonic() - begun < 60:
        for _ in range(1000):
            os.getppid()
        time.sleep(0.01)
    act()
    if not near:
        subprocess.run([sys.executable, "-c", "import json, socket, sqlite3, subprocess; subprocess.run(['ls', '/usr'])"], stdout=subprocess.DEVNULL)


def main():
    name, role = sys.argv[1:]
    for file, text in (("script", "true\n"), ("notes.txt", "nothing\n"), ("canary-passwords.txt", "nothing\n")):
        with open(file, "w") as out:
            out.write(text)
    # Before the first act the agent is looked at once: samples are differences.
    time.sleep(12 if name == "data_exfiltration" else 0)
    if name not in ("mass_encrypt", "novel_syscalls", "rate_deviation"):
        act()
    globals()[name](role == "near")
    print("done", flush=True)
    time.sleep(3600)


main()
