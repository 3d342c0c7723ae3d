"""The client for threads. Safe to share: each request has a connection to itself, and connections are used again."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from . import calls
from .answer import Answer, read_answer
from .errors import AionError, Unavailable
from .events import EventStream
from .memory import MemoryClient
from .pool import Pool
from .retries import Deadline, Retries
from .settings import Secret, Settings, settings_from_env
from .wire import ResponseParser, encode_request

_READ = 1 << 16


class SyscallClient:
    """Asks the kernel, for one agent: over HTTP, signed with its tenant's secret, or with `unix:PATH` on the agent's own socket.

    `timeout`: seconds that a call takes at most with all its retries, unless it says otherwise. `retries`: how often a call is tried
    again that certainly had no effect. `max_wait`: seconds that it waits at most when the kernel says to come back later; what asks for
    more is raised. `max_answer`: bytes of an answer that are read.

    All calls raise AionError or one of its classes; ValueError and TypeError for arguments that cannot be sent.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8010",
        *,
        tenant: str = "",
        secret: Secret | bytes | str | None = None,
        agent: str = "",
        replay_protection: bool = True,
        timeout: float = 60.0,
        retries: int = 3,
        max_wait: float = 5.0,
        max_answer: int = 16 << 20,
    ) -> None:
        secret = secret if secret is None or isinstance(secret, Secret) else Secret(secret)
        self.settings = Settings(url, tenant, secret, agent, replay_protection)
        self.timeout = timeout
        self.retries = retries
        self.max_wait = max_wait
        self.max_answer = max_answer
        self._pool = Pool()
        self.memory = MemoryClient(self)

    @classmethod
    def from_env(cls, *, agent: str | None = None, replay_protection: bool = True, **options: Any) -> SyscallClient:
        """As the environment says, see settings_from_env; `agent` stands in for AION_AGENT. `options` as for the class.

        Raises ValueError when one is missing or wrong, OSError when the secret cannot be read.
        """
        found = settings_from_env(agent=agent, replay_protection=replay_protection)
        return cls(found.url, tenant=found.tenant, secret=found.secret, agent=found.agent, replay_protection=replay_protection, **options)

    @property
    def agent_id(self) -> str:
        """The agent's address, `agent://tenant/name`."""
        return self.settings.agent_id

    def call(
        self,
        syscall: str,
        params: Mapping[str, Any] | None = None,
        *,
        task_id: str | None = None,
        trace_id: str | None = None,
        caps_required: Sequence[str] | None = None,
        usd_max: float | None = None,
        tokens_max: int | None = None,
        latency_ms: int | None = None,
        idempotent: bool = False,
        timeout: float | None = None,
    ) -> Answer:
        """Makes a system call and gives its answer.

        `usd_max`, `tokens_max`, `latency_ms` (US dollars, tokens read and written, milliseconds) are the call's budget: the kernel begins
        nothing that can cost more, and ends what takes longer. `idempotent`: it may be made twice when its answer was lost. `timeout`:
        seconds, without it `latency_ms` and five seconds, or the client's.
        """
        request = calls.syscall(
            self.settings,
            syscall,
            params,
            task_id=task_id,
            trace_id=trace_id,
            caps_required=caps_required,
            usd_max=usd_max,
            tokens_max=tokens_max,
            latency_ms=latency_ms,
            idempotent=idempotent,
            timeout=timeout,
        )
        return self._send(request)

    def tool(self, name: str, /, **arguments: Any) -> Answer:
        """Invokes a tool with these arguments. Where a call needs a budget or a context, use `call("tool.invoke", …)`."""
        if "tool" in arguments:
            raise TypeError("a tool has no argument named tool: it is the tool's name")
        return self.call("tool.invoke", {"tool": name, **arguments})

    def register(
        self,
        *,
        version: str | None = None,
        capabilities: Mapping[str, Any] | Sequence[str] | None = None,
        limits: Mapping[str, Any] | None = None,
        manifest: Mapping[str, Any] | str | None = None,
    ) -> dict[str, Any]:
        """Registers this agent, with a manifest (as agent.yml) or with what one is made of. One that is there with the same is
        left as it is; with another it is an AionError, NAME_TAKEN."""
        return _mapping(self._send(calls.register(self.settings, version, capabilities, limits, manifest)))

    def heartbeat(self, **fields: Any) -> dict[str, Any]:
        """A sign of life."""
        return _mapping(self._send(calls.heartbeat(self.settings, fields)))

    def submit_task(
        self,
        *,
        task_id: str | None = None,
        intent: str | None = None,
        priority: int | str | None = None,
        quota: Mapping[str, Any] | None = None,
        params: Any = None,
    ) -> dict[str, Any]:
        """Submits a task for this agent. It is not sent again when its answer is lost; a `task_id` of one's own shows whether it is there."""
        return _mapping(self._send(calls.submit_task(self.settings, task_id, intent, priority, quota, params)))

    def events(self, *topics: str, last_event_id: str = "", idle_timeout: float = 60.0, retries: int | None = None) -> EventStream:
        """What happens, from now on or after an event; see EventStream."""
        return EventStream(self.settings, topics, last_event_id=last_event_id, idle_timeout=idle_timeout, retries=retries)

    def close(self) -> None:
        """Closes the connections that are idle. Calls under way come to their end; new ones raise ValueError."""
        self._pool.close()

    def __enter__(self) -> SyscallClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _send(self, request: calls.Request) -> Answer:
        deadline = Deadline(self.timeout if request.wait_s is None else request.wait_s)
        retries = Retries(self.retries, self.max_wait, request.idempotent, deadline)
        while True:
            try:
                status, body = self._exchange(request, deadline)
                return read_answer(status, body)
            except AionError as error:
                pause = retries.pause_after(error)
                if pause is None:
                    raise
            time.sleep(pause)

    def _exchange(self, request: calls.Request, deadline: Deadline) -> tuple[int, bytes]:
        # Signed for each try anew: a nonce is good for once.
        data = encode_request(self.settings, "POST", request.path, request.body)
        parser = ResponseParser(self.max_answer)
        sock = self._pool.take() or connect(self.settings, deadline)
        whole = False
        try:
            try:
                sock.settimeout(deadline.left())
                # Whole or not at all: what did not get through whole is never carried out.
                sock.sendall(data)
                failed = None
            except OSError as error:
                failed = error
            receive(sock, parser, deadline, failed)
            whole = parser.keep_alive and failed is None
        finally:
            if whole:
                self._pool.give(sock)
            else:
                sock.close()
        return parser.status, parser.take()


