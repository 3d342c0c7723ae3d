"""Serving AION's tasks from a long-lived agent.

    from aion_runtime import Yield, serve

    def handle(task):
        n = int(task.checkpoint or b"0")
        while n < task.params["to"]:
            n += 1
            if task.must_yield:
                raise Yield(str(n).encode())
            if task.checkpoint_wanted:
                task.save(str(n).encode())
        return {"n": n}

    serve(handle)

Each task has a thread of its own. What it returns is the result (JSON). Yield makes room with a checkpoint, from which the task goes on
later, perhaps elsewhere. TaskFailed, or any other exception, is a failure.
"""

from .client import Client, serve
from .task import Cancelled, Task, TaskFailed, Yield

__all__ = ["Cancelled", "Client", "Task", "TaskFailed", "Yield", "serve"]
