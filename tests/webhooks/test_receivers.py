"""A running worker whose receivers are dead, failing or slow: the others get their webhooks, and no retry is lost."""

from __future__ import annotations

import asyncio
import contextlib
import tracemalloc
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from beeq import Job, JobFailed, Queue
from beeq.http_client.addresses import AllowedHosts
from beeq.processors.base import ProcessorSettings
from beeq.processors.webhook import WebhookProcessor
from beeq.webhooks.delivery import DeliveryGivenUp, Patience, WebhookSender
from beeq.webhooks.receivers.admission import ReceiverBusy, ReceiverLimits, Receivers
from beeq.webhooks.urls import target_of
from tests.support.server import free_port
from tests.webhooks.receiver import Receiver, Script, reply, send

WAIT_MS = 30_000


async def hand_back(queue: Queue) -> None:
    with contextlib.suppress(TimeoutError):  # it says that jobs ran, and were handed back
        await queue.close(timeout=1)


@pytest.fixture
async def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Queue]:
    monkeypatch.chdir(tmp_path)  # where the embedded server keeps its folder
    queue = Queue("webhook-processing", redis="embedded:", delayed_debounce=1)
    await queue.connect()
    yield queue
    await hand_back(queue)


@pytest.fixture
async def work(queue: Queue) -> AsyncIterator[Callable[..., None]]:
    processors: list[WebhookProcessor] = []

    def begin(concurrency: int, **limits: Any) -> None:
        settings = ProcessorSettings(webhook_allow_hosts="127.0.0.1,127.0.0.2,localhost")
        processors.append(WebhookProcessor(settings, receivers=ReceiverLimits(**limits)))
        queue.process(processors[0], concurrency=concurrency)

    yield begin
    await hand_back(queue)
    for processor in processors:
        await processor.close()


async def enqueue(queue: Queue, url: str, count: int, **options: Any) -> list[Job]:
    return [await queue.enqueue({"webhookUrl": url, "payload": {"n": n}}, **options) for n in range(count)]


async def until(condition: Callable[[], Any], queue: Queue) -> None:
    """Wait until something holds of the queue; each event of a job is a reason to look."""
    changed = asyncio.Event()
    for event in ("postponed", "retrying", "succeeded"):
        queue.on(event, lambda *_: changed.set())
    async with asyncio.timeout(WAIT_MS / 1000):
        while not await condition():
            await changed.wait()
            changed.clear()


def postponed_ms(job: Job | None) -> int:
    assert job is not None
    return int(job.options.get("beeq", {}).get("postponed", 0))


# --- Circuits -------------------------------------------------------------------------------


@pytest.mark.parametrize("script", [reply(500), reply(429), send()], ids=["500", "429", "hangs up"])
async def test_a_failing_receiver_is_left_alone_and_the_others_go_on(
    queue: Queue, work: Callable[..., None], script: Script
) -> None:
    async with Receiver(script) as failing, Receiver() as good:
        bad = await enqueue(queue, failing.url(), 30, retries=7, backoff="immediate")
        fine = await enqueue(queue, good.url(), 5)
        work(3, max_failures=5, first_pause_s=3600, longest_pause_s=3600)
        for job in fine:
            assert (await job.result(WAIT_MS))["status"] == 200

        async def all_wait() -> bool:
            return (await queue.check_health()).delayed == 30

        await until(all_wait, queue)
        assert len(failing.requests) <= 5 + 2  # those under way when it was one too many
        records = [await queue.get_job(str(job.id)) for job in bad]
        attempts = sum(len(record.options["stacktraces"]) for record in records if record)
        assert attempts == len(failing.requests)
        assert sum(7 - record.options["retries"] for record in records if record) == attempts
        assert all(postponed_ms(record) >= 3_600_000 for record in records)


async def test_a_host_that_refuses_connections_is_left_alone(queue: Queue, work: Callable[..., None]) -> None:
    url = f"http://127.0.0.1:{free_port()}/hook"
    async with Receiver() as good:
        bad = await enqueue(queue, url, 10, retries=7, backoff="immediate")
        fine = await enqueue(queue, good.url(), 5)
        work(1, max_failures=4, first_pause_s=3600, longest_pause_s=3600)
        for job in fine:
            assert (await job.result(WAIT_MS))["status"] == 200

        async def all_wait() -> bool:
            return (await queue.check_health()).delayed == 10

        await until(all_wait, queue)
        records = [await queue.get_job(str(job.id)) for job in bad]
        assert sum(7 - record.options["retries"] for record in records if record) == 4


async def test_jobs_are_delivered_when_the_receiver_is_back(queue: Queue, work: Callable[..., None]) -> None:
    scripts = [reply(500)] * 4 + [reply(200)]
    async with Receiver(*scripts) as receiver:
        jobs = await enqueue(queue, receiver.url(), 6, retries=4, backoff="immediate")
        work(1, max_failures=3, first_pause_s=0.2)
        for job in jobs:
            assert (await job.result(WAIT_MS))["status"] == 200

    assert len(receiver.requests) == 4 + 6


