"""OpenTelemetry spans, read from the SDK's own exporter."""

from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.propagate import inject
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from beeq import JobFailed, Queue
from beeq.protocol.keys import Keys
from beeq.sync import Queue as SyncQueue
from beeq.telemetry.tracing import SCHEMA_URL, Tracing

ROOT = Path(__file__).resolve().parents[2]
MakeQueue = Callable[..., Queue]

pytestmark = pytest.mark.fast
_exporter = InMemorySpanExporter()


@pytest.fixture
def spans() -> Iterator[Callable[[str], list[ReadableSpan]]]:
    """``spans("send")``: those that have ended, in that order."""
    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(_exporter))
        trace.set_tracer_provider(provider)
    _exporter.clear()
    yield lambda name: [span for span in _exporter.get_finished_spans() if span.name.startswith(name)]
    _exporter.clear()


@pytest.fixture
def tracer(spans: Any) -> trace.Tracer:
    return trace.get_tracer("test")


async def test_an_attempt_is_linked_to_the_span_that_sent_its_job(
    make_queue: MakeQueue, spans: Any, tracer: trace.Tracer
) -> None:
    queue = make_queue(tracing="link")
    queue.process(lambda _job: "done")
    with tracer.start_as_current_span("request") as request:
        job = await queue.enqueue({"a": 1})
    assert await job.result() == "done"
    await queue.close()
    (sent,), (processed,) = spans("send"), spans("process")
    assert (sent.name, sent.kind) == (f"send {queue.name}", SpanKind.PRODUCER)
    assert sent.parent.span_id == request.get_span_context().span_id
    assert (processed.name, processed.kind) == (f"process {queue.name}", SpanKind.CONSUMER)
    assert processed.parent is None
    assert [link.context.span_id for link in processed.links] == [sent.context.span_id]
    assert processed.context.trace_id != sent.context.trace_id
    for span, operation in ((sent, "send"), (processed, "process")):
        assert dict(span.attributes) == {
            "messaging.system": "bee_queue",
            "messaging.operation.name": operation,
            "messaging.operation.type": operation,
            "messaging.destination.name": queue.name,
            "messaging.message.id": job.id,
        }
        assert span.instrumentation_scope.schema_url == SCHEMA_URL
        assert span.status.status_code is StatusCode.UNSET


async def test_an_attempt_is_a_child_of_the_sending_on_request(make_queue: MakeQueue, spans: Any) -> None:
    queue = make_queue(tracing="child")
    queue.process(lambda _job: None)
    await (await queue.enqueue({})).result()
    await queue.close()
    (sent,), (processed,) = spans("send"), spans("process")
    assert processed.parent.span_id == sent.context.span_id
    assert processed.context.trace_id == sent.context.trace_id
    assert not processed.links


@pytest.mark.parametrize("kind", ["coroutine", "thread"])
async def test_what_a_handler_spans_is_part_of_its_attempt(
    make_queue: MakeQueue, spans: Any, tracer: trace.Tracer, kind: str
) -> None:
    async def handle(_job: Any) -> None:
        with tracer.start_as_current_span("inner"):
            await asyncio.sleep(0)

    def handle_in_thread(_job: Any) -> None:
        with tracer.start_as_current_span("inner"):
            pass

    queue = make_queue(tracing="link")
    queue.process(handle if kind == "coroutine" else handle_in_thread)
    await (await queue.enqueue({})).result()
    await queue.close()
    (inner,), (processed,) = spans("inner"), spans("process")
    assert inner.parent.span_id == processed.context.span_id


async def test_every_attempt_has_a_span_with_its_error(make_queue: MakeQueue, spans: Any) -> None:
    queue = make_queue(tracing="link")

    async def handle(_job: Any) -> None:
        raise KeyError("gone")

    queue.process(handle)
    job = await queue.enqueue({}, retries=2)
    with pytest.raises(JobFailed):
        await job.result()
    await queue.close()
    attempts = spans("process")
    assert len(attempts) == 3
    assert {link.context.span_id for span in attempts for link in span.links} == {
        spans("send")[0].context.span_id
    }
    for span in attempts:
        assert span.status.status_code is StatusCode.ERROR
        assert span.attributes["error.type"] == "KeyError"
        assert [event.name for event in span.events] == ["exception"]


async def test_a_timeout_is_the_error_of_its_attempt(make_queue: MakeQueue, spans: Any) -> None:
    queue = make_queue(tracing="link")

    async def handle(_job: Any) -> None:
        await asyncio.sleep(60)

    queue.process(handle)
    with pytest.raises(JobFailed):
        await (await queue.enqueue({}, timeout=50)).result()
    await queue.close()
    assert spans("process")[0].attributes["error.type"] == "beeq.errors.JobTimedOut"


async def test_a_handed_back_job_ends_its_span_without_error(make_queue: MakeQueue, spans: Any) -> None:
    queue = make_queue(tracing="link")
    has_begun = asyncio.Event()

    async def handle(_job: Any) -> None:
        has_begun.set()
        await asyncio.sleep(60)

    queue.process(handle)
    await queue.enqueue({})
    await has_begun.wait()
    with pytest.raises(TimeoutError):
        await queue.close(50)
    (span,) = spans("process")
    assert (span.status.status_code, [event.name for event in span.events]) == (
        StatusCode.UNSET,
        ["handed back"],
    )


