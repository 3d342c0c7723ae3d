"""An agent that nobody should run without a sandbox: it tries to read, reach, take over and use up.

Each attempt says what stopped it. None does harm where it succeeds: it looks, and lets go. Everything is bounded
in time and amount, so that the program ends by itself within about fifteen seconds, sandbox or not.
"""

import ctypes
import errno
import mmap
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import time

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long
MIB = 1 << 20
ATTEMPTS = []


def attempt(what):
    def register(function):
        ATTEMPTS.append((what, function))
        return function

    return register


class Stopped(Exception):
    """Stopped, and by no error of the kernel's that Python would raise."""


def syscall(number, *arguments):
    ctypes.set_errno(0)
    result = LIBC.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def in_child(function, seconds=5):
    """Runs it in a process of its own, and tells how that ended."""
    pid = os.fork()
    if pid == 0:
        status = 0
        try:
            os.setpgid(0, 0)
            function()
        except OSError as error:
            status = error.errno or 1
        except MemoryError:
            status = errno.ENOMEM
        except BaseException:
            status = 255
        os._exit(status)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            if os.WIFSIGNALED(status):
                raise Stopped(f"killed by {signal.Signals(os.WTERMSIG(status)).name}")
            if os.WEXITSTATUS(status):
                code = os.WEXITSTATUS(status)
                raise OSError(code, os.strerror(code))
            return
        time.sleep(0.01)
    for target in (-pid, pid):
        try:
            os.kill(target, signal.SIGKILL)
        except OSError:
            pass
    os.waitpid(pid, 0)
    raise Stopped("it took too long")


# --- read ------------------------------------------------------------------------------------------------------


@attempt("read the host's password hashes")
def _():
    with open("/etc/shadow") as file:
        return file.readline().split(":")[0] + ":…"


@attempt("read root's SSH keys")
def _():
    return f"{len(os.listdir('/root/.ssh'))} files"


@attempt("read the home folders")
def _():
    names = os.listdir("/home")
    if not names:
        raise Stopped("/home is empty")
    return ", ".join(names)


@attempt("read AION's own files")
def _():
    for path in ("/var/lib/aion/launcher/audit.key", "/var/lib/aion/db", "/run/aion"):
        if os.path.lexists(path):
            return path
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


@attempt("read another process's environment")
def _():
    own = {os.getpid(), os.getppid()}
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) not in own]
    for pid in pids:
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                if file.read(1):
                    return f"process {pid}"
        except OSError as error:
            last = error
    raise last if pids else Stopped("no other process is seen")


@attempt("find the kernel's addresses")
def _():
    with open("/proc/kallsyms") as file:
        for line in file:
            if int(line.split()[0], 16):
                return line.split()[0]
    raise Stopped("all addresses are zero")


# --- reach -----------------------------------------------------------------------------------------------------


@attempt("find a way to the Internet")
def _():
    # Connecting a datagram socket sends nothing: the kernel only looks for a route.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("203.0.113.1", 53))
        return f"through {probe.getsockname()[0]}"


@attempt("connect to services on the host's loopback")
def _():
    for port in (22, 80, 111, 631, 2375, 5432, 8010):
        with socket.socket() as probe:
            probe.settimeout(0.2)
            code = probe.connect_ex(("127.0.0.1", port))
            if code == 0:
                return f"port {port}"
    raise OSError(code, os.strerror(code))


@attempt("talk to a container engine")
def _():
    with socket.socket(socket.AF_UNIX) as engine:
        engine.connect("/run/docker.sock")
        return "connected"


@attempt("sniff packets")
def _():
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)):
        return "a packet socket"


@attempt("send raw packets")
def _():
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP):
        return "a raw socket"


# --- take over -------------------------------------------------------------------------------------------------


@attempt("become root")
def _():
    in_child(lambda: os.setresuid(0, 0, 0) if os.getuid() else (_ for _ in ()).throw(SystemExit))
    return "root"


@attempt("become root by a setuid program")
def _():
    program = next((p for p in ("/usr/bin/su", "/usr/bin/passwd", "/usr/bin/mount") if os.path.exists(p)), None)
    if program is None:
        raise Stopped("this system has none")
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        time.sleep(0.2)
        try:
            with open(f"/proc/{child.pid}/status") as status:
                uid = next(line for line in status if line.startswith("Uid:")).split()[2]
        except (OSError, StopIteration):
            raise Stopped(f"{program} ended at once") from None
        finally:
            child.kill()
    if int(uid) == os.geteuid():
        raise Stopped(f"{program} runs as {uid}, without rights")
    return f"{program} runs as {uid}"


@attempt("mount a file system")
def _():
    in_child(lambda: syscall(165, b"none", b"/tmp", b"tmpfs", 0, 0))
    return "mounted"


@attempt("make a user namespace")
def _():
    in_child(lambda: syscall(272, 0x10000000))
    return "root in a namespace of its own"


@attempt("enter init's namespaces")
def _():
    descriptor = os.open("/proc/1/ns/mnt", os.O_RDONLY)
    in_child(lambda: syscall(308, descriptor, 0))
    return "entered"


@attempt("trace init")
def _():
    in_child(lambda: syscall(101, 0x4206, 1, 0, 0))
    return "init is traced"


@attempt("write init's memory")
def _():
    os.close(os.open("/proc/1/mem", os.O_RDWR))
    return "open for writing"


@attempt("have the kernel run a program as root (core_pattern)")
def _():
    os.close(os.open("/proc/sys/kernel/core_pattern", os.O_WRONLY))
    return "open for writing"


@attempt("plant a program among the system's")
def _():
    os.close(os.open("/usr/bin/aion-hostile", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o755))
    os.unlink("/usr/bin/aion-hostile")
    return "written"


