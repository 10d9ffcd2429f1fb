"""What strangers write to Redis directly: each command goes on, and shows the jobs behind it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from beeq.client.reader import JobState, kept_outcome
from beeq.mirror.documents import change_of
from beeq.protocol.attempts import FailedAttempt, decode_attempts
from beeq.protocol.codec import decode_record
from beeq.protocol.options import backoff_ms_of, whole_in
from tests.cli.command import Beeq


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


DEEP_DATA = b'{"data":%b,"options":{"timestamp":1},"status":"failed"}' % nested(900)
DEEP_TRACE = b'{"data":1,"options":{"timestamp":1,"stacktraces":[%b]},"status":"retrying"}' % nested(900)
DEEP_STATUS = b'{"data":1,"options":{"timestamp":1,"retries":%b},"status":%b}' % (nested(900), nested(900))
PLAIN = b'{"data":{"is":"shown"},"options":{"timestamp":1,"stacktraces":["Error: x"]},"status":"failed"}'


@pytest.fixture
def filled(sync_redis: redis.Redis, queue_name: str) -> Iterator[str]:
    """A queue of failed jobs, three of which are nested deeply, and have hostile bookkeeping."""
    client: Any = sync_redis
    stem = f"bq:{queue_name}"
    jobs = {"deep-data": DEEP_DATA, "deep-trace": DEEP_TRACE, "deep-status": DEEP_STATUS, "plain": PLAIN}
    for job_id, record in jobs.items():
        client.hset(f"{stem}:jobs", job_id, record)
        client.sadd(f"{stem}:failed", job_id)
        client.hset(f"{stem}:beeq:attempts", job_id, b"[1,1,%b,{},[]]" % (b"9" * 5000))
        client.hset(f"{stem}:beeq:claims", job_id, b"w:" + b"9" * 5000)
    client.hset(f"{stem}:beeq:results", "deep-data", b"no JSON")
    client.hset(f"{stem}:beeq:results", "deep-trace", b"1:f" + nested(900))
    yield queue_name
    client.delete(*client.scan_iter(match=f"{stem}:*", count=1000))


def test_the_commands_show_every_job(beeq: Beeq, filled: str) -> None:
    for more in ((), ("--json",)):
        listed = beeq.ok("jobs", filled, *more)
        assert listed.count("deep-") == 3
        assert "Error: x" in listed
        assert "(nested too deeply)" in listed or not more
        for job_id in ("deep-data", "deep-trace", "deep-status"):
            assert job_id in beeq.ok("show", job_id, "--queue", filled, *more)
    assert "plain" in beeq.ok("jobs", filled, "--error", "x")
    ran = beeq.run("retry", filled, "--older-than", "1s", "--dry-run")
    assert (ran.returncode, "plain" in ran.stdout) == (0, True), ran.stderr
    assert "(nested too deeply)" in beeq.ok("show", "deep-data", "--queue", filled)


@pytest.mark.parametrize(
    "kept", [b"", b"x", b"1:", b"1:s", b"1:f5", b"1:x5", b"1:f" + nested(900), b"1:s" + b"9" * 5000]
)
def test_a_result_that_nobody_has_written_is_none(kept: bytes) -> None:
    assert kept_outcome("1", kept, created_ms=None) is None


def test_an_attempt_that_nobody_has_written_is_passed_over() -> None:
    huge = b"9" * 400
    lines = [
        b"[1,%b,2,%b,%b]" % (huge, b'"w"', b'"e"'),
        b'[1,1,%b,"w","e"]' % huge,
        b"[1,1,2,%b,[]]" % nested(900),
    ]
    lines += [b'[1,1,2,{},"e"]', b'[1,1,2,"w","e"]']
    assert decode_attempts(b"\n".join(lines), created_ms=1) == [FailedAttempt("w", 1, 2, "e")]


def test_numbers_that_nobody_counts_to_are_absent() -> None:
    for delay in (10**400, float("inf"), float("nan"), -1, "5", True):
        assert backoff_ms_of({"backoff": {"strategy": "fixed", "delay": delay}}) == 0
    assert backoff_ms_of({"backoff": {"strategy": "fixed", "delay": 7}}) == 7
    assert [whole_in(text) for text in (b"7", b"", b"x", b"-1", b"9" * 5000, b"9" * 16)] == [7, 0, 0, 0, 0, 0]


def test_a_deep_status_has_a_change_in_the_mirror() -> None:
    record = decode_record("1", DEEP_STATUS, now_ms=1)
    assert change_of("mail", "1", JobState("queued", record, None), 1).fingerprint.startswith("queued-")
