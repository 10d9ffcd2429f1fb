"""Which jobs a filter means; no server is needed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from beeq import OneOf
from beeq.operations.job_filter import STATES, UNFINISHED, JobFilter
from beeq.protocol.codec import Record

pytestmark = pytest.mark.fast


def record(data: Any = None, *traces: str, **members: Any) -> Record:
    return Record({} if data is None else data, {"timestamp": 1, "stacktraces": list(traces)}, **members)


def means(found: Record | None, *, age_ms: int = 0, **filters: Any) -> bool:
    return JobFilter.of(STATES, **filters).matches(found, last_ms=1_000_000 - age_ms, now_ms=1_000_000)


@pytest.mark.parametrize(
    ("where", "is_meant"),
    [
        ({"data.user": 7}, True),
        ({"data.user": "7"}, False),
        ({"data.user": OneOf(("7", 7))}, True),
        ({"data.user": True}, False),
        ({"data.flag": True}, True),
        ({"data.flag": 1}, False),
        ({"data.none": None}, True),
        ({"data.missing": None}, False),
        ({"data.a.b": 1}, True),
        ({"data.a.b": 2}, True),
        ({"data.a.b": 3}, False),
        ({"data.list.1.x": "y"}, True),
        ({"data.list.0": 5}, True),
        ({"data.list.2": 5}, False),
        ({"data.list.x": 5}, False),
        ({"data.user.deeper": 7}, False),
        ({"data": {"user": 7}}, False),
        ({"options.retries": 3}, True),
        ({"status": "created"}, True),
        ({"progress": 0}, True),
        ({"data.user": 7, "status": "failed"}, False),
    ],
)
def test_a_value_is_looked_for_at_its_path(where, is_meant):
    data = {"user": 7, "flag": True, "none": None, "a.b": 1, "a": {"b": 2}, "list": [5, {"x": "y"}]}
    found = record(data)
    found.options["retries"] = 3
    assert means(found, where=where) is is_meant


class Counted(dict[str, Any]):
    """Counts the keys that were looked up in any of them."""

    looked_up = 0

    def __contains__(self, key: object) -> bool:
        Counted.looked_up += 1
        return super().__contains__(key)


def many_readings(parts: int) -> dict[str, Any]:
    return Counted(
        {".".join("a" * end): many_readings(parts - end) if end < parts else 1 for end in range(1, parts + 1)}
    )


def entries(value: Any) -> int:
    return sum(1 + entries(each) for each in value.values()) if isinstance(value, dict) else 0


def test_a_path_of_many_readings_looks_once_at_each_entry():
    data = many_readings(12)
    Counted.looked_up = 0
    assert not means(record(data), where={"data." + ".".join("a" * 90): 2})
    assert 0 < Counted.looked_up <= entries(data)
    assert means(record(data), where={"data." + ".".join("a" * 12): 1})


def test_a_value_too_deep_to_be_compared_is_not_the_same():
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
    assert not means(record({"x": deep}), where={"data.x": [[deep]]})
    assert means(record({"x": deep}), where={"data": OneOf((5, {"x": deep}))})  # the very same


def test_a_list_at_the_top_has_paths_too():
    assert means(record([{"x": 1}]), where={"data.0.x": 1})


@pytest.mark.parametrize(
    ("error", "is_meant"), [("timeout", True), ("TIMEOUT", True), ("older", False), ("line 7", True)]
)
def test_text_is_looked_for_in_the_newest_error(error, is_meant):
    found = record(None, "HTTPError: Timeout of größe\n  at line 7", "Error: older")
    assert means(found, error=error) is is_meant
    assert means(found, error="GRÖSSE")
    assert not means(record(), error=error)


@pytest.mark.parametrize("duration", [1000, timedelta(seconds=1)])
def test_ages_split_the_jobs_in_two(duration):
    for age_ms, is_young in ((999, True), (1000, True), (1001, False)):
        assert means(record(), age_ms=age_ms, since=duration) is is_young
        assert means(record(), age_ms=age_ms, older_than=duration) is not is_young


def test_an_unreadable_record_is_old_and_has_no_data():
    assert means(None)
    assert means(None, age_ms=1_000_000, older_than=1)
    assert not means(None, error="x")
    assert not means(None, where={"status": "failed"})


@pytest.mark.parametrize(
    ("filters", "error", "complaint"),
    [
        ({"state": "active"}, ValueError, "state must be one of waiting, not 'active'"),
        ({"state": ("waiting", "nowhere")}, ValueError, "not 'nowhere'"),
        ({"stat": "waiting"}, TypeError, "unknown filter: stat"),
        ({"error": 5}, TypeError, "error must be a str, not int"),
        ({"where": {"user": 5}}, ValueError, "'user': a path begins with data"),
        ({"where": {5: 5}}, TypeError, "must be a str, not int"),
        ({"where": {"data" + ".a" * 100: 5}}, ValueError, "at most 1000 characters, and 100 parts"),
        ({"where": {"data." + "a" * 1000: 5}}, ValueError, "at most 1000 characters, and 100 parts"),
        ({"limit": 0}, ValueError, "limit must be at least 1"),
        ({"since": "soon"}, (TypeError, ValueError), "since"),
        ({"older_than": -1}, ValueError, "older_than must be at least 0"),
    ],
)
def test_what_cannot_be_is_refused_by_name(filters, error, complaint):
    with pytest.raises(error, match=complaint):
        JobFilter.of(("waiting",), **filters)


def test_all_states_that_may_be_are_meant_unless_some_are_named():
    assert JobFilter.of(UNFINISHED).states == UNFINISHED
    assert JobFilter.of(STATES, state="failed").states == ("failed",)
    assert JobFilter.of(STATES, state=["failed", "active", "failed"]).states == ("failed", "active")
