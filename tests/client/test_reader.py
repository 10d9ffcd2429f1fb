"""Reading a queue: how a job ended, and how long the oldest has waited, with records of any writer."""

from __future__ import annotations

from typing import Any, cast

import pytest

from beeq.client.reader import Ended, Reader
from beeq.protocol.keys import Keys
from beeq.redis.scripts import Script

pytestmark = pytest.mark.fast

RECORD = b'{"data":{},"options":{"timestamp":500,"stacktraces":["Error: newest\\n  at x","Error: older"]},"status":"failed","progress":0}'
BARE = b'{"data":{},"options":{"timestamp":500,"stacktraces":[]},"status":"succeeded","progress":0}'


class Answer:
    """A line on which every script answers the same."""

    def __init__(self, reply: object) -> None:
        self._reply = reply

    async def run(self, script: Script, _command: bytes) -> object:
        assert script.is_repeatable, "a read may be repeated"
        return self._reply


def reader_of(*reply: object) -> Reader:
    return Reader(cast("Any", Answer(list(reply))), Keys("bq", "q"), scan_count=100)


def reader_where(raw: bytes | None, kept: bytes | None, succeeded: int, failed: int, active: int) -> Reader:
    """Return a reader of a queue that has that of the job."""
    return reader_of(int(raw is not None), kept, succeeded, failed, raw, active)


async def ended(reader: Reader) -> Ended | None:
    job_state = await reader.job_state("1")
    return None if job_state is None else job_state.ended


@pytest.mark.parametrize(
    ("raw", "kept", "has_succeeded", "has_failed"),
    [
        (None, None, 0, 0),  # never was, or gone without a trace
        (BARE, None, 0, 0),  # waiting, active or delayed
        (RECORD, b'500:f"no"', 0, 0),  # queued again by hand: its record says failed still
        (BARE, b"500:s1", 0, 0),
    ],
)
async def test_a_job_that_has_not_ended_has_no_outcome(raw, kept, has_succeeded, has_failed):
    assert await ended(reader_where(raw, kept, has_succeeded, has_failed, 0)) is None


@pytest.mark.parametrize(
    ("raw", "kept", "value"),
    [
        (BARE, b'500:s{"x":[1,18446744073709551616]}', {"x": [1, 2**64]}),
        (BARE, b"500:s0", 0),
        (BARE, b"500:snull", None),
        (BARE, b'500:s"a:b"', "a:b"),
        (BARE, None, None),  # a Node worker's result went with its event
        (BARE, b"499:s1", None),  # of an earlier job of the same id
        (BARE, b'500:f"no"', None),  # of an earlier run: the set has the last word
        (None, b"500:s1", 1),  # the record was dropped on finish
    ],
)
async def test_a_success_has_the_value_that_was_kept_for_this_very_job(raw, kept, value):
    end = await ended(reader_where(raw, kept, 0 if raw is None else 1, 0, 0))
    assert end is not None
    assert (end.value, end.error) == (value, None)


@pytest.mark.parametrize(
    ("raw", "kept", "message"),
    [
        (RECORD, b'500:f"no"', "no"),
        (RECORD, b'500:f"a:b\\n"', "a:b\n"),
        (RECORD, None, "Error: newest\n  at x"),  # a Node worker's: its trace is all there is
        (RECORD, b'499:f"of an earlier job"', "Error: newest\n  at x"),
        (RECORD, b"500:s1", "Error: newest\n  at x"),
        (BARE, None, "the job failed"),
        (b'{"options":{"timestamp":500,"stacktraces":[{"odd":1}]}}', None, "the job failed"),
        (b"NaN", None, "Job 1 has an unreadable record: NaN is not JSON"),
        (None, b'500:f"no"', "no"),
    ],
)
async def test_a_failure_has_the_kept_message_or_the_newest_trace(raw, kept, message):
    end = await ended(reader_where(raw, kept, 0, 0 if raw is None else 1, 0))
    assert end is not None
    assert end.error is not None
    assert (str(end.error), end.error.job_id) == (message, "1")


