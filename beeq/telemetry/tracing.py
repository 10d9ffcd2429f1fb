"""OpenTelemetry spans of one queue: ``send NAME`` where a job is saved, ``process NAME`` for each attempt.

The context travels flat in the job's options, under the propagator's own names (``traceparent``,
``tracestate``, ``baggage``): a Node peer hands them on, and reads and writes them by
``propagation.extract(context, job.options)`` and ``propagation.inject(context, job.options)``.

Names and attributes are those of OpenTelemetry's semantic conventions for messaging, version 1.37.0. Needs
the API only; without an SDK in the process every span is one that records nothing. Errors of an SDK, a
propagator or an exporter are logged once, and do not affect jobs.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextvars import Context
from typing import TYPE_CHECKING, Any, Literal, Self

from beeq.errors import text_of
from beeq.logs.records import log_event

if TYPE_CHECKING:
    from opentelemetry.context import Context as TraceContext
    from opentelemetry.trace import Link, Span

#: How an attempt's span refers to the one that saved the job: by a link, or as its parent.
Mode = Literal["link", "child"]
SCHEMA_URL = "https://opentelemetry.io/schemas/1.37.0"
#: The options that are not a propagator's.
_OWN_OPTIONS = frozenset(("timestamp", "stacktraces", "retries", "backoff", "timeout", "delay", "beeq"))
#: A longer text in the options is not a context: W3C bounds baggage to this.
_LONGEST_TEXT = 8192


class _OptionsGetter:
    """Reads a context out of a job's options, which may hold anything."""

    @staticmethod
    def get(carrier: Mapping[str, Any], key: str) -> list[str] | None:
        value = carrier.get(key)
        return [value] if isinstance(value, str) and len(value) <= _LONGEST_TEXT else None

    @staticmethod
    def keys(carrier: Mapping[str, Any]) -> list[str]:
        return list(carrier)


class Tracing:
    """Makes the spans of one queue.

    Raises:
        ImportError: OpenTelemetry's API is missing; the message names the extra.
    """

    def __init__(self, queue_name: str, mode: Mode) -> None:
        try:
            from opentelemetry import context, propagate, trace  # noqa: PLC0415 - an extra
        except ImportError:
            raise ImportError(
                "tracing needs opentelemetry-api: pip install 'beequeue[otel]'", name="opentelemetry"
            ) from None
        self._context, self._propagate, self._trace = context, propagate, trace
        self._queue_name = queue_name
        self._is_parent = mode == "child"
        # A proxy, until the application has set a provider; the API itself looks for it again.
        self._tracer = trace.get_tracer("beeq", schema_url=SCHEMA_URL)
        self._has_failed = False

    @classmethod
    def of(cls, queue_name: str, mode: Mode | None) -> Self | None:
        """Return the tracing of the setting ``tracing``, or None."""
        return None if mode is None else cls(queue_name, mode)

    @contextlib.contextmanager
    def _fenced(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - an SDK's, an exporter's, a propagator's
            if not self._has_failed:
                self._has_failed = True
                log_event(
                    logging.WARNING, "a span failed", queue=self._queue_name, error=error, has_trace=True
                )

    def _attributes(self, operation: str) -> dict[str, Any]:
        return {
            "messaging.system": "bee_queue",
            "messaging.operation.name": operation,
            "messaging.operation.type": operation,
            "messaging.destination.name": self._queue_name,
        }

    # Saving.

    @contextlib.contextmanager
    def sending(self, options: Sequence[dict[str, Any]]) -> Iterator[SendSpan]:
        """Span the block, which saves the jobs of these options; their options then hold its context."""
        sending = SendSpan()
        with self._fenced():
            attributes = self._attributes("send")
            if len(options) != 1:
                attributes["messaging.batch.message_count"] = len(options)
            span = self._tracer.start_span(
                f"send {self._queue_name}", kind=self._trace.SpanKind.PRODUCER, attributes=attributes
            )
            sending.span = span
            carrier: dict[str, str] = {}
            self._propagate.inject(carrier, self._trace.set_span_in_context(span))
            texts = {name: text for name, text in carrier.items() if name not in _OWN_OPTIONS}
            for each in options:
                each.update(texts)
        try:
            yield sending
        except BaseException as error:
            self._end(sending.span, error)
            raise
        with self._fenced():
            if sending.span is not None and sending.job_id is not None:
                sending.span.set_attribute("messaging.message.id", sending.job_id)
        self._end(sending.span, sending.error)

    # Processing.

    def begin(self, job_id: str, options: Mapping[str, Any], variables: Context) -> Span | None:
        """Begin the span of an attempt, and make it current in the context ``variables``."""
        with self._fenced():
            found = self._propagate.extract(options, getter=_OptionsGetter())  # type: ignore[arg-type]
            sent = self._trace.get_current_span(found).get_span_context()
            parent: TraceContext = found
            links: tuple[Link, ...] = ()
            if not self._is_parent:
                parent = self._trace.set_span_in_context(self._trace.INVALID_SPAN, found)
                links = (self._trace.Link(sent),) if sent.is_valid else ()
            span = self._tracer.start_span(
                f"process {self._queue_name}",
                context=parent,
                kind=self._trace.SpanKind.CONSUMER,
                attributes={**self._attributes("process"), "messaging.message.id": job_id},
                links=links,
            )
            variables.run(self._context.attach, self._trace.set_span_in_context(span, parent))
            return span
        return None

    def end(self, span: Span | None, error: BaseException | None, *, event: str = "") -> None:
        """End an attempt's span: with its error, if that counts as a failure, or with an event."""
        if span is not None and event:
            with self._fenced():
                span.add_event(event)
        self._end(span, error)

    def _end(self, span: Span | None, error: BaseException | None) -> None:
        if span is None:
            return
        if error is not None:
            with self._fenced():
                kind = type(error)
                module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
                span.set_attribute("error.type", f"{module}{kind.__qualname__}")
                span.set_status(self._trace.StatusCode.ERROR, text_of(error))
            with self._fenced():
                span.record_exception(error)  # its cause or its notes may raise anything
        with self._fenced():
            span.end()


def flush_spans(limit_s: float) -> None:
    """Have the SDK, if there is one, send the spans that it holds; for a process that ends at once."""
    api = sys.modules.get("opentelemetry.trace")  # else there are no spans
    if api is None:
        return

    def flush() -> None:
        with contextlib.suppress(Exception):  # an error of the SDK; the process ends anyway
            api.get_tracer_provider().force_flush(int(limit_s * 1000))

    flushing = threading.Thread(target=flush, name="beeq-spans", daemon=True)
    flushing.start()
    flushing.join(limit_s)


class SendSpan:
    """The result of a ``send`` span; ``span`` is None if none could be made."""

    __slots__ = ("error", "job_id", "span")

    def __init__(self) -> None:
        self.span: Span | None = None
        self.job_id: str | None = None
        #: Why a job was not saved, where that is returned and not raised.
        self.error: BaseException | None = None