async def test_many_jobs_are_sent_in_one_span(make_queue: MakeQueue, spans: Any) -> None:
    queue = make_queue(tracing="link")
    jobs = [queue.create_job({"n": n}) for n in range(3)]
    assert await queue.save_all(jobs) == {}
    (sent,) = spans("send")
    assert sent.attributes["messaging.batch.message_count"] == 3
    assert len({job.options["traceparent"] for job in jobs}) == 1


async def test_the_context_lies_flat_in_the_options_in_redis(
    make_queue: MakeQueue, spans: Any, redis: Any
) -> None:
    queue = make_queue(tracing="link")
    job = await queue.enqueue({}, retries=2)
    (sent,) = spans("send")
    found = await queue.get_job(job.id)
    assert found is not None
    trace_id, span_id = f"{sent.context.trace_id:032x}", f"{sent.context.span_id:016x}"
    assert found.options["traceparent"].startswith(f"00-{trace_id}-{span_id}-0")
    assert found.options["retries"] == 2


@pytest.mark.parametrize(
    "traceparent",
    ["", "00-0", 7, None, [], {"a": 1}, "x" * 100_000, "00-" + "0" * 32 + "-" + "0" * 16 + "-01"],
)
async def test_what_is_no_context_is_passed_over(make_queue: MakeQueue, spans: Any, traceparent: Any) -> None:
    producer = make_queue(is_worker=False)
    job = producer.create_job({})
    job.options["traceparent"] = traceparent
    await job.save()
    queue = make_queue(tracing="child")
    queue.process(lambda _job: "fine")
    assert await job.result() == "fine"
    await queue.close()
    (processed,) = spans("process")
    assert processed.parent is None
    assert not processed.links


async def test_a_context_that_a_node_producer_wrote_is_read(
    make_queue: MakeQueue, spans: Any, tracer: trace.Tracer, redis: Any, queue_name: str
) -> None:
    """Its side is ``propagation.inject(context.active(), job.options)``, which writes this."""
    options: dict[str, Any] = {"timestamp": 1, "stacktraces": []}
    with tracer.start_as_current_span("node") as node:
        inject(options)
    keys = Keys("bq", queue_name)
    queue = make_queue(tracing="link")
    job = queue.create_job({})
    job.options.update(options)
    queue.telemetry.tracing = None  # beeq's own producer would send another span
    await job.save()
    assert await redis.hexists(keys.jobs, job.id)
    queue.telemetry.tracing = Tracing(queue_name, "link")
    queue.process(lambda _job: None)
    await job.result()
    await queue.close()
    assert [link.context.span_id for link in spans("process")[0].links] == [node.get_span_context().span_id]


async def test_without_the_setting_there_is_no_span_and_no_option(
    make_queue: MakeQueue, spans: Any, tracer: trace.Tracer
) -> None:
    queue = make_queue()
    queue.process(lambda _job: None)
    with tracer.start_as_current_span("request"):
        job = await queue.enqueue({})
        await job.result()
    assert "traceparent" not in job.options
    assert spans("send") == spans("process") == []


async def test_an_sdk_that_raises_holds_up_no_job(
    make_queue: MakeQueue, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = make_queue(tracing="link")

    class Broken:
        def start_span(self, *_: Any, **__: Any) -> None:
            raise RuntimeError("no exporter")

    tracing = queue.telemetry.tracing
    assert tracing is not None
    monkeypatch.setattr(tracing, "_tracer", Broken())
    queue.process(lambda _job: "fine")
    assert await (await queue.enqueue({})).result() == "fine"
    assert await (await queue.enqueue({})).result() == "fine"
    assert [record.getMessage() for record in caplog.records if "span" in record.getMessage()] == [
        f"queue {queue.name}: a span failed: RuntimeError: no exporter"
    ]


def test_a_failing_spans_line_is_one_and_has_no_secrets(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def start_span(self, *_: Any, **__: Any) -> None:
            raise RuntimeError("https://ann:hush@collector is away")

    tracing = Tracing("mail\nforged", "link")
    monkeypatch.setattr(tracing, "_tracer", Broken())
    with tracing.sending([{}]):
        pass
    assert caplog.messages == [
        "queue mail\\nforged: a span failed: RuntimeError: https://***@collector is away"
    ]


def test_an_attempts_span_is_current_in_its_context_only() -> None:
    variables = contextvars.copy_context()
    tracing = Tracing("mail", "link")
    span = tracing.begin("1", {}, variables)
    assert variables.run(trace.get_current_span) is span
    assert trace.get_current_span() is not span
    tracing.end(span, None)


def test_without_the_extra_the_setting_names_it() -> None:
    code = (
        "import sys\n"
        "for name in ('opentelemetry', 'prometheus_client'): sys.modules[name] = None\n"
        "import beeq\n"
        "beeq.Queue('fine')\n"
        "for use in (lambda: beeq.Queue('mail', tracing='link'), lambda: __import__('beeq.metrics.collector')):\n"
        "    try: use()\n"
        "    except ImportError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT, check=True
    )
    assert done.stdout.splitlines() == [
        "tracing needs opentelemetry-api: pip install 'beequeue[otel]'",
        "metrics need prometheus-client: pip install 'beequeue[metrics]'",
    ]


async def test_a_blocking_save_is_part_of_its_callers_span(
    spans: Any, tracer: trace.Tracer, valkey: Any, queue_name: str
) -> None:
    def save() -> int:
        with (
            tracer.start_as_current_span("request") as request,
            SyncQueue(queue_name, redis=valkey.url, tracing="link") as queue,
        ):
            queue.enqueue({})
            return request.get_span_context().span_id

    span_id = await asyncio.to_thread(save)
    assert spans("send")[0].parent.span_id == span_id
