"""An outage with many queues: said, counted, and said to be over."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

from beeq import Queue, RedisError


async def test_an_outage_of_many_queues_is_said_seldom(
    own_valkey: Any, make_queue: Any, expect_errors: list[BaseException], eventually: Any
) -> None:
    queues: list[Queue] = [make_queue(f"queue-{n}", redis=own_valkey.url) for n in range(30)]
    said: Counter[tuple[str, str]] = Counter()
    back: dict[str, tuple[int, int]] = {}
    for queue in queues:
        queue.on(
            "error", lambda error, name=queue.name: said.update([(name, f"{type(error).__name__}: {error}")])
        )
        queue.on("reconnected", lambda ms, errors, name=queue.name: back.update({name: (ms, errors)}))
        queue.process(lambda _job: None)
    await asyncio.gather(*(queue.ready() for queue in queues))
    own_valkey.stop()
    await eventually(lambda: len({name for name, _text in said}) == len(queues))
    await asyncio.sleep(2.2)
    assert max(said.values()) == 1, "each text once"
    assert back == {}
    own_valkey.start()
    started = time.monotonic()
    await eventually(lambda: len(back) == len(queues), 30)
    assert time.monotonic() - started < 15
    assert all(errors > 2 and away_ms >= 2000 for away_ms, errors in back.values())
    assert [error for error in expect_errors if not isinstance(error, RedisError)] == []
    assert await (await queues[0].enqueue({})).result(timeout=9000) is None
