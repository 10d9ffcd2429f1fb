"""``lua/peek_active.lua``: what came into active last, as long as nobody has claimed it."""

from __future__ import annotations

import pytest

from beeq.redis import scripts
from tests.lua.bench import Bench


def peek(bench: Bench, longest_bytes: int = 10) -> object:
    before = bench.snapshot()
    seen = bench.run(scripts.peek_active, longest_bytes=longest_bytes)
    assert bench.snapshot() == before
    assert bench.heard() == []
    return seen


def test_the_newest_id_is_seen_with_its_record(bench):
    bench.put(jobs={"1": "first", "2": "second"}, active=["2", "1"], claims={"1": "T.0:1"})
    assert peek(bench) == ["2", "second"]


def test_nothing_is_seen_where_nothing_is_active(bench):
    bench.put(jobs={"1": "first"}, waiting=["1"])
    assert peek(bench) is None


def test_an_id_without_a_record_is_not_seen(bench):
    bench.put(active=["ghost"])
    assert peek(bench) is None


@pytest.mark.parametrize("claim", ["T.0:1", ":1"], ids=["runs", "was handed out before"])
def test_an_id_that_was_handed_out_before_is_not_seen(bench, claim):
    bench.put(jobs={"1": "first"}, active=["1"], claims={"1": claim})
    assert peek(bench) is None


@pytest.mark.parametrize(("record", "is_seen"), [("x" * 10, True), ("x" * 11, False), ("é" * 6, False)])
def test_a_record_of_more_bytes_than_asked_for_is_not_seen(bench, record, is_seen):
    bench.put(jobs={"1": record}, active=["1"])
    assert peek(bench) == (["1", record] if is_seen else None)


def test_a_job_that_was_pushed_twice_is_not_seen_while_it_runs(bench):
    bench.put(jobs={"1": "record"}, active=["1", "2", "1"])
    assert peek(bench) is None
