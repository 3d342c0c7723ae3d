"""Connections that wait for their next request. Thread-safe. A connection is either here or with one request, never both."""

from __future__ import annotations

import os
import socket
import threading
import time

# The kernel ends what is idle for 10 seconds; a request sent into such an end would be lost.
_MAX_IDLE_S = 5.0


class Pool:
    """Keeps at most `most` idle connections, the last used first."""

    def __init__(self, most: int = 16) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._idle: list[tuple[float, socket.socket]] = []
        self._pid = os.getpid()
        self._closed = False

    def take(self) -> socket.socket | None:
        """A connection that the other side has not ended, as far as can be seen."""
        while True:
            with self._lock:
                if self._closed:
                    raise ValueError("the client is closed")
                if self._pid != os.getpid():
                    # After a fork the connections are the parent's: two processes on one would mix up their answers.
                    self._forget()
                if not self._idle:
                    return None
                since, sock = self._idle.pop()
            if time.monotonic() - since < _MAX_IDLE_S and _is_quiet(sock):
                return sock
            sock.close()

    def give(self, sock: socket.socket) -> None:
        """Takes a connection back whose last answer was read to its end."""
        with self._lock:
            if not self._closed and self._pid == os.getpid() and len(self._idle) < self._most:
                self._idle.append((time.monotonic(), sock))
                return
        sock.close()

    def close(self) -> None:
        """Closes them all, and those that come back later."""
        with self._lock:
            self._closed = True
            self._forget()

    def _forget(self) -> None:
        for _, sock in self._idle:
            sock.close()
        self._idle.clear()
        self._pid = os.getpid()


def _is_quiet(sock: socket.socket) -> bool:
    """Whether nothing has come: neither the end, nor bytes that nobody asked for."""
    try:
        sock.setblocking(False)
        sock.recv(1, socket.MSG_PEEK)
    except (BlockingIOError, InterruptedError):
        return True
    except OSError:
        pass
    return False
