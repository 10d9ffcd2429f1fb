"""The registry of queues: one that is noted is known, for so long, and not too many are."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from beeq.protocol.keys import Keys
from beeq.redis import scripts
from tests.lua.bench import Bench

pytestmark = pytest.mark.fast
LIFETIME_MS = 60_000


@pytest.fixture
def registry(bench: Bench) -> Iterator[str]:
    """Keys of a prefix that no other test uses: the registry is shared by all queues of one."""
    bench.keys = Keys(bench.keys.queue_name, "mail")
    yield bench.keys.queues
    bench.redis.delete(bench.keys.queues)


def note(bench: Bench, name: str, most: int = 10) -> object:
    return bench.run(scripts.note_queue, name=name, lifetime_ms=LIFETIME_MS, most=most)


def test_a_queue_is_noted_with_the_time_of_redis(bench: Bench, registry: str) -> None:
    before_ms = bench.now_ms()
    assert note(bench, "mail") == 1
    assert note(bench, "a:b") == 2
    noted = dict(bench.redis.zrange(registry, 0, -1, withscores=True))
    assert noted.keys() == {"mail", "a:b"}
    assert all(before_ms <= score <= bench.now_ms() for score in noted.values())
    assert 0 < bench.redis.pttl(registry) <= LIFETIME_MS
    assert bench.snapshot() == {}, "nothing of the queue itself is touched"


def test_names_that_nobody_notes_again_fall_off(bench: Bench, registry: str) -> None:
    now_ms = bench.now_ms()
    bench.redis.zadd(registry, {"old": now_ms - LIFETIME_MS - 1, "young": now_ms - LIFETIME_MS + 20_000})
    assert note(bench, "mail") == 2
    assert bench.redis.zrange(registry, 0, -1) == ["young", "mail"]


def test_of_too_many_names_the_oldest_go_some_at_once(bench: Bench, registry: str) -> None:
    now_ms = bench.now_ms()
    bench.redis.zadd(registry, {f"q{n}": now_ms - 1000 + n for n in range(250)})
    assert note(bench, "mail") == 151
    assert note(bench, "mail") == 51
    assert note(bench, "mail") == 10
    assert bench.redis.zrange(registry, 0, -1) == [*(f"q{n}" for n in range(241, 250)), "mail"]
