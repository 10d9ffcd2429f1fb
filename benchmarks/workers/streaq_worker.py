"""A worker of streaq, on uvloop: its command imports this."""
# mypy: disable-error-code="import-not-found, untyped-decorator"

import os

from streaq import Worker

worker = Worker(
    redis_url=os.environ["BENCH_URL"],
    queue_name="bench",
    concurrency=int(os.environ["BENCH_CONCURRENCY"]),
    anyio_kwargs={"use_uvloop": True},
)


@worker.task(silent=True)  # a line of its log for each job would be part of what is measured
async def nothing(_i: int) -> None:
    """Do nothing."""


async def enqueue(count: int) -> None:
    """Put jobs into the queue, some hundred at a time."""
    async with worker:
        for first in range(0, count, 500):
            numbers = range(first, min(first + 500, count))
            await worker.enqueue_many([nothing.enqueue(i) for i in numbers])
