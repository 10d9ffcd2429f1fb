"""Puts jobs into a queue one after the other, by calls that block: ``python produce.py huey_worker 1000 8``.

Eight threads share the 1000 jobs here. Prints how many seconds that took; the first few, which made the
connections, do not count.
"""

import importlib
import sys
import time
from concurrent.futures import ThreadPoolExecutor

#: Jobs that are not measured; ``peer_runs.py`` knows of them.
FIRST = 16

if __name__ == "__main__":
    enqueue_one = importlib.import_module(sys.argv[1]).enqueue_one
    count, threads = int(sys.argv[2]), int(sys.argv[3])

    def share(numbers: range) -> None:
        """Put a thread's share of the jobs into the queue."""
        for i in numbers:
            enqueue_one(i)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(enqueue_one, range(FIRST)))
        began = time.perf_counter()
        list(pool.map(share, [range(nth, count, threads) for nth in range(threads)]))
        print(time.perf_counter() - began)
