"""An agent's memories, for both clients."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from .answer import Answer
from .errors import ProtocolError

if TYPE_CHECKING:
    from .aio import AsyncSyscallClient
    from .client import SyscallClient

MemoryType = Literal["short", "long", "episodic"]


@dataclass(frozen=True)
class Memory:
    """One memory. `created_ns`: nanoseconds since 1970."""

    key: str
    type: str
    value: Any
    meta: Mapping[str, Any] = field(default_factory=dict)
    created_ns: int = 0


@dataclass(frozen=True)
class Page:
    """Some memories, in the order of their keys; `next` is what `after` is for the page that follows, None at the end."""

    items: list[Memory]
    next: str | None


def _put(key: str, value: Any, type: MemoryType, meta: Mapping[str, Any] | None, ttl_s: int | None) -> dict[str, Any]:
    params: dict[str, Any] = {"type": type, "key": key, "value": value}
    if meta is not None:
        params["meta"] = dict(meta)
    if ttl_s is not None:
        params["ttl_s"] = ttl_s
    return params


def _query(type: MemoryType, filter: Mapping[str, Any] | None, limit: int, after: str | None) -> dict[str, Any]:
    params: dict[str, Any] = {"type": type, "limit": limit}
    if filter is not None:
        params["filter"] = dict(filter)
    if after is not None:
        params["after"] = after
    return params


def _ttl(answer: Answer) -> int:
    ttl_s = _object(answer).get("ttl_s")
    return ttl_s if isinstance(ttl_s, int) else 0


def _object(answer: Answer) -> dict[str, Any]:
    if not isinstance(answer.result, dict):
        raise _wrong(answer)
    return answer.result


def _wrong(answer: Answer) -> ProtocolError:
    return ProtocolError("PROTOCOL_MISMATCH", "the result is none of a memory", audit_id=answer.audit_id, may_have_run=True)


def _memory(answer: Answer, item: Any) -> Memory:
    if not isinstance(item, dict) or not isinstance(item.get("key"), str):
        raise _wrong(answer)
    meta, created = item.get("meta"), item.get("created_ns")
    kind = str(item.get("type") or "short")
    return Memory(item["key"], kind, item.get("value"), meta if isinstance(meta, dict) else {}, created if isinstance(created, int) else 0)


def _page(answer: Answer, after: str | None) -> Page:
    result = _object(answer)
    items, following = result.get("items"), result.get("next")
    if not isinstance(items, list) or not (following is None or isinstance(following, str)) or (following is not None and following == after):
        raise _wrong(answer)
    return Page([_memory(answer, item) for item in items], following)


class MemoryClient:
    """The memories of the client's agent. Each call is a system call of its own, checked and recorded as any other."""

    def __init__(self, client: SyscallClient) -> None:
        self._client = client

    def put(
        self,
        key: str,
        value: Any,
        *,
        type: MemoryType = "short",
        meta: Mapping[str, Any] | None = None,
        ttl_s: int | None = None,
        idempotent: bool = False,
    ) -> int:
        """Keeps a value (JSON) under a key (1 to 512 bytes), and gives for how many seconds.

        `ttl_s`: seconds, at most what the agent's manifest has for the type, which is the default. `idempotent`: it is put again when the
        answer was lost, even if somebody else has put something in the meantime.
        """
        return _ttl(self._client.call("memory.put", _put(key, value, type, meta, ttl_s), idempotent=idempotent))

    def get(self, key: str, *, type: MemoryType = "short") -> Memory:
        """The memory of a key. Raises NotFound (KEY_NOT_FOUND) when there is none, or its time is over."""
        answer = self._client.call("memory.get", {"type": type, "key": key}, idempotent=True)
        return _memory(answer, answer.result)

    def delete(self, key: str, *, type: MemoryType = "short", idempotent: bool = False) -> None:
        """Forgets a key. There need not be one."""
        self._client.call("memory.delete", {"type": type, "key": key}, idempotent=idempotent)

    def page(self, type: MemoryType = "short", *, filter: Mapping[str, Any] | None = None, limit: int = 100, after: str | None = None) -> Page:
        """At most `limit` (1 to 1000) memories whose meta data has all that `filter` names; `key_prefix` in it is of the key."""
        return _page(self._client.call("memory.query", _query(type, filter, limit, after), idempotent=True), after)

    def query(self, type: MemoryType = "short", *, filter: Mapping[str, Any] | None = None, page_size: int = 100) -> Iterator[Memory]:
        """All of them, a page at a time."""
        after: str | None = None
        while True:
            page = self.page(type, filter=filter, limit=page_size, after=after)
            yield from page.items
            if page.next is None:
                return
            after = page.next


class AsyncMemoryClient:
    """As MemoryClient, for asyncio."""

    def __init__(self, client: AsyncSyscallClient) -> None:
        self._client = client

    async def put(
        self,
        key: str,
        value: Any,
        *,
        type: MemoryType = "short",
        meta: Mapping[str, Any] | None = None,
        ttl_s: int | None = None,
        idempotent: bool = False,
    ) -> int:
        """See MemoryClient.put."""
        return _ttl(await self._client.call("memory.put", _put(key, value, type, meta, ttl_s), idempotent=idempotent))

    async def get(self, key: str, *, type: MemoryType = "short") -> Memory:
        """See MemoryClient.get."""
        answer = await self._client.call("memory.get", {"type": type, "key": key}, idempotent=True)
        return _memory(answer, answer.result)

    async def delete(self, key: str, *, type: MemoryType = "short", idempotent: bool = False) -> None:
        """See MemoryClient.delete."""
        await self._client.call("memory.delete", {"type": type, "key": key}, idempotent=idempotent)

    async def page(
        self, type: MemoryType = "short", *, filter: Mapping[str, Any] | None = None, limit: int = 100, after: str | None = None
    ) -> Page:
        """See MemoryClient.page."""
        return _page(await self._client.call("memory.query", _query(type, filter, limit, after), idempotent=True), after)

    async def query(
        self, type: MemoryType = "short", *, filter: Mapping[str, Any] | None = None, page_size: int = 100
    ) -> AsyncIterator[Memory]:
        """See MemoryClient.query."""
        after: str | None = None
        while True:
            page = await self.page(type, filter=filter, limit=page_size, after=after)
            for item in page.items:
                yield item
            if page.next is None:
                return
            after = page.next
