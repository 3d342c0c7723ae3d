"""Answers of the contract `aion.syscall.v1`, read strictly where it matters: what does not look like an answer is a ProtocolError."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from .errors import AionError, ProtocolError, error_class

# Not valid, not allowed, not there, or too much: refused before anything was done.
_REFUSED = frozenset((400, 401, 403, 404, 405, 409, 413, 414, 415, 422, 429, 431))

@dataclass(frozen=True)
class Usage:
    """What a call used."""

    latency_ms: int = 0
    """From the request's arrival at the kernel to its answer, in milliseconds."""
    cost_usd: float = 0.0
    """In US dollars."""
    tokens_in: int = 0
    """Tokens that a model read."""
    tokens_out: int = 0
    """Tokens that a model wrote."""
    estimated: bool = False
    """Whether the model's backend did not say so, and cost and tokens are estimated."""


@dataclass(frozen=True)
class Engine:
    """What did the work: `kind` is kernel, module or model; `name` as `tooling/web_search@1.2.0`."""

    kind: str = ""
    name: str = ""


@dataclass(frozen=True)
class Answer:
    """The answer to a call that succeeded. `audit_id` names it in the audit log."""

    result: Any
    usage: Usage = field(default_factory=Usage)
    engine: Engine = field(default_factory=Engine)
    audit_id: str = ""


def read_answer(http_status: int, body: bytes) -> Answer:
    """Reads an answer. Raises the AionError that it tells of, or ProtocolError when it is none."""
    try:
        data = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        data = None
    status = data.get("status") if isinstance(data, dict) else None
    if status not in ("ok", "denied", "error"):
        _not_an_answer(http_status)
    assert isinstance(data, dict)
    audit_id = _text(data, "audit_id")
    if status == "ok" and http_status < 300:
        usage, engine = _map(data, "usage"), _map(data, "engine")
        used = Usage(
            latency_ms=int(_number(usage, "latency_ms")),
            cost_usd=float(_number(usage, "cost_usd")),
            tokens_in=int(_number(usage, "tokens_in")),
            tokens_out=int(_number(usage, "tokens_out")),
            estimated=usage.get("estimated") is True,
        )
        return Answer(data.get("result"), used, Engine(_text(engine, "kind"), _text(engine, "name")), audit_id)
    raise read_error(_map(data, "error"), http_status, audit_id=audit_id, denied=status == "denied")


def read_error(error: Mapping[str, Any], http_status: int = 0, *, audit_id: str = "", denied: bool = False) -> AionError:
    """Reads what an answer or a stream of events says about what went wrong."""
    code = _text(error, "code") or "INTERNAL"
    wait = error.get("retry_after_ms")
    retry_after_ms = wait if isinstance(wait, int) and not isinstance(wait, bool) and wait >= 0 else None
    return error_class(code, http_status)(
        code,
        _text(error, "message") or "the kernel gives no reason",
        field=_text(error, "field"),
        rule=_text(error, "rule"),
        hint=_text(error, "hint"),
        retry_after_ms=retry_after_ms,
        audit_id=audit_id,
        http_status=http_status,
        may_have_run=not denied and _may_have_run(http_status, retry_after_ms),
    )


def _may_have_run(http_status: int, retry_after_ms: int | None) -> bool:
    # What is told to come back was not begun. A tool or a model that failed on its way is 424, and did begin.
    return http_status not in _REFUSED and not (http_status == 503 and retry_after_ms is not None)


def _not_an_answer(http_status: int) -> NoReturn:
    """Somebody else answers on this port, or something stands between."""
    message = f"what came with HTTP status {http_status} is no answer of a kernel"
    may_have_run = _may_have_run(http_status, None)
    kind: type[AionError] = ProtocolError if http_status < 400 else error_class("", http_status)
    raise kind("PROTOCOL_MISMATCH", message, http_status=http_status, may_have_run=may_have_run)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _map(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = data.get(name)
    return value if isinstance(value, dict) else {}


def _text(data: Mapping[str, Any], name: str) -> str:
    value = data.get(name)
    return value if isinstance(value, str) else ""


def _number(data: Mapping[str, Any], name: str) -> int | float:
    value = data.get(name)
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e18
    return value if good and value is not None else 0
