"""What goes wrong, as exceptions: one class for each thing that a caller handles in its own way.

The codes are AION's stable ones (docs/errors). What this side finds out by itself has codes of the same list.
"""

from __future__ import annotations

__all__ = [
    "AionError",
    "BudgetExceeded",
    "Denied",
    "NotFound",
    "ProtocolError",
    "RateLimited",
    "Timeout",
    "Unauthenticated",
    "Unavailable",
    "error_class",
]


class AionError(Exception):
    """A call that did not succeed.

    `code` is stable, `message` is for people. `field`, `rule` and `hint` may be empty: the field of the request that it is about, the
    rule that decided, what to do. `retry_after_ms`: milliseconds until it may be tried again, or None. `audit_id` names the call in the
    audit log (`aionctl explain`); empty when the kernel never saw it. `may_have_run`: whether the call may have had an effect all the
    same. `http_status`: 0 when no answer came.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        field: str = "",
        rule: str = "",
        hint: str = "",
        retry_after_ms: int | None = None,
        audit_id: str = "",
        http_status: int = 0,
        may_have_run: bool = False,
    ) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.field = field
        self.rule = rule
        self.hint = hint
        self.retry_after_ms = retry_after_ms
        self.audit_id = audit_id
        self.http_status = http_status
        self.may_have_run = may_have_run

    def __str__(self) -> str:
        text = f"{self.code}: {self.message}"
        if self.field:
            text += f" (field {self.field})"
        if self.hint:
            text += f"; {self.hint}"
        return f"{text} [{self.audit_id}]" if self.audit_id else text


class Unauthenticated(AionError):
    """The signature, the time or the nonce does not fit, or the tenant is not known."""


class Denied(AionError):
    """A rule does not allow it; `rule` names it. Nothing was done."""


class BudgetExceeded(AionError):
    """A budget has nothing left for it. Nothing was done."""


class RateLimited(AionError):
    """Too many calls, or a quota is used up; `retry_after_ms` says when there is room again. Nothing was done."""


class NotFound(AionError):
    """What the call names does not exist."""


class Timeout(AionError):
    """It took longer than it may: the kernel ended it, or no answer came in time."""


class Unavailable(AionError):
    """The kernel cannot be reached, cut the connection, or lacks a part that the call needs."""


class ProtocolError(AionError):
    """What came is no answer of a kernel, or is larger than this side takes."""


_BY_CODE: dict[str, type[AionError]] = {
    "UNAUTHENTICATED": Unauthenticated,
    "PERMISSION_DENIED": Denied,
    "POLICY_DENIED": Denied,
    "BUDGET_EXCEEDED": BudgetExceeded,
    "QUOTA_EXCEEDED": RateLimited,
    "RESOURCE_EXHAUSTED": RateLimited,
    "DEADLINE_EXCEEDED": Timeout,
    "WAIT_TIMEOUT": Timeout,
    "DAEMON_UNAVAILABLE": Unavailable,
    "LAUNCHER_UNAVAILABLE": Unavailable,
    "SYSCALL_UNKNOWN": NotFound,
}
_BY_STATUS: dict[int, type[AionError]] = {
    401: Unauthenticated,
    403: Denied,
    404: NotFound,
    429: RateLimited,
    503: Unavailable,
    504: Timeout,
}


def error_class(code: str, http_status: int = 0) -> type[AionError]:
    """The class of an error: by its code, else by the number on HTTP."""
    # The number says more than such a code: 401 for too many wrong signatures is no matter of rates.
    if http_status == 401:
        return Unauthenticated
    found = _BY_CODE.get(code)
    if found is not None:
        return found
    if code.endswith("_NOT_FOUND"):
        return NotFound
    return _BY_STATUS.get(http_status, AionError)
