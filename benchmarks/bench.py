"""Measures beeq beside npm's bee-queue, in one run: ``python benchmarks/bench.py``. See README.md here."""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(_HERE.parent))

from benchmarks import measures  # noqa: E402 - found by the line above
from benchmarks.conditions import Bystanders, busy_before, conditions  # noqa: E402 - found by the line above
from benchmarks.measures import Library  # noqa: E402 - found by the line above
from benchmarks.peer_list import BEE_QUEUE as BEE_QUEUE_PEER  # noqa: E402 - found by the line above
from benchmarks.peer_runs import install  # noqa: E402 - found by the line above
from benchmarks.report import chart, table  # noqa: E402 - found by the line above
from benchmarks.rows.drains import AHEAD, CAN_CLAIM_AHEAD, drains  # noqa: E402 - found by the line above
from benchmarks.rows.producing import producing  # noqa: E402 - found by the line above
from benchmarks.rows.row import BEE_QUEUE, Measure, Row  # noqa: E402 - found by the line above
from benchmarks.rows.uses import uses  # noqa: E402 - found by the line above
from benchmarks.servers import Server  # noqa: E402 - found by the line above

_RESULT = _HERE / "results" / "bench.json"
#: The order of the rows, for any selection.
_KINDS = (
    *("drain", "reading", "two workers", "no uvloop", "claim ahead", "lean"),
    *("sleeping", "options", "records", "listener", "results", "produced"),
    *("cpu", "bytes", "enqueue", "latency"),
)


def plan(*, is_quick: bool, claim_ahead_ms: int | None = None) -> list[Measure]:
    """Return what is measured, in order."""
    return [
        *drains(is_quick=is_quick, claim_ahead_ms=claim_ahead_ms),
        *uses(is_quick=is_quick),
        *producing(is_quick=is_quick),
    ]


#: What ``--only`` knows.
GROUPS = tuple(dict.fromkeys(one.group for one in plan(is_quick=True)))


def measure(
    libraries: list[Library], server: Server, every: list[Measure], *, rounds: int
) -> list[dict[str, Any]]:
    """Run everything, the libraries by turns, and return a row for each number."""
    measured: dict[Row, dict[str, list[float]]] = {}
    with server.sync_client() as client:
        for turn in range(rounds):
            for one in every:
                began = time.monotonic()
                found: dict[tuple[Row, str], list[float]] = {}
                for within in range(one.turns):
                    # The first library goes second the next time.
                    for library in libraries if (turn + within) % 2 == 0 else libraries[::-1]:
                        if library.name in one.by:
                            for row, number in one.run(library, client, server.url).items():
                                found.setdefault((row, library.name), []).append(number)
                for (row, name), numbers in found.items():
                    measured.setdefault(row, {}).setdefault(name, []).append(statistics.median(numbers))
                took = f"{time.monotonic() - began:.1f} s"
                print(f"round {turn + 1} of {rounds}: {one.rows[0].title}, {took}", file=sys.stderr)
    return _rows([row for one in every for row in one.rows if row in measured], measured)


def _rows(order: list[Row], measured: dict[Row, dict[str, list[float]]]) -> list[dict[str, Any]]:
    """Return the rows of the result file, kind by kind."""
    by_title = {row.title: numbers for row, numbers in measured.items()}
    rows = []
    for row in sorted(order, key=lambda row: _KINDS.index(row.kind)):
        # Of the same rounds: what bee-queue did in the row that this one belongs to.
        others = {name: by_title.get(row.beside, {}).get(name) for name in (BEE_QUEUE,)}
        numbers = {**{name: values for name, values in others.items() if values}, **measured[row]}
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
    parser.add_argument(
        "--quick", action="store_true", help="tiny counts, one round: only to see that it runs"
    )
    parser.add_argument("--rounds", type=int, help="rounds, of which medians are taken (5)")
    parser.add_argument("--only", help=f"some of the rows, with commas: {','.join(GROUPS)}")
    parser.add_argument(
        "--out", type=Path, help="the result file (results/bench.json; none with --quick or --only)"
    )
    parser.add_argument("--no-uvloop", action="store_true", help="beeq on asyncio's own loop")
    if CAN_CLAIM_AHEAD:
        parser.add_argument("--claim-ahead-ms", type=int, help="beeq's setting in all rows (its default)")
    options = parser.parse_args(arguments)
    rounds: int = (1 if options.quick else 5) if options.rounds is None else options.rounds
    if rounds < 1:
        parser.error("--rounds must be at least 1")
    only = GROUPS if options.only is None else options.only.split(",")
    if unknown := set(only) - set(GROUPS):
        parser.error(f"--only does not know {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}")
    is_whole = options.only is None and not options.quick
    out: Path | None = options.out or (_RESULT if is_whole else None)
    ahead: int | None = getattr(options, AHEAD, None)

    uvloop = not options.no_uvloop and importlib.util.find_spec("uvloop") is not None
    libraries = [
        measures.bee_queue(install(BEE_QUEUE_PEER)),
        measures.exchange_alone(),
        measures.beeq(uvloop=uvloop, settings={} if ahead is None else {AHEAD: ahead}),
    ]
    every = [one for one in plan(is_quick=options.quick, claim_ahead_ms=ahead) if one.group in only]
    before = busy_before()
    bystanders = Bystanders()
    with tempfile.TemporaryDirectory() as folder, Server(Path(folder)) as server:
        with server.sync_client() as client:
            facts = conditions(client, uvloop=uvloop, bee_queue_version=BEE_QUEUE_PEER.version)
        rows = measure(libraries, server, every, rounds=rounds)
    if ahead is not None:
        facts["settings"] += f"; beeq's {AHEAD} is {ahead}"
    result = {
        "conditions": {**facts, **before, **bystanders.facts(), "rounds": rounds, "quick": options.quick},
        "measurements": rows,
    }
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=2) + "\n")
        chart(result, out.with_name("drain.svg"))
    print(table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
