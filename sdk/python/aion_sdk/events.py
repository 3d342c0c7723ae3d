"""What happens in the kernel, as Server-Sent Events: a stream that goes on after a break from the event that was read last."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import quote

from .answer import read_answer, read_error
from .errors import AionError, ProtocolError, RateLimited, Timeout, Unavailable
from .retries import Deadline, within
from .settings import Settings
from .wire import ResponseParser, encode_request

MAX_EVENT = 1 << 20
_READ = 1 << 16
_CONNECT_S = 10.0
_BACKOFF = (0.1, 5.0)
_MAX_WAIT_S = 60.0


@dataclass(frozen=True)
class Event:
    """One event. `data` is what its JSON says, or the text when it is none. `id` is where a later stream goes on from."""

    id: str
    topic: str
    data: Any


class EventParser:
    """Reads text/event-stream. `retry_ms`: how long the other side asks to wait before a new stream, in milliseconds."""

    def __init__(self, last_event_id: str = "") -> None:
        self.retry_ms: int | None = None
        self._id = last_event_id
        self._topic = ""
        self._data: list[str] = []
        self._size = 0
        self._buffer = b""
        self._after_cr = False
        self._first = True

    def feed(self, data: bytes) -> list[Event]:
        """The events that are whole now. Raises ProtocolError for one that is too large."""
        if self._after_cr and data[:1] == b"\n":
            data, self._after_cr = data[1:], False
        if not data:
            return []
        self._after_cr = data.endswith(b"\r")
        *lines, self._buffer = (self._buffer + data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")).split(b"\n")
        events = []
        for line in lines:
            event = self._line(line)
            if event is not None:
                events.append(event)
        if self._size + len(self._buffer) > MAX_EVENT:
            raise _too_large()
        return events

    def _line(self, raw: bytes) -> Event | None:
        if self._first:
            self._first, raw = False, raw.removeprefix(b"\xef\xbb\xbf")
        if not raw:
            return self._dispatch()
        self._size += len(raw) + 1
        if self._size > MAX_EVENT:
            raise _too_large()
        name, _, value = raw.decode("utf-8", "replace").partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._topic = value
        elif name == "id" and value.isprintable():
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry_ms = int(value[:9])
        return None

    def _dispatch(self) -> Event | None:
        text, topic, had_data = "\n".join(self._data), self._topic or "message", bool(self._data)
        self._data, self._topic, self._size = [], "", 0
        if not had_data:
            return None
        try:
            data = json.loads(text)
        except (ValueError, RecursionError):
            data = text
        return Event(self._id, topic, data)


def _too_large() -> ProtocolError:
    return ProtocolError("TOO_LARGE", f"an event is larger than {MAX_EVENT} bytes")


class _Feed:
    """The stream without its socket: what is asked, what has come, and how long to wait after a break."""

    def __init__(self, settings: Settings, topics: Sequence[str], last_event_id: str, idle_timeout: float, retries: int | None) -> None:
        if not topics or not all(topics):
            raise ValueError("name the topics, as kernel.syscalls")
        if not idle_timeout > 0:
            raise ValueError("idle_timeout is more than 0 seconds")
        self.settings = settings
        self.last_event_id = last_event_id
        self.idle_timeout = idle_timeout
        self.ready: deque[Event] = deque()
        self.ended = False
        self.broke: AionError | None = None
        self._path = "/v1/events/stream?topics=" + ",".join(quote(topic, safe="*") for topic in topics)
        self._retries = retries
        self._failed = 0
        self._retry_ms: int | None = None
        self._response = ResponseParser(MAX_EVENT)
        self._events: EventParser | None = None

    def request(self) -> bytes:
        """A new stream's request."""
        self._response, self._events = ResponseParser(MAX_EVENT), None
        more = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if self.last_event_id:
            more["Last-Event-ID"] = self.last_event_id
        return encode_request(self.settings, "GET", self._path, b"", more)

    def take(self, data: bytes) -> None:
        """Takes bytes in; none: the connection ended. Raises what ends this stream, or all of them."""
        response = self._response
        if data:
            response.feed(data)
        else:
            response.eof()
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if response.status == 204:
            self.ended = True
        elif response.status == 200 and kind == "text/event-stream":
            self._take_events(response.take())
        elif response.status and response.done:
            read_answer(response.status, response.take())
            raise ProtocolError("PROTOCOL_MISMATCH", "what came is no stream of events", http_status=response.status)
        if not self.ended and (response.done or not data):
            raise Unavailable("DAEMON_UNAVAILABLE", "the stream of events ended")

    def _take_events(self, data: bytes) -> None:
        if self._events is None:
            self._events = EventParser(self.last_event_id)
        events = self._events.feed(data)
        if self._events.retry_ms is not None:
            self._retry_ms = self._events.retry_ms
        for event in events:
            if event.topic == "error":
                # The last word of a stream; what it is about is no event.
                raise read_error(event.data if isinstance(event.data, dict) else {})
            self._failed = 0
            self.ready.append(event)

    def next(self) -> Event | None:
        """The next event that has come."""
        if not self.ready:
            return None
        event = self.ready.popleft()
        self.last_event_id = event.id
        return event

    def pause_after_break(self) -> float:
        """Seconds until the next stream, once all that came before the break is read. Raises what broke it when there is none."""
        error, self.broke = self.broke, None
        return 0.0 if error is None else self._pause_after(error)

    def _pause_after(self, error: AionError) -> float:
        if not isinstance(error, (Unavailable, RateLimited, Timeout)):
            raise error
        self._failed += 1
        if self._retries is not None and self._failed > self._retries:
            raise error
        if error.retry_after_ms is not None:
            return min(error.retry_after_ms / 1000, _MAX_WAIT_S)
        if self._retry_ms is not None:
            return min(self._retry_ms / 1000, _MAX_WAIT_S)
        most = min(_BACKOFF[0] * float(2 ** min(self._failed, 10)), _BACKOFF[1])
        return most * (0.5 + random.random() / 2)

    def quiet(self) -> Unavailable:
        """The error when nothing has come for too long."""
        return Unavailable("DAEMON_UNAVAILABLE", f"nothing has come for {self.idle_timeout:g} s")


