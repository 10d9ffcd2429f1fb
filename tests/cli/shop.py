"""A queue with some jobs in every state, for the commands that look at jobs and act on them."""

from __future__ import annotations

import json
from typing import Any

import redis

from beeq.protocol.keys import Keys

HOUR_MS = 3_600_000


def record(created_ms: int, status: str = "created", trace: str = "", **data: Any) -> str:
    options = {"timestamp": created_ms, "stacktraces": [trace] if trace else [], "retries": 0}
    return json.dumps({"data": data, "options": options, "status": status, "progress": 0})


class Shop:
    """A queue ``mail`` under a prefix of its own: 17 and 18 have failed, 19 is delayed, 20 and 21 wait."""

    def __init__(self, client: redis.Redis, prefix: str) -> None:
        self.redis = client
        self.keys = Keys(prefix, "mail")
        now_ms = int(client.time()[0]) * 1000  # type: ignore[index]  # a blocking client
        records = {
            "17": record(now_ms, "failed", "TimeoutError: late\n  at x", user=7),
            "18": record(now_ms - 48 * HOUR_MS, "failed", "ValueError: no \x1b[31m\nred", user=8),
            "19": record(now_ms, user=7),
            "20": record(now_ms, user=7),
            "21": record(now_ms, user=9, text="a\nb\x1b]0;x\x07"),
        }
        client.hset(self.keys.jobs, mapping=records)
        client.sadd(self.keys.failed, "17", "18")
        client.zadd(self.keys.delayed, {"19": now_ms + HOUR_MS})
        client.lpush(self.keys.waiting, "20", "21")
        attempt = [now_ms, now_ms - 1500, now_ms, "host:1:abc", "TimeoutError: late"]
        client.hset(self.keys.attempts, "17", json.dumps(attempt, separators=(",", ":")))
        client.expire(self.keys.attempts, 3600)

    def where(self) -> dict[str, list[str]]:
        """Return the ids of each state that has some."""
        client: Any = self.redis
        states = {
            "failed": sorted(client.smembers(self.keys.failed)),
            "delayed": client.zrange(self.keys.delayed, 0, -1),
            "waiting": client.lrange(self.keys.waiting, 0, -1)[::-1],
        }
        return {state: ids for state, ids in states.items() if ids}