@attempt("leave a setuid program for the host in the workspace")
def _():
    path = "/workspace/.left-behind" if os.path.isdir("/workspace") else "/tmp/.left-behind"
    with open(path, "w") as file:
        try:
            os.fchmod(file.fileno(), 0o4755)
            mode = os.fstat(file.fileno()).st_mode
        finally:
            os.unlink(path)
    if mode & 0o4000:
        return f"mode {mode & 0o7777:o}"
    raise Stopped("the bit was taken off")


@attempt("make a device node")
def _():
    os.mknod("/tmp/.disk", 0o60600, os.makedev(254, 0))
    os.unlink("/tmp/.disk")
    return "a disk"


@attempt("load a program into the kernel (bpf)")
def _():
    attributes = struct.pack("5I", 2, 4, 4, 1, 0).ljust(64, b"\0")
    os.close(syscall(321, 0, attributes, 64))
    return "a BPF map"


@attempt("pass by the filter with io_uring")
def _():
    os.close(syscall(425, 8, ctypes.create_string_buffer(120)))
    return "a ring"


@attempt("pass by the filter with 32-bit system calls")
def _():
    def call():
        code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        # push rbx; mov eax, 20 (getpid); int 0x80; pop rbx; ret
        code.write(b"\x53\xb8\x14\x00\x00\x00\xcd\x80\x5b\xc3")
        address = ctypes.addressof(ctypes.c_char.from_buffer(code))
        if ctypes.CFUNCTYPE(ctypes.c_int)(address)() != os.getpid():
            os._exit(errno.ENOSYS)

    in_child(call)
    return "the 32-bit table"


@attempt("read the keys in the kernel")
def _():
    syscall(250, 0, -4, 0)
    return "the user's keyring"


@attempt("rename the machine")
def _():
    in_child(lambda: syscall(170, b"hostile", 7))
    return "renamed"


@attempt("reboot the machine")
def _():
    # With a wrong key: whoever may, is told EINVAL, and nothing happens.
    try:
        syscall(169, 0, 0, 0, 0)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return "it would have"
        raise
    return "rebooted"


# --- use up ----------------------------------------------------------------------------------------------------


@attempt("fork bomb: 200 processes")
def _():
    children = []
    try:
        while len(children) < 200:
            pid = os.fork()
            if pid == 0:
                time.sleep(5)
                os._exit(0)
            children.append(pid)
    except OSError as error:
        raise Stopped(f"{errno.errorcode[error.errno]} after {len(children)} processes") from None
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        for pid in children:
            os.waitpid(pid, 0)
    return "200 processes"


@attempt("fill the disk: one file of 64 MiB in the workspace")
def _():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    return fill("/workspace/.large" if os.path.isdir("/workspace") else "/tmp/.large", 64)


@attempt("fill /tmp: 256 MiB")
def _():
    paths = [f"/tmp/.large-{n}" for n in range(64)]
    written = 0
    try:
        for path in paths:
            fill(path, 4, keep=True)
            written += 4
    except (OSError, Stopped) as error:
        raise Stopped(f"{error} in file {written // 4}") from None
    finally:
        for path in paths:
            if os.path.exists(path):
                os.unlink(path)
    return "256 MiB"


def fill(path, size, keep=False):
    block, written = b"x" * MIB, 0
    try:
        with open(path, "wb", buffering=0) as file:
            for _ in range(size):
                written += file.write(block) / MIB
    except OSError as error:
        raise Stopped(f"{errno.errorcode[error.errno]} after {written:.0f} MiB") from None
    finally:
        if not keep and os.path.exists(path):
            os.unlink(path)
    if written < size:
        raise Stopped(f"the file ends at {written:.0f} MiB")
    return f"{size} MiB"


@attempt("open 100,000 files")
def _():
    held = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
        while len(held) < 100_000:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError as error:
        raise Stopped(f"{errno.errorcode[error.errno]} after {len(held)} files") from None
    finally:
        for descriptor in held:
            os.close(descriptor)
    return "100,000 files"


@attempt("use all processors for a second")
def _():
    def spin():
        end = time.monotonic() + 1
        while time.monotonic() < end:
            pass

    before, begun = os.times(), time.monotonic()
    children = []
    for _ in range(os.cpu_count() or 1):
        pid = os.fork()
        if pid == 0:
            spin()
            os._exit(0)
        children.append(pid)
    for pid in children:
        os.waitpid(pid, 0)
    after = os.times()
    share = sum(after[2:4]) - sum(before[2:4])
    share /= time.monotonic() - begun
    if share < 0.7:
        raise Stopped(f"got {share:.2f} processors")
    return f"{share:.2f} processors"


@attempt("use 512 MiB of memory")
def _():
    def use():
        held = bytearray()
        for _ in range(512):
            held += b"x" * MIB

    in_child(use)
    return "512 MiB"


def main():
    stopped = 0
    for what, function in ATTEMPTS:
        try:
            result = function()
        except Stopped as stop:
            result, ok = str(stop), True
        except OSError as error:
            result, ok = f"{errno.errorcode.get(error.errno, error.errno)} {error.strerror or ''}".strip(), True
        except (MemoryError, OverflowError, ValueError) as error:
            result, ok = f"{type(error).__name__}: {error}", True
        else:
            ok = False
        stopped += ok
        print(f"{'stopped ' if ok else 'DID IT  '} {what}: {result}", flush=True)
    print(f"{stopped} of {len(ATTEMPTS)} attempts were stopped", flush=True)
    return 0 if stopped == len(ATTEMPTS) else 1


if __name__ == "__main__":
    sys.exit(main())
