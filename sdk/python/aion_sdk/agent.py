"""An agent with hooks: it registers, gives signs of life, and works on tasks where AION gives it some.

    class Counter(Agent):
        def on_task(self, task):
            state = json.loads(task.checkpoint or b'{"n": 0}')
            ...
            self.yield_point(task)      # here it can make room

    Counter.from_env().run()
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol, TypeVar

from .client import SyscallClient
from .errors import AionError

log = logging.getLogger("aion_sdk")

_A = TypeVar("_A", bound="Agent")
# A sign of life that is under way at the end is not waited for longer, in seconds.
_LAST_HEARTBEAT_S = 5.0


class Task(Protocol):
    """What on_task gets: a task of aion_runtime."""

    id: str
    intent: str
    params: Any
    number: int
    trace_id: str
    deadline: datetime | None
    checkpoint: bytes | None
    cancelled: bool

    @property
    def must_yield(self) -> bool: ...
    @property
    def grace(self) -> float: ...
    @property
    def checkpoint_wanted(self) -> bool: ...
    def wait(self, seconds: float) -> bool: ...
    def check(self) -> None: ...
    def save(self, checkpoint: bytes) -> None: ...
    def progress(self, fraction: float, note: str = "") -> None: ...
    def used(self, tokens: int = 0, usd: float = 0.0) -> None: ...


class Agent:
    """Derive from it, and override the hooks that are needed.

    `client`: for system calls; None where the environment names neither a secret nor a socket, and then it neither registers nor gives signs
    of life. On the agent's own socket it is registered already.
    `heartbeat_s`: seconds between two of them. `version`, `capabilities`, `limits`, `manifest`: what it registers with, unless it is there
    already; `register=False` leaves that out. `concurrency`: tasks at once; 0: as its manifest says.
    """

    def __init__(
        self,
        client: SyscallClient | None = None,
        *,
        register: bool = True,
        version: str | None = None,
        capabilities: Mapping[str, Any] | Sequence[str] | None = None,
        limits: Mapping[str, Any] | None = None,
        manifest: Mapping[str, Any] | str | None = None,
        heartbeat_s: float = 10.0,
        concurrency: int = 0,
    ) -> None:
        if not heartbeat_s > 0:
            raise ValueError("heartbeat_s is more than 0 seconds")
        self._client = client
        self._register = register
        self._about: dict[str, Any] = {"version": version, "capabilities": capabilities, "limits": limits, "manifest": manifest}
        self._heartbeat_s = heartbeat_s
        self._concurrency = concurrency
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._runtime: Any = None

    @classmethod
    def from_env(cls: type[_A], **options: Any) -> _A:
        """With a client as the environment says, or without one where neither AION_SECRET_FILE nor AION_RUNTIME_SOCKET is set. `options` as
        for the class."""
        found = os.environ.get("AION_SECRET_FILE") or os.environ.get("AION_RUNTIME_SOCKET")
        client = SyscallClient.from_env() if found else None
        return cls(client, **options)

    @property
    def client(self) -> SyscallClient:
        """The client. Raises RuntimeError when there is none."""
        if self._client is None:
            raise RuntimeError("this agent has no client: neither AION_SECRET_FILE nor AION_RUNTIME_SOCKET is set")
        return self._client

    # The hooks.

    def on_start(self) -> None:
        """Before the first task, after it has registered. What it raises ends run, after on_stop."""

    def on_task(self, task: Task) -> Any:
        """Works on a task, in a thread of its own; gives the result (JSON). What it raises is the task's failure."""
        raise NotImplementedError("this agent works on no tasks")

    def on_checkpoint(self, task: Task) -> bytes | None:
        """What the task can go on from later: called by yield_point, in the task's thread. None: from the last that was saved."""
        return None

    def on_stop(self) -> None:
        """At the end, whatever ended it."""

    def yield_point(self, task: Task) -> None:
        """A place where a task can be interrupted; call it often. Saves a checkpoint when AION wants one; leaves the task, by raising what
        on_task must let through, when it has to make room or nobody wants it any more."""
        if task.cancelled:
            task.check()
        if task.must_yield:
            raise importlib.import_module("aion_runtime").Yield(self.on_checkpoint(task))
        if task.checkpoint_wanted:
            state = self.on_checkpoint(task)
            if state is not None:
                task.save(state)

    # Its life.

    def run(self) -> None:
        """Runs until stop, SIGTERM or SIGINT. Works on tasks where AION_RUNTIME_SOCKET is set and AION_SERVES_TASKS is not 0, else waits.

        Raises AionError when it cannot register.
        """
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: self.stop())
        heart: threading.Thread | None = None
        try:
            if self._client is not None:
                if self._register and self._client.settings.secret is not None:
                    self._client.register(**self._about)
                heart = threading.Thread(target=self._beat, args=(self._client,), name="aion heartbeat", daemon=True)
                heart.start()
            self.on_start()
            socket = os.environ.get("AION_RUNTIME_SOCKET")
            if socket and os.environ.get("AION_SERVES_TASKS") != "0":
                self._serve(socket)
            self._stopping.wait()
        finally:
            self._stopping.set()
            try:
                self.on_stop()
            finally:
                if heart is not None:
                    heart.join(_LAST_HEARTBEAT_S)

    def stop(self) -> None:
        """Ends run; tasks are asked to make room first. From any thread, also from a signal handler."""
        # A handler runs in the main thread, which may hold any lock: so a thread of its own takes it.
        threading.Thread(target=self._stop, name="aion stop", daemon=True).start()

    def _stop(self) -> None:
        with self._lock:
            runtime = self._runtime
            self._stopping.set()
        if runtime is not None:
            runtime.stop()

    def _serve(self, socket: str) -> None:
        runtime = importlib.import_module("aion_runtime").Client(self.on_task, self._concurrency, socket)
        with self._lock:
            if self._stopping.is_set():
                return
            self._runtime = runtime
        runtime.run()

    def _beat(self, client: SyscallClient) -> None:
        while True:
            try:
                client.heartbeat()
            except AionError as error:
                log.warning("no heartbeat: %s", error)
            if self._stopping.wait(self._heartbeat_s):
                return