async def test_a_job_that_waited_for_a_day_fails_with_the_reason(
    queue: Queue, work: Callable[..., None]
) -> None:
    async with Receiver(reply(500)) as receiver:
        work(1, max_failures=1, first_pause_s=25 * 3600, longest_pause_s=25 * 3600)
        first, second = await enqueue(queue, receiver.url("/hunter2"), 2, retries=0)
        with pytest.raises(JobFailed, match="webhook answered 500"):
            await first.result(WAIT_MS)
        with pytest.raises(
            JobFailed, match="failed too often.*the job was postponed for a day in all"
        ) as caught:
            await second.result(WAIT_MS)

    assert f"127.0.0.1:{receiver.port} " in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(("postponed", "is_sent"), [(3_600_001, True), (3_600_000, False)])
async def test_a_job_put_off_for_an_hour_is_sent_in_spite_of_all(
    queue: Queue, work: Callable[..., None], postponed: int, is_sent: bool
) -> None:
    async with Receiver(reply(500), reply(500), reply(200)) as receiver:
        work(1, max_failures=2, first_pause_s=30 * 60, longest_pause_s=30 * 60)
        for job in await enqueue(queue, receiver.url(), 2):
            with pytest.raises(JobFailed, match="answered 500"):
                await job.result(WAIT_MS)
        put_off = queue.create_job({"webhookUrl": receiver.url(), "payload": {}})
        put_off.options["beeq"] = {"postponed": postponed}
        await put_off.save()
        if is_sent:
            assert (await put_off.result(WAIT_MS))["status"] == 200
            (next_one,) = await enqueue(queue, receiver.url(), 1)  # a success closes the circuit
            assert (await next_one.result(WAIT_MS))["status"] == 200
        else:

            async def it_waits() -> bool:
                return (await queue.check_health()).delayed == 1

            await until(it_waits, queue)
            assert len(receiver.requests) == 2


async def test_an_attempt_in_spite_of_the_circuit_uses_a_retry(
    queue: Queue, work: Callable[..., None]
) -> None:
    async with Receiver(reply(500)) as receiver:
        work(1, max_failures=1, first_pause_s=3600, longest_pause_s=3600)
        put_off = queue.create_job({"webhookUrl": receiver.url(), "payload": {}}).retries(3)
        put_off.options["beeq"] = {"postponed": 2 * 3_600_000}
        await put_off.save()
        with pytest.raises(JobFailed, match="answered 500"):
            await put_off.result(WAIT_MS)
    assert len(receiver.requests) == 4


@pytest.mark.external  # it takes long
async def test_long_urls_are_not_kept_in_memory() -> None:
    receivers = Receivers(ReceiverLimits(max_failures=1, first_pause_s=3600, longest_pause_s=3600))
    rest = "/" + "é" * 10_000  # six characters each, as it is sent
    tracemalloc.start()
    try:
        for n in range(20):
            with receivers.admit(target_of(f"http://h{n}.example{rest}{n}"), None) as visit:
                visit.answered(500)
        kept_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    with pytest.raises(ReceiverBusy):  # it is remembered nevertheless
        receivers.admit(target_of(f"http://h7.example{rest}7"), None)
    receivers.admit(target_of(f"http://h7.example{rest}8"), None)
    assert kept_bytes < 300_000  # 20 of 60 KB would be 1.2 MB


async def test_a_receiver_that_outlasts_the_jobs_timeout_has_failed(
    queue: Queue, work: Callable[..., None]
) -> None:
    async with Receiver(send(hang_up=False)) as silent:
        work(1, max_failures=2, first_pause_s=3600, longest_pause_s=3600, slow_s=0.1)
        jobs = await enqueue(queue, silent.url(), 3, timeout=200)
        for job in jobs[:2]:
            with pytest.raises(JobFailed, match="timed out"):
                await job.result(WAIT_MS)

        async def one_waits() -> bool:
            return (await queue.check_health()).delayed == 1

        await until(one_waits, queue)
        assert len(silent.requests) <= 2  # a busy machine's attempt may end before it is sent


async def test_a_timeout_too_short_tells_nothing_of_the_receiver(
    queue: Queue, work: Callable[..., None]
) -> None:
    postponed: list[object] = []
    queue.on("postponed", lambda job, *_: postponed.append(job))
    async with Receiver(send(hang_up=False)) as silent:
        work(3, max_failures=2, first_pause_s=3600, longest_pause_s=3600)
        for job in await enqueue(queue, silent.url(), 9, timeout=200):
            with pytest.raises(JobFailed, match="timed out"):
                await job.result(WAIT_MS)

    assert postponed == []  # neither is the circuit open, nor the host a slow one


