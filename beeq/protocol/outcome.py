"""Decides how an attempt ends: its status, the delay before a retry, what is written, published and kept.

``Worker`` calls it when a handler has ended; the pump sends the ``Outcome`` to ``lua/exchange.lua``, which
drops it if the job has another owner by then. The rules are in protocol/README.md: "Operations", "Retry
and backoff", "Results".
"""

import math
import operator
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from beeq.errors import (
    Discard,
    JobStalled,
    JobTimedOut,
    JobUnreadable,
    Postpone,
    RedisError,
    RedisRefused,
    Retry,
    kind_of,
    text_of,
)
from beeq.protocol.backoff import MAX_DELAY_MS, Strategy
from beeq.protocol.codec import RecordLike, decode_record, dumps, encode_record
from beeq.protocol.events import encode_event
from beeq.protocol.options import created_ms_of, postponed_ms_of, retries_left
from beeq.settings import in_ms

#: A longer trace keeps this many bytes, from both ends.
MAX_TRACE_BYTES = 10_000
#: A record keeps this many traces, the newest.
MAX_TRACES = 100
#: A handler may put a job off for so long, all its postponements together …
MAX_POSTPONED_MS = 24 * 60 * 60 * 1000
#: … and no shorter at once: the job would be claimed again in the same moment.
MIN_POSTPONED_MS = 100

_LOCAL_EVENTS = {
    "succeeded": ("succeeded",),
    "retrying": ("retrying", "failed"),
    "failed": ("failed", "failed:fatal"),
}


class AttemptedJob(RecordLike, Protocol):
    """The part of a job that an outcome needs: its record, as its handler left it and as it was claimed."""

    id: str | None  # a job that runs has one
    claimed_record: bytes
    started_ms: int

    def saved_id(self) -> str:
        """Return the id, which a job that runs has."""


@dataclass(slots=True)
class Outcome:
    """One attempt's end, ready to be written."""

    job: AttemptedJob
    #: ``succeeded``, ``retrying`` or ``failed``.
    status: str
    #: The record to write. Empty: leave the text in Redis as it is.
    record: bytes
    #: The message for the events channel.
    message: bytes
    #: The stored result for ``result()``, with the job's creation time in front; empty: none.
    keep: bytes = b""
    #: Retrying: how long to wait first, in ms. 0: back to ``waiting`` at once.
    delay_ms: int = 0
    #: Retrying: the attempt does not count, its handler has postponed the job.
    is_postponed: bool = False
    #: Unless it succeeded or was postponed: the note on the attempt (``attempts.py``), set by the worker.
    attempt: bytes = b""
    #: … and when it ended, in ms since the epoch.
    ended_ms: int = 0
    #: Succeeded: what the handler returned.
    result: Any = None
    #: Otherwise: what it raised.
    error: BaseException | None = None

    @property
    def local_events(self) -> tuple[str, ...]:
        """The events that the worker's own queue emits, in bee-queue's order."""
        if self.is_postponed:
            return ("postponed",)
        return _LOCAL_EVENTS[self.status]


def succeed(job: AttemptedJob, result: Any) -> Outcome:
    """Decide the end of an attempt whose handler returned ``result``.

    A result, or a record, that cannot be written as JSON fails the job for good: the handler's
    work is done, and doing it again would not help.
    """
    job.status = "succeeded"
    try:
        record = encode_record(job)
        if result is None:
            message = b'{"id":%b,"event":"succeeded"}' % dumps(job.id or job.saved_id())
            return Outcome(job, "succeeded", record, message)
        text = dumps(result)
    except TypeError as error:
        return _failure(job, TypeError(f"cannot be written as JSON: {error}"))
    message = b'{"id":%b,"event":"succeeded","data":%b}' % (dumps(job.id or job.saved_id()), text)
    keep = b"%d:s%b" % (created_ms_of(job.options), text)
    return Outcome(job, "succeeded", record, message, keep, result=result)


def fail(job: AttemptedJob, error: BaseException, strategies: Mapping[str, Strategy]) -> Outcome:
    """Decide what follows the error that a handler raised: a retry after a delay, or failure for good."""
    if _is(error, Discard, JobStalled, JobUnreadable):
        return _failure(job, error)
    if _is(error, Postpone):
        return _postponed(job, error)
    retries = retries_left(job.options)
    try:
        delay_ms = _retry_delay_ms(job, error, strategies) if retries > 0 else None
    except BaseException as broken:  # noqa: BLE001 - a user's strategy may raise anything
        broken.__context__ = error
        return _failure(job, broken)
    if delay_ms is None:
        return _failure(job, error)
    job.options["retries"] = retries - 1
    return _failure(job, error, "retrying", delay_ms)


def refused_outcome(outcome: Outcome, error: RedisError, *, with_record: bool) -> Outcome:
    """Replace an outcome whose content Redis refuses by a short, final failure.

    It writes the record as it was claimed, with the error; without ``with_record``, Redis keeps its record.
    """
    job = outcome.job
    size_bytes = len(outcome.record) + len(outcome.message) + len(outcome.keep)
    refusal = RedisRefused(f"Redis did not take the job's outcome of {size_bytes} bytes: {error}")
    job.status = "failed"
    text = message_of(refusal)
    return Outcome(
        job,
        "failed",
        _claimed_record(job, refusal) if with_record else b"",
        encode_event(job.saved_id(), "failed", text),
        b"%d:f%b" % (created_ms_of(job.options), dumps(text)),
        error=refusal,
    )


