"""Lets a queue's history grow older, for tests that cannot wait for minutes."""

from __future__ import annotations

import time
from typing import Any

from beeq.protocol.keys import Keys


def wait_for_a_minute_with(seconds: float) -> None:
    """Return in a minute of which so much is left: a test must not begin in one and end in the next."""
    left_s = 60 - time.time() % 60
    if left_s < seconds:
        time.sleep(left_s)


async def let_minutes_pass(redis: Any, keys: Keys, count: int = 1) -> None:
    """Note the queue's minutes as if so many more had passed since; ``redis`` decodes replies."""
    minutes = await redis.hgetall(keys.minutes)
    last = minutes.pop("last", "")
    older = {str(int(minute) - count): entry for minute, entry in minutes.items()}
    if last:
        minute, rest = last.split(",", 1)
        older["last"] = f"{int(minute) - count},{rest}"
    await redis.delete(keys.minutes)
    if older:
        await redis.hset(keys.minutes, mapping=older)


async def put_history(redis: Any, keys: Keys, entries: dict[int, str]) -> None:
    """Put entries by how many minutes ago they were noted, as if the current minute had been sampled."""
    seconds, _ = await redis.time()
    minute = int(seconds) // 60
    noted = {str(minute - ago): entry for ago, entry in entries.items()}
    await redis.hset(keys.minutes, mapping={**noted, "last": f"{minute},0,0,0,0"})
