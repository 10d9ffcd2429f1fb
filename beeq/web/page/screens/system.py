"""Redis: memory, what happens when it is full, clients, clock, slow commands; the mirror; what is wrong."""

import time
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from beeq.errors import RedisRefused
from beeq.mirror.lag import MirrorLag, read_lag
from beeq.operations.diagnosis.server import (
    GOOD_POLICY,
    MOST_SKEW_MS,
    MOST_USED,
    failed_saves,
    info_facts,
)
from beeq.process import now_ms
from beeq.queue import Queue
from beeq.redis.urls import redact
from beeq.web.page import words
from beeq.web.page.look import ScreenRequest
from beeq.web.page.screens import checkup
from beeq.web.page.store import in_time

#: A mirror that is so far behind is late.
_LATE_MIRROR_MS = 60_000
_REMEMBERED, _SLOW = 100, 10
_LONGEST_COMMAND = 160


@dataclass(frozen=True, slots=True)
class Fact:
    """One line: a name, a value, and what is wrong with it, or ""."""

    name: str
    value: str
    warning: str = ""


async def show(look: ScreenRequest) -> Response:
    """Return the system screen."""
    home = await look.parts.store.home(look.prefix)
    async with in_time():
        info = await _info(home)
        facts = [*_facts(info), await _clock(home)]
        slow = await _slow_commands(home)
        findings = await checkup.quick(look)
    return look.screen(
        "system.html",
        facts=facts,
        slow=slow,
        has_info=bool(info),
        findings=findings,
        mirror=await _mirror(look),
        has_mirror=look.parts.mirror.is_there,
        last_checkup=look.parts.checkups.newest,
        now_ms=now_ms(),
    )


async def _mirror(look: ScreenRequest) -> list[Fact]:
    """Return how far the mirror is behind; nothing where there is none."""
    home = await look.parts.store.home(look.at.prefixes[0])
    async with in_time():
        lag = await read_lag(home.pipeline, look.at.prefixes[0])
    if not (lag.queues or look.parts.mirror.is_there):
        return []
    facts = []
    if look.parts.mirror.is_there:
        took_ms, problem = await look.parts.mirror.ping()
        answers = f"answers in {words.duration(took_ms)}" if not problem else "cannot be asked"
        facts.append(Fact("MongoDB", answers, words.cut(problem, 300)))
    if lag.queues:
        facts += _lag_facts(lag)
    if lag.error:
        ago = words.duration(now_ms() - lag.error_at_ms)
        facts.append(Fact("Newest error", f"{ago} ago", words.cut(redact(lag.error), 300)))
    return facts


def _lag_facts(lag: MirrorLag) -> list[Fact]:
    """Return Redis's facts about waiting changes."""
    oldest_ms = None if lag.oldest_ms is None else now_ms() - lag.oldest_ms
    is_late = oldest_ms is not None and oldest_ms > _LATE_MIRROR_MS
    facts = [Fact("Changes that wait", _waiting(lag))]
    if oldest_ms is not None:
        late = "the mirror is late" if is_late else ""
        facts.append(Fact("The oldest of them", f"{words.duration(oldest_ms)} ago", late))
    if lag.writers is None:
        facts.append(Fact("Writers", "none was ever seen, or this user may not ask"))
    else:
        nobody = "nobody writes them to MongoDB" if lag.waiting and not lag.writers else ""
        facts.append(Fact("Writers", words.number(lag.writers), nobody))
    return facts


def _waiting(lag: MirrorLag) -> str:
    counts = [f"{words.number(one.waiting)} of {one.queue_name}" for one in lag.queues if one.waiting]
    if len(counts) > 1:
        return f"{words.number(lag.waiting)}: {', '.join(counts)}"
    return counts[0] if counts else "0"


async def _ask(home: Queue, *command: Any) -> Any:
    """Return Redis's reply; None if this user lacks the right."""
    try:
        return await home.pipeline.call(*command, repeatable=True)
    except RedisRefused:
        return None


async def _info(home: Queue) -> dict[str, str]:
    reply = await _ask(home, "INFO")
    return info_facts(reply) if isinstance(reply, bytes) else {}


def _facts(info: dict[str, str]) -> list[Fact]:
    if not info:
        return []
    facts = [Fact("Server", _server(info)), Fact("Memory", *_memory(info))]
    policy = info.get("maxmemory_policy", "")
    if policy:
        evicts = policy != GOOD_POLICY
        warning = (
            "jobs and their records may be dropped: set maxmemory-policy to noeviction" if evicts else ""
        )
        facts.append(Fact("When memory is full", policy, warning))
    facts.append(Fact("Clients", words.number(_whole(info, "connected_clients"))))
    blocked = _whole(info, "blocked_clients")
    facts.append(Fact("Clients that wait for a job", words.number(blocked)))
    facts.append(Fact("Commands a second", words.number(_whole(info, "instantaneous_ops_per_sec"))))
    facts.append(Fact("Up for", words.duration(_whole(info, "uptime_in_seconds") * 1000)))
    if info.get("role") == "master":
        facts.append(Fact("Replicas", words.number(_whole(info, "connected_slaves"))))
    facts += [Fact("Saving to disk", each.text, "look at Redis's log") for each in failed_saves(info)]
    evicted = _whole(info, "evicted_keys")
    if evicted:
        facts.append(Fact("Keys evicted", words.number(evicted), "some of them may have been jobs"))
    return facts


def _server(info: dict[str, str]) -> str:
    for name in ("valkey_version", "redis_version"):
        if name in info:
            return f"{name.partition('_')[0].title()} {info[name]}, {info.get('redis_mode', 'standalone')}"
    return "?"


def _memory(info: dict[str, str]) -> tuple[str, str]:
    used, limit = _whole(info, "used_memory"), _whole(info, "maxmemory")
    if not limit:
        return f"{words.size(used)}, without a limit", ""
    is_near = used >= MOST_USED * limit
    return f"{words.size(used)} of {words.size(limit)}", "nearly full" if is_near else ""


def _whole(info: dict[str, str], name: str) -> int:
    text = info.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else 0  # noqa: PLR2004 - digits enough


async def _clock(home: Queue) -> Fact:
    begun_ms = time.time() * 1000
    reply = await _ask(home, "TIME")
    if reply is None:
        return Fact("Clock", "this user may not ask for it")
    between_ms = (begun_ms + time.time() * 1000) / 2
    skew_ms = int(reply[0]) * 1000 + int(reply[1]) / 1000 - between_ms
    warning = "delayed jobs may run early or late" if abs(skew_ms) > MOST_SKEW_MS else ""
    ahead = "ahead of" if skew_ms > 0 else "behind"
    return Fact("Clock", f"{words.duration(abs(skew_ms))} {ahead} this machine's", warning)


async def _slow_commands(home: Queue) -> list[tuple[str, str, str]]:
    """Return when, how long and which, of the slow commands on this prefix's keys that Redis remembers."""
    reply = await _ask(home, "SLOWLOG", "GET", _REMEMBERED)
    if not isinstance(reply, list):
        return []
    slow = []
    beginning = f"{home.settings.prefix}:".encode()
    for entry in reply:
        _number, at_s, took_us, arguments, *_rest = entry
        key = next((each for each in arguments[:6] if each.startswith(beginning)), None)
        if key is not None:
            command = f"{arguments[0].decode(errors='replace')} {key.decode(errors='replace')} …"
            text = words.cut(redact(command), _LONGEST_COMMAND)
            slow.append((words.moment(int(at_s) * 1000), words.duration(int(took_us) / 1000), text))
    return slow[:_SLOW]
