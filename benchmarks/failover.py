"""Measures what a failover costs: ``python benchmarks/failover.py``. See README.md here.

Each round has servers of its own: a primary, its replica and a Sentinel, or a cluster whose owner of the
queue's slot has a replica. A producer saves 300 jobs a second, each under an id of its own, and saves none
twice; a worker runs them. Then the primary is killed, or asked to hand over. The producer's replies are
compared with the jobs on the last primary, and with the jobs that ran.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, Self

from redis.crc import key_slot

_HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(_HERE.parent))

from beeq import Job, Queue  # noqa: E402 - found by the line above
from beeq.errors import kind_of  # noqa: E402 - found by the line above
from beeq.process import loop_factory  # noqa: E402 - found by the line above
from benchmarks.conditions import Bystanders, busy_before, machine  # noqa: E402 - found by the line above
from benchmarks.report import failover_table  # noqa: E402 - found by the line above
from benchmarks.servers import Server  # noqa: E402 - found by the line above
from benchmarks.topologies import Cluster, Pair, ask, is_in_step, role, until  # noqa: E402 - found by the line above

_RESULT = _HERE / "results" / "failover.json"
_SAVES_PER_S = 300
#: How often the producer saves, and hence how many at once.
_TICK_S = 0.01
_CONCURRENCY = 20
#: How long the servers run without a fault, before it and after the recovery.
_CALM_S = 2.0
_QUICK_CALM_S = 0.5
#: A killed server comes back after so long, as a replica: as where something restarts it.
_AWAY_S = 3.0
#: How long saves under way, and then jobs, may take in the end. A lost outcome waits for two stall checks.
_PATIENCE_S = 40.0
_TAG = "failover"
_CLUSTER_OPTIONS = ("--cluster-node-timeout", "1000", "--cluster-replica-validity-factor", "0")


class Fleet(Protocol):
    """Servers of which one is the queue's, and another can replace it."""

    url: str
    prefix: str

    @property
    def primary(self) -> Server:
        """The queue's server, now."""

    def hand_over(self) -> None:
        """Let the replica take the primary's place; return when the old one is its replica."""

    def kill(self) -> None:
        """Kill the primary; return when another one is in its place, and the killed one is its replica."""

    def __enter__(self) -> Self:
        """Start them."""

    def __exit__(self, *exception: object) -> None:
        """Stop them."""


class SentinelFleet(AbstractContextManager["SentinelFleet"]):
    """A primary, its replica and a Sentinel, which looks at them as often as it does by default."""

    prefix = "bq"

    def __init__(self, folder: Path, *options: str, is_quick: bool) -> None:
        self._pair = Pair(folder, *options, is_watched_closely=is_quick)

    def __enter__(self) -> Self:
        """Start them."""
        self._pair.__enter__()
        self.url = self._pair.url
        return self

    def __exit__(self, *_exception: object) -> None:
        """Stop them."""
        self._pair.__exit__()

    @property
    def primary(self) -> Server:
        """The queue's server, now."""
        return self._pair.primary

    def hand_over(self) -> None:
        """Ask the Sentinel for a failover: it demotes the old primary some time after the promotion."""
        self._pair.fail_over()
        self._pair.change_places()
        until(lambda: is_in_step(self._pair.primary, self._pair.replica))

    def kill(self) -> None:
        """Kill the primary, and start it as a replica of the next one."""
        self._pair.primary.kill()
        self._pair.change_places()
        time.sleep(_AWAY_S)
        self._pair.revive()


