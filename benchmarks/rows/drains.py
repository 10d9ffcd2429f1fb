"""The rows of drains: one worker works off what waits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from beeq.settings import Settings
from benchmarks import measures
from benchmarks.measures import Drain, Handler, Jobs, Library
from benchmarks.rows.row import BEE_QUEUE, BEEQ, EXCHANGE_ALONE, Counts, Measure, Row

#: Concurrency → counts.
_DRAINS = {
    1: Counts(5_000, 12_000, 12_000),
    10: Counts(40_000, 40_000, 40_000),  # as many of both, for the memory that they take
    100: Counts(20_000, 60_000, 60_000),
}
_READING = {1: Counts(5_000, 10_000), 10: Counts(18_000, 35_000), 100: Counts(18_000, 45_000)}
_LEAN = {1: Counts(5_000, 12_000), 10: Counts(20_000, 45_000), 100: Counts(20_000, 60_000)}
#: The concurrency at which memory, two workers and the other loop are looked at.
_CLOSELY = 10
_TWO_WORKERS = Counts(22_000, 45_000)
_NO_UVLOOP = Counts(0, 40_000)
#: The concurrencies at which beeq also runs with nothing claimed ahead.
_NOTHING_AHEAD = (1, 10)
#: beeq's setting that has jobs claimed before there is a place for them, if this beeq has it; and how many it
#: then holds, those that run among them.
AHEAD, _MOST_HELD = "claim_ahead_ms", 64
CAN_CLAIM_AHEAD = AHEAD in {setting.name for setting in fields(Settings)}
#: Settings that keep nothing of a succeeded job, and publish nothing of it.
LEAN = {
    BEEQ: {"send_events": False, "remove_on_success": True},
    BEE_QUEUE: {"sendEvents": False, "removeOnSuccess": True},
}
#: Further data for a handler that reads.
READ = Handler("read")
READ_DATA = ',"to":"ada@example.com"'


def drains(*, is_quick: bool, claim_ahead_ms: int | None) -> list[Measure]:
    """Return what is measured, in order; ``claim_ahead_ms`` is what beeq is set to, None for its default."""

    def scaled(counts: Counts) -> Counts:
        return counts.scaled(is_quick=is_quick)

    is_ahead = CAN_CLAIM_AHEAD and claim_ahead_ms != 0
    every = [
        _plain(concurrency, scaled(counts), is_ahead=is_ahead) for concurrency, counts in _DRAINS.items()
    ]
    every += [_reading(concurrency, scaled(counts)) for concurrency, counts in _READING.items()]
    every += [_two_workers(scaled(_TWO_WORKERS)), _no_uvloop(scaled(_NO_UVLOOP))]
    if is_ahead:
        every += [_nothing_ahead(concurrency, scaled(_DRAINS[concurrency])) for concurrency in _NOTHING_AHEAD]
    return every + [_lean(concurrency, scaled(counts)) for concurrency, counts in _LEAN.items()]


def _title(concurrency: int) -> str:
    return f"drain, concurrency {concurrency}"


def cpu_rows(concurrency: int, what: str = "") -> tuple[Row, Row]:
    """Return the rows of the worker's and the server's CPU time a job."""
    ends = f" CPU time a job{what}, concurrency {concurrency}"
    return (
        Row("cpu", f"worker's{ends}", "µs", concurrency),
        Row("cpu", f"server's{ends}", "µs", concurrency),
    )


def numbers_of(drained: Drain, rate: Row, cpu: tuple[Row, Row] | None = None) -> dict[Row, float]:
    """Return a drain's numbers, by row."""
    numbers = {rate: drained.rate}
    if cpu is not None:
        worker, server = cpu
        numbers[server] = drained.server_cpu_us
        if drained.worker_cpu_us is not None:
            numbers[worker] = drained.worker_cpu_us
    return numbers


