"""Measures drains of beeq and of other queues, in one run: ``python benchmarks/peers.py``. See README.md."""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(_HERE.parent))

import beeq  # noqa: E402 - found by the line above
from benchmarks import measures, peer_runs  # noqa: E402 - found by the line above
from benchmarks.binaries import DEFAULT, KINDS  # noqa: E402 - found by the line above
from benchmarks.conditions import Bystanders, busy_before, conditions  # noqa: E402 - found by the line above
from benchmarks.peer_list import BEE_QUEUE, PEERS, Peer  # noqa: E402 - found by the line above
from benchmarks.peer_runs import PeerFailed  # noqa: E402 - found by the line above
from benchmarks.report import peer_table  # noqa: E402 - found by the line above
from benchmarks.rows.drains import LEAN  # noqa: E402 - found by the line above
from benchmarks.servers import Server  # noqa: E402 - found by the line above

#: Concurrency → title.
_DRAINS = {concurrency: f"drain, concurrency {concurrency}" for concurrency in (1, 10, 100)}
_RESULT = _HERE / "results" / "peers.json"
#: A quick run divides the counts by this; its numbers mean nothing.
_QUICK = 20
#: All contenders, in the order of the table.
NAMES = ("beeq", "beeq-lean", "bee-queue", *(peer.name for peer in PEERS))


@dataclass(frozen=True)
class Contender:
    """A measured library."""

    name: str
    version: str
    note: str
    #: Concurrency → jobs.
    jobs: Mapping[int, int]
    #: Client, server, concurrency (or threads), jobs → jobs a second.
    drain: Callable[[Any, Server, int, int], float]


def contenders(names: list[str], *, uvloop: bool, log: Path) -> tuple[list[Contender], dict[str, str]]:
    """Return those with these names, in the order of the table, installing what is not there yet.

    Returns:
        Them; and why those that cannot be installed cannot, by name.

    Raises:
        PeerFailed: bee-queue cannot be installed.
    """
    every, failed = [], {}
    jobs = {1: 10_000, 10: 40_000, 100: 60_000}
    note = f"asyncio{', uvloop' if uvloop else ''}"
    if "beeq" in names:
        every.append(_own(measures.beeq(uvloop=uvloop), beeq.__version__, note, jobs))
    if "beeq-lean" in names:
        library = replace(measures.beeq(uvloop=uvloop, settings=LEAN["beeq"]), name="beeq-lean")
        every.append(
            _own(library, beeq.__version__, f"{note}; no events, nothing kept", jobs, is_dropped=True)
        )
    if "bee-queue" in names:
        library = measures.bee_queue(peer_runs.install(BEE_QUEUE))
        every.append(_own(library, BEE_QUEUE.version, BEE_QUEUE.note, BEE_QUEUE.jobs))
    for peer in PEERS:
        if peer.name in names:
            print(f"installing {peer.name} {peer.version}, unless it is there", file=sys.stderr)
            try:
                every.append(_other(peer, peer_runs.install(peer), log))
            except PeerFailed as failure:
                failed[peer.name] = str(failure)
                print(failure, file=sys.stderr)
    return every, failed


def _other(peer: Peer, place: Path, log: Path) -> Contender:
    def drain(client: Any, server: Server, concurrency: int, count: int) -> float:
        return peer_runs.drain(peer, place, client, server.url, concurrency=concurrency, count=count, log=log)

    return Contender(peer.name, peer.version, peer.note, peer.jobs, drain)


def _own(
    library: measures.Library,
    version: str,
    note: str,
    jobs: Mapping[int, int],
    *,
    is_dropped: bool = False,
) -> Contender:
    def drain(client: Any, server: Server, concurrency: int, count: int) -> float:
        return measures.drain(
            library,
            client,
            server.url,
            concurrency=concurrency,
            jobs=measures.Jobs(count),
            is_dropped=is_dropped,
        ).rate

    return Contender(library.name, version, note, jobs, drain)


def measure(
    every: list[Contender],
    server: Server,
    *,
    rounds: int,
    divisor: int,
    titles: Mapping[int, str] = _DRAINS,
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Let each do its work at each concurrency, by turns; ``titles`` says what the rows are called.

    Returns:
        A row for each concurrency; and why those that failed did, by name: they take no part in what follows.
    """
    measured: dict[int, dict[str, list[float]]] = {concurrency: {} for concurrency in titles}
    failed: dict[str, str] = {}
    with server.sync_client() as client:
        for turn in range(rounds):
            for concurrency, rates in measured.items():
                # The first library of one round goes last in the next.
                for one in every if turn % 2 == 0 else every[::-1]:
                    if one.name in failed or concurrency not in one.jobs:
                        continue
                    try:
                        rate = one.drain(client, server, concurrency, one.jobs[concurrency] // divisor)
                    except PeerFailed as failure:
                        failed[one.name] = str(failure)
                        print(failure, file=sys.stderr)
                        continue
                    rates.setdefault(one.name, []).append(rate)
                    at = f"round {turn + 1} of {rounds}, {titles[concurrency]}"
                    print(f"{at}: {one.name} {rate:.0f} jobs/s", file=sys.stderr)
    rows = [
        {
            "title": titles[concurrency],
            "unit": "jobs/s",
            "concurrency": concurrency,
            "median": {name: statistics.median(values) for name, values in rates.items()},
            "rounds": rates,
        }
        for concurrency, rates in measured.items()
    ]
    return rows, failed


def main(arguments: list[str] | None = None) -> int:
    """Measure, write the result file, print the table; return 1 if a peer failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small counts: only to see that it runs")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, of which medians are taken (3)")
    parser.add_argument("--only", help=f"some of them, with commas: {','.join(NAMES)}")
    parser.add_argument(
        "--out", type=Path, help="the result file (results/peers.json; none with --quick or --only)"
    )
    parser.add_argument("--server", choices=KINDS, default=DEFAULT, help=f"which server ({DEFAULT})")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    names = list(NAMES) if options.only is None else options.only.split(",")
    if unknown := set(names) - set(NAMES):
        parser.error(f"--only does not know {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    is_whole = options.only is None and not options.quick
    out: Path | None = options.out or (_RESULT if is_whole else None)

    uvloop = importlib.util.find_spec("uvloop") is not None
    with tempfile.TemporaryDirectory() as folder:
        every, missing = contenders(names, uvloop=uvloop, log=Path(folder) / "worker.log")
        before = busy_before()
        bystanders = Bystanders()
        (Path(folder) / "server").mkdir()
        with Server(Path(folder) / "server", kind=options.server) as server:
            with server.sync_client() as client:
                facts = conditions(client, uvloop=uvloop, bee_queue_version=BEE_QUEUE.version)
            divisor = _QUICK if options.quick else 1
            rows, failed = measure(every, server, rounds=options.rounds, divisor=divisor)
    about = {**facts, **before, **bystanders.facts(), "rounds": options.rounds, "quick": options.quick}
    result = {
        "conditions": about,
        "peers": {
            one.name: {"version": one.version, "note": "failed" if one.name in failed else one.note}
            for one in every
        },
        "failed": {**missing, **failed},
        "measurements": rows,
    }
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=2) + "\n")
    print(peer_table(result))
    return 1 if failed or missing else 0


if __name__ == "__main__":
    sys.exit(main())
