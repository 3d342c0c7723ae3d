"""Counts, and can be interrupted: a checkpoint is the number that it has come to."""

import logging
import time

from aion_runtime import TaskFailed, Yield, serve


def handle(task):
    params = task.params or {}
    to, pause = params.get("to", 100), params.get("pause_ms", 10) / 1000
    if not isinstance(to, int) or not 0 <= to <= 10_000_000:
        raise TaskFailed("PARAMS_INVALID", "to is a number from 0 to 10000000")
    n = int(task.checkpoint or b"0")
    print(f"{task.id}: attempt {task.number} from {n} to {to}", flush=True)
    while n < to:
        if task.must_yield:
            raise Yield(str(n).encode())
        if task.checkpoint_wanted:
            task.save(str(n).encode())
            task.progress(n / to)
        n += 1
        task.wait(pause) if pause else time.sleep(0)
    return {"count": n}


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    serve(handle)