class ClusterFleet(AbstractContextManager["ClusterFleet"]):
    """Three primaries; the one that owns the queue's slot has a replica."""

    prefix = f"{{{_TAG}}}"

    def __init__(self, folder: Path, *options: str, is_quick: bool) -> None:
        del is_quick  # a cluster's nodes look at their usual rate
        self._cluster = Cluster(folder, *_CLUSTER_OPTIONS, *options, tag=_TAG)

    def __enter__(self) -> Self:
        """Start them."""
        self._cluster.__enter__()
        self.url = f"redis+cluster://127.0.0.1:{self._cluster.nodes[0].port}"
        self._primary, self._replica = self._cluster.owner(key_slot(_TAG.encode())), self._cluster.replica
        return self

    def __exit__(self, *_exception: object) -> None:
        """Stop them."""
        self._cluster.__exit__()

    @property
    def primary(self) -> Server:
        """The queue's server, now."""
        return self._primary

    def _change_places(self) -> None:
        until(lambda: role(self._replica) == "master")
        self._primary, self._replica = self._replica, self._primary

    def hand_over(self) -> None:
        """Ask the replica to take over: the cluster holds writes back until it has all."""
        ask(self._replica, "CLUSTER", "FAILOVER")
        self._change_places()
        until(lambda: is_in_step(self._primary, self._replica))

    def kill(self) -> None:
        """Kill the primary, and start it again: it finds the next one by itself."""
        self._primary.kill()
        self._change_places()
        time.sleep(_AWAY_S)
        self._cluster.revive(self._replica)
        until(lambda: is_in_step(self._primary, self._replica))


FLEETS: dict[str, Callable[..., Fleet]] = {"sentinel": SentinelFleet, "cluster": ClusterFleet}
FAULTS: dict[str, Callable[[Fleet], None]] = {
    "planned": lambda fleet: fleet.hand_over(),
    "killed": lambda fleet: fleet.kill(),
}


@dataclass(frozen=True)
class Guard:
    """A protection against the loss of acknowledged jobs."""

    options: tuple[str, ...] = ()
    wait_replicas: int = 0


GUARDS = {
    "none": Guard(),
    "wait_replicas=1": Guard(wait_replicas=1),
    "min-replicas-to-write 1": Guard(
        options=("--min-replicas-to-write", "1", "--min-replicas-max-lag", "10")
    ),
}


class Load:
    """A producer and a worker on one queue, in this process."""

    def __init__(self, fleet: Fleet, *, wait_replicas: int) -> None:
        where: dict[str, Any] = {"redis": fleet.url, "prefix": fleet.prefix}
        self.producer = Queue("load", is_worker=False, wait_replicas=wait_replicas, **where)
        self.worker = Queue("load", **where)
        self.acknowledged: set[str] = set()
        #: Id → when its handler began, by the loop's clock.
        self.starts: dict[str, list[float]] = {}
        self.raised: Counter[str] = Counter()
        self._saves: set[asyncio.Task[None]] = set()
        for queue in (self.producer, self.worker):
            queue.on("error", lambda _error: None)  # outages are expected here
        self.worker.process(self._handle, _CONCURRENCY)

    async def _handle(self, job: Job) -> None:
        self.starts.setdefault(job.saved_id(), []).append(asyncio.get_running_loop().time())

    async def _save(self, job_id: str) -> None:
        try:
            await self.producer.create_job().set_id(job_id).save()
        except Exception as error:  # noqa: BLE001 - any error counts as a reply to the producer
            self.raised[kind_of(error)] += 1
        else:
            self.acknowledged.add(job_id)

    async def produce(self) -> None:
        """Save without a pause, whether or not earlier saves have returned, until cancelled."""
        loop = asyncio.get_running_loop()
        began, saved = loop.time(), 0
        while True:
            while saved < (loop.time() - began) * _SAVES_PER_S:
                save = asyncio.create_task(self._save(f"job-{saved}"))
                self._saves.add(save)
                save.add_done_callback(self._saves.discard)
                saved += 1
            await asyncio.sleep(_TICK_S)

    async def saves_ended(self) -> None:
        """Return when each save has returned or raised. Raises TimeoutError."""
        async with asyncio.timeout(_PATIENCE_S):
            await asyncio.gather(*self._saves)

    async def close(self) -> None:
        """Close both queues."""
        await asyncio.gather(self.producer.close(), self.worker.close())


async def play(fleet: Fleet, fault: str, *, wait_replicas: int, calm_s: float) -> dict[str, Any]:
    """Run one round on running servers, and return its numbers."""
    loop = asyncio.get_running_loop()
    load = Load(fleet, wait_replicas=wait_replicas)
    await asyncio.gather(load.producer.ready(), load.worker.ready())
    producing = asyncio.create_task(load.produce())
    await asyncio.sleep(calm_s)
    began = loop.time()
    await asyncio.to_thread(FAULTS[fault], fleet)
    await asyncio.sleep(calm_s)
    producing.cancel()
    stopped = loop.time()
    await load.saves_ended()
    known = await asyncio.to_thread(_worked_off, fleet.primary, load.producer)
    await load.close()
    lost = load.acknowledged - known
    lasting = sorted(start for job_id in known for start in load.starts.get(job_id, ()))
    gaps = [later - earlier for earlier, later in pairwise(lasting) if later >= began and earlier <= stopped]
    return {
        "acknowledged": len(load.acknowledged),
        "lost": len(lost),
        "never_run": len(lost - load.starts.keys()),
        "run_twice": sum(len(starts) > 1 for starts in load.starts.values()),
        "raised": dict(load.raised),
        "pause_s": round(max(gaps, default=stopped - began), 3),
    }


