"""What is sent for each call, the same for both clients."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import AionError
from .settings import Settings

MAX_BODY = 4 << 20
_NAME = re.compile(r"[a-z0-9_]+(?:\.[a-z0-9_]+)+")


@dataclass(frozen=True)
class Request:
    """A request before it is signed. `idempotent`: doing it twice is as good as once. `wait_s`: how long its answer may take, in seconds."""

    path: str
    body: bytes
    idempotent: bool = False
    wait_s: float | None = None


def _body(data: Mapping[str, Any]) -> bytes:
    body = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    if len(body) > MAX_BODY:
        raise AionError("TOO_LARGE", f"the request has {len(body)} bytes, a kernel reads {MAX_BODY}", field="body")
    return body


def _who(settings: Settings) -> dict[str, Any]:
    """Whose call it is; on an agent's own socket the socket says it."""
    return {"agent_id": settings.agent_id} if settings.agent_id else {}


def syscall(
    settings: Settings,
    name: str,
    params: Mapping[str, Any] | None,
    *,
    task_id: str | None = None,
    trace_id: str | None = None,
    caps_required: Sequence[str] | None = None,
    usd_max: float | None = None,
    tokens_max: int | None = None,
    latency_ms: int | None = None,
    idempotent: bool = False,
    timeout: float | None = None,
) -> Request:
    """A call of the contract `aion.syscall.v1`."""
    if len(name) > 64 or not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not the name of a system call; write it as tool.invoke")
    context = {"task_id": task_id, "trace_id": trace_id}
    budget = {"usd_max": usd_max, "tokens_max": tokens_max, "latency_ms": latency_ms}
    data: dict[str, Any] = {
        "schema": "aion.syscall.v1",
        "syscall": name,
        **_who(settings),
        "context": {key: value for key, value in context.items() if value is not None},
        "params": dict(params or {}),
    }
    if caps_required is not None:
        if isinstance(caps_required, str):
            raise TypeError("caps_required is a list of names")
        data["caps_required"] = list(caps_required)
    if any(value is not None for value in budget.values()):
        data["budget"] = {key: value for key, value in budget.items() if value is not None}
    if timeout is None and latency_ms is not None:
        # The kernel ends the call itself, and says so; only when it is gone is it ended here.
        timeout = latency_ms / 1000 + 5.0
    return Request(f"/v1/syscall/{name}", _body(data), idempotent, timeout)


def register(
    settings: Settings,
    version: str | None,
    capabilities: Mapping[str, Any] | Sequence[str] | None,
    limits: Mapping[str, Any] | None,
    manifest: Mapping[str, Any] | str | None,
) -> Request:
    data: dict[str, Any] = {**_who(settings), "name": settings.agent_name}
    more = {"version": version, "capabilities": capabilities, "limits": limits, "manifest": manifest}
    data.update({key: value for key, value in more.items() if value is not None})
    # An agent that is there with the same manifest is left as it is.
    return Request("/v1/agent/register", _body(data), idempotent=True)


def heartbeat(settings: Settings, fields: Mapping[str, Any]) -> Request:
    body = _body({**_who(settings), **fields})
    # Late it tells nothing; the next one does.
    return Request("/v1/agent/heartbeat", body, idempotent=True, wait_s=10.0)


def submit_task(
    settings: Settings,
    task_id: str | None,
    intent: str | None,
    priority: int | str | None,
    quota: Mapping[str, Any] | None,
    params: Any,
) -> Request:
    data: dict[str, Any] = _who(settings)
    more = {"task_id": task_id, "intent": intent, "priority": priority, "quota": quota, "params": params}
    data.update({key: value for key, value in more.items() if value is not None})
    return Request("/v1/schedule/submit", _body(data))
