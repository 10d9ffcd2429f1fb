"""What a process has claimed ahead runs elsewhere, whatever keeps the process from running it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis as redis_py

pytestmark = pytest.mark.external  # each starts worker processes

#: A worker at concurrency 1; what it runs is noted in Redis before anything else happens.
PROGRAM = """
import asyncio, ctypes, sys, time
import redis
from beeq import Queue

noted = redis.Redis.from_url(sys.argv[1])
queue = Queue(sys.argv[2], redis=sys.argv[1], stall_interval=int(sys.argv[4]))

@queue.process(concurrency=1)
async def handler(job):
    noted.rpush(sys.argv[2] + ":ran", f"{job.id} {sys.argv[3]}")
    match job.data:
        case "waits":
            await asyncio.sleep(600)
        case "blocks":
            time.sleep(600)
        case "holds the interpreter":
            ctypes.PyDLL(None).sleep(600)
        case "is stopped" | "is killed":
            if noted.incr(sys.argv[2] + ":stuck") == 1:
                noted.rpush(sys.argv[2] + ":began", job.id)
                time.sleep(600)

asyncio.run(queue.run(catch_signals=False))
"""
TRAINING = 60
BEHIND = 100


class Fleet:
    """Workers of one queue, each a process."""

    def __init__(self, url: str, name: str) -> None:
        self.url, self.name = url, name
        self.redis = redis_py.Redis.from_url(url, decode_responses=True)
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, stall_interval_ms: int = 60_000) -> subprocess.Popen[bytes]:
        """Start one more; by default no stall check gives back what it has claimed."""
        arguments = [self.url, self.name, str(len(self.processes)), str(stall_interval_ms)]
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, *arguments], stderr=subprocess.DEVNULL)
        self.processes.append(process)
        return process

    def save(self, *data: str) -> None:
        """Save all at once, as Node does."""
        pipeline = self.redis.pipeline()
        for each in data:
            job_id = str(len(self.saved) + 1)
            self.saved.append(each)
            record = {"data": each, "options": {"timestamp": 1, "stacktraces": []}, "status": "created"}
            pipeline.hset(f"bq:{self.name}:jobs", job_id, json.dumps(record))
            pipeline.lpush(f"bq:{self.name}:waiting", job_id)
        pipeline.execute()

    saved: list[str]

    @property
    def ran(self) -> list[str]:
        """Ids of the jobs that have begun, in their order."""
        return [line.split()[0] for line in self._lines()]

    def process_of(self, job_id: str) -> subprocess.Popen[bytes]:
        """Return the process that runs the job."""
        at = next(line.split()[1] for line in self._lines() if line.split()[0] == job_id)
        return self.processes[int(at)]

    def _lines(self) -> list[str]:
        lines: Any = self.redis.lrange(f"{self.name}:ran", 0, -1)
        return list(lines)

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        self.redis.close()


@pytest.fixture
def fleet(own_valkey: Any, queue_name: str) -> Iterator[Fleet]:
    made = Fleet(own_valkey.url, queue_name)
    made.saved = []
    yield made
    made.end()


def wait_until(predicate: Any, within_s: float = 60) -> None:
    ends_s = time.monotonic() + within_s
    while not predicate():
        assert time.monotonic() < ends_s, "too late"
        time.sleep(0.01)


@pytest.mark.parametrize("how", ["waits", "blocks", "holds the interpreter", "is stopped", "is killed"])
def test_the_others_run_elsewhere_and_each_runs_once(fleet: Fleet, how: str) -> None:
    for _ in range(2):
        fleet.start()
    wait_until(lambda: fleet.redis.zcard(f"bq:{fleet.name}:beeq:workers") == 2)
    fleet.save(*["short"] * TRAINING)
    wait_until(lambda: len(fleet.ran) == TRAINING)
    fleet.save(*["short"] * 20, how, *["short"] * BEHIND)
    stuck_id = str(TRAINING + 21)
    wait_until(lambda: stuck_id in fleet.ran)
    if how in ("is stopped", "is killed"):
        fleet.redis.blpop([f"{fleet.name}:began"], 30)
        process = fleet.process_of(stuck_id)
        process.send_signal(signal.SIGSTOP if how == "is stopped" else signal.SIGKILL)
    wait_until(lambda: len(set(fleet.ran)) == len(fleet.saved))
    ran = fleet.ran
    assert len(ran) == len(set(ran)), "a job ran twice"


def test_what_the_only_worker_leaves_stalls_and_runs(fleet: Fleet) -> None:
    """Redis has no note of what is claimed ahead where nobody else could take it back."""
    first = fleet.start(1000)
    fleet.save(*["short"] * TRAINING)
    wait_until(lambda: len(fleet.ran) == TRAINING)
    fleet.save(*["short"] * 20, "is killed", *["short"] * BEHIND)
    fleet.redis.blpop([f"{fleet.name}:began"], 30)
    first.kill()
    assert not fleet.redis.exists(f"bq:{fleet.name}:beeq:ahead")
    fleet.start(1000)
    wait_until(lambda: len(set(fleet.ran)) == len(fleet.saved))