class EventStream:
    """Events of some topics (kernel.syscalls, kernel.scheduler, kernel.gc), for one thread to iterate over.

    A stream that breaks, or on which nothing comes for `idle_timeout` seconds, is opened again after the event that was read last.
    `retries`: how often in a row without an event in between; None: for ever. Raises what no new stream would help against: Denied,
    Unauthenticated, and AionError with CURSOR_EXPIRED when the kernel has forgotten that event. Any thread may `close`.
    """

    def __init__(
        self, settings: Settings, topics: Sequence[str], *, last_event_id: str = "", idle_timeout: float = 60.0, retries: int | None = None
    ) -> None:
        self._feed = _Feed(settings, topics, last_event_id, idle_timeout, retries)
        self._sock: socket.socket | None = None
        self._stop = threading.Event()

    @property
    def last_event_id(self) -> str:
        """The id of the event that was read last."""
        return self._feed.last_event_id

    def __iter__(self) -> EventStream:
        return self

    def __next__(self) -> Event:
        while not self._stop.is_set():
            event = self._feed.next()
            if event is not None:
                return event
            if self._feed.broke is not None:
                self._stop.wait(self._feed.pause_after_break())
                continue
            if self._feed.ended:
                break
            try:
                self._read()
            except AionError as error:
                self._drop()
                self._feed.broke = error
        self._drop()
        raise StopIteration

    def close(self) -> None:
        """Ends it, also for a thread that waits in it."""
        self._stop.set()
        sock = self._sock
        if sock is not None:
            # It may have ended by itself.
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> EventStream:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
        self._drop()

    def _read(self) -> None:
        from .client import connect

        try:
            if self._sock is None:
                self._sock = connect(self._feed.settings, Deadline(_CONNECT_S))
                self._sock.settimeout(self._feed.idle_timeout)
                try:
                    self._sock.sendall(self._feed.request())
                except BaseException:
                    # Half a request is never answered.
                    self._drop()
                    raise
            if self._stop.is_set():
                return
            data = self._sock.recv(_READ)
        except TimeoutError:
            raise self._feed.quiet() from None
        except OSError as error:
            raise Unavailable("DAEMON_UNAVAILABLE", f"the stream of events broke: {error}") from error
        self._feed.take(data)

    def _drop(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None


class AsyncEventStream:
    """As EventStream, for `async for`. Cancelling the task that waits in it is safe; `aclose` ends it."""

    def __init__(
        self, settings: Settings, topics: Sequence[str], *, last_event_id: str = "", idle_timeout: float = 60.0, retries: int | None = None
    ) -> None:
        self._feed = _Feed(settings, topics, last_event_id, idle_timeout, retries)
        self._sock: socket.socket | None = None
        self._stop = asyncio.Event()
        self._reading = False

    @property
    def last_event_id(self) -> str:
        """The id of the event that was read last."""
        return self._feed.last_event_id

    def __aiter__(self) -> AsyncEventStream:
        return self

    async def __anext__(self) -> Event:
        self._reading = True
        whole = False
        try:
            event = await self._next()
            whole = True
        finally:
            self._reading = False
            # Cancelled in the middle, nobody knows what was read: the next stream goes on after the last event.
            if not whole:
                self._drop()
        if event is None:
            self._drop()
            raise StopAsyncIteration
        return event

    async def _next(self) -> Event | None:
        while not self._stop.is_set():
            event = self._feed.next()
            if event is not None or self._feed.ended:
                return event
            if self._feed.broke is not None:
                pause = self._feed.pause_after_break()
                with contextlib.suppress(TimeoutError):
                    await within(pause, self._stop.wait())
                continue
            try:
                await self._read()
            except AionError as error:
                self._drop()
                self._feed.broke = error
        return None

    async def aclose(self) -> None:
        """Ends it; a task that waits in it goes on at once."""
        self._stop.set()
        if self._sock is not None:
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)
        if not self._reading:
            self._drop()

    async def __aenter__(self) -> AsyncEventStream:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    async def _read(self) -> None:
        from .aio import connect

        loop = asyncio.get_running_loop()
        try:
            if self._sock is None:
                sock = await connect(self._feed.settings, Deadline(_CONNECT_S))
                try:
                    await within(_CONNECT_S, loop.sock_sendall(sock, self._feed.request()))
                except BaseException:
                    sock.close()
                    raise
                self._sock = sock
            if self._stop.is_set():
                return
            data = await within(self._feed.idle_timeout, loop.sock_recv(self._sock, _READ))
        except TimeoutError:
            raise self._feed.quiet() from None
        except OSError as error:
            raise Unavailable("DAEMON_UNAVAILABLE", f"the stream of events broke: {error}") from error
        self._feed.take(data)

    def _drop(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None
