"""Measures beeq beside npm's bee-queue, in one run: ``python benchmarks/bench.py``. See README.md here."""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(_HERE.parent))

from benchmarks import measures  # noqa: E402 - found by the line above
from benchmarks.conditions import conditions  # noqa: E402 - found by the line above
from benchmarks.measures import Library  # noqa: E402 - found by the line above
from benchmarks.report import chart, table  # noqa: E402 - found by the line above
from tests.support.node import BEE_QUEUE_VERSION, install_bee_queue  # noqa: E402 - found by the line above
from tests.support.server import Server  # noqa: E402 - found by the line above

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
#: A quick run divides the counts by this; its numbers mean nothing.
_QUICK = 100


@dataclass(frozen=True)
class Measure:
    """One thing to run, once a round for each library; it gives one number for each of its titles."""

    kind: str
    titles: dict[str, str]
    unit: str
    run: Callable[[Library, Any, str], dict[str, float]]
    concurrency: int | None = None


def plan(*, is_quick: bool) -> list[Measure]:
    """Return what is measured, in order."""
    divisor = _QUICK if is_quick else 1
    every = []
    for concurrency, jobs in _DRAINS.items():

        def drain(
            library: Library,
            client: Any,
            url: str,
            concurrency: int = concurrency,
            jobs: int = jobs // divisor,
        ) -> dict[str, float]:
            return {"": measures.drain(library, client, url, concurrency=concurrency, count=jobs)}

        titles = {"": f"drain, concurrency {concurrency}"}
        every.append(Measure("drain", titles, "jobs/s", drain, concurrency))
    for mode, (title, jobs) in _ENQUEUES.items():

        def enqueue(
            library: Library, client: Any, url: str, mode: str = mode, jobs: int = jobs // divisor
        ) -> dict[str, float]:
            return {"": measures.enqueue(library, client, url, mode=mode, count=jobs)}

        every.append(Measure("enqueue", {"": title}, "jobs/s", enqueue))

    def latency(library: Library, client: Any, url: str) -> dict[str, float]:
        return measures.latency(library, client, url, count=20 if is_quick else _LATENCY_JOBS)

    every.append(Measure("latency", _LATENCIES, "ms", latency))
    return every


def measure(libraries: list[Library], server: Server, *, rounds: int, is_quick: bool) -> list[dict[str, Any]]:
    """Run everything, the libraries by turns, and return a row for each number."""
    every = plan(is_quick=is_quick)
    measured: dict[tuple[int, str], dict[str, list[float]]] = {}
    with server.sync_client() as client:
        for turn in range(rounds):
            for at, one in enumerate(every):
                # Whoever goes first in one round goes second in the next.
                for library in libraries if turn % 2 == 0 else libraries[::-1]:
                    for name, number in one.run(library, client, server.url).items():
                        row = measured.setdefault((at, name), {})
                        row.setdefault(library.name, []).append(number)
                print(f"round {turn + 1} of {rounds}: {one.kind} {one.concurrency or ''}", file=sys.stderr)
    rows = []
    for at, one in enumerate(every):
        for name, title in one.titles.items():
            numbers = measured[at, name]
            rows.append(
                {
                    "kind": one.kind,
                    "title": title,
                    "unit": one.unit,
                    "concurrency": one.concurrency,
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
    libraries = [measures.bee_queue(install_bee_queue()), measures.beeq(uvloop=uvloop)]
    with tempfile.TemporaryDirectory() as folder, Server(Path(folder)) as server:
        with server.sync_client() as client:
            facts = conditions(client, uvloop=uvloop, bee_queue_version=BEE_QUEUE_VERSION)
        rows = measure(libraries, server, rounds=options.rounds, is_quick=options.quick)
    result = {
        "conditions": {**facts, "rounds": options.rounds, "quick": options.quick},
        "measurements": rows,
    }
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    chart(result, options.out.with_name("drain.svg"))
    print(table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
