"""Measures beeq beside npm's bee-queue, in one run: ``python benchmarks/bench.py``. See README.md here."""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(_HERE.parent))

from benchmarks import measures  # noqa: E402 - found by the line above
from benchmarks.conditions import Bystanders, busy_before, conditions  # noqa: E402 - found by the line above
from benchmarks.measures import Library  # noqa: E402 - found by the line above
from benchmarks.peer_list import BEE_QUEUE  # noqa: E402 - found by the line above
from benchmarks.peer_runs import install  # noqa: E402 - found by the line above
from benchmarks.report import chart, table  # noqa: E402 - found by the line above
from benchmarks.servers import Server  # noqa: E402 - found by the line above

#: Concurrency → jobs. Enough for two seconds or so.
_DRAINS = {1: 25_000, 10: 60_000, 100: 60_000}
#: Mode of the producer → title, jobs.
_ENQUEUES = {
    "save concurrently": ("enqueue, saves not awaited in between", 20_000),
    "save one by one": ("enqueue, one after the other", 10_000),
    "save in bulk": ("enqueue, 100 at a time", 40_000),
}
_LATENCIES = {
    "start_p50_ms": "idle worker: save to handler, median",
    "start_p99_ms": "idle worker: save to handler, 99th percentile",
    "result_p50_ms": "idle worker: save to result, median",
    "result_p99_ms": "idle worker: save to result, 99th percentile",
}
_LATENCY_JOBS = 500
#: It takes half a second, and the host of a virtual machine changes as fast.
_LATENCY_TURNS = 4
#: The concurrency at which CPU time, memory, two workers and the other loop are looked at.
_CLOSELY = 10
#: The order of the rows, whatever was measured with what.
_KINDS = ("drain", "two workers", "no uvloop", "cpu", "bytes", "enqueue", "latency")
#: A quick run divides the counts by this; its numbers mean nothing.
_QUICK = 100


@dataclass(frozen=True)
class Row:
    """One row of the result file."""

    kind: str
    title: str
    unit: str
    concurrency: int | None = None


@dataclass(frozen=True)
class Measure:
    """One thing to run in each round for each library; it gives one number for each of its rows."""

    rows: tuple[Row, ...]
    run: Callable[[Library, Any, str], dict[Row, float]]
    #: How often the libraries take turns in one round, whose number is the median of theirs.
    turns: int = 1