def _retry_delay_ms(
    job: AttemptedJob, error: BaseException, strategies: Mapping[str, Strategy]
) -> int | None:
    """Return how long to wait before the next attempt, in ms; None if the job is to fail.

    ``Retry(after=…)`` comes first, then the job's backoff strategy; without either there is no delay.
    """
    after = getattr(error, "after", None) if _is(error, Retry) else None
    if after is not None:
        return _asked_ms(after)
    backoff = job.options.get("backoff")
    if not isinstance(backoff, dict):
        return 0
    strategy = strategies.get(str(backoff.get("strategy")))
    if strategy is None:
        return None  # as in bee-queue: a worker that does not know the strategy fails the job
    delay_ms = strategy(job)
    if not delay_ms >= 0:  # negative, or NaN
        return None
    return _whole_ms(delay_ms)


def _postponed(job: AttemptedJob, error: BaseException) -> Outcome:
    """Put the job back unchanged, but for its sum of postponements; fail it if that is used up."""
    try:
        delay_ms = max(MIN_POSTPONED_MS, _asked_ms(getattr(error, "after", None)))
    except BaseException as broken:  # noqa: BLE001 - a handler may give anything as time
        broken.__context__ = error
        return _failure(job, broken)
    total_ms = postponed_ms_of(job.options) + delay_ms
    if total_ms > MAX_POSTPONED_MS:
        return _failure(job, Discard(f"{message_of(error)}; the job was postponed for a day in all"))
    own = job.options.get("beeq")
    job.options["beeq"] = {**(own if isinstance(own, dict) else {}), "postponed": total_ms}
    try:
        record = encode_record(job)
    except TypeError as fault:
        return _failure(job, TypeError(f"cannot be written as JSON: {fault}"))
    event = encode_event(job.saved_id(), "postponed", message_of(error))
    return Outcome(job, "retrying", record, event, delay_ms=delay_ms, is_postponed=True, error=error)


def _asked_ms(after: Any) -> int:
    """Return a handler's delay, a ``Duration``, in ms; raise if it is invalid."""
    after_ms = in_ms(after)
    return max(0, _whole_ms(min(after_ms, MAX_DELAY_MS)))  # a handler may ask to wait for ever


def _whole_ms(delay_ms: Any) -> int:
    """Return a delay rounded up, at most the longest one; raise if it is infinite, or not a number."""
    return min(operator.index(math.ceil(delay_ms)), MAX_DELAY_MS)


def _failure(job: AttemptedJob, error: BaseException, status: str = "failed", delay_ms: int = 0) -> Outcome:
    message = message_of(error)
    event = encode_event(job.saved_id(), status, message)
    outcome = Outcome(job, status, b"", event, delay_ms=delay_ms, error=error)
    if _is(error, JobUnreadable):
        return outcome  # the record's text stays as it is, for an operator to see
    job.status = status
    _add_trace(job.options, trace_of(error))
    if status == "failed":
        _forget_postponements(job.options)
    try:
        outcome.record = encode_record(job)
    except TypeError:
        # The handler put something into the record that cannot be written as JSON.
        job.status = outcome.status = "failed"
        outcome.delay_ms = 0
        outcome.message = encode_event(job.saved_id(), "failed", message)
        outcome.record = _claimed_record(job, error)
    if outcome.status == "failed":
        outcome.keep = b"%d:f%b" % (created_ms_of(job.options), dumps(message))
    return outcome


def _claimed_record(job: AttemptedJob, error: BaseException) -> bytes:
    """Return the record as it was claimed, failed, with the trace; empty if that cannot be written either."""
    claimed = decode_record(job.saved_id(), job.claimed_record, now_ms=created_ms_of(job.options))
    _add_trace(claimed.options, trace_of(error))
    claimed.status = "failed"
    try:
        return encode_record(claimed)
    except TypeError:
        return b""  # the record's text stays as it is: it can be read, but not written again


def _forget_postponements(options: dict[str, Any]) -> None:
    """Let a job that is queued again by hand be postponed from zero."""
    own = options.get("beeq")
    if isinstance(own, dict) and "postponed" in own:
        options["beeq"] = {name: value for name, value in own.items() if name != "postponed"}


def _add_trace(options: dict[str, Any], trace: str) -> None:
    """Put the newest first, as bee-queue does, and drop what is too old."""
    traces = options.get("stacktraces")
    earlier = traces if isinstance(traces, list) else []
    options["stacktraces"] = [trace, *earlier[: MAX_TRACES - 1]]


def _is(error: BaseException, *kinds: type[BaseException]) -> bool:
    """Return whether it is one of these, without its ``__class__``, which may raise anything."""
    return issubclass(type(error), kinds)


def message_of(error: BaseException) -> str:
    """Return the error's text, or its type's name where it has none, shortened."""
    return bounded(text_of(error))


def trace_of(error: BaseException) -> str:
    """Return the trace that a record stores of an attempt's error.

    The first line is the error, where Node peers and dashboards expect it; Python's traceback follows.
    """
    if _is(error, JobTimedOut):
        return f"Error: {message_of(error)}"  # Node's own text
    first = f"{kind_of(error)}: {message_of(error)}"
    try:
        if error.__traceback__ is not None:
            return bounded(first + "\n" + "".join(traceback.format_exception(error)))
    except BaseException:  # noqa: BLE001 - __notes__, __cause__, a chained error's text may raise anything
        return bounded(first)
    return bounded(first)


def bounded(text: str) -> str:
    """Return ``text``; of one of more than ``MAX_TRACE_BYTES`` both ends."""
    raw = text.encode("utf-8", "surrogatepass")
    if len(raw) <= MAX_TRACE_BYTES:
        return text
    half = MAX_TRACE_BYTES // 2 - 10
    head = raw[:half].decode("utf-8", "ignore")
    tail = raw[-half:].decode("utf-8", "ignore")
    return f"{head}\n…\n{tail}"
