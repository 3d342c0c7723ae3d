"""How long a call may take, and whether it is tried again. Never what may have had an effect, unless twice is as good as once."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from .errors import AionError, Timeout, Unavailable

_T = TypeVar("_T")
_BACKOFF = (0.05, 1.0)


class Deadline:
    """A moment of the monotonic clock."""

    def __init__(self, seconds: float) -> None:
        if not seconds > 0:
            raise ValueError("a timeout is more than 0 seconds")
        self._seconds = seconds
        self._at = time.monotonic() + seconds

    def left(self, sent: bool = False) -> float:
        """Seconds that are left. Raises Timeout when there are none; `sent` tells it whether the request has gone out."""
        left = self._at - time.monotonic()
        if left <= 0:
            raise self.passed(sent)
        return left

    def passed(self, sent: bool) -> Timeout:
        """The error for it."""
        return Timeout("DEADLINE_EXCEEDED", f"no answer within {self._seconds:g} s", may_have_run=sent)

    def has(self, seconds: float) -> bool:
        """Whether it is further away than that."""
        return self._at - time.monotonic() > seconds


class Retries:
    """The tries of one call: `most` after the first, each pause at most `max_wait` seconds, nothing past the deadline."""

    def __init__(self, most: int, max_wait: float, idempotent: bool, deadline: Deadline) -> None:
        self._left = most
        self._max_wait = max_wait
        self._idempotent = idempotent
        self._deadline = deadline
        self._backoff = _BACKOFF[0]

    def pause_after(self, error: AionError) -> float | None:
        """Seconds to wait before the next try; None: there is none."""
        if self._left <= 0 or (error.may_have_run and not self._idempotent):
            return None
        if error.retry_after_ms is not None:
            # All who were told the same time should not come back at the same time.
            pause = error.retry_after_ms / 1000 * (1 + random.random() / 10)
            if error.retry_after_ms / 1000 > self._max_wait:
                return None
        elif isinstance(error, Unavailable) and (error.http_status == 0 or self._idempotent):
            pause = self._backoff * (0.5 + random.random())
            self._backoff = min(self._backoff * 2, _BACKOFF[1])
        else:
            return None
        if not self._deadline.has(pause):
            return None
        self._left -= 1
        return pause


async def within(seconds: float, work: Coroutine[Any, Any, _T]) -> _T:
    """Waits for it, and raises TimeoutError when it takes longer. When this returns or raises, the work has ended.

    asyncio.wait_for loses a cancellation that comes in the moment in which the work ends, before Python 3.12.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        await _end(task)
        raise
    if not task.done():
        await _end(task)
        raise TimeoutError
    return task.result()


async def _end(task: asyncio.Future[Any]) -> None:
    # A second cancellation does not come between: the socket must not be closed under a loop that still watches it.
    task.cancel()
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            continue
    if not task.cancelled():
        task.exception()