def _plain(concurrency: int, counts: Counts, *, is_ahead: bool) -> Measure:
    rate = Row("drain", _title(concurrency), "jobs/s", concurrency)
    cpu, memory = cpu_rows(concurrency), Row("bytes", "server's memory a finished job", "bytes", concurrency)

    def run(library: Library, client: Any, url: str) -> dict[Row, float]:
        jobs = Jobs(counts.of(library))
        if library.name == EXCHANGE_ALONE:
            at_once = max(concurrency, _MOST_HELD) if is_ahead else concurrency
            return numbers_of(measures.drain(library, client, url, concurrency=at_once, jobs=jobs), rate, cpu)
        if concurrency != _CLOSELY:
            return numbers_of(
                measures.drain(library, client, url, concurrency=concurrency, jobs=jobs), rate, cpu
            )
        drained, size = measures.drain_and_weigh(library, client, url, concurrency=concurrency, jobs=jobs)
        return {**numbers_of(drained, rate, cpu), memory: size}

    return Measure((rate, *cpu, memory), run, by=(BEE_QUEUE, EXCHANGE_ALONE, BEEQ))


def _reading(concurrency: int, counts: Counts) -> Measure:
    title = f"reads data, returns a value: {_title(concurrency)}"
    rate = Row("reading", title, "jobs/s", concurrency)
    cpu = cpu_rows(concurrency, ", reads data, returns a value")

    def run(library: Library, client: Any, url: str) -> dict[Row, float]:
        jobs = Jobs(counts.of(library), READ_DATA)
        drained = measures.drain(library, client, url, concurrency=concurrency, jobs=jobs, handler=READ)
        return numbers_of(drained, rate, cpu if concurrency == 1 else None)

    return Measure((rate, *cpu), run)


def _two_workers(counts: Counts) -> Measure:
    row = Row("two workers", f"drain, two workers, concurrency {_CLOSELY} each", "jobs/s", _CLOSELY)

    def run(library: Library, client: Any, url: str) -> dict[Row, float]:
        jobs = Jobs(counts.of(library))
        return {row: measures.drain(library, client, url, concurrency=_CLOSELY, jobs=jobs, workers=2).rate}

    return Measure((row,), run)


def _no_uvloop(counts: Counts) -> Measure:
    title = f"drain, beeq on asyncio's own loop, concurrency {_CLOSELY}"
    row = Row("no uvloop", title, "jobs/s", _CLOSELY, beside=_title(_CLOSELY))

    def run(library: Library, client: Any, url: str) -> dict[Row, float]:
        asyncio_s, jobs = replace(library, uvloop=False), Jobs(counts.of(library))
        return {row: measures.drain(asyncio_s, client, url, concurrency=_CLOSELY, jobs=jobs).rate}

    return Measure((row,), run, by=(BEEQ,))


def _nothing_ahead(concurrency: int, counts: Counts) -> Measure:
    title = f"drain, nothing claimed ahead, concurrency {concurrency}"
    row = Row("claim ahead", title, "jobs/s", concurrency, beside=_title(concurrency))

    def run(library: Library, client: Any, url: str) -> dict[Row, float]:
        jobs = Jobs(counts.of(library))
        if library.name == BEEQ:
            library = with_settings(library, {AHEAD: 0})
        return {row: measures.drain(library, client, url, concurrency=concurrency, jobs=jobs).rate}

    return Measure((row,), run, by=(EXCHANGE_ALONE, BEEQ))


def _lean(concurrency: int, counts: Counts) -> Measure:
    rate = Row("lean", f"no events, nothing kept: {_title(concurrency)}", "jobs/s", concurrency)
    cpu = cpu_rows(concurrency, ", no events, nothing kept")

    def run(library: Library, client: Any, url: str) -> dict[Row, float]:
        lean, jobs = with_settings(library, LEAN[library.name]), Jobs(counts.of(library))
        drained = measures.drain(lean, client, url, concurrency=concurrency, jobs=jobs, is_dropped=True)
        return numbers_of(drained, rate, cpu if concurrency == 1 else None)

    return Measure((rate, *cpu), run)


def with_settings(library: Library, settings: Mapping[str, Any]) -> Library:
    """Return the library with these settings besides its own."""
    return replace(library, settings={**library.settings, **settings})
