"""The client against an AION that is cut, doubled and late. Run with the folder of build.py on PYTHONPATH."""

import hashlib
import json
import threading
import time
import unittest

import aion_runtime.client
from aion.v1 import runtime_pb2 as pb
from aion_runtime import Client, TaskFailed, Yield
from fake import Server

# Nobody answers at the end of most tests.
aion_runtime.client.LEAVE_IN = 0.3


def attempt(seq):
    return pb.Attempt(epoch=1, seq=seq)


def assignment(seq, params=None, **more):
    return pb.Assignment(attempt=attempt(seq), task_id=f"T{seq}", params_json=json.dumps(params), number=1, **more)


def counter(task):
    n = int(task.checkpoint or b"0")
    while n < task.params["to"]:
        if task.must_yield:
            raise Yield(str(n).encode())
        if task.checkpoint_wanted:
            task.save(str(n).encode())
        n += 1
        task.wait(task.params.get("pause", 0))
    return {"n": n}


class ClientTest(unittest.TestCase):
    def setUp(self):
        self.server = Server()
        self.client = None

    def tearDown(self):
        if self.client is not None:
            self.client.stop()
            self.thread.join(10)
            self.assertFalse(self.thread.is_alive(), "it does not end")
        self.server.die()
        self.server.folder.cleanup()

    def serve(self, handler=counter):
        self.client = Client(handler, socket=self.server.path)
        self.thread = threading.Thread(target=self.client.run, daemon=True)
        self.thread.start()
        return self.server.attached()[0]

    def assign(self, stream, *assignments):
        stream.send(assignments=pb.Assignments(assignments=assignments))

    def done(self, stream):
        return stream.next("completions").completions[0]

    def test_a_task_is_started_and_its_result_comes(self):
        stream = self.serve()
        self.assign(stream, assignment(1, {"to": 3}), assignment(2, {"to": 4}))
        self.assertEqual({stream.next("started").attempts[0].seq, stream.next("started").attempts[0].seq}, {1, 2})

    def test_results(self):
        stream = self.serve()
        self.assign(stream, assignment(1, {"to": 3}))
        completion = self.done(stream)
        self.assertEqual((completion.attempt.seq, json.loads(completion.result_json)), (1, {"n": 3}))
        stream.send(recorded=pb.Recorded(attempts=[attempt(1)]))
        stream.cut()
        stream, hello = self.server.attached()
        self.assertEqual(list(hello.running), [])
        self.assertTrue(stream.nothing("completions"), "what was recorded is not said again")

    def test_failures(self):
        def fail(task):
            if task.params == "coded":
                raise TaskFailed("QUOTA", "later", retryable=True)
            return {"big": "x" * (2 << 20)} if task.params == "big" else 1 / 0

        stream = self.serve(fail)
        for n, (params, code, retryable) in enumerate([("coded", "QUOTA", True), ("bug", "HANDLER_FAILED", False), ("big", "RESULT_TOO_LARGE", False)]):
            self.assign(stream, assignment(n, params))
            failure = self.done(stream).failure
            self.assertEqual((failure.code, failure.retryable), (code, retryable))

    def test_preempted_it_yields_a_checkpoint_and_goes_on_from_one(self):
        stream = self.serve()
        self.assign(stream, assignment(1, {"to": 10**9, "pause": 0.001}))
        stream.next("started")
        time.sleep(0.1)
        preempt = pb.Preempt(attempt=attempt(1))
        preempt.grace.FromMilliseconds(2000)
        stream.send(preempt=preempt)
        part = stream.next("checkpoint")
        self.assertTrue(part.last and part.yields and int(part.data) > 0)
        self.assertEqual(part.sha256, hashlib.sha256(part.data).digest())
        self.assign(stream, assignment(2, {"to": 1000}, checkpoint_bytes=3, checkpoint=b"997"))
        self.assertEqual(json.loads(self.done(stream).result_json), {"n": 1000})

    def test_a_yield_is_said_again_until_it_is_recorded(self):
        def give_way(task):
            task.save(b"old")
            task.wait(10)
            raise Yield(b"new")

        stream = self.serve(give_way)
        self.assign(stream, assignment(1))
        self.assertEqual(stream.next("checkpoint").data, b"old")
        stream.send(preempt=pb.Preempt(attempt=attempt(1)))
        self.assertEqual(stream.next("checkpoint").data, b"new")
        # The answer to the one before does not count for this one.
        stream.send(recorded=pb.Recorded(checkpoints=[attempt(1)]))
        time.sleep(0.2)
        stream.cut()
        stream, hello = self.server.attached()
        self.assertEqual([a.seq for a in hello.running], [1])
        self.assertEqual(stream.next("checkpoint").data, b"new")
        stream.send(recorded=pb.Recorded(checkpoints=[attempt(1)]))
        time.sleep(0.2)
        stream.cut()
        stream, hello = self.server.attached()
        self.assertEqual(list(hello.running), [])

    def test_a_large_checkpoint_goes_and_comes_in_parts(self):
        blob = bytes(range(256)) * 10_000
        got = []

        def swap(task):
            got.append(task.checkpoint)
            raise Yield(blob)

        stream = self.serve(swap)
        self.assign(stream, assignment(1, checkpoint_bytes=len(blob)))
        self.assertTrue(stream.nothing("started", 0.1), "it starts when all of it is there")
        for offset in range(0, len(blob), 700_000):
            data = blob[offset : offset + 700_000]
            stream.send(resume=pb.ResumePart(attempt=attempt(1), offset=offset, data=data, last=offset + len(data) == len(blob)))
        whole = b""
        while True:
            part = stream.next("checkpoint")
            self.assertEqual(part.offset, len(whole))
            self.assertLessEqual(len(part.data), 1 << 20)
            whole += part.data
            if part.last:
                break
        self.assertEqual((whole, got), (blob, [blob]))

    def test_periodic_checkpoints(self):
        stream = self.serve()
        self.assign(stream, assignment(1, {"to": 10**9, "pause": 0.001}))
        stream.next("started")
        stream.send(take_checkpoint=pb.TakeCheckpoint(attempts=[attempt(1), attempt(9)]))
        part = stream.next("checkpoint")
        self.assertTrue(part.last and not part.yields)
        stream.send(refused=pb.RefusedAttempt(attempt=attempt(1), code="QUOTA_EXCEEDED"))
        stream.send(take_checkpoint=pb.TakeCheckpoint(attempts=[attempt(1)]))
        self.assertGreater(int(stream.next("checkpoint").data), int(part.data), "a refused checkpoint stops nothing")

    def test_after_a_death_of_aion_it_goes_on_and_says_what_was_not_recorded(self):
        release = threading.Event()

        def wait(task):
            if task.params == "long":
                release.wait(20)
            return task.params

        stream = self.serve(wait)
        self.assign(stream, assignment(1, "short"), assignment(2, "long"))
        self.done(stream)
        self.server.die()
        time.sleep(0.3)
        self.server.start()
        while True:
            stream, hello = self.server.attached()
            if hello.running:
                break
        self.assertEqual({a.seq for a in hello.running}, {1, 2})
        self.assertEqual(self.done(stream).attempt.seq, 1)
        release.set()
        self.assertEqual(self.done(stream).attempt.seq, 2)

    def test_what_is_not_kept_is_stopped_and_says_nothing(self):
        stopped = threading.Event()

        def wait(task):
            while not task.cancelled:
                task.wait(10)
            stopped.set()
            return "too late"

        stream = self.serve(wait)
        self.assign(stream, assignment(1))
        stream.next("started")
        stream.cut()
        stream, _ = self.server.attached(keep=[])
        self.assertTrue(stopped.wait(10))
        self.assertTrue(stream.nothing("completions"))

    def test_stale_attempts_are_dropped(self):
        stream = self.serve()
        self.assign(stream, assignment(1, {"to": 10**9, "pause": 0.01}))
        stream.next("started")
        stream.send(refused=pb.RefusedAttempt(attempt=attempt(1), code="ATTEMPT_STALE"))
        time.sleep(0.2)
        stream.cut()
        _, hello = self.server.attached()
        self.assertEqual(list(hello.running), [])

    def test_an_assignment_that_comes_twice_runs_once(self):
        runs = []
        stream = self.serve(lambda task: runs.append(task.id))
        self.assign(stream, assignment(1), assignment(1))
        self.done(stream)
        self.assign(stream, assignment(1))
        time.sleep(0.3)
        self.assertEqual(runs, ["T1"])

    def test_stopped_it_makes_room_first(self):
        stream = self.serve()
        self.assign(stream, assignment(1, {"to": 10**9, "pause": 0.001}))
        stream.next("started")
        self.client.stop()
        self.assertTrue(stream.next("checkpoint").yields)
        stream.send(recorded=pb.Recorded(checkpoints=[attempt(1)]))
        self.thread.join(3)
        self.assertFalse(self.thread.is_alive())


if __name__ == "__main__":
    unittest.main()
