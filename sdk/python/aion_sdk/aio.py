"""The client for asyncio. Cancelling a call ends its connection, so that the kernel learns of it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from . import calls
from .answer import Answer, read_answer
from .client import cut
from .errors import AionError, Unavailable
from .events import AsyncEventStream
from .memory import AsyncMemoryClient
from .pool import Pool
from .retries import Deadline, Retries, within
from .settings import Secret, Settings, settings_from_env
from .wire import ResponseParser, encode_request

_READ = 1 << 16


class AsyncSyscallClient:
    """As SyscallClient, with coroutines: the same arguments, the same errors. Many calls at once each have a connection."""

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
        self.memory = AsyncMemoryClient(self)

    @classmethod
    def from_env(cls, *, agent: str | None = None, replay_protection: bool = True, **options: Any) -> AsyncSyscallClient:
        """See SyscallClient.from_env."""
        found = settings_from_env(agent=agent, replay_protection=replay_protection)
        return cls(found.url, tenant=found.tenant, secret=found.secret, agent=found.agent, replay_protection=replay_protection, **options)

    @property
    def agent_id(self) -> str:
        """The agent's address, `agent://tenant/name`."""
        return self.settings.agent_id

    async def call(
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
        """See SyscallClient.call."""
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
        return await self._send(request)

    async def tool(self, name: str, /, **arguments: Any) -> Answer:
        """See SyscallClient.tool."""
        if "tool" in arguments:
            raise TypeError("a tool has no argument named tool: it is the tool's name")
        return await self.call("tool.invoke", {"tool": name, **arguments})

    async def register(
        self,
        *,
        version: str | None = None,
        capabilities: Mapping[str, Any] | Sequence[str] | None = None,
        limits: Mapping[str, Any] | None = None,
        manifest: Mapping[str, Any] | str | None = None,
    ) -> dict[str, Any]:
        """See SyscallClient.register."""
        return _mapping(await self._send(calls.register(self.settings, version, capabilities, limits, manifest)))

    async def heartbeat(self, **fields: Any) -> dict[str, Any]:
        """A sign of life."""
        return _mapping(await self._send(calls.heartbeat(self.settings, fields)))

    async def submit_task(
        self,
        *,
        task_id: str | None = None,
        intent: str | None = None,
        priority: int | str | None = None,
        quota: Mapping[str, Any] | None = None,
        params: Any = None,
    ) -> dict[str, Any]:
        """See SyscallClient.submit_task."""
        return _mapping(await self._send(calls.submit_task(self.settings, task_id, intent, priority, quota, params)))

    def events(self, *topics: str, last_event_id: str = "", idle_timeout: float = 60.0, retries: int | None = None) -> AsyncEventStream:
        """What happens, from now on or after an event; see EventStream."""
        return AsyncEventStream(self.settings, topics, last_event_id=last_event_id, idle_timeout=idle_timeout, retries=retries)

    async def aclose(self) -> None:
        """Closes the connections that are idle."""
        self._pool.close()

    async def __aenter__(self) -> AsyncSyscallClient:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    async def _send(self, request: calls.Request) -> Answer:
        deadline = Deadline(self.timeout if request.wait_s is None else request.wait_s)
        retries = Retries(self.retries, self.max_wait, request.idempotent, deadline)
        while True:
            try:
                status, body = await self._exchange(request, deadline)
                return read_answer(status, body)
            except AionError as error:
                pause = retries.pause_after(error)
                if pause is None:
                    raise
            await asyncio.sleep(pause)

    async def _exchange(self, request: calls.Request, deadline: Deadline) -> tuple[int, bytes]:
        data = encode_request(self.settings, "POST", request.path, request.body)
        parser = ResponseParser(self.max_answer)
        sock = self._pool.take() or await connect(self.settings, deadline)
        whole = False
        try:
            sock.setblocking(False)
            failed = await _send_all(sock, data, deadline)
            await _receive(sock, parser, deadline, failed)
            whole = parser.keep_alive and failed is None
        finally:
            if whole:
                self._pool.give(sock)
            else:
                sock.close()
        return parser.status, parser.take()


async def _send_all(sock: socket.socket, data: bytes, deadline: Deadline) -> OSError | None:
    """Sends a request; what cut it short is given back, as the other side may have said why."""
    try:
        await within(deadline.left(), asyncio.get_running_loop().sock_sendall(sock, data))
    except TimeoutError:
        # The last of it may have gone out in the same moment.
        raise deadline.passed(sent=True) from None
    except OSError as error:
        return error
    return None


async def _receive(sock: socket.socket, parser: ResponseParser, deadline: Deadline, failed: OSError | None) -> None:
    loop, sent = asyncio.get_running_loop(), failed is None
    while not parser.done:
        try:
            data = await within(deadline.left(sent), loop.sock_recv(sock, _READ))
        except TimeoutError:
            raise deadline.passed(sent) from None
        except OSError as error:
            raise cut(sent) from (failed or error)
        if data:
            parser.feed(data)
        elif not parser.eof():
            raise cut(sent) from failed


async def _places(settings: Settings, deadline: Deadline) -> list[Any]:
    """Where to connect to, as getaddrinfo says it."""
    path = settings.socket_path
    if path is not None:
        return [(socket.AF_UNIX, socket.SOCK_STREAM, 0, "", path)]
    host, port = settings.host_and_port()
    return await within(deadline.left(), asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM))


async def connect(settings: Settings, deadline: Deadline) -> socket.socket:
    """A new connection. Raises Unavailable or Timeout; nothing was sent."""
    loop = asyncio.get_running_loop()
    failed: OSError | None = None
    try:
        for family, kind, protocol, _, address in await _places(settings, deadline):
            sock = socket.socket(family, kind, protocol)
            try:
                sock.setblocking(False)
                if family != socket.AF_UNIX:
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                await within(deadline.left(), loop.sock_connect(sock, address))
            except TimeoutError:
                sock.close()
                raise
            except OSError as error:
                sock.close()
                failed = error
            except BaseException:
                sock.close()
                raise
            else:
                return sock
    except TimeoutError:
        raise deadline.passed(sent=False) from None
    except OSError as error:
        failed = error
    raise Unavailable("DAEMON_UNAVAILABLE", f"cannot connect to {settings.url}: {failed}") from failed


def _mapping(answer: Answer) -> dict[str, Any]:
    return answer.result if isinstance(answer.result, dict) else {}
