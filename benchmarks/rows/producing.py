"""The rows of producers, and of an idle worker's latency."""

from __future__ import annotations

from typing import Any

from benchmarks import measures
from benchmarks.measures import Library
from benchmarks.rows.row import Counts, Measure, Row

#: Mode of the producer → title, counts.
_ENQUEUES = {
    "save concurrently": ("enqueue, saves not awaited in between", Counts(20_000, 20_000)),
    "save one by one": ("enqueue, one after the other", Counts(8_000, 8_000)),
    "save in bulk": ("enqueue, 100 at a time", Counts(40_000, 40_000)),
}
_LATENCIES = {
    "start_p50_ms": "idle worker: save to handler, median",
    "start_p99_ms": "idle worker: save to handler, 99th percentile",
    "result_p50_ms": "idle worker: save to result, median",
    "result_p99_ms": "idle worker: save to result, 99th percentile",
}
_LATENCY_JOBS, _QUICK_LATENCY_JOBS = 300, 20
#: It takes a third of a second, and the host of a virtual machine changes as fast.
_LATENCY_TURNS = 3


def producing(*, is_quick: bool) -> list[Measure]:
    """Return what is measured, in order."""
    every = [
        _enqueue(mode, title, counts.scaled(is_quick=is_quick)) for mode, (title, counts) in _ENQUEUES.items()
    ]
    jobs, turns = (_QUICK_LATENCY_JOBS, 1) if is_quick else (_LATENCY_JOBS, _LATENCY_TURNS)
    return [*every, _latency(jobs, turns)]


def _enqueue(mode: str, title: str, counts: Counts) -> Measure:
    row = Row("enqueue", title, "jobs/s")

    def run(library: Library, client: Any, url: str) -> dict[Row, float]:
        return {row: measures.enqueue(library, client, url, mode=mode, count=counts.of(library))}

    return Measure((row,), run)


def _latency(count: int, turns: int) -> Measure:
    rows = {name: Row("latency", title, "ms") for name, title in _LATENCIES.items()}

    def run(library: Library, client: Any, url: str) -> dict[Row, float]:
        numbers = measures.latency(library, client, url, count=count)
        return {rows[name]: number for name, number in numbers.items()}

    return Measure(tuple(rows.values()), run, turns)
