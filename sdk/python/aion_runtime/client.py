"""The stream to AION: who is assigned what, what is acknowledged, and what is said again after a break.

An outcome (a completion, or a checkpoint that yields) is kept until AION has recorded or refused it, and sent again on each new stream.
What a task works on is named in the Hello; what AION then does not keep is stopped. Nothing else survives a break: progress and
periodic checkpoints come again by themselves.
"""

import hashlib
import json
import logging
import os
import queue
import random
import signal
import threading
import time

import grpc

from aion.v1 import runtime_pb2 as pb
from aion.v1 import runtime_pb2_grpc as stubs

from .task import Cancelled, Task, TaskFailed, Yield

log = logging.getLogger("aion_runtime")

SDK = "aion-python/0.1"
PART = 1 << 20
MAX_RESULT = 1 << 20
HEARTBEAT = 5.0
BACKOFF = (0.05, 2.0)
# Between SIGTERM and the end.
LEAVE_IN = 5.0
# The attempt was replaced: nothing of it counts any more.
STALE = "ATTEMPT_STALE"
_CLOSE = object()


def serve(handler, concurrency: int = 0, socket: str | None = None) -> None:
    """Serves tasks until SIGTERM; then asks all tasks to make room, and returns."""
    client = Client(handler, concurrency, socket)
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: client.stop())
    client.run()


