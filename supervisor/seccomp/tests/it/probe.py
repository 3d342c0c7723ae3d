"""Loads a filter in a child and reports what the kernel then answers.

stdin: {"bpf": hex, "notify": [[nr, errno]], "calls": [[nr, [args]]], "exec": [argv] | null}
stdout: {"results": [[value, errno]], "status": exit status, "reported": [nr]}
The parent is the listener and answers as aion-init does: the errno of the table, never "go on".
"""
import array, ctypes, fcntl, json, os, select, socket, struct, sys

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
RECV, SEND = 0xC0502100, 0xC0182101
PR_SET_NO_NEW_PRIVS, SECCOMP, SET_FILTER, NEW_LISTENER = 38, 317, 1, 8


class Fprog(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def call(nr, *args):
    ctypes.set_errno(0)
    value = libc.syscall(ctypes.c_long(nr), *[ctypes.c_ulong(a & (2**64 - 1)) for a in args])
    return [value, ctypes.get_errno() if value == -1 else 0]


def child(job, sock, out):
    bpf = bytes.fromhex(job["bpf"])
    buffer = ctypes.create_string_buffer(bpf, len(bpf))
    prog = Fprog(len(bpf) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    listener, errno = call(SECCOMP, SET_FILTER, NEW_LISTENER, ctypes.addressof(prog))
    assert listener >= 0, os.strerror(errno)
    sock.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [listener]))])
    os.close(listener)
    sock.close()
    if job.get("exec"):
        os.dup2(2, 1)
        os.execvp(job["exec"][0], job["exec"])
    os.write(out, json.dumps([call(nr, *args) for nr, args in job["calls"]]).encode())


def serve(listener, pid, errnos, reported):
    # Before Linux 6.11 a zombie keeps its filter, so that the listener's end is not told before the child is
    # waited for: its end is seen by its pidfd.
    ended = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    poll.register(ended, select.POLLIN)
    while True:
        if (listener, select.POLLIN) not in [(fd, events & select.POLLIN) for fd, events in poll.poll()]:
            return  # the last task under the filter is gone
        request = bytearray(80)
        try:
            fcntl.ioctl(listener, RECV, request)
            nr = struct.unpack_from("=QIIi", request)[3]
            reported.append(nr)
            fcntl.ioctl(listener, SEND, struct.pack("=QqiI", *struct.unpack_from("=Q", request), 0, -errnos[nr], 0))
        except FileNotFoundError:
            pass  # the caller was killed meanwhile


def main():
    job = json.load(sys.stdin)
    ours, theirs = socket.socketpair()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reading)
            ours.close()
            child(job, theirs, writing)
            os._exit(0)
        except BaseException as error:
            print(error, file=sys.stderr)
            os._exit(99)
    theirs.close()
    os.close(writing)
    message, ancillary, _, _ = ours.recvmsg(1, socket.CMSG_SPACE(4))
    reported = []
    if ancillary:
        listener = array.array("i", ancillary[0][2])[0]
        serve(listener, pid, dict(map(tuple, job["notify"])), reported)
    text = b"".join(iter(lambda: os.read(reading, 65536), b""))
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    json.dump({"results": json.loads(text or b"[]"), "status": status, "reported": reported}, sys.stdout)


main()
