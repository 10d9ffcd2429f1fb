"""Reading the records of many jobs: a reply has a size."""

from __future__ import annotations

import pytest

from beeq.redis import scripts
from tests.lua.bench import Bench

pytestmark = pytest.mark.fast


def read(bench: Bench, *ids: str, max_bytes: int = 100) -> list[str | None]:
    records: list[str | None] = bench.run(
        scripts.read_records, max_bytes=max_bytes, ids=[(job_id,) for job_id in ids]
    )
    return records


def test_each_id_has_its_record_or_none(bench):
    state = {"jobs": {"a": "first", "b": "second"}}
    bench.put(**state)
    assert read(bench, "b", "gone", "a", "b") == ["second", None, "first", "second"]
    assert read(bench, "gone") == [None]
    assert read(bench) == []
    assert bench.snapshot() == state
    assert bench.heard() == []


def test_what_does_not_fit_is_for_the_next_call(bench):
    bench.put(jobs={"a": "x" * 40, "b": "x" * 60, "c": "x", "d": "x" * 1000})
    assert list(map(len, filter(None, read(bench, "a", "b", "c", "d")))) == [40, 60]
    assert list(map(len, filter(None, read(bench, "c", "d")))) == [1]


def test_a_large_record_is_read_alone(bench):
    bench.put(jobs={"a": "x" * 1000, "b": "x"})
    assert read(bench, "a", "b") == ["x" * 1000]


def test_a_page_of_ghosts_is_read_at_once(bench):
    assert read(bench, *map(str, range(500)), max_bytes=1) == [None] * 500