class Client:
    """Attaches, and attaches again."""

    def __init__(self, handler, concurrency: int = 0, socket: str | None = None):
        self.handler = handler
        self.concurrency = concurrency
        self.socket = socket or os.environ.get("AION_RUNTIME_SOCKET", "/run/aion/kernel.sock")
        self._lock = threading.RLock()
        self._tasks: dict[tuple, Task] = {}
        # Attempt: messages that AION has not acknowledged.
        self._outcomes: dict[tuple, list] = {}
        # Attempt: checkpoints of this stream that AION has not answered yet.
        self._unanswered: dict[tuple, int] = {}
        # Attempt: its assignment, and the parts of its checkpoint so far.
        self._arriving: dict[tuple, tuple] = {}
        self._out: queue.SimpleQueue | None = None
        self._call = None
        self._stopping = threading.Event()

    # The stream.

    def run(self) -> None:
        """Serves until stop was called."""
        pause = BACKOFF[0]
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                self._attach()
            except grpc.RpcError as e:
                if not self._stopping.is_set():
                    log.warning("the stream broke: %s", getattr(e, "details", lambda: e)())
            if time.monotonic() - began > BACKOFF[1]:
                pause = BACKOFF[0]
            self._stopping.wait(pause * (0.5 + random.random()))
            pause = min(pause * 2, BACKOFF[1])

    def stop(self) -> None:
        """Asks all tasks to make room, waits for them a while, and ends run."""
        threading.Thread(target=self._leave, daemon=True).start()

    def _leave(self) -> None:
        with self._lock:
            for task in self._tasks.values():
                task._preempt(LEAVE_IN)
        until = time.monotonic() + LEAVE_IN
        while time.monotonic() < until and (self._tasks or self._outcomes):
            time.sleep(0.01)
        self._stopping.set()
        with self._lock:
            if self._out is not None:
                self._out.put(_CLOSE)
            if self._call is not None:
                self._call.cancel()

    def _attach(self) -> None:
        options = [("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20)]
        # The authority would be the path, which is no host name.
        options.append(("grpc.default_authority", "localhost"))
        with grpc.insecure_channel(f"unix:{self.socket}", options=options) as channel:
            out = queue.SimpleQueue()
            with self._lock:
                self._arriving.clear()
                hello = pb.RuntimeHello(protocol=1, concurrency=self.concurrency, sdk=SDK)
                hello.running.extend(_attempt(a) for a in {*self._tasks, *self._outcomes})
                out.put(pb.FromAgent(hello=hello))
                self._call = stubs.RuntimeServiceStub(channel).Attach(self._requests(out))
            try:
                for message in self._call:
                    self._take(message, out)
            finally:
                with self._lock:
                    self._out = None
                out.put(_CLOSE)

    def _requests(self, out):
        while True:
            try:
                message = out.get(timeout=HEARTBEAT)
            except queue.Empty:
                message = pb.FromAgent(heartbeat=pb.Heartbeat())
            if message is _CLOSE:
                return
            yield message

    def _take(self, message, out) -> None:
        kind = message.WhichOneof("kind")
        with self._lock:
            if kind == "welcome":
                self._welcome(message.welcome, out)
            elif kind == "assignments":
                for assignment in message.assignments.assignments:
                    self._assigned(assignment)
            elif kind == "resume":
                self._resume(message.resume)
            elif kind == "preempt":
                task = self._tasks.get(_key(message.preempt.attempt))
                if task is not None:
                    task._preempt(message.preempt.grace.ToTimedelta().total_seconds())
            elif kind == "cancel":
                self._drop(_key(message.cancel.attempt), outcome=False)
            elif kind == "recorded":
                for attempt in message.recorded.attempts:
                    self._outcomes.pop(_key(attempt), None)
                for attempt in message.recorded.checkpoints:
                    self._answered(_key(attempt))
            elif kind == "refused":
                self._refused(message.refused)
            elif kind == "take_checkpoint":
                for attempt in message.take_checkpoint.attempts:
                    task = self._tasks.get(_key(attempt))
                    if task is not None:
                        task._wanted.set()

    def _answered(self, attempt) -> None:
        left = self._unanswered.get(attempt, 0) - 1
        if left > 0:
            self._unanswered[attempt] = left
            return
        self._unanswered.pop(attempt, None)
        # The last one of an attempt that is over is the one that yields.
        outcome = self._outcomes.get(attempt)
        if outcome and outcome[-1].HasField("checkpoint"):
            self._outcomes.pop(attempt)

    def _refused(self, refused) -> None:
        attempt = _key(refused.attempt)
        log.warning("refused: %s %s", refused.code, refused.message)
        outcome = self._outcomes.get(attempt)
        if refused.code == STALE:
            self._drop(attempt, outcome=True)
        elif outcome is None:
            # A checkpoint that was not taken: the task goes on.
            self._unanswered[attempt] = max(0, self._unanswered.get(attempt, 0) - 1)
        elif outcome[-1].HasField("checkpoint"):
            if self._unanswered.get(attempt, 0) > 1:
                self._unanswered[attempt] -= 1
                return
            completion = pb.Completion(attempt=refused.attempt, yielded=True)
            self._outcome(attempt, [pb.FromAgent(completions=pb.Completions(completions=[completion]))])
        elif outcome[-1].completions.completions[0].HasField("failure"):
            self._outcomes.pop(attempt)
        else:
            self._finish_failed(attempt, refused.code, refused.message, False)

    def _welcome(self, welcome, out) -> None:
        keep = {_key(a) for a in welcome.keep}
        for attempt in [a for a in self._tasks if a not in keep]:
            self._drop(attempt, outcome=True)
        self._out = out
        self._unanswered.clear()
        # AION refuses an outcome that it has recorded already, and that ends it, too.
        for messages in self._outcomes.values():
            for message in messages:
                self._put(message)

    def _drop(self, attempt, outcome: bool) -> None:
        task = self._tasks.get(attempt)
        if task is not None:
            task._cancel()
        self._arriving.pop(attempt, None)
        self._unanswered.pop(attempt, None)
        if outcome:
            self._outcomes.pop(attempt, None)
            # What the handler still says is not sent.
            self._tasks.pop(attempt, None)

    # Tasks.

    def _assigned(self, assignment) -> None:
        attempt = _key(assignment.attempt)
        if attempt in self._tasks or attempt in self._outcomes:
            return
        if assignment.checkpoint_bytes and not assignment.checkpoint:
            self._arriving[attempt] = (assignment, bytearray())
        else:
            self._start(assignment, assignment.checkpoint if assignment.checkpoint_bytes else None)

    def _resume(self, part) -> None:
        arriving = self._arriving.get(_key(part.attempt))
        if arriving is None:
            return
        assignment, data = arriving
        if part.offset != len(data):
            log.error("a part of a checkpoint is missing")
            self._arriving.pop(_key(part.attempt))
            self._finish_failed(_key(part.attempt), "CHECKPOINT_INCOMPLETE", "a part of the checkpoint is missing", True)
            return
        data += part.data
        if part.last:
            self._arriving.pop(_key(part.attempt))
            self._start(assignment, bytes(data))

    def _start(self, assignment, checkpoint) -> None:
        attempt = _key(assignment.attempt)
        try:
            task = Task(self, assignment, checkpoint)
        except ValueError as e:
            self._finish_failed(attempt, "PARAMS_INVALID", str(e), False)
            return
        self._tasks[attempt] = task
        self._put(pb.FromAgent(started=pb.StartedTasks(attempts=[_attempt(attempt)])))
        threading.Thread(target=self._work, args=(task,), name=f"task {task.id}", daemon=True).start()

    def _work(self, task) -> None:
        completion = pb.Completion(attempt=_attempt(task.attempt))
        try:
            completion.result_json = _result(self.handler(task))
        except Yield as e:
            if e.checkpoint is not None:
                self._finish(task, _checkpoint(task.attempt, e.checkpoint, yields=True))
                return
            completion.yielded = True
        except Cancelled:
            completion.failure.CopyFrom(pb.Failure(code="CANCELLED", message="cancelled"))
        except TaskFailed as e:
            completion.failure.CopyFrom(pb.Failure(code=e.code, message=str(e)[:4096], retryable=e.retryable))
        except Exception as e:
            log.exception("task %s failed", task.id)
            message = f"{type(e).__name__}: {e}"[:4096]
            completion.failure.CopyFrom(pb.Failure(code="HANDLER_FAILED", message=message, retryable=False))
        self._finish(task, [pb.FromAgent(completions=pb.Completions(completions=[completion]))])

    def _finish(self, task, messages) -> None:
        with self._lock:
            if self._tasks.pop(task.attempt, None) is not None:
                self._outcome(task.attempt, messages)

    def _finish_failed(self, attempt, code, message, retryable) -> None:
        failure = pb.Failure(code=code, message=message, retryable=retryable)
        completion = pb.Completion(attempt=_attempt(attempt), failure=failure)
        self._outcome(attempt, [pb.FromAgent(completions=pb.Completions(completions=[completion]))])

    def _outcome(self, attempt, messages) -> None:
        self._outcomes[attempt] = messages
        for message in messages:
            self._put(message)

    # What tasks say.

    def _put(self, message) -> None:
        with self._lock:
            if self._out is None:
                return
            if message.HasField("checkpoint") and message.checkpoint.last:
                attempt = _key(message.checkpoint.attempt)
                self._unanswered[attempt] = self._unanswered.get(attempt, 0) + 1
            self._out.put(message)

    def _send(self, attempt, messages) -> None:
        with self._lock:
            # Of an attempt that does not count any more, nothing is said; parts of one checkpoint stay together.
            if attempt in self._tasks:
                for message in messages:
                    self._put(message)

    def _send_checkpoint(self, attempt, data, yields) -> None:
        self._send(attempt, _checkpoint(attempt, data, yields))

    def _send_progress(self, attempt, fraction, note) -> None:
        progress = pb.Progress(attempt=_attempt(attempt), fraction=fraction, note=note[:1024])
        self._send(attempt, [pb.FromAgent(progress=progress)])

    def _send_usage(self, attempt, tokens, usd_micros) -> None:
        usage = pb.UsageReport(attempt=_attempt(attempt), tokens=tokens, usd_micros=usd_micros)
        self._send(attempt, [pb.FromAgent(usage=usage)])


def _key(attempt) -> tuple:
    return (attempt.epoch, attempt.seq)


def _attempt(key):
    return pb.Attempt(epoch=key[0], seq=key[1])


def _result(value) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if len(text.encode()) > MAX_RESULT:
        raise TaskFailed("RESULT_TOO_LARGE", f"the result is larger than {MAX_RESULT} bytes")
    return text


def _checkpoint(attempt, data, yields) -> list:
    data = bytes(data)
    messages = []
    for offset in range(0, max(len(data), 1), PART):
        part = pb.CheckpointPart(attempt=_attempt(attempt), offset=offset, data=data[offset : offset + PART])
        if offset + PART >= len(data):
            part.last, part.yields, part.sha256 = True, yields, hashlib.sha256(data).digest()
        messages.append(pb.FromAgent(checkpoint=part))
    return messages