ODD_TIMESTAMPS = ['"text"', "[1]", '{"a":1}', "1e400", "1e300", "1" + "0" * 400]


@pytest.mark.parametrize("timestamp", ODD_TIMESTAMPS, ids=lambda text: text[:8])
async def test_an_odd_creation_time_keeps_nobody_from_the_result(timestamp):
    """What a worker keeps of such a job carries 0 for its time."""
    raw = b'{"options":{"timestamp":%b,"stacktraces":[]},"status":"succeeded"}' % timestamp.encode()
    end = await ended(reader_where(raw, b"0:s5", 1, 0, 0))
    assert end is not None
    assert end.value == 5


@pytest.mark.parametrize("timestamp", ["1.5", "1.0", "true"])
async def test_a_nearly_numeric_creation_time_is_read_as_by_the_worker(timestamp):
    raw = b'{"options":{"timestamp":%b,"stacktraces":[]},"status":"succeeded"}' % timestamp.encode()
    end = await ended(reader_where(raw, b"1:s5", 1, 0, 0))
    assert end is not None
    assert end.value == 5


@pytest.mark.parametrize(
    ("oldest", "age_ms"),
    [
        (b"", None),  # nothing waits, or a ghost
        (BARE, 500),
        (b'{"options":{"timestamp":1000}}', 0),
        (b'{"options":{"timestamp":5000}}', 0),  # a producer whose clock is ahead
        (b'{"options":{"timestamp":999.5}}', 1),
        (b"{}", None),  # nobody knows
        (b"NaN", None),
        *((b'{"options":{"timestamp":%b}}' % text.encode(), None) for text in ODD_TIMESTAMPS),
    ],
    ids=lambda side: repr(side)[:40],
)
async def test_the_age_of_the_oldest_job_is_told_by_redis_clock(oldest, age_ms):
    stats = await reader_of(3, 2, 1, 4, 5, b"100000000000000", 6, oldest, 7, b"1000").stats()
    assert (stats.oldest_waiting_ms, stats.owed) == (age_ms, 7)
    health = stats.health()
    assert (health.waiting, health.active, health.succeeded, health.failed, health.delayed) == (3, 2, 1, 4, 5)
    assert (health.newest_job, stats.workers) == (100_000_000_000_000, 6)


@pytest.mark.parametrize("kind", ["", "Waiting", "stalling", "jobs", "beeq:claims"])
async def test_ids_of_no_such_state_are_refused_in_bee_queues_words(kind):
    with pytest.raises(ValueError, match="^Improper queue type$"):
        await reader_of().ids(kind, start=0, end=1, size=1)


async def test_a_set_of_no_such_name_is_refused_in_bee_queues_words():
    with pytest.raises(ValueError, match="^Improper queue type$"):
        await reader_of().is_in("1", "jobs")


@pytest.mark.parametrize(
    ("reply", "state", "message"),
    [
        ((BARE, None, 0, 0, 0), "queued", None),
        ((RECORD, b'500:f"no"', 0, 0, 0), "queued", None),
        ((BARE, None, 0, 0, 1), "active", None),
        ((BARE, b"500:s1", 1, 0, 0), "succeeded", None),
        ((BARE, b'500:f"no"', 0, 1, 0), "failed", "no"),
        ((b"NaN", None, 0, 1, 0), "failed", "Job 1 has an unreadable record: NaN is not JSON"),
        ((None, b'500:c"Job 1 was cancelled"', 0, 0, 0), "cancelled", "Job 1 was cancelled"),
        ((None, b"500:s1", 0, 0, 0), "succeeded", None),
        ((BARE, b'499:c"Job 1 was cancelled"', 0, 0, 0), "queued", None),
    ],
)
async def test_where_a_job_stands_is_told(reply, state, message):
    job_state = await reader_where(*reply).job_state("1")
    assert job_state is not None
    error = job_state.ended.error if job_state.ended is not None else None
    assert (job_state.state, str(error) if error else None) == (state, message)


