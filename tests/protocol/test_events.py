"""Messages of the events channel, exact bytes both ways, and the memory of the latest."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beeq.protocol.events import ABSENT, Backlog, JobEvent, decode_event, encode_event
from tests.support.samples import json_values

pytestmark = pytest.mark.fast

BOTH_WAYS: list[tuple[JobEvent, bytes]] = [
    (JobEvent("4", "progress", {"p": 1}), b'{"id":"4","event":"progress","data":{"p":1}}'),
    (JobEvent("1", "succeeded"), b'{"id":"1","event":"succeeded"}'),
    (JobEvent("1", "succeeded", None), b'{"id":"1","event":"succeeded","data":null}'),
    (JobEvent("1", "succeeded", [1, "é"]), '{"id":"1","event":"succeeded","data":[1,"é"]}'.encode()),
    (JobEvent("1", "succeeded", 0), b'{"id":"1","event":"succeeded","data":0}'),
    (JobEvent("1", "retrying", "no"), b'{"id":"1","event":"retrying","data":"no"}'),
    (JobEvent("1", "failed", "boom\n"), rb'{"id":"1","event":"failed","data":"boom\n"}'),
    (JobEvent("1", "failed"), b'{"id":"1","event":"failed"}'),
    (JobEvent("a:b é", "failed", ""), '{"id":"a:b é","event":"failed","data":""}'.encode()),
    (JobEvent("1", "progress", 2**70), b'{"id":"1","event":"progress","data":1180591620717411303424}'),
    (JobEvent("1", "failed", "\ud800"), rb'{"id":"1","event":"failed","data":"\ud800"}'),
]


@pytest.mark.parametrize(("event", "text"), BOTH_WAYS, ids=lambda side: ascii(side)[:50])
def test_events_and_their_messages_are_each_others(event: JobEvent, text: bytes) -> None:
    assert encode_event(event.job_id, event.name, event.data) == text
    assert decode_event(text) == event


def test_a_message_never_says_nan() -> None:
    """It would be an uncaught exception in every Node process that listens."""
    assert encode_event("1", "progress", math.nan) == b'{"id":"1","event":"progress","data":null}'


def test_data_that_json_has_no_word_for_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        encode_event("1", "progress", object())


@pytest.mark.parametrize(
    ("text", "event"),
    [
        (b'{"id":4,"event":"succeeded"}', JobEvent("4", "succeeded")),  # a numeric id is the same job
        (b'{"id":0,"event":"succeeded"}', JobEvent("0", "succeeded")),
        (b' { "event" : "x" , "id" : "1" , "more" : 1 } ', JobEvent("1", "x")),
        (b'{"id":"1","event":"error","data":"x"}', JobEvent("1", "error", "x")),
        (b'{"id":"","event":""}', JobEvent("", "")),
    ],
)
def test_messages_written_otherwise_are_read(text: bytes, event: JobEvent) -> None:
    assert decode_event(text) == event


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[]",
        b"1",
        b'"text"',
        b"true",
        b"{}",
        b'{"id":"1"}',
        b'{"event":"succeeded"}',
        b'{"id":null,"event":"succeeded"}',
        b'{"id":true,"event":"succeeded"}',
        b'{"id":1.5,"event":"succeeded"}',
        b'{"id":["1"],"event":"succeeded"}',
        b'{"id":{},"event":"succeeded"}',
        b'{"id":"1","event":null}',
        b'{"id":"1","event":5}',
        b'{"id":"1","event":["succeeded"]}',
        b'{"id":"1","event":"succeeded","data":NaN}',
        b'{"id":"1","event":"succeeded","data":Infinity}',
        b"{'id':'1','event':'succeeded'}",
        b'{"id":"1","event":"succeeded"',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
    ids=lambda text: ascii(text)[:50],
)
def test_what_is_no_event_is_ignored(text: bytes) -> None:
    assert decode_event(text) is None


@settings(deadline=None)
@given(st.binary())
def test_no_message_whatever_harms_the_receiver(text: bytes) -> None:
    assert decode_event(text) is None or isinstance(decode_event(text), JobEvent)


@settings(deadline=None)
@given(job_id=st.text(), name=st.text(), data=json_values() | st.just(ABSENT))
def test_every_event_is_read_as_it_was_written(job_id: str, name: str, data: Any) -> None:
    text = encode_event(job_id, name, data)
    assert encode_event(*_parts(decode_event(text))) == text
    assert list(json.loads(text)) == ["id", "event", *(() if data is ABSENT else ("data",))]


def _parts(event: JobEvent | None) -> tuple[str, str, Any]:
    assert event is not None
    return event.job_id, event.name, event.data


@pytest.mark.parametrize(("data", "value"), [(ABSENT, None), (None, None), (0, 0), ("", ""), ([], [])])
def test_nothing_said_and_null_said_are_one_value(data: Any, value: Any) -> None:
    assert JobEvent("1", "succeeded", data).value == value


def test_the_absent_value_names_itself() -> None:
    assert repr(JobEvent("1", "x")) == "JobEvent(job_id='1', name='x', data=ABSENT)"


class TestBacklog:
    """The memory of ends that nobody here waited for yet."""

    def test_it_gives_back_what_was_heard_last_and_keeps_it(self) -> None:
        backlog = Backlog()
        backlog.put(JobEvent("1", "failed", "x"), size_bytes=50, now_ms=0)
        backlog.put(JobEvent("1", "succeeded", 2), size_bytes=50, now_ms=1)
        assert backlog.get("1") == backlog.get("1") == JobEvent("1", "succeeded", 2)
        assert backlog.get("2") is None
        assert len(backlog) == 1

    def test_it_holds_no_more_than_its_number_and_forgets_the_oldest(self) -> None:
        backlog = Backlog(max_jobs=3)
        for n in range(5):
            backlog.put(JobEvent(str(n), "succeeded"), size_bytes=50, now_ms=0)
        assert [n for n in range(5) if backlog.get(str(n))] == [2, 3, 4]
        assert len(backlog) == 3

    def test_hearing_of_a_job_again_makes_it_the_newest(self) -> None:
        backlog = Backlog(max_jobs=2)
        for job_id in ("1", "2", "1", "3"):
            backlog.put(JobEvent(job_id, "succeeded"), size_bytes=50, now_ms=0)
        assert backlog.get("1") is not None
        assert backlog.get("2") is None

    @pytest.mark.parametrize(("age_ms", "is_kept"), [(59_999, True), (60_000, True), (60_001, False)])
    def test_it_holds_nothing_longer_than_its_time(self, age_ms: int, is_kept: bool) -> None:
        backlog = Backlog(max_age_ms=60_000)
        backlog.put(JobEvent("old", "succeeded"), size_bytes=50, now_ms=1000)
        backlog.put(JobEvent("new", "succeeded"), size_bytes=50, now_ms=1000 + age_ms)
        assert (backlog.get("old") is not None) is is_kept
        assert backlog.get("new") is not None

    def test_a_moment_tells_what_was_heard_since_then(self) -> None:
        backlog = Backlog()
        backlog.put(JobEvent("1", "succeeded"), size_bytes=50, now_ms=0)
        then = backlog.moment
        assert backlog.get("1", since=then) is None
        assert backlog.get("1", since=then - 1) is not None
        backlog.put(JobEvent("1", "failed"), size_bytes=50, now_ms=0)
        assert backlog.get("1", since=then) == JobEvent("1", "failed")

    def test_news_up_to_a_moment_can_be_forgotten_and_no_more(self) -> None:
        backlog = Backlog()
        backlog.put(JobEvent("1", "succeeded"), size_bytes=50, now_ms=0)
        then = backlog.moment
        backlog.put(JobEvent("2", "succeeded"), size_bytes=50, now_ms=0)
        backlog.drop_until("2", then)
        assert backlog.get("2") is not None
        backlog.drop_until("1", then)
        assert backlog.get("1") is None
        backlog.drop_until("never heard of", then)
        backlog.clear()
        assert len(backlog) == 0

    def test_it_gives_back_all_that_was_heard_of_a_job_in_order(self) -> None:
        backlog = Backlog()
        backlog.put(JobEvent("1", "progress", 1), size_bytes=50, now_ms=0)
        then = backlog.moment
        backlog.put(JobEvent("2", "progress", 2), size_bytes=50, now_ms=0)
        backlog.put(JobEvent("1", "retrying", "no"), size_bytes=50, now_ms=0)
        backlog.put(JobEvent("1", "succeeded"), size_bytes=50, now_ms=0)
        assert [event.name for event in backlog.all("1")] == ["progress", "retrying", "succeeded"]
        assert [event.name for event in backlog.all("1", since=then)] == ["retrying", "succeeded"]
        assert backlog.all("1", since=backlog.moment) == backlog.all("3") == []
        backlog.drop_until("1", then)
        assert [event.name for event in backlog.all("1")] == ["retrying", "succeeded"]

    def test_of_a_talkative_job_it_holds_the_latest(self) -> None:
        backlog = Backlog(max_events=3)
        for n in range(10):
            backlog.put(JobEvent("1", "progress", n), size_bytes=50, now_ms=0)
        assert [event.data for event in backlog.all("1")] == [7, 8, 9]

    def test_of_large_events_it_holds_the_latest_that_fit(self) -> None:
        backlog = Backlog(max_bytes=1000)
        for n in range(5):
            backlog.put(JobEvent(str(n), "succeeded"), size_bytes=300, now_ms=0)
        assert [n for n in range(5) if backlog.get(str(n))] == [2, 3, 4]
        backlog.put(JobEvent("all", "succeeded"), size_bytes=1000, now_ms=0)
        assert backlog.get("all") is not None
        assert len(backlog) == 1

    def test_an_oversized_event_goes_alone_and_no_older_replaces_it(self) -> None:
        backlog = Backlog(max_bytes=1000)
        for job_id in ("1", "2"):
            backlog.put(JobEvent(job_id, "failed"), size_bytes=300, now_ms=0)
        backlog.put(JobEvent("1", "succeeded"), size_bytes=1001, now_ms=0)
        assert "1" not in backlog.ids
        assert backlog.get("2") is not None

    @pytest.mark.parametrize("how", ["talked on", "forgotten", "forgotten in part", "cleared", "too old"])
    def test_what_it_let_go_of_makes_room(self, how: str) -> None:
        backlog = Backlog(max_bytes=1000, max_events=2, max_age_ms=100)
        backlog.put(JobEvent("1", "progress"), size_bytes=500, now_ms=0)
        then = backlog.moment
        backlog.put(JobEvent("1", "progress"), size_bytes=200, now_ms=0)
        if how == "talked on":
            backlog.put(JobEvent("1", "progress"), size_bytes=200, now_ms=0)
        elif how == "forgotten":
            backlog.drop_until("1", backlog.moment)
        elif how == "forgotten in part":
            backlog.drop_until("1", then)
        elif how == "cleared":
            backlog.clear()
        else:
            backlog.drop(now_ms=101)
        left = backlog.all("1")
        backlog.put(JobEvent("2", "succeeded"), size_bytes=600, now_ms=100)
        backlog.put(JobEvent("3", "succeeded"), size_bytes=400, now_ms=100)
        assert "1" not in backlog.ids
        assert backlog.get("2") is not None
        assert backlog.get("3") is not None
        assert len(left) == {"talked on": 2, "forgotten in part": 1}.get(how, 0)

    @pytest.mark.parametrize(("age_ms", "is_kept"), [(60_000, True), (60_001, False)])
    def test_what_is_too_old_goes_although_nothing_new_comes(self, age_ms: int, is_kept: bool) -> None:
        backlog = Backlog(max_age_ms=60_000)
        backlog.put(JobEvent("1", "succeeded"), size_bytes=50, now_ms=1000)
        backlog.drop(now_ms=1000 + age_ms)
        assert ("1" in backlog.ids) is is_kept

    @pytest.mark.parametrize("back_ms", [0, 1000])
    def test_what_is_put_after_the_clock_went_back_ages_by_it(self, back_ms: int) -> None:
        backlog = Backlog(max_age_ms=100)
        backlog.drop(now_ms=2000)
        backlog.put(JobEvent("1", "succeeded"), size_bytes=50, now_ms=2000 - back_ms)
        backlog.drop(now_ms=2100 - back_ms)
        assert "1" in backlog.ids
        backlog.drop(now_ms=2101 - back_ms)
        assert "1" not in backlog.ids

    @settings(deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 100), st.integers(0, 600)), max_size=60))
    def test_its_bounds_hold_whatever_comes(self, puts: list[tuple[int, int, int]]) -> None:
        backlog, now_ms, heard = Backlog(max_jobs=5, max_age_ms=100, max_events=1, max_bytes=500), 0, {}
        sizes: dict[str, int] = {}
        for job, passed_ms, size_bytes in puts:
            now_ms += passed_ms
            event = JobEvent(str(job), "succeeded", now_ms)
            backlog.put(event, size_bytes=size_bytes, now_ms=now_ms)
            heard[event.job_id] = event
            sizes[event.job_id] = size_bytes
            assert len(backlog) <= 5
            assert sum(sizes[job_id] for job_id in heard if job_id in backlog.ids) <= 500
            assert backlog.get(event.job_id) == (event if size_bytes <= 500 else None)
            for job_id, latest in heard.items():
                assert backlog.get(job_id) in (None, latest)
                assert backlog.get(job_id) is None or latest.data >= now_ms - 100
