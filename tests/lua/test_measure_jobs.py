"""Measuring jobs before they are read: records and results count, wherever they lie."""

from __future__ import annotations

import pytest

from beeq.redis import scripts
from tests.lua.bench import Bench

pytestmark = pytest.mark.fast


def test_a_job_is_as_long_as_its_record_and_results(bench: Bench) -> None:
    state = {
        "jobs": {"a": "x" * 100, "b": "x"},
        "results": {"a": "y" * 20},
        "evenResults": {"c": "z" * 3},
        "oddResults": {"c": "z" * 4},
    }
    bench.put(**state)
    ids = [(job_id,) for job_id in ("c", "gone", "a", "b")]
    assert bench.run(scripts.measure_jobs, ids=ids) == [7, 0, 120, 1]
    assert bench.run(scripts.measure_jobs, ids=[]) == []
    assert bench.snapshot() == state
