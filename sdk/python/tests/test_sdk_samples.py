"""The samples do what they say, against the door of the tests."""

import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import aion_runtime.client
from aion.v1 import runtime_pb2 as pb
from door import SECRET, TENANT, Door, ok, ordinary, refuse
from fake import Server

SAMPLES = Path(__file__).resolve().parents[3] / "examples/python-sdk"


class Samples(unittest.TestCase):
    def setUp(self):
        self.door = Door()
        self.addCleanup(self.door.close)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        secret = Path(folder.name, "secret")
        secret.write_bytes(SECRET)
        self.env = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), "AION_URL": self.door.url}
        self.env.update({"AION_TENANT": TENANT, "AION_SECRET_FILE": str(secret), "AION_AGENT": "researcher"})

    def research(self, *args):
        command = [sys.executable, "-B", str(SAMPLES / "research.py"), *args]
        return subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=60, check=False)

    def test_research_asks_the_memory_first(self):
        self.door.next(ordinary, ordinary, ok({"items": ["heap", "worms"]}))
        first = self.research("compost")
        self.assertEqual((first.returncode, first.stderr), (0, ""))
        self.assertIn("tooling/web_search@1.2.0: 3 ms, 0.002 USD, sc-1\n- heap\n- worms\n", first.stdout)
        self.assertIn("agent://tenantA/researcher remembers 1: search:compost\n", first.stdout)
        second = self.research("compost")
        self.assertIn("remembered since 0\n- heap\n- worms\n", second.stdout)
        self.assertEqual(self.door.paths().count("/v1/syscall/tool.invoke"), 1)
        self.assertEqual(self.door.wrong, [])

    def test_research_shows_a_denial(self):
        self.door.next(ordinary, ordinary, refuse(403, "POLICY_DENIED", "denied", "no network", rule="agent.yml: network"))
        denied = self.research("compost", "--offline")
        self.assertEqual((denied.returncode, denied.stderr), (5, "denied: no network\nby agent.yml: network; aionctl explain sc-9\n"))
        self.assertEqual(self.door.requests[0][3]["agent_id"], "agent://tenantA/researcher-offline")

    def test_counter_counts(self):
        server = Server()
        self.addCleanup(server.folder.cleanup)
        self.addCleanup(server.die)
        self.env["AION_RUNTIME_SOCKET"] = server.path
        command = [sys.executable, "-B", str(SAMPLES / "counter.py")]
        with subprocess.Popen(command, env=self.env, stderr=subprocess.DEVNULL) as child:
            try:
                stream, hello = server.attached()
                self.assertEqual(hello.sdk, aion_runtime.client.SDK)
                params = json.dumps({"to": 3, "pause_ms": 0})
                assignment = pb.Assignment(attempt=pb.Attempt(epoch=1, seq=1), task_id="T1", params_json=params, number=1)
                stream.send(assignments=pb.Assignments(assignments=[assignment]))
                completion = stream.next("completions").completions[0]
                self.assertEqual(json.loads(completion.result_json), {"count": 3})
                stream.send(recorded=pb.Recorded(attempts=[completion.attempt]))
                child.terminate()
                self.assertEqual(child.wait(30), 0)
            finally:
                child.kill()


if __name__ == "__main__":
    unittest.main()
