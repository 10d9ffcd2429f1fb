"""Where ids are, and repairing it: each id only if it is still where it was seen."""

from __future__ import annotations

from typing import Any

import pytest

from beeq.redis import scripts
from tests.lua.bench import Bench

pytestmark = pytest.mark.fast


def places(bench: Bench, *ids: str, with_lists: str = "1") -> Any:
    return bench.run(scripts.find_places, with_lists=with_lists, ids=[(each,) for each in ids])


def repair(bench: Bench, wanted: str, *jobs: tuple[str, str]) -> Any:
    return bench.run(scripts.repair_jobs, wanted=wanted, jobs=list(jobs))


STATE: dict[str, Any] = {
    "jobs": {"a": "r", "b": "r", "c": "r"},
    "waiting": ["a", "ghost", "a", "a", "b"],
    "hidden": ["h"],
    "active": ["b"],
    "delayed": {"b": 5},
    "succeeded": {"b"},
    "failed": {"a"},
}


def test_each_place_has_its_digit(bench: Bench) -> None:
    bench.put(**STATE)
    assert places(bench, "a", "b", "c", "ghost", "h", "gone") == [
        "1200001",
        "1101110",
        "1000000",
        "0100000",
        "0010000",
        "0000000",
    ]
    assert places(bench, "a", "b", "h", with_lists="") == ["1000001", "1000110", "0000000"]
    assert bench.snapshot() == STATE


def test_strays_are_those_in_no_set(bench: Bench) -> None:
    bench.put(**STATE)
    cursor, count, ids = bench.run(scripts.scan_strays, cursor="0", count=10, max_bytes=1000)
    assert (cursor, count, ids) == ("0", 3, ["c"])
    assert bench.snapshot() == STATE
    bench.drop("jobs")
    assert bench.run(scripts.scan_strays, cursor="0", count=10, max_bytes=1000) == ["0", 0, []]


def test_of_several_places_the_wanted_one_stays(bench: Bench) -> None:
    bench.put(**STATE, stalling={"b"}, claims={"b": "x.1:1"})
    assert repair(bench, "active", ("b", "1101110")) == [1]
    assert bench.snapshot() == {
        **{name: STATE[name] for name in ("jobs", "hidden", "active", "failed")},
        "waiting": ["a", "ghost", "a", "a"],
        "stalling": {"b"},
        "claims": {"b": "x.1:1"},
    }


@pytest.mark.parametrize(
    ("wanted", "left"),
    [
        ("waiting", {"waiting": ["a"], "stalling": {"z"}}),
        ("hidden", {"hidden": ["a"], "stalling": {"z"}}),
        ("delayed", {"delayed": {"a": 5}, "stalling": {"z"}}),
        ("succeeded", {"succeeded": {"a"}, "stalling": {"z"}}),
        ("failed", {"failed": {"a"}, "stalling": {"z"}}),
        ("active", {"active": ["a"], "stalling": {"a", "z"}}),
    ],
)
def test_each_place_can_be_the_one_that_stays(bench: Bench, wanted: str, left: dict[str, Any]) -> None:
    everywhere = {
        "waiting": ["a", "a"],
        "hidden": ["a"],
        "active": ["a", "a", "a"],
        "delayed": {"a": 5},
        "succeeded": {"a"},
        "failed": {"a"},
    }
    bench.put(jobs={"a": "r"}, stalling={"a", "z"}, **everywhere)
    assert repair(bench, wanted, ("a", "1212111")) == [1]
    assert bench.snapshot() == {"jobs": {"a": "r"}, **left}


def test_the_copy_that_runs_next_stays(bench: Bench) -> None:
    bench.put(jobs={"a": "r", "b": "r"}, waiting=["a", "b", "a"])
    assert repair(bench, "waiting", ("a", "1200000")) == [1]
    assert bench.snapshot()["waiting"] == ["b", "a"]


def test_an_id_without_a_record_goes(bench: Bench) -> None:
    bench.put(**STATE, claims={"ghost": "x.1:1", "a": "y.1:1"})
    assert repair(bench, "", ("ghost", "0100000"), ("h", "0010000")) == [1, 1]
    state = {**STATE, "waiting": ["a", "a", "a", "b"], "claims": {"a": "y.1:1"}}
    del state["hidden"]
    assert bench.snapshot() == state


@pytest.mark.parametrize("wanted", ["waiting", "succeeded", "failed"])
def test_a_record_that_is_nowhere_is_put_there(bench: Bench, wanted: str) -> None:
    bench.put(jobs={"c": "r", "d": "r"}, waiting=["d"])
    assert repair(bench, wanted, ("c", "1000000")) == [1]
    after = bench.snapshot()
    assert after["waiting"] == (["c", "d"] if wanted == "waiting" else ["d"])
    assert wanted == "waiting" or after[wanted] == {"c"}


def test_what_has_moved_meanwhile_is_left_alone(bench: Bench) -> None:
    bench.put(**STATE)
    seen = [("a", "1000000"), ("b", "1100000"), ("ghost", "0000000"), ("gone", "0100000")]
    assert repair(bench, "waiting", *seen) == [0, 0, 0, 0]
    assert bench.snapshot() == STATE
