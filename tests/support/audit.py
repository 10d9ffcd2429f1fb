"""What must be true of a queue's keys after any test: nothing unknown, nothing lost, nothing twice."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from beeq.protocol.keys import BEE_SUFFIXES, Keys

if TYPE_CHECKING:
    from redis import Redis

#: A job is in one of these.
_STATES = ("waiting", "active", "delayed", "succeeded", "failed")


def _members(redis: Redis, keys: Keys, name: str) -> list[str]:
    key = keys.to_key(name)
    if name in ("waiting", "active"):
        hidden = redis.lrange(keys.hidden, 0, -1) if name == "waiting" else []
        return [str(job_id) for job_id in [*redis.lrange(key, 0, -1), *hidden]]
    if name == "delayed":
        return [str(job_id) for job_id in redis.zrange(key, 0, -1)]
    return [str(job_id) for job_id in redis.smembers(key)]


def faults(redis: Redis, keys: Keys) -> list[str]:
    """Return what is wrong with the queue, as sentences; empty when all is well.

    Args:
        redis: a client that decodes replies.
        keys: the queue's.
    """
    found = []
    stem = keys.to_key("")
    known = {keys.to_key(suffix) for suffix in BEE_SUFFIXES}
    found += [
        f"unknown key {key}"
        for key in redis.scan_iter(match=f"{_escaped(stem)}*", count=1000)
        if key not in known and not key.startswith(f"{stem}beeq:")
    ]
    places: Counter[str] = Counter()
    for state in _STATES:
        places.update(_members(redis, keys, state))
    records = set(redis.hkeys(keys.jobs))
    found += [f"job {job_id!r} is in {n} places" for job_id, n in places.items() if n != 1]
    found += [f"job {job_id!r} has no record" for job_id in places.keys() - records]
    found += [f"job {job_id!r} is nowhere" for job_id in records - places.keys()]
    active = set(_members(redis, keys, "active"))
    found += [f"{job_id!r} is stalling, not active" for job_id in redis.smembers(keys.stalling) - active]
    claims = set(redis.hkeys(keys.claims))
    found += [f"a claim of {job_id!r} outlived its record" for job_id in claims - records]
    results = set(redis.hkeys(keys.results))
    found += [f"a result of {job_id!r} outlived its record" for job_id in results - records]
    attempts = set(redis.hkeys(keys.attempts))
    found += [f"attempts of {job_id!r} outlived its record" for job_id in attempts - records]
    passing = (keys.even_results, keys.odd_results, keys.requeued, keys.swept, keys.written, keys.attempts)
    found += [f"{key} never expires" for key in passing if redis.ttl(key) == -1]
    return found


def delete(redis: Redis, keys: Keys) -> None:
    """Delete whatever is under the queue's prefix."""
    every = list(redis.scan_iter(match=f"{_escaped(keys.to_key(''))}*", count=1000))
    if every:
        redis.delete(*every)


def _escaped(text: str) -> str:
    """Return a SCAN pattern that matches ``text`` and nothing else."""
    return "".join(f"\\{c}" if c in "*?[]\\" else c for c in text)
