"""The context of a trace, in the options of a record that Node writes, hands on and rewrites."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from beeq import Queue
from tests.support.node_bee import NodeBee

MakeQueue = Callable[..., Queue]
MakeNode = Callable[..., Awaitable[NodeBee]]

#: What ``propagation.inject(context.active(), job.options)`` writes.
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CONTEXT = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=1"}


def _keeping_spans() -> InMemorySpanExporter:
    kept = InMemorySpanExporter()
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider(shutdown_on_exit=False)
        trace.set_tracer_provider(provider)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    return kept


async def test_an_attempt_goes_on_with_nodes_trace(make_queue: MakeQueue, node: NodeBee) -> None:
    kept = _keeping_spans()
    queue = make_queue(tracing="child")
    job_id = await node.save({"act": "return", "value": 1}, options=CONTEXT)
    queue.process(lambda _job: 1)
    job = await queue.get_job(job_id)
    assert job is not None
    await job.result()
    await queue.close()
    (span,) = [each for each in kept.get_finished_spans() if each.name == f"process {queue.name}"]
    assert span.parent is not None
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, SPAN)
    assert dict(span.context.trace_state) == {"vendor": "1"}


async def test_node_hands_on_the_context_through_an_attempt(
    make_queue: MakeQueue, make_node: MakeNode
) -> None:
    _keeping_spans()
    queue = make_queue(is_worker=False, tracing="link")
    await make_node(concurrency=1)
    job = await queue.enqueue({"act": "flaky", "times": 1, "value": "done"}, retries=1)
    sent = dict(job.options)
    assert await job.result() == "done"
    rewritten = await queue.get_job(str(job.id))
    assert rewritten is not None
    assert rewritten.options["traceparent"] == sent["traceparent"]
    assert rewritten.options["retries"] == 0, "Node has rewritten the record"
