"""One process of a benchmark, on beeq. The twin of ``bee_queue.js``: the same modes, the same moments.

The argument is a JSON object: ``mode``, ``url``, ``queue``, ``concurrency``, ``count``, ``handler``,
``sleep_ms``, ``settings``, ``uvloop``. The process says ``{"ready": true}`` once it could begin, begins at
the first line of its standard input, prints its measurements, if it makes any, and ends with its standard
input. Both libraries have their default settings but for ``settings``, and are used as their documentation
shows.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from beeq import Job, Queue

#: How many saves, or waits for results, a producer has under way at once.
LANES = 100


def tell(message: dict[str, Any]) -> None:
    """Send a message to the harness."""
    print(json.dumps(message), flush=True)


#: The system's monotonic clock, in ns; the same for every process of the machine.
now = time.monotonic_ns


async def do_nothing(_job: Job) -> None:
    """Do nothing."""


async def read(job: Job) -> dict[str, Any]:
    """Read two fields of the data, and return a value."""
    data = job.data
    return {"to": data["to"], "n": data["i"]}


async def tell_the_time(_job: Job) -> int:
    """Return when the handler began."""
    return now()


def sleeper(sleep_ms: float) -> Callable[[Job], Awaitable[None]]:
    """Return a handler that takes so long and leaves the loop to others meanwhile."""

    async def sleep(_job: Job) -> None:
        await asyncio.sleep(sleep_ms / 1000)

    async def give_way(_job: Job) -> None:
        over = now() + sleep_ms * 1e6
        while now() < over:  # noqa: ASYNC110 - the time it takes is all that it waits for
            await asyncio.sleep(0)

    return sleep if sleep_ms >= 1 else give_way  # no loop's timers are finer


def work(queue: Queue, ask: dict[str, Any]) -> None:
    """Work on jobs."""
    handlers = {"do nothing": do_nothing, "read": read, "tell the time": tell_the_time}
    handler: Any = handlers.get(ask["handler"]) or sleeper(ask["sleep_ms"])
    queue.process(concurrency=ask["concurrency"])(handler)


def listen(queue: Queue, ask: dict[str, Any]) -> None:
    """Listen to the ends of jobs, and say how long it took from the first to the last."""
    heard, began = 0, 0

    def hear(_id: str, _result: Any) -> None:
        nonlocal heard, began
        heard += 1
        if heard == 1:
            began = now()
        if heard == ask["count"]:
            tell({"seconds": (now() - began) / 1e9})

    queue.on("job succeeded", hear)


async def save_concurrently(queue: Queue, count: int) -> None:
    """Save all jobs without waiting in between."""
    began = now()
    await asyncio.gather(*[queue.create_job({"i": i}).save() for i in range(count)])
    tell({"seconds": (now() - began) / 1e9})


async def save_one_by_one(queue: Queue, count: int) -> None:
    """Save each job after the one before it was confirmed."""
    began = now()
    for i in range(count):
        await queue.create_job({"i": i}).save()
    tell({"seconds": (now() - began) / 1e9})


async def save_in_bulk(queue: Queue, count: int) -> None:
    """Save a hundred jobs at a time."""
    began = now()
    for first in range(0, count, 100):
        errors = await queue.save_all([queue.create_job({"i": i}) for i in range(first, first + 100)])
        if errors:
            raise next(iter(errors.values()))
    tell({"seconds": (now() - began) / 1e9})


async def in_lanes(count: int, one: Callable[[int], Awaitable[None]]) -> None:
    """Do something ``count`` times, in lanes: each begins the next one when its last one is over."""
    numbers = iter(range(count))

    async def lane() -> None:
        for i in numbers:
            await one(i)

    began = now()
    await asyncio.gather(*[lane() for _ in range(LANES)])
    tell({"seconds": (now() - began) / 1e9})


async def save_in_lanes(queue: Queue, count: int) -> None:
    """Save jobs, some at once, each waited for."""

    async def one(i: int) -> None:
        await queue.create_job({"i": i}).save()

    await in_lanes(count, one)


async def await_results(queue: Queue, count: int) -> None:
    """Save jobs, some at once, and wait for the result of each."""

    async def one(i: int) -> None:
        job = await queue.create_job({"i": i, "to": "ada@example.com"}).save()
        if (await job.result(timeout=60_000))["n"] != i:
            raise RuntimeError(f"job {job.id} has another's result")

    await in_lanes(count, one)


async def wait_for_each(queue: Queue, count: int) -> None:
    """Save a job, wait for its result, and let the worker become idle."""
    starts, results = [], []
    for i in range(count):
        saved = now()
        job = await queue.create_job({"i": i}).save()
        began = await job.result(timeout=10_000)
        results.append((now() - saved) / 1e6)
        starts.append((began - saved) / 1e6)
        await asyncio.sleep(0.002)
    tell({"starts": starts, "results": results})


PRODUCERS = {
    "save concurrently": save_concurrently,
    "save one by one": save_one_by_one,
    "save in bulk": save_in_bulk,
    "save in lanes": save_in_lanes,
    "await results": await_results,
    "wait for each": wait_for_each,
}
WORKERS = {"work": work, "listen": listen}


async def main(ask: dict[str, Any]) -> None:
    """Get ready, wait for the start, do one part, wait for the end."""
    loop = asyncio.get_running_loop()
    queue = Queue(ask["queue"], redis=ask["url"], **ask["settings"])
    produce = PRODUCERS.get(ask["mode"])
    if produce is not None:
        await queue.ready()
    tell({"ready": True})
    await loop.run_in_executor(None, sys.stdin.readline)
    if produce is not None:
        await produce(queue, ask["count"])
    else:
        WORKERS[ask["mode"]](queue, ask)
        await queue.ready()
        tell({"working": True})
    await loop.run_in_executor(None, sys.stdin.read)
    await queue.close()


if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    if options["uvloop"]:
        import uvloop

        uvloop.run(main(options))
    else:
        asyncio.run(main(options))
