"""Pausing a queue, resuming it, and what is known of a pause."""

from __future__ import annotations

from typing import Any

import pytest

from beeq import Pause
from beeq.protocol.pauses import decode_pause

pytestmark = pytest.mark.fast


@pytest.fixture
def queue(make_queue):
    return make_queue(is_worker=False, activate_delayed_jobs=False)


def test_a_pause_is_read_as_it_was_written() -> None:
    raw = b'{"since":5,"until":9,"everyone":true,"by":"ada@host","reason":"deploy"}'
    assert decode_pause(raw) == Pause(5, "ada@host", "deploy", 9, everyone=True)


@pytest.mark.parametrize(
    "raw", [b"", b"1", b"\xff", b"[]", b'{"since":"x","until":true,"everyone":1,"by":7,"reason":null}']
)
def test_a_pause_that_somebody_set_by_hand_says_nothing_more(raw: bytes) -> None:
    assert decode_pause(raw) == Pause(0, "", "", None, everyone=False)


async def test_a_queue_that_was_never_paused_is_not(queue: Any) -> None:
    assert await queue.paused() is None


async def test_a_key_of_another_type_pauses_nobody(queue: Any, redis: Any) -> None:
    await redis.rpush(queue.keys.paused, "x")
    assert await queue.paused() is None
