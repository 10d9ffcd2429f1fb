"""Job records: exact bytes both ways, and tolerance where bee-queue is tolerant."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beeq.errors import JobUnreadable
from beeq.job import Job
from beeq.protocol.codec import Record, decode_record, encode_new_record, encode_record, payload
from tests.support.samples import NOW_MS, json_values, make_job

pytestmark = pytest.mark.fast

BOTH_WAYS: list[tuple[Record, bytes]] = [
    # Recorded from Node.
    (
        Record(
            {"a": 1},
            {
                "timestamp": 1795488864455,
                "stacktraces": [],
                "retries": 3,
                "backoff": {"strategy": "exponential", "delay": 100},
                "timeout": 50,
                "delay": 1795488964455,
            },
        ),
        b'{"data":{"a":1},"options":{"timestamp":1795488864455,"stacktraces":[],"retries":3,"backoff":{"strategy":"exponential","delay":100},"timeout":50,"delay":1795488964455},"status":"created","progress":0}',
    ),
    # What was never asked for is absent.
    (
        Record({}, {"timestamp": 1, "stacktraces": []}),
        b'{"data":{},"options":{"timestamp":1,"stacktraces":[]},"status":"created","progress":0}',
    ),
    (
        Record([], {"timestamp": 1, "stacktraces": [], "backoff": {"strategy": "immediate"}}),
        b'{"data":[],"options":{"timestamp":1,"stacktraces":[],"backoff":{"strategy":"immediate"}},"status":"created","progress":0}',
    ),
    # Options in the order in which they were first asked for.
    (
        Record("x", {"timestamp": 1, "stacktraces": [], "timeout": 5, "retries": 0}, "retrying", 50),
        b'{"data":"x","options":{"timestamp":1,"stacktraces":[],"timeout":5,"retries":0},"status":"retrying","progress":50}',
    ),
    (
        Record(
            7, {"timestamp": 1, "stacktraces": ["Error: b\n    at x", "Error: a"]}, "failed", {"p": [1, None]}
        ),
        b'{"data":7,"options":{"timestamp":1,"stacktraces":["Error: b\\n    at x","Error: a"]},"status":"failed","progress":{"p":[1,null]}}',
    ),
    (
        Record({"id": 2**64}, {"timestamp": 1, "stacktraces": []}, "succeeded", "done"),
        b'{"data":{"id":18446744073709551616},"options":{"timestamp":1,"stacktraces":[]},"status":"succeeded","progress":"done"}',
    ),
    # Unknown options, also inside backoff, belong to someone.
    (
        Record(
            True,
            {
                "timestamp": 1,
                "stacktraces": [],
                "backoff": {"strategy": "fixed", "delay": 5, "jitter": 0.5},
                "expires": {"at": 9},
            },
        ),
        b'{"data":true,"options":{"timestamp":1,"stacktraces":[],"backoff":{"strategy":"fixed","delay":5,"jitter":0.5},"expires":{"at":9}},"status":"created","progress":0}',
    ),
]


@pytest.mark.parametrize(("record", "raw"), BOTH_WAYS, ids=range(len(BOTH_WAYS)))
def test_records_and_their_bytes_are_each_others(record: Record, raw: bytes) -> None:
    assert encode_record(record) == raw
    assert decode_record("1", raw, now_ms=5) == record


def test_a_jobs_own_setters_write_the_bytes_recorded_from_node() -> None:
    job = make_job(data={"a": 1})
    due_ms = NOW_MS + 100_000
    job.retries(3).backoff("exponential", 100).timeout(50).delay_until(due_ms)
    assert encode_record(job) == BOTH_WAYS[0][1]


def test_setting_an_option_again_keeps_its_place() -> None:
    job = make_job(data={"a": 1})
    job.retries(1).backoff("fixed", 9).timeout(50).delay_until(1795488964455)
    job.backoff("exponential", 100).retries(3)
    assert encode_record(job) == BOTH_WAYS[0][1]


def test_a_time_that_has_passed_leaves_an_earlier_wish_as_it_is() -> None:
    job = make_job()
    job.delay_until(NOW_MS)
    assert "delay" not in job.options
    job.delay_until(NOW_MS + 1).delay_until(NOW_MS - 1)
    assert job.options["delay"] == NOW_MS + 1


def test_a_new_job_begins_with_its_time_and_no_traces() -> None:
    job = Job.new(make_job().owner, None, now_ms=12)
    record = b'{"data":{},"options":{"timestamp":12,"stacktraces":[]},"status":"created","progress":0}'
    assert job.encoded() == (record, 0)
    assert job.options == {"timestamp": 12, "stacktraces": []}
    assert job.options is job.options
    assert job.encoded() == (encode_record(job), 0) == (record, 0)


@pytest.mark.parametrize("data", [{}, [1, "%d"], "ключ", 2**70, {"a": {"b": "\ud800"}}, None], ids=repr)
def test_a_new_record_is_written_as_any_other(data: Any) -> None:
    expected = encode_record(Record(data, {"timestamp": 12, "stacktraces": []}))
    assert encode_new_record(data, 12) == expected


@pytest.mark.parametrize("changed", ["status", "progress"])
def test_what_is_changed_of_a_new_job_is_written(changed: str) -> None:
    job = Job.new(make_job().owner, {"a": 1}, now_ms=12)
    setattr(job, changed, "changed")
    assert decode_record("1", job.encoded()[0], now_ms=0) == Record(
        {"a": 1}, {"timestamp": 12, "stacktraces": []}, job.status, job.progress
    )


def test_options_of_a_new_job_are_its_own() -> None:
    queue = make_job().owner
    one, other = (Job.new(queue, None, now_ms=12) for _ in range(2))
    one.retries(3)
    one.options["stacktraces"].append("trace")
    assert one.encoded()[0] == (
        b'{"data":{},"options":{"timestamp":12,"stacktraces":["trace"],"retries":3},"status":"created","progress":0}'
    )
    assert other.options == {"timestamp": 12, "stacktraces": []}


@pytest.mark.parametrize("falsy", [None, False, 0, 0.0, -0.0, math.nan, ""], ids=repr)
def test_a_payload_falsy_in_javascript_is_an_empty_object(falsy: Any) -> None:
    assert payload(falsy) == {}


@pytest.mark.parametrize(
    "truthy",
    [[], {}, True, 1, -1, 0.5, math.inf, "0", " ", "null", 10**400, ["x"]],
    ids=lambda v: repr(v)[:9],
)
def test_any_other_payload_stays_itself(truthy: Any) -> None:
    assert payload(truthy) is truthy


def test_a_payload_cannot_share_the_empty_object() -> None:
    assert payload(None) is not payload(None)


TOLERATED: list[tuple[bytes, Record]] = [
    (b"{}", Record({}, {"timestamp": 5, "stacktraces": []}, "created", 0)),
    (b'{"data":null}', Record({}, {"timestamp": 5, "stacktraces": []})),
    (b'{"data":0,"options":null}', Record(0, {"timestamp": 5, "stacktraces": []})),
    (b'{"data":[],"options":[]}', Record([], {"timestamp": 5, "stacktraces": []})),
    (b'{"options":"text"}', Record({}, {"timestamp": 5, "stacktraces": []})),
    (b'{"options":{"timestamp":null,"stacktraces":null}}', Record({}, {"timestamp": 5, "stacktraces": []})),
    (b'{"options":{"timestamp":0,"stacktraces":[]}}', Record({}, {"timestamp": 5, "stacktraces": []})),
    (b'{"options":{"timestamp":9}}', Record({}, {"timestamp": 9, "stacktraces": []})),
    # Any value in place of the traces becomes a list: a Node worker would throw for ever.
    (b'{"options":{"stacktraces":"Error: x"}}', Record({}, {"stacktraces": ["Error: x"], "timestamp": 5})),
    (b'{"options":{"stacktraces":{"0":"x"}}}', Record({}, {"stacktraces": [{"0": "x"}], "timestamp": 5})),
    (b'{"options":{"stacktraces":{}}}', Record({}, {"stacktraces": [], "timestamp": 5})),
    (b'{"options":{"stacktraces":true}}', Record({}, {"stacktraces": [True], "timestamp": 5})),
    (b'{"options":{"stacktraces":[true,{"a":1}]}}', Record({}, {"stacktraces": [True, {"a": 1}], "timestamp": 5})),
    # The other options are taken as they are.
    (
        b'{"options":{"retries":null,"backoff":null,"timeout":null,"delay":null,"x":{"y":[]}}}',
        Record({}, {"retries": None, "backoff": None, "timeout": None, "delay": None, "x": {"y": []}, "timestamp": 5, "stacktraces": []}),
    ),
    # Peers up to 1.3 write no progress; status is anybody's text.
    (b'{"data":1,"status":"created"}', Record(1, {"timestamp": 5, "stacktraces": []}, "created", 0)),
    (b'{"status":"odd","progress":{"a":null}}', Record({}, {"timestamp": 5, "stacktraces": []}, "odd", {"a": None})),
    # What Node would drop as well.
    (b'{"data":1,"extra":2}', Record(1, {"timestamp": 5, "stacktraces": []})),
    (b'{"data":1,"data":2}', Record(2, {"timestamp": 5, "stacktraces": []})),
    (rb'{"data":"\ud800"}', Record("\ud800", {"timestamp": 5, "stacktraces": []})),
    (b' {"data" : 18446744073709551617 } ', Record(2**64 + 1, {"timestamp": 5, "stacktraces": []})),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "record"), TOLERATED, ids=lambda side: ascii(side)[:50])
def test_what_bee_queue_tolerates_is_read(raw: bytes, record: Record) -> None:
    assert decode_record("1", raw, now_ms=5) == record


@pytest.mark.parametrize(
    "raw",
    [b"", b"null", b"[]", b'"text"', b"5", b"true", b"NaN", b'{"data":NaN}', b'{"data":Infinity}', b"{'data':1}", b"{", b"\xff\xfe"],
    ids=ascii,
)  # fmt: skip
def test_what_is_no_record_is_refused_with_its_text_unchanged(raw: bytes) -> None:
    with pytest.raises(JobUnreadable, match="Job 77 has an unreadable record") as caught:
        decode_record("77", raw, now_ms=5)
    assert (caught.value.job_id, caught.value.raw) == ("77", raw)


def test_a_refused_text_is_not_in_the_message() -> None:
    """A record may hold secrets; messages are logged."""
    with pytest.raises(JobUnreadable) as caught:
        decode_record("1", b'{"data":{"password":"hunter2"', now_ms=5)
    assert "hunter2" not in str(caught.value)


OPTIONS = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), json_values(), max_size=4)


@settings(deadline=None)
@given(data=json_values(), options=OPTIONS, status=st.text(), progress=json_values())
def test_unknown_options_survive_reading_and_writing(
    data: Any, options: dict[str, Any], status: str, progress: Any
) -> None:
    record = Record(data, {"timestamp": 1, "stacktraces": [], **options}, status, progress)
    read = decode_record("1", encode_record(record), now_ms=5)
    own = ("timestamp", "stacktraces")
    assert {name: read.options[name] for name in options if name not in own} == {
        name: value for name, value in options.items() if name not in own
    }
    assert isinstance(read.options["stacktraces"], list)
    assert (read.data, read.progress) == ({} if data is None else data, progress)


@settings(deadline=None)
@given(st.binary() | json_values().map(lambda value: repr(value).encode("utf-8", "replace")))
def test_any_bytes_are_a_record_or_unreadable(raw: bytes) -> None:
    try:
        record = decode_record("1", raw, now_ms=5)
    except JobUnreadable as error:
        assert error.raw == raw  # noqa: PT017 - either outcome is fine, and each is checked
    else:
        assert encode_record(record).startswith(b'{"data":')
