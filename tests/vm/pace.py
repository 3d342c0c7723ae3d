"""How fast a processor is: the seconds that a fixed piece of work takes, the least of several times.

The runner asks on the host, the suite `ship` in the machine: what one has more than the other is by how much the emulated one is slower.
The least of them, because what else runs only adds.
"""

import time

ROUNDS = 200_000
TIMES = 7


def work():
    number = 1
    for step in range(ROUNDS):
        number = (number * 31 + step) % 1_000_003
    return number


def seconds():
    taken = []
    for _ in range(TIMES):
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return min(taken)


if __name__ == "__main__":
    print(f"{seconds():.6f}")
