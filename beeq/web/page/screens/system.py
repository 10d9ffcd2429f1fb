"""Redis: memory, what happens when it is full, clients, clock, and commands that took long."""

import time
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from beeq.errors import RedisRefused
from beeq.operations.diagnosis.server import (
    GOOD_POLICY,
    MOST_SKEW_MS,
    MOST_USED,
    failed_saves,
    info_facts,
)
from beeq.queue import Queue
from beeq.redis.urls import redact
from beeq.web.page import words
from beeq.web.page.look import ScreenRequest
from beeq.web.page.store import in_time

_REMEMBERED, _SLOW = 100, 10
_LONGEST_COMMAND = 160


@dataclass(frozen=True, slots=True)
class Fact:
    """One line: a name, a value, and what is wrong with it, or ""."""

    name: str
    value: str
    warning: str = ""


async def show(look: ScreenRequest) -> Response:
    """Return what Redis says of itself."""
    home = await look.parts.store.home(look.prefix)
    async with in_time():
        info = await _info(home)
        facts = [*_facts(info), await _clock(home)]
        slow = await _slow_commands(home)
    return look.screen("system.html", facts=facts, slow=slow, has_info=bool(info), hides=look.hides_data)


async def _ask(home: Queue, *command: Any) -> Any:
    """Return Redis's reply; None if this user may not ask."""
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
