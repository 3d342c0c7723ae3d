# Serves tasks with AION's SDK: reads and writes files of its own, and remembers how far it is.
import json

from aion_runtime import Yield, serve


def handle(task):
    step = int(task.checkpoint or b"0")
    while step < task.params["steps"]:
        if task.must_yield:
            raise Yield(str(step).encode())
        if task.checkpoint_wanted:
            task.save(str(step).encode())
        with open("step-%d.json" % (step % 10), "w") as out:
            json.dump({"task": task.id, "step": step}, out)
        step += 1
        task.wait(0.01)
    print("round", task.id, flush=True)
    return {"steps": step}


serve(handle)
