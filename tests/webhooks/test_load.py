"""Many webhooks at once: slow receivers hold nobody up, and nothing is leaked."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from standardwebhooks.webhooks import Webhook

from beeq import Queue
from beeq.processors.base import ProcessorSettings
from beeq.processors.webhook import WebhookProcessor
from tests.webhooks.receiver import Receiver, reply

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
async def processor() -> AsyncIterator[WebhookProcessor]:
    settings = ProcessorSettings(
        webhook_secret=SECRET, webhook_keys="shared", webhook_allow_hosts="127.0.0.1"
    )
    processor = WebhookProcessor(settings)
    yield processor
    await processor.close()


class Gate:
    """Lets requests wait until ``size`` of them are there, and then all of them go."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._waiting = 0
        self._open = asyncio.Event()
        self.most_at_once = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._waiting += 1
        self.most_at_once = max(self.most_at_once, self._waiting)
        gate = self._open
        if self._waiting == self._size:
            self._waiting, self._open = 0, asyncio.Event()
            gate.set()
        await gate.wait()
        await reply()(reader, writer)


def open_files() -> int:
    """Return how many files this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def deliver(queue: Queue, url: str, count: int) -> None:
    """Enqueue that many webhooks and wait for all of them."""
    jobs = [queue.create_job({"webhookUrl": url, "payload": {"n": n}}) for n in range(count)]
    assert await queue.save_all(jobs) == {}
    results = await asyncio.gather(*(job.result(timeout=60_000) for job in jobs))
    assert {result["status"] for result in results} == {200}


async def test_a_slow_receiver_is_called_up_to_the_concurrency_at_once(
    make_queue: Callable[..., Queue], processor: WebhookProcessor
) -> None:
    """So a hundred webhooks that take a second each take about two, at concurrency 50."""
    gate = Gate(50)
    async with Receiver(gate) as receiver:
        queue = make_queue()
        queue.process(processor, concurrency=50)
        await deliver(queue, receiver.url(), 100)
        assert gate.most_at_once == 50
        assert (
            Counter(request.headers["webhook-id"] for request in receiver.requests).most_common(1)[0][1] == 1
        )
        for request in receiver.requests:
            Webhook(SECRET).verify(request.body, request.headers)


@pytest.mark.external  # it takes long
async def test_a_thousand_webhooks_leave_no_connection_file_or_task(
    make_queue: Callable[..., Queue], processor: WebhookProcessor
) -> None:
    queue = make_queue()
    queue.process(processor, concurrency=50)
    async with Receiver() as receiver:
        await deliver(queue, receiver.url(), 50)
        tasks, files = len(asyncio.all_tasks()), open_files()
        await deliver(queue, receiver.url(), 1000)
        # What is kept open for the next delivery is bounded, and was there before.
        assert open_files() <= files + 10
        assert len(asyncio.all_tasks()) <= tasks + 10
        await processor.close()
        await receiver.until_open(0)
    assert len(receiver.requests) == 1050
