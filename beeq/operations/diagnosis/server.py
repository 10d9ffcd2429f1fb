"""What is wrong with a Redis server, as far as a queue depends on it."""

import re
from collections.abc import Callable

from beeq.client.rights_check import lack_of_rights
from beeq.errors import RedisRefused
from beeq.operations.diagnosis.findings import Finding
from beeq.protocol.keys import Keys
from beeq.redis.pipeline import Pipeline
from beeq.redis.rights import is_lack_of_right

#: The oldest server that beeq works with.
OLDEST = (6, 2)
#: The only policy that never evicts a key.
GOOD_POLICY = "noeviction"
#: How much a clock may be off before it is reported.
MOST_SKEW_MS = 1000
#: The part of maxmemory that may be used before writes are about to be refused.
MOST_USED = 0.9


async def check_server(pipeline: Pipeline, keys: Keys, *, now_ms: Callable[[], int]) -> list[Finding]:
    """Return what is wrong with the server. Raises RedisUnavailable, QueueClosed."""
    rights = await _rights(pipeline, keys)
    found = await look_at_server(pipeline, now_ms=now_ms)
    return found if rights is None else [rights, *found]


async def look_at_server(pipeline: Pipeline, *, now_ms: Callable[[], int]) -> list[Finding]:
    """Return the same but for rights, which only writing calls can test."""
    found = [await _clock(pipeline, now_ms)]
    try:
        facts = info_facts(await pipeline.call("INFO", repeatable=True))
    except RedisRefused:
        facts = {}
        text = "the user may not ask INFO: version, memory and persistence were not looked at"
        found.append(Finding("not-looked-at", text, is_problem=False))
    if facts:
        found += [_version(facts), _policy(facts), _memory(facts), *failed_saves(facts)]
        found.append(await _persistence(pipeline, facts))
    return [each for each in found if each is not None]


async def set_good_policy(pipeline: Pipeline) -> bool:
    """Set the server's policy to evict nothing; return whether that worked.

    A queue's user does not need this right: use an administrator's URL. Raises RedisError.
    """
    await pipeline.call("CONFIG", "SET", "maxmemory-policy", GOOD_POLICY, repeatable=True)
    facts = info_facts(await pipeline.call("INFO", "memory", repeatable=True))
    return facts.get("maxmemory_policy") == GOOD_POLICY


def info_facts(text: bytes) -> dict[str, str]:
    """Return the fields of INFO by name."""
    lines = (line.partition(":") for line in text.decode(errors="replace").splitlines())
    return {name: value.strip() for name, separator, value in lines if separator and name[:1] != "#"}


def _version(facts: dict[str, str]) -> Finding | None:
    version = facts.get("valkey_version") or facts.get("redis_version", "")
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is None or "valkey_version" in facts or tuple(map(int, numbers.groups())) >= OLDEST:
        return None
    oldest = ".".join(map(str, OLDEST))
    return Finding("server-version", f"Redis {version} is too old: beeq needs {oldest} or later")


def _policy(facts: dict[str, str]) -> Finding | None:
    policy = facts.get("maxmemory_policy", GOOD_POLICY)
    if policy == GOOD_POLICY:
        return None
    limit = _number(facts, "maxmemory")
    when = f"when more than {limit} bytes are used" if limit else "once maxmemory is set, which it is not now"
    text = f"maxmemory-policy is {policy}: Redis drops keys, jobs with them, {when}"
    return Finding("eviction-policy", text, f"sets maxmemory-policy to {GOOD_POLICY}")


def _memory(facts: dict[str, str]) -> Finding | None:
    limit, used = _number(facts, "maxmemory"), _number(facts, "used_memory")
    if not limit or used < MOST_USED * limit:
        return None
    return Finding("memory", f"Redis uses {used} of {limit} bytes: soon no job can be added (maxmemory)")


def failed_saves(facts: dict[str, str]) -> list[Finding]:
    """Return the server's failed saves of its data, by INFO."""
    states = {
        "rdb_last_bgsave_status": "the last snapshot could not be saved",
        "aof_last_write_status": "the append-only file could not be written",
        "aof_last_bgrewrite_status": "the append-only file could not be rewritten",
    }
    return [
        Finding("persistence", f"{text} ({name} is {facts[name]})")
        for name, text in states.items()
        if facts.get(name, "ok") != "ok"
    ]


async def _persistence(pipeline: Pipeline, facts: dict[str, str]) -> Finding | None:
    if facts.get("aof_enabled") != "0":
        return None
    try:
        reply = await pipeline.call("CONFIG", "GET", "save", repeatable=True)
    except RedisRefused:
        text = (
            "the append-only file is off, and the user may not ask whether snapshots are saved (CONFIG GET)"
        )
        return Finding("not-looked-at", text, is_problem=False)
    saves = reply[1].decode(errors="replace").strip() if reply else ""
    if not saves:
        return Finding("persistence", "Redis keeps nothing on disk: all jobs are lost when it ends")
    text = f"Redis saves snapshots only (save {saves}): jobs of the last minutes are lost when it dies"
    return Finding("persistence", text, is_problem=False)


async def _clock(pipeline: Pipeline, now_ms: Callable[[], int]) -> Finding | None:
    before = now_ms()
    seconds, micros = await pipeline.call("TIME", repeatable=True)
    after = now_ms()
    ahead_ms = (before + after) / 2 - (int(seconds) * 1000 + int(micros) / 1000)
    if abs(ahead_ms) <= MOST_SKEW_MS + (after - before) / 2:
        return None
    way, effect = ("ahead of", "late") if ahead_ms > 0 else ("behind", "early")
    text = f"this machine's clock is {abs(ahead_ms) / 1000:.1f} s {way} Redis's"
    return Finding("clock", f"{text}: jobs that are delayed from here run that much too {effect}")


async def _rights(pipeline: Pipeline, keys: Keys) -> Finding | None:
    try:
        lack = await lack_of_rights(pipeline, keys, "queue", "worker")
    except RedisRefused as refused:
        lack = refused if is_lack_of_right(refused) else None
    return None if lack is None else Finding("rights", str(lack).removeprefix("NOPERM "))


def _number(facts: dict[str, str], name: str) -> int:
    value = facts.get(name, "")
    return int(value) if value.isdecimal() else 0
