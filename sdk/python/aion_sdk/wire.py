"""HTTP/1.1 without a socket: what is sent, signed, and how what comes is read. Both clients use it, so that it is right once.

An answer may come in pieces of any size, with a length, in chunks, or up to the end of the connection. Everything is bounded.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Mapping

from .errors import ProtocolError
from .settings import Settings

MAX_HEAD = 1 << 16
_MAX_CHUNK_LINE = 1 << 10
_STATUS = re.compile(r"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [^\r\n]*)?")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LENGTH = re.compile(r"[0-9]{1,18}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?", re.DOTALL)


def signed_headers(settings: Settings, method: str, path: str, body: bytes) -> dict[str, str]:
    """The headers that say who calls. `path` is as it stands in the request, with its query. Each time with another nonce.

    On an agent's own socket there are none."""
    if settings.secret is None:
        return {}
    headers = {"X-Tenant-Id": settings.tenant}
    if not settings.replay_protection:
        return {**headers, "X-Sig-HMAC": settings.secret.sign(body)}
    timestamp, nonce = str(time.time_ns() // 1_000_000), secrets.token_hex(16)
    head = f"{timestamp}\n{nonce}\n{method}\n{path}\n".encode()
    return {**headers, "X-Timestamp": timestamp, "X-Nonce": nonce, "X-Sig-HMAC": settings.secret.sign(head + body)}


def encode_request(settings: Settings, method: str, path: str, body: bytes, more: Mapping[str, str] | None = None) -> bytes:
    """A whole request, signed now."""
    headers = {"Host": _host(settings), "Accept": "application/json"}
    headers.update(signed_headers(settings, method, path, body))
    if method == "POST":
        headers.update({"Content-Type": "application/json", "Content-Length": str(len(body))})
    headers.update(more or {})
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    if any(ord(c) < 0x20 or ord(c) == 0x7F for line in lines for c in line):
        raise ValueError("a header holds a control character")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def _host(settings: Settings) -> str:
    if settings.socket_path is not None:
        return "localhost"
    host, port = settings.host_and_port()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class ResponseParser:
    """Reads one answer from the bytes of a connection.

    `status` is 0 until the head has come. `body` holds at most `max_body` bytes; who reads a stream takes them out with `take`.
    """

    def __init__(self, max_body: int) -> None:
        self.max_body = max_body
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.done = False
        self.keep_alive = False
        self.started = False
        self._buffer = bytearray()
        self._stage = "head"
        self._left = 0

    def feed(self, data: bytes) -> None:
        """Takes bytes in. Raises ProtocolError for what is not HTTP, or too large."""
        self.started = self.started or bool(data)
        self._buffer += data
        while not self.done and self._step():
            pass
        if self.done and self._buffer:
            # Nobody asked for that: the connection is not to be trusted with another request.
            self.keep_alive = False

    def eof(self) -> bool:
        """The connection ended; whether the answer is whole."""
        if self._stage == "until the end":
            self.done = True
        self.keep_alive = False
        return self.done

    def take(self) -> bytes:
        """The body's bytes so far, which are forgotten."""
        data = bytes(self.body)
        self.body.clear()
        return data

    def _step(self) -> bool:
        """One step; False when more bytes are needed."""
        if self._stage == "head":
            return self._head()
        if self._stage == "until the end":
            self._keep(len(self._buffer))
            return False
        if self._stage in ("length", "chunk"):
            if not self._buffer and self._left:
                return False
            self._left -= self._keep(min(self._left, len(self._buffer)))
            if self._left:
                return False
            if self._stage == "length":
                self.done = True
            else:
                self._stage = "chunk end"
            return True
        line = self._line()
        if line is None:
            return False
        if self._stage == "chunk end":
            if line:
                raise _garbled("a chunk does not end where it should")
            self._stage = "chunk line"
        elif self._stage == "chunk line":
            found = _CHUNK.fullmatch(line)
            if not found:
                raise _garbled("the size of a chunk is no number")
            self._left = int(found[1], 16)
            self._stage = "chunk" if self._left else "trailer"
        elif not line:
            self.done = True
        else:
            self._left += len(line)
            if self._left > MAX_HEAD:
                raise _garbled("the trailer is too long")
        return True

    def _line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n", 0, _MAX_CHUNK_LINE)
        if end < 0:
            if len(self._buffer) >= _MAX_CHUNK_LINE:
                raise _garbled("a line between chunks is too long")
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _keep(self, count: int) -> int:
        if len(self.body) + count > self.max_body:
            message = f"the answer is larger than {self.max_body} bytes"
            raise ProtocolError("TOO_LARGE", message, http_status=self.status, may_have_run=True)
        self.body += self._buffer[:count]
        del self._buffer[:count]
        return count

    def _head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n", 0, MAX_HEAD)
        if end < 0:
            if len(self._buffer) >= MAX_HEAD:
                raise _garbled("the head is too long")
            if self._buffer and not b"HTTP/1.".startswith(bytes(self._buffer[:7])):
                raise _garbled("it does not begin as HTTP/1 does")
            return False
        status_line, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        found = _STATUS.fullmatch(status_line)
        if not found:
            raise _garbled("the status line is wrong")
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(":")
            name, value = name.lower(), value.strip(" \t")
            if not colon or not _TOKEN.fullmatch(name):
                raise _garbled("a header is wrong")
            if name in ("content-length", "transfer-encoding") and headers.get(name, value) != value:
                raise _garbled(f"two different headers {name}")
            headers[name] = value
        status = int(found[2])
        if status < 200:
            # An interim answer; the real one follows.
            if status == 101:
                raise _garbled("it changes to another protocol")
            return True
        self.status, self.headers = status, headers
        self._body_follows(found[1] == "0")
        return True

    def _body_follows(self, old: bool) -> None:
        connection = {word.strip() for word in self.headers.get("connection", "").lower().split(",")}
        self.keep_alive = not old and "close" not in connection
        coding, length = self.headers.get("transfer-encoding"), self.headers.get("content-length")
        if self.headers.get("content-encoding", "identity").lower() != "identity":
            raise _garbled("the body is compressed, and nobody asked for that")
        if self.status in (204, 304):
            self.done = True
        elif coding is not None:
            if coding.lower() != "chunked" or length is not None:
                raise _garbled("how long the body is cannot be told")
            self._stage = "chunk line"
        elif length is not None:
            if not _LENGTH.fullmatch(length):
                raise _garbled("Content-Length is no number")
            self._left, self._stage = int(length), "length"
        else:
            self.keep_alive, self._stage = False, "until the end"


def _garbled(why: str) -> ProtocolError:
    return ProtocolError("PROTOCOL_MISMATCH", f"what came is no answer of a kernel: {why}", may_have_run=True)
