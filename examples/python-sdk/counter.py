"""An agent with hooks: counts, can be interrupted, and goes on from where it was. It is examples/task-worker, written with aion_sdk.

In a sandbox AION gives it tasks on AION_RUNTIME_SOCKET. Where AION_SECRET_FILE is set it registers and gives signs of life, too.
"""

import json
import logging

from aion_sdk import Agent


class Counter(Agent):
    def on_start(self):
        self.counts = {}

    def on_task(self, task):
        self.counts[task.id] = json.loads(task.checkpoint or b"0")
        while self.counts[task.id] < task.params["to"]:
            self.yield_point(task)
            self.counts[task.id] += 1
            task.wait(task.params.get("pause_ms", 10) / 1000)
        return {"count": self.counts.pop(task.id)}

    def on_checkpoint(self, task):
        return json.dumps(self.counts[task.id]).encode()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    Counter.from_env().run()
