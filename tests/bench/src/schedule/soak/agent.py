# An agent that serves tasks over AION's runtime protocol, with nothing but the standard library: a gRPC stream is HTTP/2 frames
# on the socket in AION_RUNTIME_SOCKET. Each task is a chain of steps whose state is (step, value); it is left as a checkpoint
# when room must be made, and goes on from there.
import json
import os
import socket
import struct
import threading
import time

SOCKET = os.environ.get("AION_RUNTIME_SOCKET", "/run/aion/kernel.sock")
CONCURRENCY = int(os.environ.get("CONCURRENCY", "1"))


def varint(number):
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def fields(data):
    """Number and value of each field, in order."""
    at = 0

    def read():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        tag = read()
        if tag & 7 == 0:
            yield tag >> 3, read()
        elif tag & 7 == 2:
            length = read()
            yield tag >> 3, data[at : at + length]
            at += length
        else:
            size = 8 if tag & 7 == 1 else 4
            yield tag >> 3, data[at : at + size]
            at += size


def one(data, number, default=b""):
    found = default
    for key, value in fields(data):
        if key == number:
            found = value
    return found


def several(data, number):
    return [value for key, value in fields(data) if key == number]


class Closed(Exception):
    pass


class Stream:
    """One bidirectional call."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(SOCKET)
        self.lock = threading.Condition()
        self.windows = [65535, 65535]
        self.initial = 65535
        self.closed = False
        self.buffer = b""
        literal = lambda name, value: b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value
        headers = b"\x83\x86" + b"\x04" + bytes([len(path)]) + path + b"\x01" + bytes([6]) + b"kernel"
        headers += literal(b"content-type", b"application/grpc") + literal(b"te", b"trailers")
        window = struct.pack(">I", (1 << 31) - 1 - 65535)
        self.socket.sendall(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + self.frame(4, 0, 0, struct.pack(">HI", 4, (1 << 31) - 1))
            + self.frame(8, 0, 0, window)
            + self.frame(1, 4, 1, headers)
        )

    @staticmethod
    def frame(kind, flags, stream, payload):
        return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload

    def send(self, message):
        rest = b"\0" + struct.pack(">I", len(message)) + message
        while rest:
            with self.lock:
                while min(self.windows) <= 0 and not self.closed:
                    self.lock.wait(5)
                if self.closed:
                    raise Closed
                size = min(len(rest), 16384, *self.windows)
                self.windows = [window - size for window in self.windows]
                try:
                    self.socket.sendall(self.frame(0, 0, 1, rest[:size]))
                except OSError:
                    raise Closed from None
            rest = rest[size:]

    def read(self, count):
        data = b""
        while len(data) < count:
            try:
                more = self.socket.recv(count - len(data))
            except OSError:
                more = b""
            if not more:
                raise Closed
            data += more
        return data

    def receive(self):
        while True:
            if len(self.buffer) >= 5:
                length = struct.unpack(">I", self.buffer[1:5])[0]
                if len(self.buffer) >= 5 + length:
                    message, self.buffer = self.buffer[5 : 5 + length], self.buffer[5 + length :]
                    return message
            self.one_frame()

    def one_frame(self):
        head = self.read(9)
        length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
        stream = int.from_bytes(head[5:], "big") & (1 << 31) - 1
        payload = self.read(length)
        if kind == 0:
            self.buffer += payload[1 : len(payload) - payload[0]] if flags & 8 else payload
            if length:
                grow = struct.pack(">I", length)
                with self.lock:
                    self.socket.sendall(self.frame(8, 0, 0, grow) + self.frame(8, 0, 1, grow))
        elif kind == 4 and not flags & 1:
            with self.lock:
                for at in range(0, length, 6):
                    key, value = struct.unpack(">HI", payload[at : at + 6])
                    if key == 4:
                        self.windows[1] += value - self.initial
                        self.initial = value
                self.socket.sendall(self.frame(4, 1, 0, b""))
                self.lock.notify_all()
        elif kind == 6 and not flags & 1:
            with self.lock:
                self.socket.sendall(self.frame(6, 1, 0, payload))
        elif kind == 8:
            with self.lock:
                self.windows[0 if stream == 0 else 1] += struct.unpack(">I", payload)[0]
                self.lock.notify_all()
        elif kind in (3, 7):
            raise Closed
        if kind in (0, 1) and flags & 1:
            raise Closed

    def close(self):
        with self.lock:
            self.closed = True
            self.lock.notify_all()
        self.socket.close()


class Task(threading.Thread):
    def __init__(self, agent, attempt, params, checkpoint):
        super().__init__(daemon=True)
        self.agent, self.attempt = agent, attempt
        self.params = json.loads(params)
        self.state = json.loads(checkpoint) if checkpoint else [0, self.params["seed"]]
        self.yields = threading.Event()
        self.dropped = False
        self.over = None

    def run(self):
        step, value = self.state
        while step < self.params["steps"]:
            value = (value * 48271 + step) % 2147483647
            step += 1
            self.state = [step, value]
            # Whoever wants something to happen in the middle: from step `hold` on nothing goes on until the file `go` is there.
            while 0 < self.params.get("hold", 0) <= step and not os.path.exists("/workspace/go"):
                open("/workspace/held", "w").close()
                if self.dropped or self.yields.wait(0.01):
                    break
            if self.dropped:
                return
            if self.yields.wait(self.params["pause_ms"] / 1000):
                data = json.dumps(self.state).encode()
                part = field(1, self.attempt) + field(3, data) + field(4, 1) + field(5, 1)
                return self.agent.ended(self, field(4, part))
        result = json.dumps({"value": value}).encode()
        self.agent.ended(self, field(5, field(1, field(1, self.attempt) + field(2, result))))

    def checkpoint(self):
        data = json.dumps(self.state).encode()
        return field(4, field(1, self.attempt) + field(3, data) + field(4, 1))


class Agent:
    def __init__(self):
        self.lock = threading.Lock()
        self.tasks = {}
        self.stream = None

    def send(self, message):
        stream = self.stream
        try:
            if stream:
                stream.send(message)
        except Closed:
            pass  # said again after the next welcome

    def ended(self, task, message):
        with self.lock:
            task.over = message
            if task.dropped:
                return
        self.send(message)

    def forget(self, attempts):
        with self.lock:
            for attempt in attempts:
                task = self.tasks.pop(attempt, None)
                if task:
                    task.dropped = True

    def serve(self):
        stream = Stream(b"/aion.v1.RuntimeService/Attach")
        try:
            with self.lock:
                running = b"".join(field(3, attempt) for attempt in self.tasks)
            stream.send(field(1, field(1, 1) + field(2, CONCURRENCY) + running + field(4, b"soak")))
            while True:
                for kind, body in fields(stream.receive()):
                    self.handle(stream, kind, body)
        finally:
            self.stream = None
            stream.close()

    def handle(self, stream, kind, body):
        if kind == 1:
            keep = set(several(body, 4))
            self.forget([attempt for attempt in list(self.tasks) if attempt not in keep])
            self.stream = stream
            with self.lock:
                again = [task.over for task in self.tasks.values() if task.over]
            for message in again:
                self.send(message)
        elif kind == 2:
            for assignment in several(body, 1):
                attempt = one(assignment, 1)
                task = Task(self, attempt, one(assignment, 4), one(assignment, 9))
                with self.lock:
                    self.tasks[attempt] = task
                self.send(field(2, field(1, attempt)))
                task.start()
        elif kind == 4:
            task = self.tasks.get(one(body, 1))
            if task:
                task.yields.set()
        elif kind == 6:
            # Of a periodic checkpoint nothing is waited for; of one that yields it is the end.
            over = set(several(body, 1)) | {a for a in several(body, 2) if a in self.tasks and self.tasks[a].over}
            self.forget(over)
        elif kind in (5, 7):
            self.forget([one(body, 1)])
        elif kind == 8:
            for attempt in several(body, 1):
                task = self.tasks.get(attempt)
                if task and not task.over:
                    self.send(task.checkpoint())


agent = Agent()
while True:
    try:
        agent.serve()
    except (Closed, OSError):
        time.sleep(0.02)
