"""beeq's metrics in a program's own registry, read by Prometheus's own parser."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import redis.asyncio
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as text_format

from beeq import Queue
from beeq.metrics import QueueCollector
from beeq.metrics.families import Readings, rendered
from beeq.telemetry.tally import QueueTally

MakeQueue = Callable[..., Queue]

pytestmark = pytest.mark.fast
#: Every metric, and the labels it may have.
LABELS = {
    "beeq_jobs": {"queue", "state"},
    "beeq_queue_oldest_waiting_seconds": {"queue"},
    "beeq_queue_paused": {"queue"},
    "beeq_worker_slots": {"queue"},
    "beeq_worker_slots_busy": {"queue"},
    "beeq_worker_last_turn_timestamp_seconds": {"queue"},
    "beeq_mirror_lag_jobs": {"queue"},
    "beeq_build_info": {"version"},
    "beeq_jobs_enqueued": {"queue"},
    "beeq_jobs_finished": {"queue", "outcome"},
    "beeq_jobs_stalled": {"queue"},
    "beeq_jobs_lost": {"queue"},
    "beeq_redis_errors": {"queue"},
    "beeq_job_duration_seconds": {"queue", "le"},
    "beeq_job_wait_seconds": {"queue", "le"},
}


async def scraped(*queues: Queue) -> dict[tuple[str, ...], float]:
    """Return each sample by its name and its labels' values, those of the queue left out."""
    registry = CollectorRegistry()
    registry.register(QueueCollector(*queues))
    text = await asyncio.to_thread(generate_latest, registry)
    names = {queue.name for queue in queues}
    return {
        (sample.name, *(value for value in sample.labels.values() if value not in names)): sample.value
        for family in text_format(text.decode())
        for sample in family.samples
    }


async def test_a_queue_shows_its_jobs_its_work_and_its_counts(make_queue: MakeQueue) -> None:
    queue = make_queue(mirrored=True)
    assert await scraped(queue)
    for n in range(3):
        await queue.enqueue({"n": n})
    await queue.enqueue({}, delay_until="1h")
    found = await scraped(queue)
    assert found["beeq_jobs", "waiting"] == 3
    assert found["beeq_jobs", "delayed"] == 1
    assert found["beeq_jobs_enqueued_total",] == 4
    assert found["beeq_queue_oldest_waiting_seconds",] >= 0
    assert found["beeq_mirror_lag_jobs",] == 4
    assert found["beeq_queue_paused",] == 0
    assert ("beeq_worker_slots",) not in found

    async def handle(job: Any) -> None:
        if job.data["n"] == 1:
            raise ValueError

    job = await queue.enqueue({"n": 3})
    queue.process(handle, concurrency=2)
    await job.result()
    found = await scraped(queue)
    assert found["beeq_worker_slots",] == 2
    assert found["beeq_worker_last_turn_timestamp_seconds",] > 1.7e9
    assert found["beeq_jobs_finished_total", "failed"] == 1
    assert found["beeq_job_duration_seconds_count",] == found["beeq_job_wait_seconds_count",] == 4
    assert found["beeq_job_duration_seconds_bucket", "+Inf"] == 4


def test_names_and_labels_are_the_promised_ones() -> None:
    content, content_type = rendered(Readings({"mail": QueueTally().read()}), "")
    assert content_type.startswith("text/plain")
    seen = {family.name: family for family in text_format(content.decode())}
    assert seen.keys() == LABELS.keys()
    for name, family in seen.items():
        assert {label for sample in family.samples for label in sample.labels} <= LABELS[name]
        assert family.documentation
    open_text, open_type = rendered(Readings({"mail": QueueTally().read()}), "application/openmetrics-text")
    assert open_type.startswith("application/openmetrics-text")
    assert {family.name for family in open_metrics(open_text.decode())} == LABELS.keys()


@pytest.mark.parametrize("name", ['a"b\\c\nd', "a:b", "{tag}*", "ünï🐝"])
def test_any_name_of_a_queue_is_a_label(name: str) -> None:
    content, _ = rendered(Readings({name: QueueTally().read()}), "")
    labels = {
        sample.labels["queue"]
        for family in text_format(content.decode())
        for sample in family.samples
        if "queue" in sample.labels
    }
    assert labels == {name}


async def test_a_scrape_in_the_queues_own_loop_has_an_answer(make_queue: MakeQueue) -> None:
    queue = make_queue()
    await queue.enqueue({})
    metrics = {metric.name: metric for metric in QueueCollector(queue).collect()}
    assert sum(sample.value for sample in metrics["beeq_jobs"].samples) == 1


async def test_a_paused_queue_shows_it(make_queue: MakeQueue) -> None:
    queue = make_queue()
    await queue.pause()
    assert (await scraped(queue))["beeq_queue_paused",] == 1
    await queue.resume()
    assert (await scraped(queue))["beeq_queue_paused",] == 0


@pytest.mark.real_redis("a client of redis-py's own")
async def test_a_queue_with_its_own_client_is_read(valkey: Any, queue_name: str) -> None:
    client = redis.asyncio.from_url(valkey.url)
    async with client, Queue(queue_name, redis=client) as queue:
        await queue.enqueue({})
        assert (await scraped(queue))["beeq_jobs", "waiting"] == 1


async def test_a_defect_of_a_scrape_is_logged(
    make_queue: MakeQueue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def breaks(_reader: object) -> None:
        raise ZeroDivisionError("defect")

    monkeypatch.setattr("beeq.metrics.gauges.Reader.stats", breaks)
    queue = make_queue()
    assert ("beeq_jobs", "waiting") not in await scraped(queue)
    (record,) = [each for each in caplog.records if each.levelname == "WARNING"]
    assert record.getMessage() == f"queue {queue.name}: cannot be looked at: ZeroDivisionError: defect"
    assert record.exc_info


async def test_without_redis_a_scrape_has_the_counts_in_time() -> None:
    queue = Queue("away", redis="redis://127.0.0.1:1")
    began = asyncio.get_running_loop().time()
    found = await scraped(queue)
    assert asyncio.get_running_loop().time() - began < 5
    assert found["beeq_jobs_enqueued_total",] == 0
    assert ("beeq_jobs", "waiting") not in found


def test_two_queues_of_a_name_cannot_be_told_apart() -> None:
    for queues in ((), (Queue("mail"), Queue("mail", prefix="other"))):
        with pytest.raises(ValueError, match="each with a name of its own"):
            QueueCollector(*queues)
