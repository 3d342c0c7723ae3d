"""A task as its handler sees it."""

import json
import threading
import time


class Yield(Exception):
    """Makes room: the task goes on later from this checkpoint; without one, from the last that was saved."""

    def __init__(self, checkpoint: bytes | None = None):
        super().__init__("makes room")
        self.checkpoint = checkpoint


class TaskFailed(Exception):
    """The task failed, with a code for programs and a message for people."""

    def __init__(self, code: str, message: str, retryable: bool = False):
        super().__init__(message)
        self.code, self.retryable = code, retryable


class Cancelled(Exception):
    """Nobody wants the result any more. Raised by Task.check."""


class Task:
    """One attempt. Its methods may be called from any thread."""

    def __init__(self, client, assignment, checkpoint: bytes | None):
        self._client = client
        self.attempt = (assignment.attempt.epoch, assignment.attempt.seq)
        self.id = assignment.task_id
        self.intent = assignment.intent
        self.params = json.loads(assignment.params_json or "null")
        self.number = assignment.number
        self.trace_id = assignment.trace_id
        self.deadline = assignment.deadline.ToDatetime() if assignment.HasField("deadline") else None
        # The checkpoint to go on from; none: from the beginning.
        self.checkpoint = checkpoint
        self._stop = threading.Event()
        self._wanted = threading.Event()
        self._grace_until = None
        self.cancelled = False

    @property
    def must_yield(self) -> bool:
        """Whether it must make room: raise Yield within the grace."""
        return self._stop.is_set()

    @property
    def grace(self) -> float:
        """Seconds that are left for it; infinite while it need not."""
        return float("inf") if self._grace_until is None else max(0.0, self._grace_until - time.monotonic())

    @property
    def checkpoint_wanted(self) -> bool:
        """Whether AION asked for a checkpoint that the task goes on after: call save."""
        return self._wanted.is_set()

    def wait(self, seconds: float) -> bool:
        """Sleeps, and wakes when the task must make room or is cancelled."""
        return self._stop.wait(seconds)

    def check(self) -> None:
        """Raises Cancelled when the task was cancelled, and Yield when it must make room."""
        if self.cancelled:
            raise Cancelled(self.id)
        if self._stop.is_set():
            raise Yield()

    def save(self, checkpoint: bytes) -> None:
        """Leaves a checkpoint and goes on."""
        self._wanted.clear()
        self._client._send_checkpoint(self.attempt, checkpoint, yields=False)

    def progress(self, fraction: float, note: str = "") -> None:
        """Tells how far it is, 0 to 1."""
        self._client._send_progress(self.attempt, fraction, note)

    def used(self, tokens: int = 0, usd: float = 0.0) -> None:
        """Tells what it has used since the last time."""
        self._client._send_usage(self.attempt, tokens, round(usd * 1_000_000))

    def _preempt(self, grace: float) -> None:
        self._grace_until = time.monotonic() + grace
        self._stop.set()

    def _cancel(self) -> None:
        self.cancelled = True
        self._stop.set()
