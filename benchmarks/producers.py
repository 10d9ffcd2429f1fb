"""Measures producers that block, of beeq and of others: ``python benchmarks/producers.py``. See README.md."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(_HERE.parent))

import beeq  # noqa: E402 - found by the line above
from benchmarks import peer_runs  # noqa: E402 - found by the line above
from benchmarks.conditions import Bystanders, busy_before, machine  # noqa: E402 - found by the line above
from benchmarks.peer_list import PEERS, Peer  # noqa: E402 - found by the line above
from benchmarks.peer_runs import PeerFailed  # noqa: E402 - found by the line above
from benchmarks.peers import Contender, measure  # noqa: E402 - found by the line above
from benchmarks.report import peer_table  # noqa: E402 - found by the line above
from benchmarks.servers import Server  # noqa: E402 - found by the line above

_RESULT = _HERE / "results" / "producers.json"
#: Threads → title.
_THREADS = {1: "1 thread", 8: "8 threads"}
#: Libraries with blocking producers, and how many jobs take most of a second.
_JOBS = {"beeq": 5_000, "rq": 1_500, "dramatiq": 2_500, "huey": 5_000, "celery": 1_000}
#: beeq itself, of this checkout and on this interpreter.
_OWN = Peer(
    "beeq",
    (f"beeq=={beeq.__version__}",),
    (),
    "beeq_sync_producer",
    lambda client, count: count - int(client.llen("bq:bench:waiting")),
    {},
    "`beeq.sync`",
)
#: A quick run divides the counts by this; its numbers mean nothing.
_QUICK = 20


def contenders() -> tuple[list[Contender], dict[str, str]]:
    """Return all of them, installing missing ones; and why some cannot be installed."""
    every, missing = [_contender(_OWN, Path(sys.prefix))], {}
    for peer in PEERS:
        if peer.name in _JOBS:
            try:
                every.append(_contender(peer, peer_runs.install(peer)))
            except PeerFailed as failure:
                missing[peer.name] = str(failure)
                print(failure, file=sys.stderr)
    return every, missing


def _contender(peer: Peer, place: Path) -> Contender:
    def produce(client: Any, server: Server, threads: int, count: int) -> float:
        return peer_runs.produce(peer, place, client, server.url, threads=threads, count=count)

    note = peer.note if peer is _OWN else ""  # the others' notes are of their workers
    return Contender(peer.name, peer.version, note, dict.fromkeys(_THREADS, _JOBS[peer.name]), produce)


def main(arguments: list[str] | None = None) -> int:
    """Measure, write the result file, print the table; return 1 if a peer failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="small counts, one round: only to see that it runs"
    )
    parser.add_argument("--rounds", type=int, help="rounds, of which medians are taken (5)")
    parser.add_argument(
        "--out", type=Path, help="the result file (results/producers.json; none with --quick)"
    )
    options = parser.parse_args(arguments)
    rounds: int = (1 if options.quick else 5) if options.rounds is None else options.rounds
    if rounds < 1:
        parser.error("--rounds must be at least 1")
    out: Path | None = options.out or (None if options.quick else _RESULT)

    every, missing = contenders()
    before = busy_before()
    bystanders = Bystanders()
    with tempfile.TemporaryDirectory() as folder, Server(Path(folder)) as server:
        with server.sync_client() as client:
            facts = machine(client, uvloop=False)
        divisor = _QUICK if options.quick else 1
        rows, failed = measure(every, server, rounds=rounds, divisor=divisor, titles=_THREADS)
    result = {
        "conditions": {**facts, **before, **bystanders.facts(), "rounds": rounds, "quick": options.quick},
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
