"""What is kept of the events channels for the mirror, and for how long."""

from __future__ import annotations

import pytest

from beeq.mirror.heard_results import HeardResults
from beeq.protocol.events import ABSENT, encode_event


def heard(**bounds: int) -> HeardResults:
    return HeardResults({"one:events": "one", "two:events": "two"}, **bounds)


@pytest.mark.parametrize("value", [None, 0, "text", {"a": [1, "succeeded"]}, "ключ", ABSENT])
def test_a_result_is_known_by_queue_and_job(value):
    results = heard()
    results.hear("one:events", encode_event("7", "succeeded", value), 0)
    assert results.result_of("one", "7") == (None if value is ABSENT else value)
    assert results.has("one", "7")
    assert not results.has("two", "7")
    assert results.result_of("two", "7") is None


@pytest.mark.parametrize(
    "message",
    [
        encode_event("7", "failed", '"event":"succeeded"'),
        encode_event("7", "progress", "succeeded"),
        b"",
        b"[]",
        b"{",
        b'{"id":true,"event":"succeeded"}',
    ],
)
def test_other_messages_are_left(message):
    results = heard()
    results.hear("one:events", message, 0)
    assert not results.has("one", "7")


@pytest.mark.parametrize("job_id", ['qu"ote', "back\\slash", "ключ", ""])
def test_ids_of_any_text_are_found(job_id):
    results = heard()
    results.hear("one:events", encode_event(job_id, "succeeded", 1), 0)
    assert results.result_of("one", job_id) == 1


def test_a_message_in_another_shape_counts_too():
    results = heard()
    results.hear("one:events", b' { "event": "succeeded", "data": 5, "id": 7 }', 0)
    assert results.result_of("one", "7") == 5


def test_the_oldest_go_when_there_are_too_many_jobs_or_bytes():
    for results in (heard(max_jobs=3), heard(max_bytes=3 * len(encode_event("0", "succeeded", "x")))):
        for n in range(5):
            results.hear("one:events", encode_event(str(n), "succeeded", "x"), 0)
        assert [results.has("one", str(n)) for n in range(5)] == [False, False, True, True, True]


def test_a_message_larger_than_all_room_is_left():
    results = heard(max_bytes=100)
    results.hear("one:events", encode_event("1", "succeeded", "x"), 0)
    results.hear("one:events", encode_event("2", "succeeded", "x" * 100), 0)
    assert results.has("one", "1")
    assert not results.has("one", "2")


def test_what_was_heard_before_another_run_is_forgotten():
    results = heard()
    results.hear("one:events", encode_event("1", "succeeded", "old"), 10)
    results.forget("one", "1", before_s=10)
    assert results.has("one", "1")
    results.forget("one", "1", before_s=11)
    assert not results.has("one", "1")


def test_what_is_old_is_forgotten():
    results = heard()
    results.hear("one:events", encode_event("1", "succeeded"), 0)
    results.hear("one:events", encode_event("2", "succeeded"), 1000)
    results.forget_old(1001)
    assert [results.has("one", job_id) for job_id in "12"] == [False, True]
