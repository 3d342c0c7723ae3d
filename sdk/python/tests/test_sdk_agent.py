"""An agent's life: registered, alive, at work, stopped. Tasks come from the AION of fake.py."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import unittest
from unittest import mock

import aion_runtime.client
from aion.v1 import runtime_pb2 as pb
from aion_sdk import Agent, AionError, SyscallClient
from door import SECRET, TENANT, Door, refuse
from fake import Server

# Nobody answers at the end of some tests.
aion_runtime.client.LEAVE_IN = 0.3


class Counter(Agent):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.said = queue.Queue()
        self.state = {}

    def on_start(self):
        self.said.put("start")

    def on_task(self, task):
        self.state[task.id] = int(task.checkpoint or b"0")
        while self.state[task.id] < task.params["to"]:
            self.yield_point(task)
            self.state[task.id] += 1
            task.wait(task.params.get("pause", 0))
        return {"n": self.state[task.id]}

    def on_checkpoint(self, task):
        return str(self.state[task.id]).encode()

    def on_stop(self):
        self.said.put("stop")


class Lives(unittest.TestCase):
    def setUp(self):
        self.door = Door()
        self.addCleanup(self.door.close)
        environment = mock.patch.dict(os.environ)
        environment.start()
        self.addCleanup(environment.stop)
        os.environ.pop("AION_RUNTIME_SOCKET", None)

    def client(self):
        client = SyscallClient(self.door.url, tenant=TENANT, secret=SECRET, agent="counter")
        self.addCleanup(client.close)
        return client

    def start(self, agent):
        self.failed = queue.Queue()

        def run():
            try:
                agent.run()
            except BaseException as error:
                self.failed.put(error)

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()
        self.addCleanup(agent.stop)
        return agent

    def end(self, agent):
        agent.stop()
        self.thread.join(20)
        self.assertFalse(self.thread.is_alive())
        self.assertTrue(self.failed.empty())

    def beats(self, count):
        """Waits for so many heartbeats, which the door lets through one by one."""
        seen = threading.Semaphore(0)

        def beat(request, body):
            self.assertEqual(request.path, "/v1/agent/heartbeat")
            seen.release()
            request.give(200, {"status": "ok", "result": {}})

        self.door.next(*[beat] * count)
        for _ in range(count):
            self.assertTrue(seen.acquire(timeout=20))

    def test_it_registers_starts_beats_and_stops(self):
        agent = self.start(Counter(self.client(), version="1.2.0", capabilities={"network": True}, heartbeat_s=0.01))
        self.assertEqual(agent.said.get(timeout=20), "start")
        self.beats(3)
        _, path, _, body = self.door.requests[0]
        self.assertEqual(path, "/v1/agent/register")
        self.assertEqual((body["version"], body["capabilities"], "limits" in body), ("1.2.0", {"network": True}, False))
        self.end(agent)
        self.assertEqual(agent.said.get(timeout=20), "stop")

    def test_a_heartbeat_that_fails_ends_nothing(self):
        refused = [refuse(404, "AGENT_NOT_FOUND"), refuse(500, "INTERNAL")]
        self.door.next(refuse(200, "", status="ok"), *refused)
        with self.assertLogs("aion_sdk", "WARNING") as logs:
            agent = self.start(Counter(self.client(), heartbeat_s=0.01))
            self.beats(2)
            self.end(agent)
        self.assertEqual(len(logs.output), 2)

    def test_what_cannot_register_does_not_start(self):
        self.door.next(refuse(400, "INVALID_FIELD", field="capabilities"))
        agent = self.start(Counter(self.client()))
        self.assertEqual(self.failed.get(timeout=20).field, "capabilities")
        self.assertEqual(agent.said.get(timeout=20), "stop")
        self.assertEqual(len(self.door.requests), 1)

    def test_a_start_that_fails_is_the_end(self):
        class Broken(Counter):
            def on_start(self):
                raise AionError("X", "no")

        agent = self.start(Broken())
        self.assertEqual(self.failed.get(timeout=20).code, "X")
        self.assertEqual(agent.said.get(timeout=20), "stop")

    def test_without_a_secret_it_has_its_own_socket_or_no_client(self):
        os.environ.pop("AION_SECRET_FILE", None)
        with mock.patch.dict(os.environ, {"AION_RUNTIME_SOCKET": "/nowhere/kernel.sock", "AION_SERVES_TASKS": "0"}):
            agent = Counter.from_env(heartbeat_s=1)
            self.assertEqual(agent.client.settings.socket_path, "/nowhere/kernel.sock")
            # Signs of life that nobody takes end nothing, and there are no tasks to attach for.
            self.start(agent)
            self.assertEqual(agent.said.get(timeout=20), "start")
            self.end(agent)
        os.environ.pop("AION_RUNTIME_SOCKET", None)
        agent = Counter.from_env(heartbeat_s=1)
        self.assertIsInstance(agent, Counter)
        with self.assertRaisesRegex(RuntimeError, "AION_SECRET_FILE"):
            agent.client.call("a.b")
        self.start(agent)
        self.assertEqual(agent.said.get(timeout=20), "start")
        self.end(agent)

    def test_stopped_before_it_runs_it_ends_at_once(self):
        agent = Counter()
        agent.stop()
        agent.run()
        self.assertEqual([agent.said.get(timeout=20) for _ in range(2)], ["start", "stop"])

    def test_sigterm_ends_it_in_good_order(self):
        code = (
            "from aion_sdk import Agent\n"
            "class A(Agent):\n"
            "    def on_start(self): print('start', flush=True)\n"
            "    def on_stop(self): print('stop', flush=True)\n"
            "A().run()\n"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment) as child:
            self.assertEqual(child.stdout.readline(), "start\n")
            child.send_signal(signal.SIGTERM)
            self.assertEqual(child.stdout.read(), "stop\n")
        self.assertEqual(child.returncode, 0)


class Tasks(Lives):
    """The same, and tasks: a runtime socket changes nothing for the rest."""

    def setUp(self):
        super().setUp()
        self.server = Server()
        self.addCleanup(self.server.folder.cleanup)
        self.addCleanup(self.server.die)
        os.environ["AION_RUNTIME_SOCKET"] = self.server.path

    def assign(self, stream, n, params, **more):
        attempt = pb.Attempt(epoch=1, seq=n)
        assignment = pb.Assignment(attempt=attempt, task_id=f"T{n}", params_json=json.dumps(params), number=1, **more)
        stream.send(assignments=pb.Assignments(assignments=[assignment]))
        return attempt

    def test_a_task_is_worked_on_from_its_checkpoint(self):
        agent = self.start(Counter())
        stream, _ = self.server.attached()
        self.assign(stream, 1, {"to": 7}, checkpoint_bytes=1, checkpoint=b"5")
        completion = stream.next("completions").completions[0]
        self.assertEqual(json.loads(completion.result_json), {"n": 7})
        stream.send(recorded=pb.Recorded(attempts=[completion.attempt]))
        self.end(agent)

    def test_checkpoints_come_from_the_hook(self):
        agent = self.start(Counter())
        stream, _ = self.server.attached()
        attempt = self.assign(stream, 1, {"to": 10**9, "pause": 0.001})
        stream.next("started")
        stream.send(take_checkpoint=pb.TakeCheckpoint(attempts=[attempt]))
        saved = stream.next("checkpoint")
        self.assertTrue(saved.last and not saved.yields)
        stream.send(preempt=pb.Preempt(attempt=attempt))
        left = stream.next("checkpoint")
        self.assertTrue(left.last and left.yields)
        self.assertGreaterEqual(int(left.data), int(saved.data))
        stream.send(recorded=pb.Recorded(checkpoints=[attempt]))
        self.end(agent)

    def test_stopped_its_tasks_make_room_first(self):
        agent = self.start(Counter())
        stream, _ = self.server.attached()
        attempt = self.assign(stream, 1, {"to": 10**9, "pause": 0.001})
        stream.next("started")
        agent.stop()
        self.assertTrue(stream.next("checkpoint").yields)
        stream.send(recorded=pb.Recorded(checkpoints=[attempt]))
        self.thread.join(20)
        self.assertEqual([agent.said.get(timeout=20) for _ in range(2)], ["start", "stop"])

    def test_a_cancelled_task_is_left(self):
        agent = self.start(Counter())
        stream, _ = self.server.attached()
        attempt = self.assign(stream, 1, {"to": 10**9, "pause": 0.001})
        stream.next("started")
        stream.send(cancel=pb.CancelAttempt(attempt=attempt))
        self.assertEqual(stream.next("completions").completions[0].failure.code, "CANCELLED")
        self.end(agent)

    def test_an_agent_without_on_task_fails_its_tasks(self):
        agent = self.start(Agent())
        stream, _ = self.server.attached()
        with self.assertLogs("aion_runtime", "ERROR"):
            self.assign(stream, 1, {})
            self.assertEqual(stream.next("completions").completions[0].failure.code, "HANDLER_FAILED")
        self.end(agent)


if __name__ == "__main__":
    unittest.main()
