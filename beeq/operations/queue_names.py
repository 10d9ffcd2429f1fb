"""Finds the queues in a Redis, and those that have a job of some id."""

import asyncio
import time
from collections.abc import Iterable

from beeq.client.registry import MOST_QUEUES
from beeq.errors import RedisRefused
from beeq.protocol.keys import Keys, registry_key
from beeq.redis.pipeline import Pipeline
from beeq.redis.rights import is_lack_of_right

#: The most keys and the longest time of a search, and the keys of one call.
MOST_KEYS = 200_000
LONGEST_S = 3.0
_KEYS_AT_ONCE = 1000
#: Queues that are asked at once.
_ASKED_AT_ONCE = 100
#: Errors of Redis for a queue that this connection cannot read.
_ELSEWHERE = ("MOVED", "CROSSSLOT", "NOPERM")


async def find_queue_names(
    pipeline: Pipeline, prefix: str, *, registry: str | None = None
) -> tuple[list[str], bool]:
    """Return the names of queues, sorted, and whether all keys were looked at.

    Queues that beeq uses are in a registry, see ``registry_key``; ``registry`` names another one. Queues that
    only Node uses are found by their keys, if they have jobs, within the search's limits. A Redis user
    without the right to SCAN, or to the registry, finds the others. In a cluster only the pipeline's node is
    asked. Raises RedisUnavailable, QueueClosed.
    """
    names = set(await registered_names(pipeline, registry_key(prefix) if registry is None else registry))
    head, tail = f"{prefix or 'bq'}:", ":jobs"
    pattern = f"{_escaped(head)}*{tail}"
    cursor, looked_at, ends_s = b"0", 0, time.monotonic() + LONGEST_S
    while True:
        try:
            cursor, keys = await pipeline.call(
                "SCAN", cursor, "MATCH", pattern, "COUNT", _KEYS_AT_ONCE, "TYPE", "hash", repeatable=True
            )
        except RedisRefused as refused:
            if not is_lack_of_right(refused):
                raise
            return sorted(names), False
        for key in keys:
            name = key.decode(errors="replace").removeprefix(head).removesuffix(tail)
            if name and Keys(prefix, name).jobs.encode() == key:
                names.add(name)
        looked_at += _KEYS_AT_ONCE
        if cursor == b"0":
            return sorted(names), True
        if looked_at >= MOST_KEYS or time.monotonic() > ends_s:
            return sorted(names), False


async def registered_names(pipeline: Pipeline, registry: str) -> list[str]:
    """Return the names of the queues that beeq uses, those used last first.

    Raises RedisUnavailable, QueueClosed.
    """
    try:
        found = await pipeline.call("ZRANGE", registry, -MOST_QUEUES, -1, repeatable=True)
    except RedisRefused:  # no right to it, a foreign key of another type, another node's slot
        return []
    return [name for name in map(_text_of, reversed(found)) if name]


def _text_of(raw: bytes) -> str:
    """Return the name; "" for what is not text: no queue of beeq has that name."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return ""


async def queues_with(
    pipeline: Pipeline, prefix: str, names: Iterable[str], job_id: str, *, is_gone_too: bool = False
) -> list[str]:
    """Return those of the queues that have a job of that id, or with ``is_gone_too`` its outcome.

    A queue that this connection cannot ask, because it lies on another node of a cluster, is passed over; so
    is one whose key is of another type, unless it is the only one: that raises RedisRefused.
    """
    wanted = list(dict.fromkeys(names))
    passed_over = _ELSEWHERE if len(wanted) == 1 else (*_ELSEWHERE, "WRONGTYPE")
    found = []
    for start in range(0, len(wanted), _ASKED_AT_ONCE):
        some = wanted[start : start + _ASKED_AT_ONCE]
        answers = await asyncio.gather(
            *(
                _has(pipeline, Keys(prefix, name), job_id, is_gone_too=is_gone_too, passed_over=passed_over)
                for name in some
            )
        )
        found += [name for name, has in zip(some, answers, strict=True) if has]
    return found


async def _has(
    pipeline: Pipeline, keys: Keys, job_id: str, *, is_gone_too: bool, passed_over: tuple[str, ...]
) -> bool:
    hashes = [keys.jobs, *((keys.even_results, keys.odd_results) if is_gone_too else ())]
    try:
        for key in hashes:
            if await pipeline.call("HEXISTS", key, job_id, repeatable=True):
                return True
    except RedisRefused as refused:
        if refused.code not in passed_over:
            raise
    return False


def _escaped(text: str) -> str:
    """Return a pattern of SCAN that matches the text and nothing else."""
    return "".join(f"\\{character}" if character in "*?[]\\^" else character for character in text)