def _worked_off(primary: Server, queue: Queue) -> set[str]:
    """Return the ids of all jobs that the primary has, once none of them waits or runs."""
    keys = queue.keys
    with primary.sync_client() as client:
        until(lambda: not client.exists(keys.waiting, keys.active, keys.delayed), _PATIENCE_S)
        ids: set[str] = set(client.hkeys(keys.jobs))
    return ids


def measure(fleet: str, fault: str, guard: Guard, *, is_quick: bool) -> dict[str, Any]:
    """Run one round on servers of its own."""
    calm_s = _QUICK_CALM_S if is_quick else _CALM_S
    with (
        tempfile.TemporaryDirectory() as folder,
        FLEETS[fleet](Path(folder), *guard.options, is_quick=is_quick) as servers,
        asyncio.Runner(loop_factory=loop_factory()) as runner,
    ):
        return runner.run(play(servers, fault, wait_replicas=guard.wait_replicas, calm_s=calm_s))


def _parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="rounds of each scene (20)")
    parser.add_argument("--quick", action="store_true", help="one short round: only to see that it runs")
    for name, every in (("fleets", FLEETS), ("faults", FAULTS), ("guards", GUARDS)):
        text = ",".join(every)
        parser.add_argument(f"--{name}", metavar="A,B", default=text, help=f"which of {text}")
    parser.add_argument("--out", type=Path, help="the result file (of a full run: results/failover.json)")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    for name, every in (("fleets", FLEETS), ("faults", FAULTS), ("guards", GUARDS)):
        chosen = getattr(options, name).split(",")
        if unknown := [one for one in chosen if one not in every]:
            parser.error(f"--{name} does not know {', '.join(unknown)}; there are {', '.join(every)}")
        setattr(options, name, chosen)
    return options


def main(arguments: list[str] | None = None) -> int:
    """Measure, write the result file, print the table."""
    options = _parsed(arguments)
    rounds = 1 if options.quick else options.rounds
    scenes: list[dict[str, Any]] = [
        {"servers": fleet, "fault": fault, "guard": guard, "rounds": [], "failed": []}
        for fleet in options.fleets
        for fault in options.faults
        for guard in options.guards
    ]
    before, bystanders = busy_before(), Bystanders()
    with (
        tempfile.TemporaryDirectory() as folder,
        Server(Path(folder)) as server,
        server.sync_client() as client,
    ):
        facts = machine(client, uvloop=loop_factory() is not None)
    for turn in range(rounds):
        for scene in scenes:
            title = f"{scene['servers']}, {scene['fault']}, {scene['guard']}"
            print(f"round {turn + 1} of {rounds}: {title}", file=sys.stderr)
            guard = GUARDS[scene["guard"]]
            try:
                numbers = measure(scene["servers"], scene["fault"], guard, is_quick=options.quick)
            except Exception as error:  # noqa: BLE001 - servers that did not get over it: an hour's other rounds stay
                scene["failed"].append(f"{kind_of(error)}: {error}")
                print(f"  failed: {scene['failed'][-1]}", file=sys.stderr)
            else:
                scene["rounds"].append(numbers)
                print(f"  {numbers}", file=sys.stderr)
    about = {**facts, **before, **bystanders.facts(), "rounds": rounds, "quick": options.quick}
    result = {"conditions": about, "scenes": scenes}
    is_full = not options.quick and len(scenes) == len(FLEETS) * len(FAULTS) * len(GUARDS)
    out = options.out or (_RESULT if is_full else None)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=2) + "\n")
    print(failover_table(result))
    return 1 if any(scene["failed"] for scene in scenes) else 0


if __name__ == "__main__":
    sys.exit(main())
