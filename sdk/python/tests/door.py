"""A kernel's HTTP door that checks every signature, and then does what a test tells it to.

`door.next(…)` sets what the next request meets, in order; without it the door keeps memories and echoes everything else.
"""

import contextlib
import hashlib
import hmac
import json
import queue
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRET = b"a secret of thirty-two bytes  :)"
TENANT = "tenantA"
NONCE = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


class Door:
    def __init__(self, port=0, secret=SECRET):
        self.secret = secret
        self.nonces = set()
        self.requests = []
        self.wrong = []
        self.connections = 0
        self.script = queue.SimpleQueue()
        self.ordinary = ordinary
        self.memories = {}
        self.lock = threading.Lock()
        # Set at the end: whatever hangs goes on.
        self.released = threading.Event()
        door = self

        class Handler(Request):
            pass

        Handler.door = door

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request, client_address):
                pass

        self.server = Server(("127.0.0.1", port), Handler)
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def next(self, *steps):
        for step in steps:
            self.script.put(step)

    def close(self):
        self.released.set()
        self.server.shutdown()
        self.server.server_close()

    def paths(self):
        return [path for _, path, _, _ in self.requests]


class Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    door = None

    def setup(self):
        super().setup()
        with self.door.lock:
            self.door.connections += 1

    def log_message(self, *_):
        pass

    def do_POST(self):
        self.serve(self.rfile.read(int(self.headers["Content-Length"])))

    def do_GET(self):
        self.serve(b"")

    def serve(self, body):
        wrong = self.signature_is_wrong(body)
        with self.door.lock:
            self.door.requests.append((self.command, self.path, dict(self.headers), json.loads(body) if body else None))
            if wrong:
                self.door.wrong.append(wrong)
        if wrong:
            refuse(401, "UNAUTHENTICATED", status="denied", message=wrong)(self, body)
            return
        try:
            step = self.door.script.get_nowait()
        except queue.Empty:
            step = self.door.ordinary
        step(self, body)

    def signature_is_wrong(self, body):
        """As the kernel does it; what is wrong, or nothing."""
        if self.headers["X-Tenant-Id"] != TENANT:
            return "tenant"
        timestamp, nonce, message = self.headers["X-Timestamp"], self.headers["X-Nonce"], body
        if (timestamp is None) != (nonce is None):
            return "both or none"
        if timestamp is not None:
            if not timestamp.isdigit() or abs(int(timestamp) - time.time() * 1000) > 300_000:
                return "time"
            if not 8 <= len(nonce) <= 64 or not set(nonce) <= NONCE:
                return "nonce"
            with self.door.lock:
                if nonce in self.door.nonces:
                    return "replayed"
                self.door.nonces.add(nonce)
            message = f"{timestamp}\n{nonce}\n{self.command}\n{self.path}\n".encode() + body
        expected = hmac.new(self.door.secret, message, hashlib.sha256).hexdigest()
        return None if self.headers["X-Sig-HMAC"] == expected else "signature"

    def give(self, status, data, headers=()):
        text = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)

    def raw(self, data):
        """Exactly these bytes, and the end."""
        self.wfile.write(data)
        self.finish_now()

    def finish_now(self):
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)


# What a request can meet.


def answered(result, **more):
    usage = {"latency_ms": 3, "cost_usd": 0.002, "tokens_in": 5, "tokens_out": 7}
    engine = {"kind": "module", "name": "tooling/web_search@1.2.0"}
    return {"status": "ok", "result": result, "usage": usage, "engine": engine, "audit_id": "sc-1", **more}


def ok(result):
    return lambda request, body: request.give(200, answered(result))


def refuse(http, code, status="error", message="no", **error):
    data = {"status": status, "result": None, "error": {"code": code, "message": message, **error}, "audit_id": "sc-9"}
    return lambda request, body: request.give(http, data)


def raw(data):
    return lambda request, body: request.raw(data)


def cut(request, body):
    """The end, without a word."""
    request.finish_now()


def hang(request, body):
    request.door.released.wait(60)
    request.finish_now()


def drip(request, body):
    """An answer that never ends, a byte at a time."""
    request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    with contextlib.suppress(OSError):
        while not request.door.released.wait(0.005):
            request.wfile.write(b" ")
    request.finish_now()


def in_chunks(data):
    def step(request, body):
        text = json.dumps(data).encode()
        head = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        for byte in head:
            request.wfile.write(bytes([byte]))
        for at in range(0, len(text), 3):
            piece = text[at : at + 3]
            request.wfile.write(b"%x;ext=1\r\n%s\r\n" % (len(piece), piece))
        request.wfile.write(b"0\r\nX-Trailer: yes\r\n\r\n")

    return step


def stream(*lines, end=True):
    """Server-Sent Events, in one chunk each; then the end, or silence."""

    def step(request, body):
        request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n")
        for line in lines:
            data = line.encode()
            request.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        if not end:
            request.door.released.wait(60)
        request.finish_now()

    return step


def ordinary(request, body):
    """Memories as the kernel keeps them; anything else comes back."""
    data = json.loads(body)
    params, path, memories = data.get("params", {}), request.path, request.door.memories
    key = (params.get("type"), params.get("key")) if isinstance(params, dict) else None
    with request.door.lock:
        if path == "/v1/syscall/memory.put":
            memories[key] = {"key": key[1], "type": key[0], "value": params["value"], "meta": params.get("meta"), "created_ns": 5}
            result = {"key": key[1], "type": key[0], "ttl_s": params.get("ttl_s", 3600)}
        elif path == "/v1/syscall/memory.get":
            if key not in memories:
                refuse(404, "KEY_NOT_FOUND", field="params.key")(request, body)
                return
            result = memories[key]
        elif path == "/v1/syscall/memory.delete":
            memories.pop(key, None)
            result = {"key": key[1], "type": key[0]}
        elif path == "/v1/syscall/memory.query":
            prefix = params.get("filter", {}).get("key_prefix", "")
            found = [m for k, m in sorted(memories.items()) if k[0] == params["type"] and k[1].startswith(prefix)]
            found = [m for m in found if m["key"] > params.get("after", "")]
            page = found[: params["limit"]]
            result = {"items": page, "next": page[-1]["key"] if len(found) > len(page) else None}
        else:
            result = data
    request.give(200, answered(result))