def plan(*, is_quick: bool) -> list[Measure]:
    """Return what is measured, in order."""
    divisor = _QUICK if is_quick else 1
    every = []
    for concurrency, jobs in _DRAINS.items():
        every.append(_drain(concurrency, jobs // divisor))
        if concurrency == _CLOSELY:
            every += [_two_workers(jobs // divisor), _no_uvloop(jobs // divisor)]
    every += [_enqueue(mode, title, jobs // divisor) for mode, (title, jobs) in _ENQUEUES.items()]
    return [*every, _latency(20 if is_quick else _LATENCY_JOBS)]


def _drain(concurrency: int, count: int) -> Measure:
    rate = Row("drain", f"drain, concurrency {concurrency}", "jobs/s", concurrency)
    if concurrency != _CLOSELY:

        def run(library: Library, client: Any, url: str) -> dict[Row, float]:
            return {rate: measures.drain(library, client, url, concurrency=concurrency, count=count).rate}

        return Measure((rate,), run)

    worker_cpu = Row("cpu", f"worker's CPU time a job, concurrency {concurrency}", "µs", concurrency)
    server_cpu = Row("cpu", f"server's CPU time a job, concurrency {concurrency}", "µs", concurrency)
    memory = Row("bytes", "server's memory a finished job", "bytes", concurrency)

    def run_closely(library: Library, client: Any, url: str) -> dict[Row, float]:
        drained, size = measures.drain_and_weigh(library, client, url, concurrency=concurrency, count=count)
        numbers = {rate: drained.rate, server_cpu: drained.server_cpu_us, memory: size}
        if drained.worker_cpu_us is not None:
            numbers[worker_cpu] = drained.worker_cpu_us
        return numbers

    return Measure((rate, worker_cpu, server_cpu, memory), run_closely)


def _two_workers(count: int) -> Measure:
    row = Row("two workers", f"drain, two workers, concurrency {_CLOSELY} each", "jobs/s", _CLOSELY)

    def run(library: Library, client: Any, url: str) -> dict[Row, float]:
        drained = measures.drain(library, client, url, concurrency=_CLOSELY, count=count, workers=2)
        return {row: drained.rate}

    return Measure((row,), run)


def _no_uvloop(count: int) -> Measure:
    title = f"drain, beeq on asyncio's own loop, concurrency {_CLOSELY}"
    row = Row("no uvloop", title, "jobs/s", _CLOSELY)

    def run(library: Library, client: Any, url: str) -> dict[Row, float]:
        if library.name != "beeq":
            return {}  # It has no such choice: see ``_rows``.
        asyncio_s = replace(library, uvloop=False)
        return {row: measures.drain(asyncio_s, client, url, concurrency=_CLOSELY, count=count).rate}

    return Measure((row,), run)


def _enqueue(mode: str, title: str, count: int) -> Measure:
    row = Row("enqueue", title, "jobs/s")

    def run(library: Library, client: Any, url: str) -> dict[Row, float]:
        return {row: measures.enqueue(library, client, url, mode=mode, count=count)}

    return Measure((row,), run)


def _latency(count: int) -> Measure:
    rows = {name: Row("latency", title, "ms") for name, title in _LATENCIES.items()}

    def run(library: Library, client: Any, url: str) -> dict[Row, float]:
        numbers = measures.latency(library, client, url, count=count)
        return {rows[name]: number for name, number in numbers.items()}

    return Measure(tuple(rows.values()), run, _LATENCY_TURNS)


def measure(libraries: list[Library], server: Server, *, rounds: int, is_quick: bool) -> list[dict[str, Any]]:
    """Run everything, the libraries by turns, and return a row for each number."""
    every = plan(is_quick=is_quick)
    measured: dict[Row, dict[str, list[float]]] = {}
    with server.sync_client() as client:
        for turn in range(rounds):
            for one in every:
                found: dict[tuple[Row, str], list[float]] = {}
                for within in range(one.turns):
                    # Whoever goes first goes second the next time.
                    for library in libraries if (turn + within) % 2 == 0 else libraries[::-1]:
                        for row, number in one.run(library, client, server.url).items():
                            found.setdefault((row, library.name), []).append(number)
                for (row, name), numbers in found.items():
                    measured.setdefault(row, {}).setdefault(name, []).append(statistics.median(numbers))
                print(f"round {turn + 1} of {rounds}: {one.rows[0].title}", file=sys.stderr)
    return _rows([row for one in every for row in one.rows if row in measured], measured)


def _rows(order: list[Row], measured: dict[Row, dict[str, list[float]]]) -> list[dict[str, Any]]:
    """Return the rows of the result file, kind by kind."""
    (plain,) = [row for row in order if (row.kind, row.concurrency) == ("drain", _CLOSELY)]
    rows = []
    for row in sorted(order, key=lambda row: _KINDS.index(row.kind)):
        numbers = measured[row]
        if row.kind == "no uvloop":
            # Beside it stands what bee-queue did in the plain drain of the same rounds.
            numbers = {**measured[plain], **numbers}
        rows.append(
            {
                "kind": row.kind,
                "title": row.title,
                "unit": row.unit,
                "concurrency": row.concurrency,
                "median": {peer: statistics.median(values) for peer, values in numbers.items()},
                "rounds": numbers,
            }
        )
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Measure, write the result file and the chart, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny counts: only to see that it runs")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, of which medians are taken (5)")
    parser.add_argument("--out", type=Path, default=_HERE / "results" / "bench.json", help="the result file")
    parser.add_argument("--no-uvloop", action="store_true", help="beeq on asyncio's own loop")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")

    options.out.parent.mkdir(parents=True, exist_ok=True)
    uvloop = not options.no_uvloop and importlib.util.find_spec("uvloop") is not None
    libraries = [measures.bee_queue(install(BEE_QUEUE)), measures.beeq(uvloop=uvloop)]
    before = busy_before()
    bystanders = Bystanders()
    with tempfile.TemporaryDirectory() as folder, Server(Path(folder)) as server:
        with server.sync_client() as client:
            facts = conditions(client, uvloop=uvloop, bee_queue_version=BEE_QUEUE.version)
        rows = measure(libraries, server, rounds=options.rounds, is_quick=options.quick)
    result = {
        "conditions": {
            **facts,
            **before,
            **bystanders.facts(),
            "rounds": options.rounds,
            "quick": options.quick,
        },
        "measurements": rows,
    }
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    chart(result, options.out.with_name("drain.svg"))
    print(table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
