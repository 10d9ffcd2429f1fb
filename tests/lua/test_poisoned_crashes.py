"""Jobs that kill their worker each time, among others: who is claimed ahead behind them is not blamed."""

from __future__ import annotations

import random

import pytest

from tests.lua.bench import Bench

AHEAD = 10
#: How often a job may lose its worker; with the next delivery it fails.
MAX_STALLS = 1


def take(bench: Bench, token: str) -> list[tuple[str, int]]:
    """Ask for one job and some ahead; return id and deliveries of each."""
    _, _, flat, *_ = bench.exchange(token=token, free=1, wanted_ahead=AHEAD)
    return list(zip(flat[::3], map(int, flat[2::3]), strict=True))


def stall(bench: Bench, job_id: str, deliveries: int) -> None:
    """Queue a job again, as a stall check does."""
    bench.redis.lrem(bench.keys.active, 1, job_id)
    bench.redis.hset(bench.keys.claims, job_id, f":{deliveries}")
    bench.redis.lpush(bench.keys.waiting, job_id)


@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=pytest.mark.external)])  # it takes long
def test_no_innocent_fails_however_many_crashes(bench: Bench, count: int) -> None:
    chance = random.Random(1)
    ids = [str(n) for n in range(count)]
    poisoned = set(chance.sample(ids, count * 9 // 20))
    bench.put(jobs=dict.fromkeys(ids, "record"), waiting=ids)
    crashes = calls = 0
    failed: set[str] = set()
    most = dict.fromkeys(ids, 0)
    while bench.redis.llen(bench.keys.waiting):
        is_alive = True
        while is_alive:  # one worker's life, at concurrency 1
            calls += 1
            jobs = take(bench, f"t{calls}")
            if not jobs:
                break
            for at, (job_id, deliveries) in enumerate(jobs):
                most[job_id] = max(most[job_id], deliveries)
                if deliveries > MAX_STALLS + 1:
                    failed.add(job_id)
                elif job_id in poisoned:
                    crashes += 1
                    is_alive = False
                    for lost_id, lost in jobs[at:]:
                        stall(bench, lost_id, lost)
                    break
                bench.redis.lrem(bench.keys.active, 1, job_id)
                bench.redis.hdel(bench.keys.claims, job_id)
    assert crashes >= count / 2
    assert failed == poisoned
    assert max(most[job_id] for job_id in ids if job_id not in poisoned) == MAX_STALLS + 1
