"""The rows of what users do with jobs: handlers that take their time, options, listeners, results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks import measures
from benchmarks.measures import Handler, Jobs, Library
from benchmarks.rows.drains import READ, READ_DATA
from benchmarks.rows.row import Counts, Measure, Row

#: Sleep in ms, concurrency → counts.
_SLEEPS = {
    (0.1, 1): Counts(2_000, 4_000),
    (0.1, 10): Counts(8_000, 15_000),
    (1, 1): Counts(300, 300),
    (1, 10): Counts(2_500, 2_500),
    (5, 1): Counts(80, 80),
    (5, 10): Counts(800, 800),
    (50, 1): Counts(12, 12),
    (50, 10): Counts(120, 120),
}
#: Those of a quick run, whose numbers mean nothing: one of each concurrency.
_QUICK_SLEEPS = ((0.1, 1), (1, 10))
#: The concurrency of the other rows.
_USUAL = 10
_OPTIONS = Counts(15_000, 30_000)
_MORE_OPTIONS = ',"retries":3,"backoff":{"strategy":"exponential","delay":1000},"timeout":10000'
#: KB of each record → counts.
_RECORDS = {1: Counts(10_000, 20_000), 10: Counts(4_000, 6_000)}
_HEARD = Counts(12_000, 20_000)
_AWAITED = Counts(7_000, 10_000)
_PRODUCED = Counts(10_000, 15_000)


def uses(*, is_quick: bool) -> list[Measure]:
    """Return what is measured, in order."""

    def scaled(counts: Counts) -> Counts:
        return counts.scaled(is_quick=is_quick)

    every = [
        _sleeping(sleep_ms, concurrency, scaled(counts))
        for (sleep_ms, concurrency), counts in _SLEEPS.items()
        if not is_quick or (sleep_ms, concurrency) in _QUICK_SLEEPS
    ]
    every += [_options(scaled(_OPTIONS))]
    every += [_records(kilobytes, scaled(counts)) for kilobytes, counts in _RECORDS.items()]
    return [*every, _heard(scaled(_HEARD)), _awaited(scaled(_AWAITED)), _produced(scaled(_PRODUCED))]


def _drain(row: Row, counts: Counts, jobs: Callable[[int], Jobs], handler: Handler) -> Measure:
    """Return the measure of a plain drain of such jobs."""
    concurrency = row.concurrency or 1

    def run(library: Library, client: Any, url: str) -> dict[Row, float]:
        drained = measures.drain(
            library, client, url, concurrency=concurrency, jobs=jobs(counts.of(library)), handler=handler
        )
        return {row: drained.rate}

    return Measure((row,), run)


def _sleeping(sleep_ms: float, concurrency: int, counts: Counts) -> Measure:
    title = f"handlers of {sleep_ms:g} ms: drain, concurrency {concurrency}"
    row = Row("sleeping", title, "jobs/s", concurrency)
    return _drain(row, counts, Jobs, Handler("sleep", sleep_ms))


def _options(counts: Counts) -> Measure:
    title = f"with retries, backoff and timeout: drain, concurrency {_USUAL}"
    row = Row("options", title, "jobs/s", _USUAL)
    return _drain(row, counts, lambda count: Jobs(count, READ_DATA, _MORE_OPTIONS), READ)


def _records(kilobytes: int, counts: Counts) -> Measure:
    title = f"records of {kilobytes} KB: drain, concurrency {_USUAL}"
    data = f'{READ_DATA},"text":"{"x" * 1024 * kilobytes}"'
    row = Row("records", title, "jobs/s", _USUAL)
    return _drain(row, counts, lambda count: Jobs(count, data), READ)


def _heard(counts: Counts) -> Measure:
    row = Row("listener", f"`job succeeded` heard elsewhere, concurrency {_USUAL}", "jobs/s", _USUAL)

    def run(library: Library, client: Any, url: str) -> dict[Row, float]:
        jobs = Jobs(counts.of(library), READ_DATA)
        return {row: measures.drain_heard(library, client, url, concurrency=_USUAL, jobs=jobs, handler=READ)}

    return Measure((row,), run)


def _awaited(counts: Counts) -> Measure:
    row = Row("results", f"saved and the result awaited, 100 at once, concurrency {_USUAL}", "jobs/s", _USUAL)

    def run(library: Library, client: Any, url: str) -> dict[Row, float]:
        count = counts.of(library)
        return {
            row: measures.await_results(library, client, url, concurrency=_USUAL, count=count, handler=READ)
        }

    return Measure((row,), run)


def _produced(counts: Counts) -> Measure:
    row = Row("produced", f"drain while a producer saves, concurrency {_USUAL}", "jobs/s", _USUAL)

    def run(library: Library, client: Any, url: str) -> dict[Row, float]:
        count = counts.of(library)
        return {row: measures.drain_while_produced(library, client, url, concurrency=_USUAL, count=count)}

    return Measure((row,), run)
