"""Webhook jobs against a real receiver: what each answer makes of the job."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from beeq import Discard, JobFailed, Postpone, Queue, Retry
from beeq.http_client import guard
from beeq.processors.base import ProcessorSettings
from beeq.processors.webhook import WebhookProcessor
from beeq.webhooks import delivery
from beeq.webhooks.delivery import DeliveryFailed
from tests.webhooks.receiver import Receiver, drip, reply, send

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@dataclass
class RunningJob:
    """A job as its handler sees it."""

    data: Any
    options: dict[str, Any] = field(default_factory=dict)
    id: str = "5e1b0cf7-9f2a-4c0e-8f3c-1f6f1d0a9f11"

    async def report_progress(self, value: Any) -> None:
        raise AssertionError(f"a webhook has no progress, and certainly not {value!r}")


def webhook(url: str, payload: Any = None, **options: Any) -> RunningJob:
    return RunningJob({"webhookUrl": url, "payload": payload or {"a": 1}, "retryCount": 3}, options)


MakeProcessor = Callable[..., WebhookProcessor]


@pytest.fixture
async def make_processor() -> AsyncIterator[MakeProcessor]:
    processors: list[WebhookProcessor] = []

    def make(allow: str = "127.0.0.1", secret: str | None = SECRET) -> WebhookProcessor:
        settings = ProcessorSettings(webhook_secret=secret, webhook_keys="shared", webhook_allow_hosts=allow)
        processors.append(WebhookProcessor(settings))
        return processors[-1]

    yield make
    for processor in processors:
        await processor.close()


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_a_2xx_succeeds_with_status_and_duration(make_processor: MakeProcessor, status: int) -> None:
    async with Receiver(reply(status, b"")) as receiver:
        result = await make_processor()(webhook(receiver.url()))

    assert result == {"status": status, "duration": result["duration"]}
    assert isinstance(result["duration"], int)
    assert 0 <= result["duration"] < 10_000


@pytest.mark.parametrize(
    "payload",
    [
        {"a": {"b": [1, 2.5, None, True]}, "ü": "😀"},
        {"big": 2**70},
        {"half": "\ud83d"},
        {"not a number": float("nan"), "without end": float("inf")},
    ],
)
async def test_the_payload_is_the_body_as_compact_json(
    make_processor: MakeProcessor, payload: dict[str, Any]
) -> None:
    async with Receiver() as receiver:
        await make_processor()(webhook(receiver.url(), payload))

    (request,) = receiver.requests
    finite = {key: None if isinstance(value, float) else value for key, value in payload.items()}
    assert json.loads(request.body) == finite
    assert b": " not in request.body
    Webhook(SECRET).verify(request.body, request.headers)


async def test_410_fails_the_job_for_good(make_processor: MakeProcessor) -> None:
    async with Receiver(reply(410, retry_after="5")) as receiver:
        with pytest.raises(Discard, match="webhook answered 410"):
            await make_processor()(webhook(receiver.url(), retries=5))


@pytest.mark.parametrize("status", [300, 301, 302, 307, 400, 401, 404, 409, 418, 429, 500, 502, 503, 599])
async def test_any_other_answer_is_left_to_the_jobs_policy(
    make_processor: MakeProcessor, status: int
) -> None:
    async with Receiver(reply(status)) as receiver:
        with pytest.raises(DeliveryFailed) as caught:
            await make_processor()(webhook(receiver.url("/path?token=hunter2"), retries=5))

    reported = ", and redirects are not followed" if status < 400 else ""
    assert str(caught.value) == f"webhook answered {status}{reported}"


def in_seconds(seconds: int) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("header", "expected_ms"),
    [
        (lambda: "120", 120_000),
        (lambda: "99999999999", 86_400_000),
        (lambda: in_seconds(600), 600_000),
        (lambda: in_seconds(10**7), 86_400_000),
    ],
    ids=["seconds", "too many seconds", "date", "distant date"],
)
async def test_a_longer_retry_after_replaces_the_backoff(
    make_processor: MakeProcessor, status: int, header: Callable[[], str], expected_ms: int
) -> None:
    job_options = {"backoff": {"strategy": "exponential", "delay": 2000}}
    async with Receiver(reply(status, retry_after=header())) as receiver:
        with pytest.raises(Retry, match=f"^webhook answered {status}$") as caught:
            await make_processor()(webhook(receiver.url(), **job_options))

    assert caught.value.after == pytest.approx(expected_ms, abs=30_000)


@pytest.mark.parametrize("header", ["0", "1", "2", "Sun, 06 Nov 1994 08:49:37 GMT", "soon"])
async def test_a_shorter_retry_after_leaves_the_backoff(make_processor: MakeProcessor, header: str) -> None:
    job_options = {"backoff": {"strategy": "exponential", "delay": 2000}}
    async with Receiver(reply(503, retry_after=header)) as receiver:
        with pytest.raises(DeliveryFailed, match=r"^webhook answered 503$"):
            await make_processor()(webhook(receiver.url(), **job_options))

    assert job_options["backoff"]["delay"] == 2000


@pytest.mark.parametrize(
    ("allow", "host"),
    [
        ("", "127.0.0.1"),
        ("", "localhost"),
        ("127.0.0.1:1", "127.0.0.1"),
        ("localhost", "127.0.0.1"),
        ("", "127.1"),
    ],
)
async def test_a_refused_address_fails_the_job_and_names_the_setting(
    make_processor: MakeProcessor, allow: str, host: str
) -> None:
    async with Receiver() as receiver:
        with pytest.raises(Discard, match="BEEQ_WEBHOOK_ALLOW_HOSTS") as caught:
            await make_processor(allow)(webhook(receiver.url("/?token=hunter2", host)))

    assert receiver.connections == 0
    assert host in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {"payload": {}},
        {"webhookUrl": "http://127.0.0.1:{port}/"},
        {"webhookUrl": 7, "payload": {}},
        {"webhookUrl": "ftp://127.0.0.1:{port}/hunter2", "payload": {}},
        {"webhookUrl": "http://127.0.0.1:{port}/", "payload": "hunter2"},
    ],
)
async def test_a_job_with_wrong_fields_is_discarded_uncalled(
    make_processor: MakeProcessor, data: Any
) -> None:
    async with Receiver() as receiver:
        filled = json.loads(json.dumps(data).replace("{port}", str(receiver.port)))
        with pytest.raises(Discard) as caught:
            await make_processor()(RunningJob(filled))

    assert receiver.connections == 0
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "variable"),
    [
        (ProcessorSettings(webhook_secret="hunter2"), "BEEQ_WEBHOOK_SECRET"),
        (ProcessorSettings(webhook_secret=""), "BEEQ_WEBHOOK_SECRET"),
        (ProcessorSettings(webhook_allow_hosts="http://a"), "BEEQ_WEBHOOK_ALLOW_HOSTS"),
    ],
)
def test_bad_settings_are_noticed_before_the_first_job(settings: ProcessorSettings, variable: str) -> None:
    with pytest.raises(ValueError, match=variable) as caught:
        WebhookProcessor(settings)

    assert "hunter2" not in str(caught.value)


async def test_a_body_without_end_does_not_outlast_the_jobs_timeout(
    make_processor: MakeProcessor,
) -> None:
    dripping = drip(b"HTTP/1.1 200 OK\r\ncontent-length: 9999999\r\n\r\n", b"x")
    async with Receiver(dripping) as receiver, asyncio.timeout(4):
        result = await make_processor()(webhook(receiver.url(), timeout=4000))

    assert result["status"] == 200


async def test_an_attempt_has_a_limit_even_where_the_job_has_none(
    make_processor: MakeProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "ATTEMPT_TIMEOUT_S", 0.2)
    async with Receiver(send(hang_up=False)) as receiver, asyncio.timeout(5):
        with pytest.raises(DeliveryFailed, match="did not answer in time"):
            await make_processor()(webhook(receiver.url()))


# --- In a queue -----------------------------------------------------------------------------


@pytest.fixture
async def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Queue]:
    monkeypatch.chdir(tmp_path)  # where the embedded server keeps its folder
    async with Queue("webhook-processing", redis="embedded:") as queue:
        yield queue


async def test_attempts_of_one_job_carry_one_id_and_honour_retry_after(
    make_processor: MakeProcessor, queue: Queue
) -> None:
    scripts = [reply(500), reply(503, retry_after="1"), reply(200)]
    async with Receiver(*scripts) as receiver:
        queue.process(make_processor(), concurrency=3)
        job = await queue.enqueue(webhook(receiver.url()).data, id="job-ż", retries=5)
        await receiver.until_requests(2)
        asked_s = time.monotonic()
        result = await job.result(timeout=20_000)
        waited_s = time.monotonic() - asked_s

    assert result["status"] == 200
    assert waited_s > 0.8
    assert [request.headers["webhook-id"] for request in receiver.requests] == ["job-%C5%BC"] * 3
    for request in receiver.requests:
        Webhook(SECRET).verify(request.body, request.headers)


@pytest.mark.parametrize(("allow", "status"), [("127.0.0.1", 410), ("", 200)])
async def test_a_gone_receiver_and_a_refused_one_use_up_no_retries(
    make_processor: MakeProcessor, queue: Queue, allow: str, status: int
) -> None:
    async with Receiver(reply(status)) as receiver:
        queue.process(make_processor(allow))
        job = await queue.enqueue(webhook(receiver.url("/?token=hunter2")).data, retries=5)
        with pytest.raises(JobFailed) as caught:
            await job.result(timeout=20_000)

    stored = await queue.get_job(str(job.id))
    assert stored is not None
    assert len(receiver.requests) == (1 if status == 410 else 0)
    assert stored.options["retries"] == 5
    assert len(stored.options["stacktraces"]) == 1
    reported = str(caught.value) + "".join(stored.options["stacktraces"])
    assert "hunter2" not in reported
    assert SECRET.removeprefix("whsec_") not in reported


async def test_a_host_or_url_out_of_all_bounds_is_refused(make_processor: MakeProcessor) -> None:
    name = ".".join(["a" * 61] * 4) + ".example"
    with pytest.raises(Discard, match="host has more than 253 characters"):
        await make_processor()(webhook(f"http://{name}/"))
    with pytest.raises(Discard, match="host has more than 253 characters"):
        await make_processor()(webhook(f"http://a{'.' * 300}/"))
    for name in ("hooks.example..", ".hooks.example", "hooks..example", ".", "1.2.3.4.."):
        with pytest.raises(Discard, match="a part between its dots is empty"):
            await make_processor()(webhook(f"http://{name}/"))


async def test_slow_names_of_others_use_up_nothing_of_a_job(
    make_processor: MakeProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, held, ask = threading.Event(), threading.Semaphore(0), socket.getaddrinfo

    def getaddrinfo(host: str, port: int, **given: Any) -> Any:
        if host.startswith("slow"):
            held.release()
            assert go_on.wait(60)
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return ask("127.0.0.1" if host == "good.example" else host, port, **given)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(guard, "_THREAD_WAIT_S", 0.01)
    processor = make_processor("good.example")
    async with Receiver() as receiver:
        slow = [asyncio.create_task(processor(webhook(f"http://slow{n}.example/"))) for n in range(16)]
        try:
            for _ in slow:
                assert await asyncio.to_thread(held.acquire, timeout=30)
            for _ in range(12):  # more than open a circuit
                with pytest.raises(Postpone, match="too many slow host names"):
                    await processor(webhook(receiver.url(host="good.example")))
        finally:
            go_on.set()
        failures = await asyncio.gather(*slow, return_exceptions=True)
        assert {type(failure) for failure in failures} == {DeliveryFailed}
        assert (await processor(webhook(receiver.url(host="good.example"))))["status"] == 200


async def test_a_job_has_no_more_than_100_retries(make_processor: MakeProcessor, queue: Queue) -> None:
    queue.process(make_processor())
    async with Receiver(reply(404)) as receiver:
        job = await queue.enqueue(webhook(receiver.url()).data, retries=9 * 10**15)
        with pytest.raises(JobFailed, match="answered 404"):
            await job.result(timeout=60_000)

    assert len(receiver.requests) == 1 + 100


async def test_a_2xx_with_a_malformed_head_is_sent_once(make_processor: MakeProcessor, queue: Queue) -> None:
    queue.process(make_processor())
    async with Receiver(send(b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n")) as receiver:
        job = await queue.enqueue(webhook(receiver.url()).data, retries=5, backoff="immediate")
        assert (await job.result(10_000))["status"] == 200

    assert len(receiver.requests) == 1


async def test_what_may_have_arrived_comes_again_under_its_id(
    make_processor: MakeProcessor, queue: Queue
) -> None:
    queue.process(make_processor())
    async with Receiver(send(), reply()) as receiver:  # the first takes the message and hangs up
        job = await queue.enqueue(webhook(receiver.url()).data, retries=5, backoff="immediate")
        assert (await job.result(10_000))["status"] == 200

    assert [request.headers["webhook-id"] for request in receiver.requests] == [job.id] * 2
    assert receiver.requests[0].body == receiver.requests[1].body