async def test_a_job_that_left_no_trace_stands_nowhere():
    assert await reader_where(None, None, 0, 0, 0).job_state("1") is None


class Redis:
    """A line to a queue that has one job; it counts how often the record was read."""

    def __init__(self, raw: bytes | None, kept: bytes | None, succeeded: int, failed: int) -> None:
        self._reply = [int(raw is not None), kept, succeeded, failed]
        self._raw = raw
        self.records_read = 0

    async def run(self, _script: Script, command: bytes) -> object:
        with_record = command.endswith(b"$1\r\n1\r\n")
        self.records_read += with_record
        return [*self._reply, self._raw if with_record else None, 0]


@pytest.mark.parametrize(
    ("line", "is_there", "value", "message", "records_read"),
    [
        (Redis(None, None, 0, 0), False, None, None, 0),
        (Redis(BARE, None, 0, 0), True, None, None, 0),  # it has not ended
        (Redis(BARE, b"500:s7", 1, 0), True, 7, None, 0),
        (Redis(RECORD, b'500:f"no"', 0, 1), True, None, "no", 0),
        (Redis(None, b"500:s7", 0, 0), True, 7, None, 0),
        (Redis(None, b"400:s7", 0, 0), False, None, None, 0),  # of an earlier job of the id
        (Redis(None, b'0:c"Job 1 was cancelled"', 0, 0), True, None, "Job 1 was cancelled", 0),
        (Redis(None, b'500:c"Job 1 was cancelled"', 0, 0), True, None, "Job 1 was cancelled", 0),
        (Redis(BARE, None, 1, 0), True, "None", None, 0),  # a result of None, or a Node worker's
        (Redis(RECORD, None, 0, 1), True, None, "Error: newest\n  at x", 1),  # a Node worker's failure
        (Redis(BARE, b"400:s7", 1, 0), True, "None", None, 1),  # kept of an earlier job of the id
        (Redis(RECORD, b"500:s7", 0, 1), True, None, "Error: newest\n  at x", 1),
        (Redis(b"NaN", None, 0, 1), True, None, "Job 1 has an unreadable record: NaN is not JSON", 1),
    ],
)
async def test_who_waits_reads_a_record_only_if_nothing_else_tells(
    line, is_there, value, message, records_read
):
    found, end = await Reader(cast("Any", line), Keys("bq", "q"), scan_count=100).look("1", created_ms=500)
    assert found is is_there
    reported = None if end is None else str(end.error or end.value)
    assert reported == (message or (None if value is None else str(value)))
    assert line.records_read == records_read


async def test_a_look_by_an_older_copy_finds_the_later_ones_end():
    line = Redis(BARE, b"500:s7", 1, 0)
    end = await Reader(cast("Any", line), Keys("bq", "q"), scan_count=100).look("1", created_ms=400)
    assert end == (True, Ended(7))


@pytest.mark.parametrize(
    ("begins_in", "moves_at"),
    [("waiting", None), ("waiting", 1), ("beeq:hidden", None), ("beeq:hidden", 1), (None, None)],
)
async def test_a_job_that_a_pause_moves_waits_all_the_time(
    begins_in: str | None, moves_at: int | None
) -> None:
    """It moves between the first look and the second."""
    where, looks = begins_in, 0

    class Line:
        async def call(self, command: str, key: str, job_id: str, *, repeatable: bool) -> int | None:
            nonlocal where, looks
            assert (command, job_id, repeatable) == ("LPOS", "1", True)
            place = 0 if where is not None and key == f"bq:q:{where}" else None
            looks += 1
            if looks == moves_at:
                where = "waiting" if where == "beeq:hidden" else "beeq:hidden"
            return place

    reader = Reader(cast("Any", Line()), Keys("bq", "q"), scan_count=100)
    assert await reader.is_in("1", "waiting") is (begins_in is not None)