# --- Places ---------------------------------------------------------------------------------


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that is put off asks again after a fifth of the shortest time, or of the time of a slow attempt."""
    monkeypatch.setattr("beeq.webhooks.receivers.places.SHORTEST_WAIT_S", 0.2)


@pytest.mark.usefixtures("short_waits")
async def test_a_silent_receiver_does_not_hold_all_places(queue: Queue, work: Callable[..., None]) -> None:
    async with Receiver(send(hang_up=False)) as silent, Receiver(address="127.0.0.2") as good:
        slow = await enqueue(queue, silent.url(), 20, retries=3)
        work(4, slow_s=0.2)
        await silent.until_requests(4)  # it holds all of them …
        fine = await enqueue(queue, good.url(), 10)
        for job in fine:
            assert (await job.result(WAIT_MS))["status"] == 200
        await silent.until_open(2)  # … and then its share
        records = [await queue.get_job(str(job.id)) for job in slow]
        assert [record.options["retries"] for record in records if record] == [3] * 20
        assert [record.options["stacktraces"] for record in records if record] == [[]] * 20
        await hand_back(queue)  # before the receivers close: no call comes then


@pytest.mark.usefixtures("short_waits")
async def test_a_good_endpoint_gets_its_turn_beside_silent_ones(
    queue: Queue, work: Callable[..., None]
) -> None:
    async def by_path(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_good = "/good" in receiver.requests[-1].line
        await (reply() if is_good else send(hang_up=False))(reader, writer)

    async with Receiver(by_path) as receiver:
        for n in range(6):
            await enqueue(queue, receiver.url(f"/silent/{n}"), 3, retries=3)
        work(4, slow_s=0.5)
        await receiver.until_requests(4)
        for path in ("/good", "/good", "/good/new"):
            (fine,) = await enqueue(queue, receiver.url(path), 1)
            assert (await fine.result(WAIT_MS))["status"] == 200
        await hand_back(queue)  # before the receiver closes: no call comes then


@pytest.mark.usefixtures("short_waits")
async def test_many_silent_hosts_leave_a_place_to_the_others(queue: Queue, work: Callable[..., None]) -> None:
    async with Receiver(send(hang_up=False)) as silent, Receiver(address="127.0.0.2") as good:
        for n in range(20):
            await enqueue(queue, silent.url(host=("127.0.0.1", "localhost")[n % 2]), 1)
        work(4, slow_s=0.2)
        await silent.until_requests(4)
        (fine,) = await enqueue(queue, good.url(), 1)
        assert (await fine.result(WAIT_MS))["status"] == 200
        await silent.until_open(3)
        await hand_back(queue)  # before the receivers close: no call comes then


async def test_a_given_up_message_comes_again_under_its_id(queue: Queue, work: Callable[..., None]) -> None:
    one_is_given_up = asyncio.Event()
    queue.on("postponed", lambda *_: one_is_given_up.set())

    async def held(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await one_is_given_up.wait()
        await reply()(reader, writer)

    async with Receiver(held, held, reply()) as receiver:
        work(2, slow_s=0.2)
        jobs = await enqueue(queue, receiver.url(), 2)
        for job in jobs:
            assert (await job.result(WAIT_MS))["status"] == 200
        ids = [request.headers["webhook-id"] for request in receiver.requests]

    assert len(ids) == 3
    assert set(ids) == {job.id for job in jobs}


# --- The delivery by itself -------------------------------------------------------------------


@pytest.fixture
async def sender() -> AsyncIterator[WebhookSender]:
    sender = WebhookSender(AllowedHosts.parse("127.0.0.1"))
    yield sender
    await sender.aclose()


async def test_a_delivery_is_given_up_when_patience_is_over(sender: WebhookSender) -> None:
    async with Receiver(send(hang_up=False)) as silent, asyncio.timeout(10):
        with pytest.raises(DeliveryGivenUp):
            await sender.deliver(silent.url(), "7", b"{}", patience=Patience(0.05, lambda: True))
        await silent.until_open(0)


async def test_a_delivery_goes_on_when_patience_is_not_over(sender: WebhookSender) -> None:
    asked = asyncio.Event()

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked.wait()
        await reply()(reader, writer)

    def is_over() -> bool:
        asked.set()
        return False

    async with Receiver(late) as receiver, asyncio.timeout(10):
        answer = await sender.deliver(receiver.url(), "7", b"{}", patience=Patience(0.05, is_over))
    assert answer.status == 200


async def test_nobody_asks_once_the_status_line_is_there(sender: WebhookSender) -> None:
    asked: list[bool] = []
    endless = send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", hang_up=False)
    async with Receiver(endless) as receiver, asyncio.timeout(10):
        patience = Patience(0.2, lambda: asked.append(True) or True)  # type: ignore[func-returns-value]
        answer = await sender.deliver(receiver.url(), "7", b"{}", timeout_s=1, patience=patience)

    assert (answer.status, asked) == (200, [])