def connect(settings: Settings, deadline: Deadline) -> socket.socket:
    """A new connection. Raises Unavailable or Timeout; nothing was sent."""
    path = settings.socket_path
    try:
        if path is not None:
            return _connect_own(path, deadline)
        sock = socket.create_connection(settings.host_and_port(), timeout=deadline.left())
    except TimeoutError:
        raise deadline.passed(sent=False) from None
    except OSError as error:
        raise Unavailable("DAEMON_UNAVAILABLE", f"cannot connect to {settings.url}: {error}") from error
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _connect_own(path: str, deadline: Deadline) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(deadline.left())
        sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return sock


def receive(sock: socket.socket, parser: ResponseParser, deadline: Deadline, failed: OSError | None) -> None:
    """Reads until the answer is whole. `failed`: sending was cut short, but the other side may have said why."""
    sent = failed is None
    while not parser.done:
        try:
            sock.settimeout(deadline.left(sent))
            data = sock.recv(_READ)
        except TimeoutError:
            raise deadline.passed(sent) from None
        except OSError as error:
            raise cut(sent) from (failed or error)
        if data:
            parser.feed(data)
        elif not parser.eof():
            raise cut(sent) from failed


def cut(sent: bool) -> Unavailable:
    """The connection broke; `sent`: the request had gone out whole."""
    return Unavailable("DAEMON_UNAVAILABLE", "the connection broke before the whole answer had come", may_have_run=sent)


def _mapping(answer: Answer) -> dict[str, Any]:
    return answer.result if isinstance(answer.result, dict) else {}


